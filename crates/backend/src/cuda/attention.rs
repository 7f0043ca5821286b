//! Attention of images.

use super::{
    Gpu,
    launch::{Arg, grid},
};
use crate::{Linear, RelativePositions, Result};
use candle_core::{DType, Error, Tensor};

/// Queries of a block of the kernels on tensor cores.
pub(super) const QUERIES: usize = 64;
/// Queries of a block of those for any size.
pub(super) const QUERIES_ANY: usize = 8;
/// The head dimension that the image encoders' fast kernels have.
const HEAD: usize = 64;
/// The window that the fast kernel has.
const WINDOW: usize = 14;

/// Returns what flash-attn makes of it, where it is built in and takes it.
macro_rules! by_flash_attn {
    ($result:expr) => {
        #[cfg(feature = "flash-attn")]
        if let Some(out) = $result? {
            return Ok(out);
        }
    };
}

/// What attention of an image's positions works on.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    /// Queries, keys and values.
    pub(super) qkv: &'a Tensor,
    pub(super) heads: usize,
    /// The result's shape.
    pub(super) shape: &'a [usize],
    /// Rows and columns of positions.
    pub(super) grid: (usize, usize),
    /// The side of the windows inside which positions see each other, or of the grid where all see all
    /// and have places; 0 where they have none.
    pub(super) side: usize,
    /// Queries, keys and values of places outside of the image.
    pub(super) padding: Option<&'a Tensor>,
    pub(super) relative: Option<&'a RelativePositions>,
}

impl Image<'_> {
    pub(super) fn batch(&self) -> usize {
        self.shape[0]
    }

    pub(super) fn head_dim(&self) -> usize {
        self.shape[self.shape.len() - 1] / self.heads
    }

    /// Windows of all images together.
    pub(super) fn windows(&self) -> usize {
        let (height, width) = self.grid;
        match self.side {
            0 => self.batch(),
            side => self.batch() * height.div_ceil(side) * width.div_ceil(side),
        }
    }
}

impl Gpu {
    /// Attention of all positions of an image to all; `shape` is the result's.
    pub(crate) fn attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        shape: &[usize],
        relative: Option<&RelativePositions>,
    ) -> Result<Tensor> {
        let positions: usize = shape[1..shape.len() - 1].iter().product();
        let image = Image {
            qkv,
            heads,
            shape,
            grid: (1, positions),
            side: 0,
            padding: None,
            relative,
        };
        let Some(relative) = relative else {
            return self.attention_line(&image);
        };
        let side = positions.isqrt();
        if side * side != positions {
            return Err(Error::Msg(format!("{positions} positions are no square")).into());
        }
        let image = Image {
            grid: (side, side),
            side,
            ..image
        };
        by_flash_attn!(self.flash_image(&image));
        let kernel = self.named(&format!("attention_rel{side}"));
        // Machine code for Hopper has blocks of its own.
        let fast = self.has_fast_heads(&image) && matches!(side, 32 | 40 | 64 | 80);
        let threads = if fast { self.block_of(&kernel)? } else { 0 };
        // Queries of a block, and bytes of shared memory, by the grids that there are kernels for.
        let (queries, shared) = match (side, threads) {
            (32, 128) => (64, 40960),
            (40, 128) => (64, 51200),
            (64, 128) => (128, 65536),
            (64, 256) => (128, 98304),
            (80, 128) => (64, 61440),
            _ => return self.attention_any(&image),
        };
        let (qkv, out) = self.ends(&image)?;
        let args = [
            self.address(&qkv)?,
            self.address(&relative.height)?,
            self.address(&relative.width)?,
            self.address(&out)?,
        ];
        let blocks = [positions / queries, heads, image.batch()];
        self.launch(&kernel, grid(blocks, (threads, 1), shared), &args)?;
        Ok(out)
    }

    /// Attention of positions without places.
    fn attention_line(&self, image: &Image<'_>) -> Result<Tensor> {
        let (_, positions) = image.grid;
        by_flash_attn!(self.flash_image(image));
        if !self.has_fast_heads(image) {
            return self.attention_any(image);
        }
        let (qkv, out) = self.ends(image)?;
        let args = [
            self.address(&qkv)?,
            self.address(&out)?,
            Arg::int(positions),
        ];
        let blocks = [positions.div_ceil(QUERIES), image.heads, image.batch()];
        let kernel = self.named("attention");
        self.launch(&kernel, grid(blocks, (128, 1), 32 << 10), &args)?;
        Ok(out)
    }

    /// Attention inside windows of an image.
    pub(crate) fn window_attention(
        &self,
        qkv: &Tensor,
        window: usize,
        projection: &Linear,
        heads: usize,
        shape: &[usize],
        relative: &RelativePositions,
    ) -> Result<Tensor> {
        let (_, height, width, row) = qkv.dims4()?;
        let padding = match self.bias(projection.bias.as_ref(), self.dtype())? {
            Some(bias) => bias,
            None => self.zeros(row, self.dtype())?,
        };
        let image = Image {
            qkv,
            heads,
            shape,
            grid: (height, width),
            side: window,
            padding: Some(&padding),
            relative: Some(relative),
        };
        by_flash_attn!(self.flash_image(&image));
        if !self.has_fast_heads(&image) || window != WINDOW {
            return self.attention_any(&image);
        }
        let (qkv, out) = self.ends(&image)?;
        let args = [
            self.address(&qkv)?,
            self.address(&padding)?,
            self.address(&relative.height)?,
            self.address(&relative.width)?,
            self.address(&out)?,
            Arg::int(height),
            Arg::int(width),
        ];
        let kernel = self.named("attention_window");
        let blocks = [2, heads, image.windows()];
        self.launch(&kernel, grid(blocks, (224, 1), 63616), &args)?;
        Ok(out)
    }

    /// Whether there are kernels on tensor cores for its heads.
    fn has_fast_heads(&self, image: &Image<'_>) -> bool {
        image.head_dim() == HEAD && self.dtype() != DType::F32
    }

    /// Queries, keys and values as kernels take them, and memory for the result.
    pub(super) fn ends(&self, image: &Image<'_>) -> Result<(Tensor, Tensor)> {
        let qkv = self.contiguous(&self.convert(image.qkv, self.dtype())?)?;
        Ok((qkv, self.empty(image.shape, self.dtype())?))
    }

    /// The same for any sizes.
    fn attention_any(&self, image: &Image<'_>) -> Result<Tensor> {
        let ((height, width), side) = (image.grid, image.side);
        let (qkv, out) = self.ends(image)?;
        let [table_height, table_width] = match image.relative {
            Some(tables) => [self.address(&tables.height)?, self.address(&tables.width)?],
            None => [Arg::NULL; 2],
        };
        let args = [
            self.address(&qkv)?,
            self.address_or_null(image.padding)?,
            table_height,
            table_width,
            self.address(&out)?,
            Arg::int(height),
            Arg::int(width),
            Arg::int(side),
            Arg::int(image.head_dim()),
        ];
        let positions = match side {
            0 => height * width,
            side => side * side,
        };
        let blocks = [
            positions.div_ceil(QUERIES_ANY),
            image.heads,
            image.windows(),
        ];
        let shared = if image.relative.is_some() {
            64 * side
        } else {
            0
        };
        let kernel = self.named("attention_any");
        self.launch(&kernel, grid(blocks, (256, 1), shared), &args)?;
        Ok(out)
    }

    /// The tables as values of the device's type, as the kernels take them.
    pub(crate) fn tables(&self, height: &Tensor, width: &Tensor) -> Result<RelativePositions> {
        let table = |table: &Tensor| self.convert(table, self.dtype());
        let (height, width) = (table(height)?, table(width)?);
        Ok(RelativePositions { height, width })
    }
}
