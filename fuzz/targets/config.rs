//! config.json: the sizes of both halves, and what they say a page costs.
#![no_main]

use agx_ocr_backend::parse_json;
use agx_ocr_fuzz::{json, made};
use agx_ocr_language::LanguageConfig;
use agx_ocr_vision::VisionConfig;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

static BASE: LazyLock<Value> = LazyLock::new(|| {
    let base = include_bytes!("../../fixtures/parity/tiny/config.json");
    serde_json::from_slice(base).expect("a fixture")
});

fuzz_target!(|data: &[u8]| {
    let Ok(config) = parse_json::<Value>(&made(json::of(data, &BASE, &[]))) else {
        return;
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
});

/// An error is a line that fits a terminal, whatever the file says.
fn sentence(error: impl std::error::Error) {
    let error = error.to_string();
    assert!(
        error.starts_with("config.json: ") && error.chars().count() < 400,
        "{error}"
    );
}
