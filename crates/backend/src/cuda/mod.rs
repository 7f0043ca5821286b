//! CUDA: own kernels and cuBLASLt, on candle's tensors.
//!
//! The residual stream is f32. Weights, and what goes into and comes out of large products, have
//! the device's element type: bf16, f16 or f32. All work of a device is on one stream.
//!
//! | | |
//! |---|---|
//! | `probe`, `self_test` | whether there is a device that can be opened, and computes as it should |
//! | `limits` | what it reaches at most |
//! | `gpu` | an open device: its stream, its kernels, memory on it |
//! | `launch` | a kernel by its name, with its arguments |
//! | `blas`, `plan` | large products, and the library's kernels for them |
//! | `upload` | weights from the mapped files to the device |
//! | `rows` | norms, activations, sums, copies |
//! | `layers`, `attention`, `causal`, `experts` | the layers |
//! | `flash` | attention by flash-attn instead, with the feature of that name |
//! | `decode`, `greedy` | one token through them, and the choice of the next |
//! | `pages`, `batch` | the same for several sequences together |
//! | `ahead` | steps in advance, recorded once |
//! | `recorded` | work that is recorded for each shape of its input |
//! | `kernels/` | the kernels' source; `ptx/` is made from it by `cargo xtask ptx` |

mod ahead;
mod attention;
mod batch;
mod blas;
mod causal;
mod decode;
mod experts;
#[cfg(feature = "flash-attn")]
mod flash;
mod gpu;
mod greedy;
mod launch;
mod layers;
mod limits;
mod pages;
mod plan;
mod probe;
mod recorded;
mod rows;
mod self_test;
#[cfg(test)]
mod tests;
mod upload;

pub use ahead::{Ban, Picked};
pub use batch::{BatchOf, GreedyBatch};
pub(crate) use causal::Cache;
pub(crate) use experts::Addresses;
pub(crate) use gpu::Gpu;
pub use greedy::Greedy;
pub(crate) use pages::Pages;
pub(crate) use probe::{gpus, open};
pub(crate) use recorded::Recordings;
pub(crate) use upload::{Uploaded, Uploader};
