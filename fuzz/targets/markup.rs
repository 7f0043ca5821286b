//! Grounding markup in any text: places, boxes, and time that grows as the text does.
#![no_main]

use agx_ocr_text::{Markup, MarkupStyle, clean, collapse_blank_lines, lines, markdown, parse};
use libfuzzer_sys::fuzz_target;
use std::{fs, time::Duration};

/// Bytes of a text that is repeated.
const LONG: usize = 1 << 15;
/// The most time that it may take, many times what it does, and a part of what it would if the
/// time were quadratic.
const MOST: Duration = Duration::from_millis(200);
/// The first byte of inputs that are repeated; no text begins with it.
const REPEATED: u8 = 0xFF;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        // Once in `head`, then over and over.
        Some((&REPEATED, [head, rest @ ..])) if !rest.is_empty() => {
            let (head, unit) = rest.split_at(usize::from(*head) % rest.len());
            let unit = String::from_utf8_lossy(unit);
            let text = String::from_utf8_lossy(head).into_owned() + &unit.repeat(LONG / unit.len());
            let started = on_cpu();
            check(&text, &parse(&text));
            let taken = on_cpu() - started;
            assert!(taken < MOST, "{taken:?}");
        }
        _ => {
            let text = String::from_utf8_lossy(data);
            check(&text, &parse(&text));
        }
    }
});

/// Time that this thread has computed, as Linux tells it; others may want the processor, too.
fn on_cpu() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn check(text: &str, markup: &Markup) {
    places(text, markup);
    boxes(markup);
    let style = markup.style(text);
    assert!(style == MarkupStyle::Lines || !markup.entries.is_empty());

    // What is outside of entries stays.
    let mut outside = String::new();
    let mut from = 0;
    for entry in &markup.entries {
        outside.push_str(&text[from..entry.span.start]);
        from = entry.span.end;
    }
    outside.push_str(&text[from..]);
    let mut figures = 0;
    let written = markdown(text, markup, |index, entry| {
        assert!(entry.is_image() && index == figures);
        figures += 1;
        String::new()
    });
    assert_eq!(figures, markup.figures().count());
    if !text.contains('\\') {
        assert_eq!(written, outside);
    }
    let written = lines(text, markup);
    let labels: usize = markup.entries.iter().map(|entry| entry.label.len()).sum();
    assert!(written.len() >= outside.len() + labels);

    for text in [text, &written] {
        let cleaned = clean(text);
        assert!(cleaned.len() <= text.len() && cleaned.trim() == cleaned);
        let collapsed = collapse_blank_lines(text);
        assert!(collapsed.len() <= text.len() && !collapsed.contains("\n\n\n"));
        assert_eq!(collapse_blank_lines(&collapsed), collapsed);
    }
}

/// Entries are in order, do not overlap, and lie on character boundaries.
fn places(text: &str, markup: &Markup) {
    let mut after = None;
    for entry in &markup.entries {
        let (span, label, content) = (&entry.span, &entry.label_span, &entry.content);
        assert!(after.is_none_or(|end| span.start == end));
        assert!(span.start <= label.start && label.end <= span.end);
        assert_eq!(content.start, span.end);
        assert_eq!(text.get(label.clone()), Some(&entry.label[..]));
        assert!(text.get(span.clone()).is_some() && text.get(content.clone()).is_some());
        after = Some(content.end);
    }
    assert!(after.is_none_or(|end| end == text.len()));
    for warning in &markup.warnings {
        assert!(text.get(warning.span.clone()).is_some(), "{warning:?}");
        assert!(warning.to_string().len() < 200);
    }
}

fn boxes(markup: &Markup) {
    for area in markup.entries.iter().flat_map(|entry| &entry.boxes) {
        assert!(
            0.0 <= area.x0 && area.x0 <= area.x1 && area.x1 <= 999.0,
            "{area:?}"
        );
        assert!(
            0.0 <= area.y0 && area.y0 <= area.y1 && area.y1 <= 999.0,
            "{area:?}"
        );
        for (width, height) in [(1, 1), (480, 900), (u32::MAX, 30_000)] {
            let [x0, y0, x1, y1] = area.to_pixels(width, height);
            assert!(x0 <= x1 && x1 <= width && y0 <= y1 && y1 <= height);
        }
    }
}
