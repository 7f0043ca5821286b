//! Where a page has ink: the edges of letters, whatever the paper looks like.

use image::RgbImage;
use rayon::prelude::*;

/// Pages wider than this are averaged down to at most this width first.
const WORKING_WIDTH: usize = 1024;
/// The weakest edge, in grey levels, that is ink on a page without noise.
const FAINTEST: u8 = 16;
/// Width of the strips in which the heights of letters are measured: a few letters, so that a
/// slight skew does not join the rows.
const STRIP: usize = 32;
/// Shorter runs of rows are dots, dashes and rules.
const SHORTEST_LETTER: usize = 3;

/// A map of the page's ink, on a grid of cells of `scale` x `scale` pixels.
///
/// Ink is a jump in brightness between the neighbours to the left and right of a cell: so grey or
/// unevenly lit paper, shadows, wide dark borders and light letters on dark need no treatment of
/// their own. A jump counts if it stands out of the noise (eight times the median jump) and is at
/// least an eighth of the strong jumps of the page: pale print beside black is still print.
pub(super) struct Ink {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Side of a cell in pixels.
    pub(super) scale: usize,
    marks: Vec<bool>,
}

impl Ink {
    pub(super) fn find(image: &RgbImage) -> Self {
        let scale = (image.width() as usize).div_ceil(WORKING_WIDTH).max(1);
        let width = (image.width() as usize).div_ceil(scale);
        let height = (image.height() as usize).div_ceil(scale);
        let jumps = jumps(&grey(image, width, scale), width);
        let least = least_jump(&jumps);
        let marks = jumps.iter().map(|&jump| jump >= least).collect();
        let mut ink = Self {
            width,
            height,
            scale,
            marks,
        };
        ink.remove_specks();
        ink.remove_vertical_lines();
        ink
    }

    /// Ink cells of each row.
    pub(super) fn rows(&self) -> Vec<u32> {
        let count = |row: &[bool]| row.iter().filter(|&&mark| mark).count() as u32;
        self.marks
            .chunks_exact(self.width.max(1))
            .map(count)
            .collect()
    }

    /// Ink cells of each column.
    pub(super) fn columns(&self) -> Vec<u32> {
        let mut columns = vec![0; self.width];
        for row in self.marks.chunks_exact(self.width.max(1)) {
            for (column, &mark) in columns.iter_mut().zip(row) {
                *column += u32::from(mark);
            }
        }
        columns
    }

    /// The height in cells of most letters, if there are any: half of the inked rows of all strips
    /// belong to runs of rows no higher than this.
    pub(super) fn letter_height(&self) -> Option<usize> {
        let strips = self.width.div_ceil(STRIP);
        let mut open = vec![0; strips];
        let mut runs = Vec::new();
        let blank = vec![false; self.width];
        let rows = self.marks.chunks_exact(self.width.max(1));
        for row in rows.chain([&blank[..]]) {
            for (run, strip) in open.iter_mut().zip(row.chunks(STRIP)) {
                if strip.contains(&true) {
                    *run += 1;
                } else if *run > 0 {
                    runs.push(std::mem::take(run));
                }
            }
        }
        runs.retain(|&run| run >= SHORTEST_LETTER);
        runs.sort_unstable();
        let half = runs.iter().sum::<usize>().div_ceil(2);
        let mut rows = 0;
        runs.into_iter().find(|run| {
            rows += run;
            rows >= half
        })
    }

    /// Removes marks with neither a mark above nor below: strokes are longer, noise is not.
    fn remove_specks(&mut self) {
        let marks = self.marks.clone();
        let at = |place: Option<usize>| place.and_then(|i| marks.get(i)) == Some(&true);
        for (i, mark) in self.marks.iter_mut().enumerate() {
            *mark &= at(i.checked_sub(self.width)) || at(i.checked_add(self.width));
        }
    }

    /// Removes unbroken lines downwards, straight or not, that are longer than a quarter of the
    /// page's width: frames, table rules, edges of the paper. Letters are not that high, but for a
    /// few on a page no wider than they are.
    fn remove_vertical_lines(&mut self) {
        let longest = (self.width / 4).max(STRIP);
        let above = self.line_lengths(0..self.height, |y| y.checked_sub(1));
        let below = self.line_lengths((0..self.height).rev(), |y| Some(y + 1));
        for (mark, (above, below)) in self.marks.iter_mut().zip(above.iter().zip(&below)) {
            *mark &= usize::from(*above) + usize::from(*below) <= longest;
        }
    }

    /// The length of the longest line that ends in each mark, where a line goes on from a mark to
    /// the nearest three in the next row. `rows` are visited in order, after their `previous` one.
    fn line_lengths(
        &self,
        rows: impl Iterator<Item = usize>,
        previous: impl Fn(usize) -> Option<usize>,
    ) -> Vec<u16> {
        let width = self.width;
        let mut lengths = vec![0u16; self.marks.len()];
        for y in rows {
            for x in 0..width {
                if self.marks[y * width + x] {
                    let before = previous(y).and_then(|y| {
                        let nearest =
                            y * width + x.saturating_sub(1)..=y * width + (x + 1).min(width - 1);
                        lengths.get(nearest)?.iter().copied().max()
                    });
                    lengths[y * width + x] = before.unwrap_or(0).saturating_add(1);
                }
            }
        }
        lengths
    }
}

/// The average brightness of each cell.
fn grey(image: &RgbImage, width: usize, scale: usize) -> Vec<u8> {
    let row = image.width() as usize * 3;
    if row == 0 {
        return Vec::new();
    }
    image
        .as_raw()
        .par_chunks(row * scale)
        .flat_map_iter(|rows| {
            let mut sums = vec![0u32; width];
            for row in rows.chunks_exact(row) {
                for (sum, pixels) in sums.iter_mut().zip(row.chunks(scale * 3)) {
                    *sum += pixels.chunks_exact(3).map(brightness).sum::<u32>();
                }
            }
            let high = rows.len() / row;
            let wide = move |x: usize| scale.min(row / 3 - x * scale);
            sums.into_iter()
                .enumerate()
                .map(move |(x, sum)| (sum / (high * wide(x)) as u32) as u8)
        })
        .collect()
}

/// Brightness of a pixel, with the weights of ITU-R BT.601.
fn brightness(pixel: &[u8]) -> u32 {
    let weigh = |(&byte, weight)| u32::from(byte) * weight;
    pixel.iter().zip([299, 587, 114]).map(weigh).sum::<u32>() / 1000
}

/// The difference between the right and left neighbours of each cell; 0 at the edges.
fn jumps(grey: &[u8], width: usize) -> Vec<u8> {
    let mut jumps = vec![0; grey.len()];
    let width = width.max(1);
    for (jumps, row) in jumps.chunks_mut(width).zip(grey.chunks(width)) {
        for (jump, cells) in jumps.iter_mut().skip(1).zip(row.windows(3)) {
            *jump = cells[0].abs_diff(cells[2]);
        }
    }
    jumps
}

/// The least jump that is ink.
fn least_jump(jumps: &[u8]) -> u8 {
    let mut counts = [0usize; 256];
    for &jump in jumps {
        counts[usize::from(jump)] += 1;
    }
    // The jump below which this share (in thousandths) of all jumps lies.
    let share = |thousandths: usize| {
        let mut below = 0;
        let reached = |&count: &usize| {
            below += count;
            below * 1000 >= jumps.len() * thousandths
        };
        counts.iter().position(reached).unwrap_or(0)
    };
    let (noise, strong) = (share(500), share(999));
    (8 * noise).max(strong / 8).clamp(FAINTEST.into(), 255) as u8
}
