//! Whole pages, from the image's bytes to text, and what happens to them before the model.

use agx_ocr_benches::{device::named, fixture, measure::run};
use agx_ocr_pipeline::{
    Document, Limits, Mode, Ocr, Options, ReadOptions, Rendering, Task, ViewMode,
};
use agx_ocr_vision::views;
use criterion::{Criterion, SamplingMode, Throughput};
use image::{ImageFormat, RgbImage};
use std::{env, fs, io::Cursor, ops::ControlFlow};

/// Names the directory of a full-size model.
const FULL_MODEL: &str = "AGX_OCR_FULL_MODEL";
/// Tokens of an answer of the full-size model.
const MOST_TOKENS: usize = 32;

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
    let ocr = Ocr::load(fixture("models/agx-ocr-mini"), Options::default());
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
    let ocr = Ocr::load(dir, Options::default());
    let ocr = ocr.unwrap_or_else(|e| panic!("{FULL_MODEL}: {e}"));
    let mut options = ReadOptions::default();
    options.mode = Mode::Base;
    options.max_tokens = Some(MOST_TOKENS);
    let bytes = page("receipt-cafe");
    let mut group = c.benchmark_group(named("page_full"));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(format!("base_{MOST_TOKENS}_tokens"), |b| {
        b.iter(|| {
            let read = ocr.read_with(&bytes, &Task::Text, &options, |_| ControlFlow::Continue(()));
            read.expect("a page")
        });
    });
}

fn main() {
    run(&[preprocess, mini, full], || ());
}
