//! What becomes of sums: they are stored, or packed for the next product.

use super::{
    Affine,
    blocks::{Sink, Sums},
};
use crate::{
    Isa,
    activation::{Function, silu_mul},
    parallel::Shared,
    product::{Left, SIDE, Value},
    simd::{Kernel, Simd, dispatch},
};
use half::bf16;
use std::ops::Range;

/// Where a product's rows go, its bias added.
pub(super) struct Store<'a> {
    y: Shared<'a>,
    width: usize,
    bias: Option<&'a [bf16]>,
    add: bool,
}

impl<'a> Store<'a> {
    /// Into `y` `[rows, out]`, added to what is there if `add`.
    pub(super) fn new(y: &'a mut [f32], layer: &Affine<'a>, add: bool) -> Self {
        Self {
            y: Shared::new(y),
            width: layer.weight.rows,
            bias: layer.bias,
            add,
        }
    }
}

impl Sink for Store<'_> {
    fn prepare(&self, rows: Range<usize>, panel: usize) {
        // Rows lie far apart: without the hint every one of them waits for memory.
        rows.for_each(|row| self.y.fetch(row * self.width + panel * SIDE, SIDE));
    }

    fn put(&self, isa: Isa, sums: &Sums<'_>) {
        dispatch(isa, StoreBlock { store: self, sums });
    }
}

struct StoreBlock<'a> {
    store: &'a Store<'a>,
    sums: &'a Sums<'a>,
}

impl Kernel for StoreBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Store {
            y,
            width,
            bias,
            add,
        } = self.store;
        let start = self.sums.panel * SIDE;
        let live = (width - start).min(SIDE);
        let mut biases = [0.0; SIDE];
        if let Some(bias) = bias {
            widen(s, &bias[start..start + live], &mut biases);
        }
        for (i, sums) in self.sums.rows() {
            // SAFETY: blocks of sums are disjoint, as are their places in `y`.
            let y = unsafe { y.part(i * width + start, live) };
            let parts = sums
                .chunks_exact(S::LANES)
                .zip(biases.chunks_exact(S::LANES));
            for (y, (sums, bias)) in y.chunks_mut(S::LANES).zip(parts) {
                // SAFETY: both chunks hold LANES values.
                let mut v = unsafe { s.add(s.load(sums.as_ptr()), s.load(bias.as_ptr())) };
                if *add {
                    v = s.add(v, s.load_part(y));
                }
                s.store_part(y, v);
            }
        }
    }
}

/// What comes between two products.
#[derive(Clone, Copy)]
pub(super) enum Between<'a> {
    /// A function of the first product's sums with their bias.
    Function(Function, Option<&'a [bf16]>),
    /// `silu(gate) * up`, of a right operand of halves.
    SwiGlu,
}

/// Packs what comes between two products as the second's left operand.
pub(super) struct Inner<'a, E> {
    data: Shared<'a, E>,
    steps: usize,
    /// Summed values of the second product.
    width: usize,
    between: Between<'a>,
}

impl<'a, E: Value> Inner<'a, E> {
    /// Into `left`, of rows of `width` values.
    pub(super) fn new(left: &'a mut Left<E>, width: usize, between: Between<'a>) -> Self {
        let steps = left.steps();
        Self {
            data: Shared::new(left.data_mut()),
            steps,
            width,
            between,
        }
    }
}

impl<E: Value> Sink for Inner<'_, E> {
    fn prepare(&self, _: Range<usize>, _: usize) {}

    fn put(&self, isa: Isa, sums: &Sums<'_>) {
        dispatch(isa, InnerBlock { inner: self, sums });
    }
}

struct InnerBlock<'a, E> {
    inner: &'a Inner<'a, E>,
    sums: &'a Sums<'a>,
}

impl<E: Value> Kernel for InnerBlock<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inner { width, between, .. } = *self.inner;
        let columns = match between {
            Between::Function(..) => SIDE,
            Between::SwiGlu => SIDE / 2,
        };
        let start = self.sums.panel * columns;
        let live = (width - start).min(columns);
        // The last panel fills its step with zeros.
        let filled = match start + columns >= width {
            true => SIDE - start % SIDE,
            false => columns,
        };
        let mut biases = [0.0; SIDE];
        if let Between::Function(_, Some(bias)) = between {
            widen(s, &bias[start..start + live], &mut biases);
        }
        let mut values = [0.0; SIDE];
        for (i, sums) in self.sums.rows() {
            let out = &mut values[..live];
            match between {
                Between::Function(function, _) => {
                    let parts = sums
                        .chunks_exact(S::LANES)
                        .zip(biases.chunks_exact(S::LANES));
                    for (out, (sums, bias)) in out.chunks_mut(S::LANES).zip(parts) {
                        let v = s.add(s.load_part(sums), s.load_part(bias));
                        s.store_part(out, function.of(s, v));
                    }
                }
                Between::SwiGlu => {
                    let (gate, up) = sums.split_at(SIDE / 2);
                    let parts = gate.chunks_exact(S::LANES).zip(up.chunks_exact(S::LANES));
                    for (out, (gate, up)) in out.chunks_mut(S::LANES).zip(parts) {
                        s.store_part(out, silu_mul(s, s.load_part(gate), s.load_part(up)));
                    }
                }
            }
            let step = i / SIDE * self.inner.steps + start / SIDE;
            let step = self.inner.data.start_of(step * SIDE * SIDE, SIDE * SIDE);
            for (at, values) in (0..filled)
                .step_by(S::LANES)
                .zip(values.chunks_exact(S::LANES))
            {
                // SAFETY: inside the step, since `start` and `filled` are multiples of LANES.
                // Panels are disjoint, and only the last one writes beyond its columns, where no
                // other does.
                unsafe { E::store(s, step, i % SIDE, start % SIDE + at, s.load_part(values)) };
            }
        }
    }
}

#[inline(always)]
fn widen<S: Simd>(s: S, from: &[bf16], to: &mut [f32]) {
    for (to, from) in to.chunks_mut(S::LANES).zip(from.chunks(S::LANES)) {
        s.store_part(to, s.load_bf16_part(from));
    }
}
