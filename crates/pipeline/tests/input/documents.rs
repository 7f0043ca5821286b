//! Documents of several pages.

use agx_ocr_pipeline::input::{DecodedImage, Document, Format, InputError, Limits, Rendering};
#[cfg(not(feature = "pdf"))]
use base64::{Engine, prelude::BASE64_STANDARD};
use image::RgbImage;

use crate::file;

/// A file of `fixtures/documents`.
fn document(name: &str) -> Result<Document, InputError> {
    let bytes = file(&format!("../documents/{name}"));
    Document::open(bytes, &Limits::default())
}

fn page(document: &Document, number: usize) -> Result<DecodedImage, InputError> {
    document.page(number, &Rendering::default())
}

/// A sample page.
fn sample(name: &str) -> RgbImage {
    let bytes = file(&format!("../pages/{name}.png"));
    image::load_from_memory(&bytes).unwrap().into_rgb8()
}

/// How far two images are from each other at most, in levels.
fn difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.iter().zip(b.iter());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

const NAMES: [&str; 3] = ["line-fox", "line-total", "line-error"];

#[test]
fn the_pages_of_a_tiff() {
    let mut files = vec![("grey.tiff", 0), ("fax.tiff", 127)];
    if cfg!(feature = "fax") {
        files.push(("fax_g3.tiff", 127));
    }
    for (name, most) in files {
        let document = document(name).unwrap();
        assert_eq!((document.format(), document.pages()), (Format::Tiff, 3));
        assert!(document.is_paged());
        for (number, name) in (1..).zip(NAMES) {
            let page = page(&document, number).unwrap();
            assert!(difference(&page.image, &sample(name)) <= most);
            assert!(page.warnings.is_empty());
        }
    }
}

#[test]
fn an_image_is_one_page() {
    let document = Document::open(file("rgb.png"), &Limits::default()).unwrap();
    assert_eq!((document.pages(), document.is_paged()), (1, false));
    for number in [0, 2, usize::MAX] {
        let error = page(&document, number).unwrap_err();
        assert!(error.to_string().contains("there is no page"), "{error}");
    }
}

#[test]
fn the_pages_to_be_read_are_limited() {
    let mut limits = Limits::default();
    limits.pages = 2;
    let document = Document::open(file("../documents/grey.tiff"), &limits).unwrap();
    assert!(document.check_pages(2).is_ok() && page(&document, 3).is_ok());
    let error = document.check_pages(document.pages()).unwrap_err();
    let (actual, limit) = (3, 2);
    assert!(
        matches!(error, InputError::TooManyPages { actual: a, limit: l } if (a, l) == (actual, limit)),
        "{error}"
    );
}

#[test]
fn only_what_can_be_read_is_asked_for() {
    let error = Document::open("<html>", &Limits::default()).unwrap_err();
    let pdf = error.to_string().contains("PDF");
    assert_eq!(pdf, cfg!(feature = "pdf"), "{error}");
}

#[test]
fn documents_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&document("grey.tiff").unwrap());
}

#[cfg(feature = "pdf")]
mod pdf {
    use super::*;
    use crate::picture;

    #[test]
    fn pages_are_drawn_at_144_dots_an_inch() {
        let document = document("pages.pdf").unwrap();
        assert_eq!((document.format(), document.pages()), (Format::Pdf, 3));
        for (number, name) in (1..).zip(NAMES) {
            let page = page(&document, number).unwrap();
            assert!(difference(&page.image, &sample(name)) <= 1, "{name}");
        }
    }

    #[test]
    fn other_resolutions_give_other_sizes() {
        let document = document("pages.pdf").unwrap();
        let mut rendering = Rendering::default();
        rendering.dpi = 72.0;
        let page = document.page(1, &rendering).unwrap();
        assert_eq!(page.image.dimensions(), (320, 30));
    }

    #[test]
    fn pages_are_turned_upright() {
        let document = document("turned.pdf").unwrap();
        let page = page(&document, 1).unwrap();
        assert!(difference(&page.image, &sample("line-fox")) <= 1);
    }

    #[test]
    fn a_font_that_is_not_embedded_is_drawn() {
        let document = document("text.pdf").unwrap();
        let page = page(&document, 1).unwrap();
        assert_eq!(page.image.dimensions(), (400, 60));
        let dark = page.image.pixels().filter(|pixel| pixel.0[0] < 128);
        assert!((500..4000).contains(&dark.count()));
        assert!(page.warnings.is_empty(), "{:?}", page.warnings);
    }

    #[test]
    fn a_password_is_asked_for_only_where_one_is_needed() {
        let error = document("encrypted.pdf").unwrap_err();
        assert!(matches!(error, InputError::Encrypted { .. }), "{error}");
        assert!(error.to_string().contains("password"), "{error}");
        let open = document("owner-only.pdf").unwrap();
        let image = page(&open, 2).unwrap().image;
        assert!(difference(&image, &sample("line-total")) <= 1);
    }

    #[test]
    fn a_broken_page_leaves_the_others() {
        let document = document("broken-page.pdf").unwrap();
        assert!(page(&document, 1).is_ok() && page(&document, 3).is_ok());
        let error = page(&document, 2).unwrap_err();
        assert!(
            error.to_string().contains("corrupt or invalid PDF"),
            "{error}"
        );
    }

    #[test]
    fn a_page_too_large_is_refused_before_it_is_drawn() {
        let document = document("huge-page.pdf").unwrap();
        let error = page(&document, 1).unwrap_err();
        assert!(
            error.to_string().contains("too large: 200000x200000"),
            "{error}"
        );
        assert!(page(&document, 2).is_ok());
    }

    #[test]
    fn a_side_that_cannot_be_drawn_is_refused_whatever_the_limits() {
        let mut limits = Limits::default();
        (limits.width, limits.height, limits.pixels) = (u32::MAX, u32::MAX, u64::MAX);
        let bytes = file("../documents/huge-page.pdf");
        let document = Document::open(bytes, &limits).unwrap();
        let message = page(&document, 1).unwrap_err().to_string();
        assert!(message.contains("too large: 200000x200000"), "{message}");
        assert!(message.contains("at most 65535x65535"), "{message}");
    }

    #[test]
    fn no_resolution_is_refused_as_such() {
        let document = document("pages.pdf").unwrap();
        let mut rendering = Rendering::default();
        for dpi in [0.0, -144.0, 0.5, f32::NAN, f32::INFINITY, -f32::INFINITY] {
            rendering.dpi = dpi;
            let error = document.page(1, &rendering).unwrap_err();
            assert!(matches!(error, InputError::Resolution { .. }), "{error}");
        }
        rendering.dpi = f32::MAX;
        let error = document.page(1, &rendering).unwrap_err();
        assert!(matches!(error, InputError::Dimensions { .. }), "{error}");
        rendering.dpi = 3.0;
        let page = document.page(1, &rendering).unwrap();
        assert_eq!(page.image.dimensions(), (13, 1));
    }

    #[test]
    fn other_bytes_may_come_first() {
        let bytes = [&b"a letterhead\r\n"[..], &file("../documents/text.pdf")].concat();
        assert_eq!(Format::of(&bytes), Some(Format::Pdf));
        // Such a file's table of places is off; it is searched instead.
        let document = Document::open(bytes, &Limits::default()).unwrap();
        assert!(page(&document, 1).is_ok());
    }

    #[test]
    fn rubbish_is_no_document() {
        let whole = file("../documents/pages.pdf");
        for bytes in [&b"%PDF-1.7"[..], b"%PDF-1.7\n1 0 obj << >>", &whole[..100]] {
            let error = Document::open(bytes, &Limits::default()).unwrap_err();
            assert!(
                error.to_string().contains("corrupt or invalid PDF"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_that_breaks_off_gives_what_is_left() {
        let whole = file("../documents/pages.pdf");
        let document = Document::open(&whole[..whole.len() - 400], &Limits::default());
        assert!(document.is_ok_and(|document| page(&document, 1).is_ok()));
    }

    #[test]
    fn an_image_in_a_pdf_is_not_a_pdf() {
        let mut bytes = crate::encode(picture(9, 9), image::ImageFormat::Png);
        bytes.extend(b"%PDF-1.7");
        assert_eq!(Format::of(&bytes), Some(Format::Png));
    }
}

#[cfg(not(feature = "pdf"))]
#[test]
fn without_the_feature_a_pdf_is_known_and_refused_by_name() {
    let bytes = file("../documents/pages.pdf");
    assert_eq!(Format::of(&bytes), Some(Format::Pdf));
    let encoded = BASE64_STANDARD.encode(&bytes);
    let uri = format!("data:application/pdf;base64,{encoded}");
    for bytes in [bytes, encoded.into(), uri.into()] {
        let error = Document::open(bytes, &Limits::default()).unwrap_err();
        assert!(matches!(
            error,
            InputError::Unsupported {
                format: Format::Pdf,
                ..
            }
        ));
        assert_eq!(
            error.to_string(),
            "this kind of PDF cannot be read: this build reads no PDF; convert it to PNG"
        );
    }
}
