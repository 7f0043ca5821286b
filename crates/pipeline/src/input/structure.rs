//! What the decoders do not tell: further frames of an animation, whether a JPEG is whole, and the
//! EXIF block of a WebP without room for one that is not there.
//!
//! The walks below read lengths from the file and trust none: a place outside the data ends them.

use super::Format;

/// Whether an animation has frames after the first.
pub(super) fn has_further_frames(format: Format, bytes: &[u8]) -> bool {
    let further = match format {
        Format::Gif => gif_has_frames(bytes),
        Format::Png => png_has_frames(bytes),
        // The animation bit of the extended header.
        Format::WebP => bytes
            .get(12..21)
            .map(|head| head.starts_with(b"VP8X") && head[8] & 2 != 0),
        _ => None,
    };
    further.unwrap_or(false)
}

fn gif_has_frames(bytes: &[u8]) -> Option<bool> {
    // Bytes of a colour table, by the flags that announce it.
    let table = |flags: u8| {
        if flags & 0x80 == 0 {
            0
        } else {
            6usize << (flags & 7)
        }
    };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut images = 0;
    loop {
        match bytes.get(at)? {
            // An extension.
            0x21 => at += 2,
            0x2C => {
                images += 1;
                if images > 1 {
                    return Some(true);
                }
                at += 11 + table(*bytes.get(at + 9)?);
            }
            _ => return Some(false),
        }
        // Its data: blocks of up to 255 bytes, ended by an empty one.
        while bytes.get(at)? > &0 {
            at += 1 + usize::from(bytes[at]);
        }
        at += 1;
    }
}

fn png_has_frames(bytes: &[u8]) -> Option<bool> {
    let mut chunks = bytes.get(8..)?;
    loop {
        let (head, rest) = chunks.split_at_checked(8)?;
        match &head[4..] {
            // The number of frames comes first.
            b"acTL" => return Some(rest.get(..4)? > &[0, 0, 0, 1][..]),
            b"IDAT" => return Some(false),
            _ => {}
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        // Behind the data is a checksum.
        chunks = rest.get((length as usize).checked_add(4)?..)?;
    }
}

/// The EXIF block of a WebP, if all of it is there.
pub(super) fn webp_exif(bytes: &[u8]) -> Option<&[u8]> {
    // Only the extended format has one.
    let mut chunks = bytes.get(12..).filter(|rest| rest.starts_with(b"VP8X"))?;
    loop {
        let (head, rest) = chunks.split_at_checked(8)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if head.starts_with(b"EXIF") {
            return rest.get(..length);
        }
        chunks = rest.get(length.checked_next_multiple_of(2)?..)?;
    }
}

/// Whether a JPEG has its end marker. A thumbnail's does not count.
pub(super) fn jpeg_ends(bytes: &[u8]) -> bool {
    let end = || {
        let mut rest = bytes.get(2..)?;
        loop {
            // In coded data, 0xFF is followed by 0 or is a restart; other markers end them.
            let marker =
                |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0 | 1 | 0xD0..=0xD8 | 0xFF);
            rest = &rest[rest.windows(2).position(marker)?..];
            if rest[1] == 0xD9 {
                return Some(());
            }
            let length = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]);
            rest = rest.get(2 + usize::from(length)..)?;
        }
    };
    end().is_some()
}
