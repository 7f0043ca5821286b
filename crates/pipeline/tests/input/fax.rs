//! Faxes by Group 3 in TIFF files.

use crate::{file, message};

/// Files of `fixtures/inputs`: the picture of `fax.tiff`, coded in every way.
pub(crate) const GROUP_3: [&str; 8] = [
    "fax_g3.tiff",
    "fax_g3_2d.tiff",
    "fax_g3_2d_lowest.tiff",
    "fax_g3_fill.tiff",
    "fax_g3_lowest.tiff",
    "fax_g3_strips.tiff",
    "fax_mh.tiff",
    "fax_mh_lowest.tiff",
];

/// Whether this build does not read a file of `fixtures/inputs`.
pub(crate) fn left_out(name: &str) -> bool {
    cfg!(not(feature = "fax")) && GROUP_3.contains(&name)
}

#[cfg(not(feature = "fax"))]
#[test]
fn without_the_feature_they_are_refused_by_name() {
    for name in GROUP_3 {
        let message = message(&file(name));
        assert!(
            message.contains("this build reads no Group 3 fax"),
            "{message}"
        );
    }
}

#[cfg(feature = "fax")]
mod decoded {
    use super::*;
    use crate::{
        decode, read, read_damaged,
        tiff::{Directory, tiff},
    };
    use agx_ocr_pipeline::input::{Alpha, InputError, Limits};
    use image::RgbImage;
    use proptest::prelude::*;

    #[test]
    fn every_coding_gives_the_same_pixels() {
        let want = read(&file("fax.tiff")).unwrap().image;
        for name in GROUP_3 {
            let page = read(&file(name)).unwrap();
            assert!(page.image == want, "{name}");
            assert!(page.warnings.is_empty(), "{name}: {:?}", page.warnings);
        }
    }

    /// A row of 8 pixels in modified Huffman: 3 white, 5 black, and one of 8 white.
    const MIXED: u8 = 0b1000_0011;
    const BLANK: u8 = 0b1001_1000;

    fn fax(height: u16, pixels: Vec<u8>) -> Directory {
        Directory::new((8, height), 1, 0, pixels).with(259, vec![2])
    }

    fn ink(image: &RgbImage) -> Vec<bool> {
        image.pixels().map(|pixel| pixel.0 == [0; 3]).collect()
    }

    #[test]
    fn white_is_what_the_file_says() {
        let mixed = [false, false, false, true, true, true, true, true];
        for little in [true, false] {
            let white_is_0 = fax(2, vec![MIXED, BLANK]);
            let black_is_0 = white_is_0.clone().with(262, vec![1]);
            let image = read(&tiff(&[white_is_0], little)).unwrap().image;
            assert_eq!(ink(&image), [mixed, [false; 8]].concat());
            let image = read(&tiff(&[black_is_0], little)).unwrap().image;
            assert_eq!(ink(&image), [mixed.map(|ink| !ink), [true; 8]].concat());
        }
    }

    #[test]
    fn they_are_turned_upright() {
        let image = fax(1, vec![MIXED]).with(274, vec![6]);
        let image = read(&tiff(&[image], true)).unwrap().image;
        assert_eq!(image.dimensions(), (1, 8));
        assert!(!ink(&image)[0] && ink(&image)[7]);
    }

    #[test]
    fn what_breaks_off_is_read_if_half_of_it_is_there() {
        let page = read(&tiff(&[fax(8, vec![MIXED; 4])], true)).unwrap();
        let ink = ink(&page.image);
        assert!(ink[..32].iter().filter(|ink| **ink).count() == 20 && !ink[32..].contains(&true));
        assert_eq!(
            page.warnings,
            ["The fax in the TIFF is damaged from row 5 on: 4 of its 8 rows are missing."]
        );
        let error = read(&tiff(&[fax(9, vec![MIXED; 4])], true)).unwrap_err();
        assert!(matches!(error, InputError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("5 of its 9 rows"), "{error}");
        // No strip for the rows from the third on.
        let short = fax(8, vec![MIXED; 8]).with(278, vec![2]);
        assert!(message(&tiff(&[short], true)).contains("6 of its 8 rows are missing"));
    }

    /// Where the first strip lies in a file of `fixtures/documents`.
    fn strip(bytes: &[u8]) -> std::ops::Range<usize> {
        // Pillow writes the strip behind the header, and all else behind it.
        let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        8..directory as usize
    }

    #[test]
    fn a_damaged_line_costs_a_few() {
        let whole = file("../documents/fax_g3.tiff");
        let want = read(&whole).unwrap();
        assert!(want.warnings.is_empty());
        let strip = strip(&whole);
        let middle = (strip.start + strip.end) / 2;
        let mut bytes = whole.clone();
        bytes[middle..middle + 2].fill(0b0101_0101);
        let page = read(&bytes).unwrap();
        assert_eq!(page.warnings.len(), 1);
        let warning = &page.warnings[0];
        let (before, after) = ("damaged from row ", " on: lines may be wrong");
        let from = warning.split_once(before).unwrap().1.split_once(after);
        let from: usize = from.unwrap().0.parse().unwrap();
        let rows = |image: &RgbImage| {
            let rows = image.as_raw().chunks(3 * image.width() as usize);
            rows.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let (rows, want) = (rows(&page.image), rows(&want.image));
        assert!(from > 10 && from < 50, "{warning}");
        assert_eq!(rows[..from - 1], want[..from - 1]);
        // Every other line, or every fourth, is told without the one before.
        let wrong = rows
            .iter()
            .zip(&want)
            .filter(|(row, want)| row != want)
            .count();
        assert!((1..=4).contains(&wrong), "{wrong} lines");
    }

    #[test]
    fn rubbish_is_corrupt() {
        for compression in [2, 3] {
            let rubbish = fax(50, vec![0; 40]).with(259, vec![compression]);
            let message = message(&tiff(&[rubbish], true));
            assert!(
                message.contains("corrupt or invalid TIFF: its fax is damaged"),
                "{message}"
            );
        }
    }

    #[test]
    fn limits_come_before_pixels() {
        let wide = fax(2, vec![MIXED; 2]).with(256, vec![40_000]);
        assert!(message(&tiff(&[wide], true)).contains("too large: 40000x2"));
        let mut limits = Limits::default();
        limits.pixels = 15;
        let small = tiff(&[fax(2, vec![MIXED; 2])], true);
        let error = decode(&small, &limits, Alpha::default()).unwrap_err();
        assert!(matches!(error, InputError::Dimensions { .. }), "{error}");
        for tag in [256, 257] {
            let none = fax(2, vec![MIXED; 2]).with(tag, vec![0]);
            assert!(message(&tiff(&[none], true)).contains("it has no pixels"));
        }
        let none = fax(2, vec![MIXED; 2]).with(278, vec![0]);
        assert!(message(&tiff(&[none], true)).contains("its strips have no rows"));
    }

    #[test]
    fn other_kinds_are_unsupported() {
        let pixels = || vec![MIXED; 2];
        let colour = fax(2, pixels()).samples(3);
        let grey = fax(2, pixels()).with(258, vec![8]);
        let mask = fax(2, pixels()).with(262, vec![4]);
        for (kind, reason) in [
            (colour, "more than black and white"),
            (grey, "more than black and white"),
            (mask, "photometric kind 4"),
        ] {
            let error = read(&tiff(&[kind], true)).unwrap_err();
            assert!(matches!(error, InputError::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        // Tiles, by their tag in place of the strips'.
        let mut file = tiff(&[fax(2, pixels())], true);
        let at = file
            .windows(4)
            .position(|bytes| bytes == [0x11, 0x01, 4, 0]);
        file[at.unwrap()..][..2].copy_from_slice(&324_u16.to_le_bytes());
        assert!(message(&file).contains("not in strips"));
    }

    #[test]
    fn strips_do_not_share_their_bytes() {
        // A thousand strips, each of them the whole file.
        let mut file = tiff(&[fax(1000, vec![MIXED; 2000]).with(278, vec![1])], true);
        let (places, length) = (file.len() as u32, file.len() as u32);
        file.extend(8_u32.to_le_bytes().repeat(1000));
        file.extend(length.to_le_bytes().repeat(1000));
        for (tag, place) in [(273_u16, places), (279, places + 4000)] {
            let start = [&tag.to_le_bytes()[..], &[4, 0]].concat();
            let at = file.windows(4).position(|bytes| bytes == start).unwrap();
            file[at + 4..at + 8].copy_from_slice(&1000_u32.to_le_bytes());
            file[at + 8..at + 12].copy_from_slice(&place.to_le_bytes());
        }
        assert!(message(&file).contains("its strips are longer than the file"));
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            name in prop::sample::select(&GROUP_3[..]),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            read_damaged(file(name), damage);
        }
    }
}
