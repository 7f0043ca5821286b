//! Pages that are read together: the same result as one by one, in the document's order.

use crate::support::{agx_ocr, document, expected, fixture};
use serde_json::Value;

/// The inputs, one of which cannot be opened, and pages of which some cannot be read.
fn mixed() -> Vec<String> {
    let page = |name: &str| {
        let path = fixture(&format!("pages/{name}.png"));
        path.to_str().unwrap().to_owned()
    };
    let inputs = [
        document("crash.pdf"),
        page("paragraph-poem"),
        document("no-such-file.png"),
        document("pages.pdf"),
        page("line-total"),
    ];
    let flags = inputs.into_iter().flat_map(|path| ["--input".into(), path]);
    flags.collect()
}

fn read(inputs: &[String], more: &[&str]) -> Value {
    let mut args: Vec<&str> = inputs.iter().map(String::as_str).collect();
    args.extend(more);
    agx_ocr(&args).json()
}

/// Without what rounding may change.
fn settled(mut result: Value) -> Value {
    fn settle(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("confidence");
                fields.values_mut().for_each(settle);
            }
            Value::Array(values) => values.iter_mut().for_each(settle),
            _ => {}
        }
    }
    settle(&mut result);
    result
}

#[test]
fn a_batch_gives_the_pages_that_are_read_one_by_one() {
    let one_by_one = settled(read(&mixed(), &[]));
    let pages = one_by_one["pages"].as_array().unwrap();
    assert_eq!(pages.len(), 10);
    assert_eq!(
        pages
            .iter()
            .filter(|page| page["error"].is_string())
            .count(),
        3
    );
    for size in ["2", "3", "64"] {
        assert_eq!(settled(read(&mixed(), &["--batch", size])), one_by_one);
    }
}

#[test]
fn lines_of_a_batch_come_in_the_documents_order() {
    let pdf = document("pages.pdf");
    let args = ["--input", &pdf, "--batch", "3", "--format", "jsonl"];
    let outcome = agx_ocr(&args).run();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let numbers = outcome.stdout.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["page"].as_u64().unwrap()
    });
    assert!(numbers.eq(1..=3));
}

#[test]
fn a_batch_has_the_time_of_all() {
    let pdf = document("pages.pdf");
    let args = ["--input", &pdf, "--batch", "2", "--max-seconds", "0.000001"];
    agx_ocr(&args).run().fails(1, &["--max-seconds"]);
}

#[test]
fn one_page_may_be_a_batch() {
    let page = fixture("pages/line-fox.png");
    let args = ["--input", page.to_str().unwrap(), "--batch", "8"];
    let result = agx_ocr(&args).json();
    assert_eq!(result["text"], expected("line-fox", "out"));
    assert!(result["pages"].is_null());
    agx_ocr(&["--batch", "0"]).run().fails(2, &["--batch"]);
}
