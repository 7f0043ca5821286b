//! What can be printed beside JSON, and files beside the result.

use crate::support::{agx_ocr, document, expected, page};
use std::{collections::HashSet, fs};

fn output(format: &str, args: &[&str]) -> Vec<u8> {
    let mut run = agx_ocr(&["--format", format]);
    let output = run
        .command
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn text(format: &str, args: &[&str]) -> String {
    String::from_utf8(output(format, args)).unwrap()
}

#[test]
fn text_and_markdown_part_the_pages() {
    let (pdf, names) = (
        document("pages.pdf"),
        ["line-fox", "line-total", "line-error"],
    );
    let samples = names.map(|name| expected(name, "out"));
    let [a, b, c] = &samples;
    let args = ["--input", &pdf, "--task", "text"];
    assert_eq!(text("text", &args), samples.join("\n\u{c}") + "\n");
    let parted = format!("{a}\n\n<!-- Page 2 -->\n\n{b}\n\n<!-- Page 3 -->\n\n{c}\n");
    assert_eq!(text("markdown", &args), parted);
}

#[test]
fn hocr_and_alto_are_xml_with_the_lines_and_their_places() {
    let args = ["--input", &document("pages.pdf"), "--task", "ocr"];
    let result: serde_json::Value = serde_json::from_str(&text("json", &args)).unwrap();
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };

    let hocr = text("hocr", &args);
    let hocr = roxmltree::Document::parse_with_options(&hocr, options).unwrap();
    let class = |name: &'static str| {
        hocr.descendants()
            .filter(move |node| node.attribute("class") == Some(name))
    };
    assert_eq!(class("ocr_page").count(), 3);
    let regions = result["regions"].as_array().unwrap();
    for (line, region) in class("ocr_line").zip(regions) {
        assert_eq!(line.text(), region["text"].as_str());
        let bbox = region["bbox"].as_array().unwrap();
        let bbox: Vec<String> = bbox.iter().map(ToString::to_string).collect();
        let title = line.attribute("title").unwrap();
        assert!(
            title.starts_with(&format!("bbox {}", bbox.join(" "))),
            "{title}"
        );
    }
    assert_eq!(class("ocr_line").count(), regions.len());

    let alto = text("alto", &args);
    let alto = roxmltree::Document::parse(&alto).unwrap();
    let named = |name: &'static str| {
        alto.descendants()
            .filter(move |node| node.tag_name().name() == name)
    };
    assert_eq!(named("Page").count(), 3);
    for (string, region) in named("String").zip(regions) {
        assert_eq!(string.attribute("CONTENT"), region["text"].as_str());
        assert_eq!(
            string.attribute("HPOS"),
            Some(&region["bbox"][0].to_string()[..])
        );
    }
    assert_eq!(named("String").count(), regions.len());
    let ids: Vec<&str> = alto
        .descendants()
        .filter_map(|node| node.attribute("ID"))
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}

#[cfg(feature = "pdf")]
#[test]
fn a_searchable_pdf_has_the_pages_and_their_text() {
    let args = ["--input", &document("grey.tiff"), "--task", "ocr"];
    let pdf = output("pdf", &args);
    assert_eq!(
        pdf,
        output("pdf", &args),
        "the same input gives the same bytes"
    );
    let opened = agx_ocr_pipeline::Document::open(pdf.clone(), &Default::default()).unwrap();
    assert_eq!(opened.pages(), 3);
    // Read again, it says the same.
    let again = agx_ocr(&["--task", "ocr"]).input(pdf.clone()).json();
    let first: serde_json::Value = serde_json::from_str(&text("json", &args)).unwrap();
    assert_eq!(again["text"], first["text"]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("searchable.pdf");
    fs::write(&path, pdf).unwrap();
    let Ok(found) = std::process::Command::new("pdftotext")
        .arg(&path)
        .arg("-")
        .output()
    else {
        crate::support::skipped("text of a searchable PDF", "pdftotext is not installed");
        return;
    };
    let found = String::from_utf8(found.stdout).unwrap();
    for line in first["text"]
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
    {
        assert!(found.contains(line), "no {line:?} in {found}");
    }
}

#[test]
fn an_overlay_shows_the_regions_of_each_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boxes.png");
    let args = ["--task", "ocr", "--overlay", path.to_str().unwrap()];
    let mut run = agx_ocr(&args);
    run.command
        .args(["--input", &document("pages.pdf"), "--pages", "1-2"]);
    let result = run.json();
    let drawn = image::open(&path).unwrap().into_rgb8();
    let plain = image::load_from_memory(&page("line-fox"))
        .unwrap()
        .into_rgb8();
    assert_eq!(drawn.dimensions(), plain.dimensions());
    let bbox = &result["regions"][0]["bbox"];
    let at = |i: usize| bbox[i].as_u64().unwrap() as u32;
    // On the lower edge, and far from the box.
    assert_ne!(
        drawn.get_pixel((at(0) + at(2)) / 2, at(3) - 1),
        plain.get_pixel((at(0) + at(2)) / 2, at(3) - 1)
    );
    assert_eq!(drawn.get_pixel(639, 5), plain.get_pixel(639, 5));
    assert!(dir.path().join("boxes-2.png").is_file());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn files_that_cannot_be_written_are_a_failure() {
    for args in [
        ["--overlay", "/no/such/directory/a.png", "--format", "json"],
        ["--assets", "/dev/null/figures", "--format", "markdown"],
    ] {
        let outcome = agx_ocr(&args).input(page("line-fox")).run();
        outcome.fails(1, &["cannot", args[1].trim_end_matches("/figures")]);
    }
    if cfg!(target_os = "linux") {
        let run = agx_ocr(&["--overlay", "/dev/full"]).input(page("line-fox"));
        run.run()
            .fails(1, &["cannot write /dev/full", "Caused by: "]);
    }
    if cfg!(unix) {
        let run = agx_ocr(&["--overlay", "/dev/stdout"]).input(page("line-fox"));
        run.run().fails(2, &["where the result goes"]);
    }
}

#[test]
fn figures_go_with_markdown_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("figures");
    let args = ["--assets", path.to_str().unwrap()];
    agx_ocr(&args)
        .input(page("line-fox"))
        .run()
        .fails(2, &["--format markdown"]);
    assert!(!path.exists());
}
