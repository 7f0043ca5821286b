//! The files of a model: config.json, tokenizer.json, its own settings, and the weights.

mod defaults;
mod tokenizer;

pub(crate) use defaults::Defaults;

use crate::{Error, Result};
use agx_ocr_backend::{Error as BackendError, ModelFiles};
use agx_ocr_language::{Error as LanguageError, LanguageConfig};
use agx_ocr_text::Tokenizer;
use agx_ocr_vision::{Error as VisionError, VisionConfig};
use defaults::{Generation, Processor};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const PROCESSOR: &str = "processor_config.json";
const GENERATION: &str = "generation_config.json";

/// The most bytes of a configuration. They take a few thousand.
const LARGEST_CONFIG: u64 = 1 << 20;
/// The most bytes of tokenizer.json. The full-size model's takes 10 MB.
const LARGEST_TOKENIZER: u64 = 32 << 20;

/// A model's files, found and parsed.
#[derive(Clone, Debug)]
pub(crate) struct ModelDir {
    files: ModelFiles,
    /// Where the weights are: the directory, or one file in it.
    pub weights: PathBuf,
    /// The content of tokenizer.json.
    pub tokenizer: Vec<u8>,
    /// The largest number of a token in it.
    largest_token: u64,
    config: Value,
    pub name: String,
    pub defaults: Defaults,
}

impl ModelDir {
    /// Finds the model at `path`: its directory, or its weights in one file with the other files
    /// beside it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let files = files(path)?;
        let config: Value = match optional(&files, CONFIG)? {
            Some(config) => config,
            None => return Err(missing(&files, CONFIG)),
        };
        let Some(tokenizer) = files.read(TOKENIZER, LARGEST_TOKENIZER)? else {
            return Err(missing(&files, TOKENIZER));
        };
        let largest_token = tokenizer::largest_id(&tokenizer)
            .map_err(|reason| setting(&files, TOKENIZER, reason))?;
        let processor: Option<Processor> = optional(&files, PROCESSOR)?;
        let generation: Option<Generation> = optional(&files, GENERATION)?;
        let defaults = Defaults::new(processor.unwrap_or_default(), generation);
        if let Err(error) = defaults.view.check() {
            return Err(setting(&files, PROCESSOR, format!("default_view: {error}")));
        }
        Ok(Self {
            weights: path.to_owned(),
            tokenizer,
            largest_token,
            name: name(&config, files.dir()),
            config,
            defaults,
            files,
        })
    }

    /// The sizes of both halves, which fit each other and the tokenizer.
    pub(crate) fn sizes(&self, tokenizer: &Tokenizer) -> Result<(VisionConfig, LanguageConfig)> {
        let wrong = |reason| setting(&self.files, CONFIG, reason);
        let vision = VisionConfig::from_json(&self.config).map_err(|error| match error {
            VisionError::Config(reason) => wrong(reason),
            error => error.into(),
        })?;
        let language = LanguageConfig::from_json(&self.config).map_err(|error| match error {
            LanguageError::Config(reason) => wrong(reason),
            error => error.into(),
        })?;
        let (from, to) = (vision.hidden_size, language.hidden_size);
        if from != to {
            let reason = format!("vision tokens of {from} values for a decoder of {to}");
            return Err(Error::ModelParts(reason));
        }
        // The library counts for itself where the file's numbers do not fit.
        let special = tokenizer.special();
        let special = special.bos.max(special.eos).max(special.image);
        let largest = self.largest_token.max(special.into());
        let vocabulary = language.vocab_size;
        if largest >= vocabulary as u64 {
            let reason = format!(
                "tokenizer.json has the token {largest}, config.json a vocab_size of {vocabulary}"
            );
            return Err(Error::ModelParts(reason));
        }
        Ok((vision, language))
    }
}

/// The files of the model at `path`, which may be a link.
fn files(path: &Path) -> Result<ModelFiles> {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(source) if path.is_symlink() => {
            return Err(Error::Backend(BackendError::BrokenLink {
                target: fs::read_link(path).unwrap_or_default(),
                link: path.to_owned(),
                source,
            }));
        }
        Err(source) => {
            let path = path.to_owned();
            return Err(match source.kind() {
                // Nothing can be there, below a file or under such a name.
                NotFound | NotADirectory | InvalidFilename => Error::ModelNotFound(path),
                _ => Error::ModelFile { path, source },
            });
        }
    };
    if real.is_dir() {
        return Ok(ModelFiles::new(path)?);
    }
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::ModelNotFound(path.to_owned()));
    }
    // The other files are beside the link, as in a download cache, or beside what it leads to.
    let beside = path.parent().filter(|dir| *dir != Path::new(""));
    let files = ModelFiles::new(beside.unwrap_or(Path::new(".")))?;
    match real.parent() {
        Some(dir) if files.find(CONFIG)?.is_none() => Ok(ModelFiles::new(dir)?),
        _ => Ok(files),
    }
}

/// The name that config.json gives the model, else that of its directory.
fn name(config: &Value, dir: &Path) -> String {
    let given = config
        .get("_name_or_path")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let of_dir = || {
        // `.` has no name of its own.
        let real = fs::canonicalize(dir).ok();
        let name = dir.file_name().or_else(|| real.as_ref()?.file_name());
        name.map(|name| name.to_string_lossy().into_owned())
    };
    given.map(str::to_owned).or_else(of_dir).unwrap_or_default()
}

fn setting(files: &ModelFiles, name: &str, reason: String) -> Error {
    Error::ModelSetting {
        path: files.dir().join(name),
        reason,
    }
}

fn missing(files: &ModelFiles, name: &str) -> Error {
    Error::ModelFile {
        path: files.dir().join(name),
        source: io::ErrorKind::NotFound.into(),
    }
}

/// The settings in a file that a model may lack.
fn optional<T: DeserializeOwned>(files: &ModelFiles, name: &str) -> Result<Option<T>> {
    let Some(bytes) = files.read(name, LARGEST_CONFIG)? else {
        return Ok(None);
    };
    defaults::parse(&bytes)
        .map(Some)
        .map_err(|source| Error::ModelJson {
            path: files.dir().join(name),
            source,
        })
}
