use crate::input::InputError;
use std::{io, path::PathBuf, time::Duration};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a model's directory and a page's text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing at the model's path.
    #[error("model not found: {} is not a directory or .safetensors file that is there", .0.display())]
    ModelNotFound(PathBuf),
    /// A file of the model is missing or cannot be read.
    #[error("model file {} cannot be read", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the model is not the JSON that it should be.
    #[error("model file {} is not valid", path.display())]
    ModelJson {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The parts of the model do not belong together.
    #[error("the model's files do not fit together: {0}")]
    ModelParts(String),
    /// A setting in a file of the model has a value that it cannot have.
    #[error("model file {}: {reason}", path.display())]
    ModelSetting {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model computed something that is not a number: its weights are damaged.
    #[error(
        "the model computed something that is not a number in {0}: its weights are damaged, \
         fetch its files again"
    )]
    Damaged(String),
    /// The system has less memory than the model needs.
    #[error(
        "the model needs {} of memory (weights {}, an answer of the most tokens {}) and {} are \
         available: close other programs or raise the container's limit; fewer tokens or smaller \
         views need less",
        gigabytes(*needed),
        gigabytes(*weights),
        gigabytes(*cache),
        gigabytes(*available)
    )]
    Memory {
        /// Bytes that loading the model and reading one page at a time take at most.
        needed: u64,
        /// Bytes that the system says to have.
        available: u64,
        /// The weights' part of what is needed.
        weights: u64,
        /// The part of the keys and values for the largest prompt and the longest answer.
        cache: u64,
    },
    /// The input is no image that can be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The time for the page was over before any of its text was read.
    #[error("the time of {} s was over before anything was read: allow more", .0.as_secs_f64())]
    Timeout(Duration),
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Options(String),
    /// The vision half failed.
    #[error("reading the image failed")]
    Vision(#[source] agx_ocr_vision::Error),
    /// The language half failed.
    #[error("writing the text failed")]
    Language(#[source] agx_ocr_language::Error),
    /// The tokenizer or the prompt failed.
    #[error(transparent)]
    Text(#[from] agx_ocr_text::Error),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Backend(#[from] agx_ocr_backend::Error),
    /// The threads cannot be started.
    #[error("cannot start the threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Bytes for people, with one digit behind the point, more where that would be none.
fn gigabytes(bytes: u64) -> String {
    let gigabytes = bytes as f64 / 1e9;
    if gigabytes < 0.1 {
        format!("{gigabytes:.3} GB")
    } else {
        format!("{gigabytes:.1} GB")
    }
}

/// Whose fault an error is: what an exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The image, the options or the model's files: the caller can mend it.
    Invalid,
    /// Processing failed: memory, a device, or a defect.
    Failed,
}

impl Error {
    /// Whose fault the error is.
    pub fn kind(&self) -> ErrorKind {
        use agx_ocr_backend::Error as Backend;
        use agx_ocr_language::Error as Language;
        use agx_ocr_vision::Error as Vision;
        let failed = match self {
            Self::Threads(_) | Self::Timeout(_) | Self::Memory { .. } => true,
            // A file that cannot be mapped for want of room is no file that is wrong.
            Self::Backend(Backend::Open { source, .. }) | Self::ModelFile { source, .. } => {
                source.kind() == io::ErrorKind::OutOfMemory
            }
            Self::Backend(error) => matches!(
                error,
                Backend::Tensor(_)
                    | Backend::Stopped(_)
                    | Backend::CacheMemory { .. }
                    | Backend::DeviceMemory(_)
                    | Backend::DeviceLost(_)
            ),
            Self::Vision(error) => !matches!(error, Vision::Config(_) | Vision::View(_)),
            Self::Language(error) => !matches!(
                error,
                Language::Config(_)
                    | Language::Options(_)
                    | Language::PromptTooLong { .. }
                    | Language::NotFinite(_)
            ),
            _ => false,
        };
        if failed {
            ErrorKind::Failed
        } else {
            ErrorKind::Invalid
        }
    }
}

impl From<agx_ocr_vision::Error> for Error {
    fn from(error: agx_ocr_vision::Error) -> Self {
        match error {
            agx_ocr_vision::Error::Backend(error) => Self::Backend(error),
            error => Self::Vision(error),
        }
    }
}

impl From<agx_ocr_vision::views::ViewError> for Error {
    fn from(error: agx_ocr_vision::views::ViewError) -> Self {
        Self::Vision(error.into())
    }
}

impl From<agx_ocr_language::Error> for Error {
    fn from(error: agx_ocr_language::Error) -> Self {
        match error {
            agx_ocr_language::Error::Backend(error) => Self::Backend(error),
            error => Self::Language(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_room_for_it_is_not_the_callers_fault() {
        let kind = |source: io::ErrorKind| {
            let (path, source) = (PathBuf::new(), io::Error::from(source));
            Error::Backend(agx_ocr_backend::Error::Open { path, source }).kind()
        };
        assert_eq!(kind(io::ErrorKind::OutOfMemory), ErrorKind::Failed);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), ErrorKind::Invalid);
    }
}
