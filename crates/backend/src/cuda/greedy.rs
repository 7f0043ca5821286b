//! Greedy decoding whose tokens are chosen on the device.

use super::{
    Gpu,
    ahead::{AHEAD, Ban, Graph, PART, Picked, Results, SHARE, record},
    attention::STATE,
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
    results: Results,
    gpu: Arc<Gpu>,
    history: Tensor,
    prompt: usize,
    ban: Ban,
    whitelist: Tensor,
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
            results: Results::new(gpu.clone(), 1, AHEAD + 1)?,
            history: Tensor::new([prompt, &room].concat(), device)?,
            prompt: prompt.len(),
            whitelist: ban.whitelist(&gpu)?,
            ban,
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
        while self.started < self.most && self.results.under_way() < AHEAD {
            self.advance(cache, table, &mut step)?;
            self.fetch()?;
        }
        let picked = self.results.next()?;
        Ok(picked.and_then(|rows| rows.first().copied()))
    }

    fn fetch(&mut self) -> Result<()> {
        self.started += 1;
        self.results.fetch(1)
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
        let (gpu, vocab) = (&self.gpu, logits.elem_count());
        let blocks = vocab.div_ceil(SHARE);
        let args = [
            gpu.address(cache.state(gpu)?)?,
            gpu.address(&self.history)?,
            gpu.address(logits)?,
            gpu.address(&gpu.scratch("pick parts", PART * blocks, DType::U32, 0)?)?,
            gpu.address(&gpu.scratch("pick finished", 1, DType::U32, 0)?)?,
            gpu.address(&self.results.picked)?,
            gpu.address(&self.whitelist)?,
            Arg::int(vocab),
            Arg::int(self.ban.ngram),
            Arg::Int(self.ban.window()),
            Arg::int(self.ban.whitelist.len()),
            Arg::int(appended),
        ];
        gpu.launch("decode_pick", grid([blocks, 1, 1], (256, 1), 0), &args)?;
        cache.reached(cache.len());
        Ok(())
    }
}
