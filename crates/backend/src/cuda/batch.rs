//! Greedy decoding of several answers together, whose tokens are chosen on the device.

use super::{
    Gpu,
    ahead::{AHEAD, Ban, Graph, Picked, Picks, record},
    causal::STATE,
    launch::{Arg, grid},
    pages::rows_of_step,
};
use crate::{Embedding, KvBatch, Result};
use candle_core::{DType, Device, Tensor};
use std::{collections::HashMap, fmt, sync::Arc};

/// Answers that the device writes by itself, as [`Greedy`](super::Greedy) does one. A step has a row for
/// each; rows leave and join between steps.
pub struct GreedyBatch {
    /// First: it waits for steps that work with the others.
    picks: Picks<u64>,
    gpu: Arc<Gpu>,
    /// Prompt and answer of each slot, `[slots, positions]`.
    histories: Tensor,
    positions: usize,
    /// In the order of the caches' rows.
    rows: Vec<Row>,
    /// Steps by their number of rows.
    steps: HashMap<usize, Step>,
}

/// The sizes of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct BatchOf {
    /// Positions that it knows.
    pub positions: usize,
    /// Values of a position.
    pub hidden: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Tokens.
    pub vocab: usize,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
struct Row {
    ticket: u64,
    /// Tokens started, of as many as there may be.
    started: usize,
    most: usize,
}

/// A step that the device knows.
enum Step {
    /// It was run once, and all that its kernels work with is there.
    Run,
    Recorded(Graph),
}

impl GreedyBatch {
    /// For `size` answers at a time of a decoder; `None` on the CPU, and where there are no kernels for
    /// its sizes.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn new(device: &Device, size: usize, of: &BatchOf, ban: Ban) -> Result<Option<Self>> {
        let Some(gpu) = Gpu::of(device)? else {
            return Ok(None);
        };
        let positions = of.positions;
        let heads_fit = gpu.fits_one(&[of.hidden, of.head_dim], Some(of.head_dim));
        if !heads_fit || of.head_dim < 2 * gpu.chunk() || !of.vocab.is_multiple_of(4) {
            return Ok(None);
        }
        let rows = rows_of_step(size.max(1));
        Ok(Some(Self {
            // Those that join have a result before their first step, also where they soon leave.
            picks: Picks::new(gpu.clone(), ban, rows, AHEAD + 2 * rows)?,
            histories: gpu.zeros(rows * positions, DType::U32)?,
            positions,
            rows: Vec::new(),
            steps: HashMap::new(),
            gpu,
        }))
    }

    /// Takes in an answer of at most `most` tokens behind `prompt`, whose cache has joined `caches`
    /// as the last row, and picks its first token out of the prompt's `logits`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn join(
        &mut self,
        ticket: u64,
        caches: &mut KvBatch,
        prompt: &[u32],
        most: usize,
        logits: &Tensor,
    ) -> Result<()> {
        let gpu = self.gpu.clone();
        let (row, pages) = (self.rows.len(), caches.pages()?);
        let missing = || candle_core::Error::Msg("an answer without a cache".into());
        let slot = pages.slot(row).ok_or_else(missing)?;
        let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        gpu.write_at(&self.histories, slot * self.positions, prompt)?;
        let state: [u32; STATE] = [length, length, length, 0, 0];
        gpu.write_at(pages.states(), slot * STATE, &state)?;
        self.rows.push(Row {
            ticket,
            started: 0,
            most,
        });
        if most == 0 {
            return Ok(());
        }
        let first = pages.prepare(&[slot], 1);
        let first = first.and_then(|()| self.pick(caches, logits, 0));
        let first = first.and_then(|()| self.fetch(&[row]));
        if first.is_err() {
            self.leave(row);
        }
        first
    }

    /// Forgets the answer in `row`, whose place the last row takes.
    pub fn leave(&mut self, row: usize) {
        self.rows.swap_remove(row);
    }

    /// What a step picked, for each of its answers; of those that have left too. `step` makes logits
    /// `[n, vocab]` of the embeddings `[n, size]` of their last tokens, out of `table`.
    ///
    /// # Errors
    /// Those of `step`, and when the device fails. Where its memory is full nothing has happened.
    pub fn next(
        &mut self,
        caches: &mut KvBatch,
        table: &Embedding,
        mut step: impl FnMut(&mut KvBatch, Tensor) -> Result<Tensor>,
    ) -> Result<Vec<(u64, Picked)>> {
        while self.picks.under_way() < AHEAD {
            let unfinished = |row: &usize| self.rows[*row].started < self.rows[*row].most;
            let rows: Vec<usize> = (0..self.rows.len()).filter(unfinished).collect();
            if rows.is_empty() {
                break;
            }
            self.advance(&rows, caches, table, &mut step)?;
            self.fetch(&rows)?;
        }
        self.picks.next()
    }

    /// Starts a step for these rows. The first one of a size makes all that the kernels work with, the
    /// second is recorded, and repeated from then on.
    fn advance(
        &mut self,
        rows: &[usize],
        caches: &mut KvBatch,
        table: &Embedding,
        step: &mut impl FnMut(&mut KvBatch, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let size = rows_of_step(rows.len());
        let pages = caches.pages()?;
        let slots: Vec<usize> = rows.iter().filter_map(|row| pages.slot(*row)).collect();
        pages.prepare(&slots, size)?;
        match self.steps.get(&size) {
            None => {
                self.run(size, caches, table, step)?;
                self.steps.insert(size, Step::Run);
            }
            Some(Step::Run) => {
                let gpu = self.gpu.clone();
                let graph = record(&gpu, || self.run(size, caches, table, step))?;
                graph.launch()?;
                self.steps.insert(size, Step::Recorded(graph));
            }
            Some(Step::Recorded(graph)) => graph.launch()?,
        }
        caches.pages()?.advance(&slots);
        Ok(())
    }

    /// A step of `size` rows, kernel by kernel.
    fn run(
        &self,
        size: usize,
        caches: &mut KvBatch,
        table: &Embedding,
        step: &mut impl FnMut(&mut KvBatch, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let (gpu, hidden) = (&self.gpu, table.weight.shape()[1]);
        let x = gpu.scratch("batch x", size * hidden, DType::F32, 0)?;
        let pages = caches.pages()?;
        let args = [
            gpu.address(pages.states())?,
            gpu.address(pages.slots())?,
            gpu.address(table.weight.on_gpu()?)?,
            gpu.address(&x)?,
            Arg::int(hidden),
        ];
        let blocks = (hidden / gpu.chunk()).div_ceil(256);
        let config = grid([blocks, size, 1], (256, 1), 0);
        gpu.launch(&gpu.named("batch_embed"), config, &args)?;
        let logits = step(caches, x.reshape((size, hidden))?)?;
        self.pick(caches, &logits, 1)
    }

    /// Picks a token for each row out of `logits`, behind `appended` new positions.
    fn pick(&self, caches: &mut KvBatch, logits: &Tensor, appended: usize) -> Result<()> {
        let (gpu, pages) = (&self.gpu, caches.pages()?);
        let answers = [
            gpu.address(pages.states())?,
            gpu.address(pages.slots())?,
            gpu.address(&self.histories)?,
            Arg::int(self.positions),
        ];
        self.picks.pick("batch_pick", &answers, logits, appended)
    }

    /// Has what the last step picked for these rows copied to the host.
    fn fetch(&mut self, rows: &[usize]) -> Result<()> {
        let tickets = rows.iter().map(|row| self.rows[*row].ticket);
        self.picks.fetch(tickets.collect())?;
        for &row in rows {
            self.rows[row].started += 1;
        }
        Ok(())
    }
}

impl fmt::Debug for GreedyBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreedyBatch")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
