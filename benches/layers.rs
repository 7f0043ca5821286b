//! Layers of the full-size and of the mini model: attention alone, and whole blocks.
//!
//! A block runs inside of its model; what is timed lies between two results that an
//! [`Observer`] sees.

mod attention;

use agx_ocr_backend::{KvCache, Observer, Unobserved, awake};
use agx_ocr_benches::{
    device::{device, kind, named, synchronise},
    measure::run,
    model::Model,
    scratch, values,
};
use agx_ocr_language::{Decoder, Wanted};
use candle_core::Tensor;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use std::{
    cell::Cell,
    fmt,
    time::{Duration, Instant},
};

/// A model and its usual input.
struct Size {
    name: &'static str,
    model: Model,
    /// Side of the view in pixels.
    side: usize,
    /// Side of SAM's result and its channels.
    features: (usize, usize),
}

impl Size {
    fn full() -> Self {
        Self {
            name: "full",
            model: must(Model::few_layers(&scratch())),
            side: 1024,
            features: (16, 1024),
        }
    }

    fn mini() -> Self {
        Self {
            name: "mini",
            model: must(Model::mini()),
            side: 640,
            features: (10, 320),
        }
    }
}

/// The windowed block that is timed; before the first one positions are added.
const WINDOWED: (&str, &str) = ("sam.block0", "sam.block1");
const GLOBAL: (&str, &str) = ("sam.block1", "sam.block2");
const CLIP: (&str, &str) = ("clip.pre_layrnorm", "clip.layer0");
const LAYERS: [(&str, (&str, &str)); 2] = [
    ("dense", ("embeds", "layer0.out")),
    ("mixture", ("layer0.out", "layer1.out")),
];
/// Positions of a prompt.
const PREFILL: [usize; 2] = [273, 900];
/// Positions in the cache before decoding, and where it begins anew.
const CACHED: usize = 900;
const MOST_CACHED: usize = 964;

fn sam_block(c: &mut Criterion, size: &Size) {
    let mut group = c.benchmark_group(named("sam_block"));
    let pixels = tensor(&[1, size.side, size.side, 3]);
    for (name, stages) in [("windowed", WINDOWED), ("global", GLOBAL)] {
        let id = BenchmarkId::new(size.name, name);
        between(&mut group, id, stages, |observer| {
            must(size.model.sam.forward(&pixels, observer));
        });
    }
}

fn clip_block(c: &mut Criterion, size: &Size) {
    let mut group = c.benchmark_group(named("clip_block"));
    let (side, channels) = size.features;
    let features = tensor(&[1, side, side, channels]);
    let id = BenchmarkId::from_parameter(size.name);
    between(&mut group, id, CLIP, |observer| {
        must(size.model.clip.forward(&features, observer));
    });
}

fn decoder_layer(c: &mut Criterion, size: &Size) {
    let mut group = c.benchmark_group(named("decoder_layer"));
    let decoder = &size.model.decoder;
    for (layer, stages) in LAYERS {
        for n in PREFILL {
            let id = BenchmarkId::new(size.name, format!("{layer}_prefill_{n}"));
            between(&mut group, id, stages, |observer| {
                append(decoder, &mut decoder.cache(n), n, observer);
            });
        }
        let mut cache = decoder.cache(MOST_CACHED);
        let id = BenchmarkId::new(size.name, format!("{layer}_decode_{CACHED}"));
        between(&mut group, id, stages, |observer| {
            if cache.is_empty() || cache.len() == MOST_CACHED {
                cache = decoder.cache(MOST_CACHED);
                append(decoder, &mut cache, CACHED, &Unobserved);
            }
            append(decoder, &mut cache, 1, observer);
        });
    }
}

/// Runs the decoder on `n` tokens behind those in the cache.
fn append(decoder: &Decoder, cache: &mut KvCache, n: usize, observer: &dyn Observer) {
    let vocab = decoder.config().vocab_size;
    let ids = (cache.len()..cache.len() + n).map(|i| (i * 101 % vocab) as u32);
    let x = must(decoder.embed(&ids.collect::<Vec<_>>()));
    must(decoder.forward(x, cache, Wanted::All, observer));
}

/// Measures the time between two stages of `forward`.
fn between(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    (from, to): (&str, &str),
    mut forward: impl FnMut(&dyn Observer),
) {
    let (began, took) = (Cell::new(None), Cell::new(Duration::ZERO));
    let observer = Stages(|stage: fmt::Arguments<'_>| {
        let stage = stage.to_string();
        if stage == from || stage == to {
            synchronise();
            let last = began.replace((stage == from).then(Instant::now));
            took.set(took.get() + last.map_or(Duration::ZERO, |last| last.elapsed()));
        }
    });
    group.bench_function(id, |b| {
        b.iter_custom(|n| {
            took.set(Duration::ZERO);
            (0..n).for_each(|_| awake(&device(), || forward(&observer)));
            assert!(!took.get().is_zero(), "{from} does not come before {to}");
            took.get()
        });
    });
}

/// Hears when stages are done, and does not look at what they made.
struct Stages<F>(F);

impl<F: Fn(fmt::Arguments<'_>)> Observer for Stages<F> {
    fn observe(&self, stage: fmt::Arguments<'_>, _: &Tensor) -> agx_ocr_backend::Result<()> {
        (self.0)(stage);
        Ok(())
    }

    fn looks(&self) -> bool {
        false
    }
}

fn tensor(shape: &[usize]) -> Tensor {
    let n = shape.iter().product();
    must(Tensor::from_vec(values(n), shape, &device()))
}

fn must<T, E: fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e:?}"))
}

fn blocks(c: &mut Criterion) {
    for size in [Size::full, Size::mini] {
        let size = size();
        sam_block(c, &size);
        clip_block(c, &size);
        decoder_layer(c, &size);
    }
}

fn main() {
    match kind() {
        "cpu" => run(&[attention::group, blocks], || ()),
        _ => {
            eprintln!("skipped: attention alone, whose benchmarks call the CPU's kernels");
            run(&[blocks], || ());
        }
    }
}
