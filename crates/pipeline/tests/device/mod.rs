//! The device and the arithmetic that tests compute with.

use agx_ocr_pipeline::{Options, Precision};
use std::env;

/// The defaults; but the device that `AGX_OCR_TEST_DEVICE` names, or an error where it cannot be used,
/// and the elements that `AGX_OCR_TEST_ELEMENTS` names: bf16, or f16.
pub fn options() -> Options {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let mut options = Options::default();
    if let Some(name) = variable("AGX_OCR_TEST_DEVICE") {
        options.device = name.parse().unwrap();
    }
    options.precision = match variable("AGX_OCR_TEST_ELEMENTS").as_deref() {
        None => Precision::Auto,
        Some("bf16") => Precision::Bf16,
        Some("f16") => Precision::F16,
        Some(other) => panic!("AGX_OCR_TEST_ELEMENTS={other}"),
    };
    options
}
