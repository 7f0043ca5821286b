use std::{
    fmt, io,
    path::{Path, PathBuf},
};

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
    #[error("{} is not a valid safetensors file: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else than a regular file has the name of one.
    #[error("{} is {what}, and a file is wanted", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// What it is, as in `a directory`.
        what: &'static str,
    },
    /// A file is larger than any of its kind.
    #[error("{} is {size} bytes long, and at most {most} are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// The most that are read.
        most: u64,
    },
    /// A symbolic link leads nowhere, or in a circle.
    #[error("{} is a link to {}, which cannot be followed", link.display(), target.display())]
    BrokenLink {
        /// The link.
        link: PathBuf,
        /// Where it points.
        target: PathBuf,
        /// Why it cannot be followed.
        source: io::Error,
    },
    /// A file of a model is a symbolic link to a place outside of the model's directory.
    #[error(
        "{} is a link to {}, outside of the model's directory: put the file itself in its place, \
         if you trust it",
        link.display(),
        target.display()
    )]
    OutsideLink {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// `model.safetensors.index.json` cannot be used.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GPU was asked for and cannot be used.
    #[error("no GPU can be used")]
    Gpu(#[from] crate::NoGpu),
    /// A directory holds no weights.
    #[error("{} holds no *.safetensors file", .0.display())]
    NoWeights(PathBuf),
    /// The checkpoint's tensors are not those of the model that config.json describes.
    #[error("the checkpoint does not fit its config.json: {0}")]
    Mismatch(Mismatch),
    /// The prompt has a token that the embedding does not know.
    #[error(
        "the tokenizer gives token {id}, and the model knows {count}: they do not belong together"
    )]
    Token {
        /// The token.
        id: u32,
        /// Rows of the embedding.
        count: usize,
    },
    /// Memory for keys and values cannot be had.
    #[error("no memory for the keys and values of {positions} positions: lower the most tokens")]
    CacheMemory {
        /// Positions that there was to be room for.
        positions: usize,
    },
    /// A GPU has too little memory left.
    #[error(
        "the GPU has too little memory left: read fewer pages at a time, lower the most tokens, or \
         end what else runs there"
    )]
    DeviceMemory(#[source] candle_core::Error),
    /// A GPU failed, and gives no more results to this process.
    #[error("the GPU failed, and is lost to this process: start again, or compute on the CPU")]
    DeviceLost(#[source] candle_core::Error),
    /// A tensor operation failed, for example for want of memory.
    #[error("a tensor operation failed")]
    Tensor(#[source] candle_core::Error),
    /// An observer asked to stop.
    #[error("stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// Whether a GPU has too little memory left for it.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::DeviceMemory(_))
    }

    pub(crate) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open {
            path: path.to_owned(),
            source,
        }
    }
}

/// What drivers and libraries say when a GPU's memory is full.
const MEMORY: [&str; 2] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];
/// What drivers say when a context is of no more use.
const LOST: [&str; 13] = [
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_UNKNOWN",
];

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // The driver's code lies behind types that only builds for GPUs have.
        let said = format!("{error:?}");
        let names = |codes: &[&str]| codes.iter().any(|code| said.contains(code));
        match () {
            () if names(&MEMORY) => Self::DeviceMemory(error),
            () if names(&LOST) => Self::DeviceLost(error),
            () => Self::Tensor(error),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_codes_are_told_apart() {
        let of = |said: &str| Error::from(candle_core::Error::Msg(said.into()).bt());
        let full = of(r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#);
        assert!(full.is_out_of_memory());
        let lost = of(r#"DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access")"#);
        assert!(matches!(lost, Error::DeviceLost(_)));
        assert!(matches!(of("shapes do not fit"), Error::Tensor(_)));
    }
}
