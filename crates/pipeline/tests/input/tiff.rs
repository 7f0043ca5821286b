//! TIFF: its pages, and the images that the general decoder does not take.

use agx_ocr_pipeline::input::{Document, InputError, Limits, Rendering};
use proptest::prelude::*;

use crate::{message, picture, read, read_damaged};

/// One directory of a file to be.
#[derive(Clone, Default)]
pub(crate) struct Directory {
    /// Tag, and its values: one short or two, or more that lie elsewhere.
    entries: Vec<(u16, Vec<u16>)>,
    pixels: Vec<u8>,
    /// Where the next directory is said to lie, if not behind this one.
    next: Option<u32>,
}

impl Directory {
    /// A picture of `bits` a sample, 1 for black is zero, 3 for a palette.
    pub(crate) fn new(size: (u16, u16), bits: u16, photometric: u16, pixels: Vec<u8>) -> Self {
        let entries = [(256, size.0), (257, size.1), (258, bits), (259, 1)];
        let more = [(262, photometric), (277, 1), (278, size.1)];
        let entries = entries.into_iter().chain(more);
        Self {
            entries: entries.map(|(tag, value)| (tag, vec![value])).collect(),
            pixels,
            next: None,
        }
    }

    /// Of so many samples a pixel instead of one, all of the same bits.
    pub(crate) fn samples(mut self, count: u16) -> Self {
        for (tag, values) in &mut self.entries {
            match tag {
                258 => *values = values.repeat(count.into()),
                277 => *values = vec![count],
                _ => {}
            }
        }
        self
    }

    pub(crate) fn with(mut self, tag: u16, values: Vec<u16>) -> Self {
        self.entries.retain(|(known, _)| *known != tag);
        self.entries.push((tag, values));
        self
    }
}

/// A file of directories, in the byte order of choice.
pub(crate) fn tiff(directories: &[Directory], little: bool) -> Vec<u8> {
    let short = |v: u16| match little {
        true => v.to_le_bytes(),
        false => v.to_be_bytes(),
    };
    let long = |v: usize| match little {
        true => (v as u32).to_le_bytes(),
        false => (v as u32).to_be_bytes(),
    };
    let mut file = if little { *b"II*\0" } else { *b"MM\0*" }.to_vec();
    file.extend(long(8));
    for (i, directory) in directories.iter().enumerate() {
        let mut entries = directory.entries.clone();
        entries.sort_by_key(|(tag, _)| *tag);
        let here = file.len();
        // Two more: where the pixels are, and how many bytes.
        let end = here + 2 + 12 * (entries.len() + 2) + 4;
        let mut behind = directory.pixels.clone();
        behind.resize(behind.len().next_multiple_of(2), 0);
        let mut all: Vec<(u16, [u8; 10])> = Vec::new();
        let entry = |kind: u16, count: usize, value: [u8; 4]| {
            let mut entry = [0; 10];
            entry[..2].copy_from_slice(&short(kind));
            entry[2..6].copy_from_slice(&long(count));
            entry[6..].copy_from_slice(&value);
            entry
        };
        for (tag, values) in entries {
            let mut value = [0; 4];
            if values.len() <= 2 {
                for (field, v) in value.chunks_exact_mut(2).zip(&values) {
                    field.copy_from_slice(&short(*v));
                }
            } else {
                value = long(end + behind.len());
                behind.extend(values.iter().flat_map(|v| short(*v)));
            }
            all.push((tag, entry(3, values.len(), value)));
        }
        all.push((273, entry(4, 1, long(end))));
        all.push((279, entry(4, 1, long(directory.pixels.len()))));
        all.sort_by_key(|(tag, _)| *tag);
        file.extend(short(all.len() as u16));
        for (tag, entry) in all {
            file.extend(short(tag));
            file.extend(entry);
        }
        let last = i + 1 == directories.len();
        let next = if last { 0 } else { end + behind.len() };
        file.extend(long(directory.next.map_or(next, |next| next as usize)));
        file.extend(behind);
    }
    file
}

fn grey(value: u8) -> Directory {
    Directory::new((2, 1), 8, 1, vec![value, value])
}

fn first_pixels(bytes: Vec<u8>) -> Vec<u8> {
    let document = Document::open(bytes, &Limits::default()).unwrap();
    (1..=document.pages())
        .map(|number| {
            let page = document.page(number, &Rendering::default()).unwrap();
            page.image.as_raw()[0]
        })
        .collect()
}

#[test]
fn pages_come_in_their_order() {
    for little in [true, false] {
        let file = tiff(&[grey(10), grey(20), grey(30)], little);
        assert_eq!(first_pixels(file), [10, 20, 30]);
    }
}

#[test]
fn thumbnails_and_masks_are_no_pages() {
    let (thumbnail, mask) = (grey(99).with(254, vec![1]), grey(99).with(254, vec![4]));
    let page = grey(20).with(254, vec![2]);
    let file = tiff(&[grey(10), thumbnail.clone(), page, mask], true);
    assert_eq!(first_pixels(file), [10, 20]);
    // Alone, a reduced image is better than nothing.
    assert_eq!(first_pixels(tiff(&[thumbnail], true)), [99]);
}

#[test]
fn a_chain_that_runs_in_a_circle_ends() {
    let mut back = grey(20);
    back.next = Some(8);
    assert_eq!(first_pixels(tiff(&[grey(10), back], true)), [10, 20]);
    let mut itself = grey(10);
    itself.next = Some(8);
    assert_eq!(first_pixels(tiff(&[itself], false)), [10]);
}

#[test]
fn a_broken_page_leaves_the_others() {
    let broken = Directory::new((200, 200), 8, 1, vec![0; 10]);
    let file = tiff(&[grey(10), broken, grey(30)], true);
    let document = Document::open(file, &Limits::default()).unwrap();
    let page = |number| document.page(number, &Rendering::default());
    assert!(page(1).is_ok() && page(3).is_ok());
    assert!(matches!(page(2), Err(InputError::Corrupt { .. })));
    assert!(matches!(
        page(4),
        Err(InputError::NoSuchPage { pages: 3, .. })
    ));
}

#[test]
fn a_directory_of_too_many_entries_is_not_another_page() {
    let mut first = grey(10);
    // Behind its entries, its pixels and their padding: the first byte that is free.
    let end = tiff(std::slice::from_ref(&first), true).len();
    first.next = Some(end as u32);
    let mut file = tiff(&[first], true);
    file.extend([0xFF; 100]);
    let document = Document::open(file, &Limits::default()).unwrap();
    let page = |number| document.page(number, &Rendering::default());
    assert!(document.pages() == 2 && page(1).is_ok());
    assert!(matches!(page(2), Err(InputError::Corrupt { .. })));
}

#[test]
fn few_bits_are_widened() {
    for little in [true, false] {
        // Three samples of 4 bits, then of 2; rows end at whole bytes.
        let four = Directory::new((3, 2), 4, 1, vec![0x0F, 0x80, 0x21, 0x00]);
        let image = read(&tiff(&[four], little)).unwrap().image;
        let values: Vec<u8> = image.pixels().map(|pixel| pixel.0[0]).collect();
        assert_eq!(values, [0, 255, 136, 34, 17, 0]);
        let two = Directory::new((3, 1), 2, 1, vec![0b00_01_11_00]);
        let image = read(&tiff(&[two], little)).unwrap().image;
        assert_eq!(image.as_raw(), &[0, 0, 0, 85, 85, 85, 255, 255, 255]);
    }
}

#[test]
fn palettes_give_their_colours() {
    for (bits, pixels) in [(1, vec![0b0100_0000]), (4, vec![0x01]), (8, vec![0, 1])] {
        let colours = 1 << bits;
        // Red, then blue.
        let mut map = vec![0; 3 * colours];
        (map[0], map[2 * colours + 1]) = (0xC0FF, 0x7F00);
        let image = Directory::new((2, 1), bits, 3, pixels).with(320, map);
        for little in [true, false] {
            let image = read(&tiff(std::slice::from_ref(&image), little))
                .unwrap()
                .image;
            assert_eq!(image.as_raw(), &[0xC0, 0, 0, 0, 0, 0x7F], "{bits} bits");
        }
    }
}

#[test]
fn they_are_turned_upright() {
    let image = Directory::new((2, 1), 4, 1, vec![0x0F]).with(274, vec![6]);
    let image = read(&tiff(&[image], true)).unwrap().image;
    assert_eq!(image.dimensions(), (1, 2));
    assert_eq!(image.as_raw(), &[0, 0, 0, 255, 255, 255]);
}

#[test]
fn palettes_of_8_bits_are_detected() {
    // Red, then blue, in values that a palette of 16 bits would show as black.
    let mut map = vec![0; 48];
    (map[0], map[33]) = (0xC0, 0x7F);
    let image = |map| {
        tiff(
            &[Directory::new((2, 1), 4, 3, vec![0x01]).with(320, map)],
            true,
        )
    };
    let eight = read(&image(map.clone())).unwrap().image;
    assert_eq!(eight.as_raw(), &[0xC0, 0, 0, 0, 0, 0x7F]);
    // One value that has no room in 8 bits.
    map[47] = 0x100;
    let sixteen = read(&image(map)).unwrap().image;
    assert_eq!(sixteen.as_raw(), &[0; 6]);
}

#[test]
fn a_palette_without_its_colours_is_corrupt() {
    let image = Directory::new((2, 1), 8, 3, vec![0, 200]);
    let short = image.clone().with(320, vec![9; 767]);
    // The colours are said to lie behind the end of the file.
    let mut outside = tiff(&[image.clone().with(320, vec![9; 768])], true);
    outside.truncate(outside.len() - 2);
    for file in [tiff(&[image], true), tiff(&[short], true), outside] {
        let message = message(&file);
        assert!(
            message.contains("corrupt or invalid TIFF: its palette"),
            "{message}"
        );
    }
}

#[test]
fn few_bits_of_several_samples_are_unsupported() {
    let pixels = vec![0; 64];
    let colour = Directory::new((4, 4), 4, 2, pixels.clone()).samples(3);
    let alpha = Directory::new((4, 4), 4, 1, pixels.clone())
        .samples(2)
        .with(338, vec![2]);
    let indices = Directory::new((4, 4), 8, 3, pixels)
        .samples(2)
        .with(320, vec![9; 768]);
    for (image, reason) in [
        (colour, "3 samples of 4 bits a pixel"),
        (alpha, "2 samples of 4 bits a pixel"),
        (indices, "bits per sample [8, 8]"),
    ] {
        let error = read(&tiff(&[image], true)).unwrap_err();
        assert!(matches!(error, InputError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn entries_without_end_are_not_searched() {
    // A BigTIFF whose directories all lie in each other, each 8 bytes behind the one before, so
    // that few bytes hold many entries.
    let file = |directories: u64, entries: u64| {
        let mut file = b"II+\0\x08\0\0\0".to_vec();
        file.extend(16_u64.to_le_bytes());
        file.extend(entries.to_le_bytes().repeat(directories as usize));
        file.resize(24 + 20 * entries as usize, 0);
        for number in 1..=directories {
            file.extend((16 + 8 * number).to_le_bytes());
        }
        file
    };
    let pages = |file: Vec<u8>| Document::open(file, &Limits::default()).unwrap().pages();
    // One that is too long ends the chain.
    assert_eq!(pages(file(1 << 12, 4097)), 1);
    assert_eq!(pages(file(1 << 16, 1 << 20)), 1);
    // Of those that are not, no more entries are looked at than the file has room for.
    let many = file(1 << 12, 4096);
    let room = many.len() / (20 * 4096);
    assert!((2..=room + 2).contains(&pages(many)));
}

#[test]
fn large_and_short_ones_are_refused() {
    let wide = Directory::new((40_000, 2), 4, 1, vec![0; 8]);
    assert!(message(&tiff(&[wide], true)).contains("too large: 40000x2"));
    let none = Directory::new((0, 2), 4, 1, vec![0; 8]);
    assert!(message(&tiff(&[none], true)).contains("corrupt or invalid TIFF"));
    let short = Directory::new((100, 100), 4, 1, vec![0; 8]);
    assert!(message(&tiff(&[short], true)).contains("corrupt or invalid TIFF"));
}

#[test]
fn lengths_that_lie_are_corrupt() {
    // The bytes of the strip: as many as the number of its place has room for.
    let mut file = tiff(&[grey(10)], true);
    let entry = file
        .windows(4)
        .position(|bytes| bytes == [0x17, 0x01, 4, 0]);
    let at = entry.unwrap() + 8;
    file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message(&file).contains("TIFF"));
}

proptest! {
    /// Damage in the numbers of a file, where its structure is.
    #[test]
    fn damage_never_panics(
        little: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (w, h) = (4, 4);
        let pixels = picture(w, h).into_raw();
        let palette = Directory::new((4, 4), 4, 3, pixels).with(320, vec![9; 48]);
        read_damaged(tiff(&[grey(1), palette, grey(2)], little), damage);
    }
}
