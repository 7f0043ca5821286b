//! What has to be there before a GPU can be opened.

use super::Gpu;
use crate::{Elements, NoGpu, Result};
use candle_core::{
    DType, Device,
    cuda_backend::cudarc::driver::{CudaContext, result},
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Opens the GPU with this number.
pub(crate) fn open(number: usize, elements: Elements) -> Result<Device, NoGpu> {
    let dtype = match elements {
        Elements::Bf16 => DType::BF16,
        Elements::F16 => DType::F16,
        Elements::F32 => DType::F32,
    };
    for (names, advice) in LIBRARIES {
        let opens = |name: &&str| {
            // SAFETY: the system's own libraries, whose beginnings are made to be run.
            let library = unsafe { libloading::Library::new(*name) };
            // It stays open: candle opens it again.
            library.map(std::mem::forget).is_ok()
        };
        let opened = names.iter().any(opens);
        if !opened {
            let name = names[0];
            return Err(NoGpu::Library { name, advice });
        }
    }
    // cudarc panics where a library lacks a function.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let count = count()?;
        if number >= count {
            return Err(match count {
                0 => NoGpu::NoDevice,
                count => NoGpu::Number { number, count },
            });
        }
        let gpu = Gpu::open(number, dtype).map_err(|error| NoGpu::Broken(error.to_string()))?;
        Ok(gpu.device())
    }));
    opened.unwrap_or_else(|panic| Err(NoGpu::Driver(said(&*panic))))
}

/// What candle opens as soon as it opens a device, by the names of CUDA 13 and 12.
const LIBRARIES: [(&[&str], &str); 3] = [
    (
        &["libcuda.so.1", "nvcuda.dll"],
        "install the NVIDIA driver, and give a container its GPU (--gpus all)",
    ),
    (
        &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
        "install cuBLAS, or put its directory in LD_LIBRARY_PATH",
    ),
    (
        &["libcurand.so.10", "libcurand.so"],
        "install cuRAND, or put its directory in LD_LIBRARY_PATH",
    ),
];

fn count() -> Result<usize, NoGpu> {
    if let Err(error) = result::init() {
        return Err(match error.0 {
            candle_core::cuda_backend::cudarc::driver::sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                NoGpu::NoDevice
            }
            _ => NoGpu::Driver(error.to_string()),
        });
    }
    let count = CudaContext::device_count().map_err(|error| NoGpu::Driver(error.to_string()))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it gave up").to_owned()
}
