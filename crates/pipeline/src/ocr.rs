//! A loaded model, and what it does with a page.

use crate::{
    Error, Event, Options, Page, Precision, ReadOptions, Result, Split, Stats,
    input::{self, DecodedImage},
    machine::read_by_every_token,
    model_dir::{Defaults, ModelDir},
    page::TokenCounts,
    reading::{BandReading, Prepared},
};
use agx_ocr_backend::{Activations, Checkpoint, Cores, TensorInfo};
use agx_ocr_language::{Decoder, LanguageConfig};
use agx_ocr_text::{Task, Tokenizer, prompt_ids};
use agx_ocr_vision::{VisionConfig, VisionEncoder, bands, views};
use candle_core::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{ops::ControlFlow, path::Path, time::Instant};

/// A model, ready to read pages. It can be shared between threads, and reads many pages.
#[derive(Debug)]
pub struct Ocr {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) encoder: VisionEncoder,
    pub(crate) decoder: Decoder,
    pub(crate) defaults: Defaults,
    pub(crate) vision: VisionConfig,
    pub(crate) weights: Vec<TensorInfo>,
    weight_bytes: usize,
    pub(crate) threads: ThreadPool,
    name: String,
    options: Options,
}

impl Ocr {
    /// Loads the model in a directory, or in a safetensors file with its other files beside it.
    /// The weights are mapped, not read: this is quick, and memory fills as they are used.
    ///
    /// # Errors
    /// When a file is missing or broken, or tensors are not those of the configuration.
    pub fn load(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = ModelDir::open(path.as_ref())?;
        let tokenizer = Tokenizer::from_file(&dir.tokenizer)?;
        let vision = VisionConfig::from_json(&dir.config)?;
        let language = LanguageConfig::from_json(&dir.config)?;
        if vision.hidden_size != language.hidden_size {
            let (from, to) = (vision.hidden_size, language.hidden_size);
            return Err(Error::ModelParts(format!(
                "vision tokens of {from} values for a decoder of {to}"
            )));
        }
        if tokenizer.special().image as usize >= language.vocab_size {
            let reason = "tokenizer.json knows more tokens than config.json";
            return Err(Error::ModelParts(reason.into()));
        }
        dir.defaults.view.check()?;
        let activations = match options.precision {
            Precision::Auto => Activations::Bf16,
            Precision::F32 => Activations::F32,
        };
        let checkpoint = Checkpoint::open(&dir.weights)?;
        let (encoder, decoder) = checkpoint.build(&Device::Cpu, activations, |loader| {
            let encoder = VisionEncoder::new(&vision, &loader.sub("model"));
            (encoder, Decoder::new(&language, loader))
        })?;
        let threads = ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or_else(|| Cores::detect().threads()))
            .thread_name(|i| format!("agx-ocr-{i}"))
            .build()?;
        Ok(Self {
            tokenizer,
            encoder: encoder?,
            decoder,
            defaults: dir.defaults,
            vision,
            weights: read_by_every_token(&checkpoint),
            weight_bytes: checkpoint.size(),
            threads,
            name: dir.name,
            options,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of all weights, which lie in the mapped file.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Reads a page from the bytes of an image.
    ///
    /// # Errors
    /// When the image cannot be decoded, or reading it fails.
    pub fn read(&self, bytes: &[u8], task: &Task) -> Result<Page> {
        self.read_streaming(bytes, task, |_| ControlFlow::Continue(()))
    }

    /// [`Ocr::read`], telling `on_event` what happens; it may stop the reading, and what was read
    /// by then is the page.
    ///
    /// # Errors
    /// As [`Ocr::read`].
    pub fn read_streaming(
        &self,
        bytes: &[u8],
        task: &Task,
        on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        self.read_with(bytes, task, &self.options.read, on_event)
    }

    /// [`Ocr::read_streaming`] with options for this page.
    ///
    /// # Errors
    /// As [`Ocr::read`], and when an option is out of range.
    pub fn read_with(
        &self,
        bytes: &[u8],
        task: &Task,
        options: &ReadOptions,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Page> {
        self.threads
            .install(|| self.read_page(bytes, task, options, &mut on_event))
    }

    fn read_page(
        &self,
        bytes: &[u8],
        task: &Task,
        options: &ReadOptions,
        on_event: &mut (dyn FnMut(Event<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Page> {
        let started = Instant::now();
        // What cannot work is found before the work.
        let prompt = task.prompt()?;
        prompt_ids(&self.tokenizer, &prompt, 0)?;
        options.sampling.check()?;
        let decoded = input::decode(bytes, &self.options.limits, options.alpha)?;
        let bands = self.prepare(&decoded, options)?;
        let (width, height) = decoded.image.dimensions();
        let mut stats = Stats {
            preprocess_ms: milliseconds(started),
            ..Stats::default()
        };
        let mut stopped = on_event(Event::Image {
            width,
            height,
            bands: bands.len(),
        })
        .is_break();

        let mut counts = TokenCounts::default();
        let total: usize = bands.iter().map(Prepared::count).sum();
        let mut readings: Vec<BandReading> = Vec::new();
        for band in &bands {
            if stopped {
                break;
            }
            let mut forward = |event: Event<'_>| {
                // Bands count for themselves; the page's listener sees one count.
                let flow = on_event(match event {
                    Event::View { done, .. } => Event::View {
                        done: counts.views + done,
                        total,
                    },
                    Event::Token { text, count } => Event::Token {
                        text,
                        count: counts.generated + count,
                    },
                    other => other,
                });
                stopped |= flow.is_break();
                flow
            };
            let reading = self.read_band(band, task, &prompt, options, &mut stats, &mut forward)?;
            counts.views += band.count();
            counts.prompt += reading.prompt_tokens;
            counts.generated += reading.log_probabilities.len();
            readings.push(reading);
        }
        // The first token of an answer is the prefill's.
        let decoded_tokens = counts.generated.saturating_sub(readings.len());
        if stats.decode_ms > 0.0 {
            let rate = decoded_tokens as f64 / stats.decode_ms * 1e3;
            stats.tokens_per_second = (rate * 10.0).round() / 10.0;
        }
        let mut page = BandReading::join(readings, (width, height), stopped);
        page.model = self.name.clone();
        page.task = task.name();
        page.tokens = counts;
        page.stats = stats;
        page.warnings.splice(0..0, decoded.warnings);
        Ok(page)
    }

    /// The page's bands with their views.
    fn prepare(&self, decoded: &DecodedImage, options: &ReadOptions) -> Result<Vec<Prepared>> {
        let view = options.mode.view().unwrap_or(self.defaults.view);
        view.check()?;
        let split = match (options.split, options.mode.view()) {
            (Split::Auto, None) => self.defaults.split,
            (Split::Auto, Some(_)) => Split::None,
            (split, _) => split,
        };
        let image = &decoded.image;
        if split != Split::Bands {
            return Ok(vec![Prepared {
                origin: (0, 0),
                size: image.dimensions(),
                views: views::prepare(image, &view)?,
            }]);
        }
        let prepare = |band: bands::Band| {
            Ok(Prepared {
                origin: (band.left, band.top),
                size: (band.width(), band.height()),
                views: views::prepare(&band.crop(image), &view)?,
            })
        };
        bands::split(image, view.global_size())
            .into_iter()
            .map(prepare)
            .collect()
    }
}

/// Milliseconds since `start`, to the microsecond.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_micros() as f64 / 1e3
}
