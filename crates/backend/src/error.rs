use std::{fmt, io, path::PathBuf};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with checkpoints and layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the checkpoint cannot be opened or mapped.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not in the safetensors format.
    #[error("{} is not a valid safetensors file", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What its header breaks.
        source: safetensors::SafeTensorError,
    },
    /// `model.safetensors.index.json` cannot be used.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory holds no weights.
    #[error("{} holds no *.safetensors file", .0.display())]
    NoWeights(PathBuf),
    /// The checkpoint's tensors are not those of the model that config.json describes.
    #[error("the checkpoint does not fit its config.json: {0}")]
    Mismatch(Mismatch),
    /// A tensor operation failed, for example for want of memory.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// An observer asked to stop.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// All differences between the tensors that a model needs and those that a checkpoint has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names that the model needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Names that the checkpoint has and the model does not know.
    pub extra: Vec<String>,
    /// Tensors of another shape or type, each with what was found and what was wanted.
    pub wrong: Vec<String>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.wrong.is_empty()
    }
}

/// Names of one kind that a message lists; the rest is counted.
const LISTED: usize = 40;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("missing", &self.missing),
            ("not expected", &self.extra),
            ("wrong", &self.wrong),
        ];
        let mut first = true;
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let shown = names.len().min(LISTED);
            let separator = if first { "" } else { "; " };
            write!(
                f,
                "{separator}{} {kind}: {}",
                names.len(),
                names[..shown].join(", ")
            )?;
            if shown < names.len() {
                write!(f, " and {} more", names.len() - shown)?;
            }
            first = false;
        }
        Ok(())
    }
}
