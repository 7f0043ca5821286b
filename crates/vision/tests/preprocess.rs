//! Resizing and views against Pillow's bytes.
//!
//! `fixtures/parity/preproc` holds resizes of noise, the sums of every view of three pages, and
//! the geometry of pads and tile grids, all made with Pillow 11.3.

use std::path::PathBuf;

use agx_ocr_vision::resize::bicubic;
use agx_ocr_vision::views::{Fit, ViewMode, Views, count, normalised, pad_geometry, prepare};
use image::RgbImage;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/parity")
        .join(path)
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

fn page(name: &str) -> RgbImage {
    image::open(fixture(&format!("images/{name}.png")))
        .unwrap()
        .to_rgb8()
}

fn sha256(image: &RgbImage) -> String {
    Sha256::digest(image.as_raw())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap() as u32
}

fn pair(value: &Value) -> (u32, u32) {
    (number(&value[0]), number(&value[1]))
}

fn mode(name: &str) -> ViewMode {
    match name {
        "tiny" => ViewMode::TINY,
        "small" => ViewMode::SMALL,
        "base" => ViewMode::BASE,
        "large" => ViewMode::LARGE,
        "gundam" => ViewMode::GUNDAM,
        _ => panic!("{name}"),
    }
}

/// An u8 tensor `[height, width, 3]`.
fn picture(tensors: &SafeTensors, name: &str) -> RgbImage {
    let tensor = tensors.tensor(name).unwrap();
    let (height, width) = (tensor.shape()[0] as u32, tensor.shape()[1] as u32);
    RgbImage::from_raw(width, height, tensor.data().to_vec()).unwrap()
}

#[test]
fn resizes_of_noise_are_pillows() {
    let file = std::fs::read(fixture("preproc/resize_unit.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut resizes = 0;
    for name in tensors.names() {
        let parts: Vec<_> = name.split('.').collect();
        if let ["resize", source, target] = parts[..]
            && target != "src"
        {
            let want = picture(&tensors, name);
            let source = picture(&tensors, &format!("resize.{source}.src"));
            assert!(
                bicubic(&source, want.width(), want.height()) == want,
                "{name}"
            );
            resizes += 1;
        }
    }
    assert_eq!(resizes, 36);
}

/// The reference's pads go to sides of 48 and 65, which no encoder takes: so the padding is
/// repeated here from the geometry, and its bytes are compared.
#[test]
fn pads_of_noise_are_pillows() {
    let file = std::fs::read(fixture("preproc/resize_unit.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut pads = 0;
    for name in tensors.names() {
        let parts: Vec<_> = name.split('.').collect();
        if let ["pad", source, _] = parts[..] {
            let want = picture(&tensors, name);
            let source = picture(&tensors, &format!("resize.{source}.src"));
            let (width, height, x, y) = pad_geometry(source.width(), source.height(), want.width());
            let inner = bicubic(&source, width, height);
            let mut got = RgbImage::from_pixel(want.width(), want.width(), image::Rgb([127; 3]));
            image::imageops::replace(&mut got, &inner, x.into(), y.into());
            assert!(got == want, "{name}");
            pads += 1;
        }
    }
    assert_eq!(pads, 8);
}

#[test]
fn every_view_of_the_pages_is_pillows() {
    let manifest = json("preproc/manifest.json");
    let cases = manifest["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 15);
    for (case, want) in cases {
        let (name, size) = case.split_once('_').unwrap();
        let (page, mode) = (page(name), mode(size));
        assert_eq!(page.dimensions(), pair(&want["size_wh"]), "{case}");

        let (wide, _) = pair(&want["hpass_wh"]);
        let first_pass = bicubic(&page, wide, page.height());
        assert_eq!(
            sha256(&first_pass),
            want["hpass_sha256"],
            "{case}: first pass"
        );

        let Views { global, tiles } = prepare(&page, &mode).unwrap();
        assert_eq!(global.dimensions(), pair(&want["global_wh"]), "{case}");
        assert_eq!(sha256(&global), want["global_sha256"], "{case}");
        let values = global.as_raw().iter();
        let sum: f64 = values
            .map(|byte| f64::from(normalised()[usize::from(*byte)]))
            .sum();
        let off = sum / want["global_bf16_sum"].as_f64().unwrap() - 1.0;
        assert!(off.abs() < 1e-12, "{case}: {off}");

        let grid = tiles.as_ref().map(|tiles| tiles.grid);
        assert_eq!(
            grid.unwrap_or((1, 1)),
            pair(&want["crop_grid_wh"]),
            "{case}"
        );
        let count = mode.token_count(grid);
        assert_eq!(count, number(&want["n_image_tokens"]) as usize, "{case}");
        let sums: Vec<_> = tiles
            .iter()
            .flat_map(|tiles| &tiles.images)
            .map(sha256)
            .collect();
        assert_eq!(sums.len(), number(&want["n_tiles"]) as usize, "{case}");
        if !sums.is_empty() {
            assert_eq!(serde_json::json!(sums), want["tile_sha256"], "{case}");
        }
    }
}

#[test]
fn pad_geometry_is_pillows() {
    let table = json("preproc/pad_geometry.json");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 800);
    for row in rows {
        let row: Vec<u32> = row.as_array().unwrap().iter().map(number).collect();
        let [w, h, size, contain_w, contain_h, x, y] = row[..] else {
            panic!("{row:?}")
        };
        assert_eq!(
            pad_geometry(w, h, size),
            (contain_w, contain_h, x, y),
            "{w}x{h} in {size}"
        );
    }
}

#[test]
fn tile_grids_are_the_vendors() {
    let table = json("preproc/crop_grids.json");
    let rows = table.as_array().unwrap();
    assert_eq!(rows.len(), 339);
    for row in rows {
        let (w, h) = (number(&row["w"]), number(&row["h"]));
        for (max_tiles, key) in [(9, "grid_max9"), (6, "grid_max6")] {
            let mode = ViewMode::Tiled {
                base: 1024,
                tile: 640,
                max_tiles,
            };
            let grid = mode.grid(w, h).unwrap_or((1, 1));
            assert_eq!(grid, pair(&row[key]), "{w}x{h} at most {max_tiles}");
        }
    }
}

#[test]
fn normalised_bytes_are_the_vendors() {
    let file = std::fs::read(fixture("preproc/resize_unit.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let want = tensors.tensor("norm.bf16").unwrap();
    for (byte, (got, want)) in normalised()
        .iter()
        .zip(want.data().chunks_exact(2))
        .enumerate()
    {
        let want = half::bf16::from_le_bytes([want[0], want[1]]).to_f32();
        assert_eq!(got.to_bits(), want.to_bits(), "{byte}");
    }
}

#[test]
fn token_counts_are_the_vendors() {
    let count = |mode: ViewMode, grid| mode.token_count(grid);
    assert_eq!(count(ViewMode::TINY, None), 73);
    assert_eq!(count(ViewMode::SMALL, None), 111);
    assert_eq!(count(ViewMode::BASE, None), 273);
    assert_eq!(count(ViewMode::LARGE, None), 421);
    assert_eq!(count(ViewMode::GUNDAM, None), 273);
    assert_eq!(count(ViewMode::GUNDAM, Some((1, 2))), 493);
    // A mode without tiles has no use for a grid.
    assert_eq!(count(ViewMode::BASE, Some((3, 2))), 273);
}

#[test]
fn an_extreme_aspect_keeps_one_pixel() {
    let line = RgbImage::from_pixel(1, 20_000, image::Rgb([255; 3]));
    let view = prepare(&line, &ViewMode::BASE).unwrap().global;
    assert_eq!(view.get_pixel(512, 0), &image::Rgb([255; 3]));
    assert_eq!(
        view.pixels()
            .filter(|&&pixel| pixel == image::Rgb([127; 3]))
            .count(),
        1023 * 1024
    );
}

#[test]
fn views_are_counted_without_being_made() {
    let tiled = |tile, max_tiles| ViewMode::Tiled {
        base: 64,
        tile,
        max_tiles,
    };
    let square = |fit| ViewMode::Square { size: 64, fit };
    let modes = [square(Fit::Pad), square(Fit::Stretch), tiled(64, 2)];
    let modes = modes.into_iter().chain([tiled(64, 9), tiled(128, 64)]);
    let sides = [1, 63, 64, 65, 127, 129, 500, 1999];
    for mode in modes {
        for (width, height) in sides.iter().flat_map(|w| sides.map(|h| (*w, h))) {
            let views = prepare(&RgbImage::new(width, height), &mode).unwrap();
            let size = format!("{width}x{height} in {mode:?}");
            assert_eq!(count(width, height, &mode), views.count(), "{size}");
        }
    }
    let counts =
        [(640, 640), (641, 640), (1700, 1200)].map(|(w, h)| count(w, h, &ViewMode::GUNDAM));
    assert_eq!(counts, [1, 5, 7]);
    for mode in [
        ViewMode::TINY,
        ViewMode::SMALL,
        ViewMode::BASE,
        ViewMode::LARGE,
    ] {
        assert_eq!(count(3000, 1, &mode), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No size fails, a view is always square, and one colour stays that colour.
    #[test]
    fn any_size_gives_a_square_view(
        width in 1u32..400, height in 1u32..400, stride in 1u32..5, stretch: bool, colour: [u8; 3],
    ) {
        let size = 64 * stride;
        let fit = if stretch { Fit::Stretch } else { Fit::Pad };
        let image = RgbImage::from_pixel(width, height, image::Rgb(colour));
        let view = prepare(&image, &ViewMode::Square { size, fit }).unwrap().global;
        prop_assert_eq!(view.dimensions(), (size, size));
        let (w, h, x, y) = if stretch { (size, size, 0, 0) } else { pad_geometry(width, height, size) };
        for (px, py, pixel) in view.enumerate_pixels() {
            let inside = (x..x + w).contains(&px) && (y..y + h).contains(&py);
            prop_assert_eq!(pixel.0, if inside { colour } else { [127; 3] });
        }
    }
}
