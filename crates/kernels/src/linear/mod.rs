//! `y = x Wᵀ + b` with bf16 weights as a checkpoint holds them: `[out, in]`, rows contiguous.
//!
//! * one row to [`FEW_ROWS`]: f32 activations, weights streamed once where they lie (decoding);
//! * more rows: blocks of products of packed operands; activations are rounded to bf16 where asked
//!   for and where the machine multiplies bf16, else weights are widened.

mod blocks;
mod feed_forward;
mod sinks;
mod stream;

pub use crate::product::Activations;
pub use feed_forward::{Expert, add_mlp, experts, swiglu};
pub(crate) use stream::rows as stream_rows;

use crate::{
    Isa,
    norm::LayerNorm,
    product::{self, Left, Lines, Multiply, Work},
};
use blocks::{Job, Right};
use half::bf16;
use sinks::Store;

/// Up to this many rows a product streams the weights with unrounded activations: memory binds.
pub const FEW_ROWS: usize = 3;

/// A weight matrix of `rows` outputs by `cols` inputs, row-major.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [bf16],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// A view of `rows * cols` values.
    pub fn new(data: &'a [bf16], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} x {cols}");
        Self { data, rows, cols }
    }

    /// The number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    #[inline(always)]
    fn row(&self, i: usize) -> &'a [bf16] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }
}

/// A weight and what is added to its outputs.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// `[out, in]`
    pub weight: Matrix<'a>,
    /// `[out]`
    pub bias: Option<&'a [bf16]>,
}

impl<'a> Affine<'a> {
    /// A weight and a bias of as many values as it has outputs.
    pub fn new(weight: Matrix<'a>, bias: Option<&'a [bf16]>) -> Self {
        assert!(
            bias.is_none_or(|b| b.len() == weight.rows),
            "one bias an output"
        );
        Self { weight, bias }
    }

    /// The number of rows of `x`.
    fn rows_of(&self, x: &[f32]) -> usize {
        let cols = self.weight.cols;
        let n = x.len().checked_div(cols).unwrap_or(0);
        assert_eq!(x.len(), n * cols, "inputs of {cols} columns");
        n
    }

    fn check_outputs(&self, n: usize, y: &[f32]) {
        let rows = self.weight.rows;
        assert_eq!(y.len(), n * rows, "outputs of {rows} columns");
    }
}

impl<'a> From<Matrix<'a>> for Affine<'a> {
    fn from(weight: Matrix<'a>) -> Self {
        Self { weight, bias: None }
    }
}

/// A layer and where its outputs go.
pub type Output<'a> = (Affine<'a>, &'a mut [f32]);

/// What becomes of the values where a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are replaced.
    Set,
    /// The result is added to them.
    Add,
}

/// `y = x Wᵀ + bias`: `x` is `[n, in]`, `y` is `[n, out]`.
pub fn linear(x: &[f32], layer: Affine<'_>, y: &mut [f32], write: Write, activations: Activations) {
    linear_with(Isa::detect(), x, &mut [(layer, y)], write, activations);
}

/// `y = norm(x) Wᵀ + bias`; the normalised rows are packed as they are made.
pub fn linear_normed(
    x: &[f32],
    norm: LayerNorm<'_>,
    layer: Affine<'_>,
    y: &mut [f32],
    activations: Activations,
) {
    let n = layer.rows_of(x);
    layer.check_outputs(n, y);
    assert_eq!(norm.weight.len(), layer.weight.cols, "a norm of the inputs");
    if n <= FEW_ROWS {
        let mut normed = vec![0.0; x.len()];
        norm.on_thread(Isa::detect(), x, &mut normed);
        return linear(&normed, layer, y, Write::Set, activations);
    }
    let work = Normed { x, norm, layer, y };
    product::with(Isa::detect(), activations, work);
}

struct Normed<'a> {
    x: &'a [f32],
    norm: LayerNorm<'a>,
    layer: Affine<'a>,
    y: &'a mut [f32],
}

impl Work for Normed<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let left = Left::normed(m.isa(), self.x, &self.norm);
        let sink = Store::new(self.y, &self.layer, false);
        blocks::run(m, &[Job::new(&left, Right::Rows(self.layer.weight), &sink)]);
    }
}

/// [`linear`] of one input and several layers, in one go.
pub fn linears(x: &[f32], layers: &mut [Output<'_>], activations: Activations) {
    linear_with(Isa::detect(), x, layers, Write::Set, activations);
}

/// `y = x Wᵀ` of a weight so small that few rows are not worth a second thread; in f32.
pub(crate) fn small_linear(x: &[f32], weight: Matrix<'_>, y: &mut [f32]) {
    let layer = Affine::from(weight);
    let n = layer.rows_of(x);
    layer.check_outputs(n, y);
    if n <= FEW_ROWS {
        stream::Part::new(x, layer, y).on_thread(Isa::detect(), n);
    } else {
        linear(x, layer, y, Write::Set, Activations::F32);
    }
}

/// [`linears`] with a given instruction set, which the machine must have.
fn linear_with(
    isa: Isa,
    x: &[f32],
    layers: &mut [Output<'_>],
    write: Write,
    activations: Activations,
) {
    let Some((first, _)) = layers.first() else {
        return;
    };
    let n = first.rows_of(x);
    let cols = first.weight.cols;
    for (layer, y) in &*layers {
        assert_eq!(layer.weight.cols, cols, "layers of one input");
        layer.check_outputs(n, y);
    }
    if n == 0 {
        return;
    }
    if n <= FEW_ROWS {
        let mut parts = Vec::with_capacity(layers.len());
        for (layer, y) in layers {
            parts.push(stream::Part::new(x, *layer, y));
        }
        return stream::run(isa, &parts, n, write);
    }
    let work = Linears {
        x,
        cols,
        layers,
        write,
    };
    product::with(isa, activations, work);
}

/// `y = x Wᵀ + bias` for `n` rows of `x` that `row` makes one by one: they are packed, and never
/// all there at once.
pub(crate) fn linear_of_rows(
    n: usize,
    row: &(dyn Fn(usize, &mut [f32]) + Sync),
    layer: Affine<'_>,
    y: &mut [f32],
    activations: Activations,
) {
    layer.check_outputs(n, y);
    let work = OfRows { n, row, layer, y };
    product::with(Isa::detect(), activations, work);
}

struct OfRows<'a> {
    n: usize,
    row: &'a (dyn Fn(usize, &mut [f32]) + Sync),
    layer: Affine<'a>,
    y: &'a mut [f32],
}

/// Made rows that are alive at a time.
const MADE_ROWS: usize = 1024;

impl Work for OfRows<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let (cols, outs) = (self.layer.weight.cols, self.layer.weight.rows);
        for (part, y) in self.y.chunks_mut(MADE_ROWS * outs).enumerate() {
            let n = MADE_ROWS.min(self.n - part * MADE_ROWS);
            let left = Left::pack(m.isa(), n, cols, |i, put| {
                let mut space = Lines::new(cols);
                (self.row)(part * MADE_ROWS + i, &mut space);
                put(&space);
            });
            let sink = Store::new(y, &self.layer, false);
            blocks::run(m, &[Job::new(&left, Right::Rows(self.layer.weight), &sink)]);
        }
    }
}

struct Linears<'a, 'b> {
    x: &'a [f32],
    cols: usize,
    layers: &'a mut [Output<'b>],
    write: Write,
}

impl Work for Linears<'_, '_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let left = Left::of(m.isa(), self.x, self.cols);
        let add = self.write == Write::Add;
        let stores: Vec<(Right<'_>, Store<'_>)> = self
            .layers
            .iter_mut()
            .map(|(layer, y)| (Right::Rows(layer.weight), Store::new(y, layer, add)))
            .collect();
        let jobs = stores
            .iter()
            .map(|(right, sink)| Job::new(&left, *right, sink));
        blocks::run(m, &jobs.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests;
