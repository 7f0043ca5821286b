//! What reading cost: the document's "stats".

use crate::memory;
use agx_ocr_pipeline::{Machine, Stages, Stats};
use serde::Serialize;

/// What reading cost, and what share of the machine's limits that was.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Costs {
    load_ms: f64,
    /// Of the process so far, the mapped weights that it touched among it.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_gb: Option<f64>,
    /// The sum of all pages.
    #[serde(flatten)]
    pages: Stats,
    machine: Machine,
    stages: Stages,
    goal: Goal,
}

/// What is measured beside the pages.
pub struct Measured {
    pub load_ms: f64,
    pub machine: Machine,
    pub weight_bytes: usize,
}

/// What the costs are meant to reach.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Goal {
    /// At most.
    load_ms: f64,
    /// At most: the weights and 1 GB.
    peak_memory_gb: f64,
    /// `bf16_share` of `vision`, where the machine has such products.
    #[serde(skip_serializing_if = "Option::is_none")]
    vision_bf16_share: Option<f64>,
    /// `bf16_share` of `prefill`, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_bf16_share: Option<f64>,
    /// `share` of `vision` on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    vision_share: Option<f64>,
    /// `share` of `decode`: reading the weights takes no more than 1.2 times as long as it must,
    /// on a GPU twice.
    decode_share: f64,
}

impl Costs {
    /// The costs of pages, beside what was measured.
    pub fn new(pages: Stats, measured: &Measured) -> Self {
        let Measured {
            load_ms,
            machine,
            weight_bytes,
        } = measured;
        let (bf16, on_gpu) = (machine.gflops.bf16, machine.gpu.is_some());
        Self {
            load_ms: *load_ms,
            peak_memory_gb: memory::peak().map(gigabytes),
            pages,
            stages: pages.stages(machine),
            goal: Goal {
                // A GPU gets the weights.
                load_ms: if on_gpu { 4000.0 } else { 500.0 },
                peak_memory_gb: gigabytes(*weight_bytes as u64) + 1.0,
                vision_bf16_share: bf16.map(|_| 0.65),
                prefill_bf16_share: bf16.map(|_| 0.60),
                vision_share: on_gpu.then_some(0.35),
                decode_share: if on_gpu { 0.50 } else { 0.83 },
            },
            machine: machine.clone(),
        }
    }
}

/// In 10⁹ bytes, to two decimals.
fn gigabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e7).round() / 100.0
}
