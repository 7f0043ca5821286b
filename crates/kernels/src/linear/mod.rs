//! `y = x Wᵀ + b` with bf16 weights as a checkpoint holds them: `[out, in]`, rows contiguous.
//!
//! Both operands are contiguous along the summed dimension, so a block of dot products runs on
//! them as they lie, without packing; the horizontal sums are paid once per block.
//!
//! * one row to [`FEW_ROWS`]: f32 activations, weights streamed once (decoding);
//! * more rows: blocks of dot products; activations are rounded to bf16 where asked for and where
//!   the machine multiplies bf16 (AMX tiles, AVX-512 pairs), else weights are widened.

mod dots;
mod stream;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_amx;
#[cfg(target_arch = "x86_64")]
mod x86_pairs;

use crate::{Isa, parallel::Shared};
use half::bf16;
use rayon::prelude::*;

/// Up to this many rows a product streams the weights with unrounded activations: memory binds.
pub const FEW_ROWS: usize = 8;

/// What a product of many rows does with its f32 activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activations {
    /// Keeps them f32.
    F32,
    /// Rounds them to bf16 where the machine multiplies bf16 pairs; sums stay f32.
    #[default]
    Bf16,
}

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

/// `y = x Wᵀ + bias`: `x` is `[n, in]`, `y` is `[n, out]`, `bias` is `[out]`.
pub fn linear(
    x: &[f32],
    weight: Matrix<'_>,
    bias: Option<&[bf16]>,
    y: &mut [f32],
    activations: Activations,
) {
    linear_with(Isa::detect(), x, weight, bias, y, activations);
}

/// [`linear`] with a given instruction set, which the machine must have.
pub fn linear_with(
    isa: Isa,
    x: &[f32],
    weight: Matrix<'_>,
    bias: Option<&[bf16]>,
    y: &mut [f32],
    activations: Activations,
) {
    let n = x.len().checked_div(weight.cols).unwrap_or(0);
    assert_eq!(
        x.len(),
        n * weight.cols,
        "inputs of {} columns",
        weight.cols
    );
    assert_eq!(
        y.len(),
        n * weight.rows,
        "outputs of {} columns",
        weight.rows
    );
    assert!(
        bias.is_none_or(|b| b.len() == weight.rows),
        "one bias an output"
    );
    assert!(
        Isa::available().contains(&isa),
        "{isa:?} is not available here"
    );
    if y.is_empty() {
        return;
    }
    let product = Product { n, weight, bias };
    if n <= FEW_ROWS {
        stream::run(isa, product, x, y);
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if activations == Activations::Bf16 && isa == Isa::Amx && x86_amx::fits(&product) {
        let packed = x86_amx::Packed::new(x, n, weight.cols);
        product.tiles(y, size_of::<bf16>(), |tile, y| {
            x86_amx::tile(&packed, &product, tile, y);
        });
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if activations == Activations::Bf16 && isa.multiplies_bf16() {
        let rounded = round(isa, x);
        product.tiles(y, size_of::<bf16>(), |tile, y| {
            x86_pairs::tile(&rounded, &product, tile, y);
        });
        return;
    }
    let _ = activations;
    product.tiles(y, size_of::<f32>(), |tile, y| {
        dots::tile(isa, x, &product, tile, y);
    });
}

/// The parts of a product that every tile needs.
#[derive(Clone, Copy)]
struct Product<'a> {
    n: usize,
    weight: Matrix<'a>,
    bias: Option<&'a [bf16]>,
}

/// A block of the output: rows of `x` by rows of the weight.
struct Tile {
    rows: std::ops::Range<usize>,
    outs: std::ops::Range<usize>,
}

/// Weight rows in a tile: a multiple of all register blocks' widths.
const TILE_OUTS: usize = 96;
/// Bytes of activations that a tile goes over again and again: they should stay in a level-2 cache.
const TILE_BYTES: usize = 512 << 10;

impl Product<'_> {
    /// Runs `work` for every tile of the output, in parallel. Tiles' sizes depend on the shapes
    /// alone, so the result does not depend on the number of threads.
    fn tiles(&self, y: &mut [f32], size_of_x: usize, work: impl Fn(Tile, &TileOut<'_>) + Sync) {
        let row_bytes = self.weight.cols * size_of_x;
        let tile_rows = (TILE_BYTES / row_bytes.max(1)).clamp(32, 256) / 32 * 32;
        let row_tiles = self.n.div_ceil(tile_rows);
        let out_tiles = self.weight.rows.div_ceil(TILE_OUTS);
        let out = TileOut {
            y: Shared::new(y),
            width: self.weight.rows,
        };
        (0..row_tiles * out_tiles).into_par_iter().for_each(|i| {
            // Neighbouring tasks share weights, which are read from memory once.
            let (out_tile, row_tile) = (i / row_tiles, i % row_tiles);
            let rows = row_tile * tile_rows..((row_tile + 1) * tile_rows).min(self.n);
            let outs = out_tile * TILE_OUTS..((out_tile + 1) * TILE_OUTS).min(self.weight.rows);
            work(Tile { rows, outs }, &out);
        });
    }

    #[inline(always)]
    fn bias(&self, out: usize) -> f32 {
        self.bias.map_or(0.0, |b| b[out].to_f32())
    }
}

/// The output as tiles write it.
struct TileOut<'a> {
    y: Shared<'a>,
    width: usize,
}

impl TileOut<'_> {
    #[inline(always)]
    fn write<const N: usize>(&self, row: usize, out: usize, values: [f32; N], p: &Product<'_>) {
        // SAFETY: tiles are disjoint, and each writes its own outputs once.
        let y = unsafe { self.y.part(row * self.width + out, N) };
        for (j, value) in values.into_iter().enumerate() {
            y[j] = value + p.bias(out + j);
        }
    }
}

/// `x` rounded to bf16, to nearest, ties to even.
#[cfg(target_arch = "x86_64")]
fn round(isa: Isa, x: &[f32]) -> Vec<bf16> {
    const CHUNK: usize = 16 << 10;
    let mut rounded = vec![bf16::ZERO; x.len()];
    rounded
        .par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(to, from)| x86_pairs::round(isa, from, to));
    rounded
}

#[cfg(test)]
mod tests;
