//! The tiny random model's decoder.

use agx_ocr_backend::{Activations, Checkpoint};
use agx_ocr_language::{Decoder, LanguageConfig};
use candle_core::Device;
use std::path::Path;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/parity/tiny");
/// The half of the checkpoint that is not wanted here.
const VISION: [&str; 5] = [
    "model.sam_model",
    "model.vision_model",
    "model.projector",
    "model.image_newline",
    "model.view_seperator",
];

pub fn tiny() -> Decoder {
    let config = std::fs::read(Path::new(TINY).join("config.json")).unwrap();
    let config = LanguageConfig::from_json(&serde_json::from_slice(&config).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(Path::new(TINY)).unwrap().without(&VISION);
    let build = checkpoint.build(&Device::Cpu, Activations::F32, |loader| {
        Decoder::new(&config, loader)
    });
    build.unwrap()
}
