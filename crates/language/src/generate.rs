//! Answers of the decoder: settings and results.

use crate::{
    Decoder, Error, NoRepeatNgram, Repeated, Result, Sampling, StopCycles,
    decoding::{Steps, decode},
};
use agx_ocr_backend::{KvCache, Observer, cat};
use candle_core::Tensor;
use serde::Serialize;
use std::ops::{ControlFlow, Range};
#[cfg(feature = "cuda")]
use {
    crate::{
        NgramScope,
        decoding::{Tokens, collect},
    },
    agx_ocr_backend::{Ban, Greedy},
};

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
    /// Whether an answer that repeats all the same is ended.
    pub stop_cycles: Option<StopCycles>,
}

impl GenerateOptions {
    /// Greedy decoding that lets the model repeat itself.
    pub fn new(eos: u32, max_new_tokens: usize) -> Self {
        Self {
            max_new_tokens,
            eos,
            sampling: Sampling::Greedy,
            no_repeat_ngram: None,
            stop_cycles: None,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// It reached the most tokens asked for, or the model's last position.
    Length,
    /// It went round in circles.
    Repetition,
    /// The time ran out. For callers who keep time; the decoding loop keeps none.
    Timeout,
    /// The caller stopped it.
    Cancelled,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its tokens, without the one that ended it and without the further copies of a cycle.
    pub ids: Vec<u32>,
    /// For each token the logarithm of the probability that the model gave it (softmax of its
    /// logits as they are, before guards and temperature).
    pub log_probabilities: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The cycle that ended it, where the reason is [`FinishReason::Repetition`].
    pub repetition: Option<Repeated>,
    /// Steps of the decoder after the prompt's, which gives the first token: one for each further
    /// token, those cut off and the one that ended the answer among them.
    pub steps: usize,
}

/// A decoder amid an answer.
struct Decoding<'a> {
    decoder: &'a Decoder,
    observer: &'a dyn Observer,
    cache: KvCache,
    /// The embeddings of the prompt, then those of one token, until the next step.
    input: Option<Tensor>,
}

impl Decoding<'_> {
    fn step(&mut self) -> Result<Vec<f32>> {
        let input = self.input.take().ok_or_else(nothing)?;
        let (decoder, observer) = (self.decoder, self.observer);
        let logits = decoder.next_logits(input, &mut self.cache, observer)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

impl Steps for Decoding<'_> {
    fn first(&mut self) -> Result<Vec<f32>> {
        self.step()
    }

    fn next(&mut self, id: u32) -> Result<Vec<f32>> {
        self.input = Some(self.decoder.embed(&[id])?);
        self.step()
    }
}

/// No step has an input: the prompt's was taken, and no token was given.
fn nothing() -> Error {
    Error::Options("a step without a token".into())
}

impl Decoder {
    /// Answers a prompt. `on_token` is called with each token and its log-probability as soon as
    /// it is known, and may stop. It sees the tokens of a cycle too, which are cut off the answer
    /// only when the cycle is known ([`GenerateOptions::stop_cycles`]).
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
        let most = options.max_new_tokens.min(self.room(prompt.ids)?);
        let mut model = Decoding {
            decoder: self,
            observer,
            cache: self.cache(prompt.ids.len() + most),
            input: Some(self.embed_prompt(prompt)?),
        };
        #[cfg(feature = "cuda")]
        if let Some(mut tokens) = Ahead::new(&mut model, prompt.ids, most, options)? {
            return collect(&mut tokens, most, options, on_token);
        }
        decode(&mut model, prompt.ids, most, options, on_token)
    }

    /// Positions that a prompt leaves for its answer, at least one.
    pub(crate) fn room(&self, prompt: &[u32]) -> Result<usize> {
        let limit = self.config().max_position_embeddings;
        let room = limit.checked_sub(prompt.len()).filter(|room| *room > 0);
        room.ok_or(Error::PromptTooLong {
            prompt: prompt.len(),
            limit,
        })
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
        let before = self.embed(&prompt.ids[..start])?;
        let after = self.embed(&prompt.ids[end..])?;
        Ok(cat(&[&before, vision, &after], 0)?)
    }
}

/// Tokens that a GPU chooses by itself, some steps in advance.
#[cfg(feature = "cuda")]
struct Ahead<'a, 'b> {
    model: &'a mut Decoding<'b>,
    greedy: Greedy,
}

#[cfg(feature = "cuda")]
impl<'a, 'b> Ahead<'a, 'b> {
    /// `None` where tokens are chosen otherwise: at random, on the CPU, or for an observer who
    /// looks at every step.
    fn new(
        model: &'a mut Decoding<'b>,
        prompt: &[u32],
        most: usize,
        options: &GenerateOptions,
    ) -> Result<Option<Self>> {
        if options.sampling != Sampling::Greedy || model.observer.looks() {
            return Ok(None);
        }
        let device = model.decoder.device();
        let greedy = Greedy::new(device, prompt, most, ban(options))?;
        Ok(greedy.map(|greedy| Self { model, greedy }))
    }
}

#[cfg(feature = "cuda")]
impl Tokens for Ahead<'_, '_> {
    fn next(&mut self, answer: &[u32]) -> Result<(u32, f32)> {
        let Decoding {
            decoder,
            observer,
            cache,
            input,
        } = &mut *self.model;
        let run = |cache: &mut KvCache, x: Tensor| -> agx_ocr_backend::Result<Tensor> {
            decoder.next_logits(x, cache, *observer).map_err(inner)
        };
        let first =
            |cache: &mut KvCache| run(cache, input.take().ok_or_else(nothing).map_err(inner)?);
        let picked = self.greedy.next(cache, decoder.embeddings(), first, run)?;
        let chosen = picked.and_then(|picked| picked.chosen());
        chosen.ok_or(Error::NotFinite(answer.len()))
    }
}

/// The guard as the device takes it.
#[cfg(feature = "cuda")]
pub(crate) fn ban(options: &GenerateOptions) -> Ban {
    let ban = options.no_repeat_ngram.as_ref().map(|guard| Ban {
        ngram: guard.size,
        window: match guard.scope {
            NgramScope::All => None,
            NgramScope::Window(window) => Some(window),
        },
        whitelist: guard.whitelist.clone(),
    });
    ban.unwrap_or_default()
}

/// An error of a step as the backend passes it on.
#[cfg(feature = "cuda")]
pub(crate) fn inner(error: Error) -> agx_ocr_backend::Error {
    match error {
        Error::Backend(error) => error,
        error => candle_core::Error::Msg(error.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_lowercase_names() {
        for (reason, name) in [
            (FinishReason::Stop, "stop"),
            (FinishReason::Length, "length"),
            (FinishReason::Repetition, "repetition"),
            (FinishReason::Timeout, "timeout"),
            (FinishReason::Cancelled, "cancelled"),
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), name);
        }
    }
}
