//! Greedy decoding whose tokens are chosen on the device.

use super::{
    Gpu,
    ahead::{AHEAD, Ban, Graph, Picked, Picks, record},
    causal::STATE,
    launch::{Arg, grid},
};
use crate::{Embedding, KvCache, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// An answer that the device writes by itself: each step embeds the last token, runs the decoder,
/// and picks the next one. The host only starts the steps, some of them in advance, and reads what
/// came of them.
pub struct Greedy {
    /// First: it waits for steps that work with the others.
    picks: Picks<()>,
    gpu: Arc<Gpu>,
    history: Tensor,
    prompt: usize,
    /// The step, from the second time on.
    graph: Option<Graph>,
    /// Steps started, of as many as there may be.
    started: usize,
    most: usize,
}

impl Greedy {
    /// For an answer of at most `most` tokens behind `prompt`; `None` on the CPU.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn new(device: &Device, prompt: &[u32], most: usize, ban: Ban) -> Result<Option<Self>> {
        let Some(gpu) = Gpu::of(device)? else {
            return Ok(None);
        };
        let room = vec![0; most + 1];
        Ok(Some(Self {
            picks: Picks::new(gpu.clone(), ban, 1, AHEAD + 1)?,
            history: Tensor::new([prompt, &room].concat(), device)?,
            prompt: prompt.len(),
            graph: None,
            started: 0,
            most,
            gpu,
        }))
    }

    /// The next token. The first one is picked from the prompt's logits, which `first` gives;
    /// each other one from those that `step` makes of the embedding of the token before, `[1,
    /// size]` in `table`.
    ///
    /// # Errors
    /// Those of `first` and `step`, and when the device fails.
    pub fn next(
        &mut self,
        cache: &mut KvCache,
        table: &Embedding,
        first: impl FnOnce(&mut KvCache) -> Result<Tensor>,
        mut step: impl FnMut(&mut KvCache, Tensor) -> Result<Tensor>,
    ) -> Result<Option<Picked>> {
        if self.started == 0 && self.most > 0 {
            let logits = first(cache)?;
            self.begin(cache)?;
            self.pick(cache, &logits, 0)?;
            self.fetch()?;
        }
        while self.started < self.most && self.picks.under_way() < AHEAD {
            self.advance(cache, table, &mut step)?;
            self.fetch()?;
        }
        let picked = self.picks.next()?.pop();
        Ok(picked.map(|((), picked)| picked))
    }

    fn fetch(&mut self) -> Result<()> {
        self.started += 1;
        self.picks.fetch(vec![()])
    }

    /// Tells the device where the answer begins.
    fn begin(&self, cache: &mut KvCache) -> Result<()> {
        let cached = cache.len();
        let word = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let state: [u32; STATE] = [word(cached), word(self.prompt), word(self.prompt), 0, 0];
        self.gpu.write(cache.state(&self.gpu)?, &state)?;
        cache.reached(cached);
        Ok(())
    }

    /// Starts a step. The first one makes all that the kernels work with, the second is recorded,
    /// and repeated from then on.
    fn advance(
        &mut self,
        cache: &mut KvCache,
        table: &Embedding,
        step: &mut impl FnMut(&mut KvCache, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        if self.started == 1 {
            return self.run(cache, table, step);
        }
        if self.graph.is_some() {
            cache.advance(1);
            cache.reached(cache.len());
        } else {
            let gpu = self.gpu.clone();
            self.graph = Some(record(&gpu, || self.run(cache, table, step))?);
        }
        match &self.graph {
            Some(graph) => graph.launch(),
            None => Ok(()),
        }
    }

    /// A step, kernel by kernel.
    fn run(
        &self,
        cache: &mut KvCache,
        table: &Embedding,
        step: &mut impl FnMut(&mut KvCache, Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let (gpu, size) = (&self.gpu, table.weight.shape()[1]);
        let x = gpu.scratch("x", size, DType::F32, 0)?;
        let args = [
            gpu.address(cache.state(gpu)?)?,
            gpu.address(table.weight.on_gpu()?)?,
            gpu.address(&x)?,
            Arg::int(size),
        ];
        let config = grid([size.div_ceil(256), 1, 1], (256, 1), 0);
        gpu.launch(&gpu.named("decode_embed"), config, &args)?;
        let logits = step(cache, x.reshape((1, size))?)?;
        self.pick(cache, &logits, 1)
    }

    /// Picks a token out of `logits`, behind `appended` new positions.
    fn pick(&self, cache: &mut KvCache, logits: &Tensor, appended: usize) -> Result<()> {
        let gpu = &self.gpu;
        let answer = [gpu.address(cache.state(gpu)?)?, gpu.address(&self.history)?];
        self.picks.pick("decode_pick", &answer, logits, appended)?;
        cache.reached(cache.len());
        Ok(())
    }
}
