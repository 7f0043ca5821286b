//! `softmax(scale · q kᵀ + bias) v` in one pass over the keys, without a matrix of all scores
//! (online softmax: Milakov and Gimelshein, 2018; Dao et al., 2022), in f32.
//!
//! SAM's decomposed relative positions (Li et al., 2022) are added to the scores as they are
//! made: for query `q` at row `y` and key row `ky` the bias is `q · height[y - ky + grid - 1]`,
//! plus the same for columns.

mod block;
mod cached;

pub use cached::{Cache, causal_attention};

use crate::{Isa, parallel::Shared, simd::dispatch};
use block::{Attend, Rows};
use rayon::prelude::*;

/// Queries that one task attends for: they share the packing of the keys.
const QUERIES: usize = 128;

/// Sizes of a multi-head attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Values a head.
    pub dim: usize,
    /// Factor on `q · k`, usually `1 / sqrt(dim)`.
    pub scale: f32,
}

impl Heads {
    /// Heads with the usual scale.
    pub fn new(count: usize, dim: usize) -> Self {
        let scale = 1.0 / (dim as f32).sqrt();
        Self { count, dim, scale }
    }

    fn width(&self) -> usize {
        self.count * self.dim
    }
}

/// Tables of relative positions on a square grid, `[2 * grid - 1, dim]` each; the row for a
/// distance `query - key` is `distance + grid - 1`.
#[derive(Clone, Copy, Debug)]
pub struct RelativePositions<'a> {
    /// For distances between rows.
    pub height: &'a [f32],
    /// For distances between columns.
    pub width: &'a [f32],
    /// Side of the grid.
    pub grid: usize,
}

/// Attention of all positions to all positions: `qkv` is `[batch, n, 3, heads, dim]`, `out` is
/// `[batch, n, heads, dim]`. With `relative`, `n` is `grid²`.
pub fn attention(
    qkv: &[f32],
    n: usize,
    heads: Heads,
    relative: Option<RelativePositions<'_>>,
    out: &mut [f32],
) {
    attention_with(Isa::detect(), qkv, n, heads, relative, out);
}

fn attention_with(
    isa: Isa,
    qkv: &[f32],
    n: usize,
    heads: Heads,
    relative: Option<RelativePositions<'_>>,
    out: &mut [f32],
) {
    let (width, dim) = (heads.width(), heads.dim);
    assert_eq!(qkv.len(), 3 * out.len(), "q, k and v for every output");
    assert!(out.len().is_multiple_of(n * width), "rows of {width}");
    check(relative, n, dim);
    let batch = out.len() / (n * width);
    let out = Shared::new(out);
    let chunks = n.div_ceil(QUERIES);
    (0..batch * heads.count * chunks)
        .into_par_iter()
        .for_each(|task| {
            let (page, head, chunk) = (
                task / chunks / heads.count,
                task / chunks % heads.count,
                task % chunks,
            );
            let queries = chunk * QUERIES..((chunk + 1) * QUERIES).min(n);
            let rows = |part: usize| Rows {
                data: &qkv[page * n * 3 * width + part * width + head * dim..],
                stride: 3 * width,
                dim,
            };
            let mut block = vec![0.0; queries.len() * dim];
            let attend = Attend {
                q: rows(0),
                k: rows(1),
                v: rows(2),
                queries: queries.clone(),
                keys: n,
                first_position: None,
                scale: heads.scale,
                relative,
                out: &mut block,
            };
            dispatch(isa, attend);
            for (i, row) in queries.zip(block.chunks_exact(dim)) {
                // SAFETY: every task writes its head's part of its own queries' rows.
                let to = unsafe { out.part((page * n + i) * width + head * dim, dim) };
                to.copy_from_slice(row);
            }
        });
}

/// Attention inside windows of `window²` positions of a `grid_size` = (height, width) image, as
/// in ViTDet: `qkv` is `[batch, height, width, 3, heads, dim]`.
///
/// Windows at the right and bottom reach over the image; the positions there hold `padding`
/// (`[3, heads, dim]`, the projection of a zero input, that is its bias) and take part.
pub fn window_attention(
    qkv: &[f32],
    (height, width): (usize, usize),
    window: usize,
    padding: &[f32],
    heads: Heads,
    relative: RelativePositions<'_>,
    out: &mut [f32],
) {
    let (row, dim) = (heads.width(), heads.dim);
    assert_eq!(qkv.len(), 3 * out.len(), "q, k and v for every output");
    assert_eq!(padding.len(), 3 * row, "padding of one position");
    assert!(
        out.len().is_multiple_of(height * width * row),
        "images of {height} x {width}"
    );
    check(Some(relative), window * window, dim);
    let isa = Isa::detect();
    let batch = out.len() / (height * width * row);
    let (down, across) = (height.div_ceil(window), width.div_ceil(window));
    let n = window * window;
    let out = Shared::new(out);
    (0..batch * down * across * heads.count)
        .into_par_iter()
        .for_each(|task| {
            let (place, head) = (task / heads.count, task % heads.count);
            let (page, wy, wx) = (place / across / down, place / across % down, place % across);
            // The position in the image of a position in the window, where there is one.
            let position = |i: usize| {
                let (y, x) = (wy * window + i / window, wx * window + i % window);
                (y < height && x < width).then_some((page * height + y) * width + x)
            };
            let gather = |part: usize| -> Vec<f32> {
                let at = part * row + head * dim;
                let value = |i| match position(i) {
                    Some(p) => &qkv[p * 3 * row + at..][..dim],
                    None => &padding[at..][..dim],
                };
                (0..n).flat_map(value).copied().collect()
            };
            let (q, k, v) = (gather(0), gather(1), gather(2));
            let mut block = vec![0.0; n * dim];
            let attend = Attend {
                q: Rows::packed(&q, dim),
                k: Rows::packed(&k, dim),
                v: Rows::packed(&v, dim),
                queries: 0..n,
                keys: n,
                first_position: None,
                scale: heads.scale,
                relative: Some(relative),
                out: &mut block,
            };
            dispatch(isa, attend);
            for (i, values) in block.chunks_exact(dim).enumerate() {
                if let Some(p) = position(i) {
                    // SAFETY: every position lies in one window; every task has its own head.
                    let to = unsafe { out.part(p * row + head * dim, dim) };
                    to.copy_from_slice(values);
                }
            }
        });
}

fn check(relative: Option<RelativePositions<'_>>, n: usize, dim: usize) {
    if let Some(relative) = relative {
        let table = (2 * relative.grid - 1) * dim;
        assert_eq!(relative.height.len(), table, "row distances");
        assert_eq!(relative.width.len(), table, "column distances");
        assert_eq!(n, relative.grid * relative.grid, "a square grid");
    }
}

#[cfg(test)]
mod tests;
