//! Attention of the model's sizes, without the products around it.

use agx_ocr_benches::{
    device::{named, synchronise},
    values,
};
use agx_ocr_kernels::{
    attention::{Cache, Heads, RelativePositions, attention, causal_attention, window_attention},
    awake,
    linear::Activations,
};
use criterion::{BenchmarkId, Criterion, Throughput};

/// The sizes of a model's attention.
struct Sizes {
    name: &'static str,
    /// Side of SAM's grid.
    grid: usize,
    sam: Heads,
    /// Positions, the class token's included.
    clip_positions: usize,
    clip: Heads,
    decoder: Heads,
}

/// Side of SAM's windows.
const WINDOW: usize = 14;
/// Positions of a prompt.
const PREFILL: [usize; 2] = [273, 900];
/// Positions that a token attends to in decoding.
const CACHED: usize = 900;

/// A benchmark of a group.
struct Bench<'a> {
    name: &'a str,
    throughput: Throughput,
    work: Box<dyn FnMut() + Send + 'a>,
}

/// The group `attention`. Elements are the multiply-adds of both products.
pub fn group(c: &mut Criterion) {
    let all = [
        Sizes {
            name: "full",
            grid: 64,
            sam: Heads::new(12, 64),
            clip_positions: 257,
            clip: Heads::new(16, 64),
            decoder: Heads::new(10, 128),
        },
        Sizes {
            name: "mini",
            grid: 40,
            sam: Heads::new(4, 64),
            clip_positions: 101,
            clip: Heads::new(5, 64),
            decoder: Heads::new(5, 64),
        },
    ];
    let mut group = c.benchmark_group(named("attention"));
    for sizes in &all {
        let prefills = PREFILL.map(|n| prefill(sizes, n));
        let others = [
            sam_global(sizes),
            sam_windows(sizes),
            clip(sizes),
            decode(sizes),
        ];
        for mut bench in others.into_iter().chain(prefills) {
            group.throughput(bench.throughput);
            group.bench_function(BenchmarkId::new(sizes.name, bench.name), |b| {
                awake(|| {
                    b.iter(|| {
                        (bench.work)();
                        synchronise();
                    });
                });
            });
        }
    }
}

/// Multiply-adds of `pairs` of a query and a key.
fn elements(pairs: usize, heads: Heads) -> Throughput {
    Throughput::Elements((2 * pairs * width(heads)) as u64)
}

fn width(heads: Heads) -> usize {
    heads.count * heads.dim
}

fn sam_global(sizes: &Sizes) -> Bench<'_> {
    let (heads, grid) = (sizes.sam, sizes.grid);
    let n = grid * grid;
    let (qkv, mut out) = (values(3 * n * width(heads)), vec![0.0; n * width(heads)]);
    let table = values((2 * grid - 1) * heads.dim);
    let work = move || {
        let relative = RelativePositions {
            height: &table,
            width: &table,
            grid,
        };
        attention(&qkv, n, heads, Some(relative), &mut out, Activations::Bf16);
    };
    Bench {
        name: "sam_global",
        throughput: elements(n * n, heads),
        work: Box::new(work),
    }
}

fn sam_windows(sizes: &Sizes) -> Bench<'_> {
    let (heads, grid) = (sizes.sam, sizes.grid);
    let n = grid * grid;
    let (qkv, mut out) = (values(3 * n * width(heads)), vec![0.0; n * width(heads)]);
    let padding = values(3 * width(heads));
    let table = values((2 * WINDOW - 1) * heads.dim);
    let work = move || {
        let relative = RelativePositions {
            height: &table,
            width: &table,
            grid: WINDOW,
        };
        window_attention(
            &qkv,
            (grid, grid),
            WINDOW,
            &padding,
            heads,
            relative,
            &mut out,
            Activations::Bf16,
        );
    };
    Bench {
        name: "sam_windows",
        // What lies beside the image is not counted.
        throughput: elements(n * WINDOW * WINDOW, heads),
        work: Box::new(work),
    }
}

fn clip(sizes: &Sizes) -> Bench<'_> {
    let (heads, n) = (sizes.clip, sizes.clip_positions);
    let (qkv, mut out) = (values(3 * n * width(heads)), vec![0.0; n * width(heads)]);
    let work = move || attention(&qkv, n, heads, None, &mut out, Activations::Bf16);
    Bench {
        name: "clip",
        throughput: elements(n * n, heads),
        work: Box::new(work),
    }
}

fn prefill(sizes: &Sizes, n: usize) -> Bench<'_> {
    let name = match n {
        273 => "prefill_273",
        _ => "prefill_900",
    };
    causal(sizes, name, 0, n)
}

fn decode(sizes: &Sizes) -> Bench<'_> {
    causal(sizes, "decode_900", CACHED - 1, 1)
}

/// `n` positions behind `first` that are cached.
fn causal<'a>(sizes: &Sizes, name: &'a str, first: usize, n: usize) -> Bench<'a> {
    let heads = sizes.decoder;
    let (q, mut out) = (values(n * width(heads)), vec![0.0; n * width(heads)]);
    let capacity = first + n;
    let memory = values(capacity * width(heads));
    let work = move || {
        let cache = Cache {
            keys: &memory,
            values: &memory,
            heads: heads.count,
            capacity,
        };
        causal_attention(&q, cache, first, heads, &mut out, Activations::Bf16);
    };
    Bench {
        name,
        throughput: elements(n * first + n * (n + 1) / 2, heads),
        work: Box::new(work),
    }
}
