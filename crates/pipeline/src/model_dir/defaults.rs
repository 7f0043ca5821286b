//! What a model says of its own use: processor_config.json and generation_config.json.

use crate::{Repetition, Split};
use agx_ocr_backend::parse_json;
use agx_ocr_vision::views::{Fit, ViewMode};
use serde::{
    Deserialize,
    de::{DeserializeOwned, Error},
};
use std::num::NonZeroUsize;

/// Characters of a message about a file, which may quote all of it.
const SHOWN: usize = 200;

/// Tokens after which the vendor's code cuts an answer.
const VENDOR_MAX_TOKENS: usize = 8192;
/// The repetition guard of the vendor's scripts for single images.
const VENDOR_NGRAM: Repetition = Repetition::Ngram {
    size: 30,
    window: Some(90),
};

/// How a model wants to be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Defaults {
    pub view: ViewMode,
    pub split: Split,
    pub max_tokens: usize,
    pub repetition: Repetition,
}

/// `default_view` in processor_config.json.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultView {
    size: u32,
    fit: Fit,
    #[serde(default)]
    split: SplitName,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SplitName {
    #[default]
    None,
    Bands,
}

/// What counts in processor_config.json.
#[derive(Default, Deserialize)]
pub(crate) struct Processor {
    default_view: Option<DefaultView>,
}

/// What counts in generation_config.json; absent values are those of Hugging Face transformers.
#[derive(Deserialize)]
pub(crate) struct Generation {
    max_new_tokens: Option<NonZeroUsize>,
    #[serde(default)]
    no_repeat_ngram_size: usize,
}

/// Parses a configuration; an error is a short line, whatever names and texts the file has.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    parse_json(bytes).map_err(|error| {
        let message = error.to_string();
        match message.char_indices().nth(SHOWN) {
            Some((end, _)) => serde_json::Error::custom(format!("{}…", &message[..end])),
            None => error,
        }
    })
}

impl Defaults {
    pub(crate) fn new(processor: Processor, generation: Option<Generation>) -> Self {
        let (view, split) = match processor.default_view {
            None => (ViewMode::GUNDAM, Split::None),
            Some(DefaultView { size, fit, split }) => {
                let split = match split {
                    SplitName::None => Split::None,
                    SplitName::Bands => Split::Bands,
                };
                (ViewMode::Square { size, fit }, split)
            }
        };
        // A model that says nothing is the vendor's: its scripts' settings.
        let repetition = match generation.as_ref().map(|g| g.no_repeat_ngram_size) {
            None => VENDOR_NGRAM,
            Some(0) => Repetition::Off,
            Some(size) => Repetition::Ngram { size, window: None },
        };
        let max_tokens = generation
            .and_then(|g| g.max_new_tokens)
            .map_or(VENDOR_MAX_TOKENS, NonZeroUsize::get);
        Self {
            view,
            split,
            max_tokens,
            repetition,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn defaults(processor: Value, generation: Option<Value>) -> Defaults {
        let generation = generation.map(|g| serde_json::from_value(g).unwrap());
        Defaults::new(serde_json::from_value(processor).unwrap(), generation)
    }

    #[test]
    fn a_silent_model_gets_the_vendors_settings() {
        let found = defaults(json!({"image_token": "<image>"}), None);
        assert_eq!(found.view, ViewMode::GUNDAM);
        assert_eq!((found.split, found.max_tokens), (Split::None, 8192));
        assert_eq!(
            found.repetition,
            Repetition::Ngram {
                size: 30,
                window: Some(90)
            }
        );
    }

    #[test]
    fn a_models_own_settings_count() {
        let view = json!({"default_view": {"size": 640, "fit": "pad", "split": "bands"}});
        let found = defaults(
            view.clone(),
            Some(json!({"max_new_tokens": 1024, "do_sample": false})),
        );
        assert_eq!(
            found.view,
            ViewMode::Square {
                size: 640,
                fit: Fit::Pad
            }
        );
        assert_eq!((found.split, found.max_tokens), (Split::Bands, 1024));
        assert_eq!(found.repetition, Repetition::Off);
        let found = defaults(view, Some(json!({"no_repeat_ngram_size": 20})));
        assert_eq!(
            found.repetition,
            Repetition::Ngram {
                size: 20,
                window: None
            }
        );
    }

    #[test]
    fn a_misspelt_view_is_an_error() {
        let view = json!({"default_view": {"size": 640, "fit": "pad", "spilt": "bands"}});
        assert!(serde_json::from_value::<Processor>(view).is_err());
    }

    #[test]
    fn an_error_does_not_repeat_the_file() {
        let long = "é".repeat(1 << 16);
        for file in [
            json!({"default_view": {"size": 640, "fit": "pad", &long: 1}}),
            json!({"default_view": {"size": &long, "fit": "pad"}}),
        ] {
            let parsed = parse::<Processor>(file.to_string().as_bytes());
            let error = parsed.err().unwrap().to_string();
            assert!(
                error.contains("éé") && error.chars().count() < 220,
                "{error}"
            );
        }
        let twice = format!(r#"{{"{long}": 1, "{long}": 2}}"#);
        let error = parse::<Generation>(twice.as_bytes()).err().unwrap();
        assert!(error.to_string().chars().count() < 220, "{error}");
    }
}
