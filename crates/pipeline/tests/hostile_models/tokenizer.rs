//! Tokenizers.

use crate::{Model, load, words};
use agx_ocr_pipeline::{ErrorKind, Mode, ReadOptions, Task};
use image::RgbImage;
use serde_json::{Value, json};
use std::{fs, ops::ControlFlow};

fn refused(change: impl FnOnce(&mut Value), wanted: &str) {
    let model = Model::new();
    model.change("tokenizer.json", change);
    let error = model.refusal();
    assert!(
        error.contains(wanted) && error.contains("tokenizer"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_cut_is_named_wherever_it_is_cut() {
    let model = Model::new();
    let text = fs::read(model.file("tokenizer.json")).unwrap();
    for part in 0..100 {
        model.write("tokenizer.json", &text[..text.len() * part / 100]);
        let error = model.refusal();
        let start = format!(
            "model file {}: no tokenizer: ",
            model.file("tokenizer.json").display()
        );
        assert!(error.starts_with(&start), "{part}: {error}");
    }
}

#[test]
fn another_kind_of_tokenizer_is_refused() {
    refused(|t| *t = json!({}), "missing field `model`");
    refused(
        |t| t["model"]["type"] = json!("WordPiece"),
        "of another type than BPE is not",
    );
    refused(|t| t["decoder"] = json!(null), "decoder is not ByteLevel");
    refused(
        |t| t["model"]["merges"] = json!([["qq", "qq"]]),
        "invalid tokenizer.json",
    );
    refused(
        |t| t["pre_tokenizer"] = json!({"type": "Split"}),
        "invalid tokenizer.json",
    );
    let split = json!({
        "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false,
    });
    refused(|t| t["pre_tokenizer"] = split, "invalid tokenizer.json");
    let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    refused(
        |t| t["normalizer"] = charsmap,
        "a Precompiled normalizer is not supported",
    );
    refused(
        |t| t["model"]["continuing_subword_prefix"] = json!("####"),
        "continuing_subword_prefix is not supported",
    );
}

#[test]
fn tokens_that_every_prompt_needs_are_missed() {
    for token in [
        "<image>",
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
    ] {
        let lose = |tokenizer: &mut Value| {
            let added = tokenizer["added_tokens"].as_array_mut().unwrap();
            added.retain(|entry| entry["content"] != token);
            tokenizer["model"]["vocab"]
                .as_object_mut()
                .unwrap()
                .remove(token);
            tokenizer["post_processor"] = json!(null);
        };
        refused(lose, &format!("has no special token {token:?}"));
    }
}

#[test]
fn tokens_beyond_the_models_are_refused() {
    let beyond = |id: u64| {
        format!(
            "the model's files do not fit together: tokenizer.json has the token {id}, config.json a vocab_size of 512"
        )
    };
    refused(|t| t["model"]["vocab"]["a"] = json!(512), &beyond(512));
    refused(
        |t| t["model"]["vocab"]["a"] = json!(u32::MAX),
        &beyond(u32::MAX.into()),
    );
    refused(|t| t["added_tokens"][3]["id"] = json!(600), &beyond(600));
    refused(
        |t| t["model"]["vocab"]["a"] = json!(-1),
        "invalid value: integer `-1`",
    );
    refused(
        |t| t["model"]["vocab"]["a"] = json!(1_u64 << 40),
        "invalid tokenizer.json",
    );
}

/// A token that the vocabulary lacks gets a number of the library's.
#[test]
fn special_tokens_that_are_pushed_beyond_are_refused() {
    let model = Model::new();
    model.change("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        let place = added.iter().position(|t| t["content"] == "<image>");
        let image = added.remove(place.unwrap());
        for i in 0..20 {
            let mut token = image.clone();
            token["content"] = json!(format!("<|another {i}|>"));
            token["id"] = json!(3);
            added.push(token);
        }
        added.push(image);
    });
    let error = model.refusal();
    assert!(error.contains("config.json a vocab_size of 512"), "{error}");
}

/// Numbers that the file does not give, for the library counts where they do not fit.
#[test]
fn a_prompts_tokens_are_checked_too() {
    let model = Model::new();
    // Added tokens without a place in the vocabulary get the numbers behind it.
    model.change("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        for i in 0..20 {
            let mut token = added[3].clone();
            token["content"] = json!(format!("<|another {i}|>"));
            token["id"] = json!(3);
            added.push(token);
        }
    });
    let ocr = load(model.path()).unwrap();
    let mut options = ReadOptions::default();
    options.mode = Mode::Tiny;
    let image = RgbImage::new(100, 100);
    let task = Task::Prompt("<|another 19|>".into());
    let error = ocr
        .read_image(&image, &task, &options, |_| ControlFlow::Continue(()))
        .map(|page| page.text)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let wanted = "and the model knows 512: they do not belong together";
    assert!(words(&error).contains(wanted), "{}", words(&error));
}
