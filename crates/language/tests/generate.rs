//! The decoding loop with a whole decoder, the tiny random model.

mod tiny;

use agx_ocr_language::{
    Answer, Decoder, FinishReason, GenerateOptions, NgramScope, NoRepeatNgram, Prompt, Repeated,
    StopCycles,
};
use candle_core::{DType, Device, Tensor};
use std::{cell::Cell, fmt, ops::ControlFlow};
use tiny::tiny;

const VOCABULARY: usize = 512;
/// The one token that may come twice.
const LAST_LEFT: u32 = 7;

/// The answer, which must count the runs of the decoder. The model does not go round in circles
/// by itself; a guard that leaves it a single token makes it.
fn generate(decoder: &Decoder, stop_cycles: Option<StopCycles>) -> Answer {
    let hidden = decoder.config().hidden_size;
    let prompt = Prompt {
        ids: &[0, 496, 496, 5],
        image: 1..3,
        vision: &Tensor::zeros((2, hidden), DType::F32, &Device::Cpu).unwrap(),
    };
    let no_end = u32::MAX;
    let mut options = GenerateOptions::new(no_end, VOCABULARY + 100);
    options.no_repeat_ngram = Some(NoRepeatNgram {
        size: 1,
        scope: NgramScope::All,
        whitelist: vec![LAST_LEFT],
    });
    options.stop_cycles = stop_cycles;
    let runs = Cell::new(0);
    let count = |stage: fmt::Arguments<'_>, _: &Tensor| {
        runs.set(runs.get() + usize::from(stage.to_string() == "embeds"));
        Ok(())
    };
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let answer = decoder.generate(&prompt, &options, &count, go_on).unwrap();
    assert_eq!(runs.get(), answer.steps + 1, "the prompt is a run too");
    answer
}

#[test]
fn a_decoder_that_goes_round_in_circles_is_stopped() {
    let decoder = tiny();
    let whole = generate(&decoder, None);
    assert_eq!(whole.finish_reason, FinishReason::Length);

    let stopped = generate(&decoder, Some(StopCycles::default()));
    assert_eq!(stopped.finish_reason, FinishReason::Repetition);
    let repeated = Repeated {
        period: 1,
        trimmed: StopCycles::TOKENS - 1,
    };
    assert_eq!(stopped.repetition, Some(repeated));
    let kept = stopped.ids.len();
    assert_eq!(stopped.ids, whole.ids[..kept]);
    assert_eq!(stopped.log_probabilities, whole.log_probabilities[..kept]);
    assert_eq!(stopped.ids.last(), Some(&LAST_LEFT));
    assert!(kept < VOCABULARY + 50, "{kept}");

    let whitelist = vec![LAST_LEFT];
    assert_eq!(generate(&decoder, Some(StopCycles { whitelist })), whole);
}
