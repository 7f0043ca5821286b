//! Working memory in whole cache lines.
//!
//! A tile or vector that crosses cache lines loads at a third of the speed, and fresh pages cost
//! more than the arithmetic on them: buffers are aligned, and each thread keeps a few for reuse.

use bytemuck::{Pod, Zeroable};
use std::{
    cell::RefCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: 64 bytes without padding, for which every pattern is valid.
unsafe impl Zeroable for Line {}
// SAFETY: as above.
unsafe impl Pod for Line {}

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps.
const KEPT: usize = 12;

/// A buffer of `E` that begins at a cache line. Its first contents are left over from earlier use.
pub(crate) struct Lines<E> {
    lines: Vec<Line>,
    len: usize,
    _values: PhantomData<E>,
}

impl<E: Pod> Lines<E> {
    pub(crate) fn new(len: usize) -> Self {
        let wanted = (len * size_of::<E>()).div_ceil(size_of::<Line>());
        let free = FREE.with_borrow_mut(|free| {
            let fitting = |(_, lines): &(usize, &Vec<Line>)| lines.len() >= wanted;
            let smallest = free.iter().enumerate().filter(fitting);
            let at = smallest.min_by_key(|(_, lines)| lines.len())?.0;
            Some(free.swap_remove(at))
        });
        Self {
            lines: free.unwrap_or_else(|| bytemuck::zeroed_vec(wanted)),
            len,
            _values: PhantomData,
        }
    }
}

impl<E> Drop for Lines<E> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // A thread that ends has no list any more: then the buffer is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() == KEPT {
                let smallest = (0..KEPT).min_by_key(|&i| free[i].len()).unwrap_or(0);
                free.swap_remove(smallest);
            }
            free.push(lines);
        });
    }
}

impl<E: Pod> Deref for Lines<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<E: Pod> DerefMut for Lines<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_reused() {
        let mut a = Lines::<f32>::new(100);
        a.fill(1.0);
        let at = a.as_ptr();
        assert_eq!(at.align_offset(64), 0);
        assert_eq!(a.len(), 100);
        drop(a);
        let b = Lines::<half::bf16>::new(90);
        assert_eq!(b.as_ptr().cast(), at, "the freed buffer fits");
        assert_ne!(
            Lines::<f32>::new(10).as_ptr(),
            at,
            "a buffer in use is not given twice"
        );
    }
}
