//! Weights from the mapped files to the device.

use super::Gpu;
use crate::{Result, Weight};
use agx_ocr_kernels::half::bf16;
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaEvent, PinnedHostSlice, result::memcpy_htod_async},
    },
};
use rayon::prelude::*;
use std::{
    mem,
    sync::{Arc, OnceLock},
    time::Instant,
};

/// Values of a buffer between file and device: all of them stay in the processor's caches.
const BUFFER: usize = 4 << 20;
/// Buffers that are filled and copied in turn.
const BUFFERS: usize = 4;
/// Values that a thread copies at a time.
const PART: usize = 256 << 10;

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

/// Copies weights to a device, while the next ones are fetched from the files: the link takes only
/// memory that the system will not move, at full speed.
pub(crate) struct Uploader {
    gpu: Arc<Gpu>,
    started: Instant,
    /// Bytes of all weights so far.
    bytes: usize,
    buffers: Vec<Buffer>,
    /// The one that is to be filled next.
    current: usize,
    /// What it will hold, and how many values these are.
    pieces: Vec<Piece>,
    filled: usize,
}

struct Buffer {
    memory: PinnedHostSlice<u16>,
    /// What is in it, one behind the other, and not under way yet.
    pieces: Vec<Piece>,
    /// When the device has all of it.
    copied: Option<CudaEvent>,
}

/// Values of a weight from `from` on.
struct Piece {
    weight: Weight,
    from: usize,
    count: usize,
    /// Where they go. It lives until then, even if nobody else wants it.
    to: Tensor,
}

impl Piece {
    fn values(&self) -> &[u16] {
        bytemuck::cast_slice(&self.weight.values()[self.from..self.from + self.count])
    }
}

impl Uploader {
    /// For weights of so many bytes at most.
    pub(crate) fn new(gpu: Arc<Gpu>, bytes: usize) -> Result<Self> {
        let started = Instant::now();
        let context = gpu.stream().context();
        let buffer = |_| {
            // SAFETY: values are written before they are read.
            let memory = unsafe { context.alloc_pinned_with_flags::<u16>(BUFFER, 0) }.w()?;
            Ok::<_, crate::Error>(Buffer {
                memory,
                pieces: Vec::new(),
                copied: None,
            })
        };
        // The device's pool keeps what it had at once: getting it tensor by tensor takes longer.
        // Where there is not so much, the tensors will say so.
        let _ = gpu.empty(bytes / size_of::<bf16>(), DType::BF16);
        Ok(Self {
            started,
            bytes: 0,
            buffers: (0..BUFFERS).map(buffer).collect::<Result<_>>()?,
            gpu,
            current: 0,
            pieces: Vec::new(),
            filled: 0,
        })
    }

    /// The weight on the device, in its element type. It may be under way until [`Self::finish`].
    pub(crate) fn upload(&mut self, weight: &Weight) -> Result<Uploaded> {
        let all = weight.values().len();
        if weight.shape().iter().product::<usize>() != all {
            return Err(Error::Msg(format!("{all} values for {:?}", weight.shape())).into());
        }
        let tensor = self.gpu.empty(weight.shape(), DType::BF16)?;
        self.bytes += size_of_val(weight.values());
        let mut from = 0;
        while from < all {
            let count = (all - from).min(BUFFER - self.filled);
            self.pieces.push(Piece {
                weight: weight.clone(),
                from,
                count,
                to: tensor.clone(),
            });
            from += count;
            self.filled += count;
            if self.filled == BUFFER {
                self.send()?;
            }
        }
        if self.gpu.dtype() != DType::BF16 {
            self.send_all()?;
        }
        Ok(Uploaded {
            values: self.gpu.convert(&tensor, self.gpu.dtype())?,
            wide: Arc::default(),
        })
    }

    /// Copies what is left, and notes how fast all came to the device.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.send_all()?;
        self.gpu.stream().synchronize().w()?;
        let rate = self.bytes as f64 / self.started.elapsed().as_secs_f64();
        self.gpu.note_upload(rate);
        Ok(())
    }

    fn send_all(&mut self) -> Result<()> {
        self.send()?;
        // Nothing is left to fill the next buffer with.
        self.send()
    }

    /// Fills the current buffer with all pieces, while the device is told to copy the one before.
    fn send(&mut self) -> Result<()> {
        let (pieces, gpu) = (mem::take(&mut self.pieces), &self.gpu);
        let before = (self.current + BUFFERS - 1) % BUFFERS;
        let none = |_| Error::Msg("too few buffers".into());
        let both = self.buffers.get_disjoint_mut([self.current, before]);
        let [current, before] = both.map_err(none)?;
        let (filled, sent) = rayon::join(|| current.fill(pieces), || before.send(gpu));
        self.current = (self.current + 1) % BUFFERS;
        self.filled = 0;
        filled.and(sent)
    }
}

impl Buffer {
    /// Takes the pieces' values from the files, once the device has those before.
    fn fill(&mut self, pieces: Vec<Piece>) -> Result<()> {
        if let Some(copied) = self.copied.take() {
            copied.synchronize().w()?;
        }
        let mut rest = self.memory.as_mut_slice().w()?;
        let mut places = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let (place, behind) = rest.split_at_mut(piece.count);
            places.push((place, piece.values()));
            rest = behind;
        }
        // Many pieces are smaller than what is worth a thread, and some as large as the buffer.
        let parts = places.into_par_iter().flat_map(|(place, values)| {
            let values = values.par_chunks(PART);
            place.par_chunks_mut(PART).zip(values)
        });
        parts.for_each(|(to, from)| to.copy_from_slice(from));
        self.pieces = pieces;
        Ok(())
    }

    /// Has the device copy the values.
    fn send(&mut self, gpu: &Gpu) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let stream = gpu.stream();
        stream.context().bind_to_thread().w()?;
        let mut rest = self.memory.as_slice().w()?;
        for piece in self.pieces.drain(..) {
            let (values, behind) = rest.split_at(piece.count);
            let to = gpu.pointer(&piece.to)? + (piece.from * size_of::<bf16>()) as u64;
            // SAFETY: the tensor has room for the values there, and nobody writes to the buffer
            // until the device has them, which `fill` waits for.
            unsafe { memcpy_htod_async(to, values, stream.cu_stream()) }.w()?;
            rest = behind;
        }
        self.copied = Some(stream.record_event(None).w()?);
        Ok(())
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // The buffers are freed when nothing reads them any more.
        let _ = self.gpu.stream().synchronize();
    }
}
