//! Products of the full-size model's shapes: many rows, which arithmetic binds, and one row, which
//! memory binds; then a table of both as shares of what the machine reaches at most.

use agx_ocr_benches::{
    decoding::Memory,
    device::{kind, named, synchronise},
    measure::{ROUNDS, median, run, seconds},
    scratch, values, weights,
};
use agx_ocr_kernels::{
    awake,
    half::bf16,
    limits::{Limits, read_rate},
    linear::{Activations, Matrix, Write, linear},
};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::{iter, time::Duration};

/// Name, rows, inputs, outputs. The weights of an expert stay in a cache here: how fast they come
/// from memory is what the group `gemv` measures.
const SHAPES: [(&str, usize, usize, usize); 28] = [
    ("sam_qkv", 4096, 768, 2304),
    ("sam_proj", 4096, 768, 768),
    ("sam_lin1", 4096, 768, 3072),
    ("sam_lin2", 4096, 3072, 768),
    ("clip_qkv", 257, 1024, 3072),
    ("clip_out", 257, 1024, 1024),
    ("clip_fc1", 257, 1024, 4096),
    ("clip_fc2", 257, 4096, 1024),
    ("projector", 256, 2048, 1280),
    ("prefill_273_qkvo", 273, 1280, 1280),
    ("prefill_273_gate_up", 273, 1280, 6848),
    ("prefill_273_down", 273, 6848, 1280),
    ("prefill_273_shared", 273, 1280, 1792),
    ("prefill_900_qkvo", 900, 1280, 1280),
    ("prefill_900_gate_up", 900, 1280, 6848),
    ("prefill_900_down", 900, 6848, 1280),
    ("expert_up_1", 1, 1280, 896),
    ("expert_up_4", 4, 1280, 896),
    ("expert_up_9", 9, 1280, 896),
    ("expert_up_16", 16, 1280, 896),
    ("expert_up_26", 26, 1280, 896),
    ("expert_up_64", 64, 1280, 896),
    ("expert_down_1", 1, 896, 1280),
    ("expert_down_4", 4, 896, 1280),
    ("expert_down_9", 9, 896, 1280),
    ("expert_down_16", 16, 896, 1280),
    ("expert_down_26", 26, 896, 1280),
    ("expert_down_64", 64, 896, 1280),
];
/// Those that are also measured with f32 activations.
const F32: [&str; 4] = ["sam_qkv", "clip_fc1", "prefill_273_qkvo", "expert_up_26"];

/// What the kernels are to reach: a share of the peak, and a share of a plain read.
const GEMM_GOAL: f64 = 0.80;
const GEMV_GOAL: f64 = 0.90;

/// A product and its operands.
struct Product {
    name: &'static str,
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    w: Vec<bf16>,
    y: Vec<f32>,
}

impl Product {
    fn new((name, rows, inputs, outputs): (&'static str, usize, usize, usize)) -> Self {
        Self {
            name,
            inputs,
            outputs,
            x: values(rows * inputs),
            w: weights(outputs * inputs),
            y: vec![0.0; rows * outputs],
        }
    }

    fn multiply_adds(&self) -> usize {
        self.x.len() * self.outputs
    }

    fn activations(&self) -> &'static [Activations] {
        match F32.contains(&self.name) {
            true => &[Activations::Bf16, Activations::F32],
            false => &[Activations::Bf16],
        }
    }

    fn run(&mut self, activations: Activations) {
        let w = Matrix::new(&self.w, self.outputs, self.inputs);
        linear(&self.x, w.into(), &mut self.y, Write::Set, activations);
        synchronise();
    }
}

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group(named("gemm"));
    for shape in SHAPES {
        let mut product = Product::new(shape);
        // Elements are multiply-adds: twice this is the number of operations.
        group.throughput(Throughput::Elements(product.multiply_adds() as u64));
        for &activations in product.activations() {
            let id = BenchmarkId::new(product.name, format!("{activations:?}"));
            group.bench_function(id, |b| awake(|| b.iter(|| product.run(activations))));
        }
    }
}

fn weights_in_memory() -> Memory {
    let dir = scratch();
    match Memory::random(&dir) {
        Ok(memory) => memory,
        Err(error) => panic!("cannot write weights to {}: {error}", dir.display()),
    }
}

fn gemv(c: &mut Criterion) {
    let memory = weights_in_memory();
    let mut group = c.benchmark_group(named("gemv"));
    for mut work in memory.work() {
        group.throughput(Throughput::Bytes(work.bytes as u64));
        group.bench_function(work.name, |b| awake(|| b.iter(&mut work.run)));
    }
    group.finish();
    // The same bytes, only read.
    let bytes = memory.bytes();
    let mut group = c.benchmark_group(named("read"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("weights", |b| {
        b.iter_custom(|n| {
            Duration::from_secs_f64((n as usize * bytes.len()) as f64 / read_rate(&[bytes]))
        });
    });
}

/// Rates as shares of limits that are measured beside them: other work on the machine lowers both.
fn table() {
    println!("\nproduct, activations         GFLOP/s  of f32  of bf16  of fastest  goal");
    for shape in SHAPES {
        let mut product = Product::new(shape);
        for &activations in product.activations() {
            print_gemm(&mut product, activations);
        }
    }
    println!("\none row                         GB/s  of a plain read  goal");
    let memory = weights_in_memory();
    for mut work in memory.work() {
        let rounds = (0..ROUNDS).map(|_| {
            let read = read_rate(&[memory.bytes()]);
            let rate = work.bytes as f64 / awake(|| seconds(&mut work.run));
            (rate, rate / read)
        });
        let (rates, shares) = rounds.unzip();
        println!(
            "{:<28} {:>7.1} {:>16.2} {GEMV_GOAL:>5.2}",
            work.name,
            1e-9 * median(rates),
            median(shares),
        );
    }
}

fn print_gemm(product: &mut Product, activations: Activations) {
    let round = || {
        let limits = Limits::measure(&[]);
        let time = awake(|| seconds(|| product.run(activations)));
        (product.multiply_adds() as f64 / time, limits)
    };
    let rounds: Vec<(f64, Limits)> = iter::repeat_with(round).take(ROUNDS).collect();
    let share = |limit: fn(&Limits) -> Option<f64>| {
        let shares = rounds.iter().filter_map(|(r, l)| Some(r / limit(l)?));
        let shares: Vec<f64> = shares.collect();
        match shares.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.2}", median(shares)),
        }
    };
    let f32 = share(|limits| Some(limits.f32));
    // Products of unrounded activations have the f32 instruction alone.
    let [bf16, fastest] = match activations {
        Activations::Bf16 => [share(|l| l.bf16), share(|l| Some(l.products()))],
        Activations::F32 => ["-".to_owned(), f32.clone()],
    };
    println!(
        "{:<28} {:>7.0} {f32:>7} {bf16:>8} {fastest:>11} {GEMM_GOAL:>5.2}",
        format!("{}, {activations:?}", product.name),
        2e-9 * median(rounds.iter().map(|(rate, _)| *rate).collect()),
    );
}

fn main() {
    match kind() {
        "cpu" => run(&[gemm, gemv], table),
        // A GPU's are cuBLAS's, and parts of the layers' benchmarks.
        _ => eprintln!("skipped: products, whose benchmarks call the CPU's kernels"),
    }
}
