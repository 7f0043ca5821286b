//! Products of the full-size model's shapes: many rows (operations bind), and one row (memory).

#![expect(missing_docs, reason = "criterion's macros write functions")]

use agx_ocr_benches::{cpu, values, weights};
use agx_ocr_kernels::linear::{Activations, Into, Matrix, linear};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Name, rows, inputs, outputs.
const MANY_ROWS: [(&str, usize, usize, usize); 4] = [
    ("sam_qkv", 4096, 768, 2304),
    ("clip_fc1", 257, 1024, 4096),
    ("prefill_qkv", 273, 1280, 3840),
    ("expert_up_26_rows", 26, 1280, 896),
];
/// Name, inputs, outputs.
const ONE_ROW: [(&str, usize, usize); 2] = [("lm_head", 1280, 129_280), ("dense_up", 1280, 6848)];

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group(cpu("gemm"));
    group.sample_size(20);
    for (name, rows, inputs, outputs) in MANY_ROWS {
        let (x, w) = (values(rows * inputs), weights(outputs * inputs));
        let mut y = vec![0.0; rows * outputs];
        // Elements are multiply-adds: twice this is the number of operations.
        group.throughput(Throughput::Elements((rows * inputs * outputs) as u64));
        for activations in [Activations::Bf16, Activations::F32] {
            group.bench_function(BenchmarkId::new(name, format!("{activations:?}")), |b| {
                b.iter(|| {
                    linear(
                        &x,
                        Matrix::new(&w, outputs, inputs).into(),
                        &mut y,
                        Into::Fresh,
                        activations,
                    )
                });
            });
        }
    }
}

fn gemv(c: &mut Criterion) {
    let mut group = c.benchmark_group(cpu("gemv"));
    for (name, inputs, outputs) in ONE_ROW {
        let (x, w) = (values(inputs), weights(outputs * inputs));
        let mut y = vec![0.0; outputs];
        group.throughput(Throughput::Bytes((2 * inputs * outputs) as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                linear(
                    &x,
                    Matrix::new(&w, outputs, inputs).into(),
                    &mut y,
                    Into::Fresh,
                    Activations::F32,
                )
            });
        });
    }
}

criterion_group!(products, gemm, gemv);
criterion_main!(products);
