//! Parsing of well-formed and malformed markup, and what it is written as.

mod common;

use agx_ocr_text::MarkupWarningKind::{self as Kind, *};
use agx_ocr_text::{MarkupStyle, NormBox, clean, collapse_blank_lines, lines, markdown, parse};
use common::{fixture, json};

fn kinds(text: &str) -> Vec<Kind> {
    parse(text)
        .warnings
        .iter()
        .map(|warning| warning.kind)
        .collect()
}

/// The boxes of one entry with the given list.
fn boxes(list: &str) -> (Vec<[f64; 4]>, Vec<Kind>) {
    let text = format!("<|ref|>x<|/ref|><|det|>{list}<|/det|>");
    let markup = parse(&text);
    assert_eq!(markup.entries.len(), 1);
    assert_eq!(markup.entries[0].span, 0..text.len());
    let boxes = markup.entries[0]
        .boxes
        .iter()
        .map(|b| [b.x0, b.y0, b.x1, b.y1])
        .collect();
    (boxes, kinds(&text))
}

#[test]
fn pixels_agree_with_the_reference() {
    let vectors = json(&fixture("parity/text/coord_vectors.json"));
    for row in vectors["rows"].as_array().unwrap() {
        let number = |i: usize| u32::try_from(row[i].as_u64().unwrap()).unwrap();
        let (v, size, expected) = (f64::from(number(0)), number(1), number(2));
        let all = NormBox {
            x0: v,
            y0: v,
            x1: v,
            y1: v,
        };
        assert_eq!(all.to_pixels(size, size), [expected; 4], "{v} of {size}");
    }
    let area = NormBox {
        x0: 0.0,
        y0: 999.0,
        x1: 500.0,
        y1: 499.5,
    };
    assert_eq!(
        area.to_pixels(1000, 20),
        [0, 20, 500, 10],
        "x by width, y by height"
    );
}

#[test]
fn spans_of_an_entry() {
    let text = "a<|ref|>é<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>b<|ref|>z<|/ref|><|det|>[]<|/det|>";
    let markup = parse(text);
    let [one, two] = markup.entries.as_slice() else {
        panic!("{markup:?}")
    };
    assert_eq!(
        &text[one.span.clone()],
        "<|ref|>é<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>"
    );
    assert_eq!(&text[one.label_span.clone()], "é");
    assert_eq!((one.label.as_str(), two.label.as_str()), ("é", "z"));
    assert_eq!(&text[one.content.clone()], "b");
    assert_eq!(two.content, text.len()..text.len());
    assert_eq!(markup.warnings, []);
}

#[test]
fn lists_of_boxes() {
    let one = [1.0, 2.0, 3.0, 4.0];
    for list in [
        "[[1, 2, 3, 4]]",
        "[1,2,3,4]",
        " [ [ 1 ,\n2,3.0,\t4. ] ] ",
        "[(1,2,3,4)]",
        "[[1,2,3,4],]",
        "[[+1,2e0,3,4]]",
    ] {
        assert_eq!(boxes(list), (vec![one], vec![]), "{list}");
    }
    let two = vec![one, [5.5, 6.0, 7.0, 8.0]];
    assert_eq!(boxes("[[1,2,3,4],[5.5,6,7,8]]"), (two.clone(), vec![]));
    assert_eq!(boxes("[1,2,3,4],[5.5,6,7,8]"), (two, vec![]));
    assert_eq!(boxes("[]"), (vec![], vec![]));
}

#[test]
fn malformed_lists_of_boxes() {
    let one = vec![[1.0, 2.0, 3.0, 4.0]];
    assert_eq!(boxes(""), (vec![], vec![MalformedBoxes]));
    assert_eq!(boxes("1,2,3,4"), (vec![], vec![MalformedBoxes]));
    assert_eq!(boxes("[[1,2,3,4]"), (one.clone(), vec![MalformedBoxes]));
    assert_eq!(
        boxes("[[1,2,3,4], x, [5,6,7,8]]"),
        (one.clone(), vec![MalformedBoxes])
    );
    assert_eq!(boxes("[[1,2,3,4]]]"), (one.clone(), vec![MalformedBoxes]));
    assert_eq!(boxes("[[1-2,3,4,5]]"), (vec![], vec![MalformedBoxes]));
    assert_eq!(boxes("[[nan,1,2,3]]"), (vec![], vec![MalformedBoxes]));
    assert_eq!(
        boxes("[[1,2,3],[1,2,3,4],[1,2,3,4,5]]"),
        (one, vec![NotFourNumbers; 2])
    );
    assert_eq!(boxes("__import__('os')"), (vec![], vec![MalformedBoxes]));
}

#[test]
fn coordinates_out_of_order_or_range() {
    assert_eq!(boxes("[[900,900,100,100]]"), (vec![], vec![InvertedBox]));
    assert_eq!(boxes("[[1,9,2,8]]"), (vec![], vec![InvertedBox]));
    assert_eq!(boxes("[[5,5,5,5]]"), (vec![[5.0; 4]], vec![]));
    let clamped = vec![[0.0, 0.0, 999.0, 999.0]];
    assert_eq!(boxes("[[-1,-0.5,1000,1e999]]"), (clamped, vec![OutOfRange]));
}

#[test]
fn warnings_say_where_and_hold_no_text_of_the_page() {
    let text = "ab<|ref|>secret<|/ref|><|det|>[[1, 2, 3]]<|/det|>";
    let markup = parse(text);
    let [warning] = markup.warnings.as_slice() else {
        panic!("{markup:?}")
    };
    assert_eq!(&text[warning.span.clone()], "1, 2, 3");
    let message = warning.to_string();
    assert!(
        message.contains("four numbers") && message.contains("32 to 39"),
        "{message}"
    );
}

#[test]
fn malformed_tags_keep_their_text() {
    for (text, kind, cleaned) in [
        ("a <|ref|>b", UnclosedRef, "a b"),
        ("a <|ref|>b<|/ref|> c", RefWithoutBoxes, "a b c"),
        ("a<|/det|> b", StrayTag, "a b"),
        ("a <|det|>[[1, 2", StrayTag, "a [[1, 2"),
    ] {
        let markup = parse(text);
        assert_eq!(markup.entries, [], "{text}");
        assert_eq!(kinds(text), [kind], "{text}");
        assert_eq!(clean(&lines(text, &markup)), cleaned);
        assert_eq!(
            clean(&markdown(text, &markup, |_, _| panic!("no figure"))),
            cleaned
        );
    }
}

#[test]
fn a_tag_never_reaches_over_another() {
    let text = "<|ref|>a<|/ref|> page text <|ref|>b<|/ref|><|det|>[[1,2,3,4]]<|/det|>";
    let markup = parse(text);
    assert_eq!(markup.entries.len(), 1);
    assert_eq!(markup.entries[0].label, "b");
    assert_eq!(clean(&lines(text, &markup)), "a page text \nb");

    let text = "<|ref|>text<|/ref|><|det|>[[1,2,3,4]]\npage<|ref|>text<|/ref|><|det|>[]<|/det|>";
    let markup = parse(text);
    assert_eq!(kinds(text), [UnclosedBoxes]);
    assert_eq!(markup.entries.len(), 2);
    assert_eq!(markup.entries[0].boxes.len(), 1);
    assert_eq!(&text[markup.entries[0].content.clone()], "\npage");
}

#[test]
fn text_that_ends_inside_an_entry() {
    let whole = "<|ref|>one<|/ref|><|det|>[[1,2,3,4]]<|/det|>\n";
    for (tail, count) in [
        ("<|ref|>two<|/ref|>", 0),
        ("<|ref|>two<|/ref|><|det|>", 0),
        ("<|ref|>two<|/ref|><|det|>[[1, 2", 0),
        ("<|ref|>two<|/ref|><|det|>[[1, 2, 3, 4], [5,", 1),
        ("<|ref|>two<|/ref|><|det|>[[1, 2, 3, 4]]", 1),
    ] {
        let text = format!("{whole}{tail}");
        let markup = parse(&text);
        assert_eq!(kinds(&text), [UnclosedBoxes], "{tail}");
        assert_eq!(markup.entries[1].boxes.len(), count, "{tail}");
        assert_eq!(markup.entries[1].span, whole.len()..text.len(), "{tail}");
        assert_eq!(clean(&lines(&text, &markup)), "one\ntwo", "{tail}");
        assert_eq!(markup.style(&text), MarkupStyle::Lines);
    }
}

#[test]
fn style_read_off_the_entries() {
    let style = |text: &str| parse(text).style(text);
    let entry = "<|ref|>a<|/ref|><|det|>[[1,2,3,4]]<|/det|>";
    assert_eq!(style(&format!("{entry}\n{entry}")), MarkupStyle::Lines);
    assert_eq!(style(&format!("before {entry}")), MarkupStyle::Lines);
    assert_eq!(
        style(&format!("{entry}\n{entry} text")),
        MarkupStyle::Layout
    );
    assert_eq!(style("no markup"), MarkupStyle::Lines);
    let ended = format!("{entry}\n<｜end▁of▁sentence｜>");
    assert_eq!(style(&ended), MarkupStyle::Lines, "EOS is no content");
    let cut = format!("{entry}\n<|ref|>half a li");
    assert_eq!(
        style(&cut),
        MarkupStyle::Lines,
        "a label that was cut off is no content"
    );
    assert_eq!(clean(&lines(&cut, &parse(&cut))), "a\nhalf a li");
}

#[test]
fn labels_stand_on_lines_of_their_own() {
    let written = |text: &str| lines(text, &parse(text));
    let (a, b) = (
        "<|ref|>a<|/ref|><|det|>[]<|/det|>",
        "<|ref|>b<|/ref|><|det|>[]<|/det|>",
    );
    assert_eq!(written(&format!("{a}\n{b}")), "a\nb");
    assert_eq!(written(&format!("{a}{b}")), "a\nb");
    assert_eq!(written(&format!("{a}\n\n{b}\n")), "a\n\nb\n");
    assert_eq!(written(&format!("x{a}y{b}z")), "x\na\ny\nb\nz");
    let empty = "<|ref|><|/ref|><|det|>[]<|/det|>";
    assert_eq!(
        written(&format!("{a}\nx{empty}y{a}{empty}z")),
        "a\nxy\na\nz"
    );
    assert_eq!(written("plain \\coloneqq"), "plain \\coloneqq");
}

#[test]
fn blank_lines_and_control_tokens() {
    assert_eq!(
        collapse_blank_lines("\n\n\na\n\nb\n\n\n\n\n\nc\n"),
        "\n\na\n\nb\n\nc\n"
    );
    let text = " <|grounding|>a <td>1</td> <image> b<b <｜▁pad▁｜><｜end▁of▁sentence｜>\n";
    assert_eq!(clean(text), "a <td>1</td> <image> b<b");
    assert_eq!(
        clean("<<|ref|>< <｜ <｜x <｜a b｜> <"),
        "<< <｜ <｜x <｜a b｜> <"
    );
    assert_eq!(clean(""), "");
}

#[test]
fn hostile_texts_take_linear_time() {
    let long = 2_000_000;
    let start = std::time::Instant::now();
    for piece in [
        "<|ref|>",
        "<|ref|>a<|/ref|><|det|>",
        "<",
        "<｜a",
        "<|",
        "[",
        "<|/det|>",
    ] {
        let text = piece.repeat(long / piece.len());
        for text in [text.clone(), format!("<|ref|>a<|/ref|><|det|>{text}")] {
            let markup = parse(&text);
            markdown(&text, &markup, |_, _| String::new());
            lines(&text, &markup);
            clean(&text);
            markup.style(&text);
        }
    }
    // About a second; anything quadratic takes hours.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
