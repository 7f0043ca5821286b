//! Bands on drawn pages, on the sample pages and on scanned receipts.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use agx_ocr_vision::bands::{Band, split};
use image::{Rgb, RgbImage};
use proptest::prelude::*;

const VIEW: u32 = 640;

/// A page of text rows: letters of `letter` pixels, strokes of 3 pixels, rows `pitch` apart.
#[derive(Clone)]
struct Text {
    size: (u32, u32),
    /// Columns with text.
    columns: std::ops::Range<u32>,
    /// Top of each row.
    rows: Vec<u32>,
    letter: u32,
}

impl Text {
    /// Text from `margin` to `margin` before the bottom.
    fn new(size: (u32, u32), margin: u32, letter: u32, pitch: u32) -> Self {
        let rows = (margin..size.1 - margin - letter)
            .step_by(pitch as usize)
            .collect();
        Self {
            size,
            columns: 20..size.0 - 20,
            rows,
            letter,
        }
    }

    /// Whether a letter covers the pixel. Words end at other places in each row.
    fn ink(&self, x: u32, y: u32) -> bool {
        let Some(row) = self.rows.iter().rposition(|&top| top <= y) else {
            return false;
        };
        let word = !(x / 8 + 3 * row as u32).is_multiple_of(7);
        y < self.rows[row] + self.letter && self.columns.contains(&x) && x % 8 < 3 && word
    }

    fn draw(&self, colour: impl Fn(u32, u32, bool) -> u8) -> RgbImage {
        RgbImage::from_fn(self.size.0, self.size.1, |x, y| {
            Rgb([colour(x, y, self.ink(x, y)); 3])
        })
    }

    fn plain(&self) -> RgbImage {
        self.draw(|_, _, ink| if ink { 30 } else { 245 })
    }

    /// Every row of letters lies whole in one band, and every band holds a row.
    #[track_caller]
    fn assert_kept(&self, bands: &[Band]) {
        for &top in &self.rows {
            let holds = |band: &&Band| {
                band.top <= top
                    && top + self.letter <= band.bottom
                    && band.left <= self.columns.start
                    && self.columns.end <= band.right
            };
            assert_eq!(
                bands.iter().filter(holds).count(),
                1,
                "row at {top} in {bands:?}"
            );
        }
        for band in bands {
            assert!(
                self.rows
                    .iter()
                    .any(|row| (band.top..band.bottom).contains(row)),
                "{band:?}"
            );
        }
    }
}

/// Ordered, apart, inside the page, one at least, and of the promised shape.
#[track_caller]
fn assert_sound(image: &RgbImage, bands: &[Band]) {
    assert!(!bands.is_empty());
    for band in bands {
        assert!(
            band.left < band.right && band.right <= image.width(),
            "{band:?}"
        );
        assert!(
            band.top < band.bottom && band.bottom <= image.height(),
            "{band:?}"
        );
        assert_eq!((band.left, band.right), (bands[0].left, bands[0].right));
        if bands.len() > 1 {
            assert!(4 * band.height() <= 3 * band.width(), "{band:?}");
        }
    }
    for pair in bands.windows(2) {
        assert!(pair[0].bottom <= pair[1].top, "{bands:?}");
    }
}

/// Noise between -`level` and `level`, from the place alone.
fn noise(x: u32, y: u32, level: i32) -> i32 {
    let mut bits = x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77);
    bits ^= bits >> 15;
    bits = bits.wrapping_mul(0xC2B2_AE3D);
    bits ^= bits >> 13;
    (bits % (2 * level as u32 + 1)) as i32 - level
}

fn receipt() -> Text {
    Text::new((460, 1010), 30, 14, 25)
}

#[test]
fn a_tall_page_is_cut_between_its_rows() {
    let page = receipt().plain();
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    assert_eq!(bands.len(), 3, "{bands:?}");
    receipt().assert_kept(&bands);
}

#[test]
fn a_large_view_needs_no_bands() {
    let page = receipt().plain();
    assert_eq!(split(&page, 2048), [Band::whole(&page)]);
}

#[test]
fn grey_paper_uneven_light_and_noise_make_no_difference() {
    let text = receipt();
    let page = text.draw(|x, y, ink| {
        let light = 0.5 + 0.4 * f64::from(x) / 460.0 + 0.1 * f64::from(y) / 1010.0;
        let level = if ink { 70.0 } else { 220.0 };
        ((level * light) as i32 + noise(x, y, 6)).clamp(0, 255) as u8
    });
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    assert_eq!(bands.len(), 3);
    text.assert_kept(&bands);
}

#[test]
fn specks_make_no_difference() {
    let text = receipt();
    let page = text.draw(|x, y, ink| match noise(x, y, 200) {
        200 => 0,
        -200 => 255,
        _ if ink => 40,
        _ => 235,
    });
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    text.assert_kept(&bands);
}

#[test]
fn dark_borders_and_vertical_rules_make_no_difference() {
    let text = receipt();
    let page = text.draw(|x, y, ink| {
        let border = x < 9 + noise(0, y, 1) as u32 % 3 || x > 450 || !(12..1000).contains(&y);
        let rule = x == 150 || x == 300 || x == 301;
        if border {
            15
        } else if ink || rule {
            50
        } else {
            230
        }
    });
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    text.assert_kept(&bands);
}

#[test]
fn light_letters_on_dark_are_letters() {
    let text = receipt();
    let page = text.draw(|_, _, ink| if ink { 220 } else { 25 });
    let bands = split(&page, VIEW);
    assert_eq!(bands, split(&text.plain(), VIEW));
    text.assert_kept(&bands);
}

#[test]
fn tightly_set_rows_are_cut_in_their_narrow_gaps() {
    // Three clear rows in 53.
    let text = Text::new((720, 2240), 20, 50, 53);
    let page = text.plain();
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    assert!(bands.len() > 1);
    text.assert_kept(&bands);
}

#[test]
fn pale_text_is_text() {
    let text = receipt();
    let page = text.draw(|_, y, ink| match ink {
        true if !(100..900).contains(&y) => 205,
        true => 20,
        false => 245,
    });
    text.assert_kept(&split(&page, VIEW));
}

#[test]
fn a_skewed_page_is_cut_where_least_ink_is() {
    let text = receipt();
    // A degree and a half: over the page's width, 12 pixels; the gaps are 11.
    let page = RgbImage::from_fn(460, 1010, |x, y| {
        let sheared = y as i32 - (f64::from(x) * 0.026) as i32;
        let ink = sheared >= 0 && text.ink(x, sheared as u32);
        Rgb([if ink { 30 } else { 245 }; 3])
    });
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    assert!(bands.len() > 1);
    let ink = |y: u32| {
        (0..460)
            .filter(|&x| page.get_pixel(x, y).0[0] < 128)
            .count()
    };
    let average = (0..1010).map(ink).sum::<usize>() / 1010;
    for band in &bands[1..] {
        assert!(
            3 * ink(band.top) < average,
            "{} of {average} at {}",
            ink(band.top),
            band.top
        );
    }
    let inside = |y: &u32| bands.iter().any(|band| (band.top..band.bottom).contains(y));
    assert!(
        (0..1010).filter(|&y| ink(y) > 0).all(|y| inside(&y)),
        "{bands:?}"
    );
}

#[test]
fn blank_stretches_are_in_no_band() {
    let mut text = Text::new((460, 2000), 300, 14, 25);
    text.rows.retain(|row| !(600..1200).contains(row));
    let page = text.plain();
    let bands = split(&page, VIEW);
    assert_sound(&page, &bands);
    text.assert_kept(&bands);
    let covered: u32 = bands.iter().map(Band::height).sum();
    assert!(covered < 1000, "{covered} rows of 800 with text: {bands:?}");
}

#[test]
fn a_small_text_on_a_large_page_is_cropped() {
    let mut text = Text::new((1600, 2200), 200, 20, 36);
    text.columns = 500..900;
    text.rows.truncate(9);
    let page = text.plain();
    let bands = split(&page, VIEW);
    assert_eq!(bands.len(), 1, "{bands:?}");
    text.assert_kept(&bands);
    // An em of 20 / 0.72 pixels grows from 8 in the view to two patches.
    assert!((550..=560).contains(&bands[0].width()), "{bands:?}");
}

#[test]
fn a_page_without_text_is_whole() {
    for page in [
        RgbImage::from_pixel(300, 2000, Rgb([255; 3])),
        RgbImage::from_fn(300, 2000, |x, y| Rgb([(200 + noise(x, y, 20)) as u8; 3])),
        RgbImage::new(1, 20_000),
        RgbImage::new(1, 1),
        RgbImage::new(0, 0),
    ] {
        assert_eq!(split(&page, VIEW), [Band::whole(&page)]);
    }
}

#[test]
fn one_line_of_any_length_is_whole() {
    for width in [100, 640, 3000] {
        let page = Text {
            size: (width, 60),
            columns: 5..width - 5,
            rows: vec![20],
            letter: 18,
        }
        .plain();
        assert_eq!(split(&page, VIEW), [Band::whole(&page)]);
    }
}

#[test]
fn the_sample_pages_are_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pages");
    let mut pages = 0;
    for path in files(&folder, "png") {
        let page = image::open(&path).unwrap().to_rgb8();
        assert_eq!(
            split(&page, VIEW),
            [Band::whole(&page)],
            "{}",
            path.display()
        );
        pages += 1;
    }
    assert_eq!(pages, 12);
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

/// The transcript's boxes: left, top, right, bottom.
fn boxes(transcript: &Path) -> Vec<[u32; 4]> {
    let text = String::from_utf8_lossy(&std::fs::read(transcript).unwrap()).into_owned();
    let corners = |line: &str| {
        let n: Vec<u32> = line
            .split(',')
            .take(8)
            .map_while(|n| n.parse().ok())
            .collect();
        (n.len() == 8).then(|| [n[0], n[1], n[4], n[5]])
    };
    text.lines().filter_map(corners).collect()
}

#[test]
fn scanned_receipts_are_cut_beside_their_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/receipts");
    if !folder.is_dir() {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: scanned_receipts_are_cut_beside_their_text because {} is absent",
            folder.display()
        );
        return;
    }
    let (mut lines, mut cut_up) = (0, 0);
    for path in files(&folder, "jpg") {
        let page = image::open(&path).unwrap().to_rgb8();
        let bands = split(&page, VIEW);
        assert_sound(&page, &bands);
        cut_up += usize::from(bands.len() > 1);
        for [left, top, right, bottom] in boxes(&path.with_extension("csv")) {
            // The transcripts' boxes may reach a pixel beyond the letters.
            let inside = |band: &&Band| {
                band.left <= left + 1
                    && band.top <= top + 1
                    && right <= band.right + 1
                    && bottom <= band.bottom + 1
            };
            let place = format!("{left},{top},{right},{bottom} of {}", path.display());
            let holding = bands.iter().filter(inside).count();
            assert_eq!(holding, 1, "{place} in {bands:?}");
            lines += 1;
        }
    }
    assert!(lines > 0 && cut_up > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bands_of_any_text_are_sound_and_keep_it(
        width in 80u32..900, height in 40u32..2400, letter in 6u32..60, gap in 3u32..60, view in 4u32..20,
    ) {
        prop_assume!(height > 40 + letter);
        let text = Text::new((width, height), 20, letter, letter + gap);
        let page = text.plain();
        let bands = split(&page, 64 * view);
        assert_sound(&page, &bands);
        // A row too large for a band is cut; others are not.
        if bands.len() == 1 || 4 * letter < bands[0].width() {
            text.assert_kept(&bands);
        }
    }

    #[test]
    fn bands_of_any_picture_are_sound(
        width in 1u32..300, height in 1u32..3000, cell in 1u32..40, level in 1i32..120, view in 1u32..20,
    ) {
        let page = RgbImage::from_fn(width, height, |x, y| {
            Rgb([(128 + noise(x / cell, y / cell, level)) as u8; 3])
        });
        assert_sound(&page, &split(&page, 64 * view));
    }
}
