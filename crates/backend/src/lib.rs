//! Checkpoints, and the layers whose arithmetic costs time, on candle tensors.
//!
//! The model crates compose these layers and know neither where a weight lies nor which device
//! computes. Activations are candle tensors; weights are [`Weight`]s: bf16 values in a mapped
//! safetensors file, used where they lie.
//!
//! | type | what |
//! |---|---|
//! | [`Checkpoint`], [`Loader`] | open a model's files; build a model from them, or say all that is wrong |
//! | [`ModelFiles`], [`Fields`] | find a model's files by name, take the values of its config |
//! | [`Linear`], [`Mlp`], [`Conv2d`], [`LayerNorm`], [`RmsNorm`], [`Embedding`] | layers |
//! | [`SwiGlu`], [`Router`], [`Experts`] | the decoder's feed-forward parts |
//! | [`SelfAttention`] | attention of an image to itself |
//! | [`KvCache`], [`Rope`] | causal attention over a cache |
//! | [`awake`] | keeps the CPU's threads ready between the many short operations of a model |
//! | [`Cores`] | the processor's cores, and how many threads to use |
//! | [`Observer`] | sees every named intermediate result, and may stop the work |
//!
//! # Example
//!
//! ```
//! use agx_ocr_backend::{Activations, Checkpoint, Result};
//! use candle_core::{Device, Tensor};
//!
//! # fn main() -> Result<()> {
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny");
//! # if !std::path::Path::new(dir).exists() { return Ok(()) }
//! // A part of a model takes only its part of the names.
//! let checkpoint = Checkpoint::open(dir.as_ref())?.only("model.norm");
//! let norm = checkpoint.build(&Device::Cpu, Activations::F32, |loader| {
//!     loader.rms_norm("model.norm", 64, 1e-6)
//! })?;
//! let y = norm.forward(&Tensor::ones((1, 64), candle_core::DType::F32, &Device::Cpu)?)?;
//! assert_eq!(y.dims(), [1, 64]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None yet: the CPU needs none.

mod attention;
mod checkpoint;
mod cores;
mod cpu;
mod error;
mod feed_forward;
mod files;
mod header;
mod json;
mod kv_cache;
mod layers;
mod loader;
mod observer;

pub use agx_ocr_kernels::{awake, linear::Activations};
pub use attention::{RelativePositions, SelfAttention};
pub use checkpoint::{Checkpoint, TensorInfo, Weight};
pub use cores::Cores;
pub use error::{Error, Mismatch, Result};
pub use feed_forward::{Activation, Experts, Mlp, Router, Routing, SwiGlu};
pub use files::ModelFiles;
pub use json::{Fields, parse_json};
pub use kv_cache::{KvCache, Rope};
pub use layers::{Conv2d, Embedding, LayerNorm, Linear, RmsNorm, log_probability};
pub use loader::Loader;
pub use observer::{Observer, Unobserved};
