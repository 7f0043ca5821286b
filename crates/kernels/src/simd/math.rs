//! Elementary functions on vectors.

use super::Simd;

/// e to the power of `x`, relative error about 2e-7; 0 below -104, infinite above 89.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, and a Taylor polynomial of degree 6 for `e^r`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Operands in this order let NaN through, so that it shows in the result.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, so that n * ln 2 is subtracted without rounding error.
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.mul_add(p, r, s.splat(c));
    }
    s.scale(p, n)
}

/// The error function, absolute error below 5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let a = s.abs(x);
    let one = s.splat(1.0);
    let t = s.reciprocal(s.mul_add(a, s.splat(0.327_591_1), one));
    let mut p = s.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = s.mul_add(p, t, s.splat(c));
    }
    let e = exp(s, s.sub(s.splat(0.0), s.mul(a, a)));
    s.copysign(s.max(s.sub(one, s.mul(s.mul(p, t), e)), s.splat(0.0)), x)
}

/// The logistic function `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.reciprocal(s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}
