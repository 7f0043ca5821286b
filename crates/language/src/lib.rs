//! The decoder of DeepSeek-OCR: vision tokens and a prompt in, an answer's tokens out.
//!
//! A mixture of experts with plain multi-head attention. [`Decoder::forward`] is the model,
//! [`Decoder::generate`] the decoding loop: greedy or sampled, with the n-gram guards of the
//! reference, an end to answers that go round in circles ([`StopCycles`]), and the log-probability
//! of every token. [`Batch`] decodes several answers together.
//!
//! # Example
//!
//! ```
//! use agx_ocr_backend::{Activations, Checkpoint, Unobserved};
//! use agx_ocr_language::{Decoder, GenerateOptions, LanguageConfig, Prompt};
//! use candle_core::{DType, Device, Tensor};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny"));
//! # if !dir.exists() { return Ok(()) }
//! let config = LanguageConfig::from_json(&serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?)?;
//! // The language half of the checkpoint alone.
//! let vision = ["model.sam_model", "model.vision_model", "model.projector", "model.image_newline", "model.view_seperator"];
//! let decoder = Checkpoint::open(dir)?.without(&vision).build(&Device::Cpu, Activations::F32, |loader| {
//!     Decoder::new(&config, loader)
//! })?;
//!
//! let vision = Tensor::zeros((2, config.hidden_size), DType::F32, &Device::Cpu)?;
//! let prompt = Prompt { ids: &[0, 496, 496, 5], image: 1..3, vision: &vision };
//! let options = GenerateOptions::new(1, 4);
//! let answer = decoder.generate(&prompt, &options, &Unobserved, &mut |_, _| ControlFlow::Continue(()))?;
//! assert!(answer.ids.len() <= 4);
//! # Ok(())
//! # }
//! ```
//!
//! # Caveats
//!
//! The cache is f32 and holds `max_new_tokens` and the prompt; its pages become resident as
//! positions fill. One [`Decoder`] serves many threads, each generation with a cache of its own.

mod batch;
mod config;
mod cost;
mod cycle;
mod decoder;
mod decoding;
mod error;
mod generate;
mod ngram;
mod sampling;

pub use batch::{Batch, Ended, OnToken, Ticket};
pub use config::LanguageConfig;
pub use cycle::{Repeated, StopCycles};
pub use decoder::{Decoder, Wanted};
pub use error::{Error, Result};
pub use generate::{Answer, FinishReason, GenerateOptions, Prompt};
pub use ngram::{NgramScope, NoRepeatNgram};
pub use sampling::Sampling;
