//! tokenizer.json, as a model's directory gives it: looked at, read, and used a little.
#![no_main]

use agx_ocr_fuzz::{json, made, only_own_panics};
use agx_ocr_text::{Special, Tokenizer};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::sync::LazyLock;

// The look that `agx-ocr-pipeline` takes before the tokenizer's library reads a file.
#[path = "../../crates/pipeline/src/model_dir/tokenizer.rs"]
#[allow(dead_code)]
mod look;

static BASE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_slice(include_bytes!("../seeds/tokenizer/small.json")).expect("a seed")
});

static PARTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let pattern = json!({"Regex": "\\p{N}{1,3}|(?=a)b*?"});
    vec![
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Split", "pattern": pattern, "behavior": "MergedWithNext", "invert": true}),
        json!({"type": "Split", "pattern": {"String": "a"}, "behavior": "Contiguous", "invert": false}),
        json!({"type": "Replace", "pattern": pattern, "content": "x"}),
        json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}),
        json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "BertPreTokenizer"}]}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 2, "strip_left": true, "strip_right": true}),
        json!({"type": "Prepend", "prepend": "x"}),
        json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
        json!({"type": "Metaspace", "replacement": "x", "prepend_scheme": "always", "split": true}),
        json!({"type": "Punctuation", "behavior": "Isolated"}),
        json!({"type": "Digits", "individual_digits": true}),
        json!({"type": "FixedLength", "length": 3}),
        json!({"type": "UnicodeScripts"}),
        json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
        json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": true}),
        json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
        json!({"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": true, "add_prefix_space": true}),
        json!({"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
        json!({"strategy": {"Fixed": 100}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 2, "pad_type_id": 0, "pad_token": "a"}),
        json!({"id": 9, "content": "ab", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true, "special": false}),
        json!("a b"),
        json!(["a", "b"]),
    ]
});

const TEXTS: [&str; 4] = [
    "",
    "ab 12 <image>\n",
    "\u{e9}\u{3042}\u{1f642} A\u{301}  ",
    "<|ref|>aaaaaaaaaaaaaaaaaaaaaaaaab",
];

fuzz_target!(|data: &[u8]| {
    only_own_panics();
    let bytes = made(json::of(data, &BASE, &PARTS));
    if let Err(reason) = look::largest_id(&bytes) {
        return assert!(!reason.is_empty());
    }
    let Ok(tokenizer) = Tokenizer::from_bytes(&bytes) else {
        return;
    };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text) {
            assert!(ids.len() < 10_000, "{} ids", ids.len());
            decode(&tokenizer, &ids);
        }
    }
    let special = *tokenizer.special();
    let mut ids: Vec<u32> = (0..64).collect();
    ids.extend([special.bos, special.eos, special.image, 100_000, u32::MAX]);
    decode(&tokenizer, &ids);
});

/// Spans and streams agree with plain decoding.
fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    let decoded = tokenizer.decode_spans(ids);
    assert_eq!(decoded.text, tokenizer.decode(ids, Special::Keep));
    assert!(decoded.ends.len() == ids.len() && decoded.ends.is_sorted());
    assert!(
        decoded
            .ends
            .iter()
            .all(|&end| decoded.text.is_char_boundary(end))
    );
    let mut start = 0;
    for (i, &end) in decoded.ends.iter().enumerate() {
        // Bytes of a character belong to the last of its ids.
        assert!(start == end || decoded.ids_of(start..end).contains(&i));
        start = end;
    }
    for special in [Special::Keep, Special::Skip] {
        let mut stream = tokenizer.stream(special);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.extend(stream.finish());
        assert_eq!(text, tokenizer.decode(ids, special));
    }
}
