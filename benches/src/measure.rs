//! How benchmarks run: short, in one pool of threads, behind a line that says what the machine
//! reaches at most.

use agx_ocr_kernels::{Isa, limits::Limits};
use criterion::Criterion;
use rayon::ThreadPoolBuilder;
use std::{
    env,
    time::{Duration, Instant},
};

/// Bytes that are read for the line of limits: more than caches hold.
const READ: usize = 640 << 20;
/// Runs are timed for this long, and at least [`LEAST_RUNS`] of them.
const TIMING: Duration = Duration::from_millis(60);
const LEAST_RUNS: usize = 3;
/// How often a share is measured, each time beside the limit that it is a share of.
pub const ROUNDS: usize = 3;

/// Runs a benchmark's groups in a pool of threads, and `after` behind them. Where the process was
/// started to measure, a line with the machine's limits comes first.
///
/// # Panics
/// When threads cannot be had.
pub fn run(groups: &[fn(&mut Criterion)], after: fn()) {
    let Ok(pool) = ThreadPoolBuilder::new().build() else {
        panic!("no threads can be had");
    };
    // As in a page's reading, the caller is one of the pool's threads.
    pool.install(|| {
        if measuring() {
            eprintln!("{}", limits());
        }
        let mut criterion = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        for group in groups {
            group(&mut criterion);
        }
        if measuring() {
            after();
        }
        criterion.final_summary();
    });
}

/// Whether this is `cargo bench`, not a test of the benchmarks or a list of them.
fn measuring() -> bool {
    let has = |name: &str| env::args().any(|arg| arg == name);
    has("--bench") && !has("--test") && !has("--list")
}

fn limits() -> String {
    let limits = Limits::measure(&[&vec![1; READ]]);
    // Two operations a multiply-add.
    let gflops = |rate: f64, name: &str| format!("{name} {:.0}", 2e-9 * rate);
    let products = [
        Some(gflops(limits.f32, "f32")),
        limits.bf16.map(|rate| gflops(rate, "bf16")),
        limits.tiles.map(|rate| gflops(rate, "bf16 tiles")),
    ];
    let products: Vec<String> = products.into_iter().flatten().collect();
    format!(
        "limits of {} threads, {}: {} GFLOP/s; reading {:.1} GB/s",
        rayon::current_num_threads(),
        Isa::detect().name(),
        products.join(", "),
        1e-9 * limits.read,
    )
}

/// The median time of `run` in seconds, after one run that is not timed.
pub fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let (started, mut times) = (Instant::now(), Vec::new());
    while times.len() < LEAST_RUNS || started.elapsed() < TIMING {
        let started = Instant::now();
        run();
        times.push(started.elapsed().as_secs_f64());
    }
    median(times)
}

/// The middle one of some values, 0 where there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
