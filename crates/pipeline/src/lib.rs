//! OCR with DeepSeek-OCR: the bytes of an image in, the page's text and regions out.
//!
//! # Example
//!
//! ```
//! use agx_ocr_pipeline::{Ocr, Options, Task};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
//! # if !std::path::Path::new(fixtures).exists() { return Ok(()) }
//! # std::env::set_current_dir(fixtures)?;
//! let ocr = Ocr::load("models/agx-ocr-mini", Options::default())?;
//! let bytes = std::fs::read("pages/line-total.png")?;
//!
//! let page = ocr.read(&bytes, &Task::Text)?;
//! assert_eq!(page.text, "Invoice total: $1,284.50");
//!
//! // With places: one region a line.
//! let page = ocr.read(&bytes, &Task::Ocr)?;
//! for region in &page.regions {
//!     println!("{:?} {:.2} {}", region.bbox, region.confidence, region.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! | | |
//! |---|---|
//! | [`Ocr`] | a loaded model; `Send + Sync`, reads many pages |
//! | [`Options`], [`ReadOptions`] | how to load, how to read |
//! | [`Task`] | what to ask of the model: text, markdown, lines with places … |
//! | [`Page`], [`Region`] | what it read, with a confidence |
//! | [`Stats`], [`Machine`] | what a page cost, and what share of the machine's limits that was |
//! | [`export`] | hOCR, ALTO, markdown with figures, overlays, searchable PDFs |
//! | [`Event`] | what happens meanwhile: views, tokens |
//! | [`input`] | bytes to upright images, page by page, with limits |
//!
//! # Features
//!
//! | | |
//! |---|---|
//! | `cuda` | NVIDIA GPUs, where [`Options::device`] says so or leaves it open |
//! | `fax` | Group 3 fax in TIFF |
//! | `pdf` | PDF in and searchable PDF out; has `fax`, too |
//! | `schema` | `JsonSchema` for the results |
//!
//! # Caveats
//!
//! * The real model reads best with its default views and tasks; [`Repetition`] guards against
//!   its habit of repeating itself, and a page cut by the most tokens says so in its warnings.
//! * A confidence is the geometric mean of token probabilities: good to compare, no probability
//!   that a text is right.
//! * Regions are what the model says: blocks in markdown, lines in [`Task::Ocr`].

mod band;
mod batch;
mod damage;
mod error;
pub mod export;
pub mod input;
mod join;
mod machine;
mod memory;
mod model_dir;
mod ocr;
mod options;
mod page;
mod reading;
mod until;

pub use agx_ocr_backend::{Capability, Code, DeviceChoice, GpuInfo, NoGpu, gpus};
pub use agx_ocr_language::{FinishReason, Sampling};
pub use agx_ocr_text::Task;
pub use agx_ocr_vision::views::{Fit, ViewMode};
pub use batch::BatchEvent;
pub use error::{Error, ErrorKind, Result};
pub use input::{Alpha, Document, Limits, Rendering};
pub use machine::{ComputeBound, CoreKind, Gflops, Machine, MemoryBound, Stages};
pub use memory::available_memory;
pub use ocr::Ocr;
pub use options::{Mode, Options, Precision, ReadOptions, Repetition, Split};
pub use page::{Event, Page, Region, Stats, TokenCounts};
