//! Greedy decoding whose tokens are chosen on the device.

use super::{
    Gpu,
    attention::STATE,
    launch::{Arg, grid},
};
use crate::{Embedding, KvCache, Result};
use candle_core::{
    DType, Device, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            CudaEvent, CudaGraph, PinnedHostSlice,
            result::memcpy_dtoh_async,
            sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode},
        },
    },
};
use std::{collections::VecDeque, sync::Arc};

/// Steps that the device is ahead of the host: it never waits to be asked.
const AHEAD: usize = 4;
/// Scores of a block of the kernel that picks.
const SHARE: usize = 1024;
/// 32-bit words of a step's result.
const RESULT: usize = 4;
/// Words of what a block of the kernel that picks leaves to the last one.
const PART: usize = 5;

/// What may not come again.
#[derive(Clone, Debug, Default)]
pub struct Ban {
    /// Length of the n-grams; 0 for none.
    pub ngram: usize,
    /// The answer's last tokens among which they count; `None` for prompt and answer.
    pub window: Option<usize>,
    /// Tokens that are never forbidden.
    pub whitelist: Vec<u32>,
}

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// The token; `None` where every one is forbidden.
    pub token: Option<u32>,
    /// The logarithm of the probability that the model gave it.
    pub log_probability: f32,
    /// Whether all logits were finite.
    pub finite: bool,
}

/// An answer that the device writes by itself: each step embeds the last token, runs the decoder,
/// and picks the next one. The host only starts the steps, some of them in advance, and reads what
/// came of them.
pub struct Greedy {
    gpu: Arc<Gpu>,
    history: Tensor,
    prompt: usize,
    ring: Tensor,
    ban: Ban,
    whitelist: Tensor,
    /// The step, from the second time on.
    graph: Option<CudaGraph>,
    /// Steps started, and their results on the way to the host.
    started: usize,
    most: usize,
    results: PinnedHostSlice<u32>,
    under_way: VecDeque<(usize, CudaEvent)>,
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
        let history = Tensor::new([prompt, &room].concat(), device)?;
        let whitelist = match ban.whitelist.is_empty() {
            true => Tensor::new(&[0_u32], device)?,
            false => Tensor::new(&ban.whitelist[..], device)?,
        };
        let context = gpu.stream().context();
        let words = RESULT * most.max(1);
        // SAFETY: a result is read after the event behind its copy.
        let results = unsafe { context.alloc_pinned_with_flags::<u32>(words, 0) }.w()?;
        Ok(Some(Self {
            ring: gpu.empty(words, DType::U32)?,
            history,
            prompt: prompt.len(),
            ban,
            whitelist,
            graph: None,
            started: 0,
            most,
            results,
            under_way: VecDeque::new(),
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
        while self.started < self.most && self.under_way.len() < AHEAD {
            self.advance(cache, table, &mut step)?;
            self.fetch()?;
        }
        let Some((index, copied)) = self.under_way.pop_front() else {
            return Ok(None);
        };
        copied.synchronize().w()?;
        let results = self.results.as_slice().w()?;
        let [token, log_probability, damaged, _] = results[RESULT * index..][..RESULT] else {
            return Ok(None);
        };
        Ok(Some(Picked {
            token: (token as i32 >= 0).then_some(token),
            log_probability: f32::from_bits(log_probability),
            finite: damaged == 0,
        }))
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
            self.graph = Some(self.record(cache, table, step)?);
        }
        match &self.graph {
            Some(graph) => Ok(graph.launch().w()?),
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

    /// The same, recorded.
    fn record(
        &self,
        cache: &mut KvCache,
        table: &Embedding,
        step: &mut impl FnMut(&mut KvCache, Tensor) -> Result<Tensor>,
    ) -> Result<CudaGraph> {
        let stream = self.gpu.stream();
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).w()?;
        let recorded = self.run(cache, table, step);
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags).w();
        recorded?;
        let nothing = || candle_core::Error::Msg("nothing was recorded".into()).into();
        graph?.ok_or_else(nothing)
    }

    /// Picks a token out of `logits`, behind `appended` new positions.
    fn pick(&self, cache: &mut KvCache, logits: &Tensor, appended: usize) -> Result<()> {
        let (gpu, vocab) = (&self.gpu, logits.elem_count());
        let blocks = vocab.div_ceil(SHARE);
        let window = self
            .ban
            .window
            .map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        let args = [
            gpu.address(cache.state(gpu)?)?,
            gpu.address(&self.history)?,
            gpu.address(logits)?,
            gpu.address(&gpu.scratch("pick parts", PART * blocks, DType::U32, 0)?)?,
            gpu.address(&gpu.scratch("pick finished", 1, DType::U32, 0)?)?,
            gpu.address(&self.ring)?,
            gpu.address(&self.whitelist)?,
            Arg::int(vocab),
            Arg::int(self.ban.ngram),
            Arg::Int(window),
            Arg::int(self.ban.whitelist.len()),
            Arg::int(self.most),
            Arg::int(appended),
        ];
        gpu.launch("decode_pick", grid([blocks, 1, 1], (256, 1), 0), &args)?;
        cache.reached(cache.len());
        Ok(())
    }

    /// Has the latest step's result copied to the host.
    fn fetch(&mut self) -> Result<()> {
        let (index, stream) = (self.started, self.gpu.stream().clone());
        let from = self.gpu.pointer(&self.ring)? + (4 * RESULT * index) as u64;
        let to = &mut self.results.as_mut_slice().w()?[RESULT * index..][..RESULT];
        // SAFETY: both ends hold a result, and the host's is read behind the event only.
        unsafe { memcpy_dtoh_async(to, from, stream.cu_stream()) }.w()?;
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let copied = stream.record_event(Some(flags)).w()?;
        self.under_way.push_back((index, copied));
        self.started += 1;
        Ok(())
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        // Steps in advance still write to its memory.
        let _ = self.gpu.stream().synchronize();
    }
}
