//! Statements 16, 19, 21, 23 and 24: what comes in cannot crash the program, hang it, or make it
//! eat the machine.

#[cfg(target_os = "linux")]
use crate::support::{Outcome, finish_with_peak};
use crate::support::{agx_ocr, document, expected, fixture, page};
use serde_json::Value;
use std::{fs, io::Cursor, time::Instant};

/// As long as one page takes here, and then some.
fn seconds_of_a_page() -> f64 {
    let started = Instant::now();
    agx_ocr(&[]).input(page("line-fox")).json();
    started.elapsed().as_secs_f64()
}

#[test]
fn au_21_time_is_limited() {
    let args = ["--max-seconds", "0.000001"];
    agx_ocr(&args)
        .input(page("line-fox"))
        .run()
        .fails(1, &["the time of"]);

    // Far more than there is time for: some pages are read, and the rest is named.
    let seconds = format!("{}", 3.0 * seconds_of_a_page());
    let mut run = agx_ocr(&["--max-seconds", &seconds]);
    let path = document("../pages/receipt-market.png");
    for _ in 0..300 {
        run.command.args(["--input", &path]);
    }
    let started = Instant::now();
    let result = run.json();
    assert!(started.elapsed().as_secs_f64() < 4.0 * seconds.parse::<f64>().unwrap() + 10.0);
    let pages = result["pages"].as_array().unwrap();
    let read = pages.iter().filter(|page| page["error"].is_null()).count();
    assert!((1..300).contains(&read) && pages.len() == 300, "{read}");
    assert!(pages[0]["text"].as_str().unwrap().len() > 100);
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("--max-seconds"), "{warnings}");
}

#[test]
fn au_21_a_page_that_takes_too_long_ends_where_it_is() {
    // Receipts below receipts: bands that take far longer than there is time for.
    let receipt = image::load_from_memory(&page("receipt-market")).unwrap();
    let mut tall = image::RgbImage::new(receipt.width(), 40 * receipt.height());
    for i in 0..40 {
        let top = i * i64::from(receipt.height());
        image::imageops::replace(&mut tall, &receipt.to_rgb8(), 0, top);
    }
    let mut png = Cursor::new(Vec::new());
    tall.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let seconds = format!("{}", 4.0 * seconds_of_a_page());
    let run = agx_ocr(&["--max-seconds", &seconds]).input(png.into_inner());
    let result = run.json();
    assert_eq!(result["finish_reason"], "timeout");
    let text = result["text"].as_str().unwrap();
    assert!(
        expected("receipt-market", "out").starts_with(&text[..text.len().min(30)]),
        "{text}"
    );
    assert!(result["warnings"].to_string().contains("time ran out"));
}

#[test]
fn au_21_output_is_limited() {
    let image = document("../pages/line-fox.png");
    let one = agx_ocr(&["--input", &image]).run().stdout.len();
    for format in ["json", "jsonl", "text", "markdown", "hocr", "alto", "pdf"] {
        let args = [
            "--input",
            &image,
            "--format",
            format,
            "--max-output-bytes",
            "20",
        ];
        agx_ocr(&args)
            .run()
            .fails(1, &["too large", "--max-output-bytes"]);
    }
    let exact = one.to_string();
    let args = ["--input", &image, "--max-output-bytes", &exact];
    assert_eq!(agx_ocr(&args).run().stdout.len(), one);

    // What has room is kept, and what has none is named.
    let most = (4 * one).to_string();
    let mut run = agx_ocr(&["--max-output-bytes", &most]);
    for _ in 0..9 {
        run.command.args(["--input", &image]);
    }
    let outcome = run.run();
    assert!(outcome.stdout.len() <= 4 * one);
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let pages = result["pages"].as_array().unwrap().len();
    assert!((1..9).contains(&pages), "{pages}");
    assert!(
        result["warnings"]
            .to_string()
            .contains("--max-output-bytes")
    );

    let mut run = agx_ocr(&["--max-output-bytes", &most, "--format", "jsonl"]);
    for _ in 0..9 {
        run.command.args(["--input", &image]);
    }
    let outcome = run.run();
    assert!(outcome.stdout.len() <= 4 * one && outcome.stdout.ends_with("}\n"));
    assert!(
        outcome.stderr.contains("--max-output-bytes"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn au_19_pages_are_limited() {
    let pdf = document("pages.pdf");
    let args = ["--input", &pdf, "--max-pages", "2"];
    agx_ocr(&args)
        .run()
        .fails(2, &["too large", "3 pages", "--max-pages"]);
    let args = ["--input", &pdf, "--max-pages", "2", "--pages", "2-3"];
    assert_eq!(agx_ocr(&args).json()["pages"].as_array().unwrap().len(), 2);
    // Of several inputs together.
    let args = ["--input", &pdf, "--input", &pdf, "--max-pages", "3"];
    let pages = agx_ocr(&args).json()["pages"].clone();
    assert_eq!(pages.as_array().unwrap().len(), 4);
    assert!(pages[3]["error"].as_str().unwrap().contains("6 pages"));
}

#[test]
fn au_19_the_prompts_limit_is_an_option() {
    let args = ["--prompt", "Free OCR.", "--max-prompt-bytes", "8"];
    agx_ocr(&args)
        .input(page("line-fox"))
        .run()
        .fails(2, &["too long", "--max-prompt-bytes"]);
}

/// Bytes that swell a millionfold, far above the limit, and a peak that stays near it.
#[cfg(target_os = "linux")]
#[test]
fn au_19_a_pdf_that_swells_is_given_up() {
    const LIMIT: u64 = 300_000_000;
    for name in ["contents-bomb.pdf", "image-bomb.pdf"] {
        let limit = LIMIT.to_string();
        let (outcome, peak) = measured(&["--input", &document(name), "--max-memory", &limit]);
        outcome.fails(1, &["--max-memory"]);
        // It did swell; its last moments may have gone unseen.
        let peaks = LIMIT / 2..LIMIT + 700_000_000;
        assert!(peaks.contains(&peak), "{name}: {peak}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn au_16_what_follows_a_pdf_that_swells_is_read() {
    let (bomb, page) = (document("image-bomb.pdf"), document("pages.pdf"));
    let args = [
        "--max-memory",
        "300000000",
        "--input",
        &bomb,
        "--input",
        &page,
    ];
    let result = agx_ocr(&args).json();
    let error = result["pages"][0]["error"].as_str().unwrap();
    assert!(error.contains("--max-memory"), "{error}");
    assert_eq!(result["pages"][1]["text"], expected("line-fox", "out"));
    assert_eq!(result["pages"].as_array().unwrap().len(), 4);
}

/// A stack that overflows, and memory that no machine has: the system ends the process that does
/// so.
#[test]
fn au_16_a_pdf_page_that_crashes_the_renderer_takes_no_other_with_it() {
    let crash = document("crash.pdf");
    let result = agx_ocr(&["--input", &crash]).json();
    let pages = &result["pages"];
    assert_eq!(pages[0]["text"], expected("line-fox", "out"));
    assert_eq!(pages[3]["text"], expected("line-error", "out"));
    for number in [2, 3] {
        let error = pages[number - 1]["error"].as_str().unwrap();
        assert!(error.contains("corrupt or invalid PDF"), "{error}");
        let pages = number.to_string();
        let outcome = agx_ocr(&["--input", &crash, "--pages", &pages]).run();
        outcome.fails(2, &["corrupt or invalid PDF", "memory or stack"]);
        assert!(!outcome.stderr.contains("overflow"), "{}", outcome.stderr);
    }
}

#[test]
fn au_21_a_pdf_that_draws_without_end_is_given_up() {
    let args = [
        "--input",
        &document("forms-bomb.pdf"),
        "--max-seconds",
        "0.5",
    ];
    agx_ocr(&args).run().fails(1, &["--max-seconds"]);
}

/// While nothing ends standard input, and the reader goes on behind the result.
#[cfg(target_os = "linux")]
#[test]
fn au_19_memory_is_minded_to_the_end() {
    let args = [
        "--input",
        &document("image-bomb.pdf"),
        "--max-memory",
        "300000000",
    ];
    let mut child = agx_ocr(&args).spawn();
    let stdin = child.stdin.take();
    let (outcome, peak) = finish_with_peak(child);
    drop(stdin);
    outcome.fails(1, &["--max-memory"]);
    assert!(peak < 1_000_000_000, "{peak}");
}

/// All white, and as large as may be: 300 MB of pixels in a few.
#[cfg(target_os = "linux")]
#[test]
fn au_19_a_png_that_swells_stays_within_its_pixels() {
    let image = image::RgbImage::from_pixel(10_000, 10_000, image::Rgb([255; 3]));
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    drop(image);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("white.png");
    fs::write(&path, png.into_inner()).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 5_000_000);
    swells(&["--input", path.to_str().unwrap(), "--max-tokens", "1"]);
}

/// An image of 10,000 by 10,000 pixels is read within its pixels; where one fewer is allowed, it is
/// refused before anything is decoded.
#[cfg(target_os = "linux")]
fn swells(args: &[&str]) {
    let (outcome, peak) = measured(args);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(peak < 1_000_000_000, "{peak}");
    let (outcome, peak) = measured(&[args, &["--max-pixels", "99999999"]].concat());
    outcome.fails(2, &["too large", "10000x10000", "(--max-pixels)"]);
    assert!(peak < 100_000_000, "{peak}");
}

/// A run without standard input, and its peak.
#[cfg(target_os = "linux")]
fn measured(args: &[&str]) -> (Outcome, u64) {
    let mut child = agx_ocr(args).spawn();
    drop(child.stdin.take());
    finish_with_peak(child)
}

#[cfg(target_os = "linux")]
#[test]
fn au_19_a_tiff_that_swells_stays_within_its_pixels() {
    swells(&["--input", &document("white-bomb.tiff"), "--max-tokens", "1"]);
}

/// A picture of nothing: the model says something, and then the same again and again.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let mut level = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let image = image::GrayImage::from_fn(400, 300, |_, _| image::Luma([level()]));
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn an_answer_in_circles_is_ended_and_said() {
    let result = agx_ocr(&[]).input(noise()).json();
    assert_eq!(result["finish_reason"], "repetition", "{result}");
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("began to repeat itself"), "{warnings}");
    let kept = agx_ocr(&["--keep-cycles"]).input(noise()).json();
    assert_ne!(kept["finish_reason"], "repetition");
    let text = |result: &Value| result["text"].as_str().unwrap().to_owned();
    assert!(
        text(&kept).starts_with(&text(&result)),
        "only its end was cut off"
    );
    assert!(text(&kept).len() > text(&result).len());

    let again = agx_ocr(&["--retry-mode", "base"]).input(noise()).json();
    assert!(
        again["warnings"].to_string().contains("in mode base"),
        "{again}"
    );
}

#[test]
fn tokens_that_the_guard_allows_are_named() {
    agx_ocr(&["--ngram-whitelist", "no such token"])
        .input(page("line-fox"))
        .run()
        .fails(2, &["no such token"]);
    // Forbidden to come twice, but for these.
    let args = ["--no-repeat-ngram", "1", "--ngram-window", "99"];
    let strict = agx_ocr(&args).input(page("line-fox")).json();
    let args = [&args[..], &["--ngram-whitelist", "o"]].concat();
    let lenient = agx_ocr(&args).input(page("line-fox")).json();
    assert_ne!(strict["text"], lenient["text"]);
}

#[test]
fn au_23_releases_check_their_arithmetic() {
    let manifest = fs::read_to_string(fixture("../Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).unwrap();
    let release = release.split('[').next().unwrap();
    assert!(release.contains("overflow-checks = true"));
    let lean = manifest.split("[profile.lean]").nth(1).unwrap();
    assert!(lean.starts_with("\ninherits = \"release\"") && !lean.contains("overflow-checks"));
}

#[test]
fn au_24_a_hundred_pages_give_the_same_text() {
    let mut run = agx_ocr(&["--format", "jsonl"]);
    let path = document("../pages/line-fox.png");
    for _ in 0..100 {
        run.command.args(["--input", &path]);
    }
    let outcome = run.run();
    let texts: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone())
        .collect();
    assert_eq!(texts, vec![Value::from(expected("line-fox", "out")); 100]);
}
