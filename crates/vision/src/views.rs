//! The views of an image that the encoder sees: one square view of the whole, and tiles.
//!
//! | mode | global view | tiles |
//! |---|---|---|
//! | [`ViewMode::TINY`], [`ViewMode::SMALL`] | 512, 640; stretched to the square | none |
//! | [`ViewMode::BASE`], [`ViewMode::LARGE`] | 1024, 1280; padded with grey | none |
//! | [`ViewMode::GUNDAM`] | 1024; padded | up to 9 of 640, when a side is longer than 640 |
//!
//! Every size agrees with the vendor's code to the pixel, with one exception: a side that rounds
//! to nothing when padded (an image of 1x20000) is kept one pixel long, where that code fails.

use half::bf16;
use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::resize::bicubic;

/// Pixels of a view's side to one vision token: patches of 16, then two halvings.
pub const STRIDE: u32 = 64;
/// The longest side of a view.
pub const MAX_SIZE: u32 = 2048;
/// The most tiles a mode may ask for.
pub const MAX_TILES: u32 = 64;

/// Grey of the padding: `int(0.5 * 255)`.
const PADDING: Rgb<u8> = Rgb([127; 3]);

/// How an image is brought into a square view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The aspect ratio is kept; grey fills the rest, on both sides.
    Pad,
    /// Both sides are scaled to the square.
    Stretch,
}

/// Which views of an image are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ViewMode {
    /// One square view.
    Square {
        /// Side in pixels.
        size: u32,
        /// How the image is brought into it.
        fit: Fit,
    },
    /// One padded view, and tiles of the image where a side is longer than a tile.
    Tiled {
        /// Side of the padded view in pixels.
        base: u32,
        /// Side of a tile in pixels.
        tile: u32,
        /// The most tiles, at least 2 (one tile is never chosen).
        max_tiles: u32,
    },
}

impl ViewMode {
    /// 512 pixels, 73 vision tokens.
    pub const TINY: Self = Self::Square {
        size: 512,
        fit: Fit::Stretch,
    };
    /// 640 pixels, 111 vision tokens.
    pub const SMALL: Self = Self::Square {
        size: 640,
        fit: Fit::Stretch,
    };
    /// 1024 pixels, 273 vision tokens.
    pub const BASE: Self = Self::Square {
        size: 1024,
        fit: Fit::Pad,
    };
    /// 1280 pixels, 421 vision tokens.
    pub const LARGE: Self = Self::Square {
        size: 1280,
        fit: Fit::Pad,
    };
    /// 1024 pixels and tiles of 640: 273 vision tokens and about 100 a tile.
    pub const GUNDAM: Self = Self::Tiled {
        base: 1024,
        tile: 640,
        max_tiles: 9,
    };

    /// Side of the global view in pixels.
    pub fn global_size(&self) -> u32 {
        match *self {
            Self::Square { size, .. } => size,
            Self::Tiled { base, .. } => base,
        }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    ///
    /// [`ViewError::Size`] or [`ViewError::TileCount`].
    pub fn check(&self) -> Result<(), ViewError> {
        let size = |size: u32| match size {
            STRIDE..=MAX_SIZE if size.is_multiple_of(STRIDE) => Ok(()),
            _ => Err(ViewError::Size { size }),
        };
        match *self {
            Self::Square { size: side, .. } => size(side),
            Self::Tiled { max_tiles, .. } if !(2..=MAX_TILES).contains(&max_tiles) => {
                Err(ViewError::TileCount { max_tiles })
            }
            Self::Tiled { base, tile, .. } => size(base).and(size(tile)),
        }
    }

    /// The tile grid (columns, rows) of an image of `width` x `height` pixels, if it is tiled.
    ///
    /// The grid of 2 to `max_tiles` tiles whose shape is nearest to the image's; of two equally
    /// near ones the larger, if the image covers more than half of its area.
    pub fn grid(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let Self::Tiled {
            tile, max_tiles, ..
        } = *self
        else {
            return None;
        };
        if width <= tile && height <= tile {
            return None;
        }
        let aspect = f64::from(width) / f64::from(height);
        let area = f64::from(width) * f64::from(height);
        let half_tile = 0.5 * f64::from(tile) * f64::from(tile);
        let mut best = None;
        let mut nearest = f64::INFINITY;
        for tiles in 2..=max_tiles {
            for columns in (1..=tiles).filter(|&columns| tiles.is_multiple_of(columns)) {
                let rows = tiles / columns;
                let distance = (aspect - f64::from(columns) / f64::from(rows)).abs();
                let larger = distance == nearest && area > half_tile * f64::from(tiles);
                if distance < nearest || larger {
                    nearest = distance;
                    best = Some((columns, rows));
                }
            }
        }
        best
    }

    /// The number of vision tokens of an image with this tile grid (`None`: no tiles).
    ///
    /// A view of n x n tokens takes n (n + 1), since a newline token ends each row; the tiles
    /// together are one such grid; a separator token ends the image.
    pub fn token_count(&self, grid: Option<(u32, u32)>) -> usize {
        let rows = |columns: u32, rows: u32| rows as usize * (columns as usize + 1);
        let side = self.global_size() / STRIDE;
        let tiles = match (*self, grid) {
            (Self::Tiled { tile, .. }, Some((wide, high))) => {
                let side = tile / STRIDE;
                rows(side * wide, side * high)
            }
            _ => 0,
        };
        tiles + rows(side, side) + 1
    }
}

/// Why an image cannot be brought into views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A view's side that the encoder cannot take.
    #[error(
        "a view of {size} pixels is not possible: choose a multiple of {STRIDE} from {STRIDE} to {MAX_SIZE}"
    )]
    Size {
        /// The side asked for.
        size: u32,
    },
    /// A number of tiles out of range.
    #[error("at most {max_tiles} tiles is not possible: choose from 2 to {MAX_TILES}")]
    TileCount {
        /// The number asked for.
        max_tiles: u32,
    },
    /// An image without pixels.
    #[error("the image has no pixels ({width}x{height})")]
    EmptyImage {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
}

/// The views of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    /// The whole image, square.
    pub global: RgbImage,
    /// Its tiles, where the mode asks for them and the image is large enough.
    pub tiles: Option<Tiles>,
}

impl Views {
    /// The number of views.
    pub fn count(&self) -> usize {
        1 + self.tiles.as_ref().map_or(0, |tiles| tiles.images.len())
    }
}

/// The tiles of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Columns (wide), rows (high).
    pub grid: (u32, u32),
    /// The tiles, row by row.
    pub images: Vec<RgbImage>,
}

/// Makes the views of an image.
///
/// # Errors
///
/// See [`ViewMode::check`]; [`ViewError::EmptyImage`].
///
/// ```
/// use agx_ocr_vision::views::{ViewMode, prepare};
///
/// let page = image::RgbImage::new(1700, 1200);
/// let views = prepare(&page, &ViewMode::GUNDAM)?;
/// assert_eq!(views.global.dimensions(), (1024, 1024));
/// let grid = views.tiles.map(|tiles| tiles.grid);
/// assert_eq!(grid, Some((3, 2)));
/// assert_eq!(ViewMode::GUNDAM.token_count(grid), 893);
/// # Ok::<(), agx_ocr_vision::views::ViewError>(())
/// ```
pub fn prepare(image: &RgbImage, mode: &ViewMode) -> Result<Views, ViewError> {
    mode.check()?;
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Err(ViewError::EmptyImage { width, height });
    }
    Ok(match *mode {
        ViewMode::Square {
            size,
            fit: Fit::Stretch,
        } => Views {
            global: bicubic(image, size, size),
            tiles: None,
        },
        ViewMode::Square {
            size,
            fit: Fit::Pad,
        } => Views {
            global: pad(image, size),
            tiles: None,
        },
        ViewMode::Tiled { base, tile, .. } => Views {
            global: pad(image, base),
            tiles: mode.grid(width, height).map(|grid| cut(image, tile, grid)),
        },
    })
}

/// The number of views that [`prepare`] makes of an image of `width` x `height` pixels in a mode that
/// [`ViewMode::check`] lets pass.
pub fn count(width: u32, height: u32, mode: &ViewMode) -> usize {
    let tiles = mode.grid(width, height);
    1 + tiles.map_or(0, |(columns, rows)| columns as usize * rows as usize)
}

/// The size that an image takes in a padded view, and where its left and top edges lie there:
/// `(width, height, x, y)`, all in pixels of the view. Halves round to even.
pub fn pad_geometry(width: u32, height: u32, size: u32) -> (u32, u32, u32, u32) {
    let (w, h, s) = (f64::from(width), f64::from(height), f64::from(size));
    // The shorter side, from its ratio to the longer one.
    let shorter = |ratio: f64| ((ratio * s).round_ties_even() as u32).max(1);
    let (width, height) = match width.cmp(&height) {
        std::cmp::Ordering::Greater => (size, shorter(h / w)),
        std::cmp::Ordering::Less => (shorter(w / h), size),
        std::cmp::Ordering::Equal => (size, size),
    };
    let offset = |side: u32| (f64::from(size - side) * 0.5).round_ties_even() as u32;
    (width, height, offset(width), offset(height))
}

fn pad(image: &RgbImage, size: u32) -> RgbImage {
    let (width, height, x, y) = pad_geometry(image.width(), image.height(), size);
    let resized = bicubic(image, width, height);
    if (width, height) == (size, size) {
        return resized;
    }
    let mut view = RgbImage::from_pixel(size, size, PADDING);
    imageops::replace(&mut view, &resized, x.into(), y.into());
    view
}

fn cut(image: &RgbImage, tile: u32, grid: (u32, u32)) -> Tiles {
    let (wide, high) = grid;
    let whole = bicubic(image, tile * wide, tile * high);
    let places = (0..high).flat_map(|row| (0..wide).map(move |column| (column, row)));
    let images = places
        .map(|(x, y)| imageops::crop_imm(&whole, x * tile, y * tile, tile, tile).to_image())
        .collect();
    Tiles { grid, images }
}

/// The value of each byte as the encoder takes it: `(v / 255 - 0.5) / 0.5`, rounded to bf16.
pub fn normalised() -> &'static [f32; 256] {
    const TABLE: [f32; 256] = {
        let mut table = [0.0; 256];
        let mut byte = 0;
        while byte < table.len() {
            table[byte] = bf16::from_f32_const((byte as f32 / 255.0 - 0.5) / 0.5).to_f32_const();
            byte += 1;
        }
        table
    };
    &TABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_with_the_way_out() {
        let square = |size| ViewMode::Square {
            size,
            fit: Fit::Pad,
        };
        let image = RgbImage::new(10, 10);
        for size in [0, 1, 63, 100, 2112, u32::MAX] {
            let error = prepare(&image, &square(size)).unwrap_err();
            assert_eq!(error, ViewError::Size { size });
            assert!(error.to_string().contains("multiple of 64"), "{error}");
        }
        for size in [64, 2048] {
            assert_eq!(prepare(&image, &square(size)).unwrap().global.width(), size);
        }
        for (base, tile, max_tiles) in [
            (1024, 640, 1),
            (1024, 640, 65),
            (1000, 640, 9),
            (1024, 641, 9),
        ] {
            assert!(
                ViewMode::Tiled {
                    base,
                    tile,
                    max_tiles
                }
                .check()
                .is_err()
            );
        }
    }

    #[test]
    fn an_image_without_pixels_is_refused() {
        let error = prepare(&RgbImage::new(0, 7), &ViewMode::BASE).unwrap_err();
        assert_eq!(
            error,
            ViewError::EmptyImage {
                width: 0,
                height: 7
            }
        );
    }

    #[test]
    fn fit_is_written_in_small_letters() {
        assert_eq!(serde_json::to_string(&Fit::Pad).unwrap(), "\"pad\"");
        assert_eq!(
            serde_json::from_str::<Fit>("\"stretch\"").unwrap(),
            Fit::Stretch
        );
        assert!(serde_json::from_str::<Fit>("\"squash\"").is_err());
    }
}
