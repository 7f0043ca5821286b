//! Views to vision tokens: SAM, CLIP, the projector, and the order in which the decoder reads.

use crate::{
    Result, VisionConfig,
    clip::Clip,
    sam::Sam,
    views::{self, Views},
};
use agx_ocr_backend::{
    Linear, Loader, Observer, Recorded, awake, cat, contiguous, images_at_once, look_up,
};
use candle_core::{Device, Tensor};
use image::RgbImage;
use std::{borrow::Cow, fmt, slice};

/// The vision half of the model.
#[derive(Debug)]
pub struct VisionEncoder {
    sam: Sam,
    clip: Clip,
    projector: Linear,
    image_newline: Tensor,
    view_separator: Tensor,
    device: Device,
    encoded: Recorded,
}

impl VisionEncoder {
    /// The encoder below `loader` (`model`).
    ///
    /// # Errors
    /// When memory on the device cannot be had.
    pub fn new(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self> {
        let hidden = config.hidden_size;
        let row = |name| -> Result<Tensor> {
            let values = loader.host_weight(name, &[hidden]).to_f32();
            Ok(Tensor::from_vec(
                values.clone(),
                values.len(),
                loader.device(),
            )?)
        };
        let features = config.clip.width + config.sam.downsample_channels[1];
        Ok(Self {
            sam: Sam::new(&config.sam, &loader.sub("sam_model")),
            clip: Clip::new(&config.clip, &loader.sub("vision_model"))?,
            projector: loader.linear_bias("projector.layers", features, hidden),
            image_newline: row("image_newline")?,
            // The checkpoint's spelling.
            view_separator: row("view_seperator")?,
            device: loader.device().clone(),
            encoded: Recorded::default(),
        })
    }

    /// The tokens `[n, hidden]` of a page's views, in the decoder's order: rows of the tiles put
    /// together, rows of the global view, each row ended by a newline; then a separator.
    ///
    /// `progress` is called after each view, or a few tiles, with the number done and the number of
    /// all.
    ///
    /// # Errors
    /// When a view is not square or its side no multiple of 64, or `observer` stops.
    pub fn encode(
        &self,
        views: &Views,
        observer: &dyn Observer,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Tensor> {
        let count = views.count();
        let mut done = 0;
        let mut encode = |images: &[RgbImage], name: fmt::Arguments<'_>| {
            let pixels = pixels(images, &self.device)?;
            let named = Named { name, observer };
            let tokens = self.encode_view(&pixels, &named)?;
            done += images.len();
            progress(done, count);
            Ok::<_, crate::Error>(tokens)
        };
        let mut parts = Vec::new();
        if let Some(tiles) = &views.tiles {
            let mut encoded = Vec::with_capacity(tiles.images.len());
            let together = images_at_once(&self.device);
            for (i, batch) in tiles.images.chunks(together).enumerate() {
                let tokens = encode(batch, format_args!("tiles{}", i * together))?;
                encoded.extend(tokens.chunk(batch.len(), 0)?);
            }
            let (columns, rows) = (tiles.grid.0 as usize, tiles.grid.1 as usize);
            parts.push(self.end_rows(&join(&encoded, columns, rows)?)?);
        }
        let global = encode(slice::from_ref(&views.global), format_args!("global"))?;
        parts.push(self.end_rows(&global)?);
        parts.push(self.view_separator.unsqueeze(0)?);
        let sequence = cat(&parts.iter().collect::<Vec<_>>(), 0)?;
        observer.observe(format_args!("seq"), &sequence)?;
        Ok(sequence)
    }

    /// Normalised pixels `[batch, side, side, 3]` to `[batch, n, n, hidden]`, `n = side / 64`. The
    /// stages of a size that was encoded before may go unobserved by who does not look.
    ///
    /// # Errors
    /// When the side is no multiple of 64, or `observer` stops.
    pub fn encode_view(&self, pixels: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        awake(&self.device, || match observer.looks() {
            true => self.encode_pixels(pixels, observer),
            false => {
                let encode = |pixels: &Tensor| self.encode_pixels(pixels, observer);
                self.encoded.run(pixels, encode)
            }
        })
    }

    fn encode_pixels(&self, pixels: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        let sam = self.sam.forward(pixels, observer)?;
        let clip = self.clip.forward(&sam, observer)?;
        let (batch, n, _, _) = sam.dims4()?;
        let patches = contiguous(&clip.narrow(1, 1, n * n)?)?.reshape((batch, n, n, ()))?;
        let tokens = self.projector.forward(&cat(&[&patches, &sam], 3)?)?;
        observer.observe(format_args!("proj"), &tokens)?;
        Ok(tokens)
    }

    /// `[1, rows, columns, hidden]` to `[rows * (columns + 1), hidden]`.
    fn end_rows(&self, grid: &Tensor) -> Result<Tensor> {
        let (_, rows, columns, hidden) = grid.dims4()?;
        let newline = self
            .image_newline
            .reshape((1, 1, 1, hidden))?
            .expand((1, rows, 1, hidden))?;
        Ok(cat(&[grid, &newline], 2)?.reshape((rows * (columns + 1), hidden))?)
    }
}

/// Images of one size as [`VisionEncoder::encode_view`] takes them.
fn pixels(images: &[RgbImage], device: &Device) -> Result<Tensor> {
    let (width, height) = images[0].dimensions();
    let shape = [images.len(), height as usize, width as usize, 3];
    let bytes: Vec<&[u8]> = images
        .iter()
        .map(|image| image.as_raw().as_slice())
        .collect();
    let bytes = match bytes[..] {
        [one] => Cow::Borrowed(one),
        _ => Cow::Owned(bytes.concat()),
    };
    Ok(look_up(&bytes, views::normalised(), &shape, device)?)
}

/// An observer whose stages get a name before theirs.
struct Named<'a> {
    name: fmt::Arguments<'a>,
    observer: &'a dyn Observer,
}

impl Observer for Named<'_> {
    fn observe(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> agx_ocr_backend::Result<()> {
        let name = self.name;
        self.observer.observe(format_args!("{name}.{stage}"), value)
    }

    fn looks(&self) -> bool {
        self.observer.looks()
    }
}

/// Tiles `[1, n, n, hidden]` in row-major order to one `[1, rows * n, columns * n, hidden]`.
fn join(tiles: &[Tensor], columns: usize, rows: usize) -> Result<Tensor> {
    let along = |tiles: &[Tensor], dim| cat(&tiles.iter().collect::<Vec<_>>(), dim);
    let row = |tiles: &[Tensor]| along(tiles, 2);
    let rows = tiles
        .chunks(columns)
        .take(rows)
        .map(row)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(along(&rows, 1)?)
}
