//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong in this crate.
///
/// Markup never fails: see [`crate::MarkupWarning`] for what is said about malformed markup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer file cannot be read.
    #[error("cannot read the tokenizer {path:?}")]
    ReadTokenizer {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// The bytes are not a `tokenizer.json`.
    #[error("invalid tokenizer.json: use the file that came with the checkpoint")]
    ParseTokenizer {
        /// What the parser said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The tokenizer is of a kind that DeepSeek-OCR does not use.
    #[error("the tokenizer's decoder is not ByteLevel: it does not belong to this model family")]
    NotByteLevel,

    /// The tokenizer lacks a token that every prompt needs.
    #[error(
        "the tokenizer has no special token {token:?}: it does not belong to this model family"
    )]
    MissingToken {
        /// The content that was looked up.
        token: &'static str,
    },

    /// The tokenizer could not encode a text.
    #[error("the tokenizer cannot encode the text")]
    Encode {
        /// What the tokenizer said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A prompt names more than one image.
    #[error(
        "the prompt has {count} <image> places, and one image is read at a time: keep one, or none"
    )]
    TooManyImages {
        /// How often `<image>` occurs.
        count: usize,
    },

    /// A prompt is blank.
    #[error("the prompt is empty: write what to do with the image")]
    EmptyPrompt,

    /// The text to locate is blank.
    #[error("the text to locate is empty: name what to find in the image")]
    EmptyLocate,

    /// The text to locate contains the beginning of a special token.
    #[error(
        "the text to locate contains {found:?}, which begins a special token of the model: leave it out"
    )]
    SpecialInLocate {
        /// The offending piece.
        found: &'static str,
    },
}

/// The crate's result type.
pub type Result<T> = std::result::Result<T, Error>;
