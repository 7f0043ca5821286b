//! Writing disjoint parts of one slice from several threads, and keeping threads awake.

use crate::prefetch;
use std::{
    marker::PhantomData,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A mutable slice that tasks share, each writing parts of its own.
pub(crate) struct Shared<'a, T = f32> {
    ptr: *mut T,
    len: usize,
    _slice: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: access goes only through `part` and the pointers of `start_of`, whose users promise
// disjoint ranges.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            ptr: slice.as_mut_ptr(),
            len: slice.len(),
            _slice: PhantomData,
        }
    }

    /// The values at `start..start + len`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: inside the slice by the check; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start_of(start, len), len) }
    }

    /// Where the values at `start..start + len` begin. What is written there must not overlap with
    /// what others use at the same time.
    #[inline(always)]
    pub(crate) fn start_of(&self, start: usize, len: usize) -> *mut T {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        self.ptr.wrapping_add(start)
    }

    /// Asks for the cache lines of the values at `start..start + len`, which will be written.
    #[inline(always)]
    pub(crate) fn fetch(&self, start: usize, len: usize) {
        for at in (start..start + len).step_by(64 / size_of::<T>()) {
            prefetch::to_write(self.ptr.wrapping_add(at));
        }
    }
}

/// How long a thread looks for work before it may sleep: longer than a gap in the work, or than
/// the system takes a core away for.
const PATIENCE: Duration = Duration::from_millis(5);

/// Runs `work`, a series of short parallel regions, without letting the threads of the pool fall
/// asleep in the gaps between them: to wake one takes longer than many a region. Of more threads
/// than processors those that wait would only be in the others' way.
pub fn awake<R>(work: impl FnOnce() -> R) -> R {
    if rayon::current_num_threads() > processors() {
        return work();
    }
    let me = rayon::current_thread_index();
    let done = AtomicBool::new(false);
    /// Also when `work` panics.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    rayon::in_place_scope(|scope| {
        scope.spawn_broadcast(|_, context| {
            // Patience ends, always: this may run on top of a job of `work` itself, which waits
            // for another one and could not go on before we leave.
            let mut since = Instant::now();
            while Some(context.index()) != me && !done.load(Ordering::Acquire) {
                if rayon::yield_now() == Some(rayon::Yield::Executed) {
                    since = Instant::now();
                } else if since.elapsed() > PATIENCE {
                    break;
                }
                std::hint::spin_loop();
            }
        });
        let _done = Done(&done);
        work()
    })
}

/// Processors that this process may use, as far as the system says so.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn work_that_is_kept_awake_ends_inside_and_outside_of_pools() {
        let sum = || {
            let parts = (0..64_u32).into_par_iter().with_max_len(1);
            parts
                .map(|i| {
                    thread::sleep(Duration::from_micros(u64::from(i % 7)));
                    u64::from(i)
                })
                .sum::<u64>()
        };
        assert_eq!(awake(|| awake(sum)), 2016);
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new();
            let pool = pool.num_threads(threads).build().unwrap();
            // Several at once: a thread may come to wait, with work half done, before it comes to
            // keep itself awake.
            let kept = || (0..40).map(|_| awake(sum)).sum::<u64>();
            let plain = || (0..40).map(|_| sum()).sum::<u64>();
            let all: [u64; 4] = thread::scope(|scope| {
                let runs = [
                    scope.spawn(|| pool.install(kept)),
                    scope.spawn(|| pool.install(plain)),
                    scope.spawn(kept),
                    scope.spawn(plain),
                ];
                runs.map(|run| run.join().unwrap())
            });
            assert_eq!(all, [40 * 2016; 4]);
        }
    }
}
