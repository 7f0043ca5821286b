//! The card that `--describe` prints: what this program takes, gives and can be told.

use crate::args::Args;
use clap::{Arg, ArgAction, CommandFactory};
use serde_json::{Map, Value, json};
use std::any::TypeId;

/// Arguments that are no settings.
const NO_SETTINGS: [&str; 4] = ["describe", "help", "version", "words"];

/// The card.
pub fn card() -> Value {
    let images = ["png", "jpeg", "webp", "tiff", "bmp", "gif"];
    let mut inputs: Vec<Value> = images
        .iter()
        .map(|kind| json!({"media_type": format!("image/{kind}")}))
        .collect();
    inputs.push(json!({
        "media_type": "image/x-portable-anymap",
        "description": "PBM, PGM, PPM and PAM"
    }));
    if cfg!(feature = "pdf") {
        inputs.push(json!({"media_type": "application/pdf"}));
    }
    inputs.push(json!({
        "media_type": "text/plain",
        "description": "one of these as base64, or as a data: URI"
    }));
    let mut outputs = vec![
        json!({
            "media_type": "application/json",
            "description": "text, regions with bbox in pixels and confidence, warnings; pages of \
                a document"
        }),
        json!({"media_type": "application/jsonl", "description": "a page a line, with --format jsonl"}),
        json!({"media_type": "text/plain", "description": "with --format text"}),
        json!({"media_type": "text/markdown", "description": "with --format markdown"}),
        json!({"media_type": "text/html", "description": "hOCR, with --format hocr"}),
        json!({"media_type": "application/xml", "description": "ALTO, with --format alto"}),
    ];
    let mut capabilities = vec!["ocr", "image-to-text", "table-extraction"];
    if cfg!(feature = "pdf") {
        capabilities.push("pdf");
        outputs.push(json!({
            "media_type": "application/pdf",
            "description": "images with invisible text, with --format pdf"
        }));
    }
    let devices: &[&str] = match cfg!(feature = "cuda") {
        true => &["cpu", "cuda"],
        false => &["cpu"],
    };
    json!({
        "name": "agx-ocr",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Reads the text of images and documents with DeepSeek-OCR: as text, as \
            markdown, or piece by piece with places and confidences.",
        "capabilities": capabilities,
        "inputs": inputs,
        "outputs": outputs,
        "config": config(),
        "exit_codes": {
            "0": "pages were read, perhaps in part: see warnings",
            "1": "processing failed",
            "2": "invalid arguments, input or model",
            "129": "ended by SIGHUP",
            "130": "ended by SIGINT",
            "143": "ended by SIGTERM"
        },
        "resources": {
            "devices": devices,
            "memory": "the size of the model's file, which is mapped, and what a page takes while it is read",
            "network": false,
            "writes_files": "only with --assets and --overlay"
        }
    })
}

/// The settings, from the table that makes the help.
fn config() -> Map<String, Value> {
    Args::command()
        .get_arguments()
        .filter(|arg| !NO_SETTINGS.contains(&arg.get_id().as_str()))
        .filter_map(|arg| Some((arg.get_long()?.to_owned(), setting(arg))))
        .collect()
}

fn setting(arg: &Arg) -> Value {
    let kind = kind(arg);
    let default = arg.get_default_values().first();
    let default = default.map(|value| value.to_string_lossy());
    let default = match (kind, default) {
        ("boolean", _) => json!(false),
        // Counted flags.
        ("integer", None) if !arg.get_action().takes_values() => json!(0),
        (_, None) => Value::Null,
        ("string", Some(text)) => json!(text),
        // The numbers that clap printed are JSON.
        (_, Some(number)) => serde_json::from_str(&number).unwrap_or_default(),
    };
    let mut setting = json!({
        "type": kind,
        "description": arg.get_help().map(ToString::to_string),
        "default": default,
    });
    if let Some(name) = arg.get_env() {
        setting["env"] = json!(name.to_string_lossy());
    }
    if matches!(arg.get_action(), ArgAction::Append) {
        setting["multiple"] = json!(true);
    }
    let values = arg.get_possible_values();
    if kind == "string" && !values.is_empty() {
        let names = values.iter().map(|value| value.get_name());
        setting["enum"] = names.collect();
    }
    setting
}

/// The type of an argument's value, as JSON Schema names it.
fn kind(arg: &Arg) -> &'static str {
    let is = |id: TypeId| arg.get_value_parser().type_id() == id;
    match arg.get_action() {
        ArgAction::SetTrue => "boolean",
        ArgAction::Count => "integer",
        _ if is(TypeId::of::<u32>()) || is(TypeId::of::<u64>()) => "integer",
        _ if is(TypeId::of::<usize>()) => "integer",
        _ if is(TypeId::of::<f64>()) => "number",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_their_types_and_defaults() {
        let config = config();
        let of = |name: &str| {
            let setting = &config[name];
            (
                setting["type"].as_str().unwrap(),
                setting["default"].clone(),
            )
        };
        assert_eq!(of("task"), ("string", json!("text")));
        assert_eq!(of("model-path"), ("string", Value::Null));
        assert_eq!(of("max-tokens"), ("integer", Value::Null));
        assert_eq!(of("max-input-bytes"), ("integer", json!(50_000_000)));
        assert_eq!(of("max-pages"), ("integer", json!(1000)));
        assert_eq!(of("input"), ("string", Value::Null));
        assert_eq!(config["input"]["multiple"], true);
        assert_eq!(of("top-p"), ("number", json!(1)));
        assert_eq!(of("stats"), ("boolean", json!(false)));
        assert_eq!(of("verbose"), ("integer", json!(0)));
        assert_eq!(config["mode"]["enum"][4], "gundam");
        assert_eq!(config["model-path"]["env"], "MODEL_PATH");
        assert!(!config.contains_key("describe"));
    }
}
