//! Cutting a page whose text is too small for one view into bands, between its rows of text.
//!
//! A view shows the whole page at `view size / longer side`. On a tall page, or a page with wide
//! margins, letters get smaller than they need be: a receipt of 460 x 1010 pixels is shown at 0.63,
//! each of its thirds at 1.39. [`split`] looks at the page itself and decides:
//!
//! 1. The height of letters is measured, and from it the em that they have in the view.
//! 2. The page stays whole if its em is at least a patch of the encoder, 16 pixels. Read with the
//!    mini model, eight scanned receipts have 54 % wrong characters at an em of 10 pixels, 34 % at
//!    12, 25 % at 14, 19 % at 16, and no fewer above that. A page more than twice as high as wide
//!    leaves most of its view empty, and is given two patches before it is left whole.
//! 3. Otherwise the blank margins are cut off; if that is enough, the rest is the only band.
//! 4. Otherwise the page is cut into bands no taller than 3/4 of their width, in the last gap
//!    between rows that a band can reach; where there is none (a skewed page), at the row with the
//!    least ink.
//!
//! So read, the eight receipts have 14 % wrong characters instead of 25 %, and on pages with wide
//! margins 16 % instead of 49 %.
//!
//! Bands leave out blank rows only, and there is no band without ink: a reader of an empty view
//! makes up text.

mod ink;

use image::{RgbImage, imageops};

use ink::Ink;

/// Side of the encoder's patches in pixels.
const PATCH: f64 = 16.0;
/// Height of capitals and digits in ems, in most Latin typefaces.
const CAP_HEIGHT: f64 = 0.72;
/// How tall a page is, against its width, that leaves half of its view empty.
const TALL: u32 = 2;
/// Height of a band against its width.
const BAND_SHAPE: f64 = 0.75;
/// Bands that would enlarge the text by less are not worth their further views.
const LEAST_GAIN: f64 = 1.25;
/// Cells of ink that may lie in a blank row or column. One stroke has four.
const TRACE: u32 = 2;

/// A rectangle of a page, in pixels; `right` and `bottom` lie outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Band {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Column after the last.
    pub right: u32,
    /// Row after the last.
    pub bottom: u32,
}

impl Band {
    /// The band that covers a whole image.
    pub fn whole(image: &RgbImage) -> Self {
        Self {
            left: 0,
            top: 0,
            right: image.width(),
            bottom: image.height(),
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.right - self.left
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.bottom - self.top
    }

    /// The pixels of the band.
    pub fn crop(&self, image: &RgbImage) -> RgbImage {
        imageops::crop_imm(image, self.left, self.top, self.width(), self.height()).to_image()
    }
}

/// The bands to read a page in, from top to bottom, for padded views of `view_size` pixels.
///
/// There is at least one band; bands lie inside the page and do not overlap, and all have the same
/// left and right edges. One band covers the whole page when nothing is to be gained. Otherwise a
/// band is no taller than 3/4 of its width, unless it is the only one.
///
/// ```
/// use agx_ocr_vision::bands::{Band, split};
/// use image::{Rgb, RgbImage};
///
/// // Rows of 12-pixel letters, 20 pixels apart, on a page of 600x1200.
/// let page = RgbImage::from_fn(600, 1200, |x, y| {
///     let letter = (40..560).contains(&x) && x % 8 < 3 && y % 20 < 12;
///     Rgb(if letter { [20; 3] } else { [240; 3] })
/// });
/// assert_eq!(split(&page, 1280), [Band::whole(&page)]);
/// let bands = split(&page, 640);
/// assert_eq!(bands.len(), 3);
/// assert!(bands.iter().all(|band| band.bottom % 20 >= 12 || band.bottom == 1200));
/// ```
pub fn split(image: &RgbImage, view_size: u32) -> Vec<Band> {
    let whole = Band::whole(image);
    let ink = Ink::find(image);
    let Some(letter) = ink.letter_height() else {
        return vec![whole];
    };
    let em = (letter * ink.scale) as f64 / CAP_HEIGHT;
    let small = |band: &Band| {
        let side = band.width().max(band.height());
        let patches = em * f64::from(view_size) / f64::from(side) / PATCH;
        patches < 1.0 || (patches < 2.0 && band.height() > TALL * band.width())
    };
    if !small(&whole) {
        return vec![whole];
    }
    // Narrower bands would show letters larger than two patches.
    let least_width = em * f64::from(view_size) / (2.0 * PATCH);
    let page = Page::new(&ink, em, &whole);
    let Some(content) = page.content(least_width) else {
        return vec![whole];
    };
    let gain = f64::from(whole.width().max(whole.height())) / f64::from(content.width());
    if gain < LEAST_GAIN {
        return vec![whole];
    }
    if !small(&content) {
        return vec![content];
    }
    page.cut(&content)
}

/// A page's ink by row, and what is needed to cut between the rows. Lengths are in cells.
struct Page<'a> {
    ink: &'a Ink,
    whole: &'a Band,
    rows: Vec<u32>,
    /// Ink in the rows up to each row, without it.
    sums: Vec<u64>,
    em: usize,
}

impl<'a> Page<'a> {
    fn new(ink: &'a Ink, em: f64, whole: &'a Band) -> Self {
        let rows = ink.rows();
        let sums = std::iter::once(0)
            .chain(rows.iter().scan(0, |sum, &row| {
                *sum += u64::from(row);
                Some(*sum)
            }))
            .collect();
        Self {
            ink,
            whole,
            rows,
            sums,
            em: (em / ink.scale as f64).ceil() as usize,
        }
    }

    /// The part of the page with ink and an em around it, at least `least_width` pixels wide if the
    /// page is.
    fn content(&self, least_width: f64) -> Option<Band> {
        let (top, bottom) = inked(&self.rows)?;
        let (left, right) = inked(&self.ink.columns())?;
        let (left, right) = (
            left.saturating_sub(self.em),
            (right + self.em).min(self.ink.width),
        );
        let least = ((least_width / self.ink.scale as f64) as usize).min(self.ink.width);
        let missing = least.saturating_sub(right - left);
        let left = left.saturating_sub(missing / 2).min(self.ink.width - least);
        let right = right.max(left + least);
        Some(Band {
            left: self.pixel(left),
            top: self.pixel(top.saturating_sub(self.em)),
            right: self.pixel(right).min(self.whole.right),
            bottom: self.pixel(bottom + self.em).min(self.whole.bottom),
        })
    }

    fn pixel(&self, cell: usize) -> u32 {
        (cell * self.ink.scale) as u32
    }

    /// Cuts the content into bands.
    fn cut(&self, content: &Band) -> Vec<Band> {
        let Some((mut first, end)) = inked(&self.rows) else {
            return vec![*content];
        };
        let tallest = BAND_SHAPE * f64::from(content.width()) / self.ink.scale as f64;
        let tallest = (tallest as usize).max(1);
        let margin = self.em.min(tallest / 4);
        let mut bands = Vec::new();
        let mut last_cut = 0;
        let mut push = |top: usize, bottom: usize| {
            let bottom = self.pixel(bottom).min(self.whole.bottom);
            bands.push(Band {
                top: self.pixel(top),
                bottom,
                ..*content
            });
        };
        // `first` is the first row with ink that is in no band yet.
        loop {
            let top = first.saturating_sub(margin).max(last_cut);
            if end - top <= tallest {
                push(top, (end + margin).min(top + tallest));
                return bands;
            }
            let cut = self.gap((top + tallest / 3).max(first + 1), top + tallest);
            let last = (first..cut)
                .rev()
                .find(|&y| self.rows[y] > TRACE)
                .unwrap_or(first);
            push(top, (last + 1 + margin).min(cut));
            // `cut < end`, and the row before `end` has ink.
            first = (cut..end).find(|&y| self.rows[y] > TRACE).unwrap_or(cut);
            last_cut = cut;
        }
    }

    /// The row in `from..=to` to cut above: in the last gap that is as clear as any of these rows,
    /// give or take the spread of noise.
    fn gap(&self, from: usize, to: usize) -> usize {
        let least = self.rows[from..=to].iter().min().copied().unwrap_or(0);
        let clear = |y: &usize| self.rows[*y] <= least + 2 * least.isqrt() + TRACE;
        let end = (from..=to).rev().find(clear).unwrap_or(to);
        let start = (from..=end).rev().take_while(clear).last().unwrap_or(end);
        self.clearest(start, end)
    }

    /// The row in `from..=to` with the least ink in it and a quarter em about it; the middle one of
    /// equals.
    fn clearest(&self, from: usize, to: usize) -> usize {
        let reach = self.em / 4;
        let around = |y: usize| {
            let bottom = (y + reach + 1).min(self.rows.len());
            self.sums[bottom] - self.sums[y.saturating_sub(reach)]
        };
        let least = (from..=to).map(around).min();
        let equals: Vec<_> = (from..=to).filter(|&y| Some(around(y)) == least).collect();
        equals.get(equals.len() / 2).copied().unwrap_or(to)
    }
}

/// The first line (row or column) with ink and the one after the last.
fn inked(lines: &[u32]) -> Option<(usize, usize)> {
    let ink = |&line: &u32| line > TRACE;
    Some((
        lines.iter().position(ink)?,
        lines.iter().rposition(ink)? + 1,
    ))
}
