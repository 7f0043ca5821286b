//! Weights from the mapped files to the device.

use super::Gpu;
use crate::{Result, Weight};
use agx_ocr_kernels::half::{bf16, f16};
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaEvent, PinnedHostSlice, result::memcpy_htod_async},
    },
};
use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Bytes on the device that a thread fetches at a time: they stay in its caches.
const PIECE: usize = 1 << 20;
/// Threads that fetch at most. What they have at hand cannot be moved by the system, and more of them
/// are no faster than the link.
const THREADS: usize = 16;

/// A weight on the device.
#[derive(Clone, Debug)]
pub(crate) struct Uploaded {
    values: Tensor,
    /// The same in f32, once somebody wanted it.
    wide: Arc<OnceLock<Tensor>>,
}

impl Uploaded {
    /// The values, of the device's element type.
    pub(crate) fn values(&self) -> &Tensor {
        &self.values
    }

    /// The values as those of the device's element type or of f32.
    pub(super) fn of_type(&self, gpu: &Gpu, dtype: DType) -> Result<Tensor> {
        if dtype == self.values.dtype() {
            return Ok(self.values.clone());
        }
        if let Some(wide) = self.wide.get() {
            return Ok(wide.clone());
        }
        let wide = gpu.convert(&self.values, dtype)?;
        Ok(self.wide.get_or_init(|| wide).clone())
    }
}

/// Copies weights to a device. The link takes only memory that the system will not move at full speed,
/// so that each value is copied twice, and a thread alone fetches less than the link takes: all of them
/// fetch, none waits for another, and the device copies what one has while it fetches the next.
pub(crate) struct Uploader {
    gpu: Arc<Gpu>,
    started: Instant,
    /// Bytes of all weights so far, in the files.
    bytes: usize,
    /// What is still to be copied.
    pieces: Vec<Piece>,
}

/// Values of a weight from `from` on.
struct Piece {
    weight: Weight,
    from: usize,
    count: usize,
    /// Where they go. It lives until then, even if nobody else wants it.
    to: Tensor,
}

impl Uploader {
    /// For weights of so many bytes at most.
    pub(crate) fn new(gpu: Arc<Gpu>, bytes: usize) -> Result<Self> {
        let started = Instant::now();
        // The device's pool keeps what it had at once: getting it tensor by tensor takes longer.
        // Where there is not so much, the tensors will say so.
        let _ = gpu.empty(bytes / size_of::<bf16>(), gpu.dtype());
        Ok(Self {
            gpu,
            started,
            bytes: 0,
            pieces: Vec::new(),
        })
    }

    /// The weight on the device, in its element type. Its values come with [`Self::finish`].
    pub(crate) fn upload(&mut self, weight: &Weight) -> Result<Uploaded> {
        let all = weight.values().len();
        if weight.shape().iter().product::<usize>() != all {
            return Err(Error::Msg(format!("{all} values for {:?}", weight.shape())).into());
        }
        let values = self.gpu.empty(weight.shape(), self.gpu.dtype())?;
        self.bytes += size_of_val(weight.values());
        let most = PIECE / self.gpu.dtype().size_in_bytes();
        for from in (0..all).step_by(most) {
            self.pieces.push(Piece {
                weight: weight.clone(),
                from,
                count: (all - from).min(most),
                to: values.clone(),
            });
        }
        Ok(Uploaded {
            values,
            wide: Arc::default(),
        })
    }

    /// Copies all weights, and notes how fast they came to the device.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let (pieces, next) = (mem::take(&mut self.pieces), AtomicUsize::new(0));
        let rest = || pieces.get(next.fetch_add(1, Ordering::Relaxed));
        let copied = rayon::broadcast(|thread| {
            if thread.index() >= THREADS.min(pieces.len()) {
                return Ok(());
            }
            let mut staging = [Staging::new(&self.gpu)?, Staging::new(&self.gpu)?];
            for turn in 0.. {
                let Some(piece) = rest() else { break };
                staging[turn % 2].copy(piece)?;
            }
            Ok(())
        });
        copied.into_iter().collect::<Result<()>>()?;
        self.gpu.stream().synchronize().w()?;
        let rate = self.bytes as f64 / self.started.elapsed().as_secs_f64();
        self.gpu.note_upload(rate);
        Ok(())
    }
}

/// Memory between file and device.
struct Staging<'a> {
    gpu: &'a Gpu,
    memory: PinnedHostSlice<u8>,
    /// When the device has all of it.
    copied: CudaEvent,
}

impl<'a> Staging<'a> {
    fn new(gpu: &'a Gpu) -> Result<Self> {
        let context = gpu.stream().context();
        // SAFETY: any bytes are values, and they are written before the device reads them.
        let memory = unsafe { context.alloc_pinned_with_flags(PIECE, 0) }.w()?;
        let copied = context.new_event(None).w()?;
        Ok(Self {
            gpu,
            memory,
            copied,
        })
    }

    /// Takes the piece's values from the file, once the device has those before, and has it copy them.
    fn copy(&mut self, piece: &Piece) -> Result<()> {
        self.copied.synchronize().w()?;
        let dtype = piece.to.dtype();
        let from = piece.from * dtype.size_in_bytes();
        let memory = &mut self.memory.as_mut_slice().w()?[..piece.count * dtype.size_in_bytes()];
        let values = &piece.weight.values()[piece.from..][..piece.count];
        match dtype {
            DType::F32 => convert(values, bytemuck::cast_slice_mut(memory), bf16::to_f32),
            DType::F16 => convert(values, bytemuck::cast_slice_mut(memory), |value| {
                f16::from_f32(value.to_f32())
            }),
            _ => memory.copy_from_slice(bytemuck::cast_slice(values)),
        }
        let to = self.gpu.pointer(&piece.to)? + from as u64;
        let stream = self.gpu.stream();
        // SAFETY: the tensor has room for the values there, and nobody writes to or frees the memory
        // until the device has them, which the next copy and `drop` wait for.
        unsafe { memcpy_htod_async(to, memory, stream.cu_stream()) }.w()?;
        Ok(self.copied.record(stream).w()?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let _ = self.gpu.stream().synchronize();
    }
}

fn convert<T>(from: &[bf16], to: &mut [T], value: impl Fn(bf16) -> T) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = value(from);
    }
}
