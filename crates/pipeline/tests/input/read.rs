//! What is read, and what comes out.

use agx_ocr_pipeline::input::{Alpha, DecodedImage, Format, InputError, Limits};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage};
use serde_json::Value;

use crate::{decode, encode, fax::left_out, file, picture, read};

#[test]
fn every_format_gives_pillows_colours() {
    let expected: Value = serde_json::from_slice(&file("expected.json")).unwrap();
    let expected = expected.as_object().unwrap();
    assert_eq!(expected.len(), 37);
    for (name, want) in expected {
        if left_out(name) {
            continue;
        }
        let bytes = file(name);
        let DecodedImage {
            image,
            format,
            warnings,
            ..
        } = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let media_type = match name.rsplit('.').next().unwrap() {
            "jpg" => "image/jpeg",
            "pbm" | "pgm" | "ppm" => "image/x-portable-anymap",
            other => &format!("image/{other}"),
        };
        assert_eq!(format.media_type(), media_type, "{name}");
        let (w, h) = image.dimensions();
        assert_eq!(serde_json::json!([w, h]), want["size"], "{name}");
        for i in 0..4 {
            let got = image
                .get_pixel(w * (1 + 2 * (i % 2)) / 4, h * (1 + 2 * (i / 2)) / 4)
                .0;
            for (channel, got) in got.into_iter().enumerate() {
                let want = want["quarters"][i as usize][channel].as_u64().unwrap() as u8;
                // Lossy decoders may round in other ways, and so may CMYK.
                let lossless = !["jpg", "lossy", "cmyk"]
                    .iter()
                    .any(|part| name.contains(part));
                let off = if lossless { 0 } else { 2 };
                assert!(
                    got.abs_diff(want) <= off,
                    "{name}: {got} for {want} in quarter {i}"
                );
            }
        }
        let several = name.starts_with("animated");
        assert_eq!(warnings.len(), usize::from(several), "{name}: {warnings:?}");
        assert!(
            warnings
                .iter()
                .all(|warning| warning.contains("only the first")),
            "{warnings:?}"
        );
    }
}

#[test]
fn base64_and_data_uris_are_read() {
    let bytes = file("rgb.png");
    let plain = read(&bytes).unwrap().image;
    let padded = BASE64_STANDARD.encode(&bytes);
    let lines: String = padded
        .as_bytes()
        .chunks(20)
        .flat_map(|line| [line, b"\r\n"])
        .flatten()
        .map(|&byte| byte as char)
        .collect();
    for text in [
        padded.clone(),
        BASE64_STANDARD_NO_PAD.encode(&bytes),
        format!("\n {lines}\n"),
        format!("data:image/png;base64,{padded}"),
        format!("DATA:image/png;name=a;BASE64,{lines}\n"),
        // The declared type is not believed.
        format!("data:text/plain;base64,{padded}"),
        format!("data:;base64,{padded}"),
    ] {
        assert_eq!(read(text.as_bytes()).unwrap().image, plain, "{text}");
    }
}

#[test]
fn a_jpeg_that_breaks_off_is_read_as_far_as_it_goes() {
    let mut bytes = Vec::new();
    let image = picture(200, 400);
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(&image)
        .unwrap();
    assert!(read(&bytes).unwrap().warnings.is_empty());

    // Only the end marker is missing.
    let whole = read(&bytes[..bytes.len() - 2]).unwrap();
    assert_eq!(whole.image, read(&bytes).unwrap().image);
    assert!(
        whole.warnings[0].contains("breaks off"),
        "{:?}",
        whole.warnings
    );

    let most = read(&bytes[..bytes.len() * 4 / 5]).unwrap();
    assert!(
        most.warnings[0].contains("of its 400 rows are missing"),
        "{:?}",
        most.warnings
    );

    for keep in [bytes.len() / 3, bytes.len() / 10, 30] {
        let error = read(&bytes[..keep]).unwrap_err();
        assert!(
            matches!(
                error,
                InputError::Corrupt {
                    format: Format::Jpeg,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn bytes_behind_a_jpeg_are_no_damage() {
    let bytes = [&file("rgb.jpg")[..], b"\0\0trailer"].concat();
    assert!(read(&bytes).unwrap().warnings.is_empty());
}

#[test]
fn a_grey_bottom_is_not_a_missing_one() {
    let mut bytes = Vec::new();
    let grey = RgbImage::from_pixel(64, 64, Rgb([128; 3]));
    JpegEncoder::new(&mut bytes).encode_image(&grey).unwrap();
    assert!(read(&bytes).unwrap().warnings.is_empty());
}

/// A little-endian EXIF block with an orientation alone.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

#[test]
fn every_orientation_is_turned_upright() {
    let upright = picture(7, 4);
    // What a camera stores that was held so: the inverse of each turn.
    let stored = |orientation| {
        let mut image = DynamicImage::ImageRgb8(upright.clone());
        match orientation {
            1 => {}
            2 => image = image.fliph(),
            3 => image = image.rotate180(),
            4 => image = image.flipv(),
            5 => image = image.rotate90().fliph(),
            6 => image = image.rotate270(),
            7 => image = image.rotate270().fliph(),
            _ => image = image.rotate90(),
        }
        image.into_rgb8()
    };
    for orientation in 1..=8 {
        let image = stored(orientation);
        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        let (w, h) = image.dimensions();
        encoder
            .write_image(image.as_raw(), w, h, image::ExtendedColorType::Rgb8)
            .unwrap();
        assert_eq!(
            read(&png).unwrap().image,
            upright,
            "orientation {orientation}"
        );

        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.encode_image(&image).unwrap();
        let turned = read(&jpeg).unwrap().image;
        assert_eq!(turned.dimensions(), (7, 4), "orientation {orientation}");
        let far = turned
            .iter()
            .zip(upright.iter())
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap();
        assert!(far < 11, "orientation {orientation}: {far}");
    }
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(77)).unwrap();
    encoder.encode_image(&upright).unwrap();
    assert_eq!(
        read(&bytes).unwrap().image.dimensions(),
        (7, 4),
        "an impossible orientation"
    );
}

#[test]
fn transparency_is_over_white_or_dropped() {
    let pixels = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 128]];
    let image = image::RgbaImage::from_fn(3, 1, |x, _| image::Rgba(pixels[x as usize]));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let bytes = encode(image.clone(), format);
        let over = decode(&bytes, &Limits::default(), Alpha::OverWhite)
            .unwrap()
            .image;
        assert_eq!(over.as_raw(), &[10, 20, 30, 255, 255, 255, 127, 177, 227]);
        let dropped = decode(&bytes, &Limits::default(), Alpha::Drop)
            .unwrap()
            .image;
        assert_eq!(dropped.as_raw(), &[10, 20, 30, 10, 20, 30, 0, 100, 200]);
    }
    let grey = image::GrayAlphaImage::from_fn(2, 1, |x, _| image::LumaA([40, 255 * x as u8]));
    let over = read(&encode(grey, ImageFormat::Png)).unwrap().image;
    assert_eq!(over.as_raw(), &[255, 255, 255, 40, 40, 40]);
}

#[test]
fn samples_of_16_bits_are_rounded() {
    let levels = [0u16, 128, 129, 300, 32_768, 65_406, 65_407, 65_535];
    let grey = image::ImageBuffer::from_fn(8, 1, |x, _| image::Luma([levels[x as usize]]));
    let image = read(&encode(DynamicImage::ImageLuma16(grey), ImageFormat::Png))
        .unwrap()
        .image;
    let got: Vec<u8> = image.pixels().map(|pixel| pixel.0[0]).collect();
    assert_eq!(got, [0, 0, 1, 1, 128, 254, 255, 255]);
    let colour = image::ImageBuffer::from_pixel(1, 1, Rgb([65_535u16, 257 * 9, 0]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let bytes = encode(DynamicImage::ImageRgb16(colour.clone()), format);
        assert_eq!(read(&bytes).unwrap().image.as_raw(), &[255, 9, 0]);
    }
}

#[test]
fn thin_images_are_images() {
    for (width, height) in [(1, 1), (1, 20_000), (20_000, 1)] {
        let bytes = encode(RgbImage::new(width, height), ImageFormat::Png);
        assert_eq!(read(&bytes).unwrap().image.dimensions(), (width, height));
    }
}
