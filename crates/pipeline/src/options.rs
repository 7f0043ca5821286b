//! What a caller can choose.

use crate::input::{Limits, Rendering};
use agx_ocr_backend::DeviceChoice;
use agx_ocr_language::Sampling;
use agx_ocr_vision::views::ViewMode;
use std::{fmt, str::FromStr, time::Duration};

/// Choices that hold for a loaded model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The arithmetic.
    pub precision: Precision,
    /// The device to compute on.
    pub device: DeviceChoice,
    /// Threads to compute with; `None` for one on every core that is fast enough to help.
    pub threads: Option<usize>,
    /// The largest input that is taken by what opens documents itself:
    /// [`Ocr::open`](crate::Ocr::open), [`Ocr::read`](crate::Ocr::read) and its kin. A document
    /// that is open has its own.
    pub limits: Limits,
    /// What [`Ocr::read`](crate::Ocr::read) does where nothing else is said.
    pub read: ReadOptions,
    /// Refuse to load a model that needs more memory than the system has to give
    /// ([`Error::Memory`](crate::Error::Memory)). Only Linux says what it has; elsewhere nothing is
    /// checked.
    pub check_memory: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            device: DeviceChoice::default(),
            threads: None,
            limits: Limits::default(),
            read: ReadOptions::default(),
            check_memory: true,
        }
    }
}

/// Choices for one page.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The views that the model sees.
    pub mode: Mode,
    /// Whether tall pages are cut between their text rows.
    pub split: Split,
    /// Tokens after which the answer for a view is cut; `None` for the model's own setting.
    pub max_tokens: Option<usize>,
    /// The guard against repetition.
    pub no_repeat_ngram: Repetition,
    /// Tokens that the guard allows at any time in a window, as they stand in tokenizer.json;
    /// `None` for `<td>` and `</td>`. [`stop_cycles`](Self::stop_cycles) bears with them too.
    pub ngram_whitelist: Option<Vec<String>>,
    /// End an answer that goes round in circles all the same
    /// ([`StopCycles`](agx_ocr_language::StopCycles)), with
    /// [`FinishReason::Repetition`](crate::FinishReason::Repetition). Circles of nothing but
    /// `<td>`, `</td>`, `<tr>`, `</tr>` and the tokens of `ngram_whitelist` need 768 tokens, for
    /// a table may have many empty cells.
    pub stop_cycles: bool,
    /// Read a page once more with these views where its answer went round in circles.
    pub retry_mode: Option<Mode>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Keep special tokens and grounding markup in the text.
    pub special: bool,
    /// How a page of a document becomes an image.
    pub rendering: Rendering,
    /// Most time for the page. What was read by then is the page, with
    /// [`FinishReason::Timeout`](crate::FinishReason::Timeout).
    pub time: Option<Duration>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            split: Split::default(),
            max_tokens: None,
            no_repeat_ngram: Repetition::default(),
            ngram_whitelist: None,
            stop_cycles: true,
            retry_mode: None,
            sampling: Sampling::default(),
            special: false,
            rendering: Rendering::default(),
            time: None,
        }
    }
}

/// The arithmetic of products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// bf16 weights; on a CPU the activations of large products rounded to bf16 where the machine
    /// multiplies these faster, on a GPU always; all sums f32.
    #[default]
    Auto,
    /// The same.
    Bf16,
    /// f16 weights and activations of large products, on a GPU; all sums f32. Three more bits of a
    /// product's factors than bf16, and a smaller range.
    F16,
    /// bf16 weights widened to f32, nothing rounded: the way to compare with the reference.
    F32,
}

/// The views of a page that the model sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The model's own default view, else [`Mode::Gundam`].
    #[default]
    Auto,
    /// 512 x 512, stretched.
    Tiny,
    /// 640 x 640, stretched.
    Small,
    /// 1024 x 1024, padded.
    Base,
    /// 1280 x 1280, padded.
    Large,
    /// 1024 x 1024, padded, and up to nine tiles of 640 x 640.
    Gundam,
    /// Any other.
    Custom(ViewMode),
}

impl Mode {
    /// The views, `None` for [`Mode::Auto`].
    pub fn view(self) -> Option<ViewMode> {
        match self {
            Self::Auto => None,
            Self::Tiny => Some(ViewMode::TINY),
            Self::Small => Some(ViewMode::SMALL),
            Self::Base => Some(ViewMode::BASE),
            Self::Large => Some(ViewMode::LARGE),
            Self::Gundam => Some(ViewMode::GUNDAM),
            Self::Custom(view) => Some(view),
        }
    }
}

/// Whether a tall page is cut between its text rows into bands that are read one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// As the model's default view says, and not when another mode is asked for.
    #[default]
    Auto,
    /// Never.
    None,
    /// Where the text would be too small in one view.
    Bands,
}

/// The guard against repetition: an n-gram may not come twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repetition {
    /// The model's own setting; without one the vendor's: 30 tokens in a window of 90.
    #[default]
    Auto,
    /// No guard.
    Off,
    /// No n-gram of `size` tokens twice among the last `window` tokens of the answer; without a
    /// window, in prompt and answer together.
    Ngram {
        /// Length of the n-grams.
        size: usize,
        /// Where they are looked for.
        window: Option<usize>,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Base => "base",
            Self::Large => "large",
            Self::Gundam => "gundam",
            Self::Custom(_) => "custom",
        })
    }
}

macro_rules! names {
    ($type:ident: $($name:literal => $value:ident),+) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok(Self::$value),)+
                    _ => Err(format!("{name:?} is none of {}", [$($name),+].join(", "))),
                }
            }
        }
    };
}

names!(Precision: "auto" => Auto, "bf16" => Bf16, "f16" => F16, "f32" => F32);
names!(Mode: "auto" => Auto, "tiny" => Tiny, "small" => Small, "base" => Base, "large" => Large, "gundam" => Gundam);
names!(Split: "auto" => Auto, "none" => None, "bands" => Bands);
