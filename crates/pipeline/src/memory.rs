//! Memory: what reading takes, what the system has, and an error where it is too little.
//!
//! Without it the kernel ends the process in the middle of a page. What is needed:
//!
//! * the weights, which lie in a mapped file: pages of theirs that the system takes back are read
//!   again and again, so they count in full;
//! * keys and values in f32 for the largest prompt and the longest answer;
//! * a working set: [`ROWS`] f32 rows of SAM's width for each position that is encoded at a time;
//!   for each position of the prompt as many rows of the decoder's width and one of its feed-forward
//!   parts' inner width; the rotary tables; the tokenizer, [`TOKENIZER`] times its file; and
//!   [`THREAD`] bytes a thread.
//!
//! The full-size model's working set, measured on x86-64 with two threads as resident anonymous
//! memory less keys and values, is 119, 132, 192, 256 and 290 MB in modes tiny to Gundam; the
//! formula gives 156, 176, 266, 349 and 367 MB. The image of the page itself is left out.

pub use agx_ocr_backend::available_memory;

use crate::{Error, Options, Result, model_dir::Defaults};
use agx_ocr_backend::images_at_once;
use agx_ocr_language::LanguageConfig;
use agx_ocr_vision::{VisionConfig, views::ViewMode};
use candle_core::Device;

/// Rows of values that a position takes while it is encoded or read.
const ROWS: u64 = 10;
/// Bytes of a tokenizer in memory to one of its file.
const TOKENIZER: u64 = 10;
/// Bytes that a thread keeps for itself.
const THREAD: u64 = 2 << 20;
/// Bytes of a value.
const F32: u64 = 4;
/// Pixels of a side to a position of SAM.
const PATCH: u64 = 16;
/// Tokens of a prompt besides those of the image; more is unusual.
const PROMPT_TEXT: usize = 128;

/// The bytes that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The weights.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Everything else.
    pub work: u64,
}

/// What a model is, and how it will be used: all that the needs follow from.
pub(crate) struct Use<'a> {
    pub vision: &'a VisionConfig,
    pub language: &'a LanguageConfig,
    /// Bytes of the weights.
    pub weights: usize,
    /// Bytes of tokenizer.json.
    pub tokenizer: usize,
    pub threads: usize,
    pub views: &'a [ViewMode],
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

impl Needs {
    /// The most that reading one page at a time takes.
    pub(crate) fn new(of: &Use<'_>) -> Self {
        let most = |f: &dyn Fn(&ViewMode) -> u64| of.views.iter().map(f).max().unwrap_or(0);
        let limit = of.language.max_position_embeddings as u64;
        let image = most(&|view| largest_prompt(*view) as u64);
        let prompt = (image + PROMPT_TEXT as u64).min(limit);
        let positions = prompt.saturating_add(of.max_tokens as u64).min(limit);

        let config = of.language;
        let key = (config.num_key_value_heads * config.head_dim()) as u64;
        let cache = 2 * config.num_hidden_layers as u64 * positions * key * F32;

        let vision = most(&|view| positions_at_a_time(*view)) * ROWS * of.vision.sam.width as u64;
        let experts = (config.num_experts_per_tok + config.n_shared_experts) as u64;
        let mixture = experts * config.moe_intermediate_size as u64;
        let inner = mixture.max(config.intermediate_size as u64);
        let language = prompt * (ROWS * config.hidden_size as u64 + inner);
        let rotary = limit * config.head_dim() as u64;
        let threads = THREAD.saturating_mul(of.threads as u64);
        let work = F32 * (vision + language + rotary) + TOKENIZER * of.tokenizer as u64;
        Self {
            weights: of.weights as u64,
            cache,
            work: work.saturating_add(threads),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.weights
            .saturating_add(self.cache)
            .saturating_add(self.work)
    }

    /// An error when they are more than what is available, where that is known.
    pub(crate) fn check(&self, available: Option<u64>) -> Result<()> {
        match available {
            Some(available) if available < self.total() => Err(Error::Memory {
                needed: self.total(),
                available,
                weights: self.weights,
                cache: self.cache,
            }),
            _ => Ok(()),
        }
    }
}

/// The views that pages are read with, unless something else is said for a page. Those that are
/// not possible take nothing: they are errors of reading.
pub(crate) fn views(options: &Options, defaults: &Defaults) -> Vec<ViewMode> {
    let modes = [Some(options.read.mode), options.read.retry_mode];
    let modes = modes.into_iter().flatten();
    modes
        .map(|mode| mode.view().unwrap_or(defaults.view))
        .filter(|view| view.check().is_ok())
        .collect()
}

/// The most tokens of an image. One column of tiles has the most, for a newline ends each row.
fn largest_prompt(view: ViewMode) -> usize {
    match view {
        ViewMode::Tiled { max_tiles, .. } => view.token_count(Some((1, max_tiles))),
        _ => view.token_count(None),
    }
}

/// The most positions that SAM encodes at a time.
fn positions_at_a_time(view: ViewMode) -> u64 {
    let positions = |side: u32| (u64::from(side) / PATCH).pow(2);
    match view {
        ViewMode::Tiled { base, tile, .. } => {
            let tiles = images_at_once(&Device::Cpu) as u64;
            positions(base).max(tiles * positions(tile))
        }
        _ => positions(view.global_size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Mode, Repetition, Split};
    use agx_ocr_vision::views::Fit;
    use serde_json::{Value, json};

    /// Bytes of the full-size model's weights and tokenizer.
    const WEIGHTS: usize = 6_672_212_480;
    const TOKENIZER_FILE: usize = 9_979_544;

    /// The sizes of the full-size model.
    fn deepseek() -> Value {
        let sam = json!({
            "width": 768, "layers": 12, "heads": 12, "global_attn_indexes": [2, 5, 8, 11],
            "downsample_channels": [512, 1024],
        });
        let clip = json!({
            "width": 1024, "layers": 24, "heads": 16, "image_size": 224, "patch_size": 14,
        });
        json!({
            "vocab_size": 129_280, "hidden_size": 1280, "num_hidden_layers": 12,
            "num_attention_heads": 10, "num_key_value_heads": 10, "intermediate_size": 6848,
            "moe_intermediate_size": 896, "n_routed_experts": 64, "n_shared_experts": 2,
            "num_experts_per_tok": 6, "first_k_dense_replace": 1, "max_position_embeddings": 8192,
            "vision_config": {
                "image_size": 1024, "width": { "sam_vit_b": sam, "clip-l-14-224": clip },
            },
            "projector_config": { "input_dim": 2048, "n_embed": 1280 },
        })
    }

    fn needs(views: &[ViewMode], max_tokens: usize, threads: usize) -> Needs {
        let config = deepseek();
        Needs::new(&Use {
            vision: &VisionConfig::from_json(&config).unwrap(),
            language: &LanguageConfig::from_json(&config).unwrap(),
            weights: WEIGHTS,
            tokenizer: TOKENIZER_FILE,
            threads,
            views,
            max_tokens,
        })
    }

    #[test]
    fn a_working_set_is_above_what_was_measured_and_not_by_much() {
        for (view, measured) in [
            (ViewMode::TINY, 119e6),
            (ViewMode::SMALL, 132e6),
            (ViewMode::BASE, 192e6),
            (ViewMode::LARGE, 256e6),
            (ViewMode::GUNDAM, 290e6),
        ] {
            let work = needs(&[view], 1, 2).work as f64;
            assert!((1.0..1.4).contains(&(work / measured)), "{view:?}: {work}");
        }
        // With sixteen threads 317 MB.
        assert!(needs(&[ViewMode::GUNDAM], 1, 16).work > 317_000_000);
    }

    #[test]
    fn short_answers_need_what_the_full_size_model_was_seen_to_take() {
        // Its peak is 6.26 to 6.7 GB: a page does not touch all experts' weights.
        for view in [ViewMode::BASE, ViewMode::GUNDAM] {
            let total = needs(&[view], 300, 2).total() as f64;
            assert!((6.7e9..7.3e9).contains(&total), "{view:?}: {total}");
        }
    }

    #[test]
    fn keys_and_values_are_those_of_the_longest_answer() {
        let position = 2 * 12 * 1280 * 4;
        // The prompt: 273 tokens of the image, and the text.
        let cache = |max_tokens| needs(&[ViewMode::BASE], max_tokens, 2).cache;
        assert_eq!(cache(0), (273 + 128) * position);
        assert_eq!(cache(1000), (1273 + 128) * position);
        for max_tokens in [8192, usize::MAX] {
            assert_eq!(cache(max_tokens), 8192 * position, "the model's positions");
        }
    }

    #[test]
    fn the_largest_view_counts() {
        let both = needs(&[ViewMode::TINY, ViewMode::LARGE], 100, 2);
        assert_eq!(both, needs(&[ViewMode::LARGE], 100, 2));
        assert!(both.work > needs(&[ViewMode::TINY], 100, 2).work);
        // Ten rows of ten tokens a tile in one column, each ended by a newline; the global view.
        assert_eq!(largest_prompt(ViewMode::GUNDAM), 9 * 10 * 11 + 16 * 17 + 1);
        assert_eq!(positions_at_a_time(ViewMode::GUNDAM), 3 * 40 * 40);

        let defaults = Defaults {
            view: ViewMode::Square {
                size: 640,
                fit: Fit::Pad,
            },
            split: Split::None,
            max_tokens: 100,
            repetition: Repetition::Off,
        };
        let mut options = Options::default();
        assert_eq!(views(&options, &defaults), [defaults.view]);
        options.read.mode = Mode::Base;
        options.read.retry_mode = Some(Mode::Gundam);
        assert_eq!(
            views(&options, &defaults),
            [ViewMode::BASE, ViewMode::GUNDAM]
        );
        options.read.mode = Mode::Custom(ViewMode::Square {
            size: u32::MAX,
            fit: Fit::Pad,
        });
        assert_eq!(views(&options, &defaults), [ViewMode::GUNDAM]);
        assert_eq!(needs(&[], 1, 2).work, needs(&[], 1, 0).work + 2 * THREAD);
        assert_eq!(needs(&[], 1, usize::MAX).total(), u64::MAX);
    }

    #[test]
    fn too_little_is_an_error_that_says_what_to_do() {
        let needs = needs(&[ViewMode::GUNDAM], 8192, 2);
        assert!(needs.check(None).is_ok(), "nobody knows");
        assert!(needs.check(Some(needs.total())).is_ok());
        let error = needs.check(Some(needs.total() - 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(matches!(error, Error::Memory { needed, .. } if needed == needs.total()));
        let error = needs.check(Some(4_200_000_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model needs 8.0 GB of memory (weights 6.7 GB, an answer of the most tokens 1.0 GB) \
             and 4.2 GB are available: close other programs or raise the container's limit; fewer \
             tokens or smaller views need less"
        );
    }
}
