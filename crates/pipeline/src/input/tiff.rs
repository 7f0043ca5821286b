//! TIFF: its pages, and the images in it that the general decoder does not take.
//!
//! A TIFF is a chain of directories, each the entries of one image (TIFF 6.0, section 2; BigTIFF
//! has longer fields). Numbers from the file are not trusted: what lies outside of it is absent.

#[cfg(feature = "fax")]
mod fax;

use super::{
    Format, InputError, Limits,
    decode::{Stored, TOO_MUCH_MEMORY},
};
use image::{DynamicImage, GrayImage, Rgb, RgbImage, metadata::Orientation};
use std::{borrow::Cow, collections::HashSet, io::Cursor};
use tiff::decoder::{Decoder, DecodingResult};

/// Directories that are looked for: more than any scanner's feeder holds.
const MOST: usize = 1 << 16;
/// The most entries of a directory, whose tags are some hundred. One that says to have more is taken
/// to have none: nobody shall search millions of them for each tag.
const MOST_ENTRIES: usize = 4096;

const NEW_SUBFILE_TYPE: usize = 254;
const BITS_PER_SAMPLE: usize = 258;
const COMPRESSION: usize = 259;
const PHOTOMETRIC: usize = 262;
const ORIENTATION: usize = 274;
const SAMPLES_PER_PIXEL: usize = 277;
const COLOR_MAP: usize = 320;

/// [`PHOTOMETRIC`] of grey images, and of those with a palette.
const BLACK_IS_ZERO: u8 = 1;
const PALETTE: usize = 3;

/// [`COMPRESSION`] of faxes by Group 3: rows without marks between them, and with them.
const MODIFIED_HUFFMAN: usize = 2;
const T4: usize = 3;

/// Where the directories of all pages lie. Thumbnails and masks are no pages; a chain that runs
/// in a circle ends where it began, one of directories that lie in each other where they are as
/// long as the file.
pub(super) fn pages(bytes: &[u8]) -> Vec<usize> {
    let tiff = Tiff::new(bytes);
    let mut seen = HashSet::new();
    let mut left = bytes.len();
    let mut pages = Vec::new();
    let mut next = tiff.first();
    while let Some(directory) = next.filter(|at| *at != 0 && seen.len() < MOST && seen.insert(*at))
    {
        // Reduced images have bit 0, masks bit 2.
        let kind = tiff.value(directory, NEW_SUBFILE_TYPE).unwrap_or(0);
        if pages.is_empty() || kind & 5 == 0 {
            pages.push(directory);
        }
        // Looking through them all takes little longer than reading the file.
        let length = tiff.entries(directory).map_or(0, |entries| entries.len());
        let Some(rest) = left.checked_sub(length) else {
            break;
        };
        left = rest;
        next = tiff.next(directory);
    }
    pages
}

/// The file with `directory` as its only one.
pub(super) fn only(bytes: &[u8], directory: usize) -> Cow<'_, [u8]> {
    let tiff = Tiff::new(bytes);
    let alone = tiff.first() == Some(directory) && tiff.next(directory) == Some(0);
    if alone {
        return Cow::Borrowed(bytes);
    }
    let mut changed = bytes.to_vec();
    let length = tiff.fields.offset;
    // One of too many entries has no end, but must not become another page.
    let end = tiff.entries(directory).map(|entries| (entries.end, 0));
    for (at, value) in [(length, directory as u64)].into_iter().chain(end) {
        if let Some(field) = changed.get_mut(at..at.saturating_add(length)) {
            field.copy_from_slice(&value.to_be_bytes()[8 - length..]);
            if tiff.little {
                field.reverse();
            }
        }
    }
    Cow::Owned(changed)
}

/// The first image, if it is one of those that need this module: a fax by Group 3, or of one sample a
/// pixel, with a palette, or grey with 2 or 4 bits.
pub(super) fn unusual(bytes: &[u8], limits: &Limits) -> Option<Result<Stored, InputError>> {
    let tiff = Tiff::new(bytes);
    let directory = tiff.first()?;
    if let Some(compression @ (MODIFIED_HUFFMAN | T4)) = tiff.value(directory, COMPRESSION) {
        #[cfg(feature = "fax")]
        return Some(fax::decode(&tiff, directory, compression, limits));
        #[cfg(not(feature = "fax"))]
        return Some(Err(unsupported(format!(
            "this build reads no Group 3 fax (compression {compression})"
        ))));
    }
    let bits = tiff.value(directory, BITS_PER_SAMPLE).unwrap_or(1);
    let palette = tiff.value(directory, PHOTOMETRIC)? == PALETTE;
    let samples = tiff.value(directory, SAMPLES_PER_PIXEL).unwrap_or(1);
    if samples != 1 || !(palette && matches!(bits, 1 | 2 | 4 | 8) || matches!(bits, 2 | 4)) {
        return None;
    }
    // The decoder has no palettes: their indices are read as shades of grey.
    let mut grey = Cow::Borrowed(bytes);
    if palette {
        let entry = tiff.entry(directory, PHOTOMETRIC)?;
        let at = entry + if tiff.little { 0 } else { 1 };
        *grey.to_mut().get_mut(at + 4 + tiff.fields.offset)? = BLACK_IS_ZERO;
    }
    let colours = match palette.then(|| tiff.colour_map(directory, bits)) {
        Some(None) => return Some(Err(corrupt("its palette has too few colours".into()))),
        Some(colours) => colours,
        None => None,
    };
    let orientation = tiff.orientation(directory);
    let image = indices(&grey, bits, limits).map(|mut indices| {
        let image: DynamicImage = match colours {
            Some(colours) => {
                let colour = |index: u8| colours.get(usize::from(index)).copied();
                let paint = |x, y| Rgb(colour(indices.get_pixel(x, y).0[0]).unwrap_or_default());
                RgbImage::from_fn(indices.width(), indices.height(), paint).into()
            }
            None => {
                let widen = 255 / ((1 << bits) - 1) as u8;
                indices.iter_mut().for_each(|value| *value *= widen);
                indices.into()
            }
        };
        Stored::new(image, orientation)
    });
    Some(image)
}

/// The samples of a pixel of the first image, for people: `3 samples of 4 bits a pixel`.
pub(super) fn samples(bytes: &[u8]) -> Option<String> {
    let tiff = Tiff::new(bytes);
    let directory = tiff.first()?;
    let value = |tag| tiff.value(directory, tag).unwrap_or(1);
    let (samples, bits) = (value(SAMPLES_PER_PIXEL), value(BITS_PER_SAMPLE));
    let plural = |n| if n == 1 { "" } else { "s" };
    let (of, s) = (plural(samples), plural(bits));
    Some(format!("{samples} sample{of} of {bits} bit{s} a pixel"))
}

/// The samples of a grey image of up to 8 bits, one a byte.
fn indices(bytes: &[u8], bits: usize, limits: &Limits) -> Result<GrayImage, InputError> {
    let broken = |error: tiff::TiffError| match error {
        tiff::TiffError::UnsupportedError(_) => unsupported(error.to_string()),
        tiff::TiffError::LimitsExceeded => unsupported(TOO_MUCH_MEMORY.into()),
        error => corrupt(error.to_string()),
    };
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(broken)?;
    let (width, height) = decoder.dimensions().map_err(broken)?;
    limits.check(Format::Tiff, width, height)?;
    let mut buffers = tiff::decoder::Limits::default();
    // One byte a pixel at most.
    buffers.decoding_buffer_size = width as usize * height as usize;
    let mut decoder = decoder.with_limits(buffers);
    let DecodingResult::U8(packed) = decoder.read_image().map_err(broken)? else {
        return Err(corrupt("its samples are not what its header says".into()));
    };
    // Rows begin at whole bytes, the first sample in the highest bits.
    let row = (width as usize * bits).div_ceil(8);
    let sample = |x: u32, y: u32| {
        let bit = x as usize * bits;
        let byte = packed.get(y as usize * row + bit / 8)?;
        let mask = ((1_u16 << bits) - 1) as u8;
        Some(byte >> (8 - bits - bit % 8) & mask)
    };
    if sample(width - 1, height - 1).is_none() {
        return Err(corrupt("it holds fewer pixels than its header says".into()));
    }
    let pixel = |x, y| image::Luma([sample(x, y).unwrap_or_default()]);
    Ok(GrayImage::from_fn(width, height, pixel))
}

fn unsupported(reason: String) -> InputError {
    InputError::Unsupported {
        format: Format::Tiff,
        reason,
    }
}

fn corrupt(reason: String) -> InputError {
    InputError::Corrupt {
        format: Format::Tiff,
        reason,
    }
}

/// Bytes of a file's fields.
struct Fields {
    /// An offset, and a count of values.
    offset: usize,
    /// The count of a directory's entries.
    count: usize,
    /// An entry.
    entry: usize,
}

/// The numbers in a file.
struct Tiff<'a> {
    bytes: &'a [u8],
    little: bool,
    fields: Fields,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let little = bytes.starts_with(b"II");
        let big = matches!(bytes.get(2..4), Some([43, 0] | [0, 43]));
        let (offset, count, entry) = if big { (8, 8, 20) } else { (4, 2, 12) };
        Self {
            bytes,
            little,
            fields: Fields {
                offset,
                count,
                entry,
            },
        }
    }

    /// The number of `length` bytes at a place.
    fn number(&self, at: usize, length: usize) -> Option<usize> {
        let digits = self.bytes.get(at..at.checked_add(length)?)?.iter();
        let add = |sum: u64, &digit: &u8| sum << 8 | u64::from(digit);
        let number = if self.little {
            digits.rev().fold(0, add)
        } else {
            digits.fold(0, add)
        };
        usize::try_from(number).ok()
    }

    /// The first directory: the field behind the byte order and the version.
    fn first(&self) -> Option<usize> {
        self.number(self.fields.offset, self.fields.offset)
    }

    /// The directory after this one; 0 for none.
    fn next(&self, directory: usize) -> Option<usize> {
        let entries = self.entries(directory)?;
        self.number(entries.end, self.fields.offset)
    }

    /// Where a directory's entries lie, if they are no more than can be.
    fn entries(&self, directory: usize) -> Option<std::ops::Range<usize>> {
        let count = self.number(directory, self.fields.count)?;
        if count > MOST_ENTRIES {
            return None;
        }
        let start = directory.checked_add(self.fields.count)?;
        Some(start..start.checked_add(count.checked_mul(self.fields.entry)?)?)
    }

    /// The entry of a tag: tag and type of two bytes, the count of values, the value or its place.
    fn entry(&self, directory: usize, tag: usize) -> Option<usize> {
        let entries = self.entries(directory)?;
        // A directory that leaves the file has no entries.
        self.bytes.get(entries.clone())?;
        entries
            .step_by(self.fields.entry)
            .find(|at| self.number(*at, 2) == Some(tag))
    }

    /// The first value of a tag whose values are whole numbers.
    fn value(&self, directory: usize, tag: usize) -> Option<usize> {
        self.values(directory, tag)?.next()
    }

    /// The values of a tag whose values are whole numbers, as far as they are in the file.
    fn values(&self, directory: usize, tag: usize) -> Option<impl Iterator<Item = usize>> {
        let entry = self.entry(directory, tag)?;
        let (kind, count) = (self.number(entry + 2, 2)?, self.count(entry)?);
        let length = match kind {
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let inline = entry + 4 + self.fields.offset;
        let at = if count.checked_mul(length)? <= self.fields.offset {
            inline
        } else {
            self.number(inline, self.fields.offset)?
        };
        let value = move |i: usize| self.number(at.checked_add(i.checked_mul(length)?)?, length);
        Some((0..count).map_while(value))
    }

    /// How the image is to be turned.
    fn orientation(&self, directory: usize) -> Orientation {
        let orientation = self.value(directory, ORIENTATION).unwrap_or(1);
        Orientation::from_exif(orientation as u8).unwrap_or(Orientation::NoTransforms)
    }

    fn count(&self, entry: usize) -> Option<usize> {
        self.number(entry + 4, self.fields.offset)
    }

    /// The palette of an image, if it has all of its colours: reds, greens, blues, of 16 bits.
    fn colour_map(&self, directory: usize, bits: usize) -> Option<Vec<[u8; 3]>> {
        let colours = 1 << bits;
        let entry = self.entry(directory, COLOR_MAP)?;
        if self.number(entry + 2, 2)? != 3 || self.count(entry)? < 3 * colours {
            return None;
        }
        let map = self.number(entry + 4 + self.fields.offset, self.fields.offset)?;
        let value = |i: usize| self.number(map.checked_add(2 * i)?, 2);
        let values: Vec<usize> = (0..3 * colours).map(value).collect::<Option<_>>()?;
        // Some programs write 8 bits.
        let shift = if values.iter().all(|value| *value < 256) {
            0
        } else {
            8
        };
        let colour =
            |i: usize| [0, 1, 2].map(|channel| (values[channel * colours + i] >> shift) as u8);
        Some((0..colours).map(colour).collect())
    }
}
