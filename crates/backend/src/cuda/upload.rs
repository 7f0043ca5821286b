//! Weights from the mapped files to the device.

use super::Gpu;
use crate::{Result, Weight};
use agx_ocr_kernels::half::{bf16, f16};
use candle_core::{
    DType, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaEvent, result::memcpy_htod_async},
    },
};
use rayon::prelude::*;
use std::{
    ops::Range,
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
/// Weights begin at a multiple of so many values, as kernels that load many at once want it.
const ALIGNED: usize = 128;

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
    blocks: Vec<Block>,
}

/// Weights one behind the other on the device: to ask for each one's room, and to copy the small ones
/// alone, would take as long as the copying.
struct Block {
    values: Tensor,
    /// The weights and where each begins.
    weights: Vec<(usize, Weight)>,
    /// Where the last one ends.
    end: usize,
}

impl Block {
    fn new(gpu: &Gpu, values: usize) -> Result<Self> {
        Ok(Self {
            values: gpu.empty(values, gpu.dtype())?,
            weights: Vec::new(),
            end: 0,
        })
    }

    /// Where the next weight begins.
    fn next(&self) -> usize {
        self.end.next_multiple_of(ALIGNED)
    }
}

impl Uploader {
    /// For weights of so many values each.
    pub(crate) fn new(gpu: Arc<Gpu>, weights: impl Iterator<Item = usize>) -> Result<Self> {
        let started = Instant::now();
        let values = weights.map(|count| count.next_multiple_of(ALIGNED)).sum();
        let blocks = vec![Block::new(&gpu, values)?];
        Ok(Self {
            gpu,
            started,
            blocks,
        })
    }

    /// The weight on the device, in its element type. Its values come with [`Self::finish`].
    pub(crate) fn upload(&mut self, weight: &Weight) -> Result<Uploaded> {
        let count = weight.values().len();
        let has_room = |block: &Block| block.next() + count <= block.values.elem_count();
        // One that comes a second time has no place among the others.
        let block = match self.blocks.iter().position(has_room) {
            Some(block) => block,
            None => {
                self.blocks.push(Block::new(&self.gpu, count)?);
                self.blocks.len() - 1
            }
        };
        let block = &mut self.blocks[block];
        let from = block.next();
        let values = block.values.narrow(0, from, count)?;
        let values = values.reshape(weight.shape())?;
        block.weights.push((from, weight.clone()));
        block.end = from + count;
        Ok(Uploaded {
            values,
            wide: Arc::default(),
        })
    }

    /// Copies all weights, and notes how fast they came to the device.
    pub(crate) fn finish(&self) -> Result<()> {
        let gpu = &*self.gpu;
        let most = PIECE / gpu.dtype().size_in_bytes();
        let pieces: Vec<(&Block, Range<usize>)> = (self.blocks.iter())
            .flat_map(|block| {
                let starts = (0..block.end).step_by(most);
                starts.map(move |from| (block, from..block.end.min(from + most)))
            })
            .collect();
        let next = AtomicUsize::new(0);
        let threads = THREADS.min(pieces.len().max(1));
        // SAFETY: any bytes are values, and those of weights are written before the device reads them.
        let memory =
            unsafe { (gpu.stream().context()).alloc_pinned_with_flags(threads * 2 * PIECE, 0) };
        let mut memory = memory.w()?;
        let memory: &mut [u8] = memory.as_mut_slice().w()?;
        let stagings = memory.par_chunks_mut(2 * PIECE);
        stagings.try_for_each(|memory| -> Result<()> {
            let (even, odd) = memory.split_at_mut(PIECE);
            let mut staging = [Staging::new(gpu, even)?, Staging::new(gpu, odd)?];
            for turn in 0.. {
                let piece = pieces.get(next.fetch_add(1, Ordering::Relaxed));
                let Some((block, range)) = piece else { break };
                staging[turn % 2].copy(block, range)?;
            }
            Ok(())
        })?;
        let weights = self.blocks.iter().flat_map(|block| &block.weights);
        let bytes: usize = weights.map(|(_, weight)| weight.range.len()).sum();
        gpu.note_upload(bytes as f64 / self.started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Memory between file and device.
struct Staging<'a> {
    gpu: &'a Gpu,
    memory: &'a mut [u8],
    /// When the device has all of it.
    copied: CudaEvent,
}

impl<'a> Staging<'a> {
    fn new(gpu: &'a Gpu, memory: &'a mut [u8]) -> Result<Self> {
        let copied = gpu.stream().context().new_event(None).w()?;
        Ok(Self {
            gpu,
            memory,
            copied,
        })
    }

    /// Takes values of the block from the files, once the device has those before, and has it copy them.
    fn copy(&mut self, block: &Block, range: &Range<usize>) -> Result<()> {
        self.copied.synchronize().w()?;
        let dtype = block.values.dtype();
        let size = dtype.size_in_bytes();
        let memory = &mut self.memory[..range.len() * size];
        let after = |(from, _): &(usize, Weight)| *from <= range.start;
        let first = block.weights.partition_point(after).saturating_sub(1);
        for (from, weight) in &block.weights[first..] {
            let values = weight.values();
            let (start, end) = (range.start.max(*from), range.end.min(from + values.len()));
            if *from >= range.end {
                break;
            }
            if start < end {
                let memory = &mut memory[(start - range.start) * size..(end - range.start) * size];
                fetch(&values[start - from..end - from], memory, dtype);
            }
        }
        let to = self.gpu.pointer(&block.values)? + (range.start * size) as u64;
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

/// Values as those of another element type.
fn fetch(values: &[bf16], memory: &mut [u8], dtype: DType) {
    match dtype {
        DType::F32 => convert(values, bytemuck::cast_slice_mut(memory), bf16::to_f32),
        DType::F16 => convert(values, bytemuck::cast_slice_mut(memory), |value| {
            f16::from_f32(value.to_f32())
        }),
        _ => memory.copy_from_slice(bytemuck::cast_slice(values)),
    }
}

fn convert<T>(from: &[bf16], to: &mut [T], value: impl Fn(bf16) -> T) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = value(from);
    }
}
