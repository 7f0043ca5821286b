//! One loaded model, many threads and many pages.
//!
//! `AGX_OCR_PAGES=1000 cargo test -p agx-ocr-pipeline --features pdf --test endurance memory -- --nocapture`
//! reads a thousand pages and prints how much memory the process has after every hundredth.

use agx_ocr_pipeline::{Document, Event, Limits, Ocr, Options, Page, ReadOptions, Task};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

/// What one test takes, the other shall not measure.
static ALONE: Mutex<()> = Mutex::new(());

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn load() -> Ocr {
    Ocr::load(fixtures().join("models/agx-ocr-mini"), Options::default()).unwrap()
}

/// All sample pages, in the order of their names.
fn samples() -> Vec<Vec<u8>> {
    let files = fs::read_dir(fixtures().join("pages")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "png"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Pages of the kinds that come in turn: images with and without places, and a document's.
fn read(ocr: &Ocr, samples: &[Vec<u8>], document: &Document, i: usize) -> Page {
    let mut options = ReadOptions::default();
    options.max_tokens = Some(80);
    let on_event = |_: Event<'_>| ControlFlow::Continue(());
    let task = if i.is_multiple_of(2) {
        Task::Text
    } else {
        Task::Ocr
    };
    if i % 3 == 2 {
        let number = 1 + i % document.pages();
        return ocr
            .read_page(document, number, &task, &options, on_event)
            .unwrap();
    }
    let bytes = &samples[i % samples.len()];
    ocr.read_with(bytes, &task, &options, on_event).unwrap()
}

fn document() -> Document {
    let bytes = fs::read(fixtures().join("documents/grey.tiff")).unwrap();
    Document::open(bytes, &Limits::default()).unwrap()
}

#[test]
fn eight_threads_share_a_model() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ocr, samples, document) = (load(), samples(), document());
    let text = |i| {
        let page = read(&ocr, &samples, &document, i);
        (page.text, page.regions.len(), page.confidence)
    };
    let alone: Vec<_> = (0..16).map(text).collect();
    let (text, alone) = (&text, &alone);
    thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || {
                // Each in an order of its own.
                for i in (0..16).map(|i| (first * 5 + i) % 16) {
                    assert_eq!(text(i), alone[i], "page {i} on thread {first}");
                }
            });
        }
    });
}

/// Bytes of memory that are the process's own.
#[cfg(target_os = "linux")]
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_where_it_was() {
    /// What pages that differ may leave behind for the next ones: it comes and goes.
    const BETWEEN_PAGES: u64 = 512 << 10;
    /// A step of an allocator or of a thread, once.
    const STEP: u64 = 8 << 20;
    /// Stretches of pages. What leaks grows in each of them.
    const STRETCHES: usize = 3;

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pages: usize = std::env::var("AGX_OCR_PAGES").map_or(60, |pages| pages.parse().unwrap());
    let (ocr, samples, document) = (load(), samples(), document());
    // Allocators and threads take theirs on the first pages of each kind.
    let warm = 24.max(pages / 4);
    let stretch = (pages.saturating_sub(warm) / STRETCHES).max(1);
    let mut after = Vec::new();
    for i in 0..warm + STRETCHES * stretch {
        read(&ocr, &samples, &document, i);
        let count = i + 1;
        if count >= warm && (count - warm).is_multiple_of(stretch) {
            after.push(memory());
        }
        if count % 100 == 0 {
            println!("{count} pages: {:.1} MB", memory() as f64 / 1e6);
        }
    }
    let grown = after.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let (least, all) = (grown.clone().min().unwrap(), grown.sum::<u64>());
    assert!(
        least < BETWEEN_PAGES && all < STEP,
        "bytes after {warm} pages, and every {stretch} from there on: {after:?}"
    );
}
