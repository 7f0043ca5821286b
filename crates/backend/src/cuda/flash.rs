//! Attention by flash-attn (Dao, 2023) in the place of kernels of our own.

use super::{
    Gpu,
    attention::Image,
    launch::{Arg, grid, values},
};
use crate::Result;
use candle_core::{DType, Tensor};
use candle_flash_attn::flash_attn;

/// The widest head.
const WIDEST: usize = 512;
/// Values that a thread copies at a time.
const CHUNK: usize = 8;
/// Positions of a block of `flash_widen`.
const POSITIONS: usize = 8;

/// How wide heads of `dim` values are for flash-attn, with the bias of relative positions on a grid of
/// `side` x `side`, or without one where that is 0. `None` where it does not take them.
fn head_width(dtype: DType, dim: usize, side: usize) -> Option<usize> {
    let width = match side {
        0 => dim,
        // The bias of all rows and all columns, up to the width of its next kernel.
        side => (dim + 2 * side).next_multiple_of(32),
    };
    let taken = dtype != DType::F32 && dim > 0 && dim.is_multiple_of(CHUNK) && width <= WIDEST;
    taken.then_some(width)
}

impl Gpu {
    /// Attention of an image's positions, as `attention_any` has it; `None` where that is not for
    /// flash-attn.
    pub(super) fn flash_image(&self, image: &Image<'_>) -> Result<Option<Tensor>> {
        let ((height, width), side) = (image.grid, image.side);
        let (heads, dim, windows) = (image.heads, image.head_dim(), image.windows());
        let Some(columns) = head_width(self.dtype(), dim, side) else {
            return Ok(None);
        };
        let (qkv, out) = self.ends(image)?;
        let scale = (dim as f32).sqrt().recip();
        let Some(relative) = image.relative else {
            let qkv = qkv.reshape((image.batch(), height * width, 3, heads, dim))?;
            return Ok(Some(attend(&qkv, scale)?.reshape(image.shape)?));
        };
        let wide = (windows, side * side, 3, heads, columns);
        let wide = self.empty(wide, self.dtype())?;
        let args = [
            self.address(&qkv)?,
            self.address_or_null(image.padding)?,
            self.address(&relative.height)?,
            self.address(&relative.width)?,
            self.address(&wide)?,
            Arg::int(height),
            Arg::int(width),
            Arg::int(side),
            Arg::int(dim),
            Arg::int(columns),
        ];
        let blocks = [(side * side).div_ceil(POSITIONS), heads, windows];
        let kernel = self.named("flash_widen");
        self.launch(&kernel, grid(blocks, (256, 1), 0), &args)?;

        let mixed = attend(&wide, scale)?;
        let chunks = out.elem_count() / CHUNK;
        let args = [
            self.address(&mixed)?,
            self.address(&out)?,
            Arg::long(chunks),
            Arg::int(height),
            Arg::int(width),
            Arg::int(side),
            Arg::int(heads),
            Arg::int(dim),
            Arg::int(columns),
        ];
        self.launch(&self.named("flash_narrow"), values(chunks), &args)?;
        Ok(Some(out))
    }

    /// Attention of a whole prompt's `q` `[n, heads * dim]`, whose keys and values are the first `n` of
    /// `[kv_heads, capacity, dim]`; `None` where others are before them, or that is not for flash-attn.
    pub(super) fn flash_prompt(
        &self,
        q: &Tensor,
        [keys, values]: [&Tensor; 2],
        first: usize,
    ) -> Result<Option<Tensor>> {
        let (n, dim) = (q.dim(0)?, keys.dim(2)?);
        if first > 0 || head_width(self.dtype(), dim, 0).is_none() {
            return Ok(None);
        }
        let filled = |cache: &Tensor| cache.narrow(1, 0, n)?.transpose(0, 1)?.unsqueeze(0);
        let (k, v) = (filled(keys)?, filled(values)?);
        let scale = (dim as f32).sqrt().recip();
        let mixed = flash_attn(&q.reshape((1, n, (), dim))?, &k, &v, scale, true)?;
        Ok(Some(mixed.reshape(q.shape())?))
    }
}

/// Attention of all positions of `[batch, positions, 3, heads, dim]` to each other.
fn attend(qkv: &Tensor, scale: f32) -> Result<Tensor> {
    let part = |i| qkv.narrow(2, i, 1)?.squeeze(2);
    Ok(flash_attn(&part(0)?, &part(1)?, &part(2)?, scale, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_get_the_width_of_a_kernel() {
        let width = |dim, side| head_width(DType::BF16, dim, side);
        assert_eq!(width(64, 0), Some(64));
        assert_eq!(width(128, 0), Some(128));
        for (side, columns) in [(14, 96), (32, 128), (40, 160), (64, 192), (80, 224)] {
            assert_eq!(width(64, side), Some(columns));
        }
    }

    #[test]
    fn what_flash_attn_does_not_take_is_left() {
        assert_eq!(head_width(DType::F32, 64, 0), None);
        assert_eq!(head_width(DType::F16, 60, 0), None);
        assert_eq!(head_width(DType::F16, 520, 0), None);
        assert_eq!(head_width(DType::F16, 64, 225), None);
        assert_eq!(head_width(DType::F16, 64, 224), Some(512));
    }
}
