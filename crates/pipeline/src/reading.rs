//! One page: from its upright image to text and regions, band by band.

use crate::{
    Error, Event, FinishReason, Ocr, Page, ReadOptions, Result, Split, Stats,
    band::{BandReading, Prepared, confidence},
    ocr::milliseconds,
    page::TokenCounts,
    until::Until,
};
use agx_ocr_text::{Task, prompt_ids};
use agx_ocr_vision::{
    bands::{self, Band},
    views::{self, ViewMode},
};
use image::RgbImage;
use std::{ops::ControlFlow, time::Instant};

type OnEvent<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + Send + 'a;

impl Ocr {
    /// Reads a page, and once more in another mode where that is asked for and of use.
    pub(crate) fn read_upright(
        &self,
        image: &RgbImage,
        task: &Task,
        options: &ReadOptions,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Page> {
        let until = Until::new(options.time);
        let page = self.read_once(image, task, options, &until, on_event)?;
        let repeats = page.finish_reason == FinishReason::Repetition;
        let Some(mode) = options.retry_mode.filter(|_| repeats) else {
            return Ok(page);
        };
        let again = ReadOptions {
            mode,
            ..options.clone()
        };
        // The first reading stands, whatever becomes of the second.
        let second = self.read_once(image, task, &again, &until, on_event).ok();
        Ok(page.or_rather(second, &format!("in mode {mode}")))
    }

    fn read_once(
        &self,
        image: &RgbImage,
        task: &Task,
        options: &ReadOptions,
        until: &Until,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Page> {
        let started = Instant::now();
        // What cannot work is found before the work.
        prompt_ids(&self.tokenizer, &task.prompt()?, 0)?;
        options.sampling.check()?;
        let (view, bands) = self.plan(image, options)?;
        let (width, height) = image.dimensions();
        let mut stats = Stats {
            preprocess_ms: milliseconds(started),
            ..Stats::default()
        };
        let mut tell = |event: Event<'_>| {
            if on_event(event).is_break() {
                until.cancel();
            }
        };
        tell(Event::Image {
            width,
            height,
            bands: bands.len(),
        });

        let mut counts = TokenCounts::default();
        let views = |band: &Band| views::count(band.width(), band.height(), &view);
        let total: usize = bands.iter().map(views).sum();
        let mut readings: Vec<BandReading> = Vec::new();
        for band in &bands {
            if until.stopped().is_some() {
                break;
            }
            // Not before its turn: the time may be over by then.
            let started = Instant::now();
            let prepared = Prepared::new(image, band, &view)?;
            stats.preprocess_ms += milliseconds(started);
            // Bands count for themselves; the page's listener sees one count.
            let mut forward = |event: Event<'_>| {
                tell(match event {
                    Event::View { done, .. } => Event::View {
                        done: counts.views + done,
                        total,
                    },
                    Event::Token { text, count } => Event::Token {
                        text,
                        count: counts.generated + count,
                    },
                    Event::Prefill { .. } => {
                        // Only now all its views are encoded.
                        counts.views += prepared.views.count();
                        event
                    }
                    other => other,
                });
            };
            let read = self.read_band(&prepared, task, options, until, &mut stats, &mut forward);
            let reading = read?;
            counts.prompt += reading.prompt_tokens;
            counts.generated += reading.log_probabilities.len();
            readings.push(reading);
        }
        let stopped = until.stopped().filter(|_| {
            // An answer that ended as the time did is whole.
            let whole = |band: &BandReading| band.finish_reason == FinishReason::Stop;
            readings.len() < bands.len() || !readings.iter().all(whole)
        });
        if stopped == Some(FinishReason::Timeout) && counts.generated == 0 {
            return Err(Error::Timeout(options.time.unwrap_or_default()));
        }
        let mut page = join(readings, stopped);
        (page.width, page.height) = (width, height);
        page.model = self.name().to_owned();
        page.task = task.name();
        page.tokens = counts;
        page.stats = stats.with_rate();
        Ok(page)
    }

    /// The views of each band, and the bands that the page is read in.
    fn plan(&self, image: &RgbImage, options: &ReadOptions) -> Result<(ViewMode, Vec<Band>)> {
        let view = options.mode.view().unwrap_or(self.defaults.view);
        view.check()?;
        let split = match (options.split, options.mode.view()) {
            (Split::Auto, None) => self.defaults.split,
            (Split::Auto, Some(_)) => Split::None,
            (split, _) => split,
        };
        let bands = match split {
            Split::Bands => bands::split(image, view.global_size()),
            _ => vec![Band::whole(image)],
        };
        Ok((view, bands))
    }
}

/// The page that bands make up, from top to bottom. Sizes, names and counts are still to be
/// filled in.
fn join(bands: Vec<BandReading>, stopped: Option<FinishReason>) -> Page {
    let any = |reason| bands.iter().any(|band| band.finish_reason == reason);
    let reasons = [FinishReason::Repetition, FinishReason::Length];
    let reason = reasons.into_iter().find(|reason| any(*reason));
    let cut = any(FinishReason::Length);
    let all: Vec<f32> = bands
        .iter()
        .flat_map(|band| &band.log_probabilities)
        .copied()
        .collect();
    let mut page = Page {
        confidence: confidence(&all),
        finish_reason: stopped.or(reason).unwrap_or(FinishReason::Stop),
        ..Page::default()
    };
    let mut texts = Vec::new();
    let mut trimmed = None;
    for band in bands {
        if !band.text.is_empty() {
            texts.push(band.text);
        }
        page.regions.extend(band.regions);
        page.warnings.extend(band.warnings);
        if let Some(repeated) = band.repetition {
            *trimmed.get_or_insert(0) += repeated.trimmed;
        }
    }
    page.text = texts.join("\n");
    if let Some(tokens) = trimmed {
        page.warnings.push(format!(
            "The model began to repeat itself: {tokens} tokens were cut off. The page may hold more."
        ));
    }
    if cut {
        page.warnings.push(
            "The text was cut at the largest number of tokens (max_tokens). The page may hold more."
                .into(),
        );
    }
    if stopped == Some(FinishReason::Timeout) {
        page.warnings
            .push("The time ran out while the page was read. It may hold more.".into());
    }
    page
}

impl Page {
    /// This page, which repeats itself, or a `second` reading that is better; with the cost of
    /// both.
    fn or_rather(mut self, second: Option<Self>, how: &str) -> Self {
        let Some(mut second) = second else {
            self.warnings
                .push(format!("The page could not be read again {how}."));
            return self;
        };
        let stats = self.stats + second.stats;
        let whole = matches!(
            second.finish_reason,
            FinishReason::Stop | FinishReason::Length
        );
        let mut page = if whole {
            let warning = format!("The model repeated itself, and the page was read again {how}.");
            second.warnings.insert(0, warning);
            second
        } else {
            self.warnings
                .push(format!("Reading the page again {how} was no better."));
            self
        };
        page.stats = stats;
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn band(text: &str, finish_reason: FinishReason) -> BandReading {
        BandReading {
            text: text.into(),
            regions: Vec::new(),
            prompt_tokens: 3,
            log_probabilities: vec![0.5_f32.ln(); 2],
            finish_reason,
            repetition: None,
            warnings: vec!["markup".into()],
        }
    }

    fn page(text: &str, finish_reason: FinishReason) -> Page {
        join(vec![band(text, finish_reason)], None)
    }

    #[test]
    fn the_gravest_reason_is_the_pages() {
        use FinishReason::{Cancelled, Length, Repetition, Stop, Timeout};
        let reason = |bands: &[FinishReason], stopped| {
            let bands = bands.iter().map(|reason| band("a", *reason)).collect();
            join(bands, stopped).finish_reason
        };
        assert_eq!(reason(&[Stop, Stop], None), Stop);
        assert_eq!(reason(&[Stop, Length], None), Length);
        assert_eq!(reason(&[Length, Repetition, Stop], None), Repetition);
        assert_eq!(reason(&[Repetition], Some(Timeout)), Timeout);
        assert_eq!(reason(&[], Some(Cancelled)), Cancelled);
    }

    #[test]
    fn bands_are_joined_in_order() {
        let stop = FinishReason::Stop;
        let page = join(vec![band("a", stop), band("", stop), band("b", stop)], None);
        assert_eq!(page.text, "a\nb");
        assert_eq!(page.warnings.len(), 3);
        assert!((page.confidence - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_second_reading_is_taken_where_it_is_better() {
        let first = || page("aaa", FinishReason::Repetition);
        let better = first().or_rather(Some(page("b", FinishReason::Stop)), "in mode base");
        assert_eq!(better.text, "b");
        assert!(better.warnings[0].contains("read again in mode base"));

        let no_better = first().or_rather(Some(page("bbb", FinishReason::Repetition)), "so");
        assert_eq!(no_better.text, "aaa");
        assert_eq!(no_better.finish_reason, FinishReason::Repetition);
        assert!(no_better.warnings.last().unwrap().contains("no better"));
        assert_eq!(first().or_rather(None, "so").text, "aaa");
    }

    #[test]
    fn both_readings_are_counted() {
        let with_cost = |vision_ms| {
            let mut page = page("a", FinishReason::Repetition);
            page.stats.vision_ms = vision_ms;
            page
        };
        let page = with_cost(1.0).or_rather(Some(with_cost(2.0)), "so");
        assert_eq!(page.stats.vision_ms, 3.0);
    }
}
