//! Encoding and decoding with the three checkpoints' tokenizers.

mod common;

use agx_ocr_text::{Error, Special, Tokenizer};
use common::{fixture, ids, json, mini, shared, tiny};

/// Every id that a head may produce, with and without a token, in an order that mixes them.
fn scrambled(vocabulary: u32) -> Vec<u32> {
    (0..4 * vocabulary).map(|i| i * 7919 % vocabulary).collect()
}

#[test]
fn real_tokenizer_agrees_with_the_reference() {
    let test = "real_tokenizer_agrees_with_the_reference";
    let (Some(model), Some(vectors)) = (
        shared(test, "reference/tokenizer.json"),
        shared(test, "reference/tokenizer_vectors.json"),
    ) else {
        return;
    };
    let tokenizer = Tokenizer::from_file(&model).unwrap();
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.image), (0, 1, 128_815));
    assert_eq!(
        (special.pad, special.td, special.td_end),
        (Some(2), Some(128_821), Some(128_822))
    );
    assert_eq!(tokenizer.token_id("<|grounding|>"), Some(128_820));
    assert_eq!(tokenizer.token_id("<table>"), None);

    let vectors = json(&vectors);
    for case in vectors.as_array().unwrap() {
        let expected = ids(&case["ids"]);
        if let Some(text) = case["text"].as_str() {
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
            let mut with_bos = vec![special.bos];
            with_bos.extend(&expected);
            assert_eq!(with_bos, ids(&case["ids_with_bos"]));
        }
        let kept = tokenizer.decode(&expected, Special::Keep);
        assert_eq!(kept, case["decode"].as_str().unwrap());
        if let Some(skipped) = case["decode_skip_special"].as_str() {
            assert_eq!(tokenizer.decode(&expected, Special::Skip), skipped);
        }
        assert_laws(&tokenizer, &expected);
    }
    assert_laws(&tokenizer, &scrambled(129_280)[..50_000]);
}

#[test]
fn small_tokenizers_find_their_own_special_ids() {
    let tiny = tiny();
    assert_eq!(tiny.special().image, 496);
    assert_eq!(
        (tiny.special().td, tiny.special().td_end),
        (Some(502), Some(503))
    );
    let mini = mini();
    assert_eq!(mini.special().image, 272);
    assert_eq!((mini.special().bos, mini.special().eos), (0, 1));
    assert_eq!(
        mini.encode("a<image>b<td>").unwrap(),
        [
            mini.token_id("a").unwrap(),
            272,
            mini.token_id("b").unwrap(),
            278
        ]
    );
}

#[test]
fn ids_without_a_token_decode_to_nothing() {
    let tiny = tiny();
    let mut ids = tiny.encode("ab").unwrap();
    ids.extend([507, 508, 511, 100_000, u32::MAX]);
    ids.extend(tiny.encode("c").unwrap());
    assert_eq!(tiny.decode(&ids, Special::Keep), "ab<|Assistant|>c");
    assert_eq!(tiny.decode(&ids, Special::Skip), "abc");
    assert_laws(&tiny, &ids);
}

#[test]
fn any_ids_decode_alike_in_every_way() {
    assert_laws(&mini(), &scrambled(288));
    assert_laws(&tiny(), &scrambled(512));
    assert_laws(&mini(), &[]);
}

#[test]
fn decoding_undoes_encoding() {
    for tokenizer in [mini(), tiny()] {
        for text in [
            "",
            " a  b\n\n",
            "€ £ ° é",
            "日本語 👨‍👩‍👧 🙂",
            "<td>1</td>",
            "[[1, 2]]\r\n\t\0",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, Special::Keep), text);
        }
    }
}

#[test]
fn a_character_over_several_tokens() {
    let mini = mini();
    // The three bytes of € as byte-level tokens.
    let bytes: Vec<u32> = ["â", "Ĥ", "¬"]
        .iter()
        .map(|t| mini.token_id(t).unwrap())
        .collect();
    let whole = mini.encode("€").unwrap();
    assert_eq!(whole.len(), 1);
    let x = mini.token_id("x").unwrap();
    let ids = [
        x, bytes[0], bytes[1], bytes[2], whole[0], bytes[0], bytes[1], x,
    ];

    let decoded = mini.decode_spans(&ids);
    assert_eq!(decoded.text, "x€€\u{fffd}x");
    assert_eq!(decoded.ends, [1, 1, 1, 4, 7, 7, 10, 11]);
    assert_eq!(decoded.ids_of(1..4), 1..4);

    let mut stream = mini.stream(Special::Keep);
    let pieces: Vec<_> = ids.iter().map(|&id| stream.push(id)).collect();
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(
        pieces,
        [
            text("x"),
            None,
            None,
            text("€"),
            text("€"),
            None,
            None,
            text("\u{fffd}x")
        ]
    );
    assert_eq!(stream.finish(), None);

    let mut stream = mini.stream(Special::Keep);
    assert_eq!(stream.push(bytes[0]), None);
    assert_eq!(stream.finish(), text("\u{fffd}"));
}

#[test]
fn files_that_are_no_tokenizer() {
    let missing = Tokenizer::from_file(&fixture("no-such-tokenizer.json"));
    assert!(matches!(missing, Err(Error::ReadTokenizer { path, .. })
        if path.ends_with("no-such-tokenizer.json")));
    for bytes in [&b""[..], b"{}", b"\xff\xfe", b"[1, 2"] {
        assert!(matches!(
            Tokenizer::from_bytes(bytes),
            Err(Error::ParseTokenizer { .. })
        ));
    }
}

#[test]
fn tokenizers_of_another_family() {
    let mut file = json(&fixture("models/agx-ocr-mini/tokenizer.json"));
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens.retain(|token| token["content"] != "<image>");
    let without_image = Tokenizer::from_bytes(file.to_string().as_bytes());
    assert!(matches!(
        without_image,
        Err(Error::MissingToken { token: "<image>" })
    ));
    file["decoder"] = serde_json::Value::Null;
    let without_decoder = Tokenizer::from_bytes(file.to_string().as_bytes());
    assert!(matches!(without_decoder, Err(Error::NotByteLevel)));
}

#[test]
fn truncation_in_the_file_is_ignored() {
    let mut file = json(&fixture("models/agx-ocr-mini/tokenizer.json"));
    file["truncation"] = serde_json::json!({
        "max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"
    });
    let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("abcdef").unwrap().len(), 6);
}

/// What must hold for any ids: spans and streams agree with plain decoding.
fn assert_laws(tokenizer: &Tokenizer, ids: &[u32]) {
    let decoded = tokenizer.decode_spans(ids);
    assert_eq!(decoded.text, tokenizer.decode(ids, Special::Keep));
    assert_eq!(decoded.ends.len(), ids.len());
    assert!(decoded.ends.is_sorted());
    assert!(
        decoded
            .ends
            .iter()
            .all(|&end| decoded.text.is_char_boundary(end))
    );
    assert_eq!(
        decoded.ends.last().copied().unwrap_or(0),
        decoded.text.len()
    );
    assert_eq!(decoded.ids_of(0..decoded.text.len().max(1)), 0..ids.len());

    for special in [Special::Keep, Special::Skip] {
        let mut stream = tokenizer.stream(special);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.extend(stream.finish());
        assert_eq!(text, tokenizer.decode(ids, special));
    }
}
