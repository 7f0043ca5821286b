//! Bicubic resizing that gives the bytes that Pillow gives.
//!
//! The vision towers were trained on images resized by Pillow, so the pixels are part of the
//! model. The arithmetic is that of Pillow up to 12.x: the Keys kernel with a = -1/2, widened when
//! shrinking (antialiasing), weights in 22-bit fixed point, a horizontal pass and then a vertical
//! one, with rounding to `u8` after each. A pass that would not change its side is skipped.
//!
//! The `fast_image_resize` crate was measured as a replacement: it keeps 16-bit weights and runs
//! the vertical pass first, and agrees with Pillow in 6 of the 36 reference resizes (up to 29
//! levels apart in the others).

use std::borrow::Cow;

use image::RgbImage;
use rayon::prelude::*;

/// Fractional bits of a weight: 32, less the 8 of a pixel, less 2 for sign and overshoot.
const PRECISION: u32 = 32 - 8 - 2;
/// One half, so that the shift rounds to nearest.
const HALF: i32 = 1 << (PRECISION - 1);
/// Bytes of a pixel.
const CHANNELS: usize = 3;
/// Bytes of a row that the vertical pass sums at a time: the sums stay in the first-level cache.
const BLOCK: usize = 3072;

/// Resizes to `width` x `height` pixels; a side of 0 is taken as 1.
///
/// ```
/// use agx_ocr_vision::resize::bicubic;
/// use image::{Rgb, RgbImage};
///
/// let grey = RgbImage::from_pixel(100, 60, Rgb([90, 90, 90]));
/// let small = bicubic(&grey, 33, 20);
/// assert_eq!(small, RgbImage::from_pixel(33, 20, Rgb([90, 90, 90])));
/// ```
pub fn bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (width, height) = (width.max(1), height.max(1));
    if image.width() == 0 || image.height() == 0 {
        return RgbImage::new(width, height);
    }
    let wide = match image.width() == width {
        true => Cow::Borrowed(image),
        false => Cow::Owned(horizontal(image, width)),
    };
    match image.height() == height {
        true => wide.into_owned(),
        false => vertical(&wide, height),
    }
}

/// The source pixels that make one output pixel.
struct Span {
    /// First source pixel.
    start: usize,
    /// Place of the span's weights in [`Weights::values`].
    at: std::ops::Range<usize>,
}

/// Fixed-point weights of one pass.
struct Weights {
    values: Vec<i32>,
    spans: Vec<Span>,
}

impl Weights {
    /// Weights from `from` to `to` pixels.
    ///
    /// A span's absolute weights sum to less than 2.0, so its sum of products with `u8` fits an
    /// `i32`: 255 * 2 * 2^22 + 2^21 < 2^31. Why less than 2: the weights sum to one, so they reach
    /// 2 only if the negative ones sum to -1/2. The kernel has 1/24 of its area below zero on each
    /// side and half of it above zero on each. A span cut off by the border keeps its centre,
    /// hence at least half of the positive part, and both negative lobes at most: 2/24 against
    /// 1/2. For the few taps of an enlargement, a lobe holds one tap of at most 2/27, and what
    /// remains of the sum is at least 1/2. A unit test goes through all pairs of small sides.
    fn new(from: u32, to: u32) -> Self {
        let mut values = Vec::new();
        let mut spans = Vec::with_capacity(to as usize);
        for (start, taps) in cubic_taps(from as usize, to as usize) {
            let at = values.len();
            values.extend(taps.into_iter().map(fixed));
            spans.push(Span {
                start,
                at: at..values.len(),
            });
        }
        Self { values, spans }
    }

    /// Each output pixel's first source pixel and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans
            .iter()
            .map(|span| (span.start, &self.values[span.at.clone()]))
    }
}

/// For each of `to` samples of `from` values the first value that counts and the weights of it and
/// its followers, which sum to one: cubic, antialiased when shrinking, corners not aligned.
fn cubic_taps(from: usize, to: usize) -> impl Iterator<Item = (usize, Vec<f64>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let shrink = 1.0 / stretch;
    (0..to).map(move |i| {
        let centre = (i as f64 + 0.5) * scale;
        // `as` truncates towards zero, as the C cast does, and stops at 0.
        let start = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |x: usize| keys((x as f64 - centre + 0.5) * shrink);
        let mut taps: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = taps.iter().sum();
        if sum != 0.0 {
            taps.iter_mut().for_each(|tap| *tap /= sum);
        }
        (start, taps)
    })
}

/// The cubic kernel of Keys (1981) with a = -1/2: Pillow computes it in f64, PyTorch in f32, both
/// in this order of operations.
macro_rules! keys {
    ($name:ident: $float:ty) => {
        pub(crate) fn $name(x: $float) -> $float {
            const A: $float = -0.5;
            let x = x.abs();
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        }
    };
}
keys!(keys: f64);
keys!(keys_f32: f32);

/// A weight in fixed point, rounded half away from zero.
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    (if scaled < 0.0 {
        scaled - 0.5
    } else {
        scaled + 0.5
    }) as i32
}

/// The pixel of a sum.
fn pixel(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// `sum + byte * weight`; cannot wrap (see [`Weights::new`]), and wrapping arithmetic vectorises.
fn add(sum: i32, byte: u8, weight: i32) -> i32 {
    sum.wrapping_add(i32::from(byte).wrapping_mul(weight))
}

fn horizontal(image: &RgbImage, width: u32) -> RgbImage {
    let weights = Weights::new(image.width(), width);
    let mut out = RgbImage::new(width, image.height());
    let row = width as usize * CHANNELS;
    let source_row = image.width() as usize * CHANNELS;
    out.par_chunks_exact_mut(row)
        .zip(image.par_chunks_exact(source_row))
        .for_each(|(out, source)| {
            for (out, (start, weights)) in out.chunks_exact_mut(CHANNELS).zip(weights.iter()) {
                let mut sum = [HALF; CHANNELS];
                let source = source[start * CHANNELS..].chunks_exact(CHANNELS);
                for (source, &weight) in source.zip(weights) {
                    for (sum, &byte) in sum.iter_mut().zip(source) {
                        *sum = add(*sum, byte, weight);
                    }
                }
                for (out, sum) in out.iter_mut().zip(sum) {
                    *out = pixel(sum);
                }
            }
        });
    out
}

fn vertical(image: &RgbImage, height: u32) -> RgbImage {
    let weights = Weights::new(image.height(), height);
    let mut out = RgbImage::new(image.width(), height);
    let row = image.width() as usize * CHANNELS;
    let spans: Vec<_> = weights.iter().collect();
    out.par_chunks_exact_mut(row)
        .zip(&spans)
        .for_each(|(out, &(start, weights))| {
            let source = &image.as_raw()[start * row..];
            let mut sums = [HALF; BLOCK];
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                let sums = &mut sums[..out.len()];
                sums.fill(HALF);
                for (source, &weight) in source.chunks_exact(row).zip(weights) {
                    for (sum, &byte) in sums.iter_mut().zip(&source[block * BLOCK..]) {
                        *sum = add(*sum, byte, weight);
                    }
                }
                for (out, &sum) in out.iter_mut().zip(sums.iter()) {
                    *out = pixel(sum);
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_of_products_leaves_an_i32() {
        // All small pairs, and sides with every kind of remainder for the large ones.
        let sides = (1..=80).chain([97, 255, 640, 1000, 1024, 1699, 2047, 2048]);
        let mut largest = 0;
        for from in sides.clone() {
            for to in sides.clone() {
                for (start, weights) in Weights::new(from, to).iter() {
                    assert!(start + weights.len() <= from as usize);
                    let sum: i64 = weights.iter().map(|&w| i64::from(w).abs()).sum();
                    largest = largest.max(sum);
                }
            }
        }
        assert!(
            largest < 2 << PRECISION,
            "{}",
            largest as f64 / f64::from(1 << PRECISION)
        );
        assert!(255 * (2i64 << PRECISION) + i64::from(HALF) <= i64::from(i32::MAX));
    }

    #[test]
    fn an_empty_image_or_side_does_not_fail() {
        assert_eq!(bicubic(&RgbImage::new(0, 5), 4, 3).dimensions(), (4, 3));
        assert_eq!(bicubic(&RgbImage::new(7, 5), 0, 3).dimensions(), (1, 3));
    }
}
