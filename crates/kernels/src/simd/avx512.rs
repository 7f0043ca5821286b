//! AVX-512 with BF16: sixteen lanes, masks for the last part of a row.

use super::{Kernel, Simd};
use half::bf16;
use std::arch::x86_64::*;

/// Proof that the machine has AVX-512 and BF16: only [`run`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The machine must have AVX-512 F, BW, DQ, VL and BF16, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

type V = __m512;

/// Methods that need the instruction set and nothing else.
macro_rules! methods {
    ($($name:ident($($arg:ident: $type:ty),+) -> $result:ty { $body:expr })+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),+) -> $result {
            // SAFETY: an `Avx512` exists only inside `run`, whose caller has checked the machine;
            // masked loads and stores touch only the values that their slice holds.
            unsafe { $body }
        }
    )+};
}

impl Simd for Avx512 {
    type V = V;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller guarantees LANES readable values, `run` the machine.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller guarantees LANES writable values, `run` the machine.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: V) {
        // SAFETY: the caller guarantees LANES writable values, `run` the machine.
        unsafe { _mm256_storeu_si256(p.cast(), narrow(v)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> V {
        // SAFETY: the caller guarantees LANES readable values, `run` the machine.
        unsafe { widen(_mm256_loadu_si256(p.cast())) }
    }

    methods! {
        splat(x: f32) -> V { _mm512_set1_ps(x) }
        add(a: V, b: V) -> V { _mm512_add_ps(a, b) }
        sub(a: V, b: V) -> V { _mm512_sub_ps(a, b) }
        mul(a: V, b: V) -> V { _mm512_mul_ps(a, b) }
        reciprocal(a: V) -> V {{
            // An estimate of 14 bits and one step of Newton's; infinity would make it NaN.
            let a = _mm512_min_ps(_mm512_set1_ps(f32::MAX), a);
            let r = _mm512_rcp14_ps(a);
            _mm512_mul_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(2.0)))
        }}
        mul_add(a: V, b: V, c: V) -> V { _mm512_fmadd_ps(a, b, c) }
        max(a: V, b: V) -> V { _mm512_max_ps(a, b) }
        min(a: V, b: V) -> V { _mm512_min_ps(a, b) }
        round(a: V) -> V {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        scale(a: V, n: V) -> V { _mm512_scalef_ps(a, n) }
        abs(a: V) -> V { _mm512_abs_ps(a) }
        copysign(magnitude: V, sign: V) -> V {
            _mm512_or_ps(magnitude, _mm512_and_ps(_mm512_set1_ps(-0.0), sign))
        }
        sum(a: V) -> f32 { _mm512_reduce_add_ps(a) }
        largest(a: V) -> f32 { _mm512_reduce_max_ps(a) }
        load_part(s: &[f32]) -> V { _mm512_maskz_loadu_ps(mask(s.len()), s.as_ptr()) }
        load_bf16_part(s: &[bf16]) -> V {
            widen(_mm256_maskz_loadu_epi16(mask(s.len()), s.as_ptr().cast()))
        }
    }

    #[inline(always)]
    fn store_part(self, s: &mut [f32], v: V) {
        // SAFETY: the mask keeps the store inside the slice; `run` guarantees the machine.
        unsafe { _mm512_mask_storeu_ps(s.as_mut_ptr(), mask(s.len()), v) }
    }
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// # Safety
/// The machine must have AVX-512 F.
#[inline(always)]
unsafe fn widen(bits: __m256i) -> V {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))) }
}

/// # Safety
/// The machine must have AVX-512 F and BF16.
#[inline(always)]
unsafe fn narrow(v: V) -> __m256i {
    // SAFETY: the caller's promise; the cast keeps 256 bits.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)) }
}
