//! Reading together where memory is full, which a test pretends.

use super::*;
use crate::{Options, input::Format};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A pretended device has memory for so many answers to join, and to go on.
pub(super) static JOINING: AtomicUsize = AtomicUsize::new(usize::MAX);
pub(super) static STEPPING: AtomicUsize = AtomicUsize::new(usize::MAX);

/// An error where there is no memory for so many.
pub(super) fn check(room: &AtomicUsize, answers: usize) -> LanguageResult<()> {
    if answers <= room.load(Relaxed) {
        return Ok(());
    }
    let full = "DriverError(CUDA_ERROR_OUT_OF_MEMORY)".into();
    Err(candle_core::Error::Msg(full).into())
}

/// Texts, or errors, of the mini model's pages, and how many were read at a time.
fn read(names: &[&str]) -> (Vec<Result<String, String>>, usize) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let ocr = Ocr::load(fixtures.join("models/agx-ocr-mini"), Options::default()).unwrap();
    let pages = names.iter().map(|name| {
        let image = image::open(fixtures.join(format!("pages/{name}.png"))).unwrap();
        Ok(DecodedImage::new(image.to_rgb8(), Format::Png))
    });
    let (mut ended, mut under_way, mut most) = (BTreeMap::new(), BTreeMap::new(), 0);
    let tell = |event: BatchEvent<'_>| {
        match event {
            BatchEvent::Page {
                index,
                event: Event::Token { count, .. },
            } => {
                under_way.insert(index, count);
                most = most.max(under_way.len());
            }
            BatchEvent::End { index, read } => {
                under_way.remove(&index);
                let read = read.map(|(page, _)| (page.text, page.tokens.views));
                ended.insert(index, read.map_err(|error| error.to_string()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let options = ReadOptions::default();
    ocr.read_batch(pages, &Task::Text, &options, 4, tell)
        .unwrap();
    let ended = ended.into_values().map(|read| {
        // A page that had to wait is counted once.
        read.map(|(text, views)| {
            assert_eq!(views, 1, "{text}");
            text
        })
    });
    (ended.collect(), most)
}

#[test]
fn where_memory_is_full_fewer_pages_are_read_at_a_time() {
    let names = ["line-fox", "line-total", "line-error", "line-fox"];
    let (wanted, most) = read(&names);
    assert!(wanted.iter().all(Result::is_ok));
    assert_eq!(most, 4);

    JOINING.store(2, Relaxed);
    assert_eq!(read(&names), (wanted.clone(), 2));

    JOINING.store(usize::MAX, Relaxed);
    STEPPING.store(3, Relaxed);
    assert_eq!(read(&names).0, wanted);

    // Not even one.
    for (joining, stepping) in [(0, usize::MAX), (usize::MAX, 0)] {
        JOINING.store(joining, Relaxed);
        STEPPING.store(stepping, Relaxed);
        for page in read(&names).0 {
            let error = page.unwrap_err();
            assert!(error.contains("too little memory"), "{error}");
        }
    }
    JOINING.store(usize::MAX, Relaxed);
    STEPPING.store(usize::MAX, Relaxed);
}
