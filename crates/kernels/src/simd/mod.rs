//! A small vector trait, so that a kernel is written once and compiled for every instruction set.
//!
//! A kernel is a type with [`Kernel::run`]; [`dispatch`] calls it inside a function that has the
//! set's target features. Everything on the way is `#[inline(always)]`, so the whole kernel is
//! compiled with these features. Closures handed to other threads would not be: dispatch inside
//! each task instead.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::Isa;
use half::bf16;

/// Vectors of [`Simd::LANES`] f32 values and the operations that the kernels need.
pub(crate) trait Simd: Copy {
    /// One vector.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Whether [`Self::mul_add`] is one instruction.
    const FUSED: bool = true;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `p` must be valid for reading `LANES` values.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `p` must be valid for writing `LANES` values.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads `LANES` bf16 values and widens them.
    /// # Safety
    /// `p` must be valid for reading `LANES` values.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// Rounds to bf16, to nearest, ties to even, and stores `LANES` values. Denormal ones may
    /// become zero.
    /// # Safety
    /// `p` must be valid for writing `LANES` values.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V);
    /// Value `I` of the four at `p` in all lanes.
    /// # Safety
    /// `p` must be valid for reading four values.
    #[inline(always)]
    unsafe fn splat_of_four<const I: i32>(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        self.splat(unsafe { *p.add(I as usize) })
    }
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `1 / a`, relative error about 1e-7; 0 of infinity, or nearly.
    fn reciprocal(self, a: Self::V) -> Self::V;
    /// `a * b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a` times 2 to the power of integral `n` in -151..=129, down to denormal values and zero.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `magnitude` (not negative) with the sign of `sign`.
    fn copysign(self, magnitude: Self::V, sign: Self::V) -> Self::V;
    fn sum(self, a: Self::V) -> f32;
    fn largest(self, a: Self::V) -> f32;

    /// Loads up to `LANES` values, the rest zero.
    #[inline(always)]
    fn load_part(self, s: &[f32]) -> Self::V {
        if s.len() >= Self::LANES {
            // SAFETY: LANES values.
            return unsafe { self.load(s.as_ptr()) };
        }
        let mut lanes = [0.0; MAX_LANES];
        lanes[..s.len()].copy_from_slice(s);
        // SAFETY: `lanes` holds MAX_LANES >= LANES values.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Loads up to `LANES` bf16 values widened, the rest zero.
    #[inline(always)]
    fn load_bf16_part(self, s: &[bf16]) -> Self::V {
        if s.len() >= Self::LANES {
            // SAFETY: LANES values.
            return unsafe { self.load_bf16(s.as_ptr()) };
        }
        let mut lanes = [bf16::ZERO; MAX_LANES];
        lanes[..s.len()].copy_from_slice(s);
        // SAFETY: `lanes` holds MAX_LANES >= LANES values.
        unsafe { self.load_bf16(lanes.as_ptr()) }
    }

    /// Stores the first `s.len().min(LANES)` values.
    #[inline(always)]
    fn store_part(self, s: &mut [f32], v: Self::V) {
        if s.len() >= Self::LANES {
            // SAFETY: LANES values.
            return unsafe { self.store(s.as_mut_ptr(), v) };
        }
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: `lanes` holds MAX_LANES >= LANES values.
        unsafe { self.store(lanes.as_mut_ptr(), v) };
        s.copy_from_slice(&lanes[..s.len()]);
    }
}

/// The widest vector of any set.
pub(crate) const MAX_LANES: usize = 16;

/// Work that runs on one thread with one instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` compiled for `isa`.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` other than Portable only comes from `Isa::available`, which checked
        // the machine's features.
        Isa::Avx512 | Isa::Amx => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonBf16 => unsafe { neon::run_bf16(kernel) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::run(kernel),
        _ => kernel.run(portable::Portable),
    }
}

#[cfg(test)]
mod tests;
