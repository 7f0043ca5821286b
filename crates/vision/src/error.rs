/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong on the way from an image to vision tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json does not describe a vision encoder that can be built.
    #[error("config.json: {0}")]
    Config(String),
    /// A view's size is not one that the encoder takes.
    #[error(transparent)]
    View(#[from] crate::views::ViewError),
    /// A layer failed, or an observer stopped the work.
    #[error(transparent)]
    Backend(#[from] agx_ocr_backend::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Backend(error.into())
    }
}
