//! What is looked at in tokenizer.json before the tokenizer's library reads it.
//!
//! That library panics on some files: on broken JSON in `decoder`, on a `Precompiled` normaliser
//! that is damaged, and on a prefix of subwords that is longer than a token. No model of this
//! family has the latter two. And it copies all that it reads several times, in ten times the
//! space: so there are bounds for what is many or long.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// The most tokens of a vocabulary. The full-size model's has 129 thousand.
const MOST_TOKENS: usize = 1 << 20;
/// The most merges; there is about one a token.
const MOST_MERGES: usize = 1 << 20;
/// The most values of every other part, texts by their length. They have about a hundred.
const MOST_VALUES: usize = 1 << 14;
/// Bytes of a text that count as a value.
const TEXT: usize = 16;

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    normalizer: Part,
    #[serde(default)]
    pre_tokenizer: Part,
    #[serde(default)]
    post_processor: Part,
    #[serde(default)]
    decoder: Part,
    #[serde(default)]
    truncation: Part,
    #[serde(default)]
    padding: Part,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    r#type: String,
    vocab: Vocabulary,
    merges: Merges,
    /// Chance would make another prompt each time.
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default, rename = "end_of_word_suffix")]
    _suffix: Part,
    #[serde(default, rename = "unk_token")]
    _unknown: Part,
    #[serde(default, rename = "fuse_unk")]
    _fuse: Part,
    #[serde(default, rename = "byte_fallback")]
    _fallback: Part,
    #[serde(default, rename = "ignore_merges")]
    _ignore: Part,
}

/// The largest number that tokenizer.json gives a token.
///
/// # Errors
/// What is wrong with it.
pub(super) fn largest_id(bytes: &[u8]) -> Result<u64, String> {
    let content: Content =
        serde_json::from_slice(bytes).map_err(|e| format!("no tokenizer: {e}"))?;
    let Model {
        r#type,
        vocab: Vocabulary(largest),
        merges: Merges,
        dropout,
        continuing_subword_prefix,
        ..
    } = content.model;
    let parts = [
        content.normalizer,
        content.pre_tokenizer,
        content.post_processor,
        content.decoder,
        content.truncation,
        content.padding,
    ];
    let refused = [
        (r#type != "BPE", "a tokenizer of another type than BPE"),
        (
            continuing_subword_prefix.is_some_and(|p| !p.is_empty()),
            "continuing_subword_prefix",
        ),
        (dropout.is_some_and(|share| share != 0.0), "dropout"),
        (
            parts.iter().any(|part| part.precompiled),
            "a Precompiled normalizer",
        ),
    ];
    if let Some((_, what)) = refused.into_iter().find(|(found, _)| *found) {
        return Err(format!("{what} is not supported"));
    }
    let added = content.added_tokens.iter().map(|token| token.id);
    Ok(added.fold(largest, u64::max))
}

/// A vocabulary, of which the largest number is kept.
struct Vocabulary(u64);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let (mut count, mut largest) = (0, 0);
                while let Some((Name, id)) = map.next_entry::<Name, u64>()? {
                    count += 1;
                    if count > MOST_TOKENS {
                        return Err(Error::custom(format!("more than {MOST_TOKENS} tokens")));
                    }
                    largest = largest.max(id);
                }
                Ok(Vocabulary(largest))
            }
        }
        deserializer.deserialize_map(Ids)
    }
}

/// A text that is not kept.
struct Name;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E>(self, _: &str) -> Result<Name, E> {
                Ok(Name)
            }
        }
        deserializer.deserialize_str(Any)
    }
}

/// A list of texts or of pairs of them.
struct Merges;

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Merges, A::Error> {
                let (mut count, mut values) = (0, 0);
                while let Some(merge) = items.next_element::<Part>()? {
                    count += 1;
                    values += merge.values;
                    // A pair is three values, and its texts may count, too.
                    if count > MOST_MERGES || values > 4 * MOST_MERGES {
                        return Err(Error::custom(format!("more than {MOST_MERGES} merges")));
                    }
                }
                Ok(Merges)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Any JSON value of few values. All of it is parsed, so that numbers that nothing can hold and
/// texts that are none are found.
#[derive(Default)]
struct Part {
    values: usize,
    precompiled: bool,
}

impl Part {
    fn add<E: Error>(&mut self, part: &Self) -> Result<(), E> {
        self.values += part.values;
        self.precompiled |= part.precompiled;
        if self.values > MOST_VALUES {
            return Err(E::custom("a part of more values than any has"));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self {
            values: 1,
            precompiled: false,
        })
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Self, E> {
        self.add(&Self {
            values: text.len() / TEXT,
            precompiled: text.contains("recompiled"),
        })?;
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self, A::Error> {
        while let Some(item) = items.next_element::<Self>()? {
            self.add(&item)?;
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, value)) = map.next_entry::<Self, Self>()? {
            self.add(&name)?;
            self.add(&value)?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn tiny() -> Value {
        let path = "../../fixtures/parity/tiny/tokenizer.json";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_largest_number_counts_wherever_it_is() {
        let mut tokenizer = tiny();
        let largest = |tokenizer: &Value| largest_id(tokenizer.to_string().as_bytes());
        assert_eq!(largest(&tokenizer), Ok(507));
        tokenizer["model"]["vocab"]["a"] = json!(1000);
        assert_eq!(largest(&tokenizer), Ok(1000));
        tokenizer["added_tokens"][0]["id"] = json!(u64::MAX);
        assert_eq!(largest(&tokenizer), Ok(u64::MAX));
    }

    #[test]
    fn what_the_library_cannot_bear_is_refused() {
        let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        let sequence = json!({"type": "Sequence", "normalizers": [precompiled]});
        for (pointer, value, wanted) in [
            ("/model/type", json!("Unigram"), "of another type than BPE"),
            ("/model/type", json!(7), "expected a string"),
            (
                "/model/vocab",
                json!([1, 2]),
                "expected tokens with their numbers",
            ),
            ("/model/vocab/a", json!(-1), "invalid value: integer `-1`"),
            (
                "/model/vocab/a",
                json!(1e300),
                "invalid type: floating point",
            ),
            ("/model/dropout", json!(0.5), "dropout is not supported"),
            (
                "/model/continuing_subword_prefix",
                json!("##"),
                "continuing_subword_prefix is not supported",
            ),
            ("/model/merges", json!("a b"), "expected a list of merges"),
            (
                "/model/byte_fallback",
                json!(vec![0; 20_000]),
                "more values than any has",
            ),
            (
                "/pre_tokenizer",
                json!(vec![0; 20_000]),
                "more values than any has",
            ),
            (
                "/pre_tokenizer",
                json!({"Regex": "a".repeat(1 << 20)}),
                "more values than any has",
            ),
            ("/normalizer", precompiled, "Precompiled normalizer is not"),
            ("/normalizer", sequence, "Precompiled normalizer is not"),
            ("/added_tokens", json!({}), "invalid type: map"),
            ("/model", json!(null), "invalid type: null"),
        ] {
            let mut tokenizer = tiny();
            *tokenizer.pointer_mut(pointer).unwrap() = value;
            let error = largest_id(tokenizer.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{pointer}: {error}");
        }
        let mut tokenizer = tiny();
        tokenizer["model"]["other"] = json!(1);
        let error = largest_id(tokenizer.to_string().as_bytes()).unwrap_err();
        assert!(error.contains("unknown field `other`"), "{error}");

        let text = tiny().to_string();
        // Broken inside `decoder`, which comes first here.
        for broken in [
            &text[..text.find("ByteLevel").unwrap()],
            &text.replacen("\"ByteLevel\"", "1e999", 1),
            &text.replacen("\"ByteLevel\"", "\"\\ud800\"", 1),
            "",
            "{}",
            "[[[[",
        ] {
            let error = largest_id(broken.as_bytes()).unwrap_err();
            assert!(error.starts_with("no tokenizer: "), "{error}");
        }
    }

    #[test]
    fn vocabularies_have_bounds() {
        let mut text = String::from(r#"{"model": {"type": "BPE", "merges": [], "vocab": {"#);
        for id in 0..=MOST_TOKENS {
            text += &format!("\"{id:x}\":{id},");
        }
        let cut = text.trim_end_matches(',').rfind(',').unwrap();
        let (most, more) = (text[..cut].to_owned() + "}}}", text + "\"\":0}}}");
        assert_eq!(largest_id(most.as_bytes()), Ok(MOST_TOKENS as u64 - 1));
        let error = largest_id(more.as_bytes()).unwrap_err();
        assert!(error.contains("more than 1048576 tokens"), "{error}");

        let merges = |count| {
            let list = "\"\",".repeat(count) + "\"\"";
            format!(r#"{{"model": {{"type": "BPE", "vocab": {{}}, "merges": [{list}]}}}}"#)
        };
        assert_eq!(largest_id(merges(MOST_MERGES - 1).as_bytes()), Ok(0));
        let error = largest_id(merges(MOST_MERGES).as_bytes()).unwrap_err();
        assert!(error.contains("more than 1048576 merges"), "{error}");
        let list = format!("[{}0],", "0,".repeat(9999)).repeat(500);
        let text =
            format!(r#"{{"model": {{"type": "BPE", "vocab": {{}}, "merges": [{list}""]}}}}"#);
        let error = largest_id(text.as_bytes()).unwrap_err();
        assert!(error.contains("more than 1048576 merges"), "{error}");
    }
}
