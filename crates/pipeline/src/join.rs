//! A page out of its bands, and out of two readings.

use crate::{
    FinishReason, Page,
    band::{BandReading, confidence},
    input::DecodedImage,
};

/// The page that bands make up, from top to bottom. Sizes, names and counts are still to be
/// filled in.
pub(crate) fn join(bands: Vec<BandReading>, stopped: Option<FinishReason>) -> Page {
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
    /// The page with what is known of its decoding.
    pub(crate) fn of(mut self, decoded: &DecodedImage) -> Self {
        self.stats.preprocess_ms += decoded.decode_ms;
        self.warnings.splice(0..0, decoded.warnings.iter().cloned());
        self
    }

    /// This page, which repeats itself, or a `second` reading that is better; with the cost of
    /// both.
    pub(crate) fn or_rather(mut self, second: Option<Self>, how: &str) -> Self {
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
