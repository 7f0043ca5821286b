//! Blocks of f32 products, on every instruction set.

use super::{Multiply, SIDE};
use crate::{
    Isa,
    simd::{Kernel, Simd, dispatch},
};
use std::hint::black_box;

/// Products of f32 values with an instruction set that the machine has.
#[derive(Clone, Copy)]
pub(crate) struct F32(pub Isa);

impl Multiply for F32 {
    type Value = f32;

    fn isa(self) -> Isa {
        self.0
    }

    unsafe fn block<const ADD: bool>(
        self,
        a: *const f32,
        b: *const f32,
        steps: usize,
        rows: usize,
        c: *mut f32,
        stride: usize,
    ) {
        dispatch(
            self.0,
            Block::<ADD> {
                a,
                b,
                steps,
                rows,
                c,
                stride,
            },
        );
    }

    fn peak(self, rounds: usize) -> usize {
        dispatch(self.0, Ones { rounds })
    }
}

/// The promise of [`Multiply::block`] holds for every one that is made.
struct Block<const ADD: bool> {
    a: *const f32,
    b: *const f32,
    steps: usize,
    rows: usize,
    c: *mut f32,
    stride: usize,
}

impl<const ADD: bool> Kernel for Block<ADD> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Sums fill half of the registers: 8 rows x 2 vectors of 32, or 4 x 2 of 16.
        let most = S::LANES / 2;
        let mut row = 0;
        while row < self.rows {
            row += match (self.rows - row).min(most) {
                ..=2 => self.rows_from::<S, 2>(s, row),
                3..=4 => self.rows_from::<S, 4>(s, row),
                _ => self.rows_from::<S, 8>(s, row),
            };
        }
    }
}

/// Vectors of a panel's row that are multiplied together.
const VECTORS: usize = 2;

impl<const ADD: bool> Block<ADD> {
    /// ROWS rows, whose number it gives.
    #[inline(always)]
    fn rows_from<S: Simd, const ROWS: usize>(&self, s: S, row: usize) -> usize {
        for column in (0..SIDE).step_by(VECTORS * S::LANES) {
            self.part::<S, ROWS>(s, row, column);
        }
        ROWS
    }

    #[inline(always)]
    fn part<S: Simd, const ROWS: usize>(&self, s: S, row: usize, column: usize) {
        // SAFETY: SIDE is a multiple of ROWS and of VECTORS * LANES, so the part lies inside the
        // block, the panel and `c`, by the promise of `Multiply::block`.
        unsafe {
            let c = self.c.add(row * self.stride + column);
            let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
            if ADD {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = s.load(c.add(i * self.stride + j * S::LANES));
                    }
                }
            }
            for step in 0..self.steps {
                let a = self.a.add((step * SIDE + row) * SIDE);
                let b = self.b.add(step * SIDE * SIDE + column);
                for t in (0..SIDE).step_by(4) {
                    let (a, b) = (a.add(t), b.add(t * SIDE));
                    add_products::<S, ROWS, 0>(s, a, b, &mut sums);
                    add_products::<S, ROWS, 1>(s, a, b, &mut sums);
                    add_products::<S, ROWS, 2>(s, a, b, &mut sums);
                    add_products::<S, ROWS, 3>(s, a, b, &mut sums);
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    s.store(c.add(i * self.stride + j * S::LANES), sum);
                }
            }
        }
    }
}

/// Adds the products with value `I` of the four that are next in each row.
///
/// # Safety
/// `a` must hold ROWS rows of four values, SIDE apart, `b` four rows of VECTORS vectors likewise.
#[inline(always)]
unsafe fn add_products<S: Simd, const ROWS: usize, const I: i32>(
    s: S,
    a: *const f32,
    b: *const f32,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = b.add(I as usize * SIDE);
        let b: [S::V; VECTORS] = std::array::from_fn(|j| s.load(b.add(j * S::LANES)));
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = s.splat_of_four::<I>(a.add(i * SIDE));
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = s.mul_add(a, b, *sum);
            }
        }
    }
}

/// What [`Multiply::peak`] does.
struct Ones {
    rounds: usize,
}

impl Kernel for Ones {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // As many sums as in a block.
        if S::LANES == 16 {
            self.sums::<S, 16>(s)
        } else {
            self.sums::<S, 8>(s)
        }
    }
}

impl Ones {
    #[inline(always)]
    fn sums<S: Simd, const SUMS: usize>(&self, s: S) -> usize {
        // The compiler must not know that all sums are the same.
        let mut sums = [(); SUMS].map(|()| s.splat(black_box(0.0)));
        let one = s.splat(black_box(1.0));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = match S::FUSED {
                    true => s.mul_add(one, one, *sum),
                    // Else the product would be made once for all rounds.
                    false => s.mul_add(*sum, one, one),
                };
            }
        }
        let mut total = 0;
        for sum in sums {
            total += s.sum(sum) as usize;
        }
        total
    }
}
