//! Bytes to images: formats, colours, orientation, limits, and everything that is not an image.
//!
//! `fixtures/inputs` holds files made by Pillow, and what Pillow reads from them.

mod documents;
mod fax;
mod read;
mod refused;
mod regressions;
mod tiff;

use std::io::Cursor;
use std::path::PathBuf;

use agx_ocr_pipeline::input::{Alpha, DecodedImage, Document, InputError, Limits, Rendering};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use proptest::sample::Index;

fn inputs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/inputs")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(inputs().join(name)).unwrap()
}

/// The first page.
fn decode(bytes: &[u8], limits: &Limits, alpha: Alpha) -> Result<DecodedImage, InputError> {
    let mut rendering = Rendering::default();
    rendering.alpha = alpha;
    Document::open(bytes, limits)?.page(1, &rendering)
}

fn read(bytes: &[u8]) -> Result<DecodedImage, InputError> {
    decode(bytes, &Limits::default(), Alpha::default())
}

/// Reads what can be read of a file some of whose bytes were overwritten.
fn read_damaged(mut file: Vec<u8>, damage: Vec<(Index, u8)>) {
    for (place, value) in damage {
        let place = place.index(file.len());
        file[place] = value;
    }
    let mut limits = Limits::default();
    limits.pixels = 1_000_000;
    if let Ok(document) = Document::open(file, &limits) {
        for number in 1..=document.pages().min(20) {
            let _ = document.page(number, &Rendering::default());
        }
    }
}

/// The message of the error that reading `bytes` ends in.
#[track_caller]
fn message(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture in which every pixel differs from its neighbours, and which no turn leaves as it is.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(7 * x) as u8, (11 * y) as u8, (x * y) as u8])
    })
}
