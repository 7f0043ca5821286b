//! Operands in the order that kernels read them.

#[cfg(target_arch = "x86_64")]
use super::x86_pack;
use super::{Lines, SIDE};
use crate::{
    Isa,
    norm::LayerNorm,
    prefetch,
    simd::{Kernel, Simd, dispatch},
};
use half::bf16;
use rayon::prelude::*;

/// Values of a packed operand.
pub(crate) trait Value: bytemuck::Pod + Send + Sync {
    /// Stores values `column..column + LANES` of row `row` in a step of a left operand.
    ///
    /// # Safety
    /// `step` must be valid for writing a step's SIDE rows of SIDE values, among which these must
    /// be.
    unsafe fn store<S: Simd>(s: S, step: *mut Self, row: usize, column: usize, v: S::V);

    /// Puts `from`, of any length, as row `row` of a block of `to.len() / SIDE²` steps.
    fn put_row(isa: Isa, from: &[f32], to: &mut [Self], row: usize) {
        dispatch(isa, PutRow { from, to, row });
    }

    /// Packs a panel of `to.len() / SIDE²` steps whose columns are `rows`, of `from` values each;
    /// columns beyond `rows` are zero. The rows of `next` may be fetched into the cache meanwhile:
    /// the hardware follows too few of the many rows that are read side by side.
    fn panel(isa: Isa, rows: &[&[bf16]], next: &[&[bf16]], to: &mut [Self]);

    /// [`Self::panel`] of f32 rows.
    fn panel_f32(isa: Isa, rows: &[&[f32]], to: &mut [Self]);

    /// Packs a panel whose summed values are `rows`, each with up to SIDE columns.
    fn panel_of_columns(isa: Isa, rows: &[&[f32]], to: &mut [Self]);
}

/// What [`Value::put_row`] does.
struct PutRow<'a, E> {
    from: &'a [f32],
    to: &'a mut [E],
    row: usize,
}

impl<E: Value> Kernel for PutRow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.row < SIDE);
        for (i, step) in self.to.chunks_exact_mut(SIDE * SIDE).enumerate() {
            for column in (0..SIDE).step_by(S::LANES) {
                let from = self.from.get(i * SIDE + column..).unwrap_or(&[]);
                let v = s.load_part(from);
                // SAFETY: inside the step, since SIDE is a multiple of LANES.
                unsafe { E::store(s, step.as_mut_ptr(), self.row, column, v) };
            }
        }
    }
}

/// Walks the cache lines of some rows, in order.
pub(super) struct Ahead<'a> {
    rows: std::slice::Iter<'a, &'a [bf16]>,
    line: *const bf16,
    left: usize,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(rows: &'a [&'a [bf16]]) -> Self {
        Self {
            rows: rows.iter(),
            line: std::ptr::null(),
            left: 0,
        }
    }

    /// Asks for the next line.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        if self.left == 0 {
            let Some(row) = self.rows.next() else {
                return;
            };
            (self.line, self.left) = (row.as_ptr(), row.len().div_ceil(SIDE));
        }
        prefetch::to_read_later(self.line);
        self.line = self.line.wrapping_add(SIDE);
        self.left = self.left.saturating_sub(1);
    }
}

/// A packed left operand.
pub(crate) struct Left<E> {
    data: Lines<E>,
    rows: usize,
    steps: usize,
}

impl<E: Value> Left<E> {
    /// Room for `rows` rows of `cols` values.
    pub(crate) fn new(rows: usize, cols: usize) -> Self {
        let steps = cols.div_ceil(SIDE);
        Self {
            data: Lines::new(rows.next_multiple_of(SIDE) * steps * SIDE),
            rows,
            steps,
        }
    }

    /// Packs `rows` rows of up to `cols` values; `row` hands row `i` to its second argument.
    pub(crate) fn pack(
        isa: Isa,
        rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut dyn FnMut(&[f32])) + Sync,
    ) -> Self {
        let mut left = Self::new(rows, cols);
        let block = SIDE * SIDE * left.steps;
        left.data
            .par_chunks_exact_mut(block)
            .enumerate()
            .for_each(|(i, to)| {
                for at in 0..SIDE.min(rows - i * SIDE) {
                    row(i * SIDE + at, &mut |from| E::put_row(isa, from, to, at));
                }
            });
        left
    }

    /// [`Self::pack`] of a matrix.
    pub(crate) fn of(isa: Isa, x: &[f32], cols: usize) -> Self {
        Self::pack(isa, x.len() / cols, cols, |i, put| {
            put(&x[i * cols..(i + 1) * cols]);
        })
    }

    /// [`Self::of`] of the rows behind a norm.
    pub(crate) fn normed(isa: Isa, x: &[f32], norm: &LayerNorm<'_>) -> Self {
        let cols = norm.weight.len();
        Self::pack(isa, x.len() / cols, cols, |i, put| {
            let mut row = Lines::new(cols);
            norm.on_thread(isa, &x[i * cols..(i + 1) * cols], &mut row);
            put(&row);
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// The rows `SIDE * i ..` with all their steps.
    #[inline(always)]
    pub(crate) fn block(&self, i: usize) -> &[E] {
        let size = SIDE * SIDE * self.steps;
        &self.data[i * size..(i + 1) * size]
    }

    pub(crate) fn data_mut(&mut self) -> &mut [E] {
        &mut self.data
    }
}

impl Value for f32 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, step: *mut f32, row: usize, column: usize, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { s.store(step.add(row * SIDE + column), v) };
    }

    fn panel(isa: Isa, rows: &[&[bf16]], next: &[&[bf16]], to: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            // SAFETY: such a set only comes from detection.
            unsafe { x86_pack::f32_panel_of_bf16(rows, next, to) };
            return;
        }
        let _ = (isa, next);
        transpose(rows, to, |v| v.to_f32());
    }

    fn panel_f32(isa: Isa, rows: &[&[f32]], to: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if isa.has_avx512() {
            // SAFETY: such a set only comes from detection.
            unsafe { x86_pack::f32_panel_of_f32(rows, to) };
            return;
        }
        let _ = isa;
        transpose(rows, to, |v| v);
    }

    fn panel_of_columns(_: Isa, rows: &[&[f32]], to: &mut [f32]) {
        let rows = rows.iter().copied().chain(std::iter::repeat(&[][..]));
        for (from, to) in rows.zip(to.chunks_exact_mut(SIDE)) {
            to[..from.len()].copy_from_slice(from);
            to[from.len()..].fill(0.0);
        }
    }
}

/// `rows` as columns of a panel of f32 values.
fn transpose<T: Copy>(rows: &[&[T]], to: &mut [f32], widen: impl Fn(T) -> f32) {
    for (column, row) in (0..SIDE).zip(rows.iter().copied().chain(std::iter::repeat(&[][..]))) {
        let values = row.iter().map(|v| widen(*v)).chain(std::iter::repeat(0.0));
        for (to, value) in to.iter_mut().skip(column).step_by(SIDE).zip(values) {
            *to = value;
        }
    }
}
