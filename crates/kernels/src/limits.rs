//! What this machine reaches at most: products with all operands in registers, and plain reading.
//!
//! Work that is bound by arithmetic cannot be faster than its multiply-adds at the first rate, and
//! work that is bound by memory not faster than its bytes at the second (the roofline model:
//! Williams et al., 2009).
//!
//! ```
//! use agx_ocr_kernels::limits::Limits;
//!
//! let weights = vec![1; 1 << 20];
//! let limits = Limits::measure(&[&weights]);
//! // Two operations a multiply-add.
//! println!("{:.0} GFLOP/s, {:.0} GB/s", 2e-9 * limits.products(), 1e-9 * limits.read);
//! # assert!(limits.products() > 0.0 && limits.read > 0.0);
//! ```

use crate::{
    Isa,
    linear::stream_rows,
    product::{self, Activations, Multiply, Work},
    simd::{Kernel, Simd, dispatch},
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// How often the rate of an instruction is measured, and for how long each time.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(20);
/// Rounds of [`Multiply::peak`] between two looks at the clock.
const REPEATS: usize = 1 << 14;

/// Bytes are read again and again until this time is over.
const READING: Duration = Duration::from_millis(80);
/// Bytes of a row of what is read: rows are shared out among threads as in decoding.
const ROW: usize = 4 << 10;

/// What the threads of a pool reach together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Multiply-adds a second of f32 vectors, with the instruction set in use.
    pub f32: f64,
    /// Multiply-adds a second of bf16 vectors (`vdpbf16ps`, `bfmmla`), where the set in use has
    /// them.
    pub bf16: Option<f64>,
    /// Multiply-adds a second of bf16 tiles (`tdpbf16ps`), where the set in use has them.
    pub tiles: Option<f64>,
    /// Bytes a second of [`read_rate`].
    pub read: f64,
}

impl Limits {
    /// Measures on all threads of the caller's rayon pool at once, in about 0.3 seconds. What else
    /// the pool or the machine does meanwhile makes the limits lower. `weights` are what
    /// [`read_rate`] reads.
    pub fn measure(weights: &[&[u8]]) -> Self {
        Self::measure_with(Isa::detect(), weights)
    }

    fn measure_with(isa: Isa, weights: &[&[u8]]) -> Self {
        let products = |isa, activations| product::with(isa, activations, Peak);
        let vectors = match isa {
            Isa::Amx => Isa::Avx512,
            other => other,
        };
        Self {
            f32: products(isa, Activations::F32),
            bf16: isa
                .multiplies_bf16()
                .then(|| products(vectors, Activations::Bf16)),
            tiles: (isa == Isa::Amx).then(|| products(Isa::Amx, Activations::Bf16)),
            read: read_rate_with(isa, weights),
        }
    }

    /// Multiply-adds a second of the fastest instruction.
    pub fn products(&self) -> f64 {
        let others = [self.bf16, self.tiles];
        others.into_iter().flatten().fold(self.f32, f64::max)
    }
}

/// Multiply-adds a second of all threads together.
struct Peak;

impl Work for Peak {
    type Output = f64;

    fn run<M: Multiply>(self, m: M) -> f64 {
        let of_thread = || {
            let (started, mut done) = (Instant::now(), 0);
            loop {
                done += m.peak(REPEATS);
                let elapsed = started.elapsed();
                if elapsed >= ROUND {
                    return done as f64 / elapsed.as_secs_f64();
                }
            }
        };
        // Threads start within microseconds of each other: for nearly all of a round all run.
        let round = || rayon::broadcast(|_| of_thread()).into_iter().sum();
        median(std::iter::repeat_with(round).take(ROUNDS).collect())
    }
}

/// Bytes a second at which all threads of the caller's rayon pool together read `parts`, which
/// should be what the work to compare with reads, and larger than the caches where that is. Pages
/// that are not in memory yet are fetched first, which is not counted. 0 where there is nothing.
pub fn read_rate(parts: &[&[u8]]) -> f64 {
    read_rate_with(Isa::detect(), parts)
}

fn read_rate_with(isa: Isa, parts: &[&[u8]]) -> f64 {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if bytes == 0 {
        return 0.0;
    }
    let sizes: Vec<(usize, usize)> = parts.iter().map(|p| (p.len().div_ceil(ROW), ROW)).collect();
    let pass = || {
        let started = Instant::now();
        stream_rows(&sizes, |part, rows| {
            let all = parts[part];
            let task = &all[rows.start * ROW..(rows.end * ROW).min(all.len())];
            black_box(dispatch(isa, Largest(task)));
        });
        bytes as f64 / started.elapsed().as_secs_f64()
    };
    pass();
    let (started, mut rates) = (Instant::now(), Vec::new());
    while rates.is_empty() || started.elapsed() < READING {
        rates.push(pass());
    }
    median(rates)
}

/// The largest of the f32 values that lie in the bytes, or 0: a way to read all of them whose
/// speed does not depend on what they are (adding denormal numbers would take longer).
struct Largest<'a>(&'a [u8]);

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (_, values, _) = bytemuck::pod_align_to::<u8, f32>(self.0);
        let mut most = [s.splat(0.0); 4];
        let mut blocks = values.chunks_exact(4 * S::LANES);
        for block in &mut blocks {
            for (i, most) in most.iter_mut().enumerate() {
                // SAFETY: the block holds 4 * LANES values.
                *most = s.max(*most, unsafe { s.load(block.as_ptr().add(i * S::LANES)) });
            }
        }
        for part in blocks.remainder().chunks(S::LANES) {
            most[0] = s.max(most[0], s.load_part(part));
        }
        let [a, b, c, d] = most;
        s.largest(s.max(s.max(a, b), s.max(c, d)))
    }
}

/// The middle one of some values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_and_finite() {
        let weights = vec![0x3f; 3 << 20];
        for &isa in Isa::available() {
            let limits = Limits::measure_with(isa, &[&weights[..1 << 20], &weights[1 << 20..]]);
            let rates = [Some(limits.f32), limits.bf16, limits.tiles];
            for rate in rates.into_iter().flatten().chain([limits.read]) {
                assert!(rate.is_finite() && rate > 1e6, "{isa:?}: {limits:?}");
                assert!(rate <= limits.products() || rate == limits.read);
            }
            assert_eq!(limits.bf16.is_some(), isa.multiplies_bf16());
            assert_eq!(limits.tiles.is_some(), isa == Isa::Amx);
        }
        assert_eq!(read_rate(&[]), 0.0);
    }

    /// Multiply-adds of some rounds.
    struct Count(usize);

    impl Work for Count {
        type Output = usize;

        fn run<M: Multiply>(self, m: M) -> usize {
            m.peak(self.0)
        }
    }

    #[test]
    fn peak_counts_what_it_does() {
        for &isa in Isa::available() {
            for activations in [Activations::F32, Activations::Bf16] {
                let round = match (activations, isa) {
                    // Sums of 32, 2, 4 and 1 products.
                    (Activations::Bf16, Isa::Amx) => 4 * 16 * 16 * 32,
                    (Activations::Bf16, Isa::Avx512) => 16 * 16 * 2,
                    (Activations::Bf16, Isa::NeonBf16) => 16 * 4 * 4,
                    (_, Isa::Avx512 | Isa::Amx) => 16 * 16,
                    _ => 8 * 8,
                };
                for rounds in [0, 1, 7, REPEATS, 1 << 18] {
                    let counted = product::with(isa, activations, Count(rounds));
                    assert_eq!(counted, rounds * round, "{isa:?} {activations:?}");
                }
            }
        }
    }

    #[test]
    fn reading_sees_every_value() {
        for &isa in Isa::available() {
            for len in [1, 15, 64, 200] {
                for at in 0..len {
                    let mut values = vec![f32::MIN_POSITIVE / 2.0; len];
                    values[at] = 2.0;
                    let found = dispatch(isa, Largest(bytemuck::cast_slice(&values)));
                    assert_eq!(found, 2.0, "{isa:?}: {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![5.0]), 5.0);
    }
}
