//! AVX2 and FMA: eight lanes, bf16 widened by a shift.

use super::{Kernel, Simd};
use half::bf16;
use std::arch::x86_64::*;

/// Proof that the machine has AVX2 and FMA: only [`run`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The machine must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

type V = __m256;

/// Methods that need the instruction set and nothing else.
macro_rules! methods {
    ($($name:ident($($arg:ident: $type:ty),+) -> $result:ty { $body:expr })+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),+) -> $result {
            // SAFETY: an `Avx2` exists only inside `run`, whose caller has checked the machine.
            unsafe { $body }
        }
    )+};
}

impl Simd for Avx2 {
    type V = V;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller guarantees LANES readable values, `run` the machine.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller guarantees LANES writable values, `run` the machine.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: V) {
        let mut lanes = [0.0; Self::LANES];
        // SAFETY: `lanes` holds LANES values; the caller guarantees as many writable ones.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            p.cast::<[bf16; Self::LANES]>()
                .write_unaligned(lanes.map(bf16::from_f32));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> V {
        // SAFETY: the caller guarantees LANES readable values, `run` the machine.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    methods! {
        splat(x: f32) -> V { _mm256_set1_ps(x) }
        add(a: V, b: V) -> V { _mm256_add_ps(a, b) }
        sub(a: V, b: V) -> V { _mm256_sub_ps(a, b) }
        mul(a: V, b: V) -> V { _mm256_mul_ps(a, b) }
        reciprocal(a: V) -> V { _mm256_div_ps(_mm256_set1_ps(1.0), a) }
        mul_add(a: V, b: V, c: V) -> V { _mm256_fmadd_ps(a, b, c) }
        max(a: V, b: V) -> V { _mm256_max_ps(a, b) }
        min(a: V, b: V) -> V { _mm256_min_ps(a, b) }
        round(a: V) -> V {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        scale(a: V, n: V) -> V {{
            // In two halves, each of which an exponent holds.
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let pow2 = |n| {
                let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            _mm256_mul_ps(_mm256_mul_ps(a, pow2(half)), pow2(_mm256_sub_epi32(n, half)))
        }}
        abs(a: V) -> V { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        copysign(magnitude: V, sign: V) -> V {
            _mm256_or_ps(magnitude, _mm256_and_ps(_mm256_set1_ps(-0.0), sign))
        }
        sum(a: V) -> f32 {{
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }}
        largest(a: V) -> f32 {{
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }}
    }
}
