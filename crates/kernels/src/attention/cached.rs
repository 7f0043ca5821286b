//! Attention over a key-value cache: causal for a prompt, one query a head in decoding.

use super::{
    Activations, Heads,
    block::{Attend, Memory},
};
use crate::{
    Isa,
    parallel::Shared,
    product::{self, Lines, Multiply, SIDE, Work},
    simd::{Kernel, Simd, dispatch, math},
};
use rayon::prelude::*;

/// Keys and values of earlier positions, `[heads, capacity, dim]` each.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    /// The keys.
    pub keys: &'a [f32],
    /// The values.
    pub values: &'a [f32],
    /// Number of key-value heads; a divisor of the number of query heads.
    pub heads: usize,
    /// Positions that the cache has room for.
    pub capacity: usize,
}

/// Attention of `q` `[n, heads, dim]` at positions `first..first + n` to the cached positions up
/// to each query's own, into `out` of the same shape.
pub fn causal_attention(
    q: &[f32],
    cache: Cache<'_>,
    first: usize,
    heads: Heads,
    out: &mut [f32],
    activations: Activations,
) {
    causal_attention_with(Isa::detect(), q, cache, first, heads, out, activations);
}

pub(super) fn causal_attention_with(
    isa: Isa,
    q: &[f32],
    cache: Cache<'_>,
    first: usize,
    heads: Heads,
    out: &mut [f32],
    activations: Activations,
) {
    let (dim, width) = (heads.dim, heads.count * heads.dim);
    assert_eq!(q.len(), out.len(), "an output for every query");
    assert!(q.len().is_multiple_of(width), "rows of {width}");
    assert_eq!(cache.keys.len(), cache.heads * cache.capacity * dim, "keys");
    assert_eq!(cache.values.len(), cache.keys.len(), "values");
    assert!(
        heads.count.is_multiple_of(cache.heads),
        "query heads share key heads evenly"
    );
    let n = q.len() / width;
    assert!(first + n <= cache.capacity, "positions beyond the cache");
    if n == 1 {
        out.par_chunks_mut(dim).enumerate().for_each(|(head, out)| {
            let kv = head / (heads.count / cache.heads);
            let one = One {
                q: &q[head * dim..][..dim],
                k: of_head(&cache, cache.keys, kv),
                v: of_head(&cache, cache.values, kv),
                keys: first + 1,
                scale: heads.scale,
                out,
            };
            dispatch(isa, one);
        });
        return;
    }
    let work = Causal {
        q,
        cache,
        first,
        heads,
        out,
    };
    product::with(isa, activations, work);
}

struct Causal<'a> {
    q: &'a [f32],
    cache: Cache<'a>,
    first: usize,
    heads: Heads,
    out: &'a mut [f32],
}

impl Work for Causal<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let Self { q, cache, .. } = self;
        let Heads { count, dim, scale } = self.heads;
        let width = count * dim;
        let n = q.len() / width;
        let keys = self.first + n;
        let size = Memory::size(keys, dim);
        let mut memory = Lines::new(cache.heads * size);
        memory
            .par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(head, to)| {
                let row = |data, i| &of_head(&cache, data, head)[i * dim..(i + 1) * dim];
                let (k, v) = (|i| row(cache.keys, i), |i| row(cache.values, i));
                Memory::pack(m, (keys, dim), k, v, to);
            });
        let out = Shared::new(self.out);
        let blocks = n.div_ceil(SIDE);
        (0..count * blocks).into_par_iter().for_each(|task| {
            // The last blocks see most keys: they go first.
            let (head, block) = (task % count, blocks - 1 - task / count);
            let kv = head / (count / cache.heads);
            let attend = Attend {
                dim,
                scale,
                memory: &memory[kv * size..(kv + 1) * size],
                keys,
                first_position: Some(self.first),
                tables: None,
            };
            let place = |i: usize| i * width + head * dim;
            let query = |i: usize| &q[place(i)..place(i) + dim];
            let write = |i: usize, values: &[f32]| {
                // SAFETY: every task writes its head's part of its own queries' rows.
                unsafe { out.part(place(i), dim) }.copy_from_slice(values);
            };
            let first = block * SIDE;
            m.ready(|| attend.block(m, first, SIDE.min(n - first), query, write));
        });
    }
}

/// Rows of a key-value head.
fn of_head<'a>(cache: &Cache<'_>, data: &'a [f32], head: usize) -> &'a [f32] {
    let size = data.len() / cache.heads;
    &data[head * size..(head + 1) * size]
}

/// One query of one head: nothing to block, the keys are read once.
struct One<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    keys: usize,
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for One<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Loops, not adapters: a closure that the library calls is not compiled for the set.
        let dim = self.q.len();
        let mut weights = vec![f32::NEG_INFINITY; self.keys.next_multiple_of(S::LANES)];
        let mut most = f32::NEG_INFINITY;
        for (weight, k) in weights
            .iter_mut()
            .zip(self.k.chunks_exact(dim).take(self.keys))
        {
            *weight = dot(s, self.q, k) * self.scale;
            most = most.max(*weight);
        }
        let (base, mut total) = (s.splat(most), s.splat(0.0));
        for part in weights.chunks_exact_mut(S::LANES) {
            let weight = math::exp(s, s.sub(s.load_part(part), base));
            s.store_part(part, weight);
            total = s.add(total, weight);
        }
        let unit = 1.0 / s.sum(total);
        self.out.fill(0.0);
        for (weight, v) in weights.iter().zip(self.v.chunks_exact(dim)).take(self.keys) {
            let weight = s.splat(weight * unit);
            for (out, v) in self.out.chunks_mut(S::LANES).zip(v.chunks(S::LANES)) {
                let sum = s.mul_add(weight, s.load_part(v), s.load_part(out));
                s.store_part(out, sum);
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks(S::LANES).zip(b.chunks(S::LANES)) {
        sum = s.mul_add(s.load_part(a), s.load_part(b), sum);
    }
    s.sum(sum)
}
