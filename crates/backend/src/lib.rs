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
//! | [`SwiGlu`], [`Experts`] | the decoder's feed-forward parts |
//! | [`SelfAttention`] | attention of an image to itself |
//! | [`CausalAttention`], [`Extended`], [`KvCache`], [`KvBatch`], [`Rope`] | the decoder's attention, over a cache or those of several sequences |
//! | [`add_rows`], [`cat`], [`contiguous`], [`look_up`] | sums and copies of tensors, and tensors of bytes |
//! | [`Recorded`] | work that a device records |
//! | [`awake`] | keeps the CPU's threads ready between the many short operations of a model |
//! | [`in_turn`] | lets one at a time compute on a GPU |
//! | [`open_device`], [`DeviceChoice`] | the CPU or a GPU, and why not the GPU |
//! | [`available_memory`] | what the system has to give |
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
//! | | |
//! |---|---|
//! | `cuda` | NVIDIA GPUs from compute capability 8.0 on; the build needs CUDA's compiler |
//! | `flash-attn` | attention there by flash-attn, in bf16 and f16; the build fetches CUTLASS and takes hours |

/// Returns `$result` where `$x` lies on a GPU, which it names `$gpu`.
macro_rules! on_gpu {
    ($x:expr, $gpu:ident => $result:expr) => {
        #[cfg(feature = "cuda")]
        if let Some($gpu) = crate::cuda::Gpu::of($x.device())? {
            return $result;
        }
        #[cfg(not(feature = "cuda"))]
        let _ = &$x;
    };
}

mod attention;
mod available;
mod causal;
mod checkpoint;
mod cores;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod feed_forward;
mod files;
mod header;
mod json;
mod kv_batch;
mod kv_cache;
mod layers;
mod loader;
mod observer;
mod tensors;

pub use agx_ocr_kernels::linear::Activations;
pub use attention::{RelativePositions, SelfAttention};
pub use available::available_memory;
pub use causal::{CausalAttention, Extended};
pub use checkpoint::{Checkpoint, TensorInfo, Weight};
pub use cores::Cores;
#[cfg(feature = "cuda")]
pub use cuda::{Ban, BatchOf, Greedy, GreedyBatch, Picked};
pub use device::{
    Capability, Code, CudaVersion, DeviceChoice, Elements, GpuInfo, GpuLimits, LEAST, NoGpu,
    OpenDevice, close_device, gpu_limits, gpus, open_device,
};
pub use error::{Error, Mismatch, Result};
pub use feed_forward::{Activation, Experts, Mlp, Routing, SwiGlu};
pub use files::ModelFiles;
pub use json::{Fields, parse_json};
pub use kv_batch::KvBatch;
pub use kv_cache::{KvCache, Rope};
pub use layers::{Conv2d, Embedding, LayerNorm, Linear, RmsNorm, log_probability};
pub use loader::Loader;
pub use observer::{Observer, Unobserved};
pub use tensors::{Recorded, add_rows, awake, cat, contiguous, images_at_once, in_turn, look_up};
