//! What is refused, and how it is said.

use agx_ocr_pipeline::input::{Alpha, Format, InputError, Limits};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use proptest::prelude::*;

use crate::{decode, encode, fax::left_out, file, inputs, message, read};

#[test]
fn what_is_not_base64_of_an_image_is_text() {
    let padded = BASE64_STANDARD.encode(file("rgb.png"));
    for text in [
        padded.replacen('g', "-", 1),
        format!("{}!{}", &padded[..8], &padded[8..]),
        format!("image: {padded}"),
        "iVBORw0KGg".repeat(3) + "=AAAA",
        BASE64_STANDARD.encode("just words, encoded"),
    ] {
        assert!(
            message(text.as_bytes()).contains("looks like text"),
            "{text}"
        );
    }
    // A base64 PNG that breaks off is a PNG, and so is one that was encoded twice no image.
    assert!(message(&padded.as_bytes()[..40]).contains("corrupt or invalid PNG"));
    assert!(message(BASE64_STANDARD.encode(&padded).as_bytes()).contains("looks like text"));
    assert!(message(b"data:image/png,abc").contains("not in base64"));
    assert!(message(b"data:image/png;base64").contains("without data"));
    assert!(message(b"data:image/png;base64,iVB*").contains("broken base64"));
    assert!(message(b"data:;base64,JVBERi0xLjc=").contains("PDF"));
}

#[test]
fn nothing_is_empty() {
    for bytes in [&b""[..], b"\n", b"  \r\n\t", b"data:image/png;base64,"] {
        assert!(matches!(read(bytes), Err(InputError::Empty)));
        assert!(message(bytes).contains("empty"));
    }
}

#[test]
fn too_many_bytes_are_too_large() {
    let mut limits = Limits::default();
    limits.bytes = 104;
    let error = decode(&file("rgb.png"), &limits, Alpha::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the input is too large: 105 bytes, where at most 104 are allowed"
    );
    limits.bytes = 105;
    assert!(decode(&file("rgb.png"), &limits, Alpha::default()).is_ok());
    assert!(message(&vec![0; 100_000_000]).contains("too large"));
}

#[test]
fn other_data_are_named() {
    for (bytes, name) in [
        (&b"<!DOCTYPE html><html>"[..], "HTML"),
        (b"\n<HTML lang=en>", "HTML"),
        (b"<?xml version='1.0'?><svg>", "SVG"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"{\"image\": 3}", "JSON"),
        (b"BMW is a maker of cars, and this is text", "text"),
        (b"P4 is a kind of text", "text"),
        ("Grüße\n".repeat(300).as_bytes(), "text"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "video"),
        (&[0; 64], "zeros"),
        (b"\x01\x02\x03\xfe\xff", "unknown binary data"),
        (b"\x01\x02\x03", "unknown binary data"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(
            matches!(error, InputError::NotAnImage { .. }),
            "{name}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("looks like {name}")),
            "{error}"
        );
    }
}

#[test]
fn a_beginning_with_rubbish_behind_it_is_corrupt() {
    for (start, name) in [
        (&b"\x89PNG"[..], "PNG"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"GIF89a\x05\0\x05\0", "GIF"),
        (b"RIFF\x20\0\0\0WEBP", "WebP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"P6\n", "PNM"),
    ] {
        let bytes = [start, b" garbage garbage garbage"].concat();
        // PNM: a letter where a number belongs is no PNM.
        let bytes = if name == "PNM" {
            b"P6\n1 garbage".to_vec()
        } else {
            bytes
        };
        let error = read(&bytes).unwrap_err();
        assert!(
            matches!(error, InputError::Corrupt { .. }),
            "{name}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("corrupt or invalid {name}: ")),
            "{text}"
        );
    }
}

#[test]
fn files_that_break_off_are_corrupt() {
    for name in [
        "rgb.png",
        "rgb.bmp",
        "rgb.ppm",
        "lzw.tiff",
        "one.gif",
        "lossy.webp",
        "lossless.webp",
    ] {
        let bytes = file(name);
        // The ends of a PNG and a GIF are not needed for the picture.
        for keep in [bytes.len() / 2, bytes.len() * 3 / 4] {
            let error = read(&bytes[..keep]).expect_err(&format!("{name} of {keep} bytes"));
            assert!(
                matches!(error, InputError::Corrupt { .. }),
                "{name}: {error}"
            );
        }
    }
}

/// A PNG that announces a size and has next to no data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encode(RgbImage::new(1, 1), ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    assert_eq!(
        png_header(1, 1),
        encode(RgbImage::new(1, 1), ImageFormat::Png)
    );
    for (width, height) in [
        (100_000, 100_000),
        (30_001, 1),
        (1, 30_001),
        (20_000, 20_000),
    ] {
        let started = std::time::Instant::now();
        let error = read(&png_header(width, height)).unwrap_err();
        let InputError::Dimensions {
            width: w,
            height: h,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((w, h), (width, height));
        let text = error.to_string();
        assert!(
            text.contains("too large") && text.contains(&format!("{width}x{height}")),
            "{text}"
        );
        // Pages for 30 GB of pixels would take seconds.
        assert!(started.elapsed().as_millis() < 500);
    }
    // Within the limits it is the data that are wrong.
    assert!(matches!(
        read(&png_header(5_000, 5_000)),
        Err(InputError::Corrupt { .. })
    ));
    // Every format's header is heeded.
    let mut small = Limits::default();
    small.width = 10;
    for entry in std::fs::read_dir(inputs()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        if Format::of(&bytes).is_some() && !left_out(&name) {
            let error = decode(&bytes, &small, Alpha::default()).unwrap_err();
            assert!(
                matches!(error, InputError::Dimensions { .. }),
                "{}: {error}",
                path.display()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damaged files and arbitrary bytes give an image or an error, never a panic.
    #[test]
    fn damage_never_panics(
        pick: prop::sample::Index, keep in 0.0f64..1.3, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut names: Vec<_> = std::fs::read_dir(inputs()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        let mut bytes = std::fs::read(pick.get(&names)).unwrap();
        let length = bytes.len();
        bytes.truncate((length as f64 * keep) as usize);
        for (place, value) in damage {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        let mut limits = Limits::default();
        limits.pixels = 1_000_000;
        let _ = decode(&bytes, &limits, Alpha::default());
    }

    #[test]
    fn arbitrary_bytes_never_panic(start in 0usize..8, mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let starts: [&[u8]; 8] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"RIFF\0\0\0\0WEBP", b"P5 ", b"data:;base64,"];
        bytes.splice(0..0, starts[start].iter().copied());
        let mut limits = Limits::default();
        limits.pixels = 1_000_000;
        let _ = decode(&bytes, &limits, Alpha::default());
    }
}
