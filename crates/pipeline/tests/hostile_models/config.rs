//! Configurations.

use crate::{LONG, Model};
use agx_ocr_pipeline::{FinishReason, Mode, Ocr, Options, ReadOptions, Task};
use image::RgbImage;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    ops::ControlFlow,
    path::Path,
    process::Command,
    time::Instant,
};

const FILES: [&str; 3] = [
    "config.json",
    "processor_config.json",
    "generation_config.json",
];

#[test]
fn absurd_sizes_are_named() {
    const SAM: &str = "/vision_config/width/sam_vit_b";
    let model = Model::new();
    let config = model.json("config.json");
    for (object, name, value, wanted) in [
        (
            "",
            "num_hidden_layers",
            json!(1_000_000),
            "num_hidden_layers is 1000000, not",
        ),
        ("", "hidden_size", json!(-64), "hidden_size is -64, not"),
        (
            "",
            "vocab_size",
            json!(1_u64 << 63),
            "vocab_size is 9223372036854775808, not",
        ),
        (
            "",
            "intermediate_size",
            json!(1e300),
            "intermediate_size is 1e+300, not",
        ),
        (
            "",
            "max_position_embeddings",
            json!(u64::MAX),
            "max_position_embeddings is 18446",
        ),
        (
            "",
            "n_routed_experts",
            json!("8"),
            "n_routed_experts is \"8\", not",
        ),
        (
            "",
            "rope_theta",
            json!(0),
            "rope_theta is 0, not a number from",
        ),
        (
            "",
            "rms_norm_eps",
            json!(-1),
            "rms_norm_eps is -1, not a number from",
        ),
        (
            "",
            "vision_config",
            json!([]),
            "vision_config is a list of 0, not an object",
        ),
        (
            SAM,
            "layers",
            json!(1_000_000),
            "vision_config.width.sam_vit_b.layers is 1000000",
        ),
        (
            "/projector_config",
            "n_embed",
            json!(0),
            "projector_config.n_embed is 0, not",
        ),
    ] {
        let mut spoilt = config.clone();
        spoilt.pointer_mut(object).unwrap()[name] = value;
        model.write("config.json", spoilt.to_string());
        let error = model.refusal();
        let start = format!("model file {}: ", model.file("config.json").display());
        assert!(
            error.starts_with(&start) && error.contains(wanted),
            "{error}"
        );
    }
    // NaN and infinity are no JSON, however they are written.
    for theta in ["NaN", "Infinity", "1e999", "-1e999"] {
        let text = config
            .to_string()
            .replacen('{', &format!("{{\"rope_theta\":{theta},"), 1);
        model.write("config.json", text);
        let error = model.refusal();
        let start = format!(
            "model file {} is not valid: ",
            model.file("config.json").display()
        );
        assert!(error.starts_with(&start), "{theta}: {error}");
    }
}

/// Sizes that are in bounds, each for itself, and that no file of these has.
#[test]
fn sizes_that_the_weights_do_not_have_are_found_quickly() {
    let model = Model::new();
    let config = model.json("config.json");
    for values in [
        json!({"num_hidden_layers": 1024, "n_routed_experts": 128}),
        json!({"hidden_size": 65536, "projector_config": {"input_dim": 160, "n_embed": 65536},
               "num_attention_heads": 1024, "num_key_value_heads": 1024,
               "intermediate_size": 1 << 20, "moe_intermediate_size": 1 << 20,
               "n_shared_experts": 256, "vocab_size": 1 << 22,
               "max_position_embeddings": 1 << 18}),
    ] {
        let mut spoilt = config.clone();
        for (name, value) in values.as_object().unwrap() {
            spoilt[name] = value.clone();
        }
        model.write("config.json", spoilt.to_string());
        let started = Instant::now();
        let error = model.refusal();
        assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
        let start = "the checkpoint does not fit its config.json: ";
        assert!(error.starts_with(start) && error.len() < 10_000, "{error}");
    }
    let mut spoilt = config;
    for layers in ["sam_vit_b", "clip-l-14-224"] {
        spoilt["vision_config"]["width"][layers]["layers"] = json!(512);
    }
    model.write("config.json", spoilt.to_string());
    let error = model.refusal();
    assert!(error.contains("and ") && error.contains(" more"), "{error}");
}

#[test]
fn what_is_no_json_is_named() {
    let nested = "{\"a\":".repeat(100_000);
    let lists = "[".repeat(100_000);
    for file in FILES {
        for (content, wanted) in [
            ("", "EOF while parsing a value at line 1"),
            ("config", "expected value at line 1 column 1"),
            ("{\"a\": 1", "EOF while parsing an object"),
            ("{} {}", "trailing characters"),
            (&nested, "recursion limit exceeded"),
            (&lists, "recursion limit exceeded"),
            ("{\"b\": 1, \"a\": 1, \"a\": 2}", "\"a\" is given twice"),
            ("{\"b\": {\"a\": 1, \"a\": 2}}", "\"a\" is given twice"),
        ] {
            let model = Model::new();
            model.write(file, content);
            let error = model.refusal();
            let start = format!("model file {} is not valid: ", model.file(file).display());
            assert!(
                error.starts_with(&start) && error.contains(wanted),
                "{error}"
            );
        }
        let model = Model::new();
        model.write(file, b"{\"a\": \"\xff\xfe\"}");
        assert!(model.refusal().contains("invalid unicode"), "{file}");
    }
    let model = Model::new();
    for config in ["[1]", "7", "null", "\"config\"", "{}"] {
        model.write("config.json", config);
        let path = model.file("config.json");
        let wanted = format!("model file {}: vision_config is missing", path.display());
        assert_eq!(model.refusal(), wanted, "{config}");
    }
}

#[test]
fn a_file_that_is_none_or_too_large_is_not_read() {
    for file in ["config.json", "tokenizer.json", "processor_config.json"] {
        let model = Model::new();
        let path = model.file(file);
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        let error = model.refusal();
        let start = format!("{} is 1073741824 bytes long, and at most ", path.display());
        assert!(error.starts_with(&start), "{error}");

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let wanted = format!("{} is a directory, and a file is wanted", path.display());
        assert_eq!(model.refusal(), wanted);

        fs::remove_dir(&path).unwrap();
        #[cfg(unix)]
        {
            // Nobody writes to it: reading would wait for ever.
            assert!(
                Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            );
            let wanted = format!("{} is a pipe, a socket or a device", path.display());
            assert!(model.refusal().starts_with(&wanted));
            fs::remove_file(&path).unwrap();
        }
    }
    for file in ["config.json", "tokenizer.json"] {
        let model = Model::new();
        fs::remove_file(model.file(file)).unwrap();
        let wanted = format!(
            "model file {} cannot be read: entity not found",
            model.file(file).display()
        );
        assert_eq!(model.refusal(), wanted);
    }
    let none = Model::new().file("nothing");
    let error = crate::refusal(&none);
    assert!(
        error.starts_with(&format!("model not found: {}", none.display())),
        "{error}"
    );
}

#[test]
fn settings_of_views_are_checked() {
    let model = Model::new();
    let path = model.file("processor_config.json");
    for (view, wanted) in [
        (
            json!({"size": 0, "fit": "pad"}),
            "default_view: a view of 0 pixels is not possible",
        ),
        (
            json!({"size": 1 << 30, "fit": "pad"}),
            "default_view: a view of 1073741824 pixels",
        ),
        (
            json!({"size": 1000, "fit": "pad"}),
            "choose a multiple of 64 from 64 to 2048",
        ),
        (
            json!({"size": 1_u64 << 63, "fit": "pad"}),
            "invalid value: integer `9223372036854775808`",
        ),
        (
            json!({"size": -640, "fit": "pad"}),
            "invalid value: integer `-640`, expected u32",
        ),
        (
            json!({"size": 640.5, "fit": "pad"}),
            "floating point `640.5`, expected u32",
        ),
        (
            json!({"size": "640", "fit": "pad"}),
            "invalid type: string \"640\"",
        ),
        (
            json!({"size": 640, "fit": "squash"}),
            "unknown variant `squash`",
        ),
        (json!([]), "invalid length 0"),
    ] {
        model.write(
            "processor_config.json",
            json!({"default_view": view}).to_string(),
        );
        let error = model.refusal();
        let start = format!("model file {}", path.display());
        assert!(
            error.starts_with(&start) && error.contains(wanted),
            "{error}"
        );
    }
}

fn generation(settings: Value) -> Model {
    let model = Model::new();
    model.write("generation_config.json", settings.to_string());
    model
}

#[test]
fn settings_of_answers_are_checked() {
    for (tokens, wanted) in [
        (
            json!(0),
            "invalid value: integer `0`, expected a nonzero usize",
        ),
        (json!(-1), "invalid value: integer `-1`"),
        (json!(1e300), "invalid type: floating point `1e+300`"),
        (json!(1e20), "invalid type: floating point"),
        (json!("many"), "invalid type: string \"many\""),
    ] {
        let model = generation(json!({"max_new_tokens": tokens}));
        let path = model.file("generation_config.json");
        let start = format!("model file {} is not valid: ", path.display());
        let error = model.refusal();
        assert!(
            error.starts_with(&start) && error.contains(wanted),
            "{error}"
        );
    }
    let error = generation(json!({"no_repeat_ngram_size": -1})).refusal();
    assert!(error.contains("invalid value: integer `-1`"), "{error}");
}

fn read(path: &Path, stop_after: usize) -> agx_ocr_pipeline::Page {
    let ocr = Ocr::load(path, Options::default()).unwrap();
    let mut options = ReadOptions::default();
    options.mode = Mode::Tiny;
    let image = RgbImage::from_fn(300, 200, |x, y| image::Rgb([(x * y) as u8; 3]));
    let mut count = 0;
    ocr.read_image(&image, &Task::Text, &options, |event| {
        count += usize::from(matches!(event, agx_ocr_pipeline::Event::Token { .. }));
        match count == stop_after {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .unwrap()
}

/// Keys and values are for the model's positions at most.
#[test]
fn an_answer_of_endless_length_costs_nothing_before_it_is_given() {
    for settings in [
        json!({"max_new_tokens": u64::MAX, "no_repeat_ngram_size": u64::MAX}),
        json!({"max_new_tokens": 1_u64 << 63, "no_repeat_ngram_size": 2}),
        json!({"max_new_tokens": null}),
    ] {
        let page = read(generation(settings).path(), 3);
        assert_eq!(page.tokens.generated, 3);
        assert_eq!(page.finish_reason, FinishReason::Cancelled);
    }
}

#[test]
fn other_names_in_a_configuration_are_nobodys_business() {
    let model = Model::new();
    model.change("config.json", |config| {
        config["made_up"] = json!({"deep": [1, {"a": null}], "huge": u64::MAX});
    });
    crate::load(model.path()).unwrap();
}
