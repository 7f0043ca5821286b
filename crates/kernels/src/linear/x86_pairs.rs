//! Blocks of dot products of bf16 rows with bf16 rows (`vdpbf16ps`): 32 products an instruction.

use super::{Product, Tile, TileOut};
use crate::Isa;
use half::bf16;
use std::arch::x86_64::*;

/// A register block: 4 x 6 sums, 4 inputs and a weight of the 32 registers.
const ROWS: usize = 4;
const OUTS: usize = 6;
/// bf16 values in a register.
const PAIRS: usize = 32;

pub(super) fn tile(x: &[bf16], product: &Product<'_>, tile: Tile, y: &TileOut<'_>) {
    debug_assert!(Isa::available().contains(&Isa::Avx512));
    // SAFETY: the caller chose this path because the machine has the set.
    unsafe { run(x, product, tile, y) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn run(x: &[bf16], product: &Product<'_>, tile: Tile, y: &TileOut<'_>) {
    let mut out = tile.outs.start;
    while out + OUTS <= tile.outs.end {
        column::<OUTS>(x, product, &tile, out, y);
        out += OUTS;
    }
    while out < tile.outs.end {
        column::<1>(x, product, &tile, out, y);
        out += 1;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn column<const N: usize>(x: &[bf16], p: &Product<'_>, tile: &Tile, out: usize, y: &TileOut<'_>) {
    let mut row = tile.rows.start;
    while row + ROWS <= tile.rows.end {
        block::<ROWS, N>(x, p, row, out, y);
        row += ROWS;
    }
    while row < tile.rows.end {
        block::<1, N>(x, p, row, out, y);
        row += 1;
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn block<const M: usize, const N: usize>(
    x: &[bf16],
    product: &Product<'_>,
    row: usize,
    out: usize,
    y: &TileOut<'_>,
) {
    let k = product.weight.cols;
    // Slicing checks once that every row lies inside.
    let xs = x[row * k..(row + M) * k].as_ptr();
    let ws = product.weight.data[out * k..(out + N) * k].as_ptr();
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    let mut at = 0;
    while at < k {
        let left = k - at;
        let mask: __mmask32 = if left >= PAIRS { !0 } else { (1 << left) - 1 };
        let mut xv = [_mm512_setzero_si512(); M];
        for (i, v) in xv.iter_mut().enumerate() {
            // SAFETY: masked to the values left in row `i`.
            *v = unsafe { _mm512_maskz_loadu_epi16(mask, xs.add(i * k + at).cast()) };
        }
        for j in 0..N {
            // SAFETY: masked to the values left in weight row `j`.
            let wv = unsafe { _mm512_maskz_loadu_epi16(mask, ws.add(j * k + at).cast()) };
            for i in 0..M {
                sums[i][j] = _mm512_dpbf16_ps(sums[i][j], as_pairs(xv[i]), as_pairs(wv));
            }
        }
        at += PAIRS;
    }
    for (i, sums) in sums.into_iter().enumerate() {
        y.write(row + i, out, sums.map(|v| _mm512_reduce_add_ps(v)), product);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn as_pairs(v: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without invalid patterns.
    unsafe { std::mem::transmute(v) }
}

/// Rounds `from` to bf16, to nearest, ties to even.
pub(super) fn round(isa: Isa, from: &[f32], to: &mut [bf16]) {
    assert!(isa.multiplies_bf16());
    // SAFETY: such a set only comes from detection.
    unsafe { round_avx512(from, to) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_avx512(from: &[f32], to: &mut [bf16]) {
    for (from, to) in from.chunks(16).zip(to.chunks_mut(16)) {
        let mask: __mmask16 = if from.len() >= 16 {
            !0
        } else {
            (1 << from.len()) - 1
        };
        // SAFETY: masked to the values that both chunks hold; the cast keeps 256 bits.
        unsafe {
            let v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.as_ptr()));
            _mm256_mask_storeu_epi16(
                to.as_mut_ptr().cast(),
                mask,
                std::mem::transmute::<__m256bh, __m256i>(v),
            );
        }
    }
}
