//! A parallel region of two small tasks, with the pool's threads asleep before it and with threads
//! that are kept awake: what [`awake`] is for.
//!
//! Two tasks of 20 µs take 20 µs where the second thread begins at once, and 40 µs where it comes
//! too late.

use agx_ocr_benches::{device::named, measure::run};
use agx_ocr_kernels::awake;
use criterion::{BenchmarkId, Criterion};
use std::time::{Duration, Instant};

/// What lies between two regions: enough for threads to fall asleep.
const PAUSE: Duration = Duration::from_micros(20);
/// Regions that threads are kept awake for at a time, as in a step of decoding.
const STEP: u64 = 60;
const TASKS: [(&str, Duration); 2] = [
    ("empty", Duration::ZERO),
    ("20us", Duration::from_micros(20)),
];

fn spin(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The time of `n` regions without the pauses before them.
fn regions(n: u64, task: Duration) -> Duration {
    let region = |_| {
        spin(PAUSE);
        let started = Instant::now();
        rayon::join(|| spin(task), || spin(task));
        started.elapsed()
    };
    (0..n).map(region).sum()
}

fn fork_join(c: &mut Criterion) {
    let mut group = c.benchmark_group(named("fork_join"));
    for (name, task) in TASKS {
        group.bench_function(BenchmarkId::new("asleep", name), |b| {
            b.iter_custom(|n| regions(n, task));
        });
        group.bench_function(BenchmarkId::new("awake", name), |b| {
            let step = |n| awake(|| regions(n, task));
            b.iter_custom(|n| {
                let whole: Duration = (0..n / STEP).map(|_| step(STEP)).sum();
                whole + step(n % STEP)
            });
        });
    }
}

fn main() {
    run(&[fork_join], || ());
}
