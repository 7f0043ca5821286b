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

/// Does `work` while nobody else computes on a GPU, which does one thing at a time: whoever reads a
/// page, or several together, does it in one turn. The CPU has turns for all.
///
/// It is not to be called inside of `work`.
pub fn in_turn<R>(device: &Device, work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "cuda")]
    if let Ok(Some(gpu)) = crate::cuda::Gpu::of(device) {
        return gpu.in_turn(work);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    work()
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

/// Bytes as values, f32 of this shape: `levels[byte]` for each.
///
/// # Errors
/// When there are more or fewer bytes than the shape has values, or memory cannot be had.
pub fn look_up(
    bytes: &[u8],
    levels: &[f32; 256],
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = crate::cuda::Gpu::of(device)? {
        let bytes = Tensor::from_slice(bytes, shape, device)?;
        let levels = Tensor::from_slice(levels, levels.len(), device)?;
        return gpu.look_up(&bytes, &levels);
    }
    let values = bytes.iter().map(|byte| levels[usize::from(*byte)]);
    Ok(Tensor::from_vec(values.collect(), shape, device)?)
}

/// How many images of up to a million pixels are best encoded together. Their products share the
/// weights; more take more memory, and on a CPU leave a caller longer without word.
pub fn images_at_once(device: &Device) -> usize {
    match device {
        Device::Cpu => 3,
        _ => 9,
    }
}

/// Work on inputs of a few shapes, done again and again: on a GPU it is recorded, so that the host
/// need not ask for each of its many kernels.
#[derive(Debug, Default)]
pub struct Recorded {
    #[cfg(feature = "cuda")]
    recordings: crate::cuda::Recordings,
}

impl Recorded {
    /// `work(x)` for contiguous `x`. Whatever `work` does beside that on the host it may do no more
    /// from the third input of a shape on.
    ///
    /// # Errors
    /// Those of `work`, and when the device fails.
    pub fn run<E: From<crate::Error>>(
        &self,
        x: &Tensor,
        work: impl FnOnce(&Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        on_gpu!(x, gpu => self.recordings.run(&gpu, x, work));
        work(x)
    }
}
