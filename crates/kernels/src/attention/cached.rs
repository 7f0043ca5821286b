//! Attention over a key-value cache: causal for a prompt, one query a head in decoding.

use super::{
    Heads, QUERIES,
    block::{Attend, Rows, dot},
};
use crate::{
    Isa,
    parallel::Shared,
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
pub fn causal_attention(q: &[f32], cache: Cache<'_>, first: usize, heads: Heads, out: &mut [f32]) {
    causal_attention_with(Isa::detect(), q, cache, first, heads, out);
}

pub(super) fn causal_attention_with(
    isa: Isa,
    q: &[f32],
    cache: Cache<'_>,
    first: usize,
    heads: Heads,
    out: &mut [f32],
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
    let of_head = |data, head: usize| {
        let kv = head / (heads.count / cache.heads);
        let values: &[f32] = data;
        Rows::packed(
            &values[kv * cache.capacity * dim..][..cache.capacity * dim],
            dim,
        )
    };
    if n == 1 {
        out.par_chunks_mut(dim).enumerate().for_each(|(head, out)| {
            let one = One {
                q: &q[head * dim..][..dim],
                k: of_head(cache.keys, head),
                v: of_head(cache.values, head),
                keys: first + 1,
                scale: heads.scale,
                out,
            };
            dispatch(isa, one);
        });
        return;
    }
    let chunks = n.div_ceil(QUERIES);
    let out = Shared::new(out);
    (0..heads.count * chunks).into_par_iter().for_each(|task| {
        let (head, chunk) = (task / chunks, task % chunks);
        let queries = chunk * QUERIES..((chunk + 1) * QUERIES).min(n);
        let mut block = vec![0.0; queries.len() * dim];
        let attend = Attend {
            q: Rows {
                data: &q[head * dim..],
                stride: width,
                dim,
            },
            k: of_head(cache.keys, head),
            v: of_head(cache.values, head),
            queries: queries.clone(),
            keys: first + queries.end,
            first_position: Some(first),
            scale: heads.scale,
            relative: None,
            out: &mut block,
        };
        dispatch(isa, attend);
        for (i, row) in queries.zip(block.chunks_exact(dim)) {
            // SAFETY: every task writes its head's part of its own queries' rows.
            let to = unsafe { out.part(i * width + head * dim, dim) };
            to.copy_from_slice(row);
        }
    });
}

/// One query of one head: nothing to block, the keys are read once.
struct One<'a> {
    q: &'a [f32],
    k: Rows<'a>,
    v: Rows<'a>,
    keys: usize,
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for One<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut weights: Vec<f32> = (0..self.keys)
            .map(|i| dot(s, self.q, self.k.row(i)) * self.scale)
            .collect();
        let most = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let base = s.splat(most);
        for part in weights.chunks_mut(S::LANES) {
            let weight = math::exp(s, s.sub(s.load_part(part), base));
            s.store_part(part, weight);
        }
        let unit = 1.0 / weights.iter().sum::<f32>();
        self.out.fill(0.0);
        for (i, weight) in weights.iter().enumerate() {
            let weight = s.splat(weight * unit);
            for (out, v) in self
                .out
                .chunks_mut(S::LANES)
                .zip(self.v.row(i).chunks(S::LANES))
            {
                let sum = s.mul_add(weight, s.load_part(v), s.load_part(out));
                s.store_part(out, sum);
            }
        }
    }
}
