//! Pages that are read together, with the mini model: what each of them says alone.

mod device;

use agx_ocr_pipeline::{
    BatchEvent, Event, FinishReason, Limits, Mode, Ocr, Page, ReadOptions, Sampling, Task,
    input::{DecodedImage, Document, Format},
};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow::{self, Break, Continue},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

const PAGES: [&str; 5] = [
    "line-fox",
    "paragraph-poem",
    "form-boarding",
    "line-error",
    "receipt-cafe",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

static OCR: LazyLock<Ocr> =
    LazyLock::new(|| Ocr::load(fixtures().join("models/agx-ocr-mini"), device::options()).unwrap());

type Read = agx_ocr_pipeline::Result<Page>;

fn image(name: &str) -> agx_ocr_pipeline::Result<DecodedImage> {
    let bytes = fs::read(fixtures().join(format!("pages/{name}.png"))).unwrap();
    let options = ReadOptions::default();
    Ok(OCR.open(bytes)?.page(1, &options.rendering)?)
}

fn options(change: impl FnOnce(&mut ReadOptions)) -> ReadOptions {
    let mut options = ReadOptions::default();
    change(&mut options);
    options
}

/// At random, from this temperature.
fn random(temperature: f64) -> ReadOptions {
    options(|options| {
        options.sampling = Sampling::Random {
            temperature,
            top_p: 1.0,
            top_k: 0,
            seed: 3,
        };
    })
}

/// All pages, and how many were being read when each of them began.
fn read(names: &[&str], options: &ReadOptions, size: usize) -> (Vec<Read>, Vec<usize>) {
    let (mut under_way, mut beside) = (0, Vec::new());
    let mut read = BTreeMap::new();
    let pages = names.iter().map(|name| image(name));
    let tell = |event: BatchEvent<'_>| {
        match event {
            BatchEvent::Page {
                event: Event::Image { .. },
                ..
            } => {
                under_way += 1;
                beside.push(under_way);
            }
            BatchEvent::End { index, read: ended } => {
                under_way -= 1;
                let ended = ended.map(|(page, image)| {
                    assert_eq!(image.image.dimensions(), (page.width, page.height));
                    page
                });
                assert!(read.insert(index, ended).is_none(), "once each");
            }
            _ => {}
        }
        Continue(())
    };
    OCR.read_batch(pages, &Task::Text, options, size, tell)
        .unwrap();
    assert!(read.keys().copied().eq(0..names.len()));
    (read.into_values().collect(), beside)
}

fn expected(name: &str) -> String {
    let path = fixtures().join(format!("pages/{name}.out.txt"));
    fs::read_to_string(path).unwrap().trim_end().to_owned()
}

#[test]
fn pages_say_together_what_they_say_alone() {
    let options = ReadOptions::default();
    for size in [1, 2, 4, 8] {
        let started = Instant::now();
        let (read, beside) = read(&PAGES, &options, size);
        let took = 1e3 * started.elapsed().as_secs_f64();
        // One leaves, and another joins.
        assert_eq!(beside.iter().max(), Some(&size.min(PAGES.len())));
        assert_eq!(beside.len(), PAGES.len());
        let stats = |page: &Page| page.stats.prefill_ms + page.stats.decode_ms;
        let steps: f64 = read.iter().flatten().map(stats).sum();
        assert!(0.0 < steps && steps <= took, "{steps} of {took} ms");
        for (name, page) in PAGES.iter().zip(read) {
            let page = page.unwrap();
            assert_eq!(page.text, expected(name), "{name}, {size} at a time");
            assert_eq!(page.finish_reason, FinishReason::Stop);
            let alone = OCR.read_decoded(&image(name).unwrap(), &Task::Text, &options, |_| {
                Continue(())
            });
            let alone = alone.unwrap();
            assert_eq!(page.tokens, alone.tokens, "{name}");
            assert_eq!(page.regions.len(), alone.regions.len());
            assert!((page.confidence - alone.confidence).abs() < 0.01, "{name}");
            assert_eq!(page.stats.decode_bytes, alone.stats.decode_bytes);
        }
    }
}

#[test]
fn random_answers_are_their_own() {
    let (read, _) = read(&PAGES[..2], &random(0.01), 2);
    for (name, page) in PAGES.iter().zip(read) {
        assert_eq!(page.unwrap().text, expected(name), "{name}");
    }
}

#[test]
fn a_page_that_fails_takes_no_other_with_it() {
    let damaged = || -> agx_ocr_pipeline::Result<DecodedImage> {
        let bytes = fs::read(fixtures().join("pages/line-fox.png")).unwrap();
        let document = Document::open(bytes, &Limits::default())?;
        Ok(document.page(2, &ReadOptions::default().rendering)?)
    };
    let pages = [image("line-fox"), damaged(), image("line-error")];
    let mut ends = BTreeMap::new();
    let tell = |event: BatchEvent<'_>| {
        if let BatchEvent::End { index, read } = event {
            ends.insert(index, read.map(|(page, _)| page.text).ok());
        }
        Continue(())
    };
    let options = ReadOptions::default();
    OCR.read_batch(pages, &Task::Text, &options, 3, tell)
        .unwrap();
    let said = [
        Some(expected("line-fox")),
        None,
        Some(expected("line-error")),
    ];
    assert!(ends.into_values().eq(said));
}

/// Short, for tools that take a hundred times as long.
#[test]
fn two_lines_begin_together_as_they_do_alone() {
    let options = options(|options| options.max_tokens = Some(6));
    let names = ["line-fox", "line-total"];
    let (read, _) = read(&names, &options, 2);
    for (name, page) in names.iter().zip(read) {
        let page = page.unwrap();
        assert_eq!(page.tokens.generated, 6);
        assert!(
            expected(name).starts_with(&page.text),
            "{name}: {}",
            page.text
        );
    }
}

#[test]
fn options_out_of_range_are_an_error_before_any_page() {
    let told = |_: BatchEvent<'_>| -> ControlFlow<()> { panic!("nothing is told") };
    let result = OCR.read_batch([image("line-fox")], &Task::Text, &random(-1.0), 2, told);
    assert!(result.is_err());
}

#[test]
fn a_page_ends_where_its_listener_wants_no_more() {
    let mut ends = BTreeMap::new();
    let tell = |event: BatchEvent<'_>| match event {
        BatchEvent::Page {
            index: 0,
            event: Event::Token { count: 3, .. },
        } => Break(()),
        BatchEvent::End { index, read } => {
            let (page, _) = read.unwrap();
            ends.insert(index, (page.finish_reason, page.tokens.generated));
            Continue(())
        }
        _ => Continue(()),
    };
    let pages = ["paragraph-poem", "line-fox"].map(image);
    OCR.read_batch(pages, &Task::Text, &ReadOptions::default(), 2, tell)
        .unwrap();
    assert_eq!(ends[&0], (FinishReason::Cancelled, 3));
    assert_eq!(ends[&1].0, FinishReason::Stop);
}

#[test]
fn nothing_more_is_read_for_a_caller_who_leaves() {
    let mut told = 0;
    let tell = |event: BatchEvent<'_>| match event {
        BatchEvent::End { .. } => {
            told += 1;
            Break(())
        }
        _ => Continue(()),
    };
    let mut asked_for = 0;
    let pages = PAGES.iter().map(|name| {
        asked_for += 1;
        image(name)
    });
    OCR.read_batch(pages, &Task::Text, &ReadOptions::default(), 2, tell)
        .unwrap();
    assert_eq!((told, asked_for), (1, 2));
}

#[test]
fn the_time_is_for_all_pages() {
    let options = options(|options| options.time = Some(Duration::ZERO));
    let (read, _) = read(&PAGES[..3], &options, 2);
    for page in read {
        let error = page.unwrap_err().to_string();
        assert!(error.contains("was over"), "{error}");
    }
}

/// A picture of nothing: the model says something, and then the same again and again.
fn noise() -> DecodedImage {
    let mut state = 1_u32;
    let image = image::RgbImage::from_fn(400, 300, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(state >> 24) as u8; 3])
    });
    DecodedImage::new(image, Format::Png)
}

#[test]
fn a_page_that_repeats_itself_is_read_again_beside_others() {
    let options = options(|options| options.retry_mode = Some(Mode::Base));
    let (mut pages, mut sizes) = (BTreeMap::new(), 0);
    let tell = |event: BatchEvent<'_>| {
        match event {
            BatchEvent::End { index, read } => {
                pages.insert(index, read.unwrap().0);
            }
            BatchEvent::Page {
                index: 0,
                event: Event::Image { .. },
            } => sizes += 1,
            _ => {}
        }
        Continue(())
    };
    let both = [Ok(noise()), image("line-fox")];
    OCR.read_batch(both, &Task::Text, &options, 2, tell)
        .unwrap();
    assert_eq!(sizes, 2, "it is read twice");
    let warnings = &pages[&0].warnings;
    let again = warnings.iter().any(|it| it.contains("in mode base"));
    assert!(again, "{warnings:?}");
    assert_eq!(pages[&1].text, expected("line-fox"));
}
