//! Blocks of bf16 products with FEAT_BF16 (`bfmmla`): two rows by two columns by four summed
//! values an instruction. Both operands lie in groups of four values, `[group][row][value]`, so two
//! neighbouring rows fill a register.

use super::{Multiply, SIDE};
use crate::Isa;
use half::bf16;
use std::{
    arch::{aarch64::*, asm},
    hint::black_box,
};

/// Values of a row that an instruction sums.
pub(super) const GROUP: usize = 4;

/// Proof that the machine has FEAT_BF16.
#[derive(Clone, Copy)]
pub(crate) struct Bfmmla(());

impl Bfmmla {
    pub(super) fn new() -> Self {
        assert!(Isa::available().contains(&Isa::NeonBf16));
        Self(())
    }
}

impl Multiply for Bfmmla {
    type Value = bf16;

    fn isa(self) -> Isa {
        Isa::NeonBf16
    }

    unsafe fn block<const ADD: bool>(
        self,
        a: *const bf16,
        b: *const bf16,
        steps: usize,
        rows: usize,
        c: *mut f32,
        stride: usize,
    ) {
        let mut row = 0;
        while row < rows {
            // SAFETY: a `Bfmmla` proves the machine; SIDE is a multiple of every number of rows,
            // so they lie inside the block and `c` by the caller's promise.
            row += unsafe {
                let (a, c) = (a.add(row * GROUP), c.add(row * stride));
                // Sixteen registers of sums each.
                match rows - row {
                    1 | 2 => all_columns::<ADD, 1, 16>(a, b, steps, c, stride),
                    3 | 4 => all_columns::<ADD, 2, 8>(a, b, steps, c, stride),
                    _ => all_columns::<ADD, 4, 4>(a, b, steps, c, stride),
                }
            };
        }
    }

    fn peak(self, rounds: usize) -> usize {
        // SAFETY: a `Bfmmla` proves the machine.
        unsafe { ones(rounds) }
    }
}

/// `2 * ROWS` rows of a block, whose number it gives; `2 * COLUMNS` columns at a time.
///
/// # Safety
/// As for [`Multiply::block`], for these rows.
#[target_feature(enable = "neon,bf16")]
unsafe fn all_columns<const ADD: bool, const ROWS: usize, const COLUMNS: usize>(
    a: *const bf16,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    stride: usize,
) -> usize {
    for column in (0..SIDE).step_by(2 * COLUMNS) {
        // SAFETY: SIDE is a multiple of 2 * COLUMNS; the caller's promise.
        unsafe {
            let (b, c) = (b.add(column * GROUP), c.add(column));
            part::<ADD, ROWS, COLUMNS>(a, b, steps, c, stride);
        }
    }
    2 * ROWS
}

/// # Safety
/// As for [`Multiply::block`], for `2 * ROWS` rows and `2 * COLUMNS` columns, both even.
#[inline]
#[target_feature(enable = "neon,bf16")]
unsafe fn part<const ADD: bool, const ROWS: usize, const COLUMNS: usize>(
    a: *const bf16,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    stride: usize,
) {
    // Two columns of the first row, then of the second.
    let mut sums = [[vdupq_n_f32(0.0); COLUMNS]; ROWS];
    // SAFETY: the caller's promise; a step holds SIDE rows of SIDE values on both sides.
    unsafe {
        if ADD {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let at = c.add(2 * i * stride + 4 * j);
                    let (first, second) = (vld1q_f32(at), vld1q_f32(at.add(stride)));
                    sums[0] = low_halves(first, second);
                    sums[1] = high_halves(first, second);
                }
            }
        }
        for group in 0..steps * (SIDE / GROUP) {
            let (a, b) = (a.add(group * SIDE * GROUP), b.add(group * SIDE * GROUP));
            let right: [uint16x8_t; COLUMNS] =
                std::array::from_fn(|j| vld1q_u16(b.add(j * 2 * GROUP).cast()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let left = vld1q_u16(a.add(i * 2 * GROUP).cast());
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = bfmmla(*sum, left, right);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sums) in sums.chunks_exact(2).enumerate() {
                let at = c.add(2 * i * stride + 4 * j);
                vst1q_f32(at, low_halves(sums[0], sums[1]));
                vst1q_f32(at.add(stride), high_halves(sums[0], sums[1]));
            }
        }
    }
}

/// `sums += left rightᵀ` of two rows of four values each. There is no intrinsic for it in stable
/// Rust.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfmmla(mut sums: float32x4_t, left: uint16x8_t, right: uint16x8_t) -> float32x4_t {
    // SAFETY: arithmetic on registers alone.
    unsafe {
        asm!(
            "bfmmla {sums:v}.4s, {left:v}.8h, {right:v}.8h",
            sums = inout(vreg) sums,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

#[inline]
#[target_feature(enable = "neon")]
fn low_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vcombine_f32(vget_low_f32(a), vget_low_f32(b))
}

#[inline]
#[target_feature(enable = "neon")]
fn high_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vcombine_f32(vget_high_f32(a), vget_high_f32(b))
}

/// What [`Multiply::peak`] does.
#[target_feature(enable = "neon,bf16")]
fn ones(rounds: usize) -> usize {
    // The compiler must not know that all sums are the same.
    let mut sums = [(); 16].map(|()| vdupq_n_f32(black_box(0.0)));
    let one = vdupq_n_u16(bf16::ONE.to_bits());
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = bfmmla(*sum, one, one);
        }
    }
    let mut total = 0;
    for sum in sums {
        total += vaddvq_f32(sum) as usize;
    }
    total
}
