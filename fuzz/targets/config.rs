//! config.json: the sizes of both halves, and what they say a page costs. By the first byte
//! processor_config.json or generation_config.json: how a model wants to be used.
#![no_main]

use agx_ocr_fuzz::{json, made};
use agx_ocr_language::LanguageConfig;
use agx_ocr_pipeline::{Repetition, Split};
use agx_ocr_vision::{VisionConfig, views};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

// How `agx-ocr-pipeline` reads them.
#[path = "../../crates/pipeline/src/model_dir/defaults.rs"]
#[allow(dead_code)]
mod defaults;
use defaults::{Defaults, Generation, Processor};

/// First bytes of what is not config.json; no JSON begins with them, nor does a list of changes.
const PROCESSOR: u8 = 0xFE;
const GENERATION: u8 = 0xFD;

static BASE: LazyLock<Value> = LazyLock::new(|| {
    let base = include_bytes!("../../fixtures/parity/tiny/config.json");
    serde_json::from_slice(base).expect("a fixture")
});

static PROCESSOR_BASE: LazyLock<Value> = LazyLock::new(|| {
    let base = include_bytes!("../../fixtures/models/agx-ocr-mini/processor_config.json");
    serde_json::from_slice(base).expect("a fixture")
});

static GENERATION_BASE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::json!({"max_new_tokens": 1024, "no_repeat_ngram_size": 30, "do_sample": false})
});

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((&PROCESSOR, data)) => {
            match defaults::parse(&made(json::of(data, &PROCESSOR_BASE, &[]))) {
                Ok(processor) => usable(processor, None),
                Err(error) => line(&error),
            }
        }
        Some((&GENERATION, data)) => {
            match defaults::parse(&made(json::of(data, &GENERATION_BASE, &[]))) {
                Ok(generation) => usable(Processor::default(), Some(generation)),
                Err(error) => line(&error),
            }
        }
        _ => sizes(&made(json::of(data, &BASE, &[]))),
    }
});

/// Settings that pass have bounds, whatever a page is like.
fn usable(processor: Processor, generation: Option<Generation>) {
    let defaults = Defaults::new(processor, generation);
    assert!(defaults.max_tokens > 0 && defaults.split != Split::Auto);
    match defaults.repetition {
        Repetition::Off => {}
        Repetition::Ngram { size, window } => assert!(size > 0 && window != Some(0)),
        other => panic!("{other:?}"),
    }
    match defaults.view.check() {
        Ok(()) => {
            let most = [(1, 1), (1, 30_000), (30_000, 30_000)];
            let count = |(width, height)| views::count(width, height, &defaults.view);
            assert!(most.map(count).iter().all(|count| (1..100).contains(count)));
        }
        Err(error) => line(&error),
    }
}

fn sizes(file: &[u8]) {
    let config = match defaults::parse::<Value>(file) {
        Ok(config) => config,
        Err(error) => return line(&error),
    };
    match VisionConfig::from_json(&config) {
        Ok(vision) => {
            let costs = [0, 63, 64, 1024, 8192, u32::MAX].map(|side| vision.multiply_adds(side));
            assert!(costs.is_sorted(), "{costs:?}");
        }
        Err(error) => sentence(error),
    }
    match LanguageConfig::from_json(&config) {
        Ok(language) => {
            assert!(language.head_dim() > 0);
            let positions = [0, 1, language.max_position_embeddings, 1 << 20, usize::MAX];
            let prefill = positions.map(|n| language.prefill_multiply_adds(n));
            let decode = positions.map(|n| language.decode_bytes(n));
            assert!(decode.is_sorted() && decode[0] > 0, "{decode:?}");
            assert!(prefill.is_sorted() && prefill[1] > 0, "{prefill:?}");
        }
        Err(error) => sentence(error),
    }
}

fn sentence(error: impl std::error::Error) {
    line(&error);
    let error = error.to_string();
    assert!(error.starts_with("config.json: "), "{error}");
}

/// An error is a line that fits a terminal, whatever the file says.
fn line(error: &dyn std::error::Error) {
    let error = error.to_string();
    assert!((1..400).contains(&error.chars().count()), "{error}");
}
