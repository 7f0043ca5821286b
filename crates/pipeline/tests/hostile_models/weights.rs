//! Weights.

use crate::{Model, hollow, load_with, words};
use agx_ocr_pipeline::{Error, ErrorKind, Options};
use serde_json::json;
use std::fs;

#[test]
fn a_damaged_file_is_named() {
    let model = Model::new();
    let path = model.file("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for (content, wanted) in [
        (&b""[..], "it is 0 bytes long, too short for a header"),
        (&whole[..1000], "its header is said to be"),
        (&whole[..whole.len() - 1], "the file is incomplete"),
        (
            &[&whole[..], b"\0"].concat(),
            "the last 1 bytes belong to no tensor",
        ),
        (&whole[1..], "its header is"),
    ] {
        fs::write(&path, content).unwrap();
        let error = model.refusal();
        let start = format!("{} is not a valid safetensors file: ", path.display());
        assert!(
            error.starts_with(&start) && error.contains(wanted),
            "{error}"
        );
    }
    fs::remove_file(&path).unwrap();
    let index = model.file("model.safetensors.index.json");
    let wanted = format!(
        "{}: names \"model.safetensors\", which is missing",
        index.display()
    );
    assert_eq!(model.refusal(), wanted);
    fs::remove_file(index).unwrap();
    let wanted = format!("{} holds no *.safetensors file", model.path().display());
    assert_eq!(model.refusal(), wanted);
}

#[test]
fn an_index_that_lies_is_refused() {
    let model = Model::new();
    model.change("model.safetensors.index.json", |index| {
        index["weight_map"]["model.layers.9.mlp.gate.weight"] = json!("model.safetensors");
    });
    let error = model.refusal();
    let wanted = "lists \"model.layers.9.mlp.gate.weight\" in model.safetensors, which does not";
    assert!(error.contains(wanted), "{error}");
    model.change("model.safetensors.index.json", |index| {
        index["weight_map"] = json!({"lm_head.weight": "../../outside.safetensors"});
    });
    let error = model.refusal();
    assert!(
        error.contains("is not the name of a file beside it"),
        "{error}"
    );
}

/// A model of three terabytes that takes no space.
#[test]
#[cfg(target_os = "linux")]
fn more_than_the_memory_is_refused_before_it_is_touched() {
    let mut config = Model::new().json("config.json");
    for (name, value) in [
        ("hidden_size", 1 << 16),
        ("vocab_size", 1 << 22),
        ("moe_intermediate_size", 1 << 18),
        ("max_position_embeddings", 512),
    ] {
        config[name] = json!(value);
    }
    config["projector_config"]["n_embed"] = json!(1 << 16);
    let model = hollow::of(&config);
    let error = load_with(model.path(), Options::default())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let text = words(&error);
    assert!(
        text.starts_with("the model needs 3") && text.contains(" GB are available"),
        "{text}"
    );
    assert!(matches!(error, Error::Memory { needed, available, .. } if needed > available));
    // Whoever knows better may try.
    let mut options = Options::default();
    options.check_memory = false;
    let ocr = load_with(model.path(), options).unwrap();
    assert!(ocr.weight_bytes() > 3_000_000_000_000);
}
