//! Answers that are decoded together.

use crate::{
    Answer, Decoder, Error, GenerateOptions, Prompt, Result, Sampling,
    decoding::{Chooser, Writing},
};
use agx_ocr_backend::{Extended, KvBatch, KvCache, Observer, Unobserved, awake, cat};
use candle_core::Tensor;
use std::{mem, ops::ControlFlow};
#[cfg(feature = "cuda")]
use {
    crate::generate::{ban, inner},
    agx_ocr_backend::{BatchOf, GreedyBatch},
};

/// Answers that are decoded together: a step gives each of them its next token, and reads the
/// weights once for all. Each leaves when it has ended, and another may join at any time
/// (continuous batching, Yu et al., 2022).
///
/// An answer's tokens are those of [`Decoder::generate`], but for rounding: products of several rows
/// may be summed in another order, or of rounded factors.
///
/// On a GPU answers are decoded together where tokens are chosen greedily and there are kernels for the
/// model's sizes; with [`Sampling::Random`] they take turns there.
#[derive(Debug)]
pub struct Batch<'a> {
    decoder: &'a Decoder,
    options: GenerateOptions,
    size: usize,
    /// In the order of the caches'.
    rows: Vec<Row>,
    way: Way,
    joined: u64,
    /// Until they are fetched.
    ended: Vec<Ended>,
}

/// An answer that has ended, or why it could not.
pub type Ended = (Ticket, Result<Answer>);

/// An answer in a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What is told of a token: whose it is, the token, and its log-probability. It may end the answer.
pub type OnToken<'a> = dyn FnMut(Ticket, u32, f32) -> ControlFlow<()> + 'a;

/// An answer under way.
#[derive(Debug)]
struct Row {
    ticket: Ticket,
    writing: Writing,
    chooser: Chooser,
    /// Of the first token, until it is taken.
    logits: Option<Vec<f32>>,
    /// Where answers take turns.
    cache: Option<KvCache>,
    failed: Option<Error>,
}

/// How steps are taken.
#[derive(Debug)]
enum Way {
    /// One run of the decoder for all; the host chooses the tokens.
    Together(KvBatch),
    /// A run for each.
    InTurn,
    /// One run for all, and the device chooses.
    #[cfg(feature = "cuda")]
    Ahead(KvBatch, Box<GreedyBatch>),
}

impl<'a> Batch<'a> {
    /// No answers yet, and room for `size` at a time.
    ///
    /// # Errors
    /// When options are out of range, or the device has no memory.
    pub fn new(decoder: &'a Decoder, size: usize, options: &GenerateOptions) -> Result<Self> {
        options.sampling.check()?;
        let device = decoder.device();
        let together = device.is_cpu() || options.sampling == Sampling::Greedy;
        let way = match together {
            true => Way::together(decoder, size, options)?,
            false => Way::InTurn,
        };
        Ok(Self {
            decoder,
            options: options.clone(),
            size,
            rows: Vec::new(),
            way,
            joined: 0,
            ended: Vec::new(),
        })
    }

    /// Answers under way, or not fetched yet.
    pub fn len(&self) -> usize {
        self.rows.len() + self.ended.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether another answer may join.
    pub fn has_room(&self) -> bool {
        self.rows.len() < self.size
    }

    /// Runs a prompt, whose answer is written from the next step on.
    ///
    /// # Errors
    /// When there is no room, the prompt does not fit the model, memory cannot be had, or
    /// `observer` stops. The others' answers go on.
    pub fn join(&mut self, prompt: &Prompt<'_>, observer: &dyn Observer) -> Result<Ticket> {
        let joined = self.join_all(&[prompt], observer)?;
        let none = || Error::Options("a prompt that did not join".into());
        joined.first().copied().ok_or_else(none)
    }

    /// The same for several prompts, which read the weights once for all: all of them join, or none.
    ///
    /// # Errors
    /// As of [`Self::join`].
    pub fn join_all(
        &mut self,
        prompts: &[&Prompt<'_>],
        observer: &dyn Observer,
    ) -> Result<Vec<Ticket>> {
        if self.rows.len() + prompts.len() > self.size {
            let message = format!("a batch of {} answers is full", self.size);
            return Err(Error::Options(message));
        }
        let decoder = self.decoder;
        let (mut caches, mut embeddings, mut most) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in prompts {
            most.push(self.options.max_new_tokens.min(decoder.room(prompt.ids)?));
            let capacity = match &self.way {
                // The device moves them to pages.
                #[cfg(feature = "cuda")]
                Way::Ahead(..) => prompt.ids.len(),
                _ => prompt.ids.len() + most[most.len() - 1],
            };
            caches.push(decoder.cache(capacity));
            embeddings.push(decoder.embed_prompt(prompt)?);
        }
        let embeddings = match embeddings.len() {
            0 => return Ok(Vec::new()),
            1 => embeddings.remove(0),
            _ => cat(&embeddings.iter().collect::<Vec<_>>(), 0)?,
        };
        let counts = prompts.iter().map(|prompt| prompt.ids.len());
        let sequences = counts.zip(&mut caches);
        let sequences = sequences.map(|(count, cache)| Extended { count, cache });
        let mut sequences: Vec<_> = sequences.collect();
        let logits = decoder.next_logits_all(embeddings, &mut sequences, observer)?;

        let before = self.rows.len();
        let prompted = prompts.iter().zip(most).zip(caches).enumerate();
        for (i, ((prompt, most), cache)) in prompted {
            let taken = logits.narrow(0, i, 1).map_err(Into::into);
            let taken = taken.and_then(|logits| self.take_in(prompt, most, cache, &logits));
            if let Err(error) = taken {
                while self.rows.len() > before {
                    self.remove(self.rows.len() - 1);
                }
                return Err(error);
            }
        }
        Ok(self.rows[before..].iter().map(|row| row.ticket).collect())
    }

    /// Takes in an answer of at most so many tokens, whose prompt is in the cache and ends with these
    /// logits.
    fn take_in(
        &mut self,
        prompt: &Prompt<'_>,
        most: usize,
        cache: KvCache,
        logits: &Tensor,
    ) -> Result<()> {
        let ticket = Ticket(self.joined);
        let mut row = Row {
            ticket,
            writing: Writing::new(most, &self.options),
            chooser: Chooser::new(prompt.ids, &self.options),
            logits: None,
            cache: None,
            failed: None,
        };
        match &mut self.way {
            Way::Together(caches) => {
                row.logits = Some(logits.flatten_all()?.to_vec1()?);
                caches.join(cache)?;
            }
            Way::InTurn => {
                row.logits = Some(logits.flatten_all()?.to_vec1()?);
                row.cache = Some(cache);
            }
            #[cfg(feature = "cuda")]
            Way::Ahead(caches, ahead) => {
                caches.join(cache)?;
                let joined = ahead.join(ticket.0, caches, prompt.ids, most, logits);
                if let Err(error) = joined {
                    caches.leave(self.rows.len());
                    return Err(error.into());
                }
            }
        }
        self.rows.push(row);
        self.joined += 1;
        Ok(())
    }

    /// Gives each answer its next token, one that has just joined two, and returns those that have
    /// ended. An answer that fails does not take the others with it. On a GPU tokens come some steps
    /// later.
    ///
    /// # Errors
    /// When a step fails for all. Where a device's memory cannot be had
    /// ([`Error::is_out_of_memory`]) the answers can go on once there are fewer
    /// ([`Self::leave`]).
    pub fn step(&mut self, on_token: &mut OnToken<'_>) -> Result<Vec<Ended>> {
        for row in &mut self.rows {
            if let Some(logits) = row.logits.take() {
                row.choose(&logits, on_token);
            }
        }
        self.remove_ended();
        if !self.rows.is_empty() {
            self.advance(on_token)?;
            self.remove_ended();
        }
        Ok(mem::take(&mut self.ended))
    }

    /// One token more for each answer.
    fn advance(&mut self, on_token: &mut OnToken<'_>) -> Result<()> {
        let (decoder, rows) = (self.decoder, &mut self.rows);
        match &mut self.way {
            Way::Together(caches) => {
                let ids: Vec<u32> = rows.iter().map(Row::last).collect();
                let logits = awake(decoder.device(), || {
                    let last = decoder.forward_each(decoder.embed(&ids)?, caches)?;
                    decoder.logits(&last, &Unobserved)
                })?;
                for (i, row) in rows.iter_mut().enumerate() {
                    row.choose(&logits.get(i)?.to_vec1()?, on_token);
                }
            }
            Way::InTurn => {
                for row in rows {
                    let logits = row.step(decoder)?;
                    row.choose(&logits, on_token);
                }
            }
            #[cfg(feature = "cuda")]
            Way::Ahead(caches, ahead) => {
                let step = |caches: &mut KvBatch, x: Tensor| {
                    let last = decoder.forward_each(x, caches).map_err(inner)?;
                    decoder.logits(&last, &Unobserved).map_err(inner)
                };
                for (ticket, picked) in ahead.next(caches, decoder.embeddings(), step)? {
                    // Those that have ended had steps in advance.
                    if let Some(row) = rows.iter_mut().find(|row| row.ticket.0 == ticket) {
                        row.take(picked.chosen(), on_token);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether an answer is under way.
    pub fn has(&self, ticket: Ticket) -> bool {
        self.rows.iter().any(|row| row.ticket == ticket)
    }

    /// Gives back the memory of answers that have ended, where a device keeps it for those to come.
    pub fn release(&mut self) {
        match &mut self.way {
            Way::Together(caches) => caches.release(),
            Way::InTurn => {}
            #[cfg(feature = "cuda")]
            Way::Ahead(caches, _) => caches.release(),
        }
    }

    /// Gives up an answer; `false` where it has ended already.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let row = self.rows.iter().position(|row| row.ticket == ticket);
        if let Some(row) = row {
            self.remove(row);
        }
        row.is_some()
    }

    /// Removes the rows that are over, or failed.
    fn remove_ended(&mut self) {
        for row in (0..self.rows.len()).rev() {
            if self.rows[row].is_over() {
                let Row {
                    ticket,
                    writing,
                    failed,
                    ..
                } = self.remove(row);
                let answer = failed.map_or_else(|| Ok(writing.into_answer()), Err);
                self.ended.push((ticket, answer));
            }
        }
    }

    /// Takes a row out of all that has rows.
    fn remove(&mut self, row: usize) -> Row {
        match &mut self.way {
            Way::Together(caches) => caches.leave(row),
            Way::InTurn => {}
            #[cfg(feature = "cuda")]
            Way::Ahead(caches, ahead) => {
                caches.leave(row);
                ahead.leave(row);
            }
        }
        self.rows.swap_remove(row)
    }
}

impl Way {
    fn together(decoder: &Decoder, size: usize, options: &GenerateOptions) -> Result<Self> {
        let (device, config) = (decoder.device(), decoder.config());
        let caches = KvBatch::new(device, size, config.max_position_embeddings)?;
        #[cfg(feature = "cuda")]
        if !device.is_cpu() {
            let of = BatchOf {
                positions: config.max_position_embeddings,
                hidden: config.hidden_size,
                head_dim: config.head_dim(),
                vocab: config.vocab_size,
            };
            let ahead = GreedyBatch::new(device, size, &of, ban(options))?;
            return Ok(ahead.map_or(Self::InTurn, |ahead| Self::Ahead(caches, Box::new(ahead))));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = options;
        Ok(Self::Together(caches))
    }
}

impl Row {
    /// The last token.
    fn last(&self) -> u32 {
        self.writing.ids().last().copied().unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.writing.is_over()
    }

    /// The logits behind the last token, by a run for this answer alone.
    fn step(&mut self, decoder: &Decoder) -> Result<Vec<f32>> {
        let x = decoder.embed(&[self.last()])?;
        let missing = || Error::Options("an answer without a cache".into());
        let cache = self.cache.as_mut().ok_or_else(missing)?;
        let logits = decoder.next_logits(x, cache, &Unobserved)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Chooses the next token out of its logits.
    fn choose(&mut self, logits: &[f32], on_token: &mut OnToken<'_>) {
        if !self.is_over() {
            let chosen = self.chooser.choose(logits, self.writing.ids());
            self.take(chosen.ok(), on_token);
        }
    }

    /// Takes the next token; `None` where there is none.
    fn take(&mut self, chosen: Option<(u32, f32)>, on_token: &mut OnToken<'_>) {
        let ticket = self.ticket;
        match chosen {
            Some((id, log_probability)) => {
                let mut tell = |id, log_probability| on_token(ticket, id, log_probability);
                self.writing.take(id, log_probability, &mut tell);
            }
            None => self.failed = Some(Error::NotFinite(self.writing.ids().len())),
        }
    }
}
