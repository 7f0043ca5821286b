//! All pages of all inputs, decoded as they are asked for.

use crate::{
    bounds::Watch,
    config::Config,
    document::Document,
    failure::Failure,
    input::{self, Source},
    pages::Place,
    ranges::chosen,
};
use agx_ocr_pipeline::input::DecodedImage;
use anyhow::anyhow;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    vec,
};
use tracing::info;

/// The pages that the configuration names, in the order of the inputs.
pub struct Feed<'a> {
    config: &'a Config,
    watch: Watch,
    /// What is called with warnings about pages that are not read.
    warn: Box<dyn FnMut(String) + Send + 'a>,
    inputs: slice::Iter<'a, Source>,
    /// The first one's bytes.
    first: Option<Result<Vec<u8>, Failure>>,
    stdin: Option<Result<Vec<u8>, Failure>>,
    document: Option<Open<'a>>,
    /// Pages so far.
    pages: usize,
    /// Whether pages are only to be named, for nobody will read them.
    naming: &'a AtomicBool,
}

/// A document, and those of its pages that are still to be read.
struct Open<'a> {
    source: &'a Source,
    document: Document,
    numbers: vec::IntoIter<usize>,
    /// How many there were.
    count: usize,
    paged: bool,
}

/// A page.
pub struct Fed {
    pub place: Place,
    /// Whether it is one of several, or may be.
    pub paged: bool,
    /// Its place among the pages of its document that are read, from 1, and their number.
    pub of: (usize, usize),
    pub image: Result<DecodedImage, Failure>,
}

/// The bytes of an input; those of standard input are read already.
pub fn bytes(
    source: &Source,
    config: &Config,
    stdin: &mut Option<Result<Vec<u8>, Failure>>,
) -> Result<Vec<u8>, Failure> {
    match source {
        Source::Stdin => stdin.take().unwrap_or_else(|| Ok(Vec::new())),
        Source::File(path) => input::from_file(path, config.options.limits.bytes),
    }
}

impl<'a> Feed<'a> {
    /// `first` is what is in the first input; `stdin` what came on standard input, if that is
    /// another one.
    pub fn new(
        config: &'a Config,
        watch: Watch,
        first: Result<Vec<u8>, Failure>,
        stdin: Option<Result<Vec<u8>, Failure>>,
        naming: &'a AtomicBool,
        warn: impl FnMut(String) + Send + 'a,
    ) -> Self {
        Self {
            config,
            watch,
            warn: Box::new(warn),
            inputs: config.sources.iter(),
            first: Some(first),
            stdin,
            document: None,
            pages: 0,
            naming,
        }
    }

    fn place(&self, source: &Source, page: usize) -> Place {
        let several = self.config.sources.len() > 1;
        Place {
            input: several.then(|| source.to_string()),
            page,
        }
    }

    /// The next page of the open document.
    fn next_page(&mut self) -> Option<Fed> {
        let open = self.document.as_mut()?;
        let left = open.numbers.len();
        let number = open.numbers.next()?;
        let of = (open.count - left + 1, open.count);
        let (source, paged) = (open.source, open.paged);
        let place = self.place(source, number);
        if of.0 > 1 && self.time_is_over() {
            let more = if left > 1 { " and those after it" } else { "" };
            let over = self.watch.bounds.time_is_over();
            let name = place.name();
            (self.warn)(format!("{name}{more} could not be read: {over}."));
            self.document = None;
            return None;
        }
        if self.naming.load(Relaxed) {
            let unread = Failure::failed(anyhow!("it was not read"));
            return Some(Fed {
                place,
                paged,
                of,
                image: Err(unread),
            });
        }
        info!(page = number, "decoding");
        let (open, watch) = (self.document.as_mut()?, &self.watch);
        // A defect is the page's failure, and what was read before stays.
        let decode = || open.document.page(number, watch);
        let image = catch_unwind(AssertUnwindSafe(decode));
        Some(Fed {
            place,
            paged,
            of,
            image: image.unwrap_or_else(|_| Err(Failure::internal())),
        })
    }

    /// Opens the next input; one that cannot be opened is a page that failed.
    fn next_input(&mut self) -> Option<Result<(), Fed>> {
        let source = self.inputs.next()?;
        let first = self.first.take();
        let bytes = first.unwrap_or_else(|| bytes(source, self.config, &mut self.stdin));
        let opened = catch_unwind(AssertUnwindSafe(|| {
            bytes.and_then(|bytes| self.open(bytes))
        }));
        let several = self.config.sources.len() > 1;
        let opened = opened.unwrap_or_else(|_| Err(Failure::internal()));
        Some(match opened {
            Ok((document, pages)) => {
                self.document = Some(Open {
                    source,
                    paged: several || document.is_paged(),
                    document,
                    count: pages.len(),
                    numbers: pages.into_iter(),
                });
                Ok(())
            }
            Err(failure) => Err(Fed {
                place: self.place(source, 1),
                paged: several,
                of: (1, 1),
                image: Err(failure),
            }),
        })
    }

    /// A document, and those of its pages that are to be read.
    fn open(&mut self, bytes: Vec<u8>) -> Result<(Document, Vec<usize>), Failure> {
        if self.time_is_over() {
            let over = self.watch.bounds.time_is_over();
            return Err(Failure::failed(anyhow!(over)));
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
        self.watch.time_left() == Some(std::time::Duration::ZERO)
    }
}

impl Iterator for Feed<'_> {
    type Item = Fed;

    fn next(&mut self) -> Option<Fed> {
        loop {
            if let Some(page) = self.next_page() {
                return Some(page);
            }
            if let Err(failed) = self.next_input()? {
                return Some(failed);
            }
        }
    }
}
