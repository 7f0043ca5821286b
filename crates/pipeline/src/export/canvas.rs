//! A picture as something to draw on.

use std::convert::Infallible;

use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Dimensions, Point, Size};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::Rectangle;
use image::{Rgb, RgbImage};

/// A part of a picture, seen through a magnifying glass: a pixel drawn here is a square of
/// `scale` pixels there. What falls outside of the picture is not drawn.
pub(super) struct Canvas<'a> {
    pub image: &'a mut RgbImage,
    /// The pixel of the picture where this canvas begins.
    pub origin: (u32, u32),
    /// Pixels of the picture a pixel drawn.
    pub scale: u32,
}

impl Canvas<'_> {
    /// The pixels of the picture along one side that a pixel drawn covers.
    fn covered(&self, at: i32, origin: u32, side: u32) -> std::ops::Range<u32> {
        let origin = i64::from(origin);
        let (at, scale) = (i64::from(at), i64::from(self.scale));
        // Between 0 and a `u32`.
        let inside = |place: i64| place.clamp(0, i64::from(side)) as u32;
        inside(origin + at * scale)..inside(origin + (at + 1) * scale)
    }
}

impl Dimensions for Canvas<'_> {
    fn bounding_box(&self) -> Rectangle {
        let side = |side: u32, origin: u32| side.saturating_sub(origin) / self.scale.max(1);
        let (width, height) = self.image.dimensions();
        let (left, top) = self.origin;
        let size = Size::new(side(width, left), side(height, top));
        Rectangle::new(Point::zero(), size)
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        let (width, height) = self.image.dimensions();
        for Pixel(at, colour) in pixels {
            let colour = Rgb([colour.r(), colour.g(), colour.b()]);
            for y in self.covered(at.y, self.origin.1, height) {
                for x in self.covered(at.x, self.origin.0, width) {
                    self.image.put_pixel(x, y, colour);
                }
            }
        }
        Ok(())
    }
}
