//! Blocks of bf16 products with AVX-512 (`vdpbf16ps`): 32 products an instruction.

use super::{Multiply, SIDE};
use crate::Isa;
use half::bf16;
use std::{arch::x86_64::*, hint::black_box};

/// Columns of a register. A register block is up to 8 rows of two.
const LANES: usize = 16;

/// Proof that the machine multiplies pairs.
#[derive(Clone, Copy)]
pub(crate) struct Pairs(());

impl Pairs {
    pub(super) fn new() -> Self {
        assert!(Isa::available().contains(&Isa::Avx512));
        Self(())
    }
}

impl Multiply for Pairs {
    type Value = bf16;

    fn isa(self) -> Isa {
        Isa::Avx512
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
            // SAFETY: a `Pairs` proves the machine; SIDE is a multiple of every step, so the rows
            // lie inside the block and `c` by the caller's promise.
            row += unsafe {
                let (a, c) = (a.add(row * SIDE), c.add(row * stride));
                match rows - row {
                    1 | 2 => part::<ADD, 2>(a, b, steps, c, stride),
                    3 | 4 => part::<ADD, 4>(a, b, steps, c, stride),
                    _ => part::<ADD, 8>(a, b, steps, c, stride),
                }
            };
        }
    }

    fn peak(self, rounds: usize) -> usize {
        // SAFETY: a `Pairs` proves the machine.
        unsafe { ones(rounds) }
    }
}

/// ROWS rows of a block, whose number it gives.
///
/// # Safety
/// As for [`Multiply::block`], for ROWS rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn part<const ADD: bool, const ROWS: usize>(
    a: *const bf16,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    stride: usize,
) -> usize {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    // SAFETY: the caller's promise; a step holds SIDE rows of SIDE values on both sides.
    unsafe {
        if ADD {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(c.add(i * stride + j * LANES));
                }
            }
        }
        for step in 0..steps {
            let a = a.add(step * SIDE * SIDE).cast::<i32>();
            let b = b.add(step * SIDE * SIDE);
            for pair in 0..SIDE / 2 {
                let b = b.add(pair * 2 * SIDE);
                let right = [
                    pairs(_mm512_load_si512(b.cast())),
                    pairs(_mm512_load_si512(b.add(SIDE).cast())),
                ];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = pairs(_mm512_set1_epi32(*a.add(i * SIDE / 2 + pair)));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = _mm512_dpbf16_ps(*sum, left, right);
                    }
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(c.add(i * stride + j * LANES), sum);
            }
        }
    }
    ROWS
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(v: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without invalid patterns.
    unsafe { std::mem::transmute(v) }
}

/// What [`Multiply::peak`] does.
#[target_feature(enable = "avx512f,avx512bf16")]
fn ones(rounds: usize) -> usize {
    // The compiler must not know that all sums are the same.
    let mut sums = [(); 16].map(|()| _mm512_set1_ps(black_box(0.0)));
    let one = pairs(_mm512_set1_epi16(bf16::ONE.to_bits() as i16));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, one, one);
        }
    }
    let total = |sum| _mm512_reduce_add_ps(sum) as usize;
    sums.into_iter().map(total).sum()
}
