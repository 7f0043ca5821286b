//! How to print.

use std::path::PathBuf;

/// How to print.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// What to print.
    pub format: Format,
    /// With times, and the machine's limits.
    pub stats: bool,
    /// Bytes of the result.
    pub most_bytes: usize,
    /// Where figures go.
    pub assets: Option<PathBuf>,
    /// Where pages with their regions drawn go.
    pub overlay: Option<PathBuf>,
    /// Pixels an inch of the pages' images.
    pub dpi: f32,
}

impl Output {
    /// Whether the pages' images are needed, beside what was read.
    pub fn wants_pictures(&self) -> bool {
        #[cfg(feature = "pdf")]
        if self.format == Format::Pdf {
            return true;
        }
        self.assets.is_some() || self.overlay.is_some()
    }
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json {
        /// In lines.
        pretty: bool,
    },
    /// A JSON document a page.
    Jsonl,
    /// The text alone.
    Text,
    /// The text as markdown.
    Markdown,
    /// HTML with places.
    Hocr,
    /// XML with places.
    Alto,
    /// Images with their text.
    #[cfg(feature = "pdf")]
    Pdf,
}
