//! Attention of an image's positions to each other.

use crate::{Activations, Linear, Result, cpu};
use agx_ocr_kernels::attention::{self as kernels, Heads};
use candle_core::{Error, Tensor};

/// Tables of decomposed relative positions, `[2 * grid - 1, head_dim]` each (Li et al., 2022); the
/// row for a distance `query - key` is `distance + grid - 1`.
#[derive(Clone, Debug)]
pub struct RelativePositions {
    pub(crate) height: Tensor,
    pub(crate) width: Tensor,
}

impl RelativePositions {
    /// From f32 tables for distances between rows and between columns.
    ///
    /// # Errors
    /// When they lie on a GPU that fails.
    pub fn new(height: Tensor, width: Tensor) -> Result<Self> {
        on_gpu!(height, gpu => gpu.tables(&height, &width));
        Ok(Self { height, width })
    }

    fn with<R>(
        &self,
        grid: usize,
        dim: usize,
        f: impl FnOnce(kernels::RelativePositions<'_>) -> R,
    ) -> Result<R> {
        let wanted = [2 * grid - 1, dim];
        if self.height.dims() != wanted || self.width.dims() != wanted {
            let found = (self.height.dims(), self.width.dims());
            return Err(Error::Msg(format!("tables of {found:?} for a grid of {grid}")).into());
        }
        cpu::with(&self.height, |height| {
            cpu::with(&self.width, |width| {
                f(kernels::RelativePositions {
                    height,
                    width,
                    grid,
                })
            })
        })?
    }
}

/// Multi-head attention of an image's positions to each other.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    pub(crate) heads: usize,
    pub(crate) activations: Activations,
}

impl SelfAttention {
    /// Attention of all positions to all: `qkv` is `[batch, …, 3 * heads * head_dim]` with the
    /// positions between, the result `[batch, …, heads * head_dim]`. With `relative`, the
    /// positions are a square grid.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, qkv: &Tensor, relative: Option<&RelativePositions>) -> Result<Tensor> {
        let (shape, heads) = output(qkv, self.heads)?;
        let positions: usize = shape[1..shape.len() - 1].iter().product();
        on_gpu!(qkv, gpu => gpu.attention(qkv, self.heads, &shape, relative));
        let mut out = vec![0.0; shape.iter().product()];
        let mut run = |qkv: &[f32], relative: Option<kernels::RelativePositions<'_>>| {
            kernels::attention(qkv, positions, heads, relative, &mut out, self.activations);
        };
        match relative {
            None => cpu::with(qkv, |qkv| run(qkv, None))?,
            Some(relative) => {
                let grid = positions.isqrt();
                if grid * grid != positions {
                    return Err(Error::Msg(format!("{positions} positions are no square")).into());
                }
                cpu::with(qkv, |qkv| {
                    relative.with(grid, heads.dim, |relative| run(qkv, Some(relative)))
                })??;
            }
        }
        cpu::tensor(out, shape)
    }

    /// Attention inside windows of `window²` positions: `qkv` is
    /// `[batch, height, width, 3 * heads * head_dim]`, the result `[batch, height, width, …]`.
    ///
    /// Windows at the right and bottom edges reach over the image; there positions hold what
    /// `projection`, which has given `qkv`, makes of zeros, and take part like all others.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn windows(
        &self,
        qkv: &Tensor,
        window: usize,
        projection: &Linear,
        relative: &RelativePositions,
    ) -> Result<Tensor> {
        let (_, height, width, row) = qkv.dims4()?;
        let (shape, heads) = output(qkv, self.heads)?;
        if projection.output() != row {
            let message = format!("{} values of zeros for rows of {row}", projection.output());
            return Err(Error::Msg(message).into());
        }
        on_gpu!(qkv, gpu => {
            gpu.window_attention(qkv, window, projection, self.heads, &shape, relative)
        });
        let padding = &projection.of_zero();
        let mut out = vec![0.0; shape.iter().product()];
        cpu::with(qkv, |qkv| {
            relative.with(window, heads.dim, |relative| {
                kernels::window_attention(
                    qkv,
                    (height, width),
                    window,
                    padding,
                    heads,
                    relative,
                    &mut out,
                    self.activations,
                );
            })
        })??;
        cpu::tensor(out, shape)
    }
}

/// The shape of the result, and the heads.
fn output(qkv: &Tensor, heads: usize) -> Result<(Vec<usize>, Heads)> {
    let row = qkv.dims().last().copied().unwrap_or(0);
    if heads == 0 || !row.is_multiple_of(3 * heads) || qkv.rank() < 3 {
        let message = format!("q, k and v of {heads} heads do not fit {:?}", qkv.dims());
        return Err(Error::Msg(message).into());
    }
    let shape = cpu::replace_last(qkv, row, row / 3)?;
    Ok((shape, Heads::new(heads, row / 3 / heads)))
}
