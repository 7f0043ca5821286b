//! One band of a page: from its views to text and regions.

use crate::{
    Error, FinishReason, Ocr, ReadOptions, Region, Repetition, Result, Stats, export::figure::MARK,
    ocr::milliseconds, until::Until,
};
use agx_ocr_language::{
    Answer, GenerateOptions, NgramScope, NoRepeatNgram, Prompt, Repeated, StopCycles,
};
use agx_ocr_text::{
    Decoded, Markup, MarkupStyle, PromptIds, Special, Task, TokenStream, prompt_ids,
};
use agx_ocr_vision::{
    VisionConfig,
    bands::Band,
    views::{self, ViewMode, Views},
};
use candle_core::Tensor;
use image::RgbImage;
use std::{ops::Range, time::Instant};

/// Warnings about markup that a page repeats.
const MARKUP_WARNINGS: usize = 10;

/// A part of a page and its views.
pub(crate) struct Prepared {
    /// Where its left upper corner lies on the page.
    pub origin: (u32, u32),
    /// Its width and height.
    pub size: (u32, u32),
    pub views: Views,
}

impl Prepared {
    pub(crate) fn new(page: &RgbImage, band: &Band, mode: &ViewMode) -> Result<Self> {
        let views = if *band == Band::whole(page) {
            views::prepare(page, mode)
        } else {
            views::prepare(&band.crop(page), mode)
        };
        Ok(Self {
            origin: (band.left, band.top),
            size: (band.width(), band.height()),
            views: views?,
        })
    }

    /// Multiply-adds that encoding the views takes.
    fn multiply_adds(&self, encoder: &VisionConfig) -> u64 {
        let tiles = self.views.tiles.iter().flat_map(|tiles| &tiles.images);
        let views = tiles.chain([&self.views.global]);
        views.map(|view| encoder.multiply_adds(view.width())).sum()
    }
}

/// What the model read in a band.
pub(crate) struct BandReading {
    pub text: String,
    pub regions: Vec<Region>,
    pub prompt_tokens: usize,
    pub log_probabilities: Vec<f32>,
    pub finish_reason: FinishReason,
    pub repetition: Option<Repeated>,
    pub warnings: Vec<String>,
}

impl BandReading {
    /// A band that was left before its first token.
    pub(crate) fn unread(finish_reason: FinishReason) -> Self {
        Self {
            text: String::new(),
            regions: Vec::new(),
            prompt_tokens: 0,
            log_probabilities: Vec::new(),
            finish_reason,
            repetition: None,
            warnings: Vec::new(),
        }
    }
}

/// A band's prompt.
pub(crate) struct BandPrompt {
    pub band: Prepared,
    ids: PromptIds,
    vision: Tensor,
}

impl BandPrompt {
    /// As the decoder takes it.
    pub(crate) fn get(&self) -> Prompt<'_> {
        Prompt {
            ids: &self.ids.ids,
            image: self.ids.image.clone(),
            vision: &self.vision,
        }
    }
}

/// A band's answer as it is written.
pub(crate) struct BandAnswer<'a> {
    stream: TokenStream<'a>,
    ids: Vec<u32>,
    /// Milliseconds.
    prefill_ms: f64,
    decode_ms: f64,
}

impl BandAnswer<'_> {
    /// Takes the next token, and gives the text that it completes.
    pub(crate) fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        self.stream.push(id).unwrap_or_default()
    }

    /// Notes how long it took to the first token, or to join a batch.
    pub(crate) fn joined(&mut self, ms: f64) {
        self.prefill_ms += ms;
    }

    /// Notes how long further tokens took, or this answer's share of a step that it had with others.
    pub(crate) fn stepped(&mut self, ms: f64) {
        self.decode_ms += ms;
    }

    /// Tokens so far.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

impl Ocr {
    /// Encodes a band's views, and makes its prompt.
    pub(crate) fn ask(
        &self,
        band: Prepared,
        task: &Task,
        until: &Until,
        stats: &mut Stats,
        on_view: &mut dyn FnMut(usize),
    ) -> Result<(BandPrompt, BandAnswer<'_>)> {
        let started = Instant::now();
        until.keep(false);
        let mut progress = |done, _| on_view(done);
        let vision = self.encoder.encode(&band.views, until, &mut progress)?;
        // A GPU may still be at it, and has nothing to read before it is done.
        vision
            .device()
            .synchronize()
            .map_err(agx_ocr_backend::Error::from)?;
        stats.vision_ms += milliseconds(started);
        stats.vision_multiply_adds += band.multiply_adds(&self.vision);
        let rows = vision.dim(0).map_err(agx_ocr_backend::Error::from)?;
        let ids = prompt_ids(&self.tokenizer, &task.prompt()?, rows)?;
        let answer = BandAnswer {
            stream: self.tokenizer.stream(Special::Skip),
            ids: Vec::new(),
            prefill_ms: 0.0,
            decode_ms: 0.0,
        };
        Ok((BandPrompt { band, ids, vision }, answer))
    }

    /// What is in a band, by its answer.
    pub(crate) fn understand(
        &self,
        prompt: &BandPrompt,
        heard: &BandAnswer<'_>,
        answer: Result<Answer, agx_ocr_language::Error>,
        (task, options): (&Task, &ReadOptions),
        until: &Until,
        stats: &mut Stats,
    ) -> Result<BandReading> {
        let band = &prompt.band;
        let located =
            |error: Error| self.locate_damage(error, &band.views, task, &heard.ids, until);
        let answer = answer.map_err(|error| located(error.into()))?;
        self.count(prompt, heard, &answer, stats);
        // The decoding loop does not know why it was told to stop.
        let finish_reason = match answer.finish_reason {
            FinishReason::Cancelled => until.stopped().unwrap_or(FinishReason::Cancelled),
            reason => reason,
        };
        let decoded = self.tokenizer.decode_spans(&answer.ids);
        let markup = agx_ocr_text::parse(&decoded.text);
        let style = task
            .markup_style()
            .unwrap_or_else(|| markup.style(&decoded.text));
        let text = if options.special {
            decoded.text.trim().to_owned()
        } else {
            render(&decoded.text, &markup, style)
        };
        let confidence = |ids: Range<usize>| confidence(&answer.log_probabilities[ids]);
        let mut regions = regions(band, &decoded, &markup, style, &confidence);
        if regions.is_empty() && !text.is_empty() {
            regions.push(Region {
                text: text.clone(),
                label: None,
                confidence: confidence(0..answer.ids.len()),
                bbox: on_page(band, [0, 0, band.size.0, band.size.1]),
            });
        }
        Ok(BandReading {
            text,
            regions,
            prompt_tokens: prompt.ids.ids.len(),
            log_probabilities: answer.log_probabilities,
            finish_reason,
            repetition: answer.repetition,
            warnings: markup
                .warnings
                .iter()
                .take(MARKUP_WARNINGS)
                .map(ToString::to_string)
                .collect(),
        })
    }

    /// Adds what an answer took.
    fn count(&self, prompt: &BandPrompt, heard: &BandAnswer<'_>, answer: &Answer, to: &mut Stats) {
        let tokens = prompt.ids.ids.len();
        to.prefill_ms += heard.prefill_ms;
        to.decode_ms += heard.decode_ms;
        let decoder = self.decoder.config();
        to.prefill_multiply_adds += decoder.prefill_multiply_adds(tokens);
        let bytes = (1..=answer.steps).map(|i| decoder.decode_bytes(tokens + i));
        to.decode_bytes += bytes.sum::<u64>();
        to.decoded_tokens += answer.steps as u64;
    }

    pub(crate) fn generate_options(&self, options: &ReadOptions) -> Result<GenerateOptions> {
        let special = self.tokenizer.special();
        let max_tokens = options.max_tokens.unwrap_or(self.defaults.max_tokens);
        // Cells of a table repeat lawfully.
        let cells: Vec<u32> = [special.td, special.td_end].into_iter().flatten().collect();
        let whitelist = match &options.ngram_whitelist {
            None => cells.clone(),
            Some(tokens) => self.ids(tokens)?,
        };
        let mut generate = GenerateOptions::new(special.eos, max_tokens);
        generate.sampling = options.sampling;
        let repetition = match options.no_repeat_ngram {
            Repetition::Auto => self.defaults.repetition,
            chosen => chosen,
        };
        if let Repetition::Ngram { size, window } = repetition {
            generate.no_repeat_ngram = Some(NoRepeatNgram {
                size,
                scope: window.map_or(NgramScope::All, NgramScope::Window),
                // The reference has a whitelist for windows only.
                whitelist: window.map_or(Vec::new(), |_| whitelist.clone()),
            });
        }
        generate.stop_cycles = options.stop_cycles.then(|| {
            // Whatever the other guard allows; empty rows repeat as lawfully as their cells.
            let rows = ["<tr>", "</tr>"].map(|token| self.tokenizer.token_id(token));
            let table = cells.into_iter().chain(rows.into_iter().flatten());
            let whitelist = whitelist.into_iter().chain(table).collect();
            StopCycles { whitelist }
        });
        Ok(generate)
    }

    /// The ids of tokens, given as they stand in tokenizer.json.
    fn ids(&self, tokens: &[String]) -> Result<Vec<u32>> {
        let id = |token: &String| {
            let unknown = || Error::Options(format!("the model has no token {token:?}"));
            self.tokenizer.token_id(token).ok_or_else(unknown)
        };
        tokens.iter().map(id).collect()
    }
}

/// The text without markup.
fn render(text: &str, markup: &Markup, style: MarkupStyle) -> String {
    if markup.entries.is_empty() {
        return agx_ocr_text::clean(text);
    }
    match style {
        MarkupStyle::Lines => agx_ocr_text::clean(&agx_ocr_text::lines(text, markup)),
        MarkupStyle::Layout => {
            let text = agx_ocr_text::markdown(text, markup, |_, _| format!("{MARK}\n"));
            agx_ocr_text::clean(&agx_ocr_text::collapse_blank_lines(&text))
        }
    }
}

/// A region for each box. The text of an entry that follows its markup goes to its first box.
fn regions(
    band: &Prepared,
    decoded: &Decoded,
    markup: &Markup,
    style: MarkupStyle,
    confidence: &dyn Fn(Range<usize>) -> f32,
) -> Vec<Region> {
    let mut regions = Vec::new();
    for entry in &markup.entries {
        let (text, label, span) = match style {
            MarkupStyle::Lines => (
                entry.label.trim().to_owned(),
                None,
                entry.label_span.clone(),
            ),
            MarkupStyle::Layout => {
                let content = agx_ocr_text::clean(&decoded.text[entry.content.clone()]);
                let span = if content.is_empty() {
                    &entry.span
                } else {
                    &entry.content
                };
                (content, Some(entry.label.clone()), span.clone())
            }
        };
        let confidence = confidence(decoded.ids_of(span));
        for (i, place) in entry.boxes.iter().enumerate() {
            let follows = style == MarkupStyle::Layout && i > 0;
            regions.push(Region {
                text: if follows { String::new() } else { text.clone() },
                label: label.clone(),
                confidence,
                bbox: on_page(band, place.to_pixels(band.size.0, band.size.1)),
            });
        }
    }
    regions
}

/// Pixels of a band as pixels of the page.
fn on_page(band: &Prepared, [x0, y0, x1, y1]: [u32; 4]) -> [u32; 4] {
    let (left, top) = band.origin;
    [left + x0, top + y0, left + x1, top + y1]
}

/// The geometric mean of probabilities, given their logarithms; 0 of none.
pub(crate) fn confidence(log_probabilities: &[f32]) -> f32 {
    if log_probabilities.is_empty() {
        return 0.0;
    }
    let sum: f64 = log_probabilities.iter().map(|p| f64::from(*p)).sum();
    (sum / log_probabilities.len() as f64).exp() as f32
}

#[cfg(test)]
mod tests;
