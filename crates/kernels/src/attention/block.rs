//! The inner part of every attention: some queries of one head over all their keys.

use super::RelativePositions;
use crate::simd::{Kernel, Simd, math};
use std::ops::Range;

/// Rows of `dim` values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub dim: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn packed(data: &'a [f32], dim: usize) -> Self {
        Self {
            data,
            stride: dim,
            dim,
        }
    }

    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        self.rows(i, 1)
    }

    /// From the beginning of row `i` to the end of the `n`-th row from there.
    #[inline(always)]
    fn rows(&self, i: usize, n: usize) -> &'a [f32] {
        &self.data[i * self.stride..(i + n - 1) * self.stride + self.dim]
    }
}

/// Attention of `queries` (rows of `q`) to rows `0..keys` of `k` and `v`, into `out`
/// `[queries, dim]`.
pub(super) struct Attend<'a> {
    pub q: Rows<'a>,
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub queries: Range<usize>,
    pub keys: usize,
    /// `Some(p)`: query row `i` is at position `p + i` and sees keys up to there; `None`: all.
    pub first_position: Option<usize>,
    pub scale: f32,
    pub relative: Option<RelativePositions<'a>>,
    pub out: &'a mut [f32],
}

/// Queries in a register block.
const GROUP: usize = 4;
/// Keys whose scores are alive at a time (about; whole grid rows with relative positions).
const KEYS: usize = 256;

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.q.dim;
        let groups = self.queries.len().div_ceil(GROUP);
        let step = match self.relative {
            Some(r) => (KEYS / r.grid).max(1) * r.grid,
            None => KEYS,
        };
        let width = step.min(self.keys).next_multiple_of(S::LANES);
        let bias = self.relative.map(|r| relative_bias(s, &self, r));
        // For each query: the scaled query, the largest score, the sum of weights.
        let mut q = vec![0.0; groups * GROUP * dim];
        for (to, i) in q.chunks_exact_mut(dim).zip(self.queries.clone()) {
            to.iter_mut()
                .zip(self.q.row(i))
                .for_each(|(to, v)| *to = v * self.scale);
        }
        let mut most = vec![f32::NEG_INFINITY; groups * GROUP];
        let mut total = vec![0.0; groups * GROUP];
        let mut sums = vec![0.0; groups * GROUP * dim];
        let mut keys = vec![0.0; dim * width];
        let mut scores = vec![0.0; GROUP * width];

        for start in (0..self.keys).step_by(step) {
            let n = step.min(self.keys - start);
            transpose(&self.k, start, n, width, &mut keys);
            for group in 0..groups {
                let first = group * GROUP;
                if self.visible(first + GROUP - 1, start, n) == 0 {
                    continue;
                }
                // SAFETY: GROUP rows of `dim` in q, `dim` rows of `width` in keys, GROUP rows of
                // `width` in scores.
                unsafe {
                    let (a, c) = (q.as_ptr().add(first * dim), scores.as_mut_ptr());
                    product::<S, false>(s, a, dim, keys.as_ptr(), width, dim, c, width, width);
                }
                for (i, row) in scores.chunks_exact_mut(width).enumerate() {
                    let query = first + i;
                    if let (Some(r), Some(bias)) = (self.relative, &bias) {
                        let of = &bias[query * 2 * r.grid..(query + 1) * 2 * r.grid];
                        add_bias(&mut row[..n], of, start / r.grid, r.grid);
                    }
                    row[self.visible(query, start, n)..].fill(f32::NEG_INFINITY);
                    let factor = weigh(s, row, &mut most[query], &mut total[query]);
                    let sum = &mut sums[query * dim..(query + 1) * dim];
                    sum.iter_mut().for_each(|v| *v *= factor);
                }
                let values = self.v.rows(start, n).as_ptr();
                // SAFETY: GROUP rows of `width` >= n in scores, n rows in values, GROUP rows of
                // `dim` in sums.
                unsafe {
                    let (a, c) = (scores.as_ptr(), sums.as_mut_ptr().add(first * dim));
                    product::<S, true>(s, a, width, values, self.v.stride, n, c, dim, dim);
                }
            }
        }
        for (i, out) in self.out.chunks_exact_mut(dim).enumerate() {
            let unit = 1.0 / total[i];
            out.iter_mut()
                .zip(&sums[i * dim..])
                .for_each(|(o, v)| *o = v * unit);
        }
    }
}

impl Attend<'_> {
    /// How many of the keys `start..start + n` the query with this index sees.
    #[inline(always)]
    fn visible(&self, query: usize, start: usize, n: usize) -> usize {
        match self.first_position {
            Some(p) => (p + self.queries.start + query + 1)
                .saturating_sub(start)
                .min(n),
            None => n,
        }
    }
}

/// For each query `grid` biases by key row, then `grid` by key column (of the unscaled query).
#[inline(always)]
fn relative_bias<S: Simd>(s: S, attend: &Attend<'_>, r: RelativePositions<'_>) -> Vec<f32> {
    let (grid, dim) = (r.grid, attend.q.dim);
    let padded = attend.queries.len().next_multiple_of(GROUP);
    let mut bias = vec![0.0; padded * 2 * grid];
    for (of, i) in bias.chunks_exact_mut(2 * grid).zip(attend.queries.clone()) {
        let q = attend.q.row(i);
        let (by_row, by_column) = of.split_at_mut(grid);
        for (bias, table, at) in [(by_row, r.height, i / grid), (by_column, r.width, i % grid)] {
            for (key, bias) in bias.iter_mut().enumerate() {
                let distance = at + grid - 1 - key;
                *bias = dot(s, q, &table[distance * dim..(distance + 1) * dim]);
            }
        }
    }
    bias
}

/// Adds the biases of the key rows `first_row..` to their scores.
#[inline(always)]
fn add_bias(scores: &mut [f32], bias: &[f32], first_row: usize, grid: usize) {
    let (by_row, by_column) = bias.split_at(grid);
    for (scores, row) in scores.chunks_mut(grid).zip(&by_row[first_row..]) {
        scores
            .iter_mut()
            .zip(by_column)
            .for_each(|(score, column)| *score += row + column);
    }
}

/// Turns scores into weights relative to the largest score so far and adds them to the total;
/// gives the factor by which earlier sums shrink.
#[inline(always)]
fn weigh<S: Simd>(s: S, scores: &mut [f32], most: &mut f32, total: &mut f32) -> f32 {
    let mut top = s.splat(*most);
    for part in scores.chunks_exact(S::LANES) {
        // SAFETY: the chunk has LANES values.
        top = s.max(top, unsafe { s.load(part.as_ptr()) });
    }
    let top = s.largest(top);
    let factor = (*most - top).exp();
    let (base, mut sum) = (s.splat(top), s.splat(0.0));
    for part in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: the chunk has LANES values.
        unsafe {
            let weight = math::exp(s, s.sub(s.load(part.as_ptr()), base));
            s.store(part.as_mut_ptr(), weight);
            sum = s.add(sum, weight);
        }
    }
    *total = *total * factor + s.sum(sum);
    *most = top;
    factor
}

/// Keys `start..start + n` as columns: `to` is `[dim, width]`, zero beyond `n`.
#[inline(always)]
fn transpose(k: &Rows<'_>, start: usize, n: usize, width: usize, to: &mut [f32]) {
    if n < width {
        to.fill(0.0);
    }
    for j in 0..n {
        for (c, v) in k.row(start + j).iter().enumerate() {
            to[c * width + j] = *v;
        }
    }
}

#[inline(always)]
pub(super) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(S::LANES).zip(b.chunks(S::LANES)) {
        sum = s.mul_add(s.load_part(a), s.load_part(b), sum);
    }
    s.sum(sum)
}

/// `c = a b` (`ADD`: `c += a b`) for `a` `[GROUP, depth]`, `b` `[depth, width]`, `c`
/// `[GROUP, width]`, with the given distances between rows.
///
/// # Safety
/// The pointers must be valid for these shapes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn product<S: Simd, const ADD: bool>(
    s: S,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_stride: usize,
    depth: usize,
    c: *mut f32,
    c_stride: usize,
    width: usize,
) {
    let mut at = 0;
    // SAFETY: columns at..at + the block's width lie inside `width`.
    unsafe {
        // 16 sums in 32 registers, or 8 in 16.
        if S::LANES == 16 {
            while at + 4 * S::LANES <= width {
                columns::<S, ADD, 4>(
                    s,
                    a,
                    a_stride,
                    b.add(at),
                    b_stride,
                    depth,
                    c.add(at),
                    c_stride,
                );
                at += 4 * S::LANES;
            }
        }
        while at + 2 * S::LANES <= width {
            columns::<S, ADD, 2>(
                s,
                a,
                a_stride,
                b.add(at),
                b_stride,
                depth,
                c.add(at),
                c_stride,
            );
            at += 2 * S::LANES;
        }
        while at + S::LANES <= width {
            columns::<S, ADD, 1>(
                s,
                a,
                a_stride,
                b.add(at),
                b_stride,
                depth,
                c.add(at),
                c_stride,
            );
            at += S::LANES;
        }
        for i in 0..GROUP {
            let c = std::slice::from_raw_parts_mut(c.add(i * c_stride + at), width - at);
            let mut sum = if ADD { s.load_part(c) } else { s.splat(0.0) };
            for t in 0..if c.is_empty() { 0 } else { depth } {
                let row = std::slice::from_raw_parts(b.add(t * b_stride + at), width - at);
                sum = s.mul_add(s.splat(*a.add(i * a_stride + t)), s.load_part(row), sum);
            }
            s.store_part(c, sum);
        }
    }
}

/// `N` vectors of columns of [`product`].
///
/// # Safety
/// As for [`product`], for `N * LANES` columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn columns<S: Simd, const ADD: bool, const N: usize>(
    s: S,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_stride: usize,
    depth: usize,
    c: *mut f32,
    c_stride: usize,
) {
    let mut sums = [[s.splat(0.0); N]; GROUP];
    // SAFETY: the caller's promise.
    unsafe {
        if ADD {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = s.load(c.add(i * c_stride + n * S::LANES));
                }
            }
        }
        for t in 0..depth {
            let row = b.add(t * b_stride);
            let mut bs = [s.splat(0.0); N];
            for (n, v) in bs.iter_mut().enumerate() {
                *v = s.load(row.add(n * S::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let ai = s.splat(*a.add(i * a_stride + t));
                for (sum, b) in sums.iter_mut().zip(bs) {
                    *sum = s.mul_add(ai, b, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                s.store(c.add(i * c_stride + n * S::LANES), sum);
            }
        }
    }
}
