//! Products of few rows: each weight row is read once, in order, and meets all inputs.
//!
//! Memory binds here, so activations stay f32 and weights are widened on the way. One row at a
//! time beats several interleaved ones: the hardware prefetcher follows one stream better.

use super::{Affine, Matrix, Write};
use crate::{
    Isa,
    parallel::Shared,
    prefetch,
    simd::{Kernel, Simd, dispatch},
};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of weights that a task should have: memory takes a while to follow a new place.
const TASK_BYTES: usize = 512 << 10;
/// Tasks that every thread should find, if they are not too short: so fast cores do not wait for
/// slow ones.
const TASKS: usize = 8;
/// Tasks that every thread should find even if they are shorter, down to a quarter: with one each,
/// many threads would all wait for the slowest. (Reasoned, not measured: it takes five threads.)
const LEAST_TASKS: usize = 2;
/// How far ahead weights are fetched: over the end of a page, where the hardware stops.
const AHEAD: usize = 1024;

/// Calls `work` with ranges of `0..rows` in parallel, for each of the `(rows, bytes a row)`; the
/// first argument says which. How the work is split changes no result.
pub(crate) fn rows(parts: &[(usize, usize)], work: impl Fn(usize, Range<usize>) + Sync) {
    let all: usize = parts.iter().map(|(rows, bytes)| rows * bytes).sum();
    let task_bytes = task_bytes(all, rayon::current_num_threads());
    let tasks: Vec<(usize, Range<usize>)> = parts
        .iter()
        .enumerate()
        .flat_map(|(part, &(rows, bytes))| {
            let count = (rows * bytes).div_ceil(task_bytes).max(1).min(rows);
            (0..count).map(move |i| (part, i * rows / count..(i + 1) * rows / count))
        })
        .collect();
    tasks
        .par_iter()
        .with_max_len(1)
        .for_each(|(part, range)| work(*part, range.clone()));
}

/// Bytes of a task, of `all` bytes for `threads` threads.
fn task_bytes(all: usize, threads: usize) -> usize {
    let least = (all / (LEAST_TASKS * threads)).clamp(TASK_BYTES / 4, TASK_BYTES);
    (all / (TASKS * threads)).max(least)
}

/// `n` rows of inputs, a layer, and where its outputs go.
pub(super) struct Part<'a> {
    x: &'a [f32],
    layer: Affine<'a>,
    y: Shared<'a>,
}

impl<'a> Part<'a> {
    /// `x` is `[n, in]`, `y` is `[n, out]`.
    pub(super) fn new(x: &'a [f32], layer: Affine<'a>, y: &'a mut [f32]) -> Self {
        let y = Shared::new(y);
        Self { x, layer, y }
    }

    /// All of it on this thread.
    pub(super) fn on_thread(&self, isa: Isa, n: usize) {
        let rows = Rows {
            part: self,
            n,
            outs: 0..self.layer.weight.rows,
            add: false,
        };
        dispatch(isa, rows);
    }
}

/// All parts, of `n` rows each, in one parallel region.
pub(super) fn run(isa: Isa, parts: &[Part<'_>], n: usize, write: Write) {
    let size = |part: &Part<'_>| (part.layer.weight.rows, 2 * part.layer.weight.cols);
    let sizes: Vec<(usize, usize)> = parts.iter().map(size).collect();
    rows(&sizes, |part, outs| {
        let rows = Rows {
            part: &parts[part],
            n,
            outs,
            add: write == Write::Add,
        };
        dispatch(isa, rows);
    });
}

/// Some weight rows against all rows of inputs.
struct Rows<'a> {
    part: &'a Part<'a>,
    n: usize,
    outs: Range<usize>,
    add: bool,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part { x, layer, y } = self.part;
        let Affine { weight, bias } = layer;
        for out in self.outs {
            let bias = bias.map_or(0.0, |b| b[out].to_f32());
            for i in 0..self.n {
                let x = &x[i * weight.cols..(i + 1) * weight.cols];
                let sum = dot(s, x, weight.row(out)) + bias;
                // SAFETY: every task has outputs of its own.
                let y = unsafe { y.part(i * weight.rows + out, 1) };
                y[0] = if self.add { y[0] + sum } else { sum };
            }
        }
    }
}

/// The sum of `x` times row `row` of a weight.
#[inline(always)]
pub(super) fn row_dot<S: Simd>(s: S, x: &[f32], weight: &Matrix<'_>, row: usize) -> f32 {
    dot(s, x, weight.row(row))
}

/// Four running sums, so that additions do not wait for each other.
#[inline(always)]
fn dot<S: Simd>(s: S, x: &[f32], w: &[bf16]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let k = w.len();
    assert_eq!(x.len(), k, "one input a weight");
    let mut at = 0;
    while at + 4 * S::LANES <= k {
        prefetch::to_read(w.as_ptr().wrapping_add(at).wrapping_byte_add(AHEAD));
        if S::LANES == 16 {
            // The second cache line of the four vectors.
            prefetch::to_read(w.as_ptr().wrapping_add(at + 32).wrapping_byte_add(AHEAD));
        }
        for (i, sum) in sums.iter_mut().enumerate() {
            let p = at + i * S::LANES;
            // SAFETY: `p + LANES <= k`, the length of both rows.
            let (xv, wv) = unsafe { (s.load(x.as_ptr().add(p)), s.load_bf16(w.as_ptr().add(p))) };
            *sum = s.mul_add(xv, wv, *sum);
        }
        at += 4 * S::LANES;
    }
    while at < k {
        let end = (at + S::LANES).min(k);
        let (xv, wv) = (s.load_part(&x[at..end]), s.load_bf16_part(&w[at..end]));
        sums[0] = s.mul_add(xv, wv, sums[0]);
        at = end;
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread::sleep,
        time::{Duration, Instant},
    };

    #[test]
    fn every_row_is_done_once() {
        let parts = [(1000, 4096), (1, 1 << 30), (0, 7), (5, 0)];
        let done: Vec<Vec<AtomicUsize>> = parts
            .iter()
            .map(|(n, _)| (0..*n).map(|_| AtomicUsize::new(0)).collect())
            .collect();
        rows(&parts, |part, range| {
            for row in range {
                done[part][row].fetch_add(1, Ordering::Relaxed);
            }
        });
        for done in done.iter().flatten() {
            assert_eq!(done.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn tasks_are_long_unless_threads_are_many() {
        let attention = 3 * 1280 * 1280 * 2;
        for (all, threads, bytes) in [
            (attention, 2, attention / 16),
            (attention, 4, TASK_BYTES),
            (attention, 20, attention / 40),
            (attention, 128, TASK_BYTES / 4),
            (64 << 20, 20, TASK_BYTES),
            (1 << 30, 20, (1 << 30) / 160),
            (100, 2, TASK_BYTES / 4),
        ] {
            assert_eq!(
                task_bytes(all, threads),
                bytes,
                "{all} bytes, {threads} threads"
            );
        }
    }

    #[test]
    fn a_slow_thread_does_not_hold_up_a_fast_one() {
        // Sleep stands for work, so that the test needs no idle core: 16 tasks of 4 ms, 32 ms in
        // halves; on the slow thread, which is ten times slower, its half would take 320 ms.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        let tasks = AtomicUsize::new(0);
        let time = pool.install(|| {
            let start = Instant::now();
            rows(&[(16, TASK_BYTES)], |_, range| {
                tasks.fetch_add(range.len(), Ordering::Relaxed);
                let slow = rayon::current_thread_index() == Some(1);
                sleep(Duration::from_millis(if slow { 40 } else { 4 }));
            });
            start.elapsed()
        });
        assert_eq!(tasks.load(Ordering::Relaxed), 16);
        assert!(time < Duration::from_millis(160), "{time:?}");
    }
}
