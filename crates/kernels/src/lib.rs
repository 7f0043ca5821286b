//! bf16 arithmetic for CPUs on plain slices.
//!
//! The model's weights stay in bf16, where they lie in the mapped checkpoint; activations are
//! f32. This crate multiplies the two and does what else costs time: attention, norms,
//! activation functions, convolutions, rotary positions and expert routing. It knows no tensor
//! type and no model.
//!
//! | module | what |
//! |---|---|
//! | [`linear`](mod@linear) | `y = x Wᵀ + b` for one row (decoding) and for many (prefill, vision); feed-forward layers, experts |
//! | [`attention`] | one fused pass with online softmax: plain, windowed, causal, over a cache |
//! | [`conv`] | 2-D convolution on channels-last images |
//! | [`norm`], [`activation`], [`rope`], [`routing`] | the small operations between products |
//! | [`mapped`] | read-only file mappings |
//! | [`limits`] | what this machine reaches at most, to compare with |
//! | [`awake`] | keeps threads from falling asleep between short parallel regions |
//!
//! Linear layers, attention and convolutions are all made of the same thing: blocks of 32 rows
//! times panels of 32 columns, both packed into whole cache lines (the private module `product`).
//! An instruction set that multiplies bf16 in a way of its own adds a file there.
//!
//! # Instruction sets
//!
//! [`Isa::detect`] picks the best set once per process. `AGX_OCR_KERNELS` asks for another one, for
//! tests and comparisons: `portable`, `avx2`, `avx512`, `amx`, `neon` or `neon-bf16`; what the machine
//! lacks is ignored. Kernels are written once over a small vector trait and compiled for each set;
//! only blocks of bf16 products, and packing for them, have code of their own.
//!
//! # Determinism
//!
//! Each output is summed in one order, however many threads share the work: the same input gives
//! the same output, bit for bit, on one machine.
//!
//! # Example
//!
//! ```
//! use agx_ocr_kernels::{half::bf16, linear::{Activations, Write, Matrix, linear}};
//!
//! let w: Vec<bf16> = [1.0, 2.0, 3.0, 4.0].map(bf16::from_f32).to_vec(); // [out 2, in 2]
//! let mut y = [0.0; 2];
//! linear(&[1.0, 0.5], Matrix::new(&w, 2, 2).into(), &mut y, Write::Set, Activations::F32);
//! assert_eq!(y, [2.0, 5.0]);
//! ```
//!
//! # Panics
//!
//! Functions panic when slice lengths do not fit the sizes given: that is a programming error of
//! the caller, never a matter of input.

pub mod activation;
pub mod attention;
pub mod conv;
mod isa;
pub mod limits;
pub mod linear;
pub mod mapped;
#[cfg(test)]
mod noise;
pub mod norm;
mod parallel;
mod prefetch;
mod product;
pub mod rope;
pub mod routing;
mod simd;

pub use half;
pub use isa::Isa;
pub use parallel::awake;
