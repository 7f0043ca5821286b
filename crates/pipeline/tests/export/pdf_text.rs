//! The text of searchable PDFs: what can be found, and where.

use std::io::Write;
use std::process::Command;

use hayro::hayro_interpret::font::GlyphRun;
use hayro::hayro_interpret::hayro_cmap::BfString;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, SoftMask, interpret_page,
};
use hayro::hayro_syntax::Pdf;
use hayro::kurbo::{Affine, BezPath, Point, Rect};
use proptest::prelude::*;

use super::pdf::document;
use super::*;

/// What is shown, character by character.
#[derive(Default)]
struct Reader {
    characters: Vec<char>,
    /// Where they begin, in points from the upper left corner.
    places: Vec<Point>,
}

impl Device<'_> for Reader {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, mode: &DrawMode) {
        assert!(matches!(mode, DrawMode::Invisible));
        for glyph in run.glyphs() {
            match glyph.as_unicode() {
                Some(BfString::Char(character)) => self.characters.push(character),
                other => panic!("{other:?}"),
            }
            let place = props.transform * glyph.transform();
            self.places.push(place * Point::ORIGIN);
        }
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {
        panic!("nothing is drawn but the picture");
    }
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}

/// Reads a page with another program's eyes.
fn read(bytes: Vec<u8>, index: usize) -> Reader {
    let pdf = Pdf::new(bytes).unwrap();
    let page = &pdf.pages()[index];
    let cache = InterpreterCache::new();
    let mut context = Context::new(
        Affine::new(page.initial_transform(true).as_coeffs()),
        Rect::new(0.0, 0.0, 1e5, 1e5),
        &cache,
        page.xref(),
        InterpreterSettings::default(),
    );
    let mut reader = Reader::default();
    interpret_page(page, &mut context, &mut reader);
    reader
}

/// What should be shown of a text that runs from left to right.
fn shown(text: &str) -> String {
    let lines = text
        .split(['\n', '\r'])
        .filter(|line| !line.trim().is_empty());
    let characters = lines.flat_map(str::chars).filter_map(|c| match c {
        '\t' => Some(' '),
        '\u{feff}' | '\u{fffe}' => None,
        c => (!c.is_control()).then_some(c),
    });
    characters.collect()
}

fn one(regions: Vec<Region>) -> Vec<u8> {
    document(72.0, &[(page(1000, 1000, regions), RgbImage::new(10, 10))])
}

#[test]
fn characters_of_all_planes_are_found() {
    let texts = [
        "Invoice total: $1,284.50 (net)\\",
        "中文文本：人工智能与OCR。",
        "emoji 😀 👩🏽‍🔬",
        "ﬁ ﬂ e\u{301} a\u{308} naïve",
        "\u{10fffd}\u{20000}\u{e000}\u{fffd}",
    ];
    let regions = texts.map(|text| region(text, [0, 0, 900, 30]));
    let reader = read(one(regions.into()), 0);
    let found: String = reader.characters.into_iter().collect();
    assert_eq!(found, texts.concat());
}

#[test]
fn fonts_are_shared_by_pages_and_as_many_as_needed() {
    let text: String = (0x4e00..0x5200_u32).filter_map(char::from_u32).collect();
    let back: String = text.chars().rev().collect();
    let pages = [&text, &back].map(|text| {
        let regions = vec![region(text, [0, 0, 1000, 1000])];
        (page(1000, 1000, regions), RgbImage::new(10, 10))
    });
    let bytes = document(72.0, &pages);
    let fonts = bytes
        .windows(13)
        .filter(|bytes| *bytes == b"/Subtype/Type")
        .count()
        + bytes
            .windows(14)
            .filter(|bytes| bytes == b"/Subtype/Type3")
            .count();
    assert_eq!(fonts, 8);
    for (i, text) in [text, back].into_iter().enumerate() {
        let found: String = read(bytes.clone(), i).characters.into_iter().collect();
        assert_eq!(found, text);
    }
}

#[test]
fn lines_lie_on_even_shares_of_their_box() {
    // Wide enough for each line to be one row.
    let regions = vec![region("ab\n\ncdefgh\nij", [100, 200, 400, 260])];
    let reader = read(one(regions), 0);
    let found: String = reader.characters.iter().collect();
    assert_eq!(found, "abcdefghij");
    let near = |place: Point, x: f64, y: f64| {
        assert!(
            (place.x - x).abs() < 0.01 && (place.y - y).abs() < 0.01,
            "{place:?} {x} {y}"
        );
    };
    // A fifth of the height is below the baseline; the longest line fills the width.
    for (i, place) in reader.places.iter().enumerate() {
        let (line, column) = match i {
            0..2 => (0, i),
            2..8 => (1, i - 2),
            _ => (2, i - 8),
        };
        near(
            *place,
            100.0 + 50.0 * column as f64,
            216.0 + 20.0 * f64::from(line),
        );
    }
}

#[test]
fn text_from_the_right_begins_at_the_right_edge() {
    let regions = vec![region("אבגד\nאב", [100, 200, 300, 240])];
    let reader = read(one(regions), 0);
    let found: String = reader.characters.iter().collect();
    assert_eq!(found, "דגבאבא");
    let xs: Vec<_> = reader.places.iter().map(|place| place.x.round()).collect();
    assert_eq!(xs, [100.0, 150.0, 200.0, 250.0, 200.0, 250.0]);
}

/// Text of a few characters that all run from left to right, and of all that have no direction.
fn any_line() -> impl Strategy<Value = String> {
    let characters = "ab c<>&(\\)é语🙂\u{0}\t\n\r\u{fffe}\u{feff}ﬁ.,";
    let character = prop::sample::select(characters.chars().collect::<Vec<_>>());
    prop::collection::vec(character, 0..60).prop_map(|text| text.into_iter().collect())
}

proptest! {
    #[test]
    fn any_text_is_found_in_its_place(
        regions in prop::collection::vec((any_line(), any::<[u16; 4]>()), 0..4),
    ) {
        let box_of = |bbox: [u16; 4]| bbox.map(|side| u32::from(side) % 1200);
        let wanted: Vec<_> = regions.iter().flat_map(|(text, bbox)| {
            let bbox = box_inside(box_of(*bbox), 1000, 1000);
            shown(text).chars().map(move |c| (c, bbox)).collect::<Vec<_>>()
        }).collect();
        let regions = regions.iter().map(|(text, bbox)| region(text, box_of(*bbox)));
        let reader = read(one(regions.collect()), 0);
        let rows_of_spaces = |c: &&char| !c.is_whitespace();
        let found: String = reader.characters.iter().filter(rows_of_spaces).collect();
        let all: String = wanted.iter().map(|(c, _)| c).filter(rows_of_spaces).collect();
        prop_assert_eq!(found, all);
        let seen = reader.characters.iter().zip(&reader.places).filter(|(c, _)| rows_of_spaces(c));
        let wanted = wanted.iter().filter(|(c, _)| rows_of_spaces(&c));
        for ((_, place), (_, [x0, y0, x1, y1])) in seen.zip(wanted) {
            let (x, y) = (place.x, place.y);
            prop_assert!(x > f64::from(*x0) - 0.1 && x < f64::from(*x1) + 1.1, "{x} {x0} {x1}");
            prop_assert!(y > f64::from(*y0) - 0.1 && y < f64::from(*y1) + 1.1, "{y} {y0} {y1}");
        }
    }

    #[test]
    fn nothing_panics(regions in prop::collection::vec(any_region(), 0..4)) {
        one(regions);
    }
}

/// What `pdftotext` says of a document, if it is there.
fn pdftotext(bytes: &[u8], options: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("document.pdf");
    std::fs::write(&path, bytes).unwrap();
    match Command::new("pdftotext")
        .args(options)
        .arg(&path)
        .arg("-")
        .output()
    {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && errors.is_empty(), "{errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            // Not `eprintln!`, which the test harness hides.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "skipped: pdftotext (poppler-utils): {error}").unwrap();
            None
        }
    }
}

const LINES: [&str; 9] = [
    "Invoice total: $1,284.50",
    "中文文本：人工智能 AI 与 OCR。",
    "emoji 😀 👩🏽‍🔬 ok",
    "ﬁ ﬂ ligatures",
    "combining e\u{301}a\u{308}",
    "| a | b | `**markup**` <b>x</b> (\\) |",
    "Ελληνικά и кириллица",
    "ไทย हिन्दी 한국어 にほんご",
    "x",
];

#[test]
fn pdftotext_finds_each_line() {
    let regions = LINES.iter().enumerate().map(|(i, line)| {
        let top = 20 + 60 * i as u32;
        // Twenty pixels a character, more or less.
        let width = 20 * line.chars().count() as u32;
        region(line, [50, top, 50 + width, top + 36])
    });
    let bytes = one(regions.collect());
    let Some(text) = pdftotext(&bytes, &["-enc", "UTF-8"]) else {
        return;
    };
    let found: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let found: Vec<_> = found
        .iter()
        .map(|line| line.trim_matches('\u{c}'))
        .collect();
    assert_eq!(found, LINES);
}

#[test]
fn pdftotext_finds_lines_and_long_lines_of_a_region() {
    let paragraph =
        "A paragraph that was written without line breaks is broken into rows. ".repeat(6);
    let lines = [
        "Total 12.00",
        "of which much longer: value added tax 19 %",
        "Cash",
    ];
    let regions = vec![
        region(&lines.join("\n\n"), [50, 50, 800, 170]),
        region(&paragraph, [50, 300, 800, 500]),
    ];
    let bytes = one(regions);
    let Some(text) = pdftotext(&bytes, &["-enc", "UTF-8"]) else {
        return;
    };
    let found: Vec<_> = text.lines().collect();
    assert_eq!(found[..3], lines);
    let words: Vec<_> = text.split_whitespace().collect();
    let wanted = lines.iter().flat_map(|line| line.split_whitespace());
    let wanted: Vec<_> = wanted.chain(paragraph.split_whitespace()).collect();
    assert_eq!(words, wanted);
}

#[test]
fn pdftotext_reads_text_from_the_right() {
    // No numbers: it moves the spaces around them, wherever they stand.
    let lines = ["שלום עולם זה מבחן", "مرحبا بالعالم"];
    let regions = vec![
        region(lines[0], [50, 50, 650, 90]),
        region(lines[1], [50, 150, 650, 190]),
    ];
    let Some(text) = pdftotext(&one(regions), &["-enc", "UTF-8"]) else {
        return;
    };
    // Without the marks of direction that the program adds.
    let marks = |c: char| ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{c}';
    let text = text.replace(marks, "");
    let found: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(found, lines);
}

#[test]
fn pdftotext_finds_words_in_their_box() {
    let (width, height) = (1000, 1000);
    let bbox = [100, 200, 700, 260];
    let regions = vec![region("some words\nof two lines", bbox)];
    let bytes = document(
        144.0,
        &[(page(width, height, regions), RgbImage::new(10, 10))],
    );
    let Some(text) = pdftotext(&bytes, &["-bbox"]) else {
        return;
    };
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(&text, options).unwrap();
    let words = document
        .descendants()
        .filter(|node| node.tag_name().name() == "word");
    let words: Vec<_> = words
        .map(|word| {
            // Points to pixels.
            let side = |name| word.attribute(name).unwrap().parse::<f64>().unwrap() * 2.0;
            let bbox = ["xMin", "yMin", "xMax", "yMax"]
                .map(side)
                .map(|side| side.round() as u32);
            (word.text().unwrap(), bbox)
        })
        .collect();
    let texts: Vec<_> = words.iter().map(|(text, _)| *text).collect();
    assert_eq!(texts, ["some", "words", "of", "two", "lines"]);
    for (text, [x0, y0, x1, y1]) in &words {
        let (top, bottom) = if ["some", "words"].contains(text) {
            (200, 230)
        } else {
            (230, 260)
        };
        assert!(*x0 >= bbox[0] && *x1 <= bbox[2] && x0 < x1, "{words:?}");
        assert_eq!((*y0, *y1), (top, bottom), "{words:?}");
    }
    // The longer line fills the box.
    assert_eq!((words[2].1[0], words[4].1[2]), (100, 700));
}
