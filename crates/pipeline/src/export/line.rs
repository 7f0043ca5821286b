//! Lines of a region, and where they lie.

use crate::{Page, Region};

/// A line of a region's text.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// The text, without the line break.
    pub text: &'a str,
    /// Left, top, right and bottom in pixels of the page.
    pub bbox: [u32; 4],
}

/// The lines of a region that are not blank, each on an even share of the region's box.
pub(super) fn lines<'a>(page: &Page, region: &'a Region) -> Vec<Line<'a>> {
    let breaks = |c| matches!(c, '\n' | '\r');
    let texts = region.text.split(breaks);
    let texts: Vec<&str> = texts.filter(|text| !text.trim().is_empty()).collect();
    let [left, top, right, bottom] = clamped(region.bbox, page.width, page.height);
    let count = texts.len() as u64;
    // Below `bottom`, so it fits.
    let edge = |i: usize| top + (u64::from(bottom - top) * i as u64 / count) as u32;
    let line = |(i, text)| Line {
        text,
        bbox: [left, edge(i), right, edge(i + 1)],
    };
    texts.into_iter().enumerate().map(line).collect()
}

/// A box with its edges in order and inside a page.
pub(super) fn clamped([x0, y0, x1, y1]: [u32; 4], width: u32, height: u32) -> [u32; 4] {
    [
        x0.min(x1).min(width),
        y0.min(y1).min(height),
        x0.max(x1).min(width),
        y0.max(y1).min(height),
    ]
}

/// Whether a region is a figure: the label that leaves a mark in the page's text.
pub(super) fn is_figure(region: &Region) -> bool {
    region.label.as_deref() == Some("image")
}

/// A confidence from 0 to 1, whatever was given: 0 for what is not a number.
pub(super) fn share(confidence: f32) -> f32 {
    if confidence.is_nan() {
        0.0
    } else {
        confidence.clamp(0.0, 1.0)
    }
}
