//! A document: one page, or many.

#[cfg(feature = "pdf")]
use super::pdf::Pdf;
use super::{DecodedImage, Format, InputError, Limits, Rendering, decode, sniff, tiff};
use crate::ocr::milliseconds;
use image::ImageFormat;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// The pages in the bytes of an image or a PDF.
///
/// ```
/// use agx_ocr_pipeline::input::{Document, Format, Limits, Rendering};
///
/// let bytes = b"P2 2 1 255 0 255";
/// let document = Document::open(&bytes[..], &Limits::default())?;
/// assert_eq!((document.format(), document.pages()), (Format::Pnm, 1));
/// let page = document.page(1, &Rendering::default())?;
/// assert_eq!(page.image.as_raw(), &[0, 0, 0, 255, 255, 255]);
/// # Ok::<(), agx_ocr_pipeline::input::InputError>(())
/// ```
pub struct Document {
    format: Format,
    content: Content,
    limits: Limits,
}

enum Content {
    Image(Vec<u8>, ImageFormat),
    /// The file, and where its directories lie.
    Tiff(Vec<u8>, Vec<usize>),
    #[cfg(feature = "pdf")]
    Pdf(Pdf),
}

impl Document {
    /// Opens the document in `bytes`, which may be base64 text or a `data:` URI too. No page is
    /// decoded yet. The limits hold for the bytes here, and for the pages later.
    /// [`Ocr::open`](crate::Ocr::open) takes those of a loaded model's options.
    ///
    /// # Errors
    /// When the bytes are too many, of no format that can be read, encrypted, or so damaged that
    /// no pages can be found.
    pub fn open(bytes: impl Into<Vec<u8>>, limits: &Limits) -> Result<Self, InputError> {
        let bytes = bytes.into();
        limits.check_bytes(bytes.len() as u64)?;
        let bytes = sniff::without_base64(bytes)?;
        if bytes.trim_ascii().is_empty() {
            return Err(InputError::Empty);
        }
        let Some(format) = Format::of(&bytes) else {
            return Err(InputError::NotAnImage {
                looks_like: sniff::looks_like(&bytes),
            });
        };
        let content = match format.decoder() {
            Some(ImageFormat::Tiff) => {
                let pages = tiff::pages(&bytes);
                Content::Tiff(bytes, pages)
            }
            Some(decoder) => Content::Image(bytes, decoder),
            None => pdf(bytes)?,
        };
        Ok(Self {
            format,
            content,
            limits: limits.clone(),
        })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The number of pages, at least 1.
    pub fn pages(&self) -> usize {
        match &self.content {
            Content::Image(..) => 1,
            // What is wrong with a file without directories is said when its page is decoded.
            Content::Tiff(_, directories) => directories.len().max(1),
            #[cfg(feature = "pdf")]
            Content::Pdf(pdf) => pdf.pages(),
        }
    }

    /// Checks that so many pages, which are to be read, are no more than [`Limits::pages`].
    ///
    /// # Errors
    /// [`InputError::TooManyPages`].
    pub fn check_pages(&self, count: usize) -> Result<(), InputError> {
        let limit = self.limits.pages;
        if count > limit {
            let actual = count;
            return Err(InputError::TooManyPages { actual, limit });
        }
        Ok(())
    }

    /// Whether it may have several pages by its nature, or has: a PDF, a TIFF of several images.
    pub fn is_paged(&self) -> bool {
        self.format == Format::Pdf || self.pages() > 1
    }

    /// Decodes the page with this number, counted from 1.
    ///
    /// # Errors
    /// When there is no such page, it is too large or damaged; other pages may be well. When the
    /// resolution is none.
    pub fn page(&self, number: usize, rendering: &Rendering) -> Result<DecodedImage, InputError> {
        let pages = self.pages();
        if !(1..=pages).contains(&number) {
            return Err(InputError::NoSuchPage {
                page: number,
                pages,
            });
        }
        let (limits, alpha) = (&self.limits, rendering.alpha);
        let started = Instant::now();
        let mut page = unpanicked(self.format, || match &self.content {
            Content::Image(bytes, decoder) => {
                decode::decode(bytes, self.format, *decoder, limits, alpha)
            }
            Content::Tiff(bytes, directories) => {
                let bytes = match directories.get(number - 1) {
                    Some(directory) => tiff::only(bytes, *directory),
                    None => bytes.into(),
                };
                decode::decode(&bytes, self.format, ImageFormat::Tiff, limits, alpha)
            }
            #[cfg(feature = "pdf")]
            Content::Pdf(pdf) => pdf.page(number - 1, rendering.dpi, limits),
        })?;
        page.decode_ms = milliseconds(started);
        Ok(page)
    }
}

#[cfg(feature = "pdf")]
fn pdf(bytes: Vec<u8>) -> Result<Content, InputError> {
    unpanicked(Format::Pdf, || Pdf::open(bytes)).map(Content::Pdf)
}

#[cfg(not(feature = "pdf"))]
fn pdf(_: Vec<u8>) -> Result<Content, InputError> {
    Err(InputError::Unsupported {
        format: Format::Pdf,
        reason: "this build reads no PDF".into(),
    })
}

/// A decoder's defect on some input is that input's error.
fn unpanicked<T>(
    format: Format,
    decode: impl FnOnce() -> Result<T, InputError>,
) -> Result<T, InputError> {
    // Nothing that was being changed outlives the panic.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(InputError::Corrupt {
            format,
            reason: "the decoder gave up on it".into(),
        })
    })
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("format", &self.format)
            .field("pages", &self.pages())
            .finish_non_exhaustive()
    }
}
