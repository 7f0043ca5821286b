//! How benchmarks run: short, in one pool of threads, behind a line that says what the machine
//! reaches at most.

use crate::device::{device, kind};
use agx_ocr_backend::gpu_limits;
use agx_ocr_kernels::{Isa, limits::Limits};
use criterion::Criterion;
use rayon::ThreadPoolBuilder;
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
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
            note_machine();
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

/// Prints what the machine reaches at most, and leaves it beside criterion's results, for
/// `cargo xtask bench-report`.
fn note_machine() {
    let machine = machine();
    eprintln!("limits: {machine}");
    let dir = results();
    let file = dir.join(format!("machine-{}.json", kind()));
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, machine.to_string()));
    if let Err(e) = written {
        eprintln!("cannot write {}: {e}", file.display());
    }
}

/// Where criterion leaves its results.
fn results() -> PathBuf {
    if let Some(dir) = env::var_os("CRITERION_HOME") {
        return dir.into();
    }
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(dir).join("criterion");
    }
    // Cargo marks what it builds in.
    let program = env::current_exe().unwrap_or_default();
    let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
    let target = program.ancestors().filter(marked).last();
    target.unwrap_or(Path::new("target")).join("criterion")
}

/// What the machine reaches at most: rates of products and of reading memory.
fn machine() -> Value {
    // Two operations a multiply-add.
    let tera = |rate: f64| 2e-12 * rate;
    match gpu_limits(&device()) {
        Ok(Some(gpu)) => json!({
            "device": kind(),
            "name": gpu.name,
            "limits": {
                "read_gb_s": 1e-9 * gpu.copy,
                "upload_gb_s": 1e-9 * gpu.upload,
                "bf16_tflop_s": tera(gpu.products),
                "f32_tflop_s": tera(gpu.f32),
            },
        }),
        Ok(None) => {
            let limits = Limits::measure(&[&vec![1; READ]]);
            let fastest = limits.tiles.or(limits.bf16);
            json!({
                "device": kind(),
                "name": format!("{} threads, {}", rayon::current_num_threads(), Isa::detect().name()),
                "limits": {
                    "read_gb_s": 1e-9 * limits.read,
                    "bf16_tflop_s": fastest.map(tera),
                    "f32_tflop_s": tera(limits.f32),
                },
            })
        }
        Err(e) => panic!("the device's limits cannot be measured: {e}"),
    }
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
