//! Where the benchmarks compute. Only this module knows which device that is: the CPU, or in builds
//! with the feature `cuda` the first GPU, unless [`DEVICE`] names another.

use agx_ocr_backend::{DeviceChoice, Elements, open_device};
use candle_core::Device;
use std::{env, sync::OnceLock};

/// The variable that names the device: `cpu`, `cuda` or `cuda:N`.
pub const DEVICE: &str = "AGX_OCR_BENCH_DEVICE";

/// The device, as a caller of the library asks for it.
///
/// # Panics
/// When [`DEVICE`] names none.
pub fn choice() -> DeviceChoice {
    match env::var(DEVICE) {
        Ok(name) => name.parse().unwrap_or_else(|e| panic!("{DEVICE}: {e}")),
        Err(_) if cfg!(feature = "cuda") => DeviceChoice::Cuda(0),
        Err(_) => DeviceChoice::Cpu,
    }
}

/// The device.
///
/// # Panics
/// When it cannot be opened: nothing else takes its place.
pub fn device() -> Device {
    static OPEN: OnceLock<Device> = OnceLock::new();
    let open = || match open_device(choice(), Elements::Bf16, 0) {
        Ok(opened) => opened.device,
        Err(e) => panic!("{e}: {:?}", std::error::Error::source(&e)),
    };
    OPEN.get_or_init(open).clone()
}

/// The name of a group of results: `cpu_gemm` for `gemm`.
pub fn named(group: &str) -> String {
    format!("{}_{group}", kind())
}

/// The device's kind, with which names begin.
pub fn kind() -> &'static str {
    match choice() {
        DeviceChoice::Cuda(_) => "cuda",
        _ => "cpu",
    }
}

/// Waits until the device has done what was asked of it; the CPU always has.
///
/// # Panics
/// When the device reports that its work failed.
pub fn synchronise() {
    if kind() == "cpu" {
        return;
    }
    if let Err(e) = device().synchronize() {
        panic!("the device failed: {e}");
    }
}
