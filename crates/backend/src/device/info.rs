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

    /// Why it cannot be used for what needs so many bytes of its memory, as far as its description
    /// tells.
    ///
    /// # Errors
    /// [`NoGpu::Capability`] or [`NoGpu::Memory`].
    pub fn check_for(&self, needed: u64) -> Result<(), NoGpu> {
        self.check()?;
        let available = self.available;
        match available < needed {
            true => Err(NoGpu::Memory { needed, available }),
            false => Ok(()),
        }
    }
}

/// Bytes that are available on a GPU with so many of them `free`; where it shares the CPU's memory, those
/// of the machine: what is free does not count what files in memory can give back.
#[cfg_attr(
    not(any(feature = "cuda", test)),
    allow(dead_code, reason = "other builds ask no driver")
)]
pub(crate) fn available(free: u64, unified: bool, machine: impl FnOnce() -> Option<u64>) -> u64 {
    let machine = unified.then(machine).flatten();
    machine.unwrap_or(free)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A DGX Spark, but for what a test changes.
    fn gpu(change: impl FnOnce(&mut GpuInfo)) -> GpuInfo {
        let mut gpu = GpuInfo {
            number: 0,
            name: "NVIDIA GB10".into(),
            capability: Capability {
                major: 12,
                minor: 1,
            },
            multiprocessors: 48,
            memory: 128_000_000_000,
            available: 100_000_000_000,
            unified: true,
            driver: "13.0".into(),
            code: Some(Code::Machine(Capability {
                major: 12,
                minor: 0,
            })),
        };
        change(&mut gpu);
        gpu
    }

    #[test]
    fn a_gpu_needs_code_and_memory() {
        let needed = 7_000_000_000;
        assert_eq!(gpu(|_| ()).check_for(needed), Ok(()));
        let exactly = gpu(|gpu| gpu.available = needed);
        assert_eq!(exactly.check_for(needed), Ok(()));

        let full = gpu(|gpu| gpu.available = needed - 1).check_for(needed);
        let available = needed - 1;
        assert_eq!(full, Err(NoGpu::Memory { needed, available }));
        let full = full.unwrap_err().to_string();
        assert!(full.contains("7.0 GB"), "{full}");

        // Without code it is no use, however much memory it has.
        let old = gpu(|gpu| {
            gpu.name = "Tesla T4".into();
            gpu.capability = Capability { major: 7, minor: 5 };
            gpu.code = None;
        });
        let old = old.check_for(0).unwrap_err().to_string();
        assert!(old.contains("Tesla T4") && old.contains("7.5"), "{old}");
    }

    #[test]
    fn memory_that_a_gpu_shares_is_what_the_machine_has_available() {
        let machine = || Some(90);
        assert_eq!(available(5, true, machine), 90);
        assert_eq!(available(5, false, machine), 5);
        // Where the system does not say.
        assert_eq!(available(5, true, || None), 5);
    }
}
