//! What the benchmarks share: names by device, numbers to compute with, pages to read.
//!
//! A result is named `DEVICE_GROUP/WORKLOAD`, as in `cpu_gemm/sam_qkv`, so that runs on several
//! devices stand beside each other.

use agx_ocr_kernels::half::bf16;
use std::path::{Path, PathBuf};

/// The name of a group of results on the CPU.
pub fn cpu(group: &str) -> String {
    format!("cpu_{group}")
}

/// `n` values in -1..1 that look random and are the same in every run.
pub fn values(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// [`values`] in bf16.
pub fn weights(n: usize) -> Vec<bf16> {
    values(n).into_iter().map(bf16::from_f32).collect()
}

/// A path below the project's fixtures.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(path)
}
