//! Reads all pages of all inputs on a thread of its own: one after the other, or several together.

use crate::{
    bounds::Watch,
    config::Config,
    failure::Failure,
    feed::{self, Fed, Feed},
    input::Source,
    output::Measured,
    pages::{PageRead, Place},
    progress::{Progress, Together},
};
use agx_ocr_pipeline::{BatchEvent, Error, Event, Ocr, Page, input::DecodedImage};
use anyhow::anyhow;
use image::RgbImage;
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
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
    let (first, others) = config
        .sources
        .split_first()
        .unwrap_or((&Source::Stdin, &[]));
    progress.stage("loading the model");
    let started = Instant::now();
    // What is wrong with the only input is said beside what is wrong with the model.
    let (ocr, first_bytes) = match (load(config), feed::bytes(first, config, &mut stdin)) {
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

    let watch = Watch::begin(config.bounds, Duration::ZERO);
    let warn = |warning| {
        let _ = messages.send(Message::Warning(warning));
    };
    let naming = AtomicBool::new(false);
    let feed = Feed::new(config, watch, first_bytes, stdin, &naming, warn);
    let reader = Reader {
        config,
        ocr: &ocr,
        messages,
        watch,
    };
    match config.batch {
        1 => reader.one_by_one(feed, progress.clone()),
        _ => reader.together(feed, &naming, &progress),
    }
    progress.end();
    Ok(config.output.stats.then(|| {
        Box::new(Measured {
            load_ms,
            machine: ocr.machine(),
            weight_bytes: ocr.weight_bytes(),
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
    ocr: &'a Ocr,
    messages: &'a SyncSender<Message>,
    watch: Watch,
}

/// A page and its image, where the output needs that, or why it could not be read.
type Read = Result<(Page, Option<RgbImage>), Failure>;

impl Reader<'_> {
    /// Reads page after page. It ends where nobody listens.
    fn one_by_one(&self, feed: Feed<'_>, mut progress: Progress) {
        for fed in feed {
            if fed.paged {
                progress.page(fed.of.0, fed.of.1);
            }
            let read = fed.image.and_then(|image| {
                // A defect is the page's failure, and what was read before stays.
                let read = catch_unwind(AssertUnwindSafe(|| self.read_page(image, &mut progress)));
                read.unwrap_or_else(|_| Err(Failure::internal()))
            });
            if self.send(fed.place, fed.paged, read).is_break() {
                return;
            }
        }
    }

    fn read_page(&self, image: DecodedImage, progress: &mut Progress) -> Read {
        let config = self.config;
        let mut options = config.options.read.clone();
        info!(task = config.task.name(), "reading");
        // Decoding has taken some of it.
        options.time = self.watch.time_left();
        let listen = |event: Event<'_>| {
            log_event(&event);
            progress.event(&event);
            ControlFlow::Continue(())
        };
        let page = self
            .ocr
            .read_decoded(&image, &config.task, &options, listen);
        self.read(page.map(|page| (page, image)))
    }

    /// Reads pages together, and sends them in their order. It ends where nobody listens. The next page
    /// is decoded meanwhile, on a thread of its own.
    fn together(&self, feed: Feed<'_>, naming: &AtomicBool, progress: &Progress) {
        thread::scope(|scope| {
            let (sender, fed) = mpsc::sync_channel(1);
            let decode = move || {
                for fed in feed {
                    if sender.send(fed).is_err() {
                        break;
                    }
                }
            };
            let decoder = thread::Builder::new()
                .name("agx-ocr-decoder".into())
                .stack_size(STACK);
            match decoder.spawn_scoped(scope, decode) {
                Ok(_) => self.read_together(fed, naming, progress),
                Err(error) => {
                    let failure = Failure::no_thread(error).to_string();
                    let _ = self.messages.send(Message::Warning(failure));
                }
            }
        });
    }

    fn read_together(&self, fed: Receiver<Fed>, naming: &AtomicBool, progress: &Progress) {
        let mut fed = fed.into_iter();
        let config = self.config;
        let mut options = config.options.read.clone();
        options.time = self.watch.time_left();
        info!(task = config.task.name(), batch = config.batch, "reading");
        let queue = Mutex::new(Queue::default());
        let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut together = Together::default();
        let read = catch_unwind(AssertUnwindSafe(|| {
            let pages = fed.by_ref().filter_map(|fed| lock().push(fed).map(Ok));
            let tell = |event: BatchEvent<'_>| {
                together.event(&event, progress);
                match event {
                    BatchEvent::Page { event, .. } => log_event(&event),
                    BatchEvent::End { index, read } => lock().end(index, self.read(read)),
                    _ => {}
                }
                self.send_ready(&mut lock())
            };
            let (task, size) = (&config.task, config.batch);
            self.ocr.read_batch(pages, task, &options, size, tell)
        }));
        let failed = match read {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Failure::from(error)),
            Err(_) => Some(Failure::internal()),
        };
        let mut queue = lock();
        if let Some(failure) = failed {
            naming.store(true, Relaxed);
            for fed in fed {
                queue.push(Fed {
                    image: Err(failure.again()),
                    ..fed
                });
            }
            queue.fail_all(&failure);
        }
        let _ = self.send_ready(&mut queue);
    }

    /// Sends what is read and has nothing before it that is not.
    fn send_ready(&self, queue: &mut MutexGuard<'_, Queue>) -> ControlFlow<()> {
        while let Some((place, paged, read)) = queue.pop() {
            self.send(place, paged, read)?;
        }
        ControlFlow::Continue(())
    }

    /// What was read, in this program's terms.
    fn read(&self, read: agx_ocr_pipeline::Result<(Page, DecodedImage)>) -> Read {
        let (page, decoded) = read.map_err(|error| match error {
            Error::Timeout(_) => Failure::failed(anyhow!(self.watch.bounds.time_is_over())),
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
        let wanted = self.config.output.wants_pictures();
        Ok((page, wanted.then_some(decoded.image)))
    }

    fn send(&self, place: Place, paged: bool, read: Read) -> ControlFlow<()> {
        let (page, picture) = match read {
            Ok((page, picture)) => (Ok(page), picture),
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

/// Pages in their order, until they are read and sent.
#[derive(Default)]
struct Queue {
    /// Those that are not sent, by their number.
    pages: BTreeMap<usize, (Place, bool, Option<Read>)>,
    /// Pages so far, and those of them that could be decoded.
    count: usize,
    decoded: Vec<usize>,
}

impl Queue {
    /// Takes a page in, and gives its image.
    fn push(&mut self, fed: Fed) -> Option<DecodedImage> {
        let (image, failed) = match fed.image {
            Ok(image) => (Some(image), None),
            Err(failure) => (None, Some(Err(failure))),
        };
        if image.is_some() {
            self.decoded.push(self.count);
        }
        let page = (fed.place, fed.paged, failed);
        self.pages.insert(self.count, page);
        self.count += 1;
        image
    }

    /// Notes what was read of the `index`th page that could be decoded.
    fn end(&mut self, index: usize, read: Read) {
        let page = self.decoded.get(index);
        if let Some((_, _, slot)) = page.and_then(|number| self.pages.get_mut(number)) {
            *slot = Some(read);
        }
    }

    /// All that was not read could not be.
    fn fail_all(&mut self, failure: &Failure) {
        for (_, _, read) in self.pages.values_mut() {
            read.get_or_insert_with(|| Err(failure.again()));
        }
    }

    /// The first page, if it is read.
    fn pop(&mut self) -> Option<(Place, bool, Read)> {
        let first = self.pages.first_entry()?;
        first.get().2.as_ref()?;
        let (place, paged, read) = first.remove();
        Some((place, paged, read?))
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
