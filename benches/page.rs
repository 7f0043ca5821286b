//! Whole pages, from the image's bytes to text, and what happens to them before the model.

use agx_ocr_benches::{
    device::{choice, kind, named},
    fixture,
    measure::run,
};
use agx_ocr_pipeline::{
    Document, Event, Limits, Mode, Ocr, Options, ReadOptions, Rendering, Task, ViewMode,
};
use agx_ocr_vision::views;
use criterion::{Criterion, SamplingMode, Throughput};
use image::{ImageFormat, RgbImage};
use std::{env, fs, io::Cursor, ops::ControlFlow, time::Duration};

/// Names the directory of a full-size model.
const FULL_MODEL: &str = "AGX_OCR_FULL_MODEL";

fn page(name: &str) -> Vec<u8> {
    let path = fixture(&format!("pages/{name}.png"));
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn decode(bytes: &[u8]) -> RgbImage {
    let document = Document::open(bytes, &Limits::default()).expect("an image");
    let page = document.page(1, &Rendering::default());
    page.expect("an image").image
}

/// 1700 x 1200 pixels of text: a small page again and again.
fn large_page() -> RgbImage {
    let small = decode(&page("receipt-market"));
    let (width, height) = small.dimensions();
    RgbImage::from_fn(1700, 1200, |x, y| *small.get_pixel(x % width, y % height))
}

fn preprocess(c: &mut Criterion) {
    let image = large_page();
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .expect("memory takes an image");
    let png = png.into_inner();
    let mut group = c.benchmark_group(named("preprocess"));
    group.throughput(Throughput::Elements(u64::from(
        image.width() * image.height(),
    )));
    group.bench_function("decode_png", |b| {
        b.iter(|| decode(&png));
    });
    for (name, mode) in [("base", ViewMode::BASE), ("gundam", ViewMode::GUNDAM)] {
        group.bench_function(name, |b| {
            b.iter(|| views::prepare(&image, &mode).expect("views"))
        });
    }
}

fn mini(c: &mut Criterion) {
    let ocr = Ocr::load(fixture("models/agx-ocr-mini"), options());
    let ocr = ocr.expect("the mini model lies in the fixtures");
    let mut group = c.benchmark_group(named("page_mini"));
    for name in ["line-total", "receipt-cafe"] {
        let bytes = page(name);
        group.bench_function(name, |b| {
            b.iter(|| ocr.read(&bytes, &Task::Text).expect("a page"))
        });
    }
}

fn full(c: &mut Criterion) {
    let Some(dir) = env::var_os(FULL_MODEL) else {
        eprintln!(
            "skipped: {}, because {FULL_MODEL} names no model",
            named("page_full")
        );
        return;
    };
    let ocr = Ocr::load(dir, options());
    let ocr = ocr.unwrap_or_else(|e| panic!("{FULL_MODEL}: {e}"));
    let (small, large) = (decode(&page("receipt-cafe")), large_page());
    let pages = [
        ("base_32_tokens", &small, Mode::Base, 32),
        ("gundam_32_tokens", &large, Mode::Gundam, 32),
        ("gundam_900_tokens", &large, Mode::Gundam, 900),
    ];
    let encoded = [
        ("base", &small, Mode::Base),
        ("gundam", &large, Mode::Gundam),
    ];
    vision(c, &ocr, encoded);
    let mut group = c.benchmark_group(named("page_full"));
    group.sampling_mode(SamplingMode::Flat);
    for (name, image, mode, tokens) in pages {
        if tokens > 32 && kind() == "cpu" {
            eprintln!("skipped: {name}, half a minute a page on a CPU");
            continue;
        }
        let mut options = ReadOptions::default();
        (options.mode, options.max_tokens) = (mode, Some(tokens));
        options.stop_cycles = false;
        group.bench_function(name, |b| {
            b.iter(|| {
                let listen = |_: Event<'_>| ControlFlow::Continue(());
                let read = ocr.read_image(image, &Task::Text, &options, listen);
                read.expect("a page")
            });
        });
    }
}

/// The image encoders alone, as pages' statistics have them.
fn vision(c: &mut Criterion, ocr: &Ocr, pages: [(&str, &RgbImage, Mode); 2]) {
    let mut group = c.benchmark_group(named("vision_full"));
    group.sampling_mode(SamplingMode::Flat);
    for (name, image, mode) in pages {
        let mut options = ReadOptions::default();
        (options.mode, options.max_tokens) = (mode, Some(1));
        let encode = || {
            let listen = |_: Event<'_>| ControlFlow::Continue(());
            let read = ocr.read_image(image, &Task::Text, &options, listen);
            read.expect("a page").stats
        };
        let multiply_adds = encode().vision_multiply_adds;
        group.throughput(Throughput::Elements(multiply_adds));
        group.bench_function(name, |b| {
            b.iter_custom(|pages| {
                let ms: f64 = (0..pages).map(|_| encode().vision_ms).sum();
                Duration::from_secs_f64(1e-3 * ms)
            });
        });
    }
}

/// The device of the benchmarks.
fn options() -> Options {
    let mut options = Options::default();
    options.device = choice();
    options
}

fn main() {
    run(&[preprocess, mini, full], || ());
}
