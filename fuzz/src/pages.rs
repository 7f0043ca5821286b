//! Opens a document and decodes its pages, within small limits.

use agx_ocr_pipeline::input::{Alpha, Document, Limits, Rendering};

/// Pages that are decoded of a document.
const PAGES: usize = 20;

/// Small limits, so that an execution is short.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.pixels = 1_000_000;
    limits.width = 8000;
    limits.height = 8000;
    limits.pages = PAGES;
    limits
}

/// Decodes every page, and checks that each is within the limits.
pub fn decode_all(bytes: &[u8], dpi: f32) {
    let limits = limits();
    let document = match Document::open(bytes, &limits) {
        Ok(document) => document,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(document.pages() > 0);
    assert!(document.page(0, &Rendering::default()).is_err());
    assert!(
        document
            .page(document.pages() + 1, &Rendering::default())
            .is_err()
    );
    for number in 1..=document.pages().min(PAGES) {
        let mut rendering = Rendering::default();
        rendering.dpi = dpi;
        if number % 2 == 0 {
            rendering.alpha = Alpha::Drop;
        }
        match document.page(number, &rendering) {
            Ok(page) => {
                let (width, height) = page.image.dimensions();
                // A turned image has its sides exchanged.
                let longest = limits.width.max(limits.height);
                assert!((1..=longest).contains(&width) && (1..=longest).contains(&height));
                assert!(u64::from(width) * u64::from(height) <= limits.pixels);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
