//! PDFs: whole files, and single parts in a file that is well otherwise.
//!
//! The reader may panic, which `Document` turns into an error. What is sought here are aborts,
//! overflows of the stack, and time and memory without bounds.
#![no_main]

use agx_ocr_fuzz::{document, made, only_own_panics, pages};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    only_own_panics();
    pages::decode_all(&made(document::pdf(data)), 36.0);
});
