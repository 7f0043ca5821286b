//! The decoding loop, whatever model takes its steps.

use crate::{
    Answer, Error, FinishReason, GenerateOptions, NoRepeatNgram, Repeated, Result,
    cycle::CycleDetector, sampling::Sampler,
};
use agx_ocr_backend::log_probability;
use std::{collections::BTreeSet, ops::ControlFlow};

/// A model that continues a prompt.
pub(crate) trait Steps {
    /// The logits of the first token.
    fn first(&mut self) -> Result<Vec<f32>>;

    /// The logits of the token after `id`, which follows all tokens before.
    fn next(&mut self, id: u32) -> Result<Vec<f32>>;
}

/// What gives an answer's tokens, one after the other.
pub(crate) trait Tokens {
    /// The token behind `answer`, and its log-probability.
    fn next(&mut self, answer: &[u32]) -> Result<(u32, f32)>;
}

/// Chooses an answer's tokens from logits.
#[derive(Debug)]
pub(crate) struct Chooser {
    prompt: Vec<u32>,
    guard: Option<NoRepeatNgram>,
    sampler: Sampler,
}

impl Chooser {
    /// For an answer to `prompt`.
    pub(crate) fn new(prompt: &[u32], options: &GenerateOptions) -> Self {
        Self {
            prompt: prompt.to_vec(),
            guard: options.no_repeat_ngram.clone(),
            sampler: Sampler::new(options.sampling),
        }
    }

    /// The token behind `answer`, and its log-probability.
    pub(crate) fn choose(&mut self, logits: &[f32], answer: &[u32]) -> Result<(u32, f32)> {
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::NotFinite(answer.len()));
        }
        let guard = self.guard.as_ref();
        let banned = guard.map(|guard| guard.banned(&self.prompt, answer));
        let id = choose(logits, &banned.unwrap_or_default(), &mut self.sampler);
        let id = id.ok_or(Error::NotFinite(answer.len()))?;
        Ok((id, log_probability(logits, id as usize)))
    }
}

/// Tokens chosen from a model's logits.
struct Chosen<'a, S> {
    model: &'a mut S,
    chooser: Chooser,
}

impl<S: Steps> Tokens for Chosen<'_, S> {
    fn next(&mut self, answer: &[u32]) -> Result<(u32, f32)> {
        let logits = match answer.last() {
            None => self.model.first()?,
            Some(id) => self.model.next(*id)?,
        };
        self.chooser.choose(&logits, answer)
    }
}

/// Answers a prompt of tokens `prompt` with at most `most` tokens, chosen from a model's logits.
pub(crate) fn decode(
    model: &mut impl Steps,
    prompt: &[u32],
    most: usize,
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(u32, f32) -> ControlFlow<()>,
) -> Result<Answer> {
    let chooser = Chooser::new(prompt, options);
    collect(&mut Chosen { model, chooser }, most, options, on_token)
}

/// An answer of at most `most` tokens.
pub(crate) fn collect(
    tokens: &mut impl Tokens,
    most: usize,
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(u32, f32) -> ControlFlow<()>,
) -> Result<Answer> {
    let mut writing = Writing::new(most, options);
    while !writing.is_over() {
        let (id, log_probability) = tokens.next(writing.ids())?;
        writing.take(id, log_probability, on_token);
    }
    Ok(writing.into_answer())
}

/// An answer that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    answer: Answer,
    most: usize,
    eos: u32,
    cycles: Option<CycleDetector>,
    over: bool,
}

impl Writing {
    /// An empty answer, which may come to have `most` tokens.
    pub(crate) fn new(most: usize, options: &GenerateOptions) -> Self {
        Self {
            answer: Answer {
                ids: Vec::new(),
                log_probabilities: Vec::new(),
                finish_reason: FinishReason::Length,
                repetition: None,
                steps: 0,
            },
            most,
            eos: options.eos,
            cycles: options.stop_cycles.as_ref().map(CycleDetector::new),
            over: most == 0,
        }
    }

    /// Its tokens so far.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.answer.ids
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// What was written.
    pub(crate) fn into_answer(self) -> Answer {
        self.answer
    }

    /// Takes in the next token, and tells `on_token`, unless it ends the answer.
    pub(crate) fn take(
        &mut self,
        id: u32,
        log_probability: f32,
        on_token: &mut dyn FnMut(u32, f32) -> ControlFlow<()>,
    ) {
        let answer = &mut self.answer;
        answer.steps = answer.ids.len();
        self.over = true;
        if id == self.eos {
            answer.finish_reason = FinishReason::Stop;
            return;
        }
        answer.ids.push(id);
        answer.log_probabilities.push(log_probability);
        if on_token(id, log_probability).is_break() {
            answer.finish_reason = FinishReason::Cancelled;
            return;
        }
        let cycles = self.cycles.as_mut();
        match cycles.and_then(|cycles| cycles.push(&answer.ids)) {
            Some(cycle) => answer.end_at(cycle),
            None => self.over = answer.ids.len() >= self.most,
        }
    }
}

/// The next token; `None` when there is none.
fn choose(logits: &[f32], banned: &BTreeSet<u32>, sampler: &mut Sampler) -> Option<u32> {
    if banned.is_empty() {
        return sampler.next(logits);
    }
    let mut allowed = logits.to_vec();
    for id in banned {
        if let Some(logit) = allowed.get_mut(*id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    sampler.next(&allowed)
}

impl Answer {
    /// Ends behind the first copy of a cycle.
    fn end_at(&mut self, cycle: Repeated) {
        let kept = self.ids.len().saturating_sub(cycle.trimmed);
        self.ids.truncate(kept);
        self.log_probabilities.truncate(kept);
        self.finish_reason = FinishReason::Repetition;
        self.repetition = Some(cycle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NgramScope, NoRepeatNgram, StopCycles};
    use std::ops::Range;

    const EOS: u32 = 0;
    const MOST: usize = 1000;
    /// Cells of a table.
    const TD: [u32; 2] = [500, 501];

    /// A model with a mind of its own: it says `healthy`, then `unit` for ever. The token next
    /// best to the one that it wants is the end.
    #[derive(Default)]
    struct Stub {
        healthy: Vec<u32>,
        unit: Vec<u32>,
        said: Vec<u32>,
    }

    impl Stub {
        fn looping(unit: impl IntoIterator<Item = u32>) -> Self {
            Self {
                unit: unit.into_iter().collect(),
                ..Self::default()
            }
        }

        fn after(mut self, healthy: impl IntoIterator<Item = u32>) -> Self {
            self.healthy = healthy.into_iter().collect();
            self
        }

        fn logits(&self) -> Vec<f32> {
            let healthy = self.healthy.iter().chain(self.unit.iter().cycle());
            let wanted = healthy.copied().nth(self.said.len()).unwrap_or(EOS);
            let mut logits = vec![0.0; 512];
            logits[EOS as usize] = 1.0;
            // Each token with another probability.
            logits[wanted as usize] = 5.0 + self.said.len() as f32 / 100.0;
            logits
        }
    }

    impl Steps for Stub {
        fn first(&mut self) -> Result<Vec<f32>> {
            assert!(self.said.is_empty());
            Ok(self.logits())
        }

        fn next(&mut self, id: u32) -> Result<Vec<f32>> {
            self.said.push(id);
            Ok(self.logits())
        }
    }

    /// A unit of different tokens.
    fn unit(period: u32) -> Range<u32> {
        100..100 + period
    }

    fn options(guard: bool, detector: bool) -> GenerateOptions {
        let mut options = GenerateOptions::new(EOS, MOST);
        options.no_repeat_ngram = guard.then(|| NoRepeatNgram {
            size: 30,
            scope: NgramScope::Window(90),
            whitelist: TD.to_vec(),
        });
        options.stop_cycles = detector.then(|| StopCycles {
            whitelist: TD.to_vec(),
        });
        options
    }

    /// The answer, which must count the model's steps and lose no token on the way.
    fn answer(mut stub: Stub, options: &GenerateOptions) -> Answer {
        let mut seen = Vec::new();
        let on_token = &mut |id, _| {
            seen.push(id);
            ControlFlow::Continue(())
        };
        let answer = decode(&mut stub, &[], options.max_new_tokens, options, on_token).unwrap();
        assert_eq!(answer.steps, stub.said.len());
        assert_eq!(answer.ids.len(), answer.log_probabilities.len());
        let trimmed = answer.repetition.map_or(0, |cycle| cycle.trimmed);
        assert_eq!(seen.len(), answer.ids.len() + trimmed);
        assert!(seen.starts_with(&answer.ids));
        assert_eq!(
            answer.repetition.is_some(),
            answer.finish_reason == FinishReason::Repetition
        );
        answer
    }

    #[test]
    fn a_loop_ends_behind_its_first_copy() {
        for (period, seen) in [(1, 48), (7, 48), (128, 384)] {
            let answer = answer(Stub::looping(unit(period)), &options(false, true));
            assert_eq!(answer.finish_reason, FinishReason::Repetition);
            assert_eq!(answer.ids, Vec::from_iter(unit(period)));
            let period = period as usize;
            let trimmed = seen - period;
            assert_eq!(answer.repetition, Some(Repeated { period, trimmed }));
            assert_eq!(answer.steps, seen - 1, "the prompt gives the first token");
        }
        let longer = answer(Stub::looping(unit(129)), &options(false, true));
        assert_eq!(longer.finish_reason, FinishReason::Length);
        assert_eq!((longer.ids.len(), longer.steps), (MOST, MOST - 1));
    }

    #[test]
    fn the_text_before_a_loop_stays_as_it_is() {
        let stub = || Stub::looping(unit(7)).after(1..80);
        let whole = answer(stub(), &options(false, false));
        let trimmed = answer(stub(), &options(false, true));
        assert_eq!(whole.finish_reason, FinishReason::Length);
        assert_eq!(trimmed.finish_reason, FinishReason::Repetition);
        assert_eq!(trimmed.ids, Vec::from_iter((1..80).chain(unit(7))));
        assert_eq!(
            trimmed.log_probabilities,
            whole.log_probabilities[..trimmed.ids.len()]
        );
    }

    #[test]
    fn a_line_printed_twice_is_no_loop() {
        let text = (1..50).chain(unit(60)).chain(unit(60)).chain(200..300);
        let text = Vec::from_iter(text);
        let answer = answer(Stub::default().after(text.clone()), &options(false, true));
        assert_eq!(answer.finish_reason, FinishReason::Stop);
        assert_eq!(answer.steps, text.len(), "the end takes a step");
        assert_eq!(answer.ids, text);
    }

    #[test]
    fn empty_cells_may_go_on_for_long_under_both_guards() {
        let table = |cells| {
            let text = (1..50).chain(TD.repeat(cells)).chain(200..210);
            answer(Stub::default().after(text), &options(true, true))
        };
        assert_eq!(table(383).finish_reason, FinishReason::Stop);
        assert_eq!(table(384).finish_reason, FinishReason::Repetition);
        assert_eq!(table(384).ids, Vec::from_iter((1..50).chain(TD)));
    }

    /// The guard's window holds 30-grams that start up to 90 tokens ago, so one that ends with the
    /// next token is seen again up to 61 tokens later.
    #[test]
    fn the_guard_breaks_short_loops_and_the_detector_ends_long_ones() {
        for period in [1, 7, 16, 17, 30, 60, 61] {
            let answer = answer(Stub::looping(unit(period)), &options(true, true));
            assert_eq!(answer.finish_reason, FinishReason::Stop, "{period}");
            let before_ban = period as usize + 29;
            assert_eq!(answer.ids.len(), before_ban, "{period}");
        }
        for period in [62, 90, 128] {
            let stub = || Stub::looping(unit(period));
            let guarded = answer(stub(), &options(true, false));
            assert_eq!(guarded.finish_reason, FinishReason::Length, "{period}");
            let both = answer(stub(), &options(true, true));
            assert_eq!(both.finish_reason, FinishReason::Repetition, "{period}");
            assert_eq!(both.ids, Vec::from_iter(unit(period)));
        }
    }

    #[test]
    fn a_loop_at_the_last_token_is_said_to_be_one() {
        let mut options = options(false, true);
        options.max_new_tokens = 48;
        let at_last = answer(Stub::looping([7]), &options);
        assert_eq!(at_last.finish_reason, FinishReason::Repetition);
        options.max_new_tokens = 47;
        let before = answer(Stub::looping([7]), &options);
        assert_eq!(before.finish_reason, FinishReason::Length);
        options.max_new_tokens = 0;
        let none = answer(Stub::looping([7]), &options);
        assert_eq!((none.ids.len(), none.steps), (0, 0));
    }

    #[test]
    fn a_caller_stops_at_any_token() {
        for (stop_at, steps) in [(1, 0), (5, 4), (48, 47)] {
            let mut left = stop_at;
            let on_token = &mut |_, _| {
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            };
            let mut stub = Stub::looping([7]);
            let answer = decode(&mut stub, &[], MOST, &options(false, true), on_token).unwrap();
            assert_eq!(answer.finish_reason, FinishReason::Cancelled);
            assert_eq!((answer.ids.len(), answer.steps), (stop_at, steps));
            assert_eq!(answer.repetition, None, "the caller came first");
        }
    }

    /// A model that gives the same logits at every step.
    struct Same(Vec<f32>);

    impl Steps for Same {
        fn first(&mut self) -> Result<Vec<f32>> {
            Ok(self.0.clone())
        }

        fn next(&mut self, _: u32) -> Result<Vec<f32>> {
            self.first()
        }
    }

    #[test]
    fn the_prompt_counts_for_the_guard_and_probabilities_are_the_models_own() {
        let mut options = GenerateOptions::new(EOS, MOST);
        options.no_repeat_ngram = Some(NoRepeatNgram {
            size: 1,
            scope: NgramScope::All,
            whitelist: Vec::new(),
        });
        let logits = vec![0.0, 2.0, 5.0, 1.0];
        let expected = [1, 3].map(|id| log_probability(&logits, id));
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let answer = decode(&mut Same(logits), &[2, 600], MOST, &options, go_on).unwrap();
        assert_eq!(answer.ids, [1, 3]);
        assert_eq!(answer.log_probabilities, expected);
        assert_eq!(answer.finish_reason, FinishReason::Stop);
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        let mut damaged = Same(vec![0.0, f32::NAN]);
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let answer = decode(&mut damaged, &[], MOST, &options(true, true), go_on);
        assert!(matches!(answer, Err(Error::NotFinite(0))), "{answer:?}");
    }
}
