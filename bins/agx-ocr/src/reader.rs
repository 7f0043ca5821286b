//! Reads all pages of all inputs, one after the other, on a thread of its own.

use crate::{
    bounds::Watch,
    config::Config,
    document::Document,
    failure::Failure,
    input::{self, Source},
    output::Measured,
    pages::{PageRead, Place},
    progress::Progress,
    ranges::chosen,
};
use agx_ocr_pipeline::{Error, Event, Ocr, Page, input::DecodedImage};
use anyhow::anyhow;
use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{debug, info, trace};

/// Room for parsers that go deep.
pub const STACK: usize = 64 << 20;

/// What the reader has to say.
pub enum Message {
    /// The model is loaded, and the time for reading begins.
    Loaded,
    /// A page was read, or could not be.
    Page(Box<PageRead>),
    /// A sentence for the result's warnings.
    Warning(String),
    /// All is read. It comes last, and may be why nothing was read.
    End(Result<Option<Box<Measured>>, Failure>),
}

/// Reads what the configuration names; `stdin` is what came on standard input, if it is among
/// that.
pub fn spawn(
    config: Arc<Config>,
    stdin: Option<Result<Vec<u8>, Failure>>,
    progress: Progress,
) -> Result<Receiver<Message>, Failure> {
    // One page waits to be printed while the next is read.
    let (messages, received) = mpsc::sync_channel(1);
    let read = move || {
        let end = read(&config, stdin, progress, &messages);
        let _ = messages.send(Message::End(end));
    };
    let started = thread::Builder::new()
        .name("agx-ocr-reader".into())
        .stack_size(STACK)
        .spawn(read);
    started.map_err(Failure::no_thread)?;
    Ok(received)
}

fn read(
    config: &Config,
    mut stdin: Option<Result<Vec<u8>, Failure>>,
    progress: Progress,
    messages: &SyncSender<Message>,
) -> Result<Option<Box<Measured>>, Failure> {
    let mut bytes = |source: &Source| match source {
        Source::Stdin => stdin.take().unwrap_or_else(|| Ok(Vec::new())),
        Source::File(path) => input::from_file(path, config.options.limits.bytes),
    };
    let (first, others) = config
        .sources
        .split_first()
        .unwrap_or((&Source::Stdin, &[]));
    progress.stage("loading the model");
    let started = Instant::now();
    // What is wrong with the only input is said beside what is wrong with the model.
    let (ocr, first_bytes) = match (load(config), bytes(first)) {
        (Err(model), Err(input)) if others.is_empty() => return Err(model.and(input)),
        (_, Err(input)) if others.is_empty() => return Err(input),
        (Err(model), _) => return Err(model),
        (Ok(ocr), bytes) => (ocr, bytes),
    };
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    info!(model = ocr.name(), load_ms, "loaded");
    if let Some(why) = ocr.fallback() {
        let warning = format!("It was read on the CPU: {why}.");
        let _ = messages.send(Message::Warning(warning));
    }
    let _ = messages.send(Message::Loaded);

    let mut reader = Reader {
        config,
        ocr,
        messages,
        progress,
        watch: Watch::begin(config.bounds, Duration::ZERO),
        pages: 0,
    };
    let mut flow = reader.read_input(first, first_bytes);
    for source in others {
        if flow.is_continue() {
            flow = reader.read_input(source, bytes(source));
        }
    }
    reader.progress.end();
    Ok(config.output.stats.then(|| {
        Box::new(Measured {
            load_ms,
            machine: reader.ocr.machine(),
            weight_bytes: reader.ocr.weight_bytes(),
        })
    }))
}

fn load(config: &Config) -> Result<Ocr, Failure> {
    let Some(path) = &config.model else {
        return Err(Failure::invalid(anyhow!(
            "no model: give its directory with --model-path PATH or in MODEL_PATH"
        )));
    };
    Ok(Ocr::load(path, config.options.clone())?)
}

struct Reader<'a> {
    config: &'a Config,
    ocr: Ocr,
    messages: &'a SyncSender<Message>,
    progress: Progress,
    watch: Watch,
    /// Pages so far.
    pages: usize,
}

impl Reader<'_> {
    /// Reads the pages of an input. It ends where nobody listens.
    fn read_input(&mut self, source: &Source, bytes: Result<Vec<u8>, Failure>) -> ControlFlow<()> {
        let several = self.config.sources.len() > 1;
        let place = |page| Place {
            input: several.then(|| source.to_string()),
            page,
        };
        let document = bytes.and_then(|bytes| self.open(bytes));
        let (mut document, pages) = match document {
            Ok(opened) => opened,
            Err(failure) => return self.send(place(1), several, Err(failure)),
        };
        let paged = several || document.is_paged();
        for (i, number) in pages.iter().enumerate() {
            if i > 0 && self.time_is_over() {
                let (name, left) = (place(*number).name(), pages.len() - i);
                let of = if left > 1 { " and those after it" } else { "" };
                let over = self.watch.bounds.time_is_over();
                let warning = format!("{name}{of} could not be read: {over}.");
                return match self.messages.send(Message::Warning(warning)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                };
            }
            if paged {
                self.progress.page(i + 1, pages.len());
            }
            // A defect is the page's failure, and what was read before stays.
            let read = catch_unwind(AssertUnwindSafe(|| self.read_page(&mut document, *number)));
            let read = read.unwrap_or_else(|_| Err(Failure::internal()));
            self.send(place(*number), paged, read)?;
        }
        ControlFlow::Continue(())
    }

    /// A document, and those of its pages that are to be read.
    fn open(&mut self, bytes: Vec<u8>) -> Result<(Document, Vec<usize>), Failure> {
        if self.time_is_over() {
            return Err(self.over());
        }
        let limits = &self.config.options.limits;
        let rendering = self.config.options.read.rendering;
        let document = Document::open(bytes, limits, rendering, &self.watch)?;
        let count = document.pages();
        let pages = chosen(&self.config.pages, count).map_err(|range| {
            Failure::invalid(anyhow!(
                "there is no --pages {range}: the document has {count}"
            ))
        })?;
        let (actual, limit) = (self.pages + pages.len(), limits.pages);
        if actual > limit {
            return Err(Failure::invalid(anyhow!(
                "the input is too large: {actual} pages in all, where at most {limit} are \
                 allowed: choose some with --pages, or raise --max-pages"
            )));
        }
        self.pages = actual;
        Ok((document, pages))
    }

    fn time_is_over(&self) -> bool {
        self.watch.time_left() == Some(Duration::ZERO)
    }

    fn over(&self) -> Failure {
        Failure::failed(anyhow!(self.watch.bounds.time_is_over()))
    }

    fn read_page(
        &mut self,
        document: &mut Document,
        number: usize,
    ) -> Result<(Page, DecodedImage), Failure> {
        let config = self.config;
        let mut options = config.options.read.clone();
        info!(page = number, task = config.task.name(), "reading");
        let image = document.page(number, &self.watch)?;
        // Decoding has taken some of it.
        options.time = self.watch.time_left();
        let progress = &mut self.progress;
        let listen = |event: Event<'_>| {
            log_event(&event);
            progress.event(&event);
            ControlFlow::Continue(())
        };
        let page = self
            .ocr
            .read_decoded(&image, &config.task, &options, listen);
        let page = page.map_err(|error| match error {
            Error::Timeout(_) => self.over(),
            error => error.into(),
        })?;
        info!(
            regions = page.regions.len(),
            tokens = page.tokens.generated,
            finish_reason = ?page.finish_reason,
            warnings = page.warnings.len(),
            "read"
        );
        debug!(stats = ?page.stats, "times");
        Ok((page, image))
    }

    fn send(
        &self,
        place: Place,
        paged: bool,
        read: Result<(Page, DecodedImage), Failure>,
    ) -> ControlFlow<()> {
        let (page, picture) = match read {
            Ok((page, decoded)) => {
                let wanted = self.config.output.wants_pictures();
                (Ok(page), wanted.then_some(decoded.image))
            }
            Err(failure) => (Err(failure), None),
        };
        let read = PageRead {
            place,
            paged,
            page,
            picture,
        };
        match self.messages.send(Message::Page(Box::new(read))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Logs a step; never what was read.
fn log_event(event: &Event<'_>) {
    match *event {
        Event::Image {
            width,
            height,
            bands,
        } => info!(width, height, bands, "page"),
        Event::View { done, total } => debug!(done, total, "view"),
        Event::Prefill { tokens } => debug!(tokens, "prompt"),
        Event::Token { count, .. } => trace!(count, "token"),
        _ => {}
    }
}
