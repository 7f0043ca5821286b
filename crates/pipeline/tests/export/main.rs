//! Pages in other formats: what is written is read back, by other programs where possible.

mod alto;
mod figures;
mod hocr;
mod overlay;
#[cfg(feature = "pdf")]
mod pdf;
#[cfg(feature = "pdf")]
mod pdf_text;

use std::path::Path;

use agx_ocr_pipeline::{Ocr, Options, Page, Region, Task};
use image::{Rgb, RgbImage};
use proptest::prelude::*;

/// Everything that has a meaning in XML or none at all, and text that does not run from left to
/// right in letters of one byte.
const HOSTILE: &str = "a ]]> & &amp; <b title=\"x\" 'y'>\u{0}\u{8}\u{b}\u{1f}\u{7f}\u{85}\u{fffe}\u{ffff} \t שלום عالم 👩🏽‍🔬 e\u{301} ﬁ 语";

/// What the mini model reads in a picture of one line.
fn read() -> Page {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let model = fixtures.join("models/agx-ocr-mini");
    let ocr = Ocr::load(model, Options::default()).unwrap();
    let bytes = std::fs::read(fixtures.join("pages/line-total.png")).unwrap();
    ocr.read(&bytes, &Task::Text).unwrap()
}

fn page(width: u32, height: u32, regions: Vec<Region>) -> Page {
    let mut page = Page::default();
    page.model = "a model".to_owned();
    page.width = width;
    page.height = height;
    page.regions = regions;
    page
}

fn region(text: &str, bbox: [u32; 4]) -> Region {
    let mut region = Region::new(text, bbox);
    region.confidence = 0.5;
    region
}

fn labelled(label: &str, text: &str, bbox: [u32; 4]) -> Region {
    let mut region = region(text, bbox);
    region.label = Some(label.to_owned());
    region
}

/// A picture in which each pixel says where it is.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([x as u8, y as u8, (x / 256) as u8])
    })
}

/// The text with a mark for each character that XML cannot hold.
fn in_xml(text: &str) -> String {
    let allowed = |c: char| match c {
        '\t' | '\n' | '\r' => true,
        c => u32::from(c) >= 0x20 && c != '\u{fffe}' && c != '\u{ffff}',
    };
    let mark = |c| if allowed(c) { c } else { '\u{fffd}' };
    text.chars().map(mark).collect()
}

/// The lines of a text that an export should hold.
fn lines(text: &str) -> Vec<String> {
    let lines = text.split(['\n', '\r']);
    lines
        .filter(|line| !line.trim().is_empty())
        .map(in_xml)
        .collect()
}

fn box_inside([x0, y0, x1, y1]: [u32; 4], width: u32, height: u32) -> [u32; 4] {
    let order = |a: u32, b: u32, most: u32| (a.min(b).min(most), a.max(b).min(most));
    let (x, y) = (order(x0, x1, width), order(y0, y1, height));
    [x.0, y.0, x.1, y.1]
}

/// Text of characters from all over Unicode, the awkward ones often.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        any::<char>(),
        prop::sample::select(HOSTILE.chars().collect::<Vec<_>>()),
        prop::sample::select(vec!['\n', '\r', ' ', '<', '&', ']', '>', '-', '"']),
    ];
    prop::collection::vec(character, 0..40).prop_map(|text| text.into_iter().collect())
}

fn any_region() -> impl Strategy<Value = Region> {
    let label = prop::option::of(prop_oneof![Just("image".to_owned()), any_text()]);
    let side = || prop_oneof![0..200_u32, any::<u32>()];
    let bbox = (side(), side(), side(), side());
    (any_text(), label, bbox, any::<f32>()).prop_map(|(text, label, bbox, confidence)| {
        let mut region = region(&text, bbox.into());
        region.label = label;
        region.confidence = confidence;
        region
    })
}

fn any_pages() -> impl Strategy<Value = Vec<Page>> {
    let regions = prop::collection::vec(any_region(), 0..5);
    let size = || prop_oneof![0..200_u32, any::<u32>()];
    let page = (size(), size(), regions, any_text(), any::<f32>());
    let page = page.prop_map(|(width, height, regions, model, confidence)| {
        let mut page = page_of(width, height, regions);
        page.model = model;
        page.confidence = confidence;
        page
    });
    prop::collection::vec(page, 0..4)
}

use page as page_of;
