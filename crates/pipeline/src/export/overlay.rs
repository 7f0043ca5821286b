//! The regions of a page, drawn on its picture.

use embedded_graphics::Drawable;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, iso_8859_1::FONT_6X13_BOLD};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{
    Primitive, PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment,
};
use embedded_graphics::text::{Baseline, Text};
use image::RgbImage;

use super::canvas::Canvas;
use super::line::clamped;
use crate::Region;

const FONT: MonoFont<'static> = FONT_6X13_BOLD;
/// The longest tag, in characters.
const TAG: usize = 24;

// The palette of Okabe and Ito (Color Universal Design, 2008), which the colour-blind tell apart.
const BLACK: Rgb888 = Rgb888::new(0, 0, 0);
const ORANGE: Rgb888 = Rgb888::new(230, 159, 0);
const SKY_BLUE: Rgb888 = Rgb888::new(86, 180, 233);
const GREEN: Rgb888 = Rgb888::new(0, 158, 115);
const YELLOW: Rgb888 = Rgb888::new(240, 228, 66);
const BLUE: Rgb888 = Rgb888::new(0, 114, 178);
const VERMILION: Rgb888 = Rgb888::new(213, 94, 0);
const PURPLE: Rgb888 = Rgb888::new(204, 121, 167);

/// Draws a box around each region, with a tag that shows its label, or its number from 1 where it
/// has none.
///
/// Titles are vermilion, text blue, tables green, figures purple, captions and footnotes orange,
/// formulas sky blue, headers, footers and page numbers yellow, and all else is black: a palette
/// that the colour-blind tell apart. Lines are drawn inside of the box, 2 pixels wide or more, in
/// proportion to the picture. The tag stands above the box, or inside where there is no room, and
/// shows at most 24 characters; those that its font lacks (it has Latin-1) are `?`.
///
/// `image` is the upright page, in whose pixels the boxes are. What lies outside is not drawn, and
/// a box without area is drawn as a mark as wide as the lines.
pub fn overlay(image: &mut RgbImage, regions: &[Region]) {
    let longest = image.width().max(image.height());
    let stroke = (longest / 500).max(2);
    let scale = ((longest + 500) / 1000).max(1);
    let boxes: Vec<_> = regions
        .iter()
        .map(|region| visible(image, region.bbox, stroke))
        .collect();
    // Tags last: no box is to cross them.
    for (region, place) in regions.iter().zip(&boxes) {
        if let Some(place) = place {
            draw_box(image, *place, stroke, colour(region.label.as_deref()));
        }
    }
    for (i, (region, place)) in regions.iter().zip(&boxes).enumerate() {
        if let Some([left, top, ..]) = place {
            let label = region.label.as_deref();
            let text = tag(label.filter(|label| !label.is_empty()), i + 1);
            draw_tag(image, (*left, *top), scale, &text, colour(label));
        }
    }
}

/// What is to be seen of a box: at least a mark as wide as a stroke, or nothing.
fn visible(image: &RgbImage, bbox: [u32; 4], stroke: u32) -> Option<[u32; 4]> {
    let (width, height) = image.dimensions();
    let [x0, y0, x1, y1] = clamped(bbox, width, height);
    let widened = |from: u32, to: u32, side: u32| {
        let to = to.max(from.saturating_add(stroke)).min(side);
        (from < to).then_some(to)
    };
    Some([x0, y0, widened(x0, x1, width)?, widened(y0, y1, height)?])
}

fn draw_box(image: &mut RgbImage, [x0, y0, x1, y1]: [u32; 4], stroke: u32, colour: Rgb888) {
    let style = PrimitiveStyleBuilder::new()
        .stroke_color(colour)
        .stroke_width(stroke)
        .stroke_alignment(StrokeAlignment::Inside)
        .build();
    let place = Rectangle::new(Point::zero(), Size::new(x1 - x0, y1 - y0));
    let mut canvas = Canvas {
        image,
        origin: (x0, y0),
        scale: 1,
    };
    let Ok(()) = place.into_styled(style).draw(&mut canvas);
}

fn draw_tag(image: &mut RgbImage, (left, top): (u32, u32), scale: u32, text: &str, colour: Rgb888) {
    // A pixel of the font around the text.
    let letter = FONT.character_size;
    let size = Size::new(
        letter.width * text.chars().count() as u32 + 2,
        letter.height + 2,
    );
    let canvas_left = left.min(image.width().saturating_sub(size.width * scale));
    let mut canvas = Canvas {
        image,
        origin: (
            canvas_left,
            top.checked_sub(size.height * scale).unwrap_or(top),
        ),
        scale,
    };
    let ground = Rectangle::new(Point::zero(), size);
    let Ok(()) = ground
        .into_styled(PrimitiveStyle::with_fill(colour))
        .draw(&mut canvas);
    let style = MonoTextStyle::new(&FONT, readable_on(colour));
    let Ok(_) = Text::with_baseline(text, Point::new(1, 1), style, Baseline::Top).draw(&mut canvas);
}

/// What a tag shows.
fn tag(label: Option<&str>, number: usize) -> String {
    match label {
        // A line break would start a second line.
        Some(label) => {
            let visible = |c: char| if c.is_control() { '?' } else { c };
            label.chars().take(TAG).map(visible).collect()
        }
        None => number.to_string(),
    }
}

fn colour(label: Option<&str>) -> Rgb888 {
    match label.unwrap_or_default() {
        "title" | "sub_title" => VERMILION,
        "text" | "list" => BLUE,
        "table" => GREEN,
        "image" => PURPLE,
        label if label.ends_with("_caption") || label.ends_with("_footnote") => ORANGE,
        "equation" | "formula" => SKY_BLUE,
        "header" | "footer" | "page_number" => YELLOW,
        _ => BLACK,
    }
}

/// Black on light colours, white on dark ones: by luma (ITU-R BT.601).
fn readable_on(colour: Rgb888) -> Rgb888 {
    let [r, g, b] = [colour.r(), colour.g(), colour.b()].map(u32::from);
    if 299 * r + 587 * g + 114 * b > 128_000 {
        Rgb888::BLACK
    } else {
        Rgb888::WHITE
    }
}
