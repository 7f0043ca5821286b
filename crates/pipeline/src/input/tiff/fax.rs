//! Faxes by Group 3 (ITU-T T.4) in a TIFF: what fax servers write, and the general decoder does not
//! take.
//!
//! A damaged line costs itself and those that are told by their difference to it, as on the machines
//! that this was made for: the next mark between lines is where decoding goes on.

use super::{
    BITS_PER_SAMPLE, BLACK_IS_ZERO, MODIFIED_HUFFMAN, PHOTOMETRIC, SAMPLES_PER_PIXEL, Tiff,
    corrupt, unsupported,
};
use crate::input::{Format, InputError, Limits, decode::Stored};
use hayro_ccitt::{DecodeSettings, Decoder, DecoderContext, EncodingMode};
use image::GrayImage;
use std::borrow::Cow;

const IMAGE_WIDTH: usize = 256;
const IMAGE_LENGTH: usize = 257;
const FILL_ORDER: usize = 266;
const STRIP_OFFSETS: usize = 273;
const ROWS_PER_STRIP: usize = 278;
const STRIP_BYTE_COUNTS: usize = 279;
const T4_OPTIONS: usize = 292;

/// [`FILL_ORDER`] of bytes whose first bit is the lowest.
const LOWEST_FIRST: usize = 2;
/// In [`T4_OPTIONS`]: lines may be told by their difference to the line before.
const TWO_DIMENSIONAL: usize = 1;

/// Paper and ink.
const WHITE: u8 = 255;
const BLACK: u8 = 0;

/// Decodes the image of a directory.
pub(super) fn decode(
    tiff: &Tiff<'_>,
    directory: usize,
    compression: usize,
    limits: &Limits,
) -> Result<Stored, InputError> {
    let value = |tag| tiff.value(directory, tag);
    let side = |tag| value(tag).map_or(0, |side| u32::try_from(side).unwrap_or(u32::MAX));
    let (width, height) = (side(IMAGE_WIDTH), side(IMAGE_LENGTH));
    limits.check(Format::Tiff, width, height)?;
    let (samples, bits) = (value(SAMPLES_PER_PIXEL), value(BITS_PER_SAMPLE));
    if samples.unwrap_or(1) != 1 || bits.unwrap_or(1) != 1 {
        return Err(unsupported("a fax of more than black and white".into()));
    }
    // Without a word of it, 0 is white: so it is on faxes.
    let (white, black) = match value(PHOTOMETRIC).unwrap_or(0) {
        0 => (WHITE, BLACK),
        kind if kind == usize::from(BLACK_IS_ZERO) => (BLACK, WHITE),
        kind => return Err(unsupported(format!("a fax of photometric kind {kind}"))),
    };
    let (Some(offsets), Some(counts)) = (
        tiff.values(directory, STRIP_OFFSETS),
        tiff.values(directory, STRIP_BYTE_COUNTS),
    ) else {
        return Err(unsupported("a fax that is not in strips".into()));
    };
    let height = height as usize;
    let rows_per_strip = match value(ROWS_PER_STRIP) {
        Some(0) => return Err(corrupt("its strips have no rows".into())),
        Some(rows) => rows.min(height),
        None => height,
    };
    let settings = DecodeSettings {
        columns: width,
        rows: 0,
        end_of_block: true,
        end_of_line: false,
        // With marks between lines, zeros before a mark are passed over anyway.
        rows_are_byte_aligned: compression == MODIFIED_HUFFMAN,
        encoding: match compression != MODIFIED_HUFFMAN
            && value(T4_OPTIONS).unwrap_or(0) & TWO_DIMENSIONAL != 0
        {
            true => EncodingMode::Group3_2D,
            false => EncodingMode::Group3_1D,
        },
        strict: true,
    };
    let reversed = value(FILL_ORDER) == Some(LOWEST_FIRST);

    let mut image = GrayImage::from_pixel(width, height as u32, image::Luma([WHITE]));
    let strips = image.chunks_mut(rows_per_strip * width as usize);
    let mut strips = strips.zip((0..).step_by(rows_per_strip));
    let mut damage = Damage::default();
    // Strips that share their bytes would take a time that no file's size bounds.
    let mut left = tiff.bytes.len();
    for (offset, count) in offsets.zip(counts) {
        let Some((pixels, first)) = strips.next() else {
            break;
        };
        let Some(rest) = left.checked_sub(count) else {
            return Err(corrupt("its strips are longer than the file".into()));
        };
        left = rest;
        // Of one that leaves the file, what is in it.
        let data = tiff.bytes.get(offset..).unwrap_or_default();
        let mut data = Cow::Borrowed(&data[..count.min(data.len())]);
        if reversed {
            let bytes = data.to_mut().iter_mut();
            bytes.for_each(|byte| *byte = byte.reverse_bits());
        }
        let mut rows = Rows {
            pixels,
            width: width as usize,
            done: 0,
            white,
            black,
        };
        rows.decode(&data, settings, first, &mut damage);
    }
    for (pixels, first) in strips {
        damage.missing(first, pixels.len() / width as usize);
    }
    let mut stored = Stored::new(image.into(), tiff.orientation(directory));
    stored.warnings.extend(damage.told(height)?);
    Ok(stored)
}

/// The rows of a strip.
struct Rows<'a> {
    pixels: &'a mut [u8],
    width: usize,
    done: usize,
    /// What a run of white is, and one of black.
    white: u8,
    black: u8,
}

impl Rows<'_> {
    /// Decodes a strip that begins with the image's row `first`.
    fn decode(&mut self, data: &[u8], settings: DecodeSettings, first: usize, damage: &mut Damage) {
        let rows = self.pixels.len() / self.width;
        let mut read = |strict| {
            self.done = 0;
            let settings = DecodeSettings {
                rows: rows as u32,
                strict,
                ..settings
            };
            let read = hayro_ccitt::decode(data, self, &mut DecoderContext::new(settings));
            (read.is_ok(), self.done)
        };
        let (sound, mut done) = read(true);
        if !sound {
            // Of damaged data as much as there is.
            let good = done;
            (_, done) = read(false);
            if done > good {
                damage.from(first + good);
            }
        }
        damage.missing(first + done, rows - done);
    }
}

impl Decoder for Rows<'_> {
    fn push_row(&mut self, changes: &[u32]) {
        let Some(row) = self.pixels.chunks_exact_mut(self.width).nth(self.done) else {
            return;
        };
        row.fill(self.white);
        for run in changes.chunks(2) {
            let end = run.get(1).map_or(row.len(), |end| *end as usize);
            if let Some(run) = row.get_mut(run[0] as usize..end) {
                run.fill(self.black);
            }
        }
        self.done += 1;
    }
}

/// What could not be read.
#[derive(Default)]
struct Damage {
    /// The first row that is damaged or missing.
    first: Option<usize>,
    missing: usize,
}

impl Damage {
    fn from(&mut self, row: usize) {
        self.first = Some(self.first.map_or(row, |first| first.min(row)));
    }

    fn missing(&mut self, row: usize, rows: usize) {
        if rows > 0 {
            self.from(row);
            self.missing += rows;
        }
    }

    /// The warning about it, or the error if less than half of the image is there.
    fn told(&self, height: usize) -> Result<Option<String>, InputError> {
        let Some(first) = self.first else {
            return Ok(None);
        };
        let (from, missing) = (first + 1, self.missing);
        if 2 * missing > height {
            return Err(corrupt(format!(
                "its fax is damaged from row {from} on, and {missing} of its {height} rows are missing"
            )));
        }
        let what = match missing {
            0 => "lines may be wrong".into(),
            _ => format!("{missing} of its {height} rows are missing"),
        };
        Ok(Some(format!(
            "The fax in the TIFF is damaged from row {from} on: {what}."
        )))
    }
}
