//! Causal attention of a decoder's layer.

use crate::{KvBatch, KvCache, Linear, Result, RmsNorm, Rope};
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

impl CausalAttention {
    /// `x + attention(norm(x))`, `x` `[n, size]` for `n` positions behind those in the cache, where
    /// `layer` keeps their keys and values ([`KvCache::advance`] counts them once all layers
    /// have).
    ///
    /// # Errors
    /// When shapes do not fit, the cache is full, or a position is beyond the rotary tables.
    pub fn add_to(
        &self,
        x: Tensor,
        norm: &RmsNorm,
        rope: &Rope,
        layer: usize,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        on_gpu!(x, gpu => {
            gpu.causal_add(self, &x, norm, rope, layer, cache)?;
            Ok(x)
        });
        let [q, k, v] = self.project(&x, norm)?;
        let position = cache.len();
        let (q, k) = (rope.forward(&q, position)?, rope.forward(&k, position)?);
        let mixed = cache.attend(layer, &q, &k, &v)?;
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
