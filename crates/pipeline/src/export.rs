//! What people do with pages once they are read: other formats, searchable PDFs, pictures of the
//! regions, figures cut out.
//!
//! Everything here is a function of pages and pictures. No file is read or written, and the same
//! input gives the same bytes.
//!
//! | | |
//! |---|---|
//! | [`hocr`] | all pages as hOCR, which is XHTML with places |
//! | [`alto`] | all pages as ALTO XML, the format of libraries |
//! | `SearchablePdf` | pictures of pages with their text, invisible, above them; feature `pdf` |
//! | [`overlay`](fn@overlay) | the regions drawn on the picture of a page |
//! | [`figures`] | the figures of a page, cut out |
//! | [`markdown`] | the text of a page with links to its figures |
//!
//! # Example
//!
//! ```
//! use agx_ocr_pipeline::{Page, export};
//! use image::RgbImage;
//!
//! fn save(page: &Page, picture: &RgbImage) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut saved = Vec::new();
//!     for (index, figure) in export::figures(page, picture) {
//!         figure.save(format!("images/{index}.png"))?;
//!         saved.push(index);
//!     }
//!     let link = |index| saved.contains(&index).then(|| format!("images/{index}.png"));
//!     std::fs::write("page.md", export::markdown(page, link))?;
//!     std::fs::write("page.hocr", export::hocr(std::slice::from_ref(page)))?;
//!     Ok(())
//! }
//! ```
//!
//! # Places
//!
//! The model gives boxes of blocks, or of lines with [`Task::Ocr`](crate::Task::Ocr), and none of
//! words. Where a format wants lines, a region's box is divided evenly, from top to bottom, among
//! those lines of its text that are not blank. No word boxes are made up.
//!
//! A box is clamped to the page; one whose edges are in the wrong order counts as if they were in
//! the right one.

mod alto;
mod canvas;
pub(crate) mod figure;
mod hocr;
mod line;
mod overlay;
#[cfg(feature = "pdf")]
mod pdf;
mod xml;

pub use alto::alto;
pub use figure::{figures, markdown};
pub use hocr::hocr;
pub use overlay::overlay;
#[cfg(feature = "pdf")]
pub use pdf::{PdfError, SearchablePdf};

/// The program, as the formats name it.
const SOFTWARE: &str = "agx-ocr";
/// Its version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
