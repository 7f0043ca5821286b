//! Activation functions, elementwise in f32.

use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch, math},
};
use rayon::prelude::*;

/// Values that one task works on.
const TASK: usize = 16 << 10;

/// `x Φ(x) = x (1 + erf(x / √2)) / 2` in place (Hendrycks and Gimpel, 2016): SAM's activation.
pub fn gelu(x: &mut [f32]) {
    in_place(x, Function::Gelu);
}

/// `x σ(1.702 x)` in place: CLIP's approximation of [`gelu`].
pub fn quick_gelu(x: &mut [f32]) {
    in_place(x, Function::QuickGelu);
}

/// `gate σ(gate) * up`, the inner part of SwiGLU (Shazeer, 2020), into `gate`.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "as many gates as values");
    let isa = Isa::detect();
    gate.par_chunks_mut(TASK)
        .zip(up.par_chunks(TASK))
        .for_each(|(gate, up)| dispatch(isa, SiluMul { gate, up }));
}

/// `x + y` into `x`.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "as many values on both sides");
    x.par_chunks_mut(TASK)
        .zip(y.par_chunks(TASK))
        .for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}

fn in_place(x: &mut [f32], function: Function) {
    let isa = Isa::detect();
    x.par_chunks_mut(TASK)
        .for_each(|x| dispatch(isa, Map { x, function }));
}

#[derive(Clone, Copy)]
enum Function {
    Gelu,
    QuickGelu,
}

struct Map<'a> {
    x: &'a mut [f32],
    function: Function,
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(S::LANES) {
            let v = s.load_part(x);
            let y = match self.function {
                Function::Gelu => {
                    let e = math::erf(s, s.mul(v, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
                    let half = s.mul(v, s.splat(0.5));
                    s.mul_add(half, e, half)
                }
                Function::QuickGelu => s.mul(v, math::sigmoid(s, s.mul(v, s.splat(1.702)))),
            };
            s.store_part(x, y);
        }
    }
}

struct SiluMul<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (gate, up) in self.gate.chunks_mut(S::LANES).zip(self.up.chunks(S::LANES)) {
            let g = s.load_part(gate);
            let y = s.mul(s.mul(g, math::sigmoid(s, g)), s.load_part(up));
            s.store_part(gate, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Maclaurin series in f64, good to 1e-12 for |x| <= 5.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn inputs() -> Vec<f32> {
        (-700..=700).map(|i| i as f32 / 100.0).collect()
    }

    fn compare(isa: Isa, name: &str, y: &[f32], truth: impl Fn(f64) -> f64) {
        for (x, y) in inputs().iter().zip(y) {
            let error = (f64::from(*y) - truth(f64::from(*x))).abs();
            assert!(error < 2e-6, "{name} on {isa:?}: {y} at {x}");
        }
    }

    #[test]
    fn functions_follow_their_definitions_on_every_set() {
        for &isa in Isa::available() {
            let mut y = inputs();
            dispatch(
                isa,
                Map {
                    x: &mut y,
                    function: Function::Gelu,
                },
            );
            compare(isa, "gelu", &y, |x| {
                x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt()))
            });
            let mut y = inputs();
            dispatch(
                isa,
                Map {
                    x: &mut y,
                    function: Function::QuickGelu,
                },
            );
            compare(isa, "quick_gelu", &y, |x| x / (1.0 + (-1.702 * x).exp()));
            let mut y = inputs();
            dispatch(
                isa,
                SiluMul {
                    gate: &mut y,
                    up: &vec![0.5; inputs().len()],
                },
            );
            compare(isa, "silu_mul", &y, |x| 0.5 * x / (1.0 + (-x).exp()));
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_shows() {
        for &isa in Isa::available() {
            let mut y = [-1e30, 1e30, 0.0, f32::NAN];
            dispatch(
                isa,
                Map {
                    x: &mut y,
                    function: Function::Gelu,
                },
            );
            assert_eq!(y[..3], [0.0, 1e30, 0.0], "{isa:?}");
            assert!(y[3].is_nan(), "{isa:?}");
        }
    }
}
