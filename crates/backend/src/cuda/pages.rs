//! Keys and values of many sequences, in pages (PagedAttention, Kwon et al., 2023): memory grows with
//! what is written, not with what may be.

use super::{
    Gpu,
    causal::STATE,
    launch::{Arg, grid},
};
use crate::{CausalAttention, KvBatch, KvCache, Result, RmsNorm, Rope};
use candle_core::{DType, Device, Error, Tensor};
use std::{fmt, sync::Arc};

/// Positions of a page.
const POSITIONS: usize = 128;
/// Positions that a block attends to at least, where several share a sequence.
const LEAST: usize = 128;
/// Parts of a sequence at most.
const MOST_PARTS: usize = 32;

/// The sequences that are decoded together on a GPU.
pub(crate) struct Pages {
    gpu: Arc<Gpu>,
    /// Where each sequence is, for the kernels, and the slot of each row of a step, `[slots]` both.
    states: Tensor,
    slots: Tensor,
    /// The addresses of each slot's pages, `[slots, pages]`.
    table: Tensor,
    /// Pages of a slot at most.
    most: usize,
    sizes: Option<Sizes>,
    /// The sequences' slots, row by row.
    rows: Vec<usize>,
    /// Of each slot.
    sequences: Vec<Sequence>,
    free: Vec<Tensor>,
    /// What [`Self::slots`] holds.
    stepping: Vec<i32>,
}

/// A sequence in its slot.
#[derive(Default)]
struct Sequence {
    taken: bool,
    pages: Vec<Tensor>,
    /// Positions that are filled, or will be by steps that are under way.
    filled: usize,
}

/// What a page is made for.
#[derive(Clone, Copy, PartialEq)]
struct Sizes {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Pages {
    /// For so many sequences of so many positions at most; `None` on the CPU.
    pub(crate) fn new(device: &Device, most: usize, positions: usize) -> Result<Option<Self>> {
        let Some(gpu) = Gpu::of(device)? else {
            return Ok(None);
        };
        let (slots, pages) = (most.max(1), positions.div_ceil(POSITIONS).max(1));
        let rows = rows_of_step(slots);
        Ok(Some(Self {
            states: gpu.zeros(slots * STATE, DType::U32)?,
            slots: gpu.zeros(rows, DType::U32)?,
            table: gpu.zeros(slots * pages, DType::I64)?,
            most: pages,
            sizes: None,
            rows: Vec::new(),
            sequences: (0..slots).map(|_| Sequence::default()).collect(),
            free: Vec::new(),
            stepping: vec![0; rows],
            gpu,
        }))
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The slot of the sequence in a row.
    pub(super) fn slot(&self, row: usize) -> Option<usize> {
        self.rows.get(row).copied()
    }

    /// Where each sequence is, for the kernels.
    pub(super) fn states(&self) -> &Tensor {
        &self.states
    }

    /// The slots of a step's rows, for the kernels.
    pub(super) fn slots(&self) -> &Tensor {
        &self.slots
    }

    /// Takes a sequence in, whose prompt's keys and values are in `cache`.
    pub(crate) fn join(&mut self, cache: &KvCache) -> Result<()> {
        let missing = || Error::Msg("a cache of another device for a batch on a GPU".into());
        let layers = cache.on_gpu.as_ref().ok_or_else(missing)?.filled_layers()?;
        let (first, _) = layers.first().ok_or_else(missing)?;
        let (kv_heads, _, head_dim) = first.dims3()?;
        let sizes = Sizes {
            layers: layers.len(),
            kv_heads,
            head_dim,
        };
        if self.sizes.is_some_and(|known| known != sizes) {
            return Err(Error::Msg("a cache of another decoder in a batch".into()).into());
        }
        self.sizes = Some(sizes);
        let free = self.sequences.iter().position(|sequence| !sequence.taken);
        let slot = free.ok_or_else(|| Error::Msg("a batch on a GPU is full".into()))?;
        self.sequences[slot].taken = true;
        self.sequences[slot].filled = cache.len();
        self.rows.push(slot);
        // The kernels count a slot's pages: those of the one before are not its.
        let row = 2 * self.most;
        let adopted = self.gpu.fill(&self.table, slot * row, 0, row);
        let adopted = adopted.and_then(|()| self.grow(slot, cache.len()));
        let adopted = adopted.and_then(|()| self.adopt(slot, cache.len(), &layers));
        if adopted.is_err() {
            self.leave(self.rows.len() - 1);
        }
        adopted
    }

    /// Copies a prompt's keys and values into a slot's pages.
    fn adopt(&self, slot: usize, positions: usize, layers: &[(Tensor, Tensor)]) -> Result<()> {
        for (layer, (keys, values)) in layers.iter().enumerate() {
            let (kv_heads, capacity, head_dim) = keys.dims3()?;
            let args = [
                self.gpu.address(&self.table)?,
                Arg::int(slot),
                self.gpu.address(keys)?,
                self.gpu.address(values)?,
                Arg::int(positions),
                Arg::int(capacity),
                Arg::int(layer),
                Arg::int(self.most),
                Arg::int(POSITIONS),
                Arg::int(kv_heads),
                Arg::int(head_dim),
            ];
            let chunks = positions * head_dim / self.gpu.chunk();
            let config = grid([chunks.div_ceil(256), kv_heads, 1], (256, 1), 0);
            self.gpu
                .launch(&self.gpu.named("batch_adopt"), config, &args)?;
        }
        Ok(())
    }

    /// Forgets the sequence in `row`, whose place the last row takes. Steps that are under way may
    /// still write to its pages, before whoever gets them next does.
    pub(crate) fn leave(&mut self, row: usize) {
        let slot = self.rows.swap_remove(row);
        let sequence = std::mem::take(&mut self.sequences[slot]);
        self.free.extend(sequence.pages);
    }

    /// Gives back the pages that nobody has.
    pub(crate) fn release(&mut self) {
        self.free.clear();
        // Where that fails, so does what wants the memory.
        let _ = self.gpu.trim();
    }

    /// Makes room for so many positions of a slot's sequence.
    fn grow(&mut self, slot: usize, positions: usize) -> Result<()> {
        let Some(sizes) = self.sizes else {
            return Ok(());
        };
        let wanted = positions.div_ceil(POSITIONS);
        if wanted > self.most {
            let message = format!("a batch has no room for {positions} positions");
            return Err(Error::Msg(message).into());
        }
        while self.sequences[slot].pages.len() < wanted {
            let page = match self.free.pop() {
                Some(page) => page,
                None => {
                    let position = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim;
                    self.gpu.empty(POSITIONS * position, self.gpu.dtype())?
                }
            };
            let pages = &mut self.sequences[slot].pages;
            let address = self.gpu.pointer(&page)?;
            let index = slot * self.most + pages.len();
            pages.push(page);
            self.gpu.fill(&self.table, 2 * index, address as u32, 1)?;
            let high = (address >> 32) as u32;
            self.gpu.fill(&self.table, 2 * index + 1, high, 1)?;
        }
        Ok(())
    }

    /// Makes ready a step of `rows` rows for these sequences, the further ones idle: room for their
    /// new positions, and who is in which row.
    pub(super) fn prepare(&mut self, sequences: &[usize], rows: usize) -> Result<()> {
        for &slot in sequences {
            let filled = self.sequences[slot].filled;
            if filled == POSITIONS * self.sequences[slot].pages.len() {
                self.grow(slot, filled + 1)?;
            }
        }
        for row in 0..rows {
            let slot = sequences.get(row).map_or(-1, |&slot| slot as i32);
            if self.stepping[row] != slot {
                self.gpu.fill(&self.slots, row, slot as u32, 1)?;
                self.stepping[row] = slot;
            }
        }
        Ok(())
    }

    /// Counts the new positions of a step for these sequences.
    pub(super) fn advance(&mut self, sequences: &[usize]) {
        for &slot in sequences {
            self.sequences[slot].filled += 1;
        }
    }
}

/// The rows of the step for so many sequences: few sizes, so that few steps are recorded.
pub(super) fn rows_of_step(sequences: usize) -> usize {
    match sequences {
        0..=2 => sequences,
        3..=8 => sequences.next_multiple_of(2),
        9..=32 => sequences.next_multiple_of(8),
        _ => sequences.next_multiple_of(16),
    }
}

impl KvBatch {
    /// The sequences on a GPU.
    pub(super) fn pages(&mut self) -> Result<&mut Pages> {
        let missing = || Error::Msg("a batch on the CPU for a decoder on a GPU".into()).into();
        self.on_gpu.as_mut().ok_or_else(missing)
    }
}

impl Gpu {
    /// `x += attention(norm(x))` in place, for one new position of the sequence in each row.
    pub(crate) fn causal_add_each(
        &self,
        layer: &CausalAttention,
        x: &Tensor,
        norm: &RmsNorm,
        rope: &Rope,
        index: usize,
        caches: &mut KvBatch,
    ) -> Result<()> {
        let (rows, dim) = (x.dim(0)?, layer.head_dim);
        let (heads, kv_heads) = (layer.q_proj.output() / dim, layer.k_proj.output() / dim);
        let pages = caches.pages()?;
        if !self.fits_one(&[layer.q_proj.input(), dim], Some(dim)) || dim < 2 * self.chunk() {
            let message = format!("no kernel for a batch with heads of {dim} values");
            return Err(Error::Msg(message).into());
        }
        let (cosines, sines) = rope.on_gpu(&self.device(), 1)?;
        let [q, k, v] = self.project(layer, norm, x)?;

        // More blocks than run at once: sequences differ in length.
        let parts = (8 * self.multiprocessors()).div_ceil(rows * heads);
        let parts = parts.clamp(1, MOST_PARTS);
        let partial = rows * heads * parts * (dim + 2);
        let partial = self.scratch("batch parts", partial, DType::F32, 0)?;
        let finished = self.scratch("batch finished", rows * heads, DType::U32, 0)?;
        let mixed = self.empty(q.shape(), self.dtype())?;
        let args = [
            self.address(&pages.states)?,
            self.address(&pages.slots)?,
            self.address(&q)?,
            self.address(&k)?,
            self.address(&v)?,
            self.address(cosines)?,
            self.address(sines)?,
            self.address(&pages.table)?,
            self.address(&partial)?,
            self.address(&finished)?,
            self.address(&mixed)?,
            Arg::int(heads * dim),
            Arg::int(kv_heads * dim),
            Arg::int(index),
            Arg::int(heads),
            Arg::int(kv_heads),
            Arg::int(dim),
            Arg::int(pages.most),
            Arg::int(POSITIONS),
            Arg::int(LEAST),
        ];
        let config = grid([heads, parts, rows], (256, 1), 8 * pages.most);
        self.launch(&self.named("batch_attention"), config, &args)?;
        self.linear_add(&layer.o_proj, x, &mixed)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_rows_for_its_sequences() {
        for sequences in 1..=256 {
            let rows = rows_of_step(sequences);
            assert!(
                (sequences..2 * sequences).contains(&rows),
                "{sequences}: {rows}"
            );
            assert_eq!(rows_of_step(rows), rows);
        }
    }
}
