//! The mini model on the sample pages through the facade, against what the reference
//! implementation read from them. `parity` compares tokens and near-ties; this is what users see.

mod device;

use agx_ocr_pipeline::{
    Document, Event, FinishReason, Limits, Mode, Ocr, Page, ReadOptions, Repetition, Sampling,
    Split, Task,
};
use std::io::Write as _;
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::LazyLock,
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

static OCR: LazyLock<Ocr> =
    LazyLock::new(|| Ocr::load(fixtures().join("models/agx-ocr-mini"), device::options()).unwrap());

/// Paths of the sample pages, without their ending.
fn pages() -> Vec<String> {
    let files = fs::read_dir(fixtures().join("pages")).unwrap();
    let name = |path: PathBuf| Some(path.to_str()?.strip_suffix(".png")?.to_owned());
    let mut names: Vec<String> = files
        .filter_map(|file| name(file.unwrap().path()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 12);
    names
}

fn page(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(format!("pages/{name}.png"))).unwrap()
}

fn read(bytes: &[u8], task: &Task, change: impl FnOnce(&mut ReadOptions)) -> Page {
    let mut options = ReadOptions::default();
    change(&mut options);
    OCR.read_with(bytes, task, &options, |_| ControlFlow::Continue(()))
        .unwrap()
}

/// The reference's output, without the newline at the end of the file.
fn expected(page: &str, kind: &str) -> String {
    fs::read_to_string(format!("{page}.{kind}"))
        .unwrap()
        .trim_end()
        .to_owned()
}

#[test]
fn plain_text_equals_the_reference() {
    for name in pages() {
        let bytes = fs::read(format!("{name}.png")).unwrap();
        let page = OCR.read(&bytes, &Task::Text).unwrap();
        assert_eq!(page.text, expected(&name, "out.txt"), "{name}");
        assert_eq!(page.finish_reason, FinishReason::Stop);
        assert_eq!(page.regions.len(), 1);
        assert_eq!(page.regions[0].bbox, [0, 0, page.width, page.height]);
        assert_eq!(
            (page.regions[0].confidence, &page.warnings[..]),
            (page.confidence, &[][..])
        );
    }
}

#[test]
fn lines_have_the_references_text_and_places() {
    for name in pages() {
        let bytes = fs::read(format!("{name}.png")).unwrap();
        let page = OCR.read(&bytes, &Task::Ocr).unwrap();
        let truth = agx_ocr_text::parse(&expected(&name, "grounding.txt")).entries;
        assert_eq!(page.regions.len(), truth.len(), "{name}");
        for (region, entry) in page.regions.iter().zip(truth) {
            assert_eq!(region.text, entry.label, "{name}");
            // The last digit of a coordinate is often a near-tie: two thousandths of the page.
            let wanted = entry.boxes[0].to_pixels(page.width, page.height);
            let slack = page.width.max(page.height).div_ceil(500) + 1;
            for (a, b) in region.bbox.iter().zip(wanted) {
                assert!(
                    a.abs_diff(b) <= slack,
                    "{name}: {:?} for {wanted:?}",
                    region.bbox
                );
            }
            assert!(
                region.confidence > 0.5 && region.confidence <= 1.0,
                "{name}"
            );
        }
        let lines: Vec<&str> = page.regions.iter().map(|region| &region.text[..]).collect();
        assert_eq!(page.text, lines.join("\n"));
    }
}

#[test]
fn special_keeps_the_markup() {
    let page = read(&page("line-fox"), &Task::Ocr, |options| {
        options.special = true
    });
    assert!(
        page.text.starts_with("<|ref|>") && page.text.ends_with("<|/det|>"),
        "{}",
        page.text
    );
}

#[test]
fn every_mode_reads_without_an_error() {
    for mode in ["tiny", "small", "base", "large", "gundam"] {
        let page = read(&page("line-total"), &Task::Text, |options| {
            options.mode = mode.parse().unwrap();
            options.max_tokens = Some(8);
        });
        assert!(
            page.tokens.prompt > 70 && page.tokens.generated > 0,
            "{mode}"
        );
    }
}

/// Two sample pages one above the other, and again: too tall for one view.
fn tall() -> image::RgbImage {
    let (upper, lower) = (page("paragraph-poem"), page("form-boarding"));
    let decode = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
    let (upper, lower) = (decode(&upper), decode(&lower));
    let height = upper.height() + lower.height();
    let white = image::Rgb([255; 3]);
    let mut tall = image::RgbImage::from_pixel(upper.width().max(lower.width()), 2 * height, white);
    for (i, part) in [&upper, &lower, &upper, &lower].into_iter().enumerate() {
        let top = (i / 2) as u32 * height + (i % 2) as u32 * upper.height();
        image::imageops::replace(&mut tall, part, 0, i64::from(top));
    }
    tall
}

#[test]
fn views_are_announced_and_counted_when_they_are_encoded() {
    let tall = tall();
    // What is stopped when, and the views announced and counted by then.
    let stopped = |stop: &(dyn Fn(&Event<'_>) -> bool + Sync)| {
        let mut announced = 0;
        let options = ReadOptions::default();
        let page = OCR.read_image(&tall, &Task::Text, &options, |event| {
            if let Event::View { total, .. } = event {
                announced = total;
            }
            match stop(&event) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let page = page.unwrap();
        assert_eq!(page.finish_reason, FinishReason::Cancelled);
        (announced, page.tokens.views, page.stats.preprocess_ms)
    };
    let (announced, counted, _) = stopped(&|event| matches!(event, Event::Image { .. }));
    assert_eq!((announced, counted), (0, 0));
    let (announced, counted, _) = stopped(&|event| matches!(event, Event::View { .. }));
    assert!(announced > 1, "{announced}");
    assert_eq!(counted, 0, "the encoder was stopped");
    let second = |event: &Event<'_>| matches!(event, Event::View { done: 2, .. });
    assert_eq!(stopped(&second).1, 1);
    let (_, counted, milliseconds) = stopped(&|event| matches!(event, Event::Token { .. }));
    assert_eq!(counted, 1);
    assert!(milliseconds > 0.0);
}

#[test]
fn documents_have_the_limits_they_were_opened_with() {
    let mut options = device::options();
    options.limits.pages = 2;
    options.read.max_tokens = Some(2);
    let ocr = Ocr::load(fixtures().join("models/agx-ocr-mini"), options).unwrap();
    let bytes = fs::read(fixtures().join("documents/grey.tiff")).unwrap();
    let three = ocr.open(&bytes[..]).unwrap();
    let error = ocr.read_pages(&three, &Task::Text).err().unwrap();
    assert!(error.to_string().contains("3 pages"), "{error}");
    let three = Document::open(bytes, &Limits::default()).unwrap();
    let pages = ocr.read_pages(&three, &Task::Text).unwrap();
    assert_eq!(pages.filter(Result::is_ok).count(), 3);
}

#[test]
fn bands_are_joined_and_their_boxes_lie_on_the_page() {
    let tall = tall();
    let mut bytes = std::io::Cursor::new(Vec::new());
    tall.write_to(&mut bytes, image::ImageFormat::Png).unwrap();

    let page = read(bytes.get_ref(), &Task::Ocr, |_| ());
    assert!(page.tokens.views > 1, "{} views", page.tokens.views);
    let tops: Vec<u32> = page.regions.iter().map(|region| region.bbox[1]).collect();
    assert!(tops.is_sorted(), "{tops:?}");
    assert!(
        page.regions
            .iter()
            .all(|r| r.bbox[2] <= tall.width() && r.bbox[3] <= tall.height())
    );
    let first = fs::read_to_string(fixtures().join("pages/paragraph-poem.txt")).unwrap();
    assert_eq!(
        page.text.matches(first.lines().next().unwrap()).count(),
        2,
        "{}",
        page.text
    );

    let whole = read(bytes.get_ref(), &Task::Text, |options| {
        options.split = Split::None;
        options.max_tokens = Some(1);
    });
    assert_eq!(whole.tokens.views, 1);
}

#[test]
fn events_tell_what_happens_and_may_stop() {
    let bytes = page("line-fox");
    let (mut text, mut views) = (String::new(), 0);
    let page = OCR
        .read_streaming(&bytes, &Task::Text, |event| {
            match event {
                Event::View { done, total } => views = done + total,
                Event::Token { text: part, .. } => text.push_str(part),
                _ => (),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((text.trim(), views), (&page.text[..], 2));

    let stop = |event: Event<'_>| match event {
        Event::Token { count: 5, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = OCR.read_streaming(&bytes, &Task::Text, stop).unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Cancelled);
    assert!(page.text.starts_with(&stopped.text) && !stopped.text.is_empty());
}

#[test]
fn a_cut_page_says_so() {
    let page = read(&page("line-fox"), &Task::Text, |options| {
        options.max_tokens = Some(3)
    });
    assert_eq!(
        (page.finish_reason, page.tokens.generated),
        (FinishReason::Length, 3)
    );
    assert!(
        page.warnings.iter().any(|w| w.contains("max_tokens")),
        "{:?}",
        page.warnings
    );
}

#[test]
fn the_guard_against_repetition_reaches_the_decoder() {
    let with = |size, window| {
        read(&page("receipt-fuel"), &Task::Text, |options| {
            options.no_repeat_ngram = Repetition::Ngram { size, window };
        })
    };
    // A token is a character here: no digit or letter may come a second time in a row of ten.
    let page = with(1, Some(10));
    let text: Vec<char> = page.text.chars().filter(|c| c.is_ascii()).collect();
    assert!(
        text.windows(10).all(|w| !w[1..].contains(&w[0])),
        "{}",
        page.text
    );
}

#[test]
fn sampling_repeats_with_its_seed() {
    let draw = |seed| {
        read(&page("line-error"), &Task::Text, |options| {
            let (temperature, top_p, top_k) = (3.0, 1.0, 0);
            options.sampling = Sampling::Random {
                temperature,
                top_p,
                top_k,
                seed,
            };
            options.max_tokens = Some(20);
        })
        .text
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let bytes = page("line-error");
    for task in [Task::Text, Task::Ocr] {
        let [one, two, three] = [1, 2, 3].map(|threads| {
            let mut options = device::options();
            options.threads = Some(threads);
            let model = Ocr::load(fixtures().join("models/agx-ocr-mini"), options).unwrap();
            let mut tokens = Vec::new();
            let page = model.read_streaming(&bytes, &task, |event| {
                if let Event::Token { text, .. } = event {
                    tokens.push(text.to_owned());
                }
                ControlFlow::Continue(())
            });
            let page = page.unwrap();
            let confidences = page.regions.iter().map(|r| r.confidence.to_bits());
            let confidences: Vec<u32> = confidences.collect();
            (tokens, page.confidence.to_bits(), confidences)
        });
        assert!(one.0.len() > 5, "a page of some tokens");
        assert_eq!(one, two);
        assert_eq!(one, three);
    }
}

#[test]
fn receipts_go_through_in_every_mode() {
    let receipts = fixtures().join("../../shared/receipts");
    let Ok(files) = fs::read_dir(&receipts) else {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: scanned receipts, because {} is absent",
            receipts.display()
        );
        return;
    };
    for file in files
        .map(|file| file.unwrap().path())
        .filter(|f| f.extension().is_some_and(|e| e == "jpg"))
    {
        let bytes = fs::read(&file).unwrap();
        for mode in [
            Mode::Tiny,
            Mode::Small,
            Mode::Base,
            Mode::Large,
            Mode::Gundam,
        ] {
            let page = read(&bytes, &Task::Text, |options| {
                options.mode = mode;
                options.max_tokens = Some(4);
            });
            assert!(page.tokens.generated > 0, "{} {mode:?}", file.display());
        }
    }
}
