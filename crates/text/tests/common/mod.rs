//! Where test data lies.
#![allow(dead_code)] // not every test binary uses every helper

use std::io::Write as _;
use std::path::{Path, PathBuf};

use agx_ocr_text::Tokenizer;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("fixtures").join(name)
}

/// A file that is too large for the repository; says so when it is absent.
pub fn shared(test: &str, name: &str) -> Option<PathBuf> {
    let path = root().join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {test} because {name} is not in the shared folder"
    );
    None
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    serde_json::from_str(&text).unwrap()
}

pub fn mini() -> Tokenizer {
    Tokenizer::from_file(&fixture("models/agx-ocr-mini/tokenizer.json")).unwrap()
}

pub fn tiny() -> Tokenizer {
    Tokenizer::from_file(&fixture("parity/tiny/tokenizer.json")).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}
