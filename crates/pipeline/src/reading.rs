//! One band of a page: from its views to text and regions, and bands put together.

use crate::{
    Event, FinishReason, Ocr, Page, ReadOptions, Region, Repetition, Result, Stats,
    ocr::milliseconds, page::TokenCounts,
};
use agx_ocr_backend::Unobserved;
use agx_ocr_language::{Answer, GenerateOptions, NgramScope, NoRepeatNgram, Prompt};
use agx_ocr_text::{Decoded, Markup, MarkupStyle, Special, Task, prompt_ids};
use agx_ocr_vision::{VisionConfig, views::Views};
use std::{
    ops::{ControlFlow, Range},
    time::Instant,
};

/// What stands in markdown for a figure whose picture is not kept.
const FIGURE: &str = "<!-- figure -->\n";
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
    /// The number of views.
    pub(crate) fn count(&self) -> usize {
        1 + self
            .views
            .tiles
            .as_ref()
            .map_or(0, |tiles| tiles.images.len())
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
    pub warnings: Vec<String>,
}

impl Ocr {
    pub(crate) fn read_band(
        &self,
        band: &Prepared,
        task: &Task,
        prompt: &str,
        options: &ReadOptions,
        stats: &mut Stats,
        on_event: &mut (dyn FnMut(Event<'_>) -> ControlFlow<()> + Send),
    ) -> Result<BandReading> {
        let started = Instant::now();
        let vision = self
            .encoder
            .encode(&band.views, &Unobserved, &mut |done, total| {
                // A view cannot be left half way: the answer then stops at its first token.
                let _ = on_event(Event::View { done, total });
            })?;
        stats.vision_ms += milliseconds(started);
        stats.vision_multiply_adds += band.multiply_adds(&self.vision);

        let rows = vision.dim(0).map_err(agx_ocr_backend::Error::from)?;
        let prompt = prompt_ids(&self.tokenizer, prompt, rows)?;
        let _ = on_event(Event::Prefill {
            tokens: prompt.ids.len(),
        });
        let mut stream = self.tokenizer.stream(Special::Skip);
        let (started, mut first_token) = (Instant::now(), None);
        let mut count = 0;
        let answer = self.decoder.generate(
            &Prompt {
                ids: &prompt.ids,
                image: prompt.image.clone(),
                vision: &vision,
            },
            &self.generate_options(options),
            &Unobserved,
            &mut |id, _| {
                first_token.get_or_insert_with(|| milliseconds(started));
                count += 1;
                let text = stream.push(id).unwrap_or_default();
                on_event(Event::Token { text: &text, count })
            },
        )?;
        let total = milliseconds(started);
        let prefill = first_token.unwrap_or(total);
        stats.prefill_ms += prefill;
        stats.decode_ms += total - prefill;
        let (decoder, positions) = (self.decoder.config(), prompt.ids.len());
        stats.prefill_multiply_adds += decoder.prefill_multiply_adds(positions);
        let steps = decode_steps(&answer);
        let bytes = (1..=steps).map(|i| decoder.decode_bytes(positions + i));
        stats.decode_bytes += bytes.sum::<u64>();
        stats.decoded_tokens += steps as u64;

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
            prompt_tokens: prompt.ids.len(),
            log_probabilities: answer.log_probabilities,
            finish_reason: answer.finish_reason,
            warnings: markup
                .warnings
                .iter()
                .take(MARKUP_WARNINGS)
                .map(ToString::to_string)
                .collect(),
        })
    }

    fn generate_options(&self, options: &ReadOptions) -> GenerateOptions {
        let special = self.tokenizer.special();
        let max_tokens = options.max_tokens.unwrap_or(self.defaults.max_tokens);
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
                // Cells of a table repeat lawfully; the reference knows this for windows only.
                whitelist: match window {
                    Some(_) => [special.td, special.td_end].into_iter().flatten().collect(),
                    None => Vec::new(),
                },
            });
        }
        generate
    }
}

impl BandReading {
    /// The page that the bands make up, from top to bottom.
    pub(crate) fn join(bands: Vec<Self>, (width, height): (u32, u32), stopped: bool) -> Page {
        let cut = bands
            .iter()
            .any(|band| band.finish_reason == FinishReason::Length);
        let finish_reason = match (stopped, cut) {
            (true, _) => FinishReason::Cancelled,
            (false, true) => FinishReason::Length,
            (false, false) => FinishReason::Stop,
        };
        let all: Vec<f32> = bands
            .iter()
            .flat_map(|band| &band.log_probabilities)
            .copied()
            .collect();
        let mut texts = Vec::new();
        let (mut regions, mut warnings) = (Vec::new(), Vec::new());
        for band in bands {
            if !band.text.is_empty() {
                texts.push(band.text);
            }
            regions.extend(band.regions);
            warnings.extend(band.warnings);
        }
        if cut {
            warnings
                .push("the text was cut at the largest number of tokens (max_tokens); the page may hold more"
                    .into());
        }
        Page {
            text: texts.join("\n"),
            regions,
            model: String::new(),
            task: "",
            width,
            height,
            confidence: confidence(&all),
            finish_reason,
            tokens: TokenCounts::default(),
            warnings,
            stats: Stats::default(),
        }
    }
}

/// Tokens that took a step of the decoder of their own. The prompt's step gives the first token;
/// the token that ends an answer is not in it.
fn decode_steps(answer: &Answer) -> usize {
    match answer.finish_reason {
        FinishReason::Stop => answer.ids.len(),
        _ => answer.ids.len().saturating_sub(1),
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
            let text = agx_ocr_text::markdown(text, markup, |_, _| FIGURE.into());
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
fn confidence(log_probabilities: &[f32]) -> f32 {
    if log_probabilities.is_empty() {
        return 0.0;
    }
    let sum: f64 = log_probabilities.iter().map(|p| f64::from(*p)).sum();
    (sum / log_probabilities.len() as f64).exp() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_the_geometric_mean() {
        assert_eq!(confidence(&[]), 0.0);
        assert!((confidence(&[0.25_f32.ln(), 1.0_f32.ln()]) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_end_takes_a_step_and_the_first_token_none() {
        for (tokens, finish_reason, steps) in [
            (5, FinishReason::Stop, 5),
            (5, FinishReason::Length, 4),
            (1, FinishReason::Cancelled, 0),
            (0, FinishReason::Stop, 0),
        ] {
            let answer = Answer {
                ids: vec![7; tokens],
                log_probabilities: vec![0.0; tokens],
                finish_reason,
            };
            assert_eq!(decode_steps(&answer), steps);
        }
    }
}
