//! Statements 1 to 7: input and output.

use crate::support::{agx_ocr, expected, fixture, page};
use base64::{Engine, prelude::BASE64_STANDARD};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use serde_json::Value;
use std::fs;

#[test]
fn au_01_png_and_jpeg_on_stdin() {
    let result = agx_ocr(&[]).input(page("line-fox")).json();
    assert_eq!(result["text"], expected("line-fox", "out").as_str());
    assert_eq!(
        (&result["width"], &result["height"]),
        (&640.into(), &60.into())
    );

    let jpeg = fs::read(fixture("inputs/rgb.jpg")).unwrap();
    let result = agx_ocr(&["--max-tokens", "2"]).input(jpeg).json();
    assert!(result["text"].is_string());
}

#[test]
fn au_01_empty_stdin() {
    for input in ["", " \n\n"] {
        agx_ocr(&[]).input(input).run().fails(2, &["empty"]);
    }
}

#[test]
fn au_02_one_document_and_a_newline() {
    let outcome = agx_ocr(&[]).input(page("line-total")).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.starts_with('{'));
    assert!(outcome.stdout.ends_with("}\n"));
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(document.is_object());
}

#[test]
fn au_02_nothing_on_stdout_on_failure() {
    // More of these in the other modules: `fails` holds stdout against it each time.
    agx_ocr(&["--mode", "huge"]).run().fails(2, &["huge"]);
    let text = agx_ocr(&[]).input("no image").run();
    text.fails(2, &["not an image", "text"]);
}

#[test]
fn au_03_regions_with_text_confidence_and_bbox() {
    let result = agx_ocr(&["--task", "ocr"])
        .input(page("receipt-fuel"))
        .json();
    assert!(result["warnings"].as_array().unwrap().is_empty());
    assert_eq!(result["model"], "agx-ocr-mini");
    assert_eq!(result["task"], "ocr");
    assert_eq!(result["finish_reason"], "stop");
    assert_probability(&result["confidence"]);

    let markup = expected("receipt-fuel", "grounding");
    let lines: Vec<&str> = markup
        .lines()
        .map(|line| line.split("<|").nth(1).unwrap().trim_start_matches("ref|>"))
        .collect();
    assert_eq!(result["text"], lines.join("\n"));
    let regions = result["regions"].as_array().unwrap();
    assert_eq!(regions.len(), lines.len());
    let size = ["width", "height"].map(|name| result[name].as_u64().unwrap());
    for (region, line) in regions.iter().zip(lines) {
        assert_eq!(region["text"], line);
        assert_probability(&region["confidence"]);
        let bbox: Vec<u64> = serde_json::from_value(region["bbox"].clone()).unwrap();
        let [x0, y0, x1, y1] = bbox[..] else {
            panic!("{bbox:?}")
        };
        assert!(x0 < x1 && x1 <= size[0], "{bbox:?} in {size:?}");
        assert!(y0 < y1 && y1 <= size[1], "{bbox:?} in {size:?}");
    }
}

/// More than 0, at most 1, four decimals.
fn assert_probability(value: &Value) {
    let number = value.as_f64().unwrap();
    assert!(number > 0.0 && number <= 1.0, "{number}");
    assert!(value.to_string().len() <= "0.1234".len(), "{value}");
}

#[test]
fn au_03_without_places_one_region_for_the_page() {
    let result = agx_ocr(&[]).input(page("line-error")).json();
    let regions = result["regions"].as_array().unwrap();
    assert_eq!(regions.len(), 1);
    assert_eq!(regions[0]["text"], result["text"]);
    let whole = serde_json::json!([0, 0, result["width"], result["height"]]);
    assert_eq!(regions[0]["bbox"], whole);
}

#[test]
fn au_04_errors_and_their_causes_on_stderr() {
    let missing = agx_ocr(&["--input", "no-such-page.png"]).run();
    missing.fails(2, &["no-such-page.png"]);
    let lines: Vec<&str> = missing.stderr.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].starts_with("Caused by: "), "{}", lines[1]);
}

#[test]
fn au_05_compact_on_a_pipe_and_pretty_on_request() {
    let compact = agx_ocr(&[]).input(page("line-fox")).run().stdout;
    assert_eq!(compact.lines().count(), 1);
    let pretty = agx_ocr(&["--pretty"]).input(page("line-fox")).run().stdout;
    assert!(pretty.lines().count() > 10);
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&compact), parse(&pretty));
}

#[test]
fn au_06_same_input_same_output() {
    let run = |args: &[&str]| {
        let outcome = agx_ocr(args).input(page("receipt-fuel")).run();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stdout
    };
    let first = run(&["--task", "ocr"]);
    assert_eq!(first, run(&["--task", "ocr"]));
    assert_eq!(first, run(&["--task", "ocr", "--threads", "1"]));
    assert!(!first.contains("_ms") && !first.contains("stats"));
}

#[test]
fn au_06_times_on_request() {
    let result = agx_ocr(&["--stats"]).input(page("line-fox")).json();
    for name in ["load_ms", "vision_ms", "decode_ms", "tokens_per_second"] {
        assert!(result["stats"][name].as_f64().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn au_06_limits_of_the_machine_on_request() {
    let arguments = ["--stats", "--threads", "2"];
    let stats = &agx_ocr(&arguments).input(page("line-fox")).json()["stats"];
    let positive = |value: &Value, names: &[&str]| {
        for name in names {
            let number = value[name].as_f64();
            assert!(number.is_some_and(|n| n > 0.0), "{name}: {value}");
        }
    };
    let (machine, stages, goal) = (&stats["machine"], &stats["stages"], &stats["goal"]);
    assert!(machine["kernels"].is_string());
    assert_eq!(machine["threads"], 2);
    positive(machine, &["read_gbs"]);
    let limits = machine["gflops"].as_object().unwrap();
    assert!(limits.contains_key("f32"));
    // A limit that the machine does not have is absent.
    positive(
        &machine["gflops"],
        &limits.keys().map(String::as_str).collect::<Vec<_>>(),
    );

    for name in ["vision", "prefill"] {
        positive(&stages[name], &["ms", "gflop", "gflops", "share"]);
        if limits.contains_key("bf16") {
            positive(&stages[name], &["bf16_share"]);
            positive(goal, &[&format!("{name}_bf16_share")]);
        }
    }
    positive(&stages["decode"], &["ms", "gb", "gbs", "share"]);
    positive(goal, &["decode_share", "load_ms", "peak_memory_gb"]);
    if cfg!(target_os = "linux") {
        positive(stats, &["peak_memory_gb"]);
    }

    // One token is the prefill's: nothing was decoded.
    let short = agx_ocr(&["--stats", "--max-tokens", "1"]).input(page("line-fox"));
    let stages = &short.json()["stats"]["stages"];
    assert!(stages["prefill"].is_object() && stages["decode"].is_null());
}

#[test]
fn au_07_partial_success_is_success() {
    let result = agx_ocr(&["--max-tokens", "9"])
        .input(page("line-fox"))
        .json();
    assert_eq!(result["finish_reason"], "length");
    assert_eq!(result["tokens"]["generated"], 9);
    let text = result["text"].as_str().unwrap();
    assert!(!text.is_empty() && expected("line-fox", "out").starts_with(text));
    assert!(!result["warnings"].as_array().unwrap().is_empty());
}

#[test]
fn au_14_base64_and_data_uris_on_stdin() {
    let text = BASE64_STANDARD.encode(page("line-total"));
    let lines: Vec<&str> = (0..text.len())
        .step_by(76)
        .map(|at| &text[at..text.len().min(at + 76)])
        .collect();
    let uri = format!("data:image/png;base64,{text}\n");
    for input in [lines.join("\n"), uri] {
        let result = agx_ocr(&[]).input(input).json();
        assert_eq!(result["text"], expected("line-total", "out").as_str());
    }
}

/// A page as a scanner stores it that was fed from its side: it is turned by its orientation, 6.
#[test]
fn au_03_boxes_are_those_of_the_upright_page() {
    let upright = image::load_from_memory(&page("receipt-fuel")).unwrap();
    let turned = upright.rotate270().into_rgb8();
    // One entry of a TIFF: Orientation, a SHORT.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let (width, height) = turned.dimensions();
    assert!(width > height);
    let written = encoder.write_image(&turned, width, height, ExtendedColorType::Rgb8);
    written.unwrap();

    let read = |png| agx_ocr(&["--task", "ocr"]).input(png).json();
    let (turned, upright) = (read(png), read(page("receipt-fuel")));
    assert!(upright["regions"].as_array().unwrap().len() > 5);
    assert_eq!(turned, upright);
}
