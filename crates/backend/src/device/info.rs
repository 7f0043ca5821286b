//! What is known of a GPU.

use super::{Capability, Code, NoGpu};
use serde::Serialize;

/// A GPU, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GpuInfo {
    /// Its number, as in `cuda:0`.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Its compute capability.
    pub capability: Capability,
    /// How many multiprocessors it has.
    pub multiprocessors: usize,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes of it that are free; where it shares the CPU's, what the system has available.
    pub available: u64,
    /// Whether it shares the CPU's memory.
    pub unified: bool,
    /// The latest CUDA that the driver knows, such as `13.0`.
    pub driver: String,
    /// What of this build's code it can run, if any.
    pub code: Option<Code>,
}

impl GpuInfo {
    /// Why it cannot be used, as far as its description tells.
    ///
    /// # Errors
    /// [`NoGpu::Capability`].
    pub fn check(&self) -> Result<(), NoGpu> {
        match self.code {
            Some(_) => Ok(()),
            None => Err(NoGpu::Capability {
                name: self.name.clone(),
                capability: self.capability,
            }),
        }
    }
}

/// The GPUs that can be seen, whether they can be used or not.
///
/// # Errors
/// When none can be, or there is nothing to see them with.
pub fn gpus() -> Result<Vec<GpuInfo>, NoGpu> {
    #[cfg(feature = "cuda")]
    return crate::cuda::gpus();
    #[cfg(not(feature = "cuda"))]
    Err(NoGpu::Build)
}
