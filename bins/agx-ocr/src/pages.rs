//! A page that was read, or could not be: what the reader gives and the output takes.

use crate::failure::Failure;
use agx_ocr_pipeline::Page;
use image::RgbImage;
use serde::Serialize;

/// A page, or why it could not be read.
pub struct PageRead {
    pub place: Place,
    /// Whether it is one of several, or may be.
    pub paged: bool,
    pub page: Result<Page, Failure>,
    /// The upright page, where the output needs it.
    pub picture: Option<RgbImage>,
}

/// Where a page comes from.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Place {
    /// The input as it was named, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The page's number in its document, from 1.
    pub page: usize,
}

impl Place {
    /// What a message calls the page.
    pub fn name(&self) -> String {
        match &self.input {
            Some(input) => format!("Page {} of {input}", self.page),
            None => format!("Page {}", self.page),
        }
    }
}
