//! Bytes to images: sniffing, base64, `data:` URIs, and every decoder but that of PDFs.
#![no_main]

use agx_ocr_fuzz::pages;
use agx_ocr_pipeline::input::{Document, Format};
use base64::{Engine, engine::general_purpose::STANDARD};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    pages::decode_all(bytes, 72.0);
    // What is an image is the same image in base64.
    let format = Format::of(bytes);
    if format.is_some_and(|format| format != Format::Pdf) {
        let document = Document::open(STANDARD.encode(bytes), &pages::limits());
        assert_eq!(document.ok().map(|document| document.format()), format);
    }
});
