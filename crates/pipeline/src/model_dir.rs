//! The files of a model: config.json, tokenizer.json, its own settings, and the weights.

use crate::{Error, Repetition, Result, Split};
use agx_ocr_vision::views::{Fit, ViewMode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Tokens after which the vendor's code cuts an answer.
const VENDOR_MAX_TOKENS: usize = 8192;
/// The repetition guard of the vendor's scripts for single images.
const VENDOR_NGRAM: Repetition = Repetition::Ngram {
    size: 30,
    window: Some(90),
};

/// A model's files, found and parsed.
#[derive(Clone, Debug)]
pub(crate) struct ModelDir {
    /// Where the weights are: the directory, or one file in it.
    pub weights: PathBuf,
    pub tokenizer: PathBuf,
    pub config: Value,
    pub name: String,
    pub defaults: Defaults,
}

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

#[derive(Default, Deserialize)]
struct Processor {
    default_view: Option<DefaultView>,
}

/// What counts in generation_config.json; absent values are those of Hugging Face transformers.
#[derive(Deserialize)]
struct Generation {
    max_new_tokens: Option<usize>,
    #[serde(default)]
    no_repeat_ngram_size: usize,
}

impl ModelDir {
    /// Finds the model at `path`: its directory, or its weights in one file with the other files
    /// beside it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let dir = if path.is_dir() {
            path
        } else if path.is_file() && path.extension().is_some_and(|e| e == "safetensors") {
            path.parent().unwrap_or(Path::new("."))
        } else {
            return Err(Error::ModelNotFound(path.to_owned()));
        };
        let config_path = dir.join("config.json");
        let config: Value = parse(&config_path, &read(&config_path)?)?;
        let tokenizer = dir.join("tokenizer.json");
        if !tokenizer.is_file() {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::ModelFile {
                path: tokenizer,
                source,
            });
        }
        let processor: Option<Processor> = optional(&dir.join("processor_config.json"))?;
        let generation: Option<Generation> = optional(&dir.join("generation_config.json"))?;
        Ok(Self {
            weights: path.to_owned(),
            tokenizer,
            name: name(&config, dir),
            config,
            defaults: Defaults::new(processor.unwrap_or_default(), generation),
        })
    }
}

impl Defaults {
    fn new(processor: Processor, generation: Option<Generation>) -> Self {
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
            .unwrap_or(VENDOR_MAX_TOKENS);
        Self {
            view,
            split,
            max_tokens,
            repetition,
        }
    }
}

/// The name that config.json gives the model, else that of its directory.
fn name(config: &Value, dir: &Path) -> String {
    let given = config
        .get("_name_or_path")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let of_dir = || {
        dir.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    given.map(str::to_owned).or_else(of_dir).unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::ModelFile {
        path: path.to_owned(),
        source,
    })
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::ModelJson {
        path: path.to_owned(),
        source,
    })
}

/// The settings in a file that a model may lack.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.exists() {
        parse(path, &read(path)?).map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
