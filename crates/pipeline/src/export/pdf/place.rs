//! Where the rows of a region's text go on the page.

use super::font::DESCENT;
use super::row::{Row, rows};
use crate::export::line::lines;
use crate::{Page, Region};

/// A row of text on the page, in pixels, upwards from the page's lower left corner.
pub(super) struct Placed {
    /// The characters from left to right.
    pub text: Vec<char>,
    /// Where the row begins.
    pub left: f32,
    /// Where the letters stand.
    pub baseline: f32,
    /// The height of the font.
    pub height: f32,
    /// The width of a letter that would be as wide as high.
    pub em: f32,
}

/// The rows of a region, such that the longest fills its box from left to right.
pub(super) fn placed(page: &Page, region: &Region) -> Vec<Placed> {
    let lines = lines(page, region).into_iter().map(|line| {
        let [left, top, right, bottom] = line.bbox;
        // At least a pixel, so that there is something to select.
        let (width, height) = (right - left, bottom - top);
        let (width, height) = (width.max(1) as f32, height.max(1) as f32);
        let rows = rows(line.text, width / height);
        (left as f32, top as f32, width, height, rows)
    });
    let lines: Vec<_> = lines.collect();
    let rows = lines.iter().flat_map(|(.., rows)| rows);
    let longest = rows.map(|row| row.width).fold(0.0, f32::max);

    let mut placed = Vec::new();
    for (left, top, width, height, rows) in lines {
        let height = height / rows.len() as f32;
        let em = width / longest;
        for (i, row) in rows.into_iter().enumerate() {
            let Row {
                text,
                width: ems,
                from_right,
            } = row;
            let indent = if from_right { width - ems * em } else { 0.0 };
            let bottom = top + height * (i + 1) as f32;
            placed.push(Placed {
                text,
                left: left + indent,
                baseline: page.height as f32 - bottom + height * DESCENT,
                height,
                em,
            });
        }
    }
    placed
}
