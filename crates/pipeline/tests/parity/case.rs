//! One image in one mode through the model, with everything on the way recorded.

use crate::{
    decoding::Decoding,
    device::options,
    dump::{self, Dump},
    fixtures,
};
use agx_ocr_backend::{
    Activations, Checkpoint, DeviceChoice, Elements, Observer, Result, Unobserved, open_device,
};
use agx_ocr_language::{
    Decoder, GenerateOptions, LanguageConfig, NgramScope, NoRepeatNgram, Prompt, Wanted,
};
use agx_ocr_pipeline::Precision;
use agx_ocr_text::{Tokenizer, prompt_ids};
use agx_ocr_vision::{
    VisionConfig, VisionEncoder,
    views::{self, ViewMode},
};
use candle_core::{DType, Device, Tensor};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    ops::{ControlFlow, Range},
    path::Path,
};

/// Where tests compute, without rounding or with that of large products.
fn device(activations: Activations) -> Device {
    let options = options();
    if matches!(options.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        return Device::Cpu;
    }
    let elements = match (activations, options.precision) {
        (Activations::F32, _) => Elements::F32,
        (_, Precision::F16) => Elements::F16,
        _ => Elements::Bf16,
    };
    open_device(options.device, elements, 0).unwrap().device
}

pub struct Model {
    pub tokenizer: Tokenizer,
    pub encoder: VisionEncoder,
    pub decoder: Decoder,
}

impl Model {
    pub fn load(dir: &Path, activations: Activations) -> Self {
        let config =
            serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        let vision = VisionConfig::from_json(&config).unwrap();
        let language = LanguageConfig::from_json(&config).unwrap();
        let checkpoint = Checkpoint::open(dir).unwrap();
        let (encoder, decoder) = checkpoint
            .build(&device(activations), activations, |loader| {
                let encoder = VisionEncoder::new(&vision, &loader.sub("model"));
                (encoder, Decoder::new(&language, loader))
            })
            .unwrap();
        let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json")).unwrap();
        Self {
            tokenizer,
            encoder: encoder.unwrap(),
            decoder,
        }
    }

    /// The logits behind every position of `ids`, with `vision` at `image`.
    pub fn logits(
        &self,
        vision: &Tensor,
        ids: &[u32],
        image: &Range<usize>,
        observer: &dyn Observer,
    ) -> Tensor {
        let prompt = Prompt {
            ids,
            image: image.clone(),
            vision,
        };
        let embeddings = self.decoder.embed_prompt(&prompt).unwrap();
        let mut cache = self.decoder.cache(ids.len());
        let x = self
            .decoder
            .forward(embeddings, &mut cache, Wanted::All, observer)
            .unwrap();
        self.decoder.logits(&x, observer).unwrap()
    }
}

/// What a run gave, beside the reference's dump of the same.
pub struct Case {
    pub name: &'static str,
    pub dump: Dump,
    /// Stages by the dump's names, f32.
    pub stages: BTreeMap<String, Tensor>,
    /// Greedy tokens, as many as the dump has.
    pub tokens: Vec<u32>,
    /// Their log-probabilities beside those that the prompt's way gives.
    pub decoding: Decoding,
    /// Greedy tokens under the reference's three guards, where the dump has them.
    pub guarded: Vec<(&'static str, Vec<u32>)>,
}

impl Case {
    pub fn run(model: &Model, dumps: &Path, name: &'static str) -> Self {
        let (image, mode) = name.split_once('_').unwrap();
        let file = if name == "small_gundam" {
            "small_base"
        } else {
            name
        };
        let dump = Dump::open(&dumps.join(format!("{file}.safetensors")));
        let image = image::open(fixtures().join(format!("images/{image}.png")))
            .unwrap()
            .to_rgb8();
        let mode = match mode {
            "tiny" => ViewMode::TINY,
            "small" => ViewMode::SMALL,
            "base" => ViewMode::BASE,
            "large" => ViewMode::LARGE,
            _ => ViewMode::GUNDAM,
        };
        let recorder = Recorder::default();
        let views = views::prepare(&image, &mode).unwrap();
        let record = |stage: fmt::Arguments<'_>, value: &Tensor| recorder.vision(stage, value);
        let vision = model
            .encoder
            .encode(&views, &record, &mut |_, _| ())
            .unwrap();

        let prompt = dump::prompt(dumps, file);
        let prompt = prompt_ids(&model.tokenizer, &prompt, vision.dim(0).unwrap()).unwrap();
        assert_eq!(
            Some(prompt.ids.clone()),
            dump.ids("input.input_ids"),
            "{name}: prompt"
        );
        let record = |stage: fmt::Arguments<'_>, value: &Tensor| recorder.language(stage, value);
        let logits = model.logits(&vision, &prompt.ids, &prompt.image, &record);
        recorder.add("logits.all", &logits);
        let last = logits.get(prompt.ids.len() - 1).unwrap();
        recorder.add("logits.last", &last);

        let input = Prompt {
            ids: &prompt.ids,
            image: prompt.image.clone(),
            vision: &vision,
        };
        let wanted = dump.get("gen.tokens").map_or(0, |(_, tokens)| tokens.len());
        // The reference's runs do not stop at the end token.
        let options = GenerateOptions::new(u32::MAX, wanted);
        let generate = |guard: Option<NoRepeatNgram>| {
            let mut options = options.clone();
            options.no_repeat_ngram = guard;
            let go_on = &mut |_, _| ControlFlow::Continue(());
            model
                .decoder
                .generate(&input, &options, &Unobserved, go_on)
                .unwrap()
        };
        let hf = |size| NoRepeatNgram {
            size,
            scope: NgramScope::All,
            whitelist: Vec::new(),
        };
        let vllm = NoRepeatNgram {
            size: 4,
            scope: NgramScope::Window(16),
            whitelist: vec![502, 503],
        };
        let guards = [
            ("gen_hf_ngram3.tokens", hf(3)),
            ("gen_hf_ngram20.tokens", hf(20)),
            ("gen_vllm_n4_w16.tokens", vllm),
        ];
        let guards = guards
            .into_iter()
            .filter(|(name, _)| dump.get(name).is_some());
        let guarded = guards
            .map(|(name, guard)| (name, generate(Some(guard)).ids))
            .collect();
        let answer = generate(None);
        let decoding = Decoding::of(model, &input, &options, &answer);
        Self {
            name,
            dump,
            stages: recorder.finish(),
            tokens: answer.ids,
            decoding,
            guarded,
        }
    }
}

/// Keeps stages under the dump's names and in its layout.
#[derive(Default)]
struct Recorder(RefCell<BTreeMap<String, Vec<Tensor>>>);

impl Recorder {
    fn vision(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> Result<()> {
        // A copy: the encoder goes on in the same memory.
        let value = value.to_device(&Device::Cpu)?.copy()?;
        let stage = stage.to_string();
        let (view, rest) = stage.split_once('.').unwrap_or((&stage, ""));
        // The reference keeps maps behind SAM's blocks with the channels first.
        let value = match rest {
            "sam" | "sam.neck" | "sam.net_2" => value.permute((0, 3, 1, 2))?.contiguous()?,
            "proj" => value.flatten(1, 2)?,
            _ => value,
        };
        let name = match view {
            "seq" => "vis.seq".to_owned(),
            "global" => format!("vis.global.{rest}"),
            _ => format!("vis.local.{rest}"),
        };
        self.add(&name, &value);
        Ok(())
    }

    fn language(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> Result<()> {
        self.add(&format!("lm.{stage}"), value);
        Ok(())
    }

    fn add(&self, name: &str, value: &Tensor) {
        let value = value.to_device(&Device::Cpu).unwrap();
        let value = value.to_dtype(DType::F32).unwrap().copy().unwrap();
        self.0
            .borrow_mut()
            .entry(name.to_owned())
            .or_default()
            .push(value);
    }

    /// Tiles together in one tensor, as the reference computes them.
    fn finish(self) -> BTreeMap<String, Tensor> {
        let join = |(name, parts): (String, Vec<Tensor>)| (name, Tensor::cat(&parts, 0).unwrap());
        self.0.into_inner().into_iter().map(join).collect()
    }
}
