//! What a device reaches at most.

use super::Gpu;
use crate::{GpuLimits, Result};
use candle_core::{
    DType, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::result::{memcpy_dtod_async, memcpy_htod_async},
    },
};
use std::time::{Duration, Instant};

/// Bytes that are copied: more than caches hold.
const COPIED: usize = 512 << 20;
/// Bytes that are uploaded at a time.
const UPLOADED: usize = 64 << 20;
/// Rows, columns and depth of the product that is measured.
const SIDE: usize = 8192;
/// Rows of it that differ.
const DIFFERENT: usize = 256;
/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(40);

impl Gpu {
    /// Measures them: about 0.3 seconds and 1.1 GB, with nothing else on the device.
    pub(crate) fn limits(&self) -> Result<GpuLimits> {
        let stream = self.stream();
        Ok(GpuLimits {
            name: stream.context().name().w()?,
            f32: self.products(DType::F32)?,
            products: self.products(self.dtype())?,
            copy: self.copied()?,
            upload: self.uploaded()?,
            weights: self.upload(),
        })
    }

    /// Multiply-adds a second of a large square product.
    fn products(&self, dtype: DType) -> Result<f64> {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        // Values that look random: a device draws less power for equal ones, and is faster.
        let values: Vec<f32> = (0..DIFFERENT * SIDE).map(|_| random()).collect();
        let rows = Tensor::from_vec(values, (DIFFERENT, SIDE), &self.device())?;
        let rows = self.convert(&rows, dtype)?;
        let square = self.cat(&vec![&rows; SIDE / DIFFERENT], 0)?;
        let rate = self.rate(|| self.product(&square, &square, None, dtype).map(|_| ()))?;
        Ok((SIDE * SIDE * SIDE) as f64 * rate)
    }

    /// Bytes a second that a copy reads and writes.
    fn copied(&self) -> Result<f64> {
        let memory = || self.empty(COPIED / 4, DType::F32);
        let (from, to) = (memory()?, memory()?);
        let (from, to) = (self.pointer(&from)?, self.pointer(&to)?);
        let stream = self.stream().cu_stream();
        let rate = self.rate(|| {
            // SAFETY: both tensors have so many bytes.
            unsafe { memcpy_dtod_async(to, from, COPIED, stream) }.w()?;
            Ok(())
        })?;
        Ok(2.0 * COPIED as f64 * rate)
    }

    /// Bytes a second from memory that the system does not move to the device.
    fn uploaded(&self) -> Result<f64> {
        let stream = self.stream();
        // SAFETY: nobody reads what is in it.
        let mut from = unsafe { stream.context().alloc_pinned::<u8>(UPLOADED) }.w()?;
        let from = from.as_mut_slice().w()?;
        from.fill(0);
        let to = self.empty(UPLOADED / 4, DType::F32)?;
        let to = self.pointer(&to)?;
        let rate = self.rate(|| {
            // SAFETY: the tensor has room for them, and `rate` waits for the last copy.
            unsafe { memcpy_htod_async(to, &*from, stream.cu_stream()) }.w()?;
            Ok(())
        })?;
        Ok(UPLOADED as f64 * rate)
    }

    /// How often a second `work` is done; it only asks the device for it.
    fn rate(&self, work: impl Fn() -> Result<()>) -> Result<f64> {
        let timed = |runs: u32| -> Result<Duration> {
            let started = Instant::now();
            for _ in 0..runs {
                work()?;
            }
            self.stream().synchronize().w()?;
            Ok(started.elapsed())
        };
        // The first runs find libraries, kernels and clocks unprepared.
        timed(2)?;
        let once = timed(2)? / 2;
        let runs = (TIME.as_secs_f64() / once.as_secs_f64()).clamp(2.0, 1000.0);
        Ok(runs.floor() / timed(runs as u32)?.as_secs_f64())
    }
}
