//! `softmax(scale · q kᵀ + bias) v` in one pass over the keys, without a matrix of all scores
//! (online softmax: Milakov and Gimelshein, 2018; Dao et al., 2022). Scores, softmax and sums are
//! f32; the factors of both products are rounded to bf16 where asked for and where the machine
//! multiplies bf16.
//!
//! SAM's decomposed relative positions (Li et al., 2022) are added to the scores as they are
//! made: for query `q` at row `y` and key row `ky` the bias is `q · height[y - ky + grid - 1]`,
//! plus the same for columns.

mod block;
mod cached;

pub use cached::{Cache, causal_attention};

use crate::{
    Isa,
    parallel::Shared,
    product::{self, Activations, Lines, Multiply, SIDE, Work},
};
use block::{Attend, Memory, Tables};
use rayon::prelude::*;

/// Blocks of queries that one task attends for.
const BLOCKS: usize = 4;

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
    activations: Activations,
) {
    attention_with(Isa::detect(), qkv, n, heads, relative, out, activations);
}

fn attention_with(
    isa: Isa,
    qkv: &[f32],
    n: usize,
    heads: Heads,
    relative: Option<RelativePositions<'_>>,
    out: &mut [f32],
    activations: Activations,
) {
    let width = heads.width();
    assert_eq!(qkv.len(), 3 * out.len(), "q, k and v for every output");
    assert!(out.len().is_multiple_of(n * width), "rows of {width}");
    check(relative, n, heads.dim);
    let work = Global {
        qkv,
        n,
        heads,
        relative,
        out,
    };
    product::with(isa, activations, work);
}

struct Global<'a> {
    qkv: &'a [f32],
    n: usize,
    heads: Heads,
    relative: Option<RelativePositions<'a>>,
    out: &'a mut [f32],
}

impl Work for Global<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let Self {
            qkv,
            n,
            heads: Heads { count, dim, scale },
            ..
        } = self;
        let width = count * dim;
        // Row `i` of q, k or v of a head, which is counted over all pages.
        let row = |part: usize, head: usize, i: usize| {
            let at = ((head / count * n + i) * 3 + part) * width + head % count * dim;
            &qkv[at..at + dim]
        };
        let tables = self.relative.map(|r| Tables::new(m, &r, dim));
        let heads = self.out.len() / (n * dim);
        let size = Memory::size(n, dim);
        let mut memory = Lines::new(heads * size);
        memory
            .par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(head, to)| {
                Memory::pack(m, (n, dim), |i| row(1, head, i), |i| row(2, head, i), to);
            });
        let out = Shared::new(self.out);
        let step = BLOCKS * SIDE;
        let chunks = n.div_ceil(step);
        (0..heads * chunks).into_par_iter().for_each(|task| {
            let (head, chunk) = (task / chunks, task % chunks);
            let attend = Attend {
                dim,
                scale,
                memory: &memory[head * size..(head + 1) * size],
                keys: n,
                first_position: None,
                tables: tables.as_ref(),
            };
            let write = |i: usize, values: &[f32]| {
                let at = (head / count * n + i) * width + head % count * dim;
                // SAFETY: every task writes its head's part of its own queries' rows.
                unsafe { out.part(at, dim) }.copy_from_slice(values);
            };
            m.ready(|| {
                for first in (chunk * step..((chunk + 1) * step).min(n)).step_by(SIDE) {
                    let queries = SIDE.min(n - first);
                    attend.block(m, first, queries, |i| row(0, head, i), write);
                }
            });
        });
    }
}

/// Attention inside windows of `window²` positions of a `grid_size` = (height, width) image, as
/// in ViTDet: `qkv` is `[batch, height, width, 3, heads, dim]`.
///
/// Windows at the right and bottom reach over the image; the positions there hold `padding`
/// (`[3, heads, dim]`, the projection of a zero input, that is its bias) and take part.
#[allow(clippy::too_many_arguments)]
pub fn window_attention(
    qkv: &[f32],
    grid_size: (usize, usize),
    window: usize,
    padding: &[f32],
    heads: Heads,
    relative: RelativePositions<'_>,
    out: &mut [f32],
    activations: Activations,
) {
    let (height, width) = grid_size;
    let row = heads.width();
    assert_eq!(qkv.len(), 3 * out.len(), "q, k and v for every output");
    assert_eq!(padding.len(), 3 * row, "padding of one position");
    assert!(
        out.len().is_multiple_of(height * width * row),
        "images of {height} x {width}"
    );
    check(Some(relative), window * window, heads.dim);
    let work = Windows {
        qkv,
        grid_size,
        window,
        padding,
        heads,
        relative,
        out,
    };
    product::with(Isa::detect(), activations, work);
}

struct Windows<'a> {
    qkv: &'a [f32],
    grid_size: (usize, usize),
    window: usize,
    padding: &'a [f32],
    heads: Heads,
    relative: RelativePositions<'a>,
    out: &'a mut [f32],
}

impl Work for Windows<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let Self {
            qkv,
            grid_size: (height, width),
            window,
            padding,
            heads: Heads { count, dim, scale },
            ..
        } = self;
        let row = count * dim;
        let batch = self.out.len() / (height * width * row);
        let (down, across) = (height.div_ceil(window), width.div_ceil(window));
        let n = window * window;
        let tables = Tables::new(m, &self.relative, dim);
        let out = Shared::new(self.out);
        let tasks = (0..batch * down * across * count).into_par_iter();
        tasks.for_each(|task| {
            let (place, head) = (task / count, task % count);
            let (page, wy, wx) = (place / across / down, place / across % down, place % across);
            // The position in the image of a position in the window, where there is one.
            let position = |i: usize| {
                let (y, x) = (wy * window + i / window, wx * window + i % window);
                (y < height && x < width).then_some((page * height + y) * width + x)
            };
            let value = |part: usize, i: usize| {
                let at = part * row + head * dim;
                match position(i) {
                    Some(p) => &qkv[p * 3 * row + at..][..dim],
                    None => &padding[at..][..dim],
                }
            };
            let mut memory = Lines::new(Memory::size(n, dim));
            Memory::pack(m, (n, dim), |i| value(1, i), |i| value(2, i), &mut memory);
            let attend = Attend {
                dim,
                scale,
                memory: &memory,
                keys: n,
                first_position: None,
                tables: Some(&tables),
            };
            let write = |i: usize, values: &[f32]| {
                if let Some(p) = position(i) {
                    // SAFETY: every position lies in one window; every task has its own head.
                    unsafe { out.part(p * row + head * dim, dim) }.copy_from_slice(values);
                }
            };
            m.ready(|| {
                for first in (0..n).step_by(SIDE) {
                    attend.block(m, first, SIDE.min(n - first), |i| value(0, i), write);
                }
            });
        });
    }
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
