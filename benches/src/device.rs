//! Where the benchmarks compute. Only this module knows which device that is.

use candle_core::Device;

/// The device.
pub fn device() -> Device {
    Device::Cpu
}

/// The name of a group of results: `cpu_gemm` for `gemm`.
pub fn named(group: &str) -> String {
    let device = match device() {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    };
    format!("{device}_{group}")
}

/// Waits until the device has done what was asked of it; the CPU always has.
///
/// # Panics
/// When the device reports that its work failed.
pub fn synchronise() {
    if let Err(e) = device().synchronize() {
        panic!("the device failed: {e}");
    }
}
