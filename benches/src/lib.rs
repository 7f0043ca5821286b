//! What the benchmarks share: the device and its name, how they run, numbers, pages and models.
//!
//! A result is named `DEVICE_GROUP/WORKLOAD`, as in `cpu_gemm/sam_qkv`, so that runs on several
//! devices stand beside each other.
//!
//! | module | what |
//! |---|---|
//! | [`decoding`] | products of one row, which memory binds |
//! | [`device`] | where the benchmarks compute |
//! | [`measure`] | how they run, and shares of what the machine reaches at most |
//! | [`model`] | models of which single layers can be timed |

pub mod decoding;
pub mod device;
pub mod measure;
pub mod model;

use agx_ocr_kernels::half::bf16;
use std::path::{Path, PathBuf};

/// `n` values in -1..1 that look random and are the same in every run.
pub fn values(n: usize) -> Vec<f32> {
    random().take(n).collect()
}

/// `n` values of a weight, with a standard deviation of 0.02 as in trained models.
pub fn weights(n: usize) -> Vec<bf16> {
    // Uniform values in -1..1 have a standard deviation of 1 / sqrt(3).
    let scale = 0.02 * 3_f32.sqrt();
    random()
        .map(|v| bf16::from_f32(scale * v))
        .take(n)
        .collect()
}

fn random() -> impl Iterator<Item = f32> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// A directory for large files while a benchmark runs: the program's own, for what is temporary
/// elsewhere may lie in memory.
pub fn scratch() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map_or_else(std::env::temp_dir, Into::into)
}

/// A path below the project's fixtures.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(path)
}
