//! One token through the decoder: few kernels, none of which waits for the host.

use super::{
    Gpu,
    experts::Addresses,
    launch::{Arg, grid},
};
use crate::{CausalAttention, Experts, Linear, Result, RmsNorm};
use candle_core::{DType, Tensor};

/// Threads of the kernels that stream rows.
const STREAM: u32 = 256;
/// The most threads of the others.
const MOST_THREADS: usize = 512;
/// What the kernels have room for.
const MOST_EXPERTS: usize = 64;
const MOST_CHOSEN: usize = 16;

/// Where new positions' keys and values go, and those before.
pub(super) struct Place<'a> {
    pub state: Tensor,
    pub keys: Tensor,
    pub values: Tensor,
    pub capacity: usize,
    pub rotary: &'a (Tensor, Tensor),
}

impl Gpu {
    /// Whether the kernels for one token have these sizes, the heads' among them where there are
    /// any.
    pub(super) fn fits_one(&self, sizes: &[usize], head_dim: Option<usize>) -> bool {
        let lanes = |dim: usize| dim / self.chunk();
        sizes.iter().all(|size| size.is_multiple_of(8))
            && head_dim.is_none_or(|dim| lanes(dim).is_power_of_two() && lanes(dim) <= 32)
    }

    /// Whether there are kernels for one token of such experts.
    pub(super) fn fits_experts(&self, experts: usize, top_k: usize) -> bool {
        experts <= MOST_EXPERTS && top_k <= MOST_CHOSEN
    }

    /// `x += attention(norm(x))` for one token, whose keys and values go into the cache.
    pub(super) fn attend_one(
        &self,
        layer: &CausalAttention,
        x: &Tensor,
        norm: &RmsNorm,
        place: &Place<'_>,
    ) -> Result<()> {
        let (hidden, dim) = (layer.q_proj.input(), layer.head_dim);
        let (heads, kv_heads) = (layer.q_proj.output() / dim, layer.k_proj.output() / dim);
        let sizes = [heads, kv_heads, dim, place.capacity].map(Arg::int);
        let (state, x) = (self.address(&place.state)?, self.address(x)?);
        let (keys, values) = (self.address(&place.keys)?, self.address(&place.values)?);
        let q = self.address(&self.scratch("q", heads * dim, DType::F32, 0)?)?;

        let mut args = vec![state, x, self.address(norm.weight.on_gpu()?)?];
        for projection in [&layer.q_proj, &layer.k_proj, &layer.v_proj] {
            args.push(self.address(projection.weight.on_gpu()?)?);
        }
        let (cosines, sines) = place.rotary;
        args.extend([
            self.address(cosines)?,
            self.address(sines)?,
            q,
            keys,
            values,
        ]);
        args.push(Arg::int(hidden));
        args.extend(sizes);
        args.push(Arg::Float(norm.eps));
        // Each block makes three pairs of values that rotary positions turn into each other.
        let blocks = ((heads + 2 * kv_heads) * dim / 2).div_ceil(3);
        let config = grid([blocks, 1, 1], (self.threads(hidden), 1), 0);
        self.launch(&self.named("decode_qkv"), config, &args)?;

        let parts = (2 * self.multiprocessors() / heads).clamp(1, 32);
        let partial = self.scratch("parts", heads * parts * (dim + 2), DType::F32, 0)?;
        let finished = self.scratch("heads finished", heads, DType::U32, 0)?;
        let mixed = self.scratch("mixed", heads * dim, DType::F32, 0)?;
        let mut args = vec![state, q, keys, values];
        for tensor in [&partial, &finished, &mixed] {
            args.push(self.address(tensor)?);
        }
        args.extend(sizes);
        let config = grid([heads, parts, 1], (256, 1), 0);
        self.launch(&self.named("decode_attention"), config, &args)?;
        self.project_one(&mixed, None, &layer.o_proj, x)
    }

    /// `x += down(silu(gate(norm(x))) * up(norm(x)))` for one token.
    pub(super) fn swiglu_one(
        &self,
        [gate, up, down]: [&Linear; 3],
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<()> {
        let h = self.gate_up_one(None, [gate, up], norm, x)?;
        self.project_one(&h, None, down, self.address(x)?)
    }

    /// `x +=` the outputs of one token's experts, and of the shared one.
    pub(super) fn experts_one(
        &self,
        layer: &Experts,
        addresses: &Addresses,
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<()> {
        let shared = &layer.shared;
        let h = self.gate_up_one(
            Some((layer, addresses)),
            [&shared.gate, &shared.up],
            norm,
            x,
        )?;
        let chosen = self.scratch("chosen", layer.top_k, DType::I64, 0)?;
        let chosen = (&chosen, layer.top_k, layer.inner());
        self.project_one(&h, Some(chosen), &shared.down, self.address(x)?)
    }

    /// `silu(gate(norm(x))) * up(norm(x))` of the chosen experts one after another, times their
    /// probabilities, then of the shared one.
    fn gate_up_one(
        &self,
        routed: Option<(&Experts, &Addresses)>,
        [gate, up]: [&Linear; 2],
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<Tensor> {
        let (hidden, shared_inner) = (gate.input(), gate.output());
        let (experts, top_k, inner) = routed.map_or((0, 0, 0), |(layer, _)| {
            (layer.routed.len(), layer.top_k, layer.inner())
        });
        let h = self.scratch("h", top_k * inner + shared_inner, DType::F32, 0)?;
        let mut args = vec![self.address(x)?, self.address(norm.weight.on_gpu()?)?];
        match routed {
            Some((layer, addresses)) => {
                args.push(self.address(layer.router.on_gpu()?)?);
                for list in [&addresses.gate, &addresses.up, &addresses.down] {
                    args.push(self.address(list)?);
                }
            }
            None => args.extend([Arg::NULL; 4]),
        }
        args.push(self.address(gate.weight.on_gpu()?)?);
        args.push(self.address(up.weight.on_gpu()?)?);
        args.push(self.address(&h)?);
        for (name, count, dtype, fill) in [
            // No score has all bits set: these are not there yet.
            ("scores", experts, DType::F32, 0xff),
            ("experts finished", 1, DType::U32, 0),
            ("ids", top_k, DType::U32, 0),
            ("weights", top_k, DType::F32, 0),
            ("chosen", top_k, DType::I64, 0),
        ] {
            args.push(self.address(&self.scratch(name, count, dtype, fill)?)?);
        }
        args.extend([hidden, experts, top_k, inner, shared_inner].map(Arg::int));
        args.push(Arg::Float(norm.eps));
        let blocks = (experts / 2 + shared_inner).div_ceil(7);
        let config = self.stream_of(blocks, hidden);
        self.launch(&self.named("decode_gate_up"), config, &args)?;
        Ok(h)
    }

    /// `x += W h`, the columns of W those of the chosen experts' matrices, then the layer's.
    fn project_one(
        &self,
        h: &Tensor,
        chosen: Option<(&Tensor, usize, usize)>,
        layer: &Linear,
        x: Arg,
    ) -> Result<()> {
        let (hidden, shared_inner) = (layer.output(), layer.input());
        let (list, top_k, inner) = match chosen {
            Some((list, top_k, inner)) => (self.address(list)?, top_k, inner),
            None => (Arg::NULL, 0, 0),
        };
        let mut args = vec![self.address(h)?, list];
        args.extend([self.address(layer.weight.on_gpu()?)?, x]);
        args.extend([hidden, top_k, inner, shared_inner].map(Arg::int));
        let threads = self.threads(top_k * inner + shared_inner);
        let config = grid([hidden.div_ceil(5), 1, 1], (threads, 1), 0);
        self.launch(&self.named("decode_project"), config, &args)
    }

    /// The products of a norm of one row with a matrix, f32 `[1, output]`, in memory that the next
    /// such call uses again.
    pub(super) fn logits_one(&self, layer: &Linear, norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
        let (hidden, vocab) = (layer.input(), layer.output());
        let logits = self.scratch("logits", vocab, DType::F32, 0)?;
        let args = [
            self.address(x)?,
            self.address(norm.weight.on_gpu()?)?,
            self.address(layer.weight.on_gpu()?)?,
            self.address(&logits)?,
            Arg::int(hidden),
            Arg::int(vocab),
            Arg::Float(norm.eps),
        ];
        let config = self.stream_of(vocab.div_ceil(16), hidden);
        self.launch(&self.named("decode_logits"), config, &args)?;
        Ok(logits.reshape((1, vocab))?)
    }

    /// As many blocks as find room, each with the input in shared memory.
    fn stream_of(
        &self,
        blocks: usize,
        hidden: usize,
    ) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
        let blocks = blocks.min(2 * self.multiprocessors());
        grid([blocks, 1, 1], (STREAM, 1), 4 * hidden)
    }

    /// Values of 16 bytes.
    pub(super) fn chunk(&self) -> usize {
        16 / self.dtype().size_in_bytes()
    }

    /// Threads that share rows of so many values: as few passes as may be, and as few threads as do.
    fn threads(&self, values: usize) -> u32 {
        let chunks = values / self.chunk();
        let passes = chunks.div_ceil(MOST_THREADS).max(1);
        let threads = chunks.div_ceil(passes).next_multiple_of(32);
        u32::try_from(threads).unwrap_or(MOST_THREADS as u32)
    }
}
