//! What this machine reaches at most, and what share of it a page's work was.

use crate::{Ocr, Stats};
use agx_ocr_backend::{Checkpoint, Cores, GpuLimits, TensorInfo, gpu_limits};
use agx_ocr_kernels::{Isa, limits::Limits};
use serde::Serialize;

/// Weights that reading is measured on, in bytes: more than any cache holds.
const MOST: usize = 1 << 30;

/// What this machine reaches at most, with the instruction set and the threads that a model uses.
/// A multiply-add is two operations; numbers have three digits.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Machine {
    /// The GPU, where the model is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The instruction set, as `AGX_OCR_KERNELS` names it; `cuda` on a GPU.
    pub kernels: &'static str,
    /// Threads, which work at the same time.
    pub threads: usize,
    /// The cores that they may use, fastest first, where Linux says how fast these are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<CoreKind>,
    /// Rates of products with all operands in registers; on a GPU those of cuBLAS in a large one.
    pub gflops: Gflops,
    /// Rate of reading the decoder's weights and doing nothing with them, in 10⁹ bytes a second; on
    /// a GPU that of a copy, which reads and writes.
    pub read_gbs: f64,
    /// Rate of copies from the host's memory to a GPU, in 10⁹ bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_gbs: Option<f64>,
    /// The rate at which the model's weights came from their files to a GPU, in 10⁹ bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_gbs: Option<f64>,
}

/// Cores of one speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct CoreKind {
    /// Linux's measure of a core's speed: 1024 for a machine's fastest.
    pub capacity: u32,
    /// How many there are.
    pub count: usize,
}

/// Rates of the product instructions, in 10⁹ operations a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Gflops {
    /// f32 vectors.
    pub f32: f64,
    /// bf16 vectors (`vdpbf16ps`, `bfmmla`), where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bf16: Option<f64>,
    /// bf16 tiles (`tdpbf16ps`), where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<f64>,
    /// A GPU's tensor cores, in the element type that the model is computed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor_cores: Option<f64>,
}

/// A page's stages beside the machine's limits; those that did not happen are `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Stages {
    /// SAM, CLIP and the projector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<ComputeBound>,
    /// The decoder on the prompts, to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<ComputeBound>,
    /// The decoder on all further tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<MemoryBound>,
}

/// A stage that arithmetic binds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ComputeBound {
    /// Time in milliseconds.
    pub ms: f64,
    /// Work in 10⁹ operations.
    pub gflop: f64,
    /// Rate in 10⁹ operations a second.
    pub gflops: f64,
    /// The rate as a share of the machine's fastest product instruction's.
    pub share: f64,
    /// The rate as a share of [`Gflops::bf16`], where there are any; above 1 where tiles do the
    /// work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bf16_share: Option<f64>,
}

/// A stage that memory binds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct MemoryBound {
    /// Time in milliseconds.
    pub ms: f64,
    /// What had to be read, in 10⁹ bytes.
    pub gb: f64,
    /// Rate in 10⁹ bytes a second.
    pub gbs: f64,
    /// The rate as a share of [`Machine::read_gbs`].
    pub share: f64,
}

impl Ocr {
    /// Measures what this machine reaches at most with the model's threads, on the weights that
    /// every token reads: about 0.3 seconds, in which nothing else should run. Before the first
    /// page it takes as long as it takes to fetch these weights.
    ///
    /// On a GPU it measures that: about 0.3 seconds and 1.1 GB of its memory; without so much of it
    /// left, the CPU.
    pub fn machine(&self) -> Machine {
        let device = self.decoder.device();
        if !device.is_cpu()
            && let Ok(Some(gpu)) = self.compute(|| gpu_limits(device))
        {
            return self.gpu_machine(gpu);
        }
        let weights: Vec<&[u8]> = self.weights.iter().map(TensorInfo::bytes).collect();
        let limits = self.threads.install(|| Limits::measure(&weights));
        let gflops = |multiply_adds: f64| three_digits(2e-9 * multiply_adds);
        Machine {
            gpu: None,
            kernels: Isa::detect().name(),
            threads: self.threads.current_num_threads(),
            cores: Cores::detect()
                .kinds()
                .into_iter()
                .map(|(capacity, count)| CoreKind { capacity, count })
                .collect(),
            gflops: Gflops {
                f32: gflops(limits.f32),
                bf16: limits.bf16.map(gflops),
                tiles: limits.tiles.map(gflops),
                tensor_cores: None,
            },
            read_gbs: three_digits(1e-9 * limits.read),
            upload_gbs: None,
            weights_gbs: None,
        }
    }

    fn gpu_machine(&self, gpu: GpuLimits) -> Machine {
        let rate = |scale: f64, of: f64| three_digits(1e-9 * scale * of);
        Machine {
            gpu: Some(gpu.name),
            kernels: "cuda",
            threads: self.threads.current_num_threads(),
            cores: Vec::new(),
            gflops: Gflops {
                f32: rate(2.0, gpu.f32),
                bf16: None,
                tiles: None,
                tensor_cores: Some(rate(2.0, gpu.products)),
            },
            read_gbs: rate(1.0, gpu.copy),
            upload_gbs: Some(rate(1.0, gpu.upload)),
            weights_gbs: gpu.weights.map(|weights| rate(1.0, weights)),
        }
    }
}

/// The weights that every token reads, where they lie: the decoder's without routed experts and
/// embeddings, up to [`MOST`] bytes and the rest of a tensor.
pub(crate) fn read_by_every_token(checkpoint: &Checkpoint) -> Vec<TensorInfo> {
    let decoder = |name: &str| name.starts_with("lm_head.") || name.starts_with("model.layers.");
    let mut bytes = 0;
    checkpoint
        .tensors()
        .filter(|(name, _)| decoder(name) && !name.contains(".mlp.experts."))
        .map(|(_, tensor)| tensor)
        .take_while(|tensor| {
            let room = bytes < MOST;
            bytes += tensor.bytes().len();
            room
        })
        .cloned()
        .collect()
}

impl Gflops {
    /// The fastest instruction's.
    pub fn fastest(&self) -> f64 {
        let others = [self.bf16, self.tiles, self.tensor_cores];
        others.into_iter().flatten().fold(self.f32, f64::max)
    }
}

impl Stats {
    /// The page's stages beside the limits of the machine that read it.
    pub fn stages(&self, machine: &Machine) -> Stages {
        let computed = |ms: f64, multiply_adds: u64| {
            let gflop = 2e-9 * multiply_adds as f64;
            let gflops = gflop / ms * 1e3;
            (ms > 0.0 && gflop > 0.0).then(|| ComputeBound {
                ms,
                gflop: three_digits(gflop),
                gflops: three_digits(gflops),
                share: three_digits(gflops / machine.gflops.fastest()),
                bf16_share: machine.gflops.bf16.map(|most| three_digits(gflops / most)),
            })
        };
        let gb = 1e-9 * self.decode_bytes as f64;
        let gbs = gb / self.decode_ms * 1e3;
        let decoded = self.decode_ms > 0.0 && self.decoded_tokens > 0;
        Stages {
            vision: computed(self.vision_ms, self.vision_multiply_adds),
            prefill: computed(self.prefill_ms, self.prefill_multiply_adds),
            decode: decoded.then(|| MemoryBound {
                ms: self.decode_ms,
                gb: three_digits(gb),
                gbs: three_digits(gbs),
                share: three_digits(gbs / machine.read_gbs),
            }),
        }
    }
}

/// To three digits: more would only say how busy the machine was.
fn three_digits(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn machine(bf16: Option<f64>) -> Machine {
        Machine {
            gpu: None,
            kernels: "avx512",
            threads: 2,
            cores: vec![CoreKind {
                capacity: 1024,
                count: 2,
            }],
            gflops: Gflops {
                f32: 400.0,
                bf16,
                tiles: None,
                tensor_cores: None,
            },
            read_gbs: 20.0,
            upload_gbs: None,
            weights_gbs: None,
        }
    }

    #[test]
    fn shares_are_of_the_limits() {
        let stats = Stats {
            vision_ms: 2000.0,
            vision_multiply_adds: 400_000_000_000,
            decode_ms: 100.0,
            decode_bytes: 1_234_567_890,
            decoded_tokens: 3,
            ..Stats::default()
        };
        let stages = stats.stages(&machine(Some(500.0)));
        assert_eq!(stages.prefill, None, "there was none");
        let vision = stages.vision.unwrap();
        assert_eq!((vision.gflop, vision.gflops), (800.0, 400.0));
        assert_eq!((vision.share, vision.bf16_share), (0.8, Some(0.8)));
        let decode = stages.decode.unwrap();
        assert_eq!((decode.gb, decode.gbs, decode.share), (1.23, 12.3, 0.617));

        let vision = stats.stages(&machine(None)).vision.unwrap();
        assert_eq!((vision.share, vision.bf16_share), (1.0, None));
        let vision = stats.stages(&machine(Some(200.0))).vision.unwrap();
        assert_eq!((vision.share, vision.bf16_share), (1.0, Some(2.0)));
    }

    #[test]
    fn a_stage_without_work_is_left_out() {
        let none = Stats::default().stages(&machine(None));
        assert_eq!(serde_json::to_string(&none).unwrap(), "{}");
    }

    #[test]
    fn reading_is_measured_on_what_every_token_reads() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/models/agx-ocr-mini"
        );
        let ocr = Ocr::load(path, Options::default()).unwrap();
        let bytes: usize = ocr.weights.iter().map(|tensor| tensor.bytes().len()).sum();
        // A token reads the experts that it chose, too, and the norm before the head.
        let config = ocr.decoder.config();
        let mixtures = config.num_hidden_layers - config.first_k_dense_replace;
        let expert = 3 * config.hidden_size * config.moe_intermediate_size;
        let chosen = mixtures * config.num_experts_per_tok * expert;
        let all = bytes + 2 * (chosen + config.hidden_size);
        assert_eq!(config.decode_bytes(0), all as u64);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, wanted) in [
            (3412.7, 3410.0),
            (0.054_321, 0.0543),
            (99.96, 100.0),
            (0.0, 0.0),
        ] {
            assert_eq!(three_digits(value), wanted);
        }
    }
}
