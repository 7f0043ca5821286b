//! The pages as they come from the reader, and the result that they make up.

use super::{
    Format, Measured, Output, files, print,
    render::{line, render},
};
use crate::{failure::Failure, log, pages::PageRead};
use agx_ocr_pipeline::Page;
#[cfg(feature = "pdf")]
use agx_ocr_pipeline::export::SearchablePdf;
use anyhow::anyhow;
use image::RgbImage;
use std::{mem, ops::ControlFlow, path::PathBuf};

/// What was read so far.
pub struct Results<'a> {
    output: &'a Output,
    pages: Vec<PageRead>,
    /// The files of each page.
    files: Vec<Vec<PathBuf>>,
    warnings: Vec<String>,
    /// Bytes of the result, at most.
    bytes: usize,
    /// Pages that could be read.
    read: usize,
    /// Pages that are out already, one by one.
    printed: usize,
    #[cfg(feature = "pdf")]
    pdf: SearchablePdf,
}

impl<'a> Results<'a> {
    /// No page yet.
    pub fn new(output: &'a Output) -> Self {
        Self {
            output,
            pages: Vec::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            bytes: 0,
            read: 0,
            printed: 0,
            #[cfg(feature = "pdf")]
            pdf: SearchablePdf::new(output.dpi),
        }
    }

    /// Whether a page was read.
    pub fn any(&self) -> bool {
        self.read > 0
    }

    /// Notes what a reader should know, in a whole sentence.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Takes a page. It is the last one, if the result would become too large, or nobody reads it.
    /// A page whose files cannot be written counts as one that could not be read.
    ///
    /// # Errors
    /// When standard output cannot be written, or not even one page has room.
    pub fn add(&mut self, mut read: PageRead) -> Result<ControlFlow<()>, Failure> {
        let number = self.pages.len() + 1;
        let picture = read.picture.take();
        if let Ok(page) = &mut read.page {
            round(page);
            if let (Some(dir), Some(picture)) = (&self.output.assets, &picture) {
                files::link_figures(page, picture, number, dir);
            }
        }
        let bytes = self.bytes_alone(&read, picture.as_ref())?;
        let most = self.output.most_bytes;
        if self.bytes + bytes > most {
            if !self.any() {
                return Err(too_large(bytes, most));
            }
            self.leave_out(&read);
            return Ok(ControlFlow::Break(()));
        }
        self.bytes += bytes;
        let mut written = Vec::new();
        if let (Ok(page), Some(picture)) = (&read.page, picture)
            && let Err(failure) = self.draw(page, picture, number, &mut written)
        {
            files::remove(mem::take(&mut written));
            read.page = Err(failure);
        }
        self.read += usize::from(read.page.is_ok());
        self.pages.push(read);
        self.files.push(written);
        if self.output.format == Format::Jsonl {
            return self.print_lines();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Draws a page into the files and the PDF that are asked for.
    fn draw(
        &mut self,
        page: &Page,
        picture: RgbImage,
        number: usize,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), Failure> {
        if let Some(dir) = &self.output.assets {
            files::write_figures(page, &picture, number, dir, written)?;
        }
        if let Some(path) = &self.output.overlay {
            files::write_overlay(page, picture.clone(), number, path, written)?;
        }
        #[cfg(feature = "pdf")]
        if self.output.format == Format::Pdf {
            self.pdf.add_page(page, &picture).map_err(Failure::failed)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, read: &PageRead) {
        let (name, most) = (read.place.name(), self.output.most_bytes);
        self.warn(format!(
            "{name} and those after it were left out: the result would be larger than {most} bytes \
             (--max-output-bytes)."
        ));
    }

    /// Prints the pages that are not out yet. Until one is read all may fail, and then nothing may
    /// be printed.
    fn print_lines(&mut self) -> Result<ControlFlow<()>, Failure> {
        if !self.any() {
            return Ok(ControlFlow::Continue(()));
        }
        for read in &mut self.pages[self.printed..] {
            self.printed += 1;
            if print(&line(read)?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // What is out need not be kept.
            if let Ok(page) = &mut read.page {
                *page = Page::default();
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Bytes of a result of this page alone: those of several together are about the sum.
    fn bytes_alone(&self, read: &PageRead, picture: Option<&RgbImage>) -> Result<usize, Failure> {
        match (self.output.format, &read.page, picture) {
            (Format::Jsonl, ..) => Ok(line(read)?.len()),
            #[cfg(feature = "pdf")]
            (Format::Pdf, Ok(page), Some(picture)) => {
                let mut alone = SearchablePdf::new(self.output.dpi);
                // What is wrong with the page is said when it is added.
                let added = alone.add_page(page, picture).is_ok();
                Ok(if added { alone.finish().len() } else { 0 })
            }
            (format, ..) => Ok(render(format, std::slice::from_ref(read), &[], None)?.len()),
        }
    }

    /// Prints the result; warnings that have no place in it go to standard error.
    ///
    /// # Errors
    /// What was wrong with the pages, if none was read; or standard output cannot be written.
    pub fn finish(mut self, measured: Option<Measured>) -> Result<(), Failure> {
        if !self.any() {
            let failures = self.pages.into_iter().filter_map(|read| {
                let named = read.paged.then(|| read.place.name());
                Some(match named {
                    Some(name) => read
                        .page
                        .err()?
                        .context(format!("{name} could not be read")),
                    None => read.page.err()?,
                })
            });
            let nothing = || Failure::failed(anyhow!("{}", self.warnings.join(" ")));
            return Err(failures.reduce(Failure::and).unwrap_or_else(nothing));
        }
        for read in &self.pages {
            if let Err(failure) = &read.page {
                let name = read.place.name();
                self.warnings
                    .push(format!("{name} could not be read: {failure}"));
            }
        }
        // A page alone is all of the result.
        if let [read] = &mut self.pages[..]
            && let (false, Ok(page)) = (read.paged, &mut read.page)
        {
            page.warnings.splice(0..0, self.warnings.drain(..));
        }
        let result = match self.output.format {
            Format::Jsonl => Vec::new(),
            #[cfg(feature = "pdf")]
            Format::Pdf => mem::replace(&mut self.pdf, SearchablePdf::new(1.0)).finish(),
            _ => self.fitting(measured.as_ref())?,
        };
        if !matches!(self.output.format, Format::Json { .. }) {
            self.say_warnings();
        }
        print(&result).map(|_| ())
    }

    /// The result of as many pages as have room: what stands between them, and warnings, were not
    /// counted.
    fn fitting(&mut self, measured: Option<&Measured>) -> Result<Vec<u8>, Failure> {
        let (format, most) = (self.output.format, self.output.most_bytes);
        loop {
            let result = render(format, &self.pages, &self.warnings, measured)?;
            if result.len() <= most {
                return Ok(result);
            }
            files::remove(self.files.pop().unwrap_or_default());
            let last = self.pages.pop().filter(|_| !self.pages.is_empty());
            let last = last.ok_or_else(|| too_large(result.len(), most))?;
            self.leave_out(&last);
        }
    }

    /// Says what the result has no place for.
    fn say_warnings(&self) {
        if self.output.format != Format::Jsonl {
            for read in &self.pages {
                let warnings = read.page.iter().flat_map(|page| &page.warnings);
                for warning in warnings {
                    match read.paged {
                        true => log::warning(format_args!("{}: {warning}", read.place.name())),
                        false => log::warning(warning),
                    }
                }
            }
        }
        for warning in &self.warnings {
            log::warning(warning);
        }
    }
}

fn too_large(bytes: usize, most: usize) -> Failure {
    Failure::failed(anyhow!(
        "the result is too large: {bytes} bytes, where at most {most} are allowed \
         (--max-output-bytes)"
    ))
}

/// Confidences to four decimals: more would only say how the machine adds.
fn round(page: &mut Page) {
    let rounded = |confidence: f32| (confidence * 1e4).round() / 1e4;
    page.confidence = rounded(page.confidence);
    for region in &mut page.regions {
        region.confidence = rounded(region.confidence);
    }
}

#[cfg(test)]
mod tests;
