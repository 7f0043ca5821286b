//! Decoding beside the prompt's way through the decoder: a token has the same log-probability whether
//! those before it were decoded one by one, beside other answers, or given as a prompt, but for rounding.

use crate::case::Model;
use agx_ocr_backend::Unobserved;
use agx_ocr_language::{Answer, Batch, GenerateOptions, Prompt};
use std::{collections::BTreeMap, ops::ControlFlow};

/// How far the two ways are apart.
pub struct Decoding {
    /// Of each decoded token's log-probability.
    pub differences: Vec<f64>,
    /// The root mean square of the logits that it is made of.
    pub size: f64,
}

impl Decoding {
    /// For the answer to a prompt, and for its continuations that are decoded together.
    pub fn of(
        model: &Model,
        prompt: &Prompt<'_>,
        options: &GenerateOptions,
        answer: &Answer,
    ) -> Self {
        let whole = [prompt.ids, &answer.ids].concat();
        let logits = model.logits(prompt.vision, &whole, &prompt.image, &Unobserved);
        let count = answer.ids.len();
        let rows = logits.narrow(0, prompt.ids.len() - 1, count).unwrap();
        let rows: Vec<Vec<f32>> = rows.to_vec2().unwrap();
        let squares = rows.iter().flatten().map(|logit| f64::from(*logit).powi(2));
        let size = (squares.sum::<f64>() / rows.iter().map(Vec::len).sum::<usize>() as f64).sqrt();

        let mut differences = Vec::new();
        let mut compare = |given: usize, other: &Answer| {
            let tokens = other.ids.iter().zip(&other.log_probabilities);
            for ((i, row), (&id, &found)) in rows.iter().enumerate().skip(given).zip(tokens) {
                differences.push(f64::from(found) - log_probability(row, id));
                // Behind another token all others may follow.
                if id != answer.ids[i] {
                    break;
                }
            }
        };
        compare(0, answer);
        // As if so many tokens were given: no two are at the same position.
        let given: Vec<usize> = [0, 1, 5, 12].into_iter().filter(|n| *n < count).collect();
        for (given, other) in together(model, prompt, options, &whole, &given) {
            compare(given, &other);
        }
        Self { differences, size }
    }
}

/// Continuations of the prompt with so many tokens of `whole` behind it, decoded together.
fn together(
    model: &Model,
    prompt: &Prompt<'_>,
    options: &GenerateOptions,
    whole: &[u32],
    given: &[usize],
) -> Vec<(usize, Answer)> {
    let mut batch = Batch::new(&model.decoder, given.len(), options).unwrap();
    let mut tickets = BTreeMap::new();
    for &given in given {
        let ids = &whole[..prompt.ids.len() + given];
        let prompt = Prompt {
            ids,
            ..prompt.clone()
        };
        tickets.insert(batch.join(&prompt, &Unobserved).unwrap(), given);
    }
    let mut answers = Vec::new();
    while !batch.is_empty() {
        let ended = batch
            .step(&mut |_, _, _| ControlFlow::Continue(()))
            .unwrap();
        let ended = ended.into_iter();
        answers.extend(ended.map(|(ticket, answer)| (tickets[&ticket], answer.unwrap())));
    }
    assert_eq!(answers.len(), given.len());
    answers
}

fn log_probability(logits: &[f32], id: u32) -> f64 {
    let best = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum = logits
        .iter()
        .map(|logit| f64::from(logit - best).exp())
        .sum::<f64>();
    f64::from(logits[id as usize] - best) - sum.ln()
}
