//! Products of few rows: each weight row is read once, in order, and meets all inputs.
//!
//! Memory binds here, so activations stay f32 and weights are widened on the way. One row at a
//! time beats several interleaved ones: the hardware prefetcher follows one stream better.

use super::Product;
use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch},
};
use half::bf16;
use rayon::prelude::*;

/// Bytes of weights in one task: long enough to hide the cost of handing it out.
const TASK_BYTES: usize = 256 << 10;

pub(super) fn run(isa: Isa, product: Product<'_>, x: &[f32], y: &mut [f32]) {
    let (outs, k, n) = (product.weight.rows, product.weight.cols, product.n);
    let task_outs = (TASK_BYTES / (2 * k)).max(1);
    let task = |first: usize, y: &mut [f32]| {
        for (j, y) in y.chunks_exact_mut(n).enumerate() {
            let (w, bias) = (product.weight.row(first + j), product.bias(first + j));
            dispatch(isa, Row { x, w, bias, y });
        }
    };
    if n == 1 {
        y.par_chunks_mut(task_outs)
            .enumerate()
            .for_each(|(i, y)| task(i * task_outs, y));
        return;
    }
    // Several rows: collect `[out, n]`, then transpose the small result.
    let mut columns = vec![0.0; outs * n];
    columns
        .par_chunks_mut(task_outs * n)
        .enumerate()
        .for_each(|(i, y)| task(i * task_outs, y));
    for (out, column) in columns.chunks_exact(n).enumerate() {
        for (row, value) in column.iter().enumerate() {
            y[row * outs + out] = *value;
        }
    }
}

/// One weight row against all rows of `x`; `y` has a value for each of these.
struct Row<'a> {
    x: &'a [f32],
    w: &'a [bf16],
    bias: f32,
    y: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.x.chunks_exact(self.w.len()).zip(self.y) {
            *y = dot(s, x, self.w) + self.bias;
        }
    }
}

/// Four running sums, so that additions do not wait for each other.
#[inline(always)]
fn dot<S: Simd>(s: S, x: &[f32], w: &[bf16]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let k = w.len();
    let mut at = 0;
    while at + 4 * S::LANES <= k {
        for (i, sum) in sums.iter_mut().enumerate() {
            let p = at + i * S::LANES;
            // SAFETY: `p + LANES <= k`, the length of both rows.
            let (xv, wv) = unsafe { (s.load(x.as_ptr().add(p)), s.load_bf16(w.as_ptr().add(p))) };
            *sum = s.mul_add(xv, wv, *sum);
        }
        at += 4 * S::LANES;
    }
    while at < k {
        let end = (at + S::LANES).min(k);
        let (xv, wv) = (s.load_part(&x[at..end]), s.load_bf16_part(&w[at..end]));
        sums[0] = s.mul_add(xv, wv, sums[0]);
        at = end;
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
