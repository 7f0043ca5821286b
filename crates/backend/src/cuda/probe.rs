//! What has to be there before a GPU can be opened, and what is known of it.

use super::{Gpu, gpu::contents};
use crate::{
    Capability, CudaVersion, Elements, GpuInfo, NoGpu, Result, available::machine_memory,
    device::available,
};
use candle_core::{
    DType, Device,
    cuda_backend::cudarc::driver::{CudaContext, DriverError, result, sys},
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};
use sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_INTEGRATED, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
};

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

/// Opens the GPU with this number, if it has so many bytes of memory free, and computes as it
/// should.
pub(crate) fn open(number: usize, elements: Elements, needed: u64) -> Result<Device, NoGpu> {
    let dtype = match elements {
        Elements::Bf16 => DType::BF16,
        Elements::F16 => DType::F16,
        Elements::F32 => DType::F32,
    };
    let count = count()?;
    if number >= count {
        return Err(NoGpu::Number { number, count });
    }
    guarded(|| describe(number))?.check_for(needed)?;
    guarded(|| {
        let broken = |error: crate::Error| NoGpu::Broken(error.to_string());
        let gpu = Gpu::open(number, dtype).map_err(broken)?;
        gpu.self_test().map_err(|error| {
            Gpu::close(&gpu.device());
            broken(error)
        })?;
        Ok(gpu.device())
    })
}

/// The GPUs that can be seen.
pub(crate) fn gpus() -> Result<Vec<GpuInfo>, NoGpu> {
    let count = count()?;
    guarded(|| (0..count).map(describe).collect())
}

/// How many GPUs can be seen: one at least.
fn count() -> Result<usize, NoGpu> {
    for (names, advice) in LIBRARIES {
        let opens = |name: &&str| {
            // SAFETY: the system's own libraries, whose beginnings are made to be run.
            let library = unsafe { libloading::Library::new(*name) };
            // It stays open: candle opens it again.
            library.map(std::mem::forget).is_ok()
        };
        if !names.iter().any(opens) {
            let name = names[0];
            return Err(NoGpu::Library { name, advice });
        }
    }
    guarded(|| {
        match result::init() {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                return Err(NoGpu::NoDevice);
            }
            other => other.map_err(driver)?,
        }
        driver_version().map_err(driver)?.check()?;
        let count = CudaContext::device_count().map_err(driver)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err(NoGpu::NoDevice);
        }
        Ok(count)
    })
}

fn driver(error: DriverError) -> NoGpu {
    NoGpu::Driver(error.to_string())
}

/// What is known of the GPU with this number.
fn describe(number: usize) -> Result<GpuInfo, NoGpu> {
    described(number).map_err(driver)
}

fn described(number: usize) -> Result<GpuInfo, DriverError> {
    let context = CudaContext::new(number)?;
    let (major, minor) = context.compute_capability()?;
    let capability = Capability {
        major: u32::try_from(major).unwrap_or(0),
        minor: u32::try_from(minor).unwrap_or(0),
    };
    let unified = context.attribute(CU_DEVICE_ATTRIBUTE_INTEGRATED)? == 1;
    let (free, total) = context.mem_get_info()?;
    let multiprocessors = context.attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    Ok(GpuInfo {
        number,
        name: context.name()?,
        capability,
        multiprocessors: usize::try_from(multiprocessors).unwrap_or(0),
        memory: total as u64,
        available: available(free as u64, unified, machine_memory),
        unified,
        driver: driver_version()?.to_string(),
        code: contents().code_for(capability),
    })
}

/// The latest CUDA that the driver knows.
fn driver_version() -> Result<CudaVersion, DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes a number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(CudaVersion::of(version))
}

/// cudarc panics where a library lacks a function.
fn guarded<T>(work: impl FnOnce() -> Result<T, NoGpu>) -> Result<T, NoGpu> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(NoGpu::Driver(said(&*panic))))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it gave up").to_owned()
}
