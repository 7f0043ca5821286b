/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a prompt and its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json does not describe a decoder that this crate computes.
    #[error("config.json: {0}")]
    Config(String),
    /// A setting of the generation is out of range.
    #[error("{0}")]
    Options(String),
    /// The prompt leaves no room for an answer.
    #[error("a prompt of {prompt} tokens does not fit the model's {limit} positions")]
    PromptTooLong {
        /// Tokens of the prompt, those of the image among them.
        prompt: usize,
        /// Positions that the model knows.
        limit: usize,
    },
    /// The model computed something that is not a number: the weights are damaged.
    #[error("the model's logits are not finite at token {0}: are the weights damaged?")]
    NotFinite(usize),
    /// A layer failed, or an observer stopped the work.
    #[error(transparent)]
    Backend(#[from] agx_ocr_backend::Error),
}

impl Error {
    /// Whether a GPU has too little memory left: with fewer answers at a time it may do.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_out_of_memory(),
            _ => false,
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Backend(error.into())
    }
}
