//! What bytes are, by their content.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::ImageFormat;

use super::InputError;

/// An image format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG, baseline or progressive.
    Jpeg,
    /// WebP, with or without loss.
    WebP,
    /// TIFF and BigTIFF.
    Tiff,
    /// Windows bitmap.
    Bmp,
    /// GIF.
    Gif,
    /// The portable anymap family: PBM, PGM, PPM, PAM.
    Pnm,
    /// Portable Document Format.
    Pdf,
}

impl Format {
    /// The format that `bytes` begin as. What follows may still be broken.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [0xFF, 0xD8, 0xFF, ..] => Self::Jpeg,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Self::WebP,
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Self::Tiff,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            // Two letters are little: the size of the second header must be a possible one too.
            [b'B', b'M', rest @ ..] if matches!(rest.get(12..16), Some([12..=124, 0, 0, 0])) => {
                Self::Bmp
            }
            [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n', next, ..]
                if next.is_ascii_digit() || next.is_ascii_whitespace() || b"#W".contains(next) =>
            {
                Self::Pnm
            }
            // Other bytes may lie before the header, but not before an image's.
            _ if excerpt(bytes).windows(5).any(|five| five == b"%PDF-") => Self::Pdf,
            _ => return None,
        })
    }

    /// The media type, such as `image/png`.
    pub fn media_type(self) -> &'static str {
        self.decoder()
            .map_or("application/pdf", |decoder| decoder.to_mime_type())
    }

    /// The decoder of an image; a PDF is none.
    pub(super) fn decoder(self) -> Option<ImageFormat> {
        Some(match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
            Self::Tiff => ImageFormat::Tiff,
            Self::Bmp => ImageFormat::Bmp,
            Self::Gif => ImageFormat::Gif,
            Self::Pnm => ImageFormat::Pnm,
            Self::Pdf => return None,
        })
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Pnm => "PNM",
            Self::Pdf => "PDF",
        })
    }
}

/// The bytes behind base64 text or a `data:` URI; other bytes as they are. [`Document::open`](super::Document::open)
/// does the same.
///
/// Bare text is taken for base64 only if all of it is of the standard alphabet (and white space),
/// and an image or a PDF comes out.
pub fn without_base64(bytes: Vec<u8>) -> Result<Vec<u8>, InputError> {
    let text = bytes.trim_ascii();
    if text
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"data:"))
    {
        return data_uri(text);
    }
    if Format::of(&bytes).is_some() {
        return Ok(bytes);
    }
    let image = base64(text).filter(|image| Format::of(image).is_some());
    Ok(image.unwrap_or(bytes))
}

fn data_uri(uri: &[u8]) -> Result<Vec<u8>, InputError> {
    let not_an_image = |looks_like| InputError::NotAnImage { looks_like };
    let mut parts = uri.splitn(2, |&byte| byte == b',');
    let (Some(head), Some(data)) = (parts.next(), parts.next()) else {
        return Err(not_an_image("a data: URI without data"));
    };
    let encoding = head.rsplit(|&byte| byte == b';').next().unwrap_or_default();
    if !encoding.trim_ascii().eq_ignore_ascii_case(b"base64") {
        return Err(not_an_image("a data: URI that is not in base64"));
    }
    base64(data).ok_or_else(|| not_an_image("a data: URI with broken base64"))
}

/// Decodes text of the standard alphabet, with or without padding, in lines or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    // Looked through before it is copied.
    if !text
        .iter()
        .all(|byte| letter(byte) || byte.is_ascii_whitespace())
    {
        return None;
    }
    let letters: Vec<u8> = text.iter().copied().filter(letter).collect();
    ENGINE.decode(letters).ok()
}

/// The first bytes, where a PDF's header must lie.
fn excerpt(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(1024)]
}

/// Names what is not an image that can be read.
pub(super) fn looks_like(bytes: &[u8]) -> &'static str {
    const BEGINNINGS: [(&[u8], &str); 10] = [
        (b"%!PS", "PostScript"),
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1f\x8b", "gzip data"),
        (b"8BPS", "a Photoshop document"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\0\0\x01\0", "a Windows icon"),
        (b"RIFF", "sound or video"),
        (b"\x7fELF", "a program"),
    ];
    let begins = |start: &[u8]| bytes.starts_with(start);
    if let Some((_, name)) = BEGINNINGS.iter().find(|(start, _)| begins(start)) {
        return name;
    }
    if let Some(brand) = bytes
        .get(4..12)
        .and_then(|brand| brand.strip_prefix(b"ftyp"))
    {
        return match brand {
            b"avif" | b"avis" => "an AVIF image",
            b"heic" | b"heix" | b"mif1" | b"heim" | b"msf1" => "a HEIC image",
            _ => "video",
        };
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return "zeros";
    }
    let start = excerpt(bytes);
    let kind = |text: &str| match text.trim_start().to_ascii_lowercase() {
        text if text.starts_with("<!doctype html") || text.starts_with("<html") => "HTML",
        text if text.contains("<svg") => "SVG",
        text if text.starts_with("<?xml") => "XML",
        text if text.starts_with(['{', '[']) => "JSON",
        _ => "text",
    };
    let text = match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        // A letter cut in two by the end of the excerpt.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let printable = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    text.filter(printable).map_or("unknown binary data", kind)
}
