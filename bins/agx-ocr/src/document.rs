//! A document, and its pages as images.

use crate::{bounds::Watch, drawing::PdfPages, failure::Failure};
use agx_ocr_pipeline::{
    self as pipeline, Error, Limits, Rendering,
    input::{DecodedImage, Format, without_base64},
};

/// A document whose pages are decoded when they are wanted.
pub struct Document {
    content: Content,
    rendering: Rendering,
}

enum Content {
    Images(pipeline::Document),
    Pdf(PdfPages),
}

impl Document {
    /// Opens what is in `bytes`.
    pub fn open(
        bytes: Vec<u8>,
        limits: &Limits,
        rendering: Rendering,
        watch: &Watch,
    ) -> Result<Self, Failure> {
        let bytes = without_base64(bytes).map_err(Error::from)?;
        // A build without PDF says so itself.
        let is_pdf = cfg!(feature = "pdf") && Format::of(&bytes) == Some(Format::Pdf);
        let content = if is_pdf {
            Content::Pdf(PdfPages::open(bytes, limits, rendering.dpi, watch)?)
        } else {
            Content::Images(pipeline::Document::open(bytes, limits).map_err(Error::from)?)
        };
        Ok(Self { content, rendering })
    }

    /// The number of pages, at least 1.
    pub fn pages(&self) -> usize {
        match &self.content {
            Content::Images(images) => images.pages(),
            Content::Pdf(pages) => pages.count(),
        }
    }

    /// Whether it may have several pages by its nature, or has.
    pub fn is_paged(&self) -> bool {
        match &self.content {
            Content::Images(images) => images.is_paged(),
            Content::Pdf(_) => true,
        }
    }

    /// Decodes a page, counted from 1.
    pub fn page(&mut self, number: usize, watch: &Watch) -> Result<DecodedImage, Failure> {
        match &mut self.content {
            Content::Images(images) => {
                let page = images.page(number, &self.rendering);
                Ok(page.map_err(Error::from)?)
            }
            Content::Pdf(pages) => pages.draw(number, watch),
        }
    }
}
