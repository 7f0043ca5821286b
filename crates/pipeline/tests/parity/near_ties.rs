//! The mini model against the reference's texts, token by token: given the reference's tokens so
//! far, its next token must be ours too, unless the two are closer than bf16 drift moves logits.

use crate::case::Model;
use agx_ocr_backend::Unobserved;
use agx_ocr_text::{Task, prompt_ids};
use agx_ocr_vision::views::{self, Fit, ViewMode};
use candle_core::Tensor;
use std::{fs, path::Path};

pub fn compare(exact: &Model, rounded: &Model, pages: &Path) {
    let view = ViewMode::Square {
        size: 640,
        fit: Fit::Pad,
    };
    let (mut tokens, mut ties) = (0, 0);
    for file in fs::read_dir(pages).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "png") {
            continue;
        }
        let views = views::prepare(&image::open(&path).unwrap().to_rgb8(), &view).unwrap();
        let encode = |model: &Model| {
            model
                .encoder
                .encode(&views, &Unobserved, &mut |_, _| ())
                .unwrap()
        };
        let visions = [encode(exact), encode(rounded)];
        for (task, kind) in [(Task::Text, "out.txt"), (Task::Ocr, "grounding.txt")] {
            let text = fs::read_to_string(path.with_extension(kind)).unwrap();
            let answer = exact
                .tokenizer
                .encode(text.strip_suffix('\n').unwrap())
                .unwrap();
            let prompt = prompt_ids(&exact.tokenizer, &task.prompt().unwrap(), 111).unwrap();
            let ids = [&prompt.ids[..], &answer].concat();
            let logits = |model: &Model, vision: &Tensor| -> Vec<Vec<f32>> {
                let all = model.logits(vision, &ids, &prompt.image, &Unobserved);
                let first = prompt.ids.len() - 1;
                all.narrow(0, first, answer.len() + 1)
                    .unwrap()
                    .to_vec2()
                    .unwrap()
            };
            let [exact_logits, rounded_logits] =
                [logits(exact, &visions[0]), logits(rounded, &visions[1])];
            let end = exact.tokenizer.special().eos;
            for (i, &token) in answer.iter().chain([&end]).enumerate() {
                let (a, b) = (&exact_logits[i], &rounded_logits[i]);
                let drift = a
                    .iter()
                    .zip(b)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                tokens += 1;
                for logits in [a, b] {
                    let behind =
                        logits.iter().copied().fold(f32::MIN, f32::max) - logits[token as usize];
                    if behind > 0.0 {
                        ties += 1;
                        println!(
                            "{}: token {i} is {behind:.4} behind, drift {drift:.4}",
                            path.display()
                        );
                        // Two logits may move towards each other.
                        assert!(
                            behind <= 2.0 * drift,
                            "{} token {i}: no near-tie",
                            path.display()
                        );
                    }
                }
            }
        }
    }
    println!("mini: {tokens} tokens, {ties} near-ties in two precisions");
    assert!(tokens > 3000);
}
