//! What must hold for any text.

mod common;

use agx_ocr_text::{Special, clean, collapse_blank_lines, lines, markdown, parse};
use proptest::prelude::*;

/// Texts made of tags, brackets, numbers and characters of every length.
fn markup_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("<|ref|>".to_owned()),
        4 => Just("<|/ref|>".to_owned()),
        4 => Just("<|det|>".to_owned()),
        4 => Just("<|/det|>".to_owned()),
        2 => Just("<|ref|>image<|/ref|><|det|>[[1, 2, 3, 4], [5,6,7,8]]<|/det|>".to_owned()),
        2 => Just("<｜end▁of▁sentence｜>".to_owned()),
        2 => Just("[[".to_owned()),
        2 => Just("]]".to_owned()),
        2 => (-2000..2000_i32).prop_map(|n| format!("{n}, ")),
        1 => any::<f64>().prop_map(|n| format!("{n},")),
        3 => "[<|>\\[\\](),.0-9eé€🙂\n ]{0,6}",
        2 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn spans_rebuild_the_text(text in markup_like()) {
        let markup = parse(&text);
        let mut rebuilt = String::new();
        let mut content_from = None;
        for entry in &markup.entries {
            if let Some(from) = content_from {
                prop_assert_eq!(&entry.span.start, &from, "contents reach to the next entry");
            } else {
                rebuilt.push_str(&text[..entry.span.start]);
            }
            rebuilt.push_str(&text[entry.span.clone()]);
            rebuilt.push_str(&text[entry.content.clone()]);
            content_from = Some(entry.content.end);
            prop_assert_eq!(&text[entry.label_span.clone()], entry.label.as_str());
            prop_assert!(entry.span.start <= entry.label_span.start);
            prop_assert!(entry.label_span.end <= entry.span.end);
        }
        if markup.entries.is_empty() {
            rebuilt.push_str(&text);
        }
        prop_assert_eq!(&rebuilt, &text);
        for warning in &markup.warnings {
            prop_assert!(text.get(warning.span.clone()).is_some(), "{warning:?}");
        }
    }

    #[test]
    fn boxes_are_ordered_and_inside(text in markup_like(), width in 1..u32::MAX, height in 1..9000_u32) {
        for area in parse(&text).entries.iter().flat_map(|entry| &entry.boxes) {
            prop_assert!(0.0 <= area.x0 && area.x0 <= area.x1 && area.x1 <= 999.0);
            prop_assert!(0.0 <= area.y0 && area.y0 <= area.y1 && area.y1 <= 999.0);
            let [x0, y0, x1, y1] = area.to_pixels(width, height);
            prop_assert!(x0 <= x1 && x1 <= width && y0 <= y1 && y1 <= height);
        }
    }

    #[test]
    fn no_text_outside_of_entries_is_lost(text in markup_like()) {
        let markup = parse(&text);
        let mut outside = text.clone();
        for entry in markup.entries.iter().rev() {
            outside.replace_range(entry.span.clone(), "");
        }
        let mut figures = 0;
        let written = markdown(&text, &markup, |i, entry| {
            assert_eq!(i, figures);
            assert!(entry.is_image());
            figures += 1;
            String::new()
        });
        prop_assert_eq!(&written, &outside);
        prop_assert_eq!(figures, markup.figures().count());

        let lines = lines(&text, &markup);
        let without_newlines = |s: &str| s.replace('\n', "");
        let mut expected = text.clone();
        for entry in markup.entries.iter().rev() {
            expected.replace_range(entry.span.clone(), &entry.label);
        }
        prop_assert_eq!(without_newlines(&lines), without_newlines(&expected));
        for entry in markup.entries.iter().filter(|entry| !entry.label.is_empty()) {
            let own_line = ["\n", entry.label.as_str(), "\n"].concat();
            prop_assert!(["\n", lines.as_str(), "\n"].concat().contains(&own_line));
        }
    }

    #[test]
    fn clean_up_only_removes(text in markup_like()) {
        let cleaned = clean(&text);
        prop_assert_eq!(cleaned.trim(), cleaned.as_str());
        let mut rest = text.chars();
        prop_assert!(cleaned.chars().all(|c| rest.any(|r| r == c)), "a subsequence");
        let collapsed = collapse_blank_lines(&text);
        prop_assert!(!collapsed.contains("\n\n\n"));
        prop_assert_eq!(collapsed.replace('\n', ""), text.replace('\n', ""));
    }
}

#[test]
fn encoding_and_decoding_are_inverse() {
    let mini = common::mini();
    proptest!(|(text in any::<String>())| {
        let ids = mini.encode(&text).unwrap();
        prop_assert_eq!(mini.decode(&ids, Special::Keep), text.as_str());
        let decoded = mini.decode_spans(&ids);
        prop_assert_eq!(decoded.ends.len(), ids.len());
        prop_assert_eq!(decoded.text, text);
    });
}
