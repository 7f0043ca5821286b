//! Answers that are decoded together, by the tiny random model: those that each prompt gets alone.

mod tiny;

use agx_ocr_backend::Unobserved;
use agx_ocr_language::{
    Answer, Batch, Decoder, Error, FinishReason, GenerateOptions, NgramScope, NoRepeatNgram,
    Prompt, Sampling, Ticket,
};
use candle_core::{DType, Device, Tensor};
use std::{
    collections::BTreeMap,
    ops::ControlFlow::{Break, Continue},
};
use tiny::tiny;

/// The model says none by itself.
const NO_END: u32 = u32::MAX;

/// Prompts of different lengths.
fn prompts() -> Vec<Vec<u32>> {
    (0..6_u32)
        .map(|i| {
            (0..3 + 4 * i)
                .map(|j| (37 * i + 11 * j + 5) % 490)
                .collect()
        })
        .collect()
}

fn prompt<'a>(ids: &'a [u32], none: &'a Tensor) -> Prompt<'a> {
    Prompt {
        ids,
        image: 0..0,
        vision: none,
    }
}

fn no_image(decoder: &Decoder) -> Tensor {
    let hidden = decoder.config().hidden_size;
    Tensor::zeros((0, hidden), DType::F32, &Device::Cpu).unwrap()
}

fn options(tokens: usize) -> GenerateOptions {
    let mut options = GenerateOptions::new(NO_END, tokens);
    options.no_repeat_ngram = Some(NoRepeatNgram {
        size: 2,
        scope: NgramScope::All,
        whitelist: Vec::new(),
    });
    options
}

fn alone(decoder: &Decoder, ids: &[u32], options: &GenerateOptions) -> Answer {
    let none = no_image(decoder);
    let go_on = &mut |_, _| Continue(());
    let answer = decoder.generate(&prompt(ids, &none), options, &Unobserved, go_on);
    answer.unwrap()
}

/// All answers, `size` at a time, in the order of the prompts.
fn together(decoder: &Decoder, options: &GenerateOptions, size: usize) -> Vec<Answer> {
    let none = no_image(decoder);
    let mut batch = Batch::new(decoder, size, options).unwrap();
    let (mut told, mut answers) = (BTreeMap::<Ticket, Vec<u32>>::new(), BTreeMap::new());
    let mut prompts = prompts().into_iter();
    loop {
        while batch.has_room() {
            let Some(ids) = prompts.next() else { break };
            batch.join(&prompt(&ids, &none), &Unobserved).unwrap();
        }
        if batch.is_empty() {
            break;
        }
        let ended = batch.step(&mut |ticket, id, _| {
            told.entry(ticket).or_default().push(id);
            Continue(())
        });
        for (ticket, answer) in ended.unwrap() {
            answers.insert(ticket, answer.unwrap());
        }
    }
    for (ticket, answer) in &answers {
        assert_eq!(told.get(ticket).map_or(&[][..], Vec::as_slice), answer.ids);
    }
    answers.into_values().collect()
}

/// The same tokens with the same probabilities, but for rounding.
fn assert_same(found: &Answer, wanted: &Answer, what: &str) {
    assert_eq!(found.ids, wanted.ids, "{what}");
    assert_eq!(found.finish_reason, wanted.finish_reason, "{what}");
    assert_eq!(found.steps, wanted.steps, "{what}");
    let both = found.log_probabilities.iter();
    for (found, wanted) in both.zip(&wanted.log_probabilities) {
        assert!(
            (found - wanted).abs() < 1e-3,
            "{what}: {found} for {wanted}"
        );
    }
}

#[test]
fn answers_are_those_of_each_prompt_alone() {
    let decoder = tiny();
    let mut cut = options(40);
    // Some answers end early.
    cut.eos = alone(&decoder, &prompts()[2], &options(40)).ids[7];
    for options in [options(40), cut] {
        let wanted: Vec<Answer> = prompts()
            .iter()
            .map(|ids| alone(&decoder, ids, &options))
            .collect();
        for size in [1, 2, 4, 6] {
            for (i, (found, wanted)) in together(&decoder, &options, size)
                .into_iter()
                .zip(&wanted)
                .enumerate()
            {
                assert_same(&found, wanted, &format!("prompt {i}, {size} at a time"));
            }
        }
    }
}

#[test]
fn a_seed_gives_the_same_answer_in_any_company() {
    let decoder = tiny();
    let mut options = options(20);
    options.sampling = Sampling::Random {
        temperature: 0.7,
        top_p: 0.9,
        top_k: 20,
        seed: 11,
    };
    let wanted: Vec<_> = prompts()
        .iter()
        .map(|ids| alone(&decoder, ids, &options).ids)
        .collect();
    let found = together(&decoder, &options, 3).into_iter();
    assert!(found.map(|answer| answer.ids).eq(wanted));
}

#[test]
fn answers_of_no_and_of_one_token() {
    let decoder = tiny();
    for tokens in [0, 1] {
        for answer in together(&decoder, &options(tokens), 4) {
            assert_eq!(answer.ids.len(), tokens);
            assert_eq!(
                (answer.finish_reason, answer.steps),
                (FinishReason::Length, 0)
            );
        }
    }
}

#[test]
fn there_is_room_for_so_many() {
    let (decoder, ids) = (tiny(), [1, 2, 3]);
    let none = no_image(&decoder);
    let prompt = prompt(&ids, &none);
    let mut batch = Batch::new(&decoder, 2, &options(5)).unwrap();
    let first = batch.join(&prompt, &Unobserved).unwrap();
    batch.join(&prompt, &Unobserved).unwrap();
    let error = batch.join(&prompt, &Unobserved).unwrap_err();
    assert!(error.to_string().contains("a batch of 2"), "{error}");
    assert!(batch.leave(first) && !batch.leave(first));
    assert!(batch.has_room() && batch.len() == 1);
    batch.join(&prompt, &Unobserved).unwrap();
}

#[test]
fn prompts_that_join_together_are_run_as_each_is_alone() {
    let decoder = tiny();
    let (options, none, all) = (options(12), no_image(&decoder), prompts());
    let prompts: Vec<_> = all.iter().map(|ids| prompt(ids, &none)).collect();
    let mut batch = Batch::new(&decoder, prompts.len(), &options).unwrap();
    // Behind one that is under way.
    let first = batch.join(&prompts[0], &Unobserved).unwrap();
    batch.step(&mut |_, _, _| Continue(())).unwrap();
    let others: Vec<_> = prompts[1..].iter().collect();
    let tickets = batch.join_all(&others, &Unobserved).unwrap();
    let mut answers = BTreeMap::new();
    while !batch.is_empty() {
        let ended = batch.step(&mut |_, _, _| Continue(())).unwrap();
        answers.extend(
            ended
                .into_iter()
                .map(|(ticket, answer)| (ticket, answer.unwrap())),
        );
    }
    for (ticket, ids) in [first].iter().chain(&tickets).zip(&all) {
        let wanted = alone(&decoder, ids, &options);
        assert_same(&answers[ticket], &wanted, &format!("{ticket:?}"));
    }
}

#[test]
fn of_prompts_that_join_together_all_do_or_none() {
    let decoder = tiny();
    let (options, none, all) = (options(4), no_image(&decoder), prompts());
    let prompts: Vec<_> = all.iter().map(|ids| prompt(ids, &none)).collect();
    let long = vec![1; decoder.config().max_position_embeddings + 1];
    let too_long = prompt(&long, &none);
    let mut batch = Batch::new(&decoder, 2, &options).unwrap();
    let refused = batch.join_all(&[&prompts[0], &too_long], &Unobserved);
    assert!(refused.is_err() && batch.is_empty());
    let refused = batch.join_all(&prompts.iter().take(3).collect::<Vec<_>>(), &Unobserved);
    assert!(refused.unwrap_err().to_string().contains("full"));
    assert!(batch.join_all(&[], &Unobserved).unwrap().is_empty());
    let joined = batch.join_all(&[&prompts[0], &prompts[1]], &Unobserved);
    assert_eq!((joined.unwrap().len(), batch.len()), (2, 2));
}

#[test]
fn a_prompt_that_does_not_fit_leaves_the_others_alone() {
    let decoder = tiny();
    let none = no_image(&decoder);
    let limit = decoder.config().max_position_embeddings;
    let mut batch = Batch::new(&decoder, 2, &options(3)).unwrap();
    batch.join(&prompt(&[1, 2, 3], &none), &Unobserved).unwrap();
    let long = vec![1; limit];
    let refused = batch.join(&prompt(&long, &none), &Unobserved);
    assert!(matches!(refused, Err(Error::PromptTooLong { .. })));
    let mut ended = Vec::new();
    while !batch.is_empty() {
        ended.extend(batch.step(&mut |_, _, _| Continue(())).unwrap());
    }
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].1.as_ref().unwrap().ids.len(), 3);
}

#[test]
fn one_is_stopped_and_the_other_goes_on() {
    let decoder = tiny();
    let none = no_image(&decoder);
    let mut batch = Batch::new(&decoder, 2, &options(9)).unwrap();
    let stopped = batch.join(&prompt(&[4, 2], &none), &Unobserved).unwrap();
    batch.join(&prompt(&[7, 8, 9], &none), &Unobserved).unwrap();
    let (mut count, mut ended) = (0, Vec::new());
    while !batch.is_empty() {
        let step = batch.step(&mut |ticket, _, _| {
            count += usize::from(ticket == stopped);
            match ticket == stopped && count == 4 {
                true => Break(()),
                false => Continue(()),
            }
        });
        ended.extend(step.unwrap());
    }
    let reasons: Vec<_> = ended
        .into_iter()
        .map(|(_, answer)| answer.unwrap())
        .map(|answer| (answer.finish_reason, answer.ids.len()))
        .collect();
    let wanted = [(FinishReason::Cancelled, 4), (FinishReason::Length, 9)];
    assert_eq!(reasons, wanted);
}
