//! The decoding loop.

use crate::{Decoder, Error, NoRepeatNgram, Result, Sampling, Wanted, sampling::Sampler};
use agx_ocr_backend::{Observer, awake, log_probability};
use candle_core::Tensor;
use serde::Serialize;
use std::ops::{ControlFlow, Range};

/// A prompt with an image in it.
#[derive(Clone, Debug)]
pub struct Prompt<'a> {
    /// All tokens, those of the image as placeholders.
    pub ids: &'a [u32],
    /// Where the placeholders are.
    pub image: Range<usize>,
    /// What takes their place, `[image.len(), hidden]`.
    pub vision: &'a Tensor,
}

/// Settings of the decoding loop.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Tokens after which the answer is cut.
    pub max_new_tokens: usize,
    /// The token that ends an answer.
    pub eos: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What may not be repeated.
    pub no_repeat_ngram: Option<NoRepeatNgram>,
}

impl GenerateOptions {
    /// Greedy decoding without a guard against repetition.
    pub fn new(eos: u32, max_new_tokens: usize) -> Self {
        Self {
            max_new_tokens,
            eos,
            sampling: Sampling::Greedy,
            no_repeat_ngram: None,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// It reached the most tokens asked for, or the model's last position.
    Length,
    /// The caller stopped it.
    Cancelled,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// For each token the logarithm of the probability that the model gave it (softmax of its
    /// logits as they are, before guards and temperature).
    pub log_probabilities: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

impl Decoder {
    /// Answers a prompt. `on_token` is called with each token and its log-probability as soon as
    /// it is known, and may stop.
    ///
    /// Positions are limited by the model's `max_position_embeddings`: the answer is cut there.
    ///
    /// # Errors
    /// When options are out of range, the prompt does not fit, logits are not finite, or
    /// `observer` stops.
    pub fn generate(
        &self,
        prompt: &Prompt<'_>,
        options: &GenerateOptions,
        observer: &dyn Observer,
        on_token: &mut dyn FnMut(u32, f32) -> ControlFlow<()>,
    ) -> Result<Answer> {
        options.sampling.check()?;
        let limit = self.config().max_position_embeddings;
        let room = limit.checked_sub(prompt.ids.len()).filter(|room| *room > 0);
        let room = room.ok_or(Error::PromptTooLong {
            prompt: prompt.ids.len(),
            limit,
        })?;
        let most = options.max_new_tokens.min(room);
        let mut cache = self.cache(prompt.ids.len() + most);
        let mut sampler = Sampler::new(options.sampling);
        let mut answer = Answer {
            ids: Vec::new(),
            log_probabilities: Vec::new(),
            finish_reason: FinishReason::Length,
        };
        let mut input = self.embed_prompt(prompt)?;
        while answer.ids.len() < most {
            let mut logits = awake(|| {
                let last = self.forward(&input, &mut cache, Wanted::Last, observer)?;
                let logits = self.logits(&last, observer)?;
                Ok::<_, Error>(logits.flatten_all()?.to_vec1::<f32>()?)
            })?;
            let id = self.choose(&mut logits, prompt, &answer, options, &mut sampler)?;
            if id.0 == options.eos {
                answer.finish_reason = FinishReason::Stop;
                break;
            }
            answer.ids.push(id.0);
            answer.log_probabilities.push(id.1);
            if on_token(id.0, id.1).is_break() {
                answer.finish_reason = FinishReason::Cancelled;
                break;
            }
            input = self.embed(&[id.0])?;
        }
        Ok(answer)
    }

    /// The prompt's embeddings `[ids.len(), hidden]`, the image's tokens in their places.
    ///
    /// # Errors
    /// When there are not as many vision tokens as places, or an id is beyond the vocabulary.
    pub fn embed_prompt(&self, prompt: &Prompt<'_>) -> Result<Tensor> {
        let Range { start, end } = prompt.image;
        let vision = prompt.vision;
        if start > end || end > prompt.ids.len() || vision.dim(0)? != end - start {
            let (places, tokens) = (end.saturating_sub(start), vision.dim(0)?);
            return Err(Error::Options(format!(
                "{tokens} vision tokens for {places} places"
            )));
        }
        let parts = [
            self.embed(&prompt.ids[..start])?,
            vision.clone(),
            self.embed(&prompt.ids[end..])?,
        ];
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The next token and its log-probability.
    fn choose(
        &self,
        logits: &mut [f32],
        prompt: &Prompt<'_>,
        answer: &Answer,
        options: &GenerateOptions,
        sampler: &mut Sampler,
    ) -> Result<(u32, f32)> {
        let not_finite = || Error::NotFinite(answer.ids.len());
        let banned = options
            .no_repeat_ngram
            .as_ref()
            .map(|g| g.banned(prompt.ids, &answer.ids));
        let id = match &banned {
            Some(banned) if !banned.is_empty() => {
                let mut allowed = logits.to_vec();
                let known = banned.iter().filter(|id| (**id as usize) < logits.len());
                known.for_each(|id| allowed[*id as usize] = f32::NEG_INFINITY);
                sampler.next(&allowed)
            }
            _ => sampler.next(logits),
        };
        let id = id.ok_or_else(not_finite)?;
        Ok((id, log_probability(logits, id as usize)))
    }
}
