//! Decoding: the weights of an answer's tokens beside what memory gives, and tokens a second of answers
//! that are decoded together, over their number.
//!
//! Prompts are of a Base view, 278 tokens. Their own time is not measured, nor the first steps, in
//! which a GPU's are recorded.

use agx_ocr_backend::Unobserved;
use agx_ocr_benches::{
    device::{device, kind, named},
    measure::run,
    model::Model,
    values,
};
use agx_ocr_language::{Batch, Decoder, GenerateOptions, NgramScope, NoRepeatNgram, Prompt};
use candle_core::Tensor;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use std::{
    env, fmt,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

/// Names the directory of a full-size model.
const FULL_MODEL: &str = "AGX_OCR_FULL_MODEL";
/// Tokens of a prompt, and those of them that stand for the image.
const PROMPT: usize = 278;
const IMAGE: usize = 273;
/// Tokens of each answer before it is timed.
const BEFORE: usize = 8;
const CPU_SIZES: [usize; 4] = [1, 2, 4, 8];
const GPU_SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 48, 64];

fn batch(c: &mut Criterion) {
    mini_and_full(c, "mini", Model::mini());
    match env::var_os(FULL_MODEL) {
        Some(dir) => mini_and_full(c, "full", Model::at(Path::new(&dir))),
        None => eprintln!(
            "skipped: {}/full, because {FULL_MODEL} names no model",
            named("batch")
        ),
    }
}

fn mini_and_full<E: fmt::Display>(c: &mut Criterion, name: &str, model: Result<Model, E>) {
    let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
    let (sizes, tokens) = match kind() {
        "cpu" => (&CPU_SIZES[..], 8),
        _ => (&GPU_SIZES[..], 200),
    };
    let mut group = c.benchmark_group(named("decode"));
    group.sampling_mode(SamplingMode::Flat);
    // Keys and values, of which devices keep different types, are left out.
    let weights = model.decoder.config().decode_bytes(0);
    group.throughput(Throughput::Bytes(tokens as u64 * weights));
    group.bench_function(name, |b| {
        b.iter_custom(|n| (0..n).map(|_| decode_alone(&model.decoder, tokens)).sum());
    });
    group.finish();
    let mut group = c.benchmark_group(named("batch"));
    group.sampling_mode(SamplingMode::Flat);
    for &size in sizes {
        group.throughput(Throughput::Elements((size * tokens) as u64));
        group.bench_function(BenchmarkId::new(name, size), |b| {
            b.iter_custom(|n| (0..n).map(|_| decode(&model.decoder, size, tokens)).sum());
        });
    }
}

/// What takes the place of an image.
fn image(decoder: &Decoder) -> Tensor {
    let size = decoder.config().hidden_size;
    must(Tensor::from_vec(
        values(IMAGE * size),
        (IMAGE, size),
        &device(),
    ))
}

/// A prompt's tokens.
fn ids(decoder: &Decoder, row: usize) -> Vec<u32> {
    let id = |i: usize| ((row * 7919 + i * 101) % decoder.config().vocab_size) as u32;
    (0..PROMPT).map(id).collect()
}

/// Answers that do not end before they have been timed.
fn options(tokens: usize) -> GenerateOptions {
    let no_end = u32::MAX;
    let mut options = GenerateOptions::new(no_end, BEFORE + tokens + 8);
    options.no_repeat_ngram = Some(NoRepeatNgram {
        size: 30,
        scope: NgramScope::Window(90),
        whitelist: Vec::new(),
    });
    options
}

/// The time of `tokens` tokens of one answer.
fn decode_alone(decoder: &Decoder, tokens: usize) -> Duration {
    let (vision, ids) = (image(decoder), ids(decoder, 0));
    let prompt = Prompt {
        ids: &ids,
        image: 1..1 + IMAGE,
        vision: &vision,
    };
    let (mut said, mut started, mut took) = (0, None, Duration::ZERO);
    let on_token = &mut |_, _| {
        said += 1;
        if said == BEFORE {
            started = Some(Instant::now());
        }
        if said == BEFORE + tokens {
            took = started.map_or(took, |started| started.elapsed());
        }
        ControlFlow::Continue(())
    };
    must(decoder.generate(&prompt, &options(tokens), &Unobserved, on_token));
    took
}

/// The time of `tokens` tokens for each of `size` answers.
fn decode(decoder: &Decoder, size: usize, tokens: usize) -> Duration {
    let vision = image(decoder);
    let mut batch = must(Batch::new(decoder, size, &options(tokens)));
    for row in 0..size {
        let ids = ids(decoder, row);
        let prompt = Prompt {
            ids: &ids,
            image: 1..1 + IMAGE,
            vision: &vision,
        };
        must(batch.join(&prompt, &Unobserved));
    }
    let mut said = 0;
    let mut steps = |tokens: usize| {
        let wanted = size * tokens;
        while said < wanted {
            let step = batch.step(&mut |_, _, _| {
                said += 1;
                ControlFlow::Continue(())
            });
            assert!(must(step).is_empty(), "no answer ends");
        }
    };
    steps(BEFORE);
    let started = Instant::now();
    steps(BEFORE + tokens);
    started.elapsed()
}

fn must<T, E: fmt::Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e:?}"))
}

fn main() {
    run(&[batch], || ());
}
