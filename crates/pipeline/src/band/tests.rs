//! What the model's markup becomes, and how repetition and confidence are taken.

use super::*;
use crate::{Event, Mode, Options};
use std::{
    ops::ControlFlow,
    thread::sleep,
    time::{Duration, Instant},
};

#[test]
fn tables_repeat_lawfully_whatever_else_may() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny");
    let ocr = Ocr::load(model, Options::default()).unwrap();
    let lists = |given: Option<&[&str]>| {
        let given = given.map(|tokens| tokens.iter().map(ToString::to_string).collect());
        let options = ReadOptions {
            ngram_whitelist: given,
            ..ReadOptions::default()
        };
        let generate = ocr.generate_options(&options).unwrap();
        let guard = generate.no_repeat_ngram.unwrap().whitelist;
        (guard, generate.stop_cycles.unwrap().whitelist)
    };
    let id = |token: &str| ocr.tokenizer.token_id(token).unwrap();
    let (cells, rows) = (["<td>", "</td>"].map(id), ["<tr>", "</tr>"].map(id));
    let table = [cells, rows].concat();
    let holds = |list: &[u32]| table.iter().all(|id| list.contains(id));

    let (guard, cycles) = lists(None);
    assert!(guard == cells && holds(&cycles));
    let (guard, cycles) = lists(Some(&[]));
    assert!(guard.is_empty() && holds(&cycles));
    let (guard, cycles) = lists(Some(&["<|ref|>"]));
    assert_eq!(guard, [id("<|ref|>")]);
    assert!(holds(&cycles) && cycles.contains(&guard[0]));
}

#[test]
fn confidence_is_the_geometric_mean() {
    assert_eq!(confidence(&[]), 0.0);
    assert!((confidence(&[0.25_f32.ln(), 1.0_f32.ln()]) - 0.5).abs() < 1e-6);
}

/// A part of a page, 500 x 2000 pixels from (30, 1000) on.
fn band() -> Prepared {
    let image = RgbImage::new(1, 1);
    let view = ViewMode::Square {
        size: 64,
        fit: views::Fit::Pad,
    };
    Prepared {
        origin: (30, 1000),
        size: (500, 2000),
        views: views::prepare(&image, &view).unwrap(),
    }
}

/// The regions of a text each of whose bytes is a token; a confidence is how many tokens it is of.
fn regions_of(text: &str, style: MarkupStyle) -> Vec<Region> {
    let decoded = Decoded {
        text: text.into(),
        ends: (1..=text.len()).collect(),
    };
    let markup = agx_ocr_text::parse(text);
    regions(&band(), &decoded, &markup, style, &|ids| ids.len() as f32)
}

#[test]
fn layout_markup_becomes_labelled_regions() {
    let markup = |label, boxes| format!("<|ref|>{label}<|/ref|><|det|>{boxes}<|/det|>");
    let title = markup("title", "[[0, 0, 999, 111]]");
    let table = markup("table", "[[111, 222, 333, 444], [0, 500, 999, 999]]");
    let image = markup("image", "[[998, 998, 999, 999]]");
    let (heading, cells) = (
        "\n# Ein Fax\n\n",
        "\n<table><tr><td>1</td></tr></table>\n\n",
    );
    let text = [&title[..], heading, &table, cells, &image].concat();
    assert_eq!(agx_ocr_text::parse(&text).style(&text), MarkupStyle::Layout);

    let region = |label: &str, text: &str, tokens: usize, bbox| Region {
        text: text.into(),
        label: Some(label.into()),
        confidence: tokens as f32,
        bbox,
    };
    // ⌊v / 999 · size⌋, from the band's corner on.
    let want = [
        region("title", "# Ein Fax", heading.len(), [30, 1000, 530, 1222]),
        region("table", cells.trim(), cells.len(), [85, 1444, 196, 1888]),
        // The text is the first box's.
        region("table", "", cells.len(), [30, 2001, 530, 3000]),
        // What has no text has the confidence of its place.
        region("image", "", image.len(), [529, 2997, 530, 3000]),
    ];
    assert_eq!(regions_of(&text, MarkupStyle::Layout), want);
}

#[test]
fn lines_become_regions_without_labels() {
    let text = "<|ref|> Total 12 <|/ref|><|det|>[[0, 0, 500, 999], [500, 0, 999, 999]]<|/det|>\n";
    let line = |bbox| Region {
        text: "Total 12".into(),
        label: None,
        confidence: " Total 12 ".len() as f32,
        bbox,
    };
    // Each box has the text.
    let want = [line([30, 1000, 280, 3000]), line([280, 1000, 530, 3000])];
    assert_eq!(regions_of(text, MarkupStyle::Lines), want);
}

#[test]
fn what_comes_after_the_first_token_is_decoding() {
    const TOKENS: usize = 4;
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny");
    let ocr = Ocr::load(model, Options::default()).unwrap();
    let mut options = ReadOptions::default();
    (options.mode, options.max_tokens) = (Mode::Tiny, Some(TOKENS));
    let (listening, started) = (Duration::from_millis(50), Instant::now());
    let slowly = |event: Event<'_>| {
        if matches!(event, Event::Token { .. }) {
            sleep(listening);
        }
        ControlFlow::Continue(())
    };
    let image = RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * y) as u8; 3]));
    let page = ocr
        .read_image(&image, &Task::Text, &options, slowly)
        .unwrap();
    let (stats, all) = (page.stats, milliseconds(started));
    assert_eq!(page.tokens.generated, TOKENS);
    let listened = 1e3 * listening.as_secs_f64() * TOKENS as f64;
    assert!(stats.decode_ms >= listened, "{stats:?}");
    assert!(stats.prefill_ms > 0.0, "{stats:?}");
    assert!(stats.prefill_ms + stats.decode_ms <= all, "{stats:?}");
}
