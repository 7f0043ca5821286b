//! Bytes to an upright RGB image, within limits.
//!
//! [`decode`] goes by the content, never by a name: PNG, JPEG, WebP, TIFF, BMP, GIF and PNM, also
//! as base64 text or as a `data:` URI. The order of things:
//!
//! 1. The input's size is checked, then the format, then width and height from the header, before
//!    room for the pixels is made.
//! 2. Samples become 8 bits: those of 16 are rounded, `(v + 128) / 257`. Grey, palette and CMYK
//!    images become RGB; CMYK and YCCK JPEGs are taken as inverted, as Adobe writes them.
//! 3. Transparency is laid over white, or dropped as the reference does ([`Alpha`]).
//! 4. The image is turned upright by its EXIF orientation.
//!
//! Of a file with several images (a TIFF's pages, an animation) the first is read, with a warning.
//!
//! A JPEG that breaks off is the one damage that is not always an error: if at least half of its
//! rows are there, they are read, with a warning. All other formats must be whole.

mod sniff;
mod structure;

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, RgbImage};

pub use sniff::Format;

/// What [`decode`] accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the input, as it comes: 50 million.
    pub bytes: u64,
    /// Pixels of the width: 30,000.
    pub width: u32,
    /// Pixels of the height: 30,000.
    pub height: u32,
    /// Pixels in all: 100 million.
    pub pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 50_000_000,
            width: 30_000,
            height: 30_000,
            pixels: 100_000_000,
        }
    }
}

impl Limits {
    fn check(&self, width: u32, height: u32) -> Result<(), InputError> {
        let pixels = u64::from(width) * u64::from(height);
        if width > self.width || height > self.height || pixels > self.pixels {
            return Err(InputError::Dimensions {
                width,
                height,
                limits: self.clone(),
            });
        }
        Ok(())
    }

    /// The decoder's share: 16 bytes for each pixel (four samples of 32 bits), and room to work.
    fn for_decoder(&self) -> image::Limits {
        let mut limits = image::Limits::no_limits();
        limits.max_alloc = Some(self.pixels.saturating_mul(16).saturating_add(1 << 24));
        limits
    }
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alpha {
    /// The image is laid over white paper.
    #[default]
    OverWhite,
    /// Colours are taken as they are, seen or not: what the reference does.
    Drop,
}

/// An image ready to be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodedImage {
    /// The pixels, upright.
    pub image: RgbImage,
    /// The format that they came in.
    pub format: Format,
    /// What a user should know, in whole sentences.
    pub warnings: Vec<String>,
}

/// Why an input gives no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// No bytes, or white space only.
    #[error("the input is empty: give the bytes of an image")]
    Empty,
    /// More bytes than the limit.
    #[error("the input is too large: {actual} bytes, where at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the input.
        actual: u64,
        /// [`Limits::bytes`].
        limit: u64,
    },
    /// The bytes are of no format that can be read.
    #[error(
        "the input is not an image that can be read: it looks like {looks_like}; \
         give PNG, JPEG, WebP, TIFF, BMP, GIF or PNM"
    )]
    NotAnImage {
        /// What the bytes look like, such as `a PDF`.
        looks_like: &'static str,
    },
    /// The format is known, but its data are broken or break off.
    #[error("corrupt or invalid {format}: {reason}")]
    Corrupt {
        /// The format.
        format: Format,
        /// What the decoder says.
        reason: String,
    },
    /// The format is known, but not this kind of it.
    #[error("this kind of {format} cannot be read: {reason}; convert it to PNG")]
    Unsupported {
        /// The format.
        format: Format,
        /// What the decoder says.
        reason: String,
    },
    /// More pixels than the limits.
    #[error(
        "the image is too large: {width}x{height} pixels, where at most {}x{} and {} in all \
         are allowed", limits.width, limits.height, limits.pixels
    )]
    Dimensions {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limits.
        limits: Limits,
    },
}

impl InputError {
    fn from_decoder(format: Format, error: ImageError) -> Self {
        let reason = error.to_string();
        match error {
            ImageError::Unsupported(_) | ImageError::Limits(_) => {
                Self::Unsupported { format, reason }
            }
            _ => Self::Corrupt { format, reason },
        }
    }
}

/// Decodes the image in `bytes`.
///
/// # Errors
///
/// Each kind of [`InputError`]; no input makes it panic.
///
/// ```
/// use agx_ocr_pipeline::input::{Alpha, Format, Limits, decode};
///
/// let bytes = b"P2 2 1 255 0 255";
/// let decoded = decode(bytes, &Limits::default(), Alpha::default())?;
/// assert_eq!(decoded.format, Format::Pnm);
/// assert_eq!(decoded.image.as_raw(), &[0, 0, 0, 255, 255, 255]);
/// # Ok::<(), agx_ocr_pipeline::input::InputError>(())
/// ```
pub fn decode(bytes: &[u8], limits: &Limits, alpha: Alpha) -> Result<DecodedImage, InputError> {
    let actual = bytes.len() as u64;
    if actual > limits.bytes {
        return Err(InputError::TooLarge {
            actual,
            limit: limits.bytes,
        });
    }
    let bytes = sniff::without_base64(bytes)?;
    if bytes.trim_ascii().is_empty() {
        return Err(InputError::Empty);
    }
    let Some(format) = Format::of(&bytes) else {
        return Err(InputError::NotAnImage {
            looks_like: sniff::looks_like(&bytes),
        });
    };
    let broken = |error| InputError::from_decoder(format, error);

    let mut reader = ImageReader::with_format(Cursor::new(&bytes[..]), format.decoder());
    reader.limits(limits.for_decoder());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    if width == 0 || height == 0 {
        return Err(InputError::Corrupt {
            format,
            reason: "it has no pixels".into(),
        });
    }
    // A broken EXIF block is no reason not to read the image.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = flatten(DynamicImage::from_decoder(decoder).map_err(broken)?, alpha);

    let mut warnings = Vec::new();
    if structure::has_further_images(format, &bytes) {
        warnings.push(format!(
            "The {format} holds several images: only the first was read."
        ));
    }
    if format == Format::Jpeg && !structure::jpeg_ends(&bytes) {
        warnings.push(broken_off(&image)?);
    }
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(DecodedImage {
        image: image.into_rgb8(),
        format,
        warnings,
    })
}

fn flatten(image: DynamicImage, alpha: Alpha) -> RgbImage {
    if alpha == Alpha::Drop || !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, a] = image.get_pixel(x, y).0;
        let a = u32::from(a);
        let over_white = |c: u8| ((u32::from(c) * a + 255 * (255 - a) + 127) / 255) as u8;
        image::Rgb([r, g, b].map(over_white))
    })
}

/// The warning about a JPEG that breaks off, or the error if less than half of it is there. The
/// decoder fills the rows that it cannot read with 128.
fn broken_off(image: &RgbImage) -> Result<String, InputError> {
    let filled = |row: &[u8]| row.iter().all(|&byte| byte == 128);
    let rows = image.as_raw().chunks_exact(3 * image.width() as usize);
    let missing = rows.rev().take_while(|row| filled(row)).count();
    let height = image.height() as usize;
    if 2 * missing > height {
        let reason = format!("it breaks off, and {missing} of its {height} rows are missing");
        return Err(InputError::Corrupt {
            format: Format::Jpeg,
            reason,
        });
    }
    Ok(match missing {
        0 => "The JPEG breaks off: details or its last rows may be missing.".into(),
        _ => format!("The JPEG breaks off: {missing} of its {height} rows are missing."),
    })
}
