//! From a page's image to the tokens that the decoder reads.
//!
//! | module | what |
//! |---|---|
//! | [`resize`], [`views`] | an image as the square views that the encoder sees, to the pixel as the reference makes them |
//! | [`bands`] | a tall page cut between its text rows |
//! | [`sam`], [`clip`] | the two encoders, one behind the other |
//! | [`VisionEncoder`] | views to vision tokens `[n, hidden]` |
//!
//! # Example
//!
//! ```
//! use agx_ocr_backend::{Activations, Checkpoint, Unobserved};
//! use agx_ocr_vision::{VisionConfig, VisionEncoder, views::{self, ViewMode}};
//! use candle_core::Device;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny"));
//! # if !dir.exists() { return Ok(()) }
//! let config = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
//! let config = VisionConfig::from_json(&config)?;
//! // The vision half of the checkpoint alone.
//! let checkpoint = Checkpoint::open(dir)?.without(&["model.layers", "model.embed_tokens", "model.norm", "lm_head"]);
//! let encoder = checkpoint.build(&Device::Cpu, Activations::F32, |loader| {
//!     VisionEncoder::new(&config, &loader.sub("model"))
//! })??;
//!
//! let page = image::RgbImage::from_pixel(300, 200, image::Rgb([255; 3]));
//! let views = views::prepare(&page, &ViewMode::TINY)?;
//! let tokens = encoder.encode(&views, &Unobserved, &mut |_, _| ())?;
//! assert_eq!(tokens.dims(), [73, 64]);
//! # Ok(())
//! # }
//! ```

pub mod bands;
pub mod clip;
mod config;
mod cost;
mod encoder;
mod error;
mod positions;
pub mod resize;
pub mod sam;
pub mod views;

pub use config::{ClipConfig, SamConfig, VisionConfig};
pub use encoder::VisionEncoder;
pub use error::{Error, Result};
