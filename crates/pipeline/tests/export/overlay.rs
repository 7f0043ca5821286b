//! Regions drawn on a picture.

use agx_ocr_pipeline::export::overlay;
use proptest::prelude::*;

use super::*;

const GREY: Rgb<u8> = Rgb([128; 3]);
const BLUE: Rgb<u8> = Rgb([0, 114, 178]);
const GREEN: Rgb<u8> = Rgb([0, 158, 115]);
const BLACK: Rgb<u8> = Rgb([0; 3]);
const WHITE: Rgb<u8> = Rgb([255; 3]);

fn grey(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, GREY)
}

/// The pixels that are not as they were: how many, and the box around them.
fn changed(image: &RgbImage) -> Option<(usize, [u32; 4])> {
    let pixels = image
        .enumerate_pixels()
        .filter(|(.., pixel)| **pixel != GREY);
    let pixels: Vec<_> = pixels.map(|(x, y, _)| (x, y)).collect();
    let (xs, ys) = (pixels.iter().map(|p| p.0), pixels.iter().map(|p| p.1));
    let left_top = [xs.clone().min()?, ys.clone().min()?];
    let right_bottom = [xs.max()? + 1, ys.max()? + 1];
    Some((
        pixels.len(),
        [left_top, right_bottom].concat().try_into().unwrap(),
    ))
}

#[test]
fn the_edge_is_drawn_inside_and_the_rest_untouched() {
    let mut image = grey(400, 300);
    overlay(&mut image, &[labelled("text", "", [100, 50, 300, 150])]);
    for (x, y) in image.enumerate_pixels().map(|(x, y, _)| (x, y)) {
        let inside = |edge: u32| {
            (100 + edge..300 - edge).contains(&x) && (50 + edge..150 - edge).contains(&y)
        };
        if inside(0) {
            let wanted = if inside(2) { GREY } else { BLUE };
            assert_eq!(*image.get_pixel(x, y), wanted, "{x}, {y}");
        }
    }
    // The tag: four letters of 6 by 13 and a margin, above the box.
    let tag = image.view_tag([100, 35, 126, 50]);
    assert!(tag.contains(&BLUE) && tag.contains(&WHITE));
    assert_eq!(changed(&image).unwrap().1, [100, 35, 300, 150]);
}

trait ViewTag {
    fn view_tag(&self, bbox: [u32; 4]) -> Vec<Rgb<u8>>;
}

impl ViewTag for RgbImage {
    fn view_tag(&self, [x0, y0, x1, y1]: [u32; 4]) -> Vec<Rgb<u8>> {
        let places = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y)));
        places.map(|(x, y)| *self.get_pixel(x, y)).collect()
    }
}

#[test]
fn lines_and_tags_grow_with_the_picture() {
    let mut image = grey(2000, 1500);
    overlay(&mut image, &[labelled("table", "", [500, 500, 900, 900])]);
    for edge in 0..4 {
        for (x, y) in [
            (500 + edge, 700),
            (899 - edge, 700),
            (700, 500 + edge),
            (700, 899 - edge),
        ] {
            assert_eq!(*image.get_pixel(x, y), GREEN);
        }
    }
    assert_eq!(*image.get_pixel(504, 700), GREY);
    assert_eq!(changed(&image).unwrap().1, [500, 470, 900, 900]);
}

#[test]
fn tags_stay_in_the_picture() {
    let mut image = grey(100, 100);
    overlay(&mut image, &[labelled("text", "", [90, 3, 100, 20])]);
    // Moved to the left, and below the upper edge.
    assert_eq!(changed(&image).unwrap().1, [74, 3, 100, 20]);
}

/// What the tag of a region shows, as pixels.
fn tag(region: Region, width: u32) -> Vec<Rgb<u8>> {
    let mut image = grey(400, 100);
    overlay(&mut image, &[region]);
    image.view_tag([0, 35, width, 50])
}

#[test]
fn a_region_without_a_label_shows_its_number() {
    let numbered = tag(region("x", [0, 50, 390, 90]), 8);
    let named = tag(labelled("1", "x", [0, 50, 390, 90]), 8);
    let empty = tag(labelled("", "x", [0, 50, 390, 90]), 8);
    let other = tag(labelled("2", "x", [0, 50, 390, 90]), 8);
    assert_eq!(numbered, named);
    assert_eq!(numbered, empty);
    assert_ne!(numbered, other);
    assert!(numbered.contains(&BLACK) && numbered.contains(&WHITE));

    let mut image = grey(400, 100);
    let regions = [region("", [0, 50, 90, 90]), region("", [100, 50, 190, 90])];
    overlay(&mut image, &regions);
    assert_eq!(image.view_tag([0, 35, 8, 50]), numbered);
    assert_eq!(image.view_tag([100, 35, 108, 50]), other);
}

#[test]
fn characters_outside_of_the_font_are_question_marks() {
    let unknown = tag(labelled("图\n\u{0}é", "", [0, 50, 390, 90]), 26);
    let marks = tag(labelled("???é", "", [0, 50, 390, 90]), 26);
    let plain = tag(labelled("???e", "", [0, 50, 390, 90]), 26);
    assert_eq!(unknown, marks);
    assert_ne!(marks, plain);
}

#[test]
fn labels_have_colours_that_differ() {
    let labels = [
        "title",
        "text",
        "table",
        "image",
        "table_caption",
        "equation",
        "footer",
        "?",
    ];
    let mut found = Vec::new();
    for label in labels {
        let mut image = grey(50, 50);
        overlay(&mut image, &[labelled(label, "", [0, 20, 50, 50])]);
        let colour = *image.get_pixel(49, 40);
        assert!(colour != GREY && !found.contains(&colour), "{label}");
        found.push(colour);
    }
}

#[test]
fn boxes_without_area_are_marks() {
    for (bbox, wanted) in [
        ([50, 60, 50, 60], [50, 60, 52, 62]),
        ([50, 60, 50, 90], [50, 60, 52, 90]),
        ([99, 99, 99, 99], [99, 99, 100, 100]),
    ] {
        let mut image = grey(100, 100);
        overlay(&mut image, &[labelled("text", "", bbox)]);
        let [x0, y0, x1, y1] = wanted;
        assert!(
            image.view_tag(wanted).iter().all(|pixel| *pixel == BLUE),
            "{bbox:?}"
        );
        let (_, [left, _, right, bottom]) = changed(&image).unwrap();
        assert!(left <= x0 && right >= x1 && bottom == y1.max(y0));
    }
}

#[test]
fn what_lies_outside_is_not_drawn() {
    for bbox in [
        [100, 0, 200, 50],
        [0, 100, 50, 200],
        [u32::MAX; 4],
        [400, 400, 300, 300],
    ] {
        let mut image = grey(100, 100);
        overlay(&mut image, &[labelled("text", "", bbox)]);
        assert_eq!(changed(&image), None, "{bbox:?}");
    }
    let mut image = grey(100, 100);
    overlay(
        &mut image,
        &[labelled("text", "", [50, 50, u32::MAX, u32::MAX])],
    );
    assert_eq!(*image.get_pixel(99, 99), BLUE);
    assert_eq!(*image.get_pixel(97, 97), GREY);
}

proptest! {
    #[test]
    fn nothing_panics(
        (width, height) in (0..60_u32, 0..60_u32),
        regions in prop::collection::vec(any_region(), 0..4),
    ) {
        overlay(&mut grey(width, height), &regions);
    }
}
