//! Searchable PDFs: their pages, their pictures, their bytes.

use agx_ocr_pipeline::export::{PdfError, SearchablePdf};
use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::Pdf;
use hayro::{PixmapSettings, RenderCache, RenderSettings};

use super::*;

pub fn document(dpi: f32, pages: &[(Page, RgbImage)]) -> Vec<u8> {
    let mut pdf = SearchablePdf::new(dpi);
    for (page, picture) in pages {
        pdf.add_page(page, picture).unwrap();
    }
    pdf.finish()
}

/// A picture that a JPEG changes little.
fn soft(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let share = |at: u32, side: u32| (at * 200 / side) as u8;
        let light = 20 + share(x, width) / 2 + share(y, height) / 2;
        Rgb([light, light, 255 - light])
    })
}

fn some_regions() -> Vec<Region> {
    vec![
        labelled("title", "A title", [10, 10, 190, 40]),
        labelled("image", "", [10, 50, 190, 90]),
        region("two\nlines 语", [10, 100, 190, 140]),
    ]
}

/// A page as it is seen, at one pixel of the result for each of `dpi`.
fn render(bytes: &[u8], index: usize, dpi: f32) -> RgbImage {
    let pdf = Pdf::new(bytes.to_vec()).unwrap();
    let settings = PixmapSettings {
        x_scale: dpi / 72.0,
        y_scale: dpi / 72.0,
        ..Default::default()
    };
    let pixels = hayro::render(
        &pdf.pages()[index],
        &RenderCache::new(),
        &InterpreterSettings::default(),
        &RenderSettings::default(),
        &settings,
    );
    RgbImage::from_fn(pixels.width().into(), pixels.height().into(), |x, y| {
        let pixel = pixels.sample(x as u16, y as u16);
        assert_eq!(pixel.a, 255);
        Rgb([pixel.r, pixel.g, pixel.b])
    })
}

/// The largest difference of a colour, a few pixels from the edges.
fn difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    let inner =
        |x: u32, y: u32| (3..a.width() - 3).contains(&x) && (3..a.height() - 3).contains(&y);
    let pixels = a.enumerate_pixels().filter(|(x, y, _)| inner(*x, *y));
    let differences = pixels.flat_map(|(x, y, pixel)| {
        let other = b.get_pixel(x, y).0;
        pixel.0.into_iter().zip(other).map(|(a, b)| a.abs_diff(b))
    });
    differences.max().unwrap()
}

#[test]
fn pages_have_the_size_of_their_pixels() {
    let bytes = document(
        300.0,
        &[
            (page(2550, 3300, vec![]), soft(2550, 3300)),
            (page(100, 50, some_regions()), soft(100, 50)),
        ],
    );
    let pdf = Pdf::new(bytes).unwrap();
    let pages = pdf.pages().iter();
    let sizes: Vec<_> = pages.map(|page| page.render_dimensions()).collect();
    assert_eq!(sizes, [(612.0, 792.0), (24.0, 12.0)]);
}

#[test]
fn the_picture_is_seen_and_the_text_is_not() {
    let picture = soft(200, 150);
    let with_text = document(72.0, &[(page(200, 150, some_regions()), picture.clone())]);
    let without = document(72.0, &[(page(200, 150, vec![]), picture.clone())]);
    assert!(with_text.len() > without.len() + 1000);
    let seen = render(&with_text, 0, 72.0);
    assert_eq!(seen, render(&without, 0, 72.0));
    let difference = difference(&seen, &picture);
    assert!(difference < 12, "{difference}");
}

#[test]
fn a_picture_of_another_size_fills_the_page() {
    let small = document(144.0, &[(page(400, 300, vec![]), soft(200, 150))]);
    assert_eq!(
        Pdf::new(small.clone()).unwrap().pages()[0].render_dimensions(),
        (200.0, 150.0)
    );
    let difference = difference(&render(&small, 0, 72.0), &soft(200, 150));
    assert!(difference < 12, "{difference}");
}

#[test]
fn the_same_pages_give_the_same_bytes() {
    let make = || {
        let pages = [
            (page(200, 150, some_regions()), soft(200, 150)),
            (page(200, 150, some_regions()), soft(200, 150)),
        ];
        document(100.0, &pages)
    };
    assert_eq!(make(), make());
}

#[test]
fn the_size_so_far_is_about_that_of_the_document() {
    let many: String = (0x4e00..0x5200_u32).filter_map(char::from_u32).collect();
    for (pages, side, regions) in [
        (0, 0, vec![]),
        (1, 200, some_regions()),
        (99, 1, vec![]),
        (40, 200, some_regions()),
        (2, 200, vec![region(&many, [0, 0, 200, 150])]),
    ] {
        let mut pdf = SearchablePdf::new(100.0);
        for added in 0..pages {
            assert_eq!(pdf.pages(), added);
            let before = pdf.size();
            pdf.add_page(&page(200, 150, regions.clone()), &soft(side, side))
                .unwrap();
            assert!(pdf.size() > before);
        }
        let size = pdf.size() as f64;
        let length = pdf.finish().len() as f64;
        assert!(
            (size - length).abs() < 0.02 * length + 50.0,
            "{pages}: {size} {length}"
        );
    }
}

#[test]
fn what_is_impossible_is_refused_and_changes_nothing() {
    let mut pdf = SearchablePdf::new(100.0);
    pdf.add_page(&page(10, 10, vec![]), &soft(10, 10)).unwrap();
    for (side, picture) in [(65_536, RgbImage::new(65_536, 1)), (0, RgbImage::new(0, 5))] {
        let refused = pdf.add_page(&page(10, 10, some_regions()), &picture);
        assert!(
            matches!(refused, Err(PdfError::PictureSize { width, .. }) if width == side),
            "{refused:?}"
        );
    }
    for (width, height) in [(0, 10), (10, 0), (20_001, 10), (10, u32::MAX)] {
        let refused = pdf.add_page(&page(width, height, some_regions()), &soft(10, 10));
        assert!(
            matches!(refused, Err(PdfError::PageSize { .. })),
            "{refused:?}"
        );
    }
    let refused = pdf.add_page(&page(20_001, 10, vec![]), &soft(10, 10));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "a page of 20001 x 10 pixels at 100 dpi cannot be a PDF page: \
         sides are more than 0 and at most 14400/72 inches"
    );
    assert_eq!(
        pdf.finish(),
        document(100.0, &[(page(10, 10, vec![]), soft(10, 10))])
    );

    for dpi in [
        0.0,
        -0.0,
        -300.0,
        f32::NAN,
        f32::INFINITY,
        f32::MIN_POSITIVE,
    ] {
        let refused = SearchablePdf::new(dpi).add_page(&page(10, 10, vec![]), &soft(10, 10));
        assert!(
            matches!(refused, Err(PdfError::PageSize { .. })),
            "{dpi}: {refused:?}"
        );
    }
}

#[test]
fn the_largest_picture_is_taken() {
    let page = page(65_535, 1, vec![]);
    let bytes = document(400.0, &[(page, RgbImage::new(65_535, 1))]);
    assert_eq!(Pdf::new(bytes).unwrap().pages().len(), 1);
}

#[test]
fn without_text_there_is_no_font() {
    let blank = vec![region("", [0, 0, 9, 9]), region(" \n\t\u{0}", [0, 0, 9, 9])];
    for regions in [vec![], blank] {
        let bytes = document(72.0, &[(page(20, 10, regions), soft(20, 10))]);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("/DCTDecode"));
        for part in ["/Font", "BT", "ToUnicode"] {
            assert!(!text.contains(part), "{part}");
        }
    }
}
