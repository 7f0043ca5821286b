//! Blocks of dot products of f32 rows with bf16 rows, the weights widened on the way.

use super::{Product, Tile, TileOut};
use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch},
};

/// A register block: 3 x 4 sums, 3 inputs and a weight fill the 16 registers of AVX2.
const ROWS: usize = 3;
const OUTS: usize = 4;

pub(super) fn tile(isa: Isa, x: &[f32], product: &Product<'_>, tile: Tile, y: &TileOut<'_>) {
    dispatch(
        isa,
        Dots {
            x,
            product,
            tile,
            y,
        },
    );
}

struct Dots<'a> {
    x: &'a [f32],
    product: &'a Product<'a>,
    tile: Tile,
    y: &'a TileOut<'a>,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tile { rows, outs } = &self.tile;
        let mut out = outs.start;
        while out + OUTS <= outs.end {
            self.column::<S, OUTS>(s, rows.clone(), out);
            out += OUTS;
        }
        while out < outs.end {
            self.column::<S, 1>(s, rows.clone(), out);
            out += 1;
        }
    }
}

impl Dots<'_> {
    /// All rows of the tile for `N` neighbouring outputs.
    #[inline(always)]
    fn column<S: Simd, const N: usize>(&self, s: S, rows: std::ops::Range<usize>, out: usize) {
        let mut row = rows.start;
        while row + ROWS <= rows.end {
            self.block::<S, ROWS, N>(s, row, out);
            row += ROWS;
        }
        while row < rows.end {
            self.block::<S, 1, N>(s, row, out);
            row += 1;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const M: usize, const N: usize>(&self, s: S, row: usize, out: usize) {
        let k = self.product.weight.cols;
        let x: [&[f32]; M] = std::array::from_fn(|i| &self.x[(row + i) * k..(row + i + 1) * k]);
        let w: [_; N] = std::array::from_fn(|j| self.product.weight.row(out + j));
        let mut sums = [[s.splat(0.0); N]; M];
        let whole = k / S::LANES * S::LANES;
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + LANES <= k`, the length of every row.
            let xs: [S::V; M] = std::array::from_fn(|i| unsafe { s.load(x[i].as_ptr().add(at)) });
            for j in 0..N {
                // SAFETY: as above.
                let wj = unsafe { s.load_bf16(w[j].as_ptr().add(at)) };
                for i in 0..M {
                    sums[i][j] = s.mul_add(xs[i], wj, sums[i][j]);
                }
            }
            at += S::LANES;
        }
        if whole < k {
            for j in 0..N {
                let wj = s.load_bf16_part(&w[j][whole..]);
                for i in 0..M {
                    sums[i][j] = s.mul_add(s.load_part(&x[i][whole..]), wj, sums[i][j]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            self.y
                .write(row + i, out, sums.map(|v| s.sum(v)), self.product);
        }
    }
}
