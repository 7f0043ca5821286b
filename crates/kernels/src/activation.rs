//! Activation functions, elementwise in f32.

use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch, math},
};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `x Φ(x) = x (1 + erf(x / √2)) / 2` (Hendrycks and Gimpel, 2016): SAM's activation.
    Gelu,
    /// `x σ(1.702 x)`: CLIP's approximation of it.
    QuickGelu,
}

impl Function {
    /// Replaces every value by its function's.
    pub fn apply(self, x: &mut [f32]) {
        self.apply_with(Isa::detect(), x);
    }

    fn apply_with(self, isa: Isa, x: &mut [f32]) {
        dispatch(isa, Map { x, function: self });
    }

    #[inline(always)]
    pub(crate) fn of<S: Simd>(self, s: S, v: S::V) -> S::V {
        match self {
            Self::Gelu => {
                let e = math::erf(s, s.mul(v, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
                let half = s.mul(v, s.splat(0.5));
                s.mul_add(half, e, half)
            }
            Self::QuickGelu => s.mul(v, math::sigmoid(s, s.mul(v, s.splat(1.702)))),
        }
    }
}

/// `silu(gate) * up`, with `silu(x) = x σ(x)`: the inner part of SwiGLU (Shazeer, 2020).
#[inline(always)]
pub(crate) fn silu_mul<S: Simd>(s: S, gate: S::V, up: S::V) -> S::V {
    s.mul(s.mul(gate, math::sigmoid(s, gate)), up)
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
            let y = self.function.of(s, s.load_part(x));
            s.store_part(x, y);
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

    #[test]
    fn functions_follow_their_definitions_on_every_set() {
        let truth = |function: Function, x: f64| match function {
            Function::Gelu => x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt())),
            Function::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        };
        let inputs: Vec<f32> = (-700..=700).map(|i| i as f32 / 100.0).collect();
        for &isa in Isa::available() {
            for function in [Function::Gelu, Function::QuickGelu] {
                let mut y = inputs.clone();
                function.apply_with(isa, &mut y);
                for (x, y) in inputs.iter().zip(y) {
                    let error = (f64::from(y) - truth(function, f64::from(*x))).abs();
                    assert!(error < 2e-6, "{function:?} on {isa:?}: {y} at {x}");
                }
            }
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_shows() {
        for &isa in Isa::available() {
            let mut y = [-1e30, 1e30, 0.0, f32::NAN];
            Function::Gelu.apply_with(isa, &mut y);
            assert_eq!(y[..3], [0.0, 1e30, 0.0], "{isa:?}");
            assert!(y[3].is_nan(), "{isa:?}");
        }
    }
}
