//! Steps in advance: they are recorded once and repeated, and the host reads what came of them later.

use super::Gpu;
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
pub(super) const PICKED: usize = 4;
/// Scores of a block of the kernels that pick.
pub(super) const SHARE: usize = 1024;
/// Words of what a block of them leaves to the last one.
pub(super) const PART: usize = 5;

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
    pub(super) fn whitelist(&self, gpu: &Gpu) -> Result<Tensor> {
        // No empty tensors.
        let list = if self.whitelist.is_empty() {
            &[0]
        } else {
            &self.whitelist[..]
        };
        Ok(Tensor::new(list, &gpu.device())?)
    }

    /// The window as the kernels take it.
    pub(super) fn window(&self) -> i32 {
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

/// What the kernels pick, on its way to the host.
pub(super) struct Results {
    gpu: Arc<Gpu>,
    /// Where the kernels leave it, a row behind the other.
    pub(super) picked: Tensor,
    host: PinnedHostSlice<u32>,
    rows: usize,
    /// Steps so far; each has the next place on the host.
    started: usize,
    under_way: VecDeque<(usize, usize, CudaEvent)>,
}

impl Results {
    /// For so many rows a step, of which so many are fetched before the first is read.
    pub(super) fn new(gpu: Arc<Gpu>, rows: usize, steps: usize) -> Result<Self> {
        let words = PICKED * rows * steps;
        let context = gpu.stream().context();
        // SAFETY: a result is read behind the event behind its copy.
        let host = unsafe { context.alloc_pinned_with_flags::<u32>(words, 0) }.w()?;
        Ok(Self {
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

    /// Has what the last step picked for its first `rows` rows copied to the host.
    pub(super) fn fetch(&mut self, rows: usize) -> Result<()> {
        let words = PICKED * rows;
        let slots = self.host.as_slice().w()?.len() / (PICKED * self.rows);
        if rows > self.rows || self.under_way.len() == slots {
            return Err(candle_core::Error::Msg("no room for a step's results".into()).into());
        }
        let start = self.started % slots * PICKED * self.rows;
        let (from, stream) = (self.gpu.pointer(&self.picked)?, self.gpu.stream());
        let to = &mut self.host.as_mut_slice().w()?[start..start + words];
        // SAFETY: both ends hold a step's results, and the host's is read behind the event only.
        unsafe { memcpy_dtoh_async(to, from, stream.cu_stream()) }.w()?;
        let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let copied = stream.record_event(Some(flags)).w()?;
        self.under_way.push_back((start, words, copied));
        self.started += 1;
        Ok(())
    }

    /// The oldest step's results, waited for; `None` where none is under way.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Picked>>> {
        let Some((start, words, copied)) = self.under_way.pop_front() else {
            return Ok(None);
        };
        copied.synchronize().w()?;
        let words = &self.host.as_slice().w()?[start..start + words];
        let (rows, _) = words.as_chunks();
        Ok(Some(rows.iter().copied().map(Picked::new).collect()))
    }
}

impl Drop for Results {
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
