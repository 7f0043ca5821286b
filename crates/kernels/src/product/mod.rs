//! Blocks of products: what linear layers and attention are made of.
//!
//! Both operands are packed into blocks of [`SIDE`] x [`SIDE`] values that lie in whole cache
//! lines, so that every kernel reads them in order:
//!
//! * the left operand in blocks of SIDE rows, `[step][group][row][value in group]`: a step is SIDE
//!   summed values;
//! * the right operand in panels of SIDE columns, `[step][group][column][value in group]`.
//!
//! A group is what the machine's instruction takes of a row, or of a column:
//!
//! | products | left | right |
//! |---|---|---|
//! | f32 | a step | 1 |
//! | bf16 on x86-64 | a step | 2 |
//! | bf16 on ARM | 4 | 4 |
//!
//! Columns and summed values beyond the operand's are packed as zeros; rows beyond it hold
//! anything, and what a kernel makes of them is not used. A kernel multiplies
//! one block of rows with one panel; every sum is made in the order of its values, whatever the
//! number of threads.

#[cfg(target_arch = "aarch64")]
mod arm_bf16;
#[cfg(target_arch = "aarch64")]
mod arm_pack;
mod f32;
mod lines;
mod pack;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_amx;
#[cfg(target_arch = "x86_64")]
mod x86_pack;
#[cfg(target_arch = "x86_64")]
mod x86_pairs;

use crate::Isa;
#[cfg(target_arch = "aarch64")]
pub(crate) use arm_bf16::Bfmmla;
pub(crate) use f32::F32;
pub(crate) use lines::Lines;
pub(crate) use pack::{Left, Value};
#[cfg(target_arch = "x86_64")]
pub(crate) use {x86_amx::Amx, x86_pairs::Pairs};

/// Rows of a block, columns of a panel, summed values of a step.
pub(crate) const SIDE: usize = 32;

/// What products do with f32 operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activations {
    /// Keeps them f32.
    F32,
    /// Rounds them to bf16 where the machine multiplies bf16; sums stay f32.
    #[default]
    Bf16,
}

/// How blocks are multiplied.
pub(crate) trait Multiply: Copy + Send + Sync {
    /// What operands are packed as.
    type Value: Value;

    /// The instruction set for what is done between products.
    fn isa(self) -> Isa;

    /// Runs `work` on a thread that is ready for [`Self::block`]. It must not wait for other tasks,
    /// which could leave the thread in another state.
    fn ready<R>(self, work: impl FnOnce() -> R) -> R {
        work()
    }

    /// `c = a b`, or `c += a b` where `ADD`, for the first `rows` rows of a block.
    ///
    /// Rows of `c` are `stride` apart. More than `rows` of them may be written, up to SIDE.
    ///
    /// # Safety
    /// `a` must hold a packed block and `b` a panel of `steps` steps each, both at the beginning
    /// of cache lines; `c` SIDE rows of SIDE values. Only inside [`Self::ready`].
    unsafe fn block<const ADD: bool>(
        self,
        a: *const Self::Value,
        b: *const Self::Value,
        steps: usize,
        rows: usize,
        c: *mut f32,
        stride: usize,
    );

    /// Multiplies ones, with registers alone: in each of `rounds` rounds one instruction for each
    /// of as many sums as it takes to keep the machine busy. The result is what the sums come to,
    /// the number of multiply-adds; they are exact up to 2^18 rounds.
    fn peak(self, rounds: usize) -> usize;
}

/// Work that is written once for all ways to multiply.
pub(crate) trait Work {
    type Output;
    fn run<M: Multiply>(self, multiply: M) -> Self::Output;
}

/// Runs `work` with the machine's way to multiply.
pub(crate) fn with<W: Work>(isa: Isa, activations: Activations, work: W) -> W::Output {
    assert!(
        Isa::available().contains(&isa),
        "{isa:?} is not available here"
    );
    match (activations, isa) {
        #[cfg(target_arch = "x86_64")]
        (Activations::Bf16, Isa::Amx) => work.run(Amx::new()),
        #[cfg(target_arch = "x86_64")]
        (Activations::Bf16, Isa::Avx512) => work.run(Pairs::new()),
        #[cfg(target_arch = "aarch64")]
        (Activations::Bf16, Isa::NeonBf16) => work.run(Bfmmla::new()),
        _ => work.run(F32(isa)),
    }
}

#[cfg(test)]
mod tests;
