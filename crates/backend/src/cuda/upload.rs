//! Weights from the mapped files to the device.

use super::Gpu;
use crate::Result;
use agx_ocr_kernels::half::bf16;
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaEvent, PinnedHostSlice, result::memcpy_htod_async},
    },
};
use rayon::prelude::*;
use std::sync::Arc;

/// Values of a buffer between file and device.
const BUFFER: usize = 16 << 20;
/// Buffers that are filled and copied in turn.
const BUFFERS: usize = 3;
/// Values that a thread copies at a time.
const PART: usize = 256 << 10;

/// Copies weights to a device, while the next ones are fetched from the files: the link takes only
/// memory that the system will not move, at full speed.
pub(crate) struct Uploader {
    gpu: Arc<Gpu>,
    buffers: Vec<Buffer>,
    /// The one that is being filled, and up to where.
    current: usize,
    filled: usize,
}

struct Buffer {
    memory: PinnedHostSlice<u16>,
    /// When the device has all of it.
    copied: Option<CudaEvent>,
}

impl Uploader {
    pub(crate) fn new(gpu: Arc<Gpu>) -> Result<Self> {
        let context = gpu.stream().context();
        let buffer = |_| {
            // SAFETY: values are written before they are read.
            let memory = unsafe { context.alloc_pinned::<u16>(BUFFER) }.w()?;
            let copied = None;
            Ok::<_, crate::Error>(Buffer { memory, copied })
        };
        Ok(Self {
            buffers: (0..BUFFERS).map(buffer).collect::<Result<_>>()?,
            gpu,
            current: 0,
            filled: 0,
        })
    }

    /// `values` on the device, as values of its element type.
    pub(crate) fn upload(&mut self, values: &[bf16], shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::Msg(format!("{} values for {shape:?}", values.len())).into());
        }
        let tensor = self.gpu.empty(shape, DType::BF16)?;
        let mut done = 0;
        while done < values.len() {
            if self.filled == BUFFER {
                self.turn()?;
            }
            let count = (values.len() - done).min(BUFFER - self.filled);
            self.send(&values[done..done + count], &tensor, done)?;
            done += count;
        }
        self.gpu.convert(&tensor, self.gpu.dtype())
    }

    /// Copies values behind those in the current buffer, and from there to the device.
    fn send(&mut self, values: &[bf16], to: &Tensor, at: usize) -> Result<()> {
        let buffer = &mut self.buffers[self.current];
        let range = self.filled..self.filled + values.len();
        let memory = &mut buffer.memory.as_mut_slice().w()?[range];
        let values: &[u16] = bytemuck::cast_slice(values);
        let parts = memory.par_chunks_mut(PART).zip(values.par_chunks(PART));
        parts.for_each(|(to, from)| to.copy_from_slice(from));
        let place = self.gpu.pointer(to)? + (at * size_of::<bf16>()) as u64;
        let stream = self.gpu.stream();
        // SAFETY: the tensor has room for the values from `at` on, and nobody writes to their
        // buffer until the device has them, which `turn` waits for.
        unsafe { memcpy_htod_async(place, memory, stream.cu_stream()) }.w()?;
        self.filled += values.len();
        Ok(())
    }

    /// Goes on with the next buffer, once the device has what is in it.
    fn turn(&mut self) -> Result<()> {
        let event = self.gpu.stream().record_event(None).w()?;
        self.buffers[self.current].copied = Some(event);
        self.current = (self.current + 1) % BUFFERS;
        self.filled = 0;
        if let Some(copied) = self.buffers[self.current].copied.take() {
            copied.synchronize().w()?;
        }
        Ok(())
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // The buffers are freed when nothing reads them any more.
        let _ = self.gpu.stream().synchronize();
    }
}
