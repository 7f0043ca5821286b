//! Causal attention of a decoder's layer.

use crate::{KvBatch, KvCache, Linear, Result, RmsNorm, Rope, cat};
use candle_core::Tensor;

/// Multi-head attention of new positions to those in a cache and to each other, with rotary
/// positions.
#[derive(Clone, Debug)]
pub struct CausalAttention {
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) o_proj: Linear,
    pub(crate) head_dim: usize,
}

/// New positions of a sequence.
#[derive(Debug)]
pub struct Extended<'a> {
    /// How many.
    pub count: usize,
    /// Keys and values of those before them.
    pub cache: &'a mut KvCache,
}

impl CausalAttention {
    /// `x + attention(norm(x))`, `x` `[n, size]` for the new positions of sequences, one sequence's
    /// behind the other's, `n` in all. `layer` keeps their keys and values ([`KvCache::advance`]
    /// counts them once all layers have).
    ///
    /// # Errors
    /// When shapes do not fit, a cache is full, or a position is beyond the rotary tables.
    pub fn add_to(
        &self,
        x: Tensor,
        norm: &RmsNorm,
        rope: &Rope,
        layer: usize,
        sequences: &mut [Extended<'_>],
    ) -> Result<Tensor> {
        on_gpu!(x, gpu => {
            gpu.causal_add(self, &x, norm, rope, layer, sequences)?;
            Ok(x)
        });
        let [q, k, v] = self.project(&x, norm)?;
        let mut first = 0;
        let attend = |Extended { count, cache }: &mut Extended<'_>| -> Result<Tensor> {
            let own = |x: &Tensor| x.narrow(0, first, *count);
            let (position, q, k, v) = (cache.len(), own(&q)?, own(&k)?, own(&v)?);
            first += *count;
            let (q, k) = (rope.forward(&q, position)?, rope.forward(&k, position)?);
            cache.attend(layer, &q, &k, &v)
        };
        let mixed = sequences.iter_mut().map(attend);
        let mixed = mixed.collect::<Result<Vec<_>>>()?;
        let mixed = cat(&mixed.iter().collect::<Vec<_>>(), 0)?;
        Ok((x + self.o_proj.forward(&mixed)?)?)
    }

    /// The same for one new position of each of `n` sequences, `x` `[n, size]`
    /// ([`KvBatch::advance`] counts them).
    ///
    /// # Errors
    /// As [`Self::add_to`].
    pub fn add_to_each(
        &self,
        x: Tensor,
        norm: &RmsNorm,
        rope: &Rope,
        layer: usize,
        caches: &mut KvBatch,
    ) -> Result<Tensor> {
        on_gpu!(x, gpu => {
            gpu.causal_add_each(self, &x, norm, rope, layer, caches)?;
            Ok(x)
        });
        let [q, k, v] = self.project(&x, norm)?;
        let mixed = caches.attend(layer, [&q, &k, &v], rope)?;
        Ok((x + self.o_proj.forward(&mixed)?)?)
    }

    /// Queries, keys and values of `norm(x)`, `[n, heads, head_dim]` each.
    fn project(&self, x: &Tensor, norm: &RmsNorm) -> Result<[Tensor; 3]> {
        let all = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [q, k, v] = Linear::forward_all(all, &norm.forward(x)?)?;
        let heads = |y: Tensor| y.reshape((y.dim(0)?, (), self.head_dim));
        Ok([heads(q)?, heads(k)?, heads(v)?])
    }
}
