//! Documents of many pages, and many inputs: statements 3, 7 and 14, and --pages.

use crate::support::{Outcome, agx_ocr, document, expected, finish, fixture, page};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Command,
    thread,
};

const NAMES: [&str; 3] = ["line-fox", "line-total", "line-error"];

fn read(args: &[&str]) -> Outcome {
    agx_ocr(args).run()
}

fn parse(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn texts(pages: &Value) -> Vec<&str> {
    let pages = pages.as_array().unwrap();
    pages
        .iter()
        .map(|page| page["text"].as_str().unwrap())
        .collect()
}

/// The sample pages' texts.
fn samples() -> Vec<String> {
    NAMES.map(|name| expected(name, "out")).to_vec()
}

#[test]
fn au_03_a_document_gives_its_pages() {
    for name in ["pages.pdf", "grey.tiff", "fax.tiff"] {
        let result = parse(&read(&["--input", &document(name)]));
        assert_eq!(texts(&result["pages"]), samples(), "{name}");
        assert_eq!(result["text"], samples().join("\n\n"));
        let regions = result["regions"].as_array().unwrap();
        for (i, (region, page)) in regions
            .iter()
            .zip(result["pages"].as_array().unwrap())
            .enumerate()
        {
            assert_eq!(
                (&region["page"], &page["page"]),
                (&json!(i + 1), &json!(i + 1))
            );
            assert_eq!(region["text"], page["text"]);
            assert_eq!(page["finish_reason"], "stop");
            assert!(page["warnings"].as_array().unwrap().is_empty());
            assert!(page["regions"].is_array() && page["input"].is_null());
        }
        assert_eq!(regions.len(), 3);
        assert!(result["warnings"].as_array().unwrap().is_empty());
    }
}

#[test]
fn au_03_an_image_is_a_page_and_a_pdf_of_one_page_a_document() {
    assert!(parse(&read(&["--input", &document("../pages/line-fox.png")]))["pages"].is_null());
    let one = parse(&read(&["--input", &document("turned.pdf")]));
    assert_eq!(texts(&one["pages"]), [expected("line-fox", "out")]);
}

#[test]
fn results_are_as_the_schema_says() {
    let schema = fs::read(fixture("../docs/output.schema.json")).unwrap();
    let schema = serde_json::from_slice(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for args in [
        &["--input", &document("broken-page.pdf")][..],
        &["--input", &document("broken-page.pdf"), "--stats"],
        &["--input", &document("../pages/line-fox.png"), "--stats"],
        &[
            "--input",
            &document("../pages/receipt-fuel.png"),
            "--task",
            "ocr",
        ],
    ] {
        let result = parse(&read(args));
        let errors: Vec<String> = validator
            .iter_errors(&result)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{args:?}: {errors:?}");
    }
    assert!(!validator.is_valid(&json!({"text": "a"})));
}

/// The same of a line of jsonl, one of the schema's parts.
#[test]
fn lines_are_as_the_schema_says() {
    let schema = fs::read(fixture("../docs/output.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_slice(&schema).unwrap();
    schema.as_object_mut().unwrap().remove("anyOf");
    schema["$ref"] = "#/$defs/PageEntry".into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let (broken, page) = (
        document("broken-page.pdf"),
        document("../pages/line-fox.png"),
    );
    for (args, count) in [
        (&["--input", &page][..], 1),
        (&["--input", &broken, "--input", &page, "--task", "ocr"], 4),
    ] {
        let outcome = read(&[&["--format", "jsonl"], args].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        for line in outcome.stdout.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&line)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{line}: {errors:?}");
        }
        assert_eq!(outcome.stdout.lines().count(), count);
    }
    for wrong in [
        json!({"page": 1, "text": "a"}),
        json!({"text": "", "regions": []}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn au_14_pages_are_chosen() {
    let pdf = document("pages.pdf");
    let of = |list: &str| {
        let result = parse(&read(&["--input", &pdf, "--pages", list]));
        let pages = result["pages"].as_array().unwrap();
        pages
            .iter()
            .map(|page| page["page"].as_u64().unwrap())
            .collect::<Vec<u64>>()
    };
    assert_eq!(of("2"), [2]);
    assert_eq!(of("3,1-2"), [1, 2, 3]);
    assert_eq!(of("2-"), [2, 3]);
    read(&["--input", &pdf, "--pages", "2-4"]).fails(2, &["--pages 2-4", "has 3"]);
    read(&["--input", &pdf, "--pages", "0"]).fails(2, &["counted from 1"]);
    // A page of an image that is the only one may be named too.
    let image = document("../pages/line-fox.png");
    let result = parse(&read(&["--input", &image, "--pages", "1"]));
    assert_eq!(result["text"], expected("line-fox", "out"));
}

#[test]
fn au_14_many_inputs_in_their_order() {
    let image = document("../pages/line-error.png");
    let result = agx_ocr(&[
        "--input",
        &image,
        "--input",
        "-",
        "--input",
        &document("text.pdf"),
    ])
    .input(page("line-fox"))
    .json();
    let pages = result["pages"].as_array().unwrap();
    let inputs: Vec<&str> = pages
        .iter()
        .map(|page| page["input"].as_str().unwrap())
        .collect();
    assert_eq!(inputs, [image.as_str(), "-", &document("text.pdf")]);
    let texts = texts(&result["pages"]);
    assert_eq!(
        texts[..2],
        [expected("line-error", "out"), expected("line-fox", "out")]
    );
    assert_eq!(texts[2], "Invoice total: $1,284.50");
}

#[test]
fn au_07_a_page_that_fails_leaves_the_others() {
    for name in ["broken-page.pdf", "huge-page.pdf"] {
        let result = parse(&read(&["--input", &document(name)]));
        let pages = result["pages"].as_array().unwrap();
        let failed: Vec<&Value> = pages
            .iter()
            .filter(|page| page["error"].is_string())
            .collect();
        assert_eq!(failed.len(), 1, "{name}");
        assert_eq!(
            (&failed[0]["text"], &failed[0]["regions"]),
            (&json!(""), &json!([]))
        );
        let warnings = result["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1);
        let warning = warnings[0].as_str().unwrap();
        assert!(
            warning.starts_with("Page ") && warning.contains("could not be read"),
            "{warning}"
        );
        assert!(result["text"].as_str().unwrap().contains("quick brown fox"));
    }
    let images = [
        "no-such-file.png".to_owned(),
        document("../pages/line-fox.png"),
    ];
    let result = parse(&read(&["--input", &images[0], "--input", &images[1]]));
    assert_eq!(texts(&result["pages"]), ["", &expected("line-fox", "out")]);
    assert!(
        result["pages"][0]["error"]
            .as_str()
            .unwrap()
            .contains("no-such-file.png")
    );
}

#[test]
fn au_02_nothing_is_printed_if_all_pages_fail() {
    for format in ["json", "jsonl", "text", "markdown", "hocr", "alto", "pdf"] {
        let args = [
            "--input",
            &document("broken-page.pdf"),
            "--pages",
            "2",
            "--format",
            format,
        ];
        read(&args).fails(2, &["Page 2 could not be read", "corrupt or invalid PDF"]);
        read(&["--input", "a.png", "--input", "b.png", "--format", format])
            .fails(2, &["a.png", "b.png"]);
    }
}

#[test]
fn documents_that_cannot_be_opened() {
    read(&["--input", &document("encrypted.pdf")]).fails(2, &["encrypted", "password"]);
    let text = parse(&read(&[
        "--input",
        &document("owner-only.pdf"),
        "--pages",
        "1",
    ]));
    assert_eq!(texts(&text["pages"]), [expected("line-fox", "out")]);
    agx_ocr(&[])
        .input("%PDF-1.7 and nothing")
        .run()
        .fails(2, &["corrupt or invalid PDF"]);
}

#[test]
fn resolution_and_transparency_are_options() {
    let pdf = document("pages.pdf");
    let result = parse(&read(&["--input", &pdf, "--pages", "1", "--dpi", "72"]));
    let page = &result["pages"][0];
    assert_eq!((&page["width"], &page["height"]), (&json!(320), &json!(30)));

    // Black letters on black that is not seen.
    let black = image::load_from_memory(&page_of_letters()).unwrap();
    let read = |alpha: &str| {
        let mut png = std::io::Cursor::new(Vec::new());
        black.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let run = agx_ocr(&["--alpha", alpha, "--max-tokens", "60"]).input(png.into_inner());
        run.json()["text"].clone()
    };
    assert_eq!(read("white"), expected("line-fox", "out"));
    assert_ne!(read("drop"), expected("line-fox", "out"));
}

/// A sample page as a scan without paper: black, as transparent as the page is bright.
fn page_of_letters() -> Vec<u8> {
    let grey = image::load_from_memory(&page("line-fox"))
        .unwrap()
        .into_luma8();
    let black = image::RgbaImage::from_fn(grey.width(), grey.height(), |x, y| {
        image::Rgba([0, 0, 0, 255 - grey.get_pixel(x, y).0[0]])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    black.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn an_animations_first_frame_is_read_with_a_warning() {
    let gif = fs::read(fixture("inputs/animated.gif")).unwrap();
    let result = agx_ocr(&["--max-tokens", "1"]).input(gif).json();
    let warnings = result["warnings"].as_array().unwrap();
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("only the first was read")
    );
}

#[test]
fn au_14_a_pdf_as_base64() {
    let pdf = fs::read(document("text.pdf")).unwrap();
    let text = BASE64_STANDARD.encode(pdf);
    for input in [text.clone(), format!("data:application/pdf;base64,{text}")] {
        let result = agx_ocr(&[]).input(input).json();
        assert_eq!(texts(&result["pages"]), ["Invoice total: $1,284.50"]);
    }
}

/// The second input comes only when the first page is out.
#[cfg(unix)]
#[test]
fn jsonl_comes_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("second.png");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (first, second) = (document("../pages/line-fox.png"), pipe.to_str().unwrap());
    let mut run = agx_ocr(&["--format", "jsonl", "--input", &first, "--input", second]);
    let mut child = run.spawn();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["text"], expected("line-fox", "out"));
    let write = pipe.clone();
    let writer = thread::spawn(move || fs::write(write, page("line-total")));
    let line = next();
    assert_eq!(
        (&line["text"], &line["page"]),
        (&json!(expected("line-total", "out")), &json!(1))
    );
    assert_eq!(line["input"], second);
    writer.join().unwrap().unwrap();
    assert_eq!(finish(child, Ok(())).code, Some(0));
}

/// Two hundred pages, of which a reader wants one.
#[test]
fn jsonl_ends_where_its_reader_leaves() {
    let mut run = agx_ocr(&["-v", "--format", "jsonl"]);
    let path = document("../pages/line-fox.png");
    for _ in 0..200 {
        run.command.args(["--input", &path]);
    }
    let mut child = run.spawn();
    drop(child.stdin.take());
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    assert!(line.ends_with("}\n"));
    let outcome = finish(child, Ok(()));
    assert_eq!(outcome.code, Some(0));
    // A few were under way.
    let read = outcome.stderr.matches(" reading ").count();
    assert!((1..20).contains(&read), "{read}");
}

#[test]
fn files_that_cannot_be_written_fail_their_page() {
    let dir = tempfile::tempdir().unwrap();
    // The second page's overlay would be this directory.
    fs::create_dir(dir.path().join("a-2.png")).unwrap();
    let overlay = dir.path().join("a.png");
    let args = [
        "--input",
        &document("grey.tiff"),
        "--overlay",
        overlay.to_str().unwrap(),
    ];
    let result = parse(&read(&args));
    let errors = result["pages"].as_array().unwrap().iter();
    let errors: Vec<bool> = errors.map(|page| page["error"].is_string()).collect();
    assert_eq!(errors, [false, true, false]);
}

#[test]
fn inputs_that_time_was_too_short_for_are_named() {
    let mut run = agx_ocr(&["--max-seconds", "0.000001"]);
    let paths = [document("grey.tiff"), document("pages.pdf")];
    for path in &paths {
        run.command.args(["--input", path]);
    }
    run.run().fails(1, &[&paths[0], &paths[1], "--max-seconds"]);
}
