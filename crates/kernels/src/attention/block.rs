//! The inner part of every attention: a block of queries of one head over its keys.

use super::RelativePositions;
use crate::{
    product::{Lines, Multiply, SIDE, Value},
    simd::{Kernel, Simd, dispatch, math},
};

/// Keys whose scores are alive at a time: they stay in the level-1 cache.
const KEYS: usize = 256;

/// Keys and values of one head, packed.
pub(super) struct Memory;

impl Memory {
    /// Values that [`Self::pack`] fills.
    pub(super) fn size(keys: usize, dim: usize) -> usize {
        2 * keys.next_multiple_of(SIDE) * dim.next_multiple_of(SIDE)
    }

    /// Packs `keys` keys and values of `dim` values each.
    pub(super) fn pack<'a, M: Multiply>(
        m: M,
        (keys, dim): (usize, usize),
        k: impl Fn(usize) -> &'a [f32],
        v: impl Fn(usize) -> &'a [f32],
        to: &mut [M::Value],
    ) {
        let (to_keys, to_values) = to.split_at_mut(to.len() / 2);
        let panel = SIDE * dim.next_multiple_of(SIDE);
        let mut rows: Vec<&[f32]> = Vec::with_capacity(keys);
        for (i, to) in to_keys.chunks_exact_mut(panel).enumerate() {
            rows.clear();
            rows.extend((i * SIDE..((i + 1) * SIDE).min(keys)).map(&k));
            M::Value::panel_f32(m.isa(), &rows, to);
        }
        let panel = SIDE * keys.next_multiple_of(SIDE);
        for (i, to) in to_values.chunks_exact_mut(panel).enumerate() {
            let columns = i * SIDE..((i + 1) * SIDE).min(dim);
            rows.clear();
            rows.extend((0..keys).map(|key| &v(key)[columns.clone()]));
            M::Value::panel_of_columns(m.isa(), &rows, to);
        }
    }
}

/// Tables of relative positions, packed, the largest distance first: so the biases of one query
/// lie in the order of its keys.
pub(super) struct Tables<E> {
    data: Lines<E>,
    grid: usize,
    /// Distances of a table, in whole panels.
    width: usize,
}

impl<E: Value> Tables<E> {
    pub(super) fn new<M: Multiply<Value = E>>(
        m: M,
        relative: &RelativePositions<'_>,
        dim: usize,
    ) -> Self {
        let grid = relative.grid;
        let width = (2 * grid - 1).next_multiple_of(SIDE);
        let panel = SIDE * dim.next_multiple_of(SIDE);
        let mut data = Lines::new(2 * width / SIDE * panel);
        let (first, second) = data.split_at_mut(width / SIDE * panel);
        for (table, to) in [(relative.height, first), (relative.width, second)] {
            let rows: Vec<&[f32]> = table.chunks_exact(dim).rev().collect();
            for (rows, to) in rows.chunks(SIDE).zip(to.chunks_exact_mut(panel)) {
                E::panel_f32(m.isa(), rows, to);
            }
        }
        Self { data, grid, width }
    }
}

/// Attention of a block of queries to the keys of [`Memory`].
pub(super) struct Attend<'a, E> {
    pub dim: usize,
    pub scale: f32,
    /// Keys and values, packed.
    pub memory: &'a [E],
    pub keys: usize,
    /// `Some(p)`: query `i` is at position `p + i` and sees keys up to there; `None`: all.
    pub first_position: Option<usize>,
    pub tables: Option<&'a Tables<E>>,
}

impl<E: Value> Attend<'_, E> {
    /// Attends for up to SIDE queries, of which `first` is the first; `query` gives one, `out`
    /// takes a result.
    pub(super) fn block<'q, M: Multiply<Value = E>>(
        &self,
        m: M,
        first: usize,
        count: usize,
        query: impl Fn(usize) -> &'q [f32],
        mut out: impl FnMut(usize, &[f32]),
    ) {
        let steps = self.dim.div_ceil(SIDE);
        let width = steps * SIDE;
        let key_steps = self.keys.div_ceil(SIDE);
        let (keys, values) = self.memory.split_at(self.memory.len() / 2);
        let mut q = Lines::<E>::new(SIDE * width);
        for i in 0..count {
            E::put_row(m.isa(), query(first + i), &mut q, i);
        }
        let biases = self.tables.map(|t| Biases::new(m, t, &q, first, count));
        let mut scores = Lines::<f32>::new(SIDE * KEYS);
        let mut weights = Lines::<E>::new(SIDE * KEYS);
        let mut sums = Lines::<f32>::new(SIDE * width);
        sums.fill(0.0);
        let mut softmax = Softmax::default();

        let seen = |i: usize| self.first_position.map_or(self.keys, |p| p + first + i + 1);
        let end = seen(count - 1).min(self.keys);
        for start in (0..end).step_by(KEYS) {
            let n = KEYS.min(end - start);
            let panels = n.div_ceil(SIDE);
            for panel in 0..panels {
                let b = &keys[(start / SIDE + panel) * SIDE * width..][..SIDE * width];
                let c = scores[panel * SIDE..].as_mut_ptr();
                // SAFETY: `q` holds a block of `steps` steps, `b` a panel; `scores` SIDE rows of
                // KEYS values, of which the panel's columns are written.
                unsafe { m.block::<false>(q.as_ptr(), b.as_ptr(), steps, count, c, KEYS) };
            }
            dispatch(
                m.isa(),
                Weigh {
                    attend: self,
                    biases: biases.as_ref(),
                    start,
                    visible: std::array::from_fn(|i| seen(i).saturating_sub(start).min(n)),
                    count,
                    width: panels * SIDE,
                    scores: &mut scores,
                    weights: &mut weights,
                    sums: &mut sums,
                    softmax: &mut softmax,
                },
            );
            for step in 0..steps {
                let b = &values[(step * key_steps + start / SIDE) * SIDE * SIDE..]
                    [..panels * SIDE * SIDE];
                let c = sums[step * SIDE..].as_mut_ptr();
                // SAFETY: `weights` holds a block and `b` a panel of `panels` steps; `sums` SIDE
                // rows of `width` values.
                unsafe { m.block::<true>(weights.as_ptr(), b.as_ptr(), panels, count, c, width) };
            }
        }
        for (i, sums) in sums.chunks_exact_mut(width).take(count).enumerate() {
            let unit = 1.0 / softmax.total[i];
            let row = &mut sums[..self.dim];
            row.iter_mut().for_each(|v| *v *= unit);
            out(first + i, row);
        }
    }
}

/// For each query of a block the products with all rows of both tables.
struct Biases {
    products: Lines<f32>,
    grid: usize,
    width: usize,
    first: usize,
}

impl Biases {
    fn new<M: Multiply>(
        m: M,
        tables: &Tables<M::Value>,
        q: &[M::Value],
        first: usize,
        count: usize,
    ) -> Self {
        let mut products = Lines::new(SIDE * 2 * tables.width);
        for (i, b) in tables.data.chunks_exact(q.len()).enumerate() {
            let c = products[i * SIDE..].as_mut_ptr();
            let steps = q.len() / SIDE / SIDE;
            let stride = 2 * tables.width;
            // SAFETY: a block and a panel of `steps` steps; SIDE rows of both tables' panels.
            unsafe { m.block::<false>(q.as_ptr(), b.as_ptr(), steps, count, c, stride) };
        }
        Self {
            products,
            grid: tables.grid,
            width: tables.width,
            first,
        }
    }

    /// The biases of query `i` by key row and by key column.
    #[inline(always)]
    fn of(&self, i: usize) -> (&[f32], &[f32]) {
        let (by_row, by_column) =
            self.products[i * 2 * self.width..][..2 * self.width].split_at(self.width);
        let at = self.first + i;
        let part = |table, at| -> &[f32] {
            let table: &[f32] = table;
            &table[self.grid - 1 - at..][..self.grid]
        };
        (
            part(by_row, at / self.grid),
            part(by_column, at % self.grid),
        )
    }
}

/// For each query the largest score so far, and the sum of weights relative to it.
struct Softmax {
    most: [f32; SIDE],
    total: [f32; SIDE],
}

impl Default for Softmax {
    fn default() -> Self {
        Self {
            most: [f32::NEG_INFINITY; SIDE],
            total: [0.0; SIDE],
        }
    }
}

/// Turns a block of scores into weights, and scales earlier sums to the new largest scores.
struct Weigh<'a, E> {
    attend: &'a Attend<'a, E>,
    biases: Option<&'a Biases>,
    /// The first key.
    start: usize,
    /// How many of the keys each query sees.
    visible: [usize; SIDE],
    count: usize,
    /// Keys in whole panels.
    width: usize,
    scores: &'a mut [f32],
    weights: &'a mut [E],
    sums: &'a mut [f32],
    softmax: &'a mut Softmax,
}

impl<E: Value> Kernel for Weigh<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(self.attend.scale);
        let row_len = self.sums.len() / SIDE;
        for i in 0..self.count {
            let scores = &mut self.scores[i * KEYS..][..self.width];
            let most = &mut self.softmax.most[i];
            let mut top = s.splat(*most);
            match self.biases {
                Some(biases) => {
                    add_biases(s, scores, scale, biases, i, self.start, self.attend.keys);
                }
                None => {
                    for part in scores.chunks_exact_mut(S::LANES) {
                        s.store_part(part, s.mul(s.load_part(part), scale));
                    }
                }
            }
            scores[self.visible[i]..].fill(f32::NEG_INFINITY);
            for part in scores.chunks_exact(S::LANES) {
                top = s.max(top, s.load_part(part));
            }
            let top = s.largest(top);
            // Where nothing is visible yet there is nothing to scale.
            let factor = if top == *most {
                1.0
            } else {
                (*most - top).exp()
            };
            let base = s.splat(if top == f32::NEG_INFINITY { 0.0 } else { top });
            let mut sum = s.splat(0.0);
            for (step, scores) in scores.chunks_exact(SIDE).enumerate() {
                let to = &mut self.weights[step * SIDE * SIDE..][..SIDE * SIDE];
                for column in (0..SIDE).step_by(S::LANES) {
                    // SAFETY: `scores` holds SIDE values, `to` a step; SIDE is a multiple of LANES
                    // and more than `i`.
                    unsafe {
                        let score = s.load(scores.as_ptr().add(column));
                        let weight = math::exp(s, s.sub(score, base));
                        E::store(s, to.as_mut_ptr(), i, column, weight);
                        sum = s.add(sum, weight);
                    }
                }
            }
            self.softmax.total[i] = self.softmax.total[i] * factor + s.sum(sum);
            *most = top;
            if factor != 1.0 {
                let sums = &mut self.sums[i * row_len..(i + 1) * row_len];
                sums.iter_mut().for_each(|v| *v *= factor);
            }
        }
    }
}

/// `score * scale + bias` for the keys from `start` on.
#[inline(always)]
fn add_biases<S: Simd>(
    s: S,
    scores: &mut [f32],
    scale: S::V,
    biases: &Biases,
    query: usize,
    start: usize,
    keys: usize,
) {
    let (by_row, by_column) = biases.of(query);
    let grid = biases.grid;
    let n = scores.len().min(keys - start);
    let (mut row, mut column) = (start / grid, start % grid);
    let mut rest = &mut scores[..n];
    while !rest.is_empty() {
        let len = (grid - column).min(rest.len());
        let (now, later) = rest.split_at_mut(len);
        rest = later;
        let of_row = s.splat(by_row[row]);
        let whole = len / S::LANES * S::LANES;
        let (now, now_end) = now.split_at_mut(whole);
        let (bias, bias_end) = by_column[column..column + len].split_at(whole);
        let pairs = now
            .chunks_exact_mut(S::LANES)
            .zip(bias.chunks_exact(S::LANES));
        for (scores, bias) in pairs {
            let bias = s.add(of_row, s.load_part(bias));
            s.store_part(scores, s.mul_add(s.load_part(scores), scale, bias));
        }
        if whole < len {
            let bias = s.add(of_row, s.load_part(bias_end));
            s.store_part(now_end, s.mul_add(s.load_part(now_end), scale, bias));
        }
        (row, column) = (row + 1, 0);
    }
}
