//! One image: from its bytes to upright RGB.

use super::{Alpha, Format, InputError, Limits, structure, tiff};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage,
    error::UnsupportedErrorKind, metadata::Orientation,
};
use std::io::Cursor;

/// Memory that a decoder may take beside the pixels: for tables, profiles, rows.
const WORKING_SPACE: u64 = 64 << 20;
/// Why an image is refused for which that is too little.
pub(super) const TOO_MUCH_MEMORY: &str = "decoding it takes far more memory than its pixels";

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
    /// Milliseconds that decoding took.
    pub decode_ms: f64,
}

impl DecodedImage {
    /// An upright image that was decoded elsewhere, without warnings.
    pub fn new(image: RgbImage, format: Format) -> Self {
        Self {
            image,
            format,
            warnings: Vec::new(),
            decode_ms: 0.0,
        }
    }
}

/// An image as its file has it, not yet turned upright.
pub(super) struct Stored {
    pub image: DynamicImage,
    pub orientation: Orientation,
    pub warnings: Vec<String>,
}

impl Stored {
    pub(super) fn new(image: DynamicImage, orientation: Orientation) -> Self {
        Self {
            image,
            orientation,
            warnings: Vec::new(),
        }
    }
}

/// Decodes an image; of a TIFF the one in the first directory.
pub(super) fn decode(
    bytes: &[u8],
    format: Format,
    decoder: ImageFormat,
    limits: &Limits,
    alpha: Alpha,
) -> Result<DecodedImage, InputError> {
    let unusual = match format {
        Format::Tiff => tiff::unusual(bytes, limits),
        _ => None,
    };
    let stored = unusual.unwrap_or_else(|| usual(bytes, format, decoder, limits))?;
    let Stored {
        image,
        orientation,
        mut warnings,
    } = stored;
    let image = flatten(image, alpha);
    if structure::has_further_frames(format, bytes) {
        warnings.push(format!(
            "The {format} holds several images: only the first was read."
        ));
    }
    if format == Format::Jpeg && !structure::jpeg_ends(bytes) {
        warnings.push(broken_off(&image)?);
    }
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(DecodedImage {
        image: image.into_rgb8(),
        format,
        warnings,
        decode_ms: 0.0,
    })
}

/// What the decoder of the format makes of the bytes.
fn usual(
    bytes: &[u8],
    format: Format,
    decoder: ImageFormat,
    limits: &Limits,
) -> Result<Stored, InputError> {
    let broken = |error: ImageError| {
        let unsupported = |reason| InputError::Unsupported { format, reason };
        let reason = error.to_string();
        match error {
            ImageError::Unsupported(error) => match error.kind() {
                // The decoder says only how many bits they have together.
                UnsupportedErrorKind::Color(_) if format == Format::Tiff => {
                    unsupported(tiff::samples(bytes).unwrap_or(reason))
                }
                _ => unsupported(reason),
            },
            ImageError::Limits(_) => unsupported(TOO_MUCH_MEMORY.into()),
            _ => InputError::Corrupt { format, reason },
        }
    };
    let mut allowed = image::Limits::no_limits();
    allowed.max_alloc = Some(WORKING_SPACE);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), decoder);
    reader.limits(allowed.clone());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    limits.check(format, width, height)?;
    // Some decoders hold the image twice.
    let pixels = decoder.total_bytes().saturating_mul(2);
    allowed.max_alloc = Some(pixels.saturating_add(WORKING_SPACE));
    decoder.set_limits(allowed).map_err(broken)?;
    let orientation = match format {
        // The decoder makes room for an EXIF block as long as it says it is: up to 4 GB.
        Format::WebP => structure::webp_exif(bytes).and_then(Orientation::from_exif_chunk),
        _ => decoder.orientation().ok(),
    };
    // A broken EXIF block is no reason not to read the image.
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok(Stored::new(image, orientation))
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
