//! Statements 15, 16, 19 and 23: models that are spoilt.

use crate::support::{Outcome, agx_ocr, fixture, page};
#[cfg(target_os = "linux")]
use crate::support::{document, finish_with_peak};
use serde_json::Value;
use std::fs;
#[cfg(target_os = "linux")]
use std::{
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// The mini model, one of whose files is changed.
fn spoilt(name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("models/agx-ocr-mini")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(name);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    dir
}

/// The value at a pointer in one of its JSON files is another.
#[cfg(target_os = "linux")]
fn set(name: &str, pointer: &str, value: u64) -> TempDir {
    spoilt(name, |json| {
        let mut json: Value = serde_json::from_slice(&json).unwrap();
        *json.pointer_mut(pointer).unwrap() = value.into();
        json.to_string().into_bytes()
    })
}

fn read_with(model: &TempDir) -> Outcome {
    let args = ["--model-path", model.path().to_str().unwrap()];
    agx_ocr(&args).input(page("line-fox")).run()
}

#[test]
fn au_16_weights_that_are_no_numbers() {
    let model = spoilt("model.safetensors", |mut bytes| {
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let names: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let tensor = &names["model.layers.1.self_attn.o_proj.weight"]["data_offsets"];
        let at = 8 + header + tensor[0].as_u64().unwrap() as usize;
        bytes[at..at + 2].copy_from_slice(&0x7FC0_u16.to_le_bytes());
        bytes
    });
    read_with(&model).fails(2, &["layer1.", "weights"]);
}

#[test]
fn au_23_misspelt_settings_of_a_model_are_refused() {
    let model = spoilt("processor_config.json", |settings| {
        let settings = String::from_utf8(settings).unwrap();
        settings.replace("\"split\"", "\"spilt\"").into_bytes()
    });
    read_with(&model).fails(2, &["processor_config.json", "spilt"]);
}

/// What a model says of its sizes is checked before room is made for it: nothing is taken, and
/// there is not even room to ask for.
#[cfg(target_os = "linux")]
#[test]
fn au_19_absurd_models_take_no_memory() {
    let header = |header: Value| {
        let header = header.to_string();
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &[0; 64]].concat()
    };
    let long = |mut bytes: Vec<u8>| {
        bytes[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        bytes
    };
    let large = serde_json::json!({"a": {"dtype": "BF16", "shape": [1_u64 << 40], "data_offsets": [0, 1_u64 << 41]}});
    let sam = "/vision_config/width/sam_vit_b/width";
    for (model, words) in [
        (spoilt("model.safetensors", long), "header"),
        (spoilt("model.safetensors", |_| header(large)), "incomplete"),
        (
            set("config.json", "/num_hidden_layers", 1 << 40),
            "num_hidden_layers",
        ),
        (
            set("config.json", "/max_position_embeddings", 1 << 40),
            "max_position_embeddings",
        ),
        (set("config.json", sam, 1 << 40), "sam_vit_b.width"),
        (
            set("tokenizer.json", "/added_tokens/19/id", (1 << 32) - 1),
            "4294967295",
        ),
        (
            set("processor_config.json", "/default_view/size", 1 << 30),
            "1073741824",
        ),
    ] {
        let (outcome, peak) = in_little_room(model.path());
        outcome.fails(2, &[words]);
        assert!(peak < 50_000_000, "{words}: {peak}");
    }
    // Enough room to find that the good model does not fit.
    let (outcome, _) = in_little_room(&fixture("models/agx-ocr-mini"));
    outcome.fails(1, &["the model needs"]);
}

/// Runs the program with 140 MB to write to, of which stacks have the half, and gives its peak.
#[cfg(target_os = "linux")]
fn in_little_room(model: &Path) -> (Outcome, u64) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -d 140000; exec \"$0\" \"$@\""]);
    shell.args([env!("CARGO_BIN_EXE_agx-ocr"), "--threads", "2"]);
    shell.arg("--model-path").arg(model);
    shell.args(["--input", &document("../pages/line-fox.png")]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = shell.stderr(Stdio::piped()).spawn().unwrap();
    finish_with_peak(child)
}
