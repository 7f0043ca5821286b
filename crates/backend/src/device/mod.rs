//! Which device to compute on, and why not on a GPU.

mod code;
mod info;

pub use code::{Capability, Code, CudaVersion, LEAST};
pub use info::{GpuInfo, GpuLimits, gpu_limits, gpus};
#[cfg(feature = "cuda")]
pub(crate) use {code::Contents, info::available};

use crate::Result;
use candle_core::Device;
use std::{fmt, str::FromStr};

/// The device that a caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, if it can be used and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this number, or an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
                let wrong = || format!("{text:?} is no device: auto, cpu, cuda or cuda:N");
                number.map(Self::Cuda).ok_or_else(wrong)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The element type of weights and large products on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elements {
    /// bf16, as checkpoints have it.
    #[default]
    Bf16,
    /// f16: more digits, a smaller range.
    F16,
    /// f32: twice the memory, and no tensor cores; to compare with the reference.
    F32,
}

/// A device that is open.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// What tensors are made on.
    pub device: Device,
    /// Why it is not the GPU that might have been.
    pub fallback: Option<NoGpu>,
}

/// Why no GPU can be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoGpu {
    /// The build holds no code for GPUs.
    #[error("this build computes on CPUs only: build it with the feature cuda")]
    Build,
    /// A library of CUDA cannot be opened.
    #[error("{name} cannot be opened: {advice}")]
    Library {
        /// Its name.
        name: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The driver cannot be used.
    #[error("the NVIDIA driver cannot be used: {0}")]
    Driver(String),
    /// The driver is older than the build's CUDA.
    #[error(
        "the NVIDIA driver knows CUDA {found}, and this build needs {}: update the driver",
        code::LEAST_DRIVER
    )]
    OldDriver {
        /// The latest CUDA that the driver knows.
        found: CudaVersion,
    },
    /// There is no GPU, or none that may be seen.
    #[error("there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it")]
    NoDevice,
    /// There are fewer GPUs.
    #[error("there is no GPU {number}: {count} can be seen")]
    Number {
        /// The one that was wanted.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The build holds no code that it can run.
    #[error(
        "{name} has compute capability {capability}, and this build has no code for it: it needs \
         {LEAST} or later"
    )]
    Capability {
        /// Its name.
        name: String,
        /// Its compute capability.
        capability: Capability,
    },
    /// It has too little memory left for the model.
    #[error(
        "the model needs {:.1} GB of the GPU's memory, and {:.1} GB are free",
        *needed as f64 / 1e9,
        *available as f64 / 1e9
    )]
    Memory {
        /// Bytes that the model needs.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// It fails, or computes something else than it should.
    #[error("the GPU does not work: {0}")]
    Broken(String),
}

/// Opens a device; on a GPU weights and large products are of `elements`, and `needed` bytes of memory
/// must be free.
///
/// # Errors
/// [`Error::Gpu`](crate::Error::Gpu) when a GPU is asked for by its number and cannot be used.
pub fn open_device(choice: DeviceChoice, elements: Elements, needed: u64) -> Result<OpenDevice> {
    let cpu = |fallback| OpenDevice {
        device: Device::Cpu,
        fallback,
    };
    match choice {
        DeviceChoice::Cpu => Ok(cpu(None)),
        DeviceChoice::Cuda(number) => {
            let device = gpu(number, elements, needed)?;
            let fallback = None;
            Ok(OpenDevice { device, fallback })
        }
        DeviceChoice::Auto => match gpu(0, elements, needed) {
            Ok(device) => Ok(OpenDevice {
                device,
                fallback: None,
            }),
            // Nobody who built without GPUs wants to hear of them.
            Err(NoGpu::Build) => Ok(cpu(None)),
            Err(why) => Ok(cpu(Some(why))),
        },
    }
}

/// Gives back what [`open_device`] made for a GPU, its kernels among it. To be called when no tensor on it
/// is left.
pub fn close_device(device: &Device) {
    #[cfg(feature = "cuda")]
    crate::cuda::Gpu::close(device);
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

#[cfg(feature = "cuda")]
fn gpu(number: usize, elements: Elements, needed: u64) -> Result<Device, NoGpu> {
    crate::cuda::open(number, elements, needed)
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize, _: Elements, _: u64) -> Result<Device, NoGpu> {
    Err(NoGpu::Build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_names() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_for_cpus_says_so_where_a_gpu_is_asked_for() {
        let open = |choice| open_device(choice, Elements::Bf16, 0);
        assert!(open(DeviceChoice::Auto).unwrap().fallback.is_none());
        assert!(open(DeviceChoice::Cpu).unwrap().device.is_cpu());
        let error = open(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(matches!(error, crate::Error::Gpu(NoGpu::Build)), "{error}");
    }
}
