//! Steps in advance: they are recorded once and repeated, and the host reads what came of them later.

use super::{
    Gpu,
    launch::{Arg, grid},
};
use crate::Result;
use candle_core::{
    DType, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            CudaEvent, CudaGraph, CudaStream, PinnedHostSlice,
            result::memcpy_dtoh_async,
            sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode},
        },
    },
};
use std::{collections::VecDeque, sync::Arc};

/// Steps that the device is ahead of the host: it never waits to be asked.
pub(super) const AHEAD: usize = 4;
/// 32-bit words of what is picked for a row.
const PICKED: usize = 4;
/// Scores of a block of the kernels that pick.
const SHARE: usize = 1024;
/// Words of what a block of them leaves to the last one.
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

impl Ban {
    /// The tokens that are never forbidden, on a device.
    fn whitelist(&self, gpu: &Gpu) -> Result<Tensor> {
        // No empty tensors.
        let list = if self.whitelist.is_empty() {
            &[0]
        } else {
            &self.whitelist[..]
        };
        Ok(Tensor::new(list, &gpu.device())?)
    }

    /// The window as the kernels take it.
    fn window(&self) -> i32 {
        let size = |n| i32::try_from(n).unwrap_or(i32::MAX);
        self.window.map_or(-1, size)
    }
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

impl Picked {
    /// From the kernels' words.
    fn new([token, log_probability, damaged, _]: [u32; PICKED]) -> Self {
        Self {
            token: (token as i32 >= 0).then_some(token),
            log_probability: f32::from_bits(log_probability),
            finite: damaged == 0,
        }
    }

    /// The token and its log-probability, where both mean something.
    pub fn chosen(&self) -> Option<(u32, f32)> {
        let token = self.token.filter(|_| self.finite)?;
        Some((token, self.log_probability))
    }
}

/// Picks tokens out of logits, and brings them to the host. `T` is whose they are.
pub(super) struct Picks<T> {
    gpu: Arc<Gpu>,
    ban: Ban,
    whitelist: Tensor,
    /// Where the kernels leave them, a row behind the other.
    picked: Tensor,
    host: PinnedHostSlice<u32>,
    rows: usize,
    /// Steps so far; each has the next place on the host.
    started: usize,
    under_way: VecDeque<Step<T>>,
}

/// A step whose results are on their way: where on the host they begin, and whose they are.
struct Step<T> {
    start: usize,
    of: Vec<T>,
    copied: CudaEvent,
}

impl<T> Picks<T> {
    /// For so many rows a step, of which so many are fetched before the first is read.
    pub(super) fn new(gpu: Arc<Gpu>, ban: Ban, rows: usize, steps: usize) -> Result<Self> {
        let words = PICKED * rows * steps;
        let context = gpu.stream().context();
        // SAFETY: a result is read behind the event behind its copy.
        let host = unsafe { context.alloc_pinned_with_flags::<u32>(words, 0) }.w()?;
        Ok(Self {
            whitelist: ban.whitelist(&gpu)?,
            ban,
            picked: gpu.empty(PICKED * rows, DType::U32)?,
            host,
            rows,
            started: 0,
            under_way: VecDeque::new(),
            gpu,
        })
    }

    /// Steps whose results are not read yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Runs a kernel that picks a token for each row of `logits` `[rows, vocab]`, behind `appended` new
    /// positions. `answers` are its first arguments: where the answers and their histories are.
    pub(super) fn pick(
        &self,
        kernel: &str,
        answers: &[Arg],
        logits: &Tensor,
        appended: usize,
    ) -> Result<()> {
        let (gpu, (rows, vocab)) = (&self.gpu, logits.dims2()?);
        let blocks = vocab.div_ceil(SHARE);
        let parts = gpu.scratch("pick parts", rows * PART * blocks, DType::U32, 0)?;
        let finished = gpu.scratch("pick finished", rows, DType::U32, 0)?;
        let mut args = answers.to_vec();
        for tensor in [logits, &parts, &finished, &self.picked, &self.whitelist] {
            args.push(gpu.address(tensor)?);
        }
        args.extend([
            Arg::int(vocab),
            Arg::int(self.ban.ngram),
            Arg::Int(self.ban.window()),
            Arg::int(self.ban.whitelist.len()),
            Arg::int(appended),
        ]);
        gpu.launch(kernel, grid([blocks, rows, 1], (256, 1), 0), &args)
    }

    /// Has what the last step picked for its first rows copied to the host; `of` says whose they are.
    pub(super) fn fetch(&mut self, of: Vec<T>) -> Result<()> {
        let words = PICKED * of.len();
        let slots = self.host.as_slice().w()?.len() / (PICKED * self.rows);
        if of.len() > self.rows || self.under_way.len() == slots {
            return Err(candle_core::Error::Msg("no room for a step's results".into()).into());
        }
        let start = self.started % slots * PICKED * self.rows;
        let (from, stream) = (self.gpu.pointer(&self.picked)?, self.gpu.stream());
        let to = &mut self.host.as_mut_slice().w()?[start..start + words];
        // SAFETY: both ends hold a step's results, and the host's is read behind the event only.
        unsafe { memcpy_dtoh_async(to, from, stream.cu_stream()) }.w()?;
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let copied = stream.record_event(Some(flags)).w()?;
        self.under_way.push_back(Step { start, of, copied });
        self.started += 1;
        Ok(())
    }

    /// The oldest step's results, waited for; none where no step is under way.
    pub(super) fn next(&mut self) -> Result<Vec<(T, Picked)>> {
        let Some(Step { start, of, copied }) = self.under_way.pop_front() else {
            return Ok(Vec::new());
        };
        copied.synchronize().w()?;
        let (rows, _) = self.host.as_slice().w()?[start..].as_chunks();
        let picked = rows.iter().copied().map(Picked::new);
        Ok(of.into_iter().zip(picked).collect())
    }
}

impl<T> Drop for Picks<T> {
    fn drop(&mut self) {
        // Steps in advance still write to its memory.
        let _ = self.gpu.stream().synchronize();
    }
}

/// Work that was recorded.
pub(super) struct Graph(CudaGraph);

// SAFETY: a graph belongs to no thread; only two at a time may not use it (CUDA Driver API, "Graph
// object thread safety"), and it is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    /// Does the work once more.
    pub(super) fn launch(&self) -> Result<()> {
        Ok(self.0.launch().w()?)
    }
}

/// Records what `work` asks of the device, which does nothing yet.
pub(super) fn record(gpu: &Gpu, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
    /// Ends it, also where the work panics.
    struct Recording<'a>(&'a Arc<CudaStream>);
    impl Recording<'_> {
        fn end(&self) -> Result<Option<CudaGraph>, candle_core::Error> {
            let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            self.0.end_capture(flags).w()
        }
    }
    impl Drop for Recording<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ = self.end();
            }
        }
    }
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    gpu.stream().begin_capture(mode).w()?;
    let recording = Recording(gpu.stream());
    let recorded = work();
    let graph = recording.end();
    recorded?;
    let nothing = || candle_core::Error::Msg("nothing was recorded".into()).into();
    graph?.map(Graph).ok_or_else(nothing)
}
