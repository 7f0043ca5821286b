//! Pages that are read together.

mod pages;

use crate::{Event, Ocr, Page, ReadOptions, Result, input::DecodedImage};
use agx_ocr_text::Task;
use pages::{Pages, Stop};
use std::ops::ControlFlow;

/// What happens while pages are read together. Pages are counted from 0, as they were given.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "they are passed on, not kept")]
pub enum BatchEvent<'a> {
    /// Something about a page. Where the caller wants no more, its reading ends, and what was read
    /// by then is the page.
    Page {
        /// Which page.
        index: usize,
        /// What happens.
        event: Event<'a>,
    },
    /// A page was read, or could not be. Where the caller wants no more, all reading ends.
    End {
        /// Which page.
        index: usize,
        /// What was read, and where.
        read: Result<(Page, DecodedImage)>,
    },
}

type Tell<'a> = dyn FnMut(BatchEvent<'_>) -> ControlFlow<()> + 'a;

impl Ocr {
    /// Reads pages together, `size` of them at a time: the decoder's weights are read once for all, for
    /// prompts and for tokens, and a page that ends makes room for the next one, which is asked for only
    /// then. Pages come in the order in which they end. One that fails does not take the others with it.
    /// The time of [`ReadOptions::time`] is for all of them, from the call on.
    ///
    /// Where a GPU's memory is full, fewer pages are read at a time, and a page that has to wait begins
    /// its band anew: its tokens are told of once more. With random sampling answers take turns there.
    /// Of the times in [`Page::stats`] each counts what passed meanwhile, work on other pages among it.
    ///
    /// `pages` and `tell` are called on a thread of the model's, and must not read with it.
    ///
    /// # Errors
    /// When options are out of range, or a device fails: of the pages under way nothing is told then.
    ///
    /// ```no_run
    /// # use agx_ocr_pipeline::{BatchEvent, Ocr, Options, ReadOptions, Task};
    /// # use std::ops::ControlFlow;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ocr = Ocr::load("models/deepseek-ocr", Options::default())?;
    /// let document = ocr.open(std::fs::read("contract.pdf")?)?;
    /// let options = ReadOptions::default();
    /// let draw = |number| Ok(document.page(number, &options.rendering)?);
    /// let pages = (1..=document.pages()).map(draw);
    /// ocr.read_batch(pages, &Task::Markdown, &options, 8, |event| {
    ///     if let BatchEvent::End { index, read: Ok((page, _)) } = event {
    ///         println!("page {}: {}", index + 1, page.text);
    ///     }
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_batch(
        &self,
        pages: impl IntoIterator<Item = Result<DecodedImage>, IntoIter: Send>,
        task: &Task,
        options: &ReadOptions,
        size: usize,
        mut tell: impl FnMut(BatchEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        let (mut pages, size) = (pages.into_iter().enumerate(), size.max(1));
        self.compute(|| {
            let mut all = Pages::new(self, task, options, size)?;
            match all.read(&mut pages, &mut tell) {
                Ok(()) | Err(Stop::Left) => Ok(()),
                Err(Stop::Failed(error)) => Err(error),
            }
        })
    }
}

#[cfg(test)]
mod tests;
