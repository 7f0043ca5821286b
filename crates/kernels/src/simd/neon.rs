//! NEON, which every 64-bit ARM has: eight lanes in two registers, so that eight bf16 values fill
//! one register. Rounding to bf16 takes an instruction where the machine has it (FEAT_BF16).

use super::{Kernel, Simd};
use half::bf16;
use std::arch::{aarch64::*, asm};

/// Proof, if `BF16`, that the machine has FEAT_BF16: only [`run`] and [`run_bf16`] make one.
#[derive(Clone, Copy)]
pub(super) struct Neon<const BF16: bool>(());

pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// # Safety
/// The machine must have FEAT_BF16.
#[target_feature(enable = "neon,bf16")]
pub(super) unsafe fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

type V = [float32x4_t; 2];

/// Methods that do the same with both registers, by instructions that every machine has.
macro_rules! methods {
    ($($name:ident($($arg:ident),+) { $body:expr })+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: V),+) -> V {
            // SAFETY: NEON is part of the target's baseline.
            std::array::from_fn(|i| unsafe { $(let $arg = $arg[i];)+ $body })
        }
    )+};
}

impl<const BF16: bool> Simd for Neon<BF16> {
    type V = V;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller guarantees LANES readable values.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller guarantees LANES writable values.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: V) {
        // SAFETY: the caller guarantees LANES writable values; BF16 proves the machine.
        unsafe {
            let bits = if BF16 { narrow(v) } else { narrow_by_hand(v) };
            vst1q_u16(p.cast(), bits);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> V {
        // SAFETY: the caller guarantees LANES readable values.
        unsafe {
            let bits = vld1q_u16(p.cast());
            let widen = |half| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(half)));
            [widen(vget_low_u16(bits)), widen(vget_high_u16(bits))]
        }
    }
    #[inline(always)]
    unsafe fn splat_of_four<const I: i32>(self, p: *const f32) -> V {
        // Of a whole register multiplications can name a lane.
        // SAFETY: the caller guarantees four readable values.
        [unsafe { vdupq_laneq_f32::<I>(vld1q_f32(p)) }; 2]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: NEON is part of the target's baseline.
        [unsafe { vdupq_n_f32(x) }; 2]
    }

    methods! {
        add(a, b) { vaddq_f32(a, b) }
        sub(a, b) { vsubq_f32(a, b) }
        mul(a, b) { vmulq_f32(a, b) }
        reciprocal(a) {{
            // An estimate of 8 bits and two steps of Newton's.
            let r = vrecpeq_f32(a);
            let r = vmulq_f32(r, vrecpsq_f32(a, r));
            vmulq_f32(r, vrecpsq_f32(a, r))
        }}
        mul_add(a, b, c) { vfmaq_f32(c, a, b) }
        max(a, b) { vmaxq_f32(a, b) }
        min(a, b) { vminq_f32(a, b) }
        round(a) { vrndnq_f32(a) }
        scale(a, n) {{
            // In two halves, each of which an exponent holds.
            let n = vcvtq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            let pow2 = |n| {
                let biased = vaddq_s32(n, vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            };
            vmulq_f32(vmulq_f32(a, pow2(half)), pow2(vsubq_s32(n, half)))
        }}
        abs(a) { vabsq_f32(a) }
        copysign(magnitude, sign) {
            vbslq_f32(vdupq_n_u32(1 << 31), sign, magnitude)
        }
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        // SAFETY: NEON is part of the target's baseline.
        unsafe { vaddvq_f32(vaddq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        // SAFETY: NEON is part of the target's baseline.
        unsafe { vmaxvq_f32(vmaxq_f32(a[0], a[1])) }
    }
}

/// Rounds to bf16. There are no intrinsics for it in stable Rust.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn narrow(v: V) -> uint16x8_t {
    let bits;
    // SAFETY: arithmetic on registers alone.
    unsafe {
        asm!(
            "bfcvtn {bits:v}.4h, {low:v}.4s",
            "bfcvtn2 {bits:v}.8h, {high:v}.4s",
            bits = out(vreg) bits,
            low = in(vreg) v[0],
            high = in(vreg) v[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    bits
}

/// Rounds to bf16 with integer arithmetic.
#[inline(always)]
fn narrow_by_hand(v: V) -> uint16x8_t {
    // SAFETY: NEON is part of the target's baseline.
    unsafe {
        let [low, high] = v.map(|v| {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            // Rounding up could make infinity, or zero, of what is not a number.
            let nan = vorrq_u32(bits, vdupq_n_u32(1 << 22));
            vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, nan))
        });
        vcombine_u16(low, high)
    }
}
