//! What comes out.

use agx_ocr_language::FinishReason;
use serde::Serialize;
use std::{iter::Sum, ops::Add};

/// A page as the model read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Page {
    /// The text, in reading order.
    pub text: String,
    /// Parts of the page with their places. Without a task that asks for places, one region: the
    /// whole page.
    pub regions: Vec<Region>,
    /// The model's name.
    pub model: String,
    /// The task's name.
    pub task: &'static str,
    /// Width of the page in pixels, upright.
    pub width: u32,
    /// Height of the page in pixels, upright.
    pub height: u32,
    /// The geometric mean of all tokens' probabilities; 0 where there is no token. A measure to
    /// compare pages with, not a probability that the text is right.
    pub confidence: f32,
    /// Why the text ends.
    pub finish_reason: FinishReason,
    /// Tokens read and written.
    pub tokens: TokenCounts,
    /// What the reader should know about the text.
    pub warnings: Vec<String>,
    /// Time and work; not part of the document unless asked for.
    #[serde(skip)]
    pub stats: Stats,
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Region {
    /// Its text.
    pub text: String,
    /// What it is, where the model says so: `title`, `text`, `table`, `image` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The geometric mean of its tokens' probabilities.
    pub confidence: f32,
    /// Left, top, right and bottom in pixels of the upright page.
    pub bbox: [u32; 4],
}

impl Region {
    /// A region that is sure, and has no label.
    pub fn new(text: impl Into<String>, bbox: [u32; 4]) -> Self {
        Self {
            text: text.into(),
            label: None,
            confidence: 1.0,
            bbox,
        }
    }
}

/// Tokens of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct TokenCounts {
    /// Views of the page that were encoded.
    pub views: usize,
    /// Tokens of the prompts, those of the views among them.
    pub prompt: usize,
    /// Tokens of the answers.
    pub generated: usize,
}

/// Time that a page took, in milliseconds, and the work that it needed. [`Stats::stages`] holds
/// them beside the limits of a [`Machine`](crate::Machine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Stats {
    /// Decoding the image and making its views.
    pub preprocess_ms: f64,
    /// SAM, CLIP and the projector.
    pub vision_ms: f64,
    /// The decoder on the prompts, to the first token.
    pub prefill_ms: f64,
    /// The decoder on all further tokens.
    pub decode_ms: f64,
    /// Tokens a second in decoding.
    pub tokens_per_second: f64,
    /// Multiply-adds (two operations each) of `vision_ms`.
    pub vision_multiply_adds: u64,
    /// Multiply-adds (two operations each) of `prefill_ms`.
    pub prefill_multiply_adds: u64,
    /// Bytes of weights, keys and values that had to be read in `decode_ms`.
    pub decode_bytes: u64,
    /// Tokens that `decode_ms` was spent on: all but the answers' first, with those that ended the
    /// answers or were cut off.
    pub decoded_tokens: u64,
}

impl Default for Page {
    /// A page of no size, on which there is nothing.
    fn default() -> Self {
        Self {
            text: String::new(),
            regions: Vec::new(),
            model: String::new(),
            task: "",
            width: 0,
            height: 0,
            confidence: 0.0,
            finish_reason: FinishReason::Stop,
            tokens: TokenCounts::default(),
            warnings: Vec::new(),
            stats: Stats::default(),
        }
    }
}

impl Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            preprocess_ms: self.preprocess_ms + other.preprocess_ms,
            vision_ms: self.vision_ms + other.vision_ms,
            prefill_ms: self.prefill_ms + other.prefill_ms,
            decode_ms: self.decode_ms + other.decode_ms,
            tokens_per_second: 0.0,
            vision_multiply_adds: self.vision_multiply_adds + other.vision_multiply_adds,
            prefill_multiply_adds: self.prefill_multiply_adds + other.prefill_multiply_adds,
            decode_bytes: self.decode_bytes + other.decode_bytes,
            decoded_tokens: self.decoded_tokens + other.decoded_tokens,
        }
        .with_rate()
    }
}

impl Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), Self::add)
    }
}

impl Stats {
    /// With the rate that the times give, to one decimal.
    pub(crate) fn with_rate(mut self) -> Self {
        if self.decode_ms > 0.0 {
            let rate = self.decoded_tokens as f64 / self.decode_ms * 1e3;
            self.tokens_per_second = (rate * 10.0).round() / 10.0;
        }
        self
    }
}

/// What happens while a page is read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The image is decoded, and its views are chosen.
    Image {
        /// Width in pixels, upright.
        width: u32,
        /// Height in pixels, upright.
        height: u32,
        /// Parts of the page that are read one by one.
        bands: usize,
    },
    /// A view is encoded, or a few tiles together.
    View {
        /// Views encoded so far, of all bands.
        done: usize,
        /// Views of all bands.
        total: usize,
    },
    /// The decoder begins to read a prompt.
    Prefill {
        /// Its tokens.
        tokens: usize,
    },
    /// A token was written.
    Token {
        /// Whole characters that it completes, special tokens left out; may be empty.
        text: &'a str,
        /// Tokens so far, of all bands.
        count: usize,
    },
}
