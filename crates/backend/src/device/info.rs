//! What is known of a GPU.

use super::{Capability, Code, NoGpu};
use crate::Result;
use candle_core::Device;
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

/// What a GPU reaches at most.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GpuLimits {
    /// Its name.
    pub name: String,
    /// Multiply-adds a second of cuBLAS in a large product of f32.
    pub f32: f64,
    /// The same in the element type of the device's large products.
    pub products: f64,
    /// Bytes a second that a copy on the device reads and writes.
    pub copy: f64,
    /// Bytes a second from the host's memory to the device.
    pub upload: f64,
    /// Bytes a second at which the last model's weights came there from its files.
    pub weights: Option<f64>,
}

/// Measures what a device reaches at most, which takes about 0.3 seconds in which nothing else should
/// run there; `None` for the CPU.
///
/// # Errors
/// When the device fails, or has no 1.1 GB of memory left.
pub fn gpu_limits(device: &Device) -> Result<Option<GpuLimits>> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(device)? {
        return Ok(Some(gpu.limits()?));
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    Ok(None)
}
