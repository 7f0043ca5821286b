//! The mini model against the reference's texts, token by token: given the reference's tokens so
//! far, its next token must be ours too, unless the two are nearly tied.
//!
//! Nearly tied is what bf16 decides: the change of logits when the vision tokens are rounded to
//! bf16, or when products round their activations, is measured on all tokens of all pages, and
//! its root mean square is the measure for each.

use crate::case::Model;
use agx_ocr_backend::Unobserved;
use agx_ocr_text::{Task, prompt_ids};
use agx_ocr_vision::views::{self, Fit, ViewMode, Views};
use candle_core::{DType, Device, Tensor};
use std::{fs, path::Path};

/// A token where the reference's is not the best, and by how much.
struct Miss {
    place: String,
    behind: f64,
}

/// What one arithmetic makes of all pages.
#[derive(Default)]
struct Run {
    misses: Vec<Miss>,
    /// Sum of squares of the largest change of a logit, token by token.
    squares: f64,
}

impl Run {
    /// Takes note of one token: our logits, those of exact arithmetic, the reference's choice.
    fn token(&mut self, logits: &[f32], exact: &[f32], token: u32, place: &str) {
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let behind = f64::from(best - logits[token as usize]);
        if behind > 0.0 {
            let place = place.to_owned();
            self.misses.push(Miss { place, behind });
        }
        let change = logits.iter().zip(exact).map(|(a, b)| (a - b).abs());
        self.squares += f64::from(change.fold(0.0, f32::max)).powi(2);
    }
}

pub fn compare(exact: &Model, rounded: &Model, pages: &Path) {
    let view = ViewMode::Square {
        size: 640,
        fit: Fit::Pad,
    };
    let mut tokens = 0;
    let [mut plain, mut moved, mut fast] = [(); 3].map(|()| Run::default());
    for file in fs::read_dir(pages).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "png") {
            continue;
        }
        let views = views::prepare(&image::open(&path).unwrap().to_rgb8(), &view).unwrap();
        let vision = encode(exact, &views);
        let narrow = vision.to_device(&Device::Cpu).unwrap();
        let narrow = narrow.to_dtype(DType::BF16).unwrap();
        let narrow = narrow.to_dtype(DType::F32).unwrap();
        let narrow = narrow.to_device(vision.device()).unwrap();
        let fast_vision = encode(rounded, &views);
        for (task, kind) in [(Task::Text, "out.txt"), (Task::Ocr, "grounding.txt")] {
            let text = fs::read_to_string(path.with_extension(kind)).unwrap();
            let mut answer = exact.tokenizer.encode(text.trim_end()).unwrap();
            let prompt = prompt_ids(&exact.tokenizer, &task.prompt().unwrap(), 111).unwrap();
            let ids = [&prompt.ids[..], &answer].concat();
            let logits = |model: &Model, vision: &Tensor| -> Vec<Vec<f32>> {
                let all = model.logits(vision, &ids, &prompt.image, &Unobserved);
                let first = prompt.ids.len() - 1;
                let rows = all.narrow(0, first, answer.len() + 1).unwrap();
                rows.to_vec2().unwrap()
            };
            let of_exact = logits(exact, &vision);
            let of_moved = logits(exact, &narrow);
            let of_fast = logits(rounded, &fast_vision);
            answer.push(exact.tokenizer.special().eos);
            tokens += answer.len();
            for (i, &token) in answer.iter().enumerate() {
                let place = format!("{} {kind} token {i}", path.display());
                plain.token(&of_exact[i], &of_exact[i], token, &place);
                moved.token(&of_moved[i], &of_exact[i], token, &place);
                fast.token(&of_fast[i], &of_exact[i], token, &place);
            }
        }
    }
    let drift = |run: &Run| (run.squares / tokens as f64).sqrt();
    let (bf16, rounding) = (drift(&moved), drift(&fast));
    println!(
        "mini: {tokens} tokens; drift of bf16 vision tokens {bf16:.4}, of rounded activations {rounding:.4}"
    );
    assert!(tokens > 3000);
    // On a machine that rounds nothing, both runs are exact.
    for (name, run, drift) in [("f32", &plain, bf16), ("auto", &fast, rounding.max(bf16))] {
        for Miss { place, behind } in &run.misses {
            println!("{name}: {place} is {behind:.4} behind");
            assert!(
                *behind <= drift,
                "{name}: {place} is no near-tie: {behind:.4}"
            );
        }
    }
}

fn encode(model: &Model, views: &Views) -> Tensor {
    model
        .encoder
        .encode(views, &Unobserved, &mut |_, _| ())
        .unwrap()
}
