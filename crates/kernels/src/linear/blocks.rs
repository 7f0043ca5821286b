//! Products of many rows: operations bind, so both operands are packed and multiplied in blocks.
//!
//! The left operand is packed once; a task packs a few panels of weights, which then stay in its
//! core's cache, and takes a range of rows through them. What becomes of a block of sums is the
//! [`Sink`]'s business: it is done while they are in the level-1 cache.

use super::Matrix;
use crate::{
    Isa,
    product::{Left, Lines, Multiply, SIDE, Value},
};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of panels that a task holds.
const PANEL_BYTES: usize = 768 << 10;
/// Blocks of rows that a task takes through its panels, at least if there are as many: packing a
/// panel costs about as much as multiplying two blocks with it.
const TASK_BLOCKS: usize = 32;
/// Tasks that every thread should find, so that none waits long for the last one.
const TASKS: usize = 4;

/// A right operand.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// Column `i` is row `i` of a weight.
    Rows(Matrix<'a>),
    /// In each panel 16 rows of the first weight, then the same rows of the second.
    Halves(Matrix<'a>, Matrix<'a>),
}

impl<'a> Right<'a> {
    fn panels(&self) -> usize {
        match self {
            Self::Rows(w) => w.rows.div_ceil(SIDE),
            Self::Halves(w, _) => w.rows.div_ceil(SIDE / 2),
        }
    }

    /// The columns of a panel.
    fn columns(&self, panel: usize) -> [&'a [bf16]; SIDE] {
        let mut columns: [&[bf16]; SIDE] = [&[]; SIDE];
        let mut put = |at: usize, w: &Matrix<'a>, rows: Range<usize>| {
            for (column, row) in columns[at..]
                .iter_mut()
                .zip(rows.start..rows.end.min(w.rows))
            {
                *column = w.row(row);
            }
        };
        match self {
            Self::Rows(w) => put(0, w, panel * SIDE..(panel + 1) * SIDE),
            Self::Halves(first, second) => {
                let rows = panel * SIDE / 2..(panel + 1) * SIDE / 2;
                put(0, first, rows.clone());
                put(SIDE / 2, second, rows);
            }
        }
        columns
    }
}

/// Takes blocks of sums.
pub(super) trait Sink: Sync {
    /// Told where sums will lie before they are made.
    fn prepare(&self, rows: Range<usize>, panel: usize);

    fn put(&self, isa: Isa, sums: &Sums<'_>);
}

/// A block of sums.
pub(super) struct Sums<'a> {
    /// SIDE rows of the panel's SIDE columns.
    values: &'a [f32],
    /// The rows of the left operand that the first of them are.
    rows: Range<usize>,
    pub panel: usize,
}

impl<'a> Sums<'a> {
    #[inline(always)]
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, &'a [f32])> {
        self.rows.clone().zip(self.values.chunks_exact(SIDE))
    }
}

/// A product and where its sums go.
pub(super) struct Job<'a, E> {
    pub left: &'a Left<E>,
    /// The left operand's rows that take part; the first of them begins a block.
    pub rows: Range<usize>,
    pub right: Right<'a>,
    pub sink: &'a dyn Sink,
}

impl<'a, E: Value> Job<'a, E> {
    /// A product of all rows.
    pub(super) fn new(left: &'a Left<E>, right: Right<'a>, sink: &'a dyn Sink) -> Self {
        Self {
            left,
            rows: 0..left.rows(),
            right,
            sink,
        }
    }
}

/// A part of a job.
struct Task<'a, E> {
    job: &'a Job<'a, E>,
    panels: Range<usize>,
    blocks: Range<usize>,
}

/// Runs all jobs in one parallel region.
pub(super) fn run<M: Multiply>(m: M, jobs: &[Job<'_, M::Value>]) {
    let tasks = tasks(jobs);
    tasks
        .par_iter()
        .with_max_len(1)
        .for_each(|task| m.ready(|| multiply(m, task)));
}

fn multiply<M: Multiply>(m: M, task: &Task<'_, M::Value>) {
    let Job {
        left, right, sink, ..
    } = task.job;
    let steps = left.steps();
    let size = steps * SIDE * SIDE;
    let mut panels = Lines::new(task.panels.len() * size);
    let mut columns = right.columns(task.panels.start);
    for (panel, to) in task.panels.clone().zip(panels.chunks_exact_mut(size)) {
        let next = right.columns(panel + 1);
        M::Value::panel(m.isa(), &columns, &next, to);
        columns = next;
    }
    let mut sums = Lines::<f32>::new(SIDE * SIDE);
    for block in task.blocks.clone() {
        let rows = (task.job.rows.end - block * SIDE).min(SIDE);
        for (panel, packed) in task.panels.clone().zip(panels.chunks_exact(size)) {
            let first = block * SIDE;
            sink.prepare(first..first + rows, panel);
            let (a, b) = (left.block(block).as_ptr(), packed.as_ptr());
            // SAFETY: both are packed with `steps` steps, in whole lines; `sums` holds SIDE rows;
            // `run` has readied the thread.
            unsafe { m.block::<false>(a, b, steps, rows, sums.as_mut_ptr(), SIDE) };
            let sums = Sums {
                values: &sums,
                rows: first..first + rows,
                panel,
            };
            sink.put(m.isa(), &sums);
        }
    }
}

/// The jobs in parts: few panels by many rows, finer where there would be too few of them. How
/// the work is split changes no result.
fn tasks<'a, E: Value>(jobs: &'a [Job<'a, E>]) -> Vec<Task<'a, E>> {
    let wanted = TASKS * rayon::current_num_threads();
    let split = |panels_most: usize, blocks_most: usize| {
        let mut tasks = Vec::new();
        for job in jobs {
            let panel_bytes = job.left.steps() * SIDE * SIDE * size_of::<E>();
            let panels_most = panels_most.min(PANEL_BYTES / panel_bytes.max(1)).max(1);
            for panels in ranges(job.right.panels(), panels_most) {
                // Neighbouring tasks share weights, which are read from memory once.
                let first = job.rows.start / SIDE;
                for blocks in ranges(job.rows.len().div_ceil(SIDE), blocks_most) {
                    tasks.push(Task {
                        job,
                        panels: panels.clone(),
                        blocks: first + blocks.start..first + blocks.end,
                    });
                }
            }
        }
        tasks
    };
    let mut tasks = Vec::new();
    for panels in [16, 8, 4, 2, 1] {
        tasks = split(panels, TASK_BLOCKS);
        if tasks.len() >= wanted {
            break;
        }
    }
    tasks
}

/// `0..n` in ranges of about the same length, at most `most`.
fn ranges(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::{Activations, Work, with};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread::sleep,
        time::{Duration, Instant},
    };

    /// Counts blocks, and takes its time for them: sleep stands for work.
    #[derive(Default)]
    struct Sleep {
        blocks: AtomicUsize,
    }

    impl Sink for Sleep {
        fn prepare(&self, _: Range<usize>, _: usize) {}

        fn put(&self, _: Isa, _: &Sums<'_>) {
            self.blocks.fetch_add(1, Ordering::Relaxed);
            let slow = rayon::current_thread_index() == Some(1);
            sleep(Duration::from_micros(if slow { 10_000 } else { 1000 }));
        }
    }

    struct Product;

    impl Work for Product {
        type Output = (usize, Duration);

        fn run<M: Multiply>(self, m: M) -> Self::Output {
            let (rows, outs) = (SIDE, 64 * SIDE);
            let (x, w) = (vec![1.0; rows * SIDE], vec![bf16::ONE; outs * SIDE]);
            let left = Left::of(m.isa(), &x, SIDE);
            let sink = Sleep::default();
            let job = Job::new(&left, Right::Rows(Matrix::new(&w, outs, SIDE)), &sink);
            let start = Instant::now();
            run(m, &[job]);
            (sink.blocks.into_inner(), start.elapsed())
        }
    }

    #[test]
    fn a_slow_thread_does_not_hold_up_a_fast_one() {
        // 64 blocks of 1 ms; the half of a thread that is ten times slower would take 320 ms.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
        let run = || with(Isa::detect(), Activations::Bf16, Product);
        let (blocks, time) = pool.build().unwrap().install(run);
        assert_eq!(blocks, 64);
        assert!(time < Duration::from_millis(200), "{time:?}");
    }
}
