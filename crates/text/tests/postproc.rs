//! Comparison with the reference implementation's post-processing, and the trained model's output.

mod common;

use agx_ocr_text::{clean, lines, markdown, parse};
use common::{fixture, json};
use serde_json::Value;

fn cases() -> Vec<Value> {
    let vectors = json(&fixture("parity/text/postproc_vectors.json"));
    vectors.as_array().unwrap().clone()
}

fn written(text: &str) -> String {
    markdown(text, &parse(text), |i, _| format!("![](images/{i}.jpg)\n"))
}

fn image_size(case: &Value) -> (u32, u32) {
    match case["image"].as_str().unwrap() {
        "images/receipt.png" => (480, 900),
        "images/wide.png" => (1700, 1200),
        other => panic!("no size for {other}"),
    }
}

#[test]
fn entries_and_boxes() {
    for case in cases() {
        let (width, height) = image_size(&case);
        let markup = parse(case["input"].as_str().unwrap());
        let expected = case["boxes"].as_array().unwrap();
        assert_eq!(markup.entries.len(), expected.len());
        for (entry, expected) in markup.entries.iter().zip(expected) {
            assert_eq!(entry.label, expected["label"].as_str().unwrap());
            // Where `eval` fails the reference drops the whole list; the parser keeps what was
            // complete.
            let Some(parsed) = expected["parsed"].as_array() else {
                assert_eq!(expected["raw"], "[[1,2,3,4]");
                assert_eq!(entry.boxes.len(), 1);
                continue;
            };
            // The reference fails to crop an inverted box; the parser drops it.
            let parsed: Vec<_> = parsed
                .iter()
                .filter(|p| p["crop_error"].is_null())
                .collect();
            assert_eq!(entry.boxes.len(), parsed.len());
            for (area, expected) in entry.boxes.iter().zip(parsed) {
                let norm = [area.x0, area.y0, area.x1, area.y1];
                assert_eq!(
                    serde_json::json!(norm.map(Value::from)),
                    floats(&expected["norm"])
                );
                let pixels = area.to_pixels(width, height);
                assert_eq!(serde_json::json!(pixels), expected["px"]);
            }
        }
    }
}

fn floats(numbers: &Value) -> Value {
    let numbers = numbers.as_array().unwrap().iter();
    numbers.map(|n| Value::from(n.as_f64().unwrap())).collect()
}

#[test]
fn figures_are_numbered_like_the_crop_files() {
    for case in cases() {
        let markup = parse(case["input"].as_str().unwrap());
        let crops: Vec<&Value> = case["boxes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["parsed"].as_array())
            .flatten()
            .filter(|parsed| !parsed["crop_file"].is_null())
            .collect();
        assert_eq!(markup.figures().count(), crops.len());
        let (width, height) = image_size(&case);
        for (i, ((_, area), crop)) in markup.figures().zip(crops).enumerate() {
            assert_eq!(crop["crop_file"], format!("images/{i}.jpg"));
            let [x0, y0, x1, y1] = area.to_pixels(width, height);
            assert_eq!(crop["crop_wh"], serde_json::json!([x1 - x0, y1 - y0]));
        }
    }
}

#[test]
fn markdown_agrees_where_the_reference_is_right() {
    let cases = cases();
    for index in [0, 4, 6, 7] {
        let case = &cases[index];
        assert_eq!(
            written(case["input"].as_str().unwrap()),
            case["result_mmd"].as_str().unwrap(),
            "case {index}"
        );
    }
}

#[test]
fn markdown_differs_where_the_reference_is_wrong() {
    let fixed = [
        // Two boxes in one entry: the links follow the files.
        (
            1,
            "![](images/0.jpg)\n![](images/1.jpg)\n\nFigure\n![](images/2.jpg)\n\n\n\
             <table><tr><td>Region</td></tr></table>",
        ),
        // Equal entries get their own links; the operator is replaced without a text entry.
        (2, "![](images/0.jpg)\na![](images/1.jpg)\nb =:"),
        // No link to a figure that could not be cut out.
        (3, "xyz"),
        // The operator is replaced without any entry.
        (5, "plain text only := stays"),
    ];
    let cases = cases();
    for (index, expected) in fixed {
        let case = &cases[index];
        assert_ne!(case["result_mmd"], expected, "case {index}");
        assert_eq!(
            written(case["input"].as_str().unwrap()),
            expected,
            "case {index}"
        );
    }
}

#[test]
fn a_label_that_is_text_survives_as_a_line() {
    let cases = cases();
    let text = cases[4]["input"].as_str().unwrap();
    assert_eq!(lines(text, &parse(text)), "TOTAL EUR");
}

#[test]
fn the_mini_models_pages() {
    let mut pages = 0;
    for file in std::fs::read_dir(fixture("pages")).unwrap() {
        let path = file.unwrap().path();
        if !path.to_string_lossy().ends_with(".grounding.txt") {
            continue;
        }
        pages += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let markup = parse(&text);
        assert_eq!(markup.warnings, [], "{path:?}");
        assert_eq!(
            markup.entries.len(),
            text.trim().lines().count(),
            "{path:?}"
        );
        assert!(
            markup.entries.iter().all(|entry| entry.boxes.len() == 1),
            "{path:?}"
        );
        let plain = clean(&lines(&text, &markup));
        let labels: Vec<_> = markup
            .entries
            .iter()
            .map(|entry| entry.label.as_str())
            .collect();
        assert_eq!(plain, labels.join("\n"), "{path:?}");
    }
    assert_eq!(pages, 12);
}
