//! What layers without weights do with tensors.

use crate::Result;
use candle_core::{Device, Tensor};

/// Runs `work` on a device. On the CPU the threads stay awake between its many short operations.
pub fn awake<R>(device: &Device, work: impl FnOnce() -> R) -> R {
    match device {
        Device::Cpu => agx_ocr_kernels::awake(work),
        _ => work(),
    }
}

/// `x + y`, `y` for each part of `x` of its shape; in the memory of `x` where the device works so,
/// whose values no other tensor may share.
///
/// # Errors
/// When shapes do not fit.
pub fn add_rows(x: Tensor, y: &Tensor) -> Result<Tensor> {
    on_gpu!(x, gpu => {
        gpu.add_rows(&x, y)?;
        Ok(x)
    });
    Ok(x.broadcast_add(y)?)
}

/// Tensors one behind the other along a dimension.
///
/// # Errors
/// When their shapes differ elsewhere, or there are none.
pub fn cat(parts: &[&Tensor], dim: usize) -> Result<Tensor> {
    if let Some(first) = parts.first() {
        on_gpu!(first, gpu => gpu.cat(parts, dim));
    }
    Ok(Tensor::cat(parts, dim)?)
}

/// `x` with its values one behind the other in memory.
///
/// # Errors
/// When memory cannot be had.
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    on_gpu!(x, gpu => gpu.contiguous(x));
    Ok(x.contiguous()?)
}
