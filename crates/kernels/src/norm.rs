//! Normalisation of rows, in f32.

use crate::{
    Isa,
    simd::{Kernel, MAX_LANES, Simd, dispatch},
};
use half::bf16;
use rayon::prelude::*;

/// Values that one task normalises.
const TASK: usize = 16 << 10;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for each row of `norm.weight.len()` values
/// (Ba et al., 2016), with the biased variance.
pub fn layer_norm(x: &[f32], norm: LayerNorm<'_>, y: &mut [f32]) {
    assert_eq!(norm.bias.len(), norm.weight.len(), "one bias a weight");
    rows(x, norm.weight, Some(norm.bias), norm.eps, y);
}

/// `x / sqrt(mean(x²) + eps) * weight` for each row of `weight.len()` values
/// (Zhang and Sennrich, 2019).
pub fn rms_norm(x: &[f32], weight: &[bf16], eps: f32, y: &mut [f32]) {
    rows(x, weight, None, eps, y);
}

/// The parameters of a layer norm over rows of `weight.len()` values.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// The scale.
    pub weight: &'a [bf16],
    /// What is added.
    pub bias: &'a [bf16],
    /// What keeps the variance from zero.
    pub eps: f32,
}

impl LayerNorm<'_> {
    /// Normalises some rows on this thread.
    pub(crate) fn on_thread(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "as many outputs as inputs");
        let (weight, bias, eps) = (self.weight, Some(self.bias), self.eps);
        dispatch(
            isa,
            Norm {
                x,
                weight,
                bias,
                eps,
                y,
            },
        );
    }
}

fn rows(x: &[f32], weight: &[bf16], bias: Option<&[bf16]>, eps: f32, y: &mut [f32]) {
    let dim = weight.len();
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    assert_eq!(x.len() % dim, 0, "rows of {dim}");
    let isa = Isa::detect();
    let task = (TASK / dim).max(1) * dim;
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .for_each(|(y, x)| {
            dispatch(
                isa,
                Norm {
                    x,
                    weight,
                    bias,
                    eps,
                    y,
                },
            )
        });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [bf16],
    /// `Some`: a layer norm; `None`: an RMS norm.
    bias: Option<&'a [bf16]>,
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.weight.len();
        for (x, y) in self.x.chunks_exact(dim).zip(self.y.chunks_exact_mut(dim)) {
            let mean = match self.bias {
                Some(_) => sum(s, x, |v| v) / dim as f32,
                None => 0.0,
            };
            let centre = s.splat(mean);
            let squares = sum(s, x, |v| {
                let d = s.sub(v, centre);
                s.mul(d, d)
            });
            let scale = s.splat(1.0 / (squares / dim as f32 + self.eps).sqrt());
            for at in (0..dim).step_by(S::LANES) {
                let end = (at + S::LANES).min(dim);
                let v = s.mul(s.sub(s.load_part(&x[at..end]), centre), scale);
                let w = s.load_bf16_part(&self.weight[at..end]);
                let v = match self.bias {
                    Some(bias) => s.mul_add(v, w, s.load_bf16_part(&bias[at..end])),
                    None => s.mul(v, w),
                };
                s.store_part(&mut y[at..end], v);
            }
        }
    }
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32], f: impl Fn(S::V) -> S::V) -> f32 {
    let mut total = s.splat(0.0);
    for x in x.chunks(S::LANES) {
        // Through memory, so that `f` of the lanes beyond the row does not count.
        let mut part = [0.0; MAX_LANES];
        let part = &mut part[..x.len()];
        s.store_part(part, f(s.load_part(x)));
        total = s.add(total, s.load_part(part));
    }
    s.sum(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dim: usize) -> (Vec<f32>, Vec<bf16>, Vec<bf16>) {
        let x = (0..2 * dim)
            .map(|i| ((i * 37 % 101) as f32 - 20.0) / 9.0)
            .collect();
        let w = (0..dim)
            .map(|i| bf16::from_f32(1.0 + i as f32 / 64.0))
            .collect();
        let b = (0..dim)
            .map(|i| bf16::from_f32(0.5 - i as f32 / 32.0))
            .collect();
        (x, w, b)
    }

    #[test]
    fn norms_follow_their_definitions_on_every_set() {
        for dim in [1, 7, 16, 37, 320] {
            let (x, w, b) = row(dim);
            for bias in [None, Some(&b[..])] {
                for &isa in Isa::available() {
                    let mut y = vec![f32::NAN; x.len()];
                    dispatch(
                        isa,
                        Norm {
                            x: &x,
                            weight: &w,
                            bias,
                            eps: 1e-6,
                            y: &mut y,
                        },
                    );
                    for (x, y) in x.chunks(dim).zip(y.chunks(dim)) {
                        let n = dim as f64;
                        let mean =
                            bias.map_or(0.0, |_| x.iter().map(|v| f64::from(*v)).sum::<f64>() / n);
                        let var = x
                            .iter()
                            .map(|v| (f64::from(*v) - mean).powi(2))
                            .sum::<f64>()
                            / n;
                        for i in 0..dim {
                            let unit = (f64::from(x[i]) - mean) / (var + 1e-6).sqrt();
                            let truth = unit * w[i].to_f64() + bias.map_or(0.0, |b| b[i].to_f64());
                            assert!(
                                (f64::from(y[i]) - truth).abs() < 2e-5,
                                "{isa:?} {dim} [{i}]"
                            );
                        }
                    }
                }
            }
        }
    }
}
