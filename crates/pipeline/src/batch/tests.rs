//! Reading together where memory is full, or the device is lost, which tests pretend.

use super::*;
use crate::{Error, Options, input::Format};
use agx_ocr_language::Result as LanguageResult;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// A pretended device has memory for so many answers to join, and to go on.
pub(super) static JOINING: AtomicUsize = AtomicUsize::new(usize::MAX);
pub(super) static STEPPING: AtomicUsize = AtomicUsize::new(usize::MAX);
/// It is lost after so many joins and steps.
static LASTS: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Held by the test that pretends.
static PRETENDING: Mutex<()> = Mutex::new(());

/// An error where there is no memory for so many, or no device any more.
pub(super) fn check(room: &AtomicUsize, answers: usize) -> LanguageResult<()> {
    let lasts = LASTS.fetch_update(Relaxed, Relaxed, |lasts| lasts.checked_sub(1));
    let code = match (lasts, answers <= room.load(Relaxed)) {
        (Err(_), _) => "CUDA_ERROR_ILLEGAL_ADDRESS",
        (Ok(_), false) => "CUDA_ERROR_OUT_OF_MEMORY",
        (Ok(_), true) => return Ok(()),
    };
    Err(candle_core::Error::Msg(format!("DriverError({code})")).into())
}

/// Texts, or errors, of the mini model's pages, and how many were read at a time.
fn read(names: &[&str]) -> (Vec<Result<String, String>>, usize) {
    let (ended, most, all) = read_by(names, 4);
    all.unwrap();
    (ended, most)
}

/// The same of those that were told of, with what came of all.
fn read_by(names: &[&str], size: usize) -> (Vec<Result<String, String>>, usize, Result<()>) {
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
    let all = ocr.read_batch(pages, &Task::Text, &options, size, tell);
    let ended = ended.into_values().map(|read| {
        // A page that had to wait is counted once.
        read.map(|(text, views)| {
            assert_eq!(views, 1, "{text}");
            text
        })
    });
    (ended.collect(), most, all)
}

#[test]
fn where_memory_is_full_fewer_pages_are_read_at_a_time() {
    let _pretending = PRETENDING.lock().unwrap_or_else(PoisonError::into_inner);
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

#[test]
fn pages_before_a_lost_device_are_told_of_and_none_is_tried_behind_it() {
    let _pretending = PRETENDING.lock().unwrap_or_else(PoisonError::into_inner);
    let names = ["line-error", "line-total", "line-fox"];
    let (wanted, _) = read(&names);
    let steps = wanted[0].as_ref().unwrap().len();

    // The first page, whose characters are tokens, and some of the second.
    LASTS.store(steps + 10, Relaxed);
    let (told, _, all) = read_by(&names, 1);
    assert_eq!(LASTS.swap(usize::MAX, Relaxed), 0);
    assert_eq!(told, wanted[..1]);
    let Err(Error::Backend(error)) = all else {
        panic!("{all:?}");
    };
    let message = error.to_string();
    assert!(message.contains("lost to this process"), "{message}");
}
