//! Causal attention over cached keys and values, and rotary positions.

use crate::{Activations, Result, cpu};
use agx_ocr_kernels::{
    attention::{Cache, Heads, causal_attention},
    rope,
};
use candle_core::{Device, Error, Tensor};
#[cfg(feature = "cuda")]
use {crate::cuda, std::sync::OnceLock};

/// Keys and values of all layers, allocated once for `capacity` positions, when the first of them
/// come, and filled in place.
///
/// Memory is `2 * layers * heads * capacity * head_dim` f32 values; pages that no position has
/// reached yet are not resident.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `[heads, capacity, head_dim]`; empty before the first.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    heads: usize,
    head_dim: usize,
    capacity: usize,
    len: usize,
    activations: Activations,
    /// The same on a GPU, in the place of `layers`.
    #[cfg(feature = "cuda")]
    pub(crate) on_gpu: Option<cuda::Cache>,
}

impl KvCache {
    /// An empty cache on a device; `activations` says how a prompt's attention treats its factors.
    pub fn new(
        layers: usize,
        heads: usize,
        head_dim: usize,
        capacity: usize,
        activations: Activations,
        device: &Device,
    ) -> Self {
        #[cfg(not(feature = "cuda"))]
        let _ = device;
        Self {
            layers: vec![(Vec::new(), Vec::new()); layers],
            #[cfg(feature = "cuda")]
            on_gpu: device.is_cuda().then(|| cuda::Cache::new(layers)),
            heads,
            head_dim,
            capacity,
            len: 0,
            activations,
        }
    }

    /// Positions that are filled in every layer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Stores `k` and `v` `[n, heads, head_dim]` behind the filled positions of `layer`, and
    /// attends with `q` `[n, query_heads, head_dim]` to all positions up to each query's own.
    /// The result is `[n, query_heads * head_dim]`. [`Self::advance`] counts the new positions
    /// once all layers have them.
    ///
    /// # Errors
    /// When shapes do not fit or the cache is full; [`CacheMemory`](crate::Error::CacheMemory) when
    /// memory cannot be had.
    pub fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (n, heads, dim) = q.dims3()?;
        let wanted = [n, self.heads, self.head_dim];
        if k.dims() != wanted
            || v.dims() != wanted
            || dim != self.head_dim
            || heads % self.heads != 0
        {
            let found = (q.dims(), k.dims(), v.dims());
            return Err(Error::Msg(format!("q, k, v of {found:?} for {wanted:?}")).into());
        }
        if self.len + n > self.capacity {
            let message = format!("a cache of {} positions is full", self.capacity);
            return Err(Error::Msg(message).into());
        }
        let (heads_kv, capacity, first) = (self.heads, self.capacity, self.len);
        let (keys, values) = &mut self.layers[layer];
        if keys.is_empty() {
            let memory = || {
                // Too large a product cannot be had either.
                let size = heads_kv.checked_mul(capacity)?.checked_mul(dim)?;
                bytemuck::try_zeroed_vec(size).ok()
            };
            let (Some(new_keys), Some(new_values)) = (memory(), memory()) else {
                let positions = capacity;
                return Err(crate::Error::CacheMemory { positions });
            };
            (*keys, *values) = (new_keys, new_values);
        }
        for (from, to) in [(k, &mut *keys), (v, &mut *values)] {
            cpu::with(from, |from: &[f32]| {
                for (i, row) in from.chunks_exact(dim).enumerate() {
                    let (position, head) = (first + i / heads_kv, i % heads_kv);
                    let at = (head * capacity + position) * dim;
                    to[at..at + dim].copy_from_slice(row);
                }
            })?;
        }
        let cache = Cache {
            keys,
            values,
            heads: heads_kv,
            capacity,
        };
        let mut out = vec![0.0; q.elem_count()];
        cpu::with(q, |q| {
            let heads = Heads::new(heads, dim);
            causal_attention(q, cache, first, heads, &mut out, self.activations);
        })?;
        cpu::tensor(out, (n, heads * dim))
    }

    /// Counts `n` positions that every layer has stored.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
    }
}

/// Rotary position embedding, rotate-half form, for positions below a limit.
#[derive(Clone, Debug)]
pub struct Rope {
    tables: rope::Rope,
    /// Cosines and sines on a GPU, f32 `[positions, head_dim / 2]` each.
    #[cfg(feature = "cuda")]
    uploaded: OnceLock<(Tensor, Tensor)>,
}

impl Rope {
    /// Tables for `positions` positions, heads of `head_dim` values and frequencies
    /// `base^(-2i / head_dim)`.
    pub fn new(positions: usize, head_dim: usize, base: f64) -> Self {
        Self {
            tables: rope::Rope::new(positions, head_dim, base as f32),
            #[cfg(feature = "cuda")]
            uploaded: OnceLock::new(),
        }
    }

    /// `x` `[n, heads, head_dim]` rotated; row `i` is at position `first + i`.
    ///
    /// # Errors
    /// When a position is beyond the tables.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (n, heads, _) = x.dims3()?;
        self.check(first + n)?;
        let mut y = cpu::with(x, <[f32]>::to_vec)?;
        self.tables.rotate(&mut y, heads, first);
        cpu::tensor(y, x.shape())
    }

    /// An error unless the tables reach so far.
    fn check(&self, positions: usize) -> Result<()> {
        let most = self.tables.positions();
        if positions > most {
            let message = format!("position {positions} is beyond {most}");
            return Err(Error::Msg(message).into());
        }
        Ok(())
    }

    /// Cosines and sines on a GPU, for so many positions at least.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_gpu(&self, device: &Device, positions: usize) -> Result<&(Tensor, Tensor)> {
        self.check(positions)?;
        if self.uploaded.get().is_none() {
            let [cosines, sines] = self.tables.halves();
            let shape = (self.tables.positions(), ());
            let upload = |table| Tensor::from_vec(table, shape, device);
            let _ = self.uploaded.set((upload(cosines)?, upload(sines)?));
        }
        let missing = || Error::Msg("no rotary tables".into()).into();
        self.uploaded.get().ok_or_else(missing)
    }
}
