//! Bytes to upright RGB images, within limits.
//!
//! A [`Document`] goes by the content, never by a name: PNG, JPEG, WebP, TIFF, BMP, GIF, PNM and,
//! with the feature `pdf`, PDF; also as base64 text or as a `data:` URI. Its pages are decoded one
//! by one, when they are asked for. The order of things:
//!
//! 1. The input's size is checked, then the format, then width and height from the header, before
//!    room for the pixels is made.
//! 2. Samples become 8 bits: those of 16 are rounded, `(v + 128) / 257`. Grey, palette and CMYK
//!    images become RGB; CMYK and YCCK JPEGs are taken as inverted, as Adobe writes them.
//! 3. Transparency is laid over white, or dropped as the reference does ([`Alpha`]).
//! 4. The image is turned upright by its EXIF orientation.
//!
//! The pages of a PDF are drawn on white at a resolution of choice ([`Rendering::dpi`]). A PDF can be
//! made so that its renderer asks for more memory or stack than there is, which ends the process:
//! who draws strangers' PDFs should do it in a process apart, as the command `agx-ocr` does, and
//! hand the images to [`Ocr::read_decoded`](crate::Ocr::read_decoded).
//!
//! Of an animation the first frame is read, with a warning.
//!
//! Two kinds of damage are not always an error. If at least half of its rows are there, a JPEG that
//! breaks off is read, and so is a Group 3 fax with damaged lines, each with a warning.

mod decode;
mod document;
#[cfg(feature = "pdf")]
mod pdf;
mod sniff;
mod structure;
mod tiff;

pub use decode::DecodedImage;
pub use document::Document;
pub use sniff::{Format, without_base64};

/// What a [`Document`] may be. It keeps those that it was opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the input, as it comes: 50 million.
    pub bytes: u64,
    /// Pixels of the width: 30,000.
    pub width: u32,
    /// Pixels of the height: 30,000.
    pub height: u32,
    /// Pixels of a page: 100 million.
    pub pixels: u64,
    /// Pages that are read of a document: 1,000. A document may have more, of which some are
    /// chosen ([`Document::check_pages`]).
    pub pages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 50_000_000,
            width: 30_000,
            height: 30_000,
            pixels: 100_000_000,
            pages: 1000,
        }
    }
}

impl Limits {
    /// Width and height of a page, before room is made for its pixels.
    fn check(&self, format: Format, width: u32, height: u32) -> Result<(), InputError> {
        if width == 0 || height == 0 {
            return Err(InputError::Corrupt {
                format,
                reason: "it has no pixels".into(),
            });
        }
        let pixels = u64::from(width) * u64::from(height);
        if width > self.width || height > self.height || pixels > self.pixels {
            return Err(InputError::Dimensions {
                width,
                height,
                limits: self.clone(),
            });
        }
        Ok(())
    }

    /// The size of an input.
    pub(crate) fn check_bytes(&self, actual: u64) -> Result<(), InputError> {
        let limit = self.bytes;
        if actual > limit {
            return Err(InputError::TooLarge { actual, limit });
        }
        Ok(())
    }
}

/// How a page of a document becomes an image.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rendering {
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// Pixels an inch of a PDF's pages, 1 at least: 144, as in the vendor's scripts.
    pub dpi: f32,
}

impl Default for Rendering {
    fn default() -> Self {
        Self {
            alpha: Alpha::default(),
            dpi: 144.0,
        }
    }
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alpha {
    /// The image is laid over white paper.
    #[default]
    OverWhite,
    /// Colours are taken as they are, seen or not: what the reference does.
    Drop,
}

/// What can be read, for people.
const FORMATS: &str = if cfg!(feature = "pdf") {
    "PNG, JPEG, WebP, TIFF, BMP, GIF, PNM or PDF"
} else {
    "PNG, JPEG, WebP, TIFF, BMP, GIF or PNM"
};

/// Why an input, or a page of it, gives no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// No bytes, or white space only.
    #[error("the input is empty: give the bytes of an image")]
    Empty,
    /// More bytes than the limit.
    #[error("the input is too large: {actual} bytes, where at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the input.
        actual: u64,
        /// [`Limits::bytes`].
        limit: u64,
    },
    /// The bytes are of no format that can be read.
    #[error(
        "the input is not an image that can be read: it looks like {looks_like}; \
         give {FORMATS}"
    )]
    NotAnImage {
        /// What the bytes look like, such as `HTML`.
        looks_like: &'static str,
    },
    /// The format is known, but its data are broken or break off.
    #[error("corrupt or invalid {format}: {reason}")]
    Corrupt {
        /// The format.
        format: Format,
        /// What the decoder says.
        reason: String,
    },
    /// The format is known, but not this kind of it.
    #[error("this kind of {format} cannot be read: {reason}; convert it to PNG")]
    Unsupported {
        /// The format.
        format: Format,
        /// What the decoder says.
        reason: String,
    },
    /// More pixels than the limits.
    #[error(
        "the image is too large: {width}x{height} pixels, where at most {}x{} and {} in all \
         are allowed", limits.width, limits.height, limits.pixels
    )]
    Dimensions {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limits.
        limits: Limits,
    },
    /// No page can be drawn at this resolution.
    #[error("{dpi} pixels an inch are no resolution: choose 1 or more")]
    Resolution {
        /// [`Rendering::dpi`].
        dpi: f32,
    },
    /// The document cannot be opened without a password.
    #[error("the {format} is encrypted ({reason}): save it without a password, and read that")]
    Encrypted {
        /// The format.
        format: Format,
        /// What stands in the way.
        reason: &'static str,
    },
    /// The document has no such page.
    #[error("there is no page {page}: the document has {pages}")]
    NoSuchPage {
        /// The page, counted from 1.
        page: usize,
        /// Pages of the document.
        pages: usize,
    },
    /// More pages than the limit.
    #[error(
        "the document is too large: {actual} pages, where at most {limit} are allowed at a time"
    )]
    TooManyPages {
        /// Pages that were to be read.
        actual: usize,
        /// [`Limits::pages`].
        limit: usize,
    },
}
