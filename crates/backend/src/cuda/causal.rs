//! A prompt's attention to itself and to what is in a cache, and the cache.

use super::{
    Gpu,
    attention::{QUERIES, QUERIES_ANY},
    decode::Place,
    launch::{Arg, grid, several},
};
use crate::{CausalAttention, Extended, KvCache, Result, RmsNorm, Rope};
use candle_core::{DType, Error, Tensor};

/// 32-bit words of the state on the device: positions in the cache, tokens in the history, those
/// of the prompt among them, tokens picked, the last token.
pub(super) const STATE: usize = 5;

/// Keys and values of a decoder on the device.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Of each layer, `[heads, capacity, head_dim]`; none before the first positions.
    layers: Vec<Option<(Tensor, Tensor)>>,
    /// Where decoding is, for the kernels: the number of filled positions first.
    state: Option<Tensor>,
    /// The number of filled positions as it is there.
    filled: Option<usize>,
}

impl Cache {
    pub(crate) fn new(layers: usize) -> Self {
        Self {
            layers: vec![None; layers],
            state: None,
            filled: None,
        }
    }

    /// Keys and values of a layer.
    fn layer(&mut self, gpu: &Gpu, index: usize, shape: [usize; 3]) -> Result<(Tensor, Tensor)> {
        let slot = self.layers.get_mut(index);
        let slot = slot.ok_or_else(|| Error::Msg(format!("no layer {index} in the cache")))?;
        if slot.is_none() {
            let memory = || gpu.empty(&shape[..], gpu.dtype());
            *slot = Some((memory()?, memory()?));
        }
        let missing = || Error::Msg("no cache".into()).into();
        slot.clone().ok_or_else(missing)
    }

    /// Keys and values of all layers.
    pub(super) fn filled_layers(&self) -> Result<Vec<(Tensor, Tensor)>> {
        let layers = self.layers.iter().cloned().collect::<Option<_>>();
        layers.ok_or_else(|| Error::Msg("a cache without a prompt".into()).into())
    }

    /// Where decoding is, on the device.
    fn state(&mut self, gpu: &Gpu) -> Result<&Tensor> {
        if self.state.is_none() {
            self.state = Some(gpu.zeros(STATE, DType::U32)?);
            self.filled = Some(0);
        }
        let missing = || Error::Msg("no state".into()).into();
        self.state.as_ref().ok_or_else(missing)
    }

    /// The same, with so many filled positions.
    fn state_at(&mut self, gpu: &Gpu, filled: usize) -> Result<Tensor> {
        let state = self.state(gpu)?.clone();
        if self.filled != Some(filled) {
            let number = u32::try_from(filled).unwrap_or(u32::MAX);
            gpu.write(&state, &[number])?;
            self.filled = Some(filled);
        }
        Ok(state)
    }
}

impl KvCache {
    /// Where decoding is, on the device.
    pub(super) fn state(&mut self, gpu: &Gpu) -> Result<&Tensor> {
        let missing = || Error::Msg("a cache on the CPU for a decoder on a GPU".into());
        self.on_gpu.as_mut().ok_or_else(missing)?.state(gpu)
    }

    /// Notes that the device itself counts so many filled positions.
    pub(super) fn reached(&mut self, filled: usize) {
        if let Some(cache) = &mut self.on_gpu {
            cache.filled = Some(filled);
        }
    }
}

impl Gpu {
    /// Queries, keys and values of `norm(x)`.
    pub(super) fn project(
        &self,
        layer: &CausalAttention,
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let normed = self.rms_normed(norm, x, self.dtype())?;
        let product = |layer| self.product_of(layer, &normed, self.dtype());
        let (q, k) = (product(&layer.q_proj)?, product(&layer.k_proj)?);
        Ok([q, k, product(&layer.v_proj)?])
    }

    /// `x += attention(norm(x))` in place, over the caches of sequences, which keep the keys and values.
    pub(crate) fn causal_add(
        &self,
        layer: &CausalAttention,
        x: &Tensor,
        norm: &RmsNorm,
        rope: &Rope,
        index: usize,
        sequences: &mut [Extended<'_>],
    ) -> Result<()> {
        let dim = layer.head_dim;
        if let [Extended { count: 1, cache }] = sequences
            && self.fits_one(&[layer.q_proj.input(), dim], Some(dim))
        {
            let place = self.place(layer, rope, index, 1, cache)?;
            return self.attend_one(layer, x, norm, &place);
        }
        let [q, k, v] = self.project(layer, norm, x)?;
        let mixed = self.empty(q.shape(), self.dtype())?;
        let mut first = 0;
        for Extended { count, cache } in sequences {
            let own = |x: &Tensor| x.narrow(0, first, *count);
            let (qkv, mixed) = ([own(&q)?, own(&k)?, own(&v)?], own(&mixed)?);
            let place = self.place(layer, rope, index, *count, cache)?;
            self.attend_prompt(dim, &qkv, &mixed, &place, cache.len())?;
            first += *count;
        }
        self.linear_add(&layer.o_proj, x, &mixed)
    }

    /// Where a layer keeps keys and values of `count` more positions.
    fn place<'a>(
        &self,
        layer: &CausalAttention,
        rope: &'a Rope,
        index: usize,
        count: usize,
        cache: &mut KvCache,
    ) -> Result<Place<'a>> {
        let (first, capacity, dim) = (cache.len(), cache.capacity(), layer.head_dim);
        if first + count > capacity {
            return Err(Error::Msg(format!("a cache of {capacity} positions is full")).into());
        }
        let missing = || Error::Msg("a cache on the CPU for a decoder on a GPU".into());
        let store = cache.on_gpu.as_mut().ok_or_else(missing)?;
        let (keys, values) =
            store.layer(self, index, [layer.k_proj.output() / dim, capacity, dim])?;
        Ok(Place {
            state: store.state_at(self, first)?,
            keys,
            values,
            capacity,
            rotary: rope.on_gpu(&self.device(), first + count)?,
        })
    }

    /// Attention of a prompt's positions behind `first` others, which the place keeps from then on.
    fn attend_prompt(
        &self,
        dim: usize,
        [q, k, v]: &[Tensor; 3],
        mixed: &Tensor,
        place: &Place<'_>,
        first: usize,
    ) -> Result<()> {
        #[cfg(not(feature = "flash-attn"))]
        let _ = first;
        let (n, heads, kv_heads) = (q.dim(0)?, q.dim(1)? / dim, k.dim(1)? / dim);
        let (keys, values) = (&place.keys, &place.values);
        let (cosines, sines) = place.rotary;
        let pairs = n * heads * dim / 2;
        let args = [
            self.address(q)?,
            self.address(k)?,
            self.address(v)?,
            self.address(keys)?,
            self.address(values)?,
            self.address(cosines)?,
            self.address(sines)?,
            self.address(&place.state)?,
            Arg::long(pairs),
            Arg::int(heads),
            Arg::int(kv_heads),
            Arg::int(dim),
            Arg::int(place.capacity),
        ];
        let kernel = self.named("rotate_append");
        self.launch(&kernel, several(pairs), &args)?;

        #[cfg(feature = "flash-attn")]
        if let Some(by_flash_attn) = self.flash_prompt(q, [keys, values], first)? {
            return self.copy(&by_flash_attn, mixed);
        }
        let mut args = vec![
            self.address(q)?,
            self.address(keys)?,
            self.address(values)?,
            self.address(mixed)?,
            Arg::int(n),
            Arg::int(kv_heads),
            Arg::int(place.capacity),
            self.address(&place.state)?,
        ];
        if self.dtype() != DType::F32 && (dim == 64 || dim == 128) {
            let kernel = self.named(&format!("causal_attention_{dim}"));
            let blocks = [heads, n.div_ceil(QUERIES), 1];
            self.launch(&kernel, grid(blocks, (128, 1), 32 << 10), &args)
        } else {
            args.push(Arg::int(dim));
            let kernel = self.named("causal_attention_any");
            let blocks = [heads, n.div_ceil(QUERIES_ANY), 1];
            self.launch(&kernel, grid(blocks, (256, 1), 0), &args)
        }
    }
}
