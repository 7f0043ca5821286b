//! The decoder: DeepSeek-V2's layers with plain multi-head attention (DeepSeek-AI, 2024).

use crate::{LanguageConfig, Result};
use agx_ocr_backend::{
    Activations, Embedding, Experts, KvCache, Linear, Loader, Observer, RmsNorm, Rope, Router,
    SwiGlu,
};
use candle_core::Tensor;

/// The language half of the model.
#[derive(Debug)]
pub struct Decoder {
    config: LanguageConfig,
    embed_tokens: Embedding,
    rope: Rope,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    activations: Activations,
}

impl Decoder {
    /// The decoder in a checkpoint, its names below `model` and at the root.
    pub fn new(config: &LanguageConfig, loader: &Loader<'_>) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let model = loader.sub("model");
        let layers = model.sub("layers");
        Self {
            embed_tokens: model.embedding("embed_tokens", vocab, hidden),
            rope: Rope::new(
                config.max_position_embeddings,
                config.head_dim(),
                config.rope_theta,
            ),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, i, &layers.sub(i)))
                .collect(),
            norm: model.rms_norm("norm", hidden, config.rms_norm_eps),
            lm_head: loader.linear("lm_head", hidden, vocab),
            activations: loader.activations(),
            config: config.clone(),
        }
    }

    /// The sizes.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// An empty cache for `positions` positions.
    pub fn cache(&self, positions: usize) -> KvCache {
        let config = &self.config;
        KvCache::new(
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim(),
            positions,
            self.activations,
        )
    }

    /// The embeddings `[ids.len(), hidden]` of tokens.
    ///
    /// # Errors
    /// When an id is beyond the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.embed_tokens.forward(ids)?)
    }

    /// Runs all layers on `n` new positions `[n, hidden]` behind those in the cache, which keeps
    /// them; the result is the residual stream, as [`Self::logits`] takes it, of the `wanted`
    /// positions: `[n, hidden]` or `[1, hidden]`.
    ///
    /// # Errors
    /// When the cache is full, or `observer` stops.
    pub fn forward(
        &self,
        embeddings: &Tensor,
        cache: &mut KvCache,
        wanted: Wanted,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let mut x = embeddings.clone();
        observer.observe(format_args!("embeds"), &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            // Positions that nobody wants are needed up to the last layer's keys and values.
            let wanted = match i + 1 == self.layers.len() {
                true => wanted,
                false => Wanted::All,
            };
            x = layer.forward(&x, i, &self.rope, cache, wanted, observer)?;
            observer.observe(format_args!("layer{i}.out"), &x)?;
        }
        cache.advance(embeddings.dim(0)?);
        Ok(x)
    }

    /// The scores `[n, vocab]` of the next token behind each of `n` positions.
    ///
    /// # Errors
    /// When shapes do not fit, or `observer` stops.
    pub fn logits(&self, x: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        let x = self.norm.forward(x)?;
        observer.observe(format_args!("norm.out"), &x)?;
        Ok(self.lm_head.forward(&x)?)
    }
}

/// The positions whose results are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All new positions.
    All,
    /// The last one.
    Last,
}

/// Attention, then a feed-forward part, each behind a norm and added to its input.
#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

impl Layer {
    fn new(config: &LanguageConfig, index: usize, loader: &Loader<'_>) -> Self {
        let norm = |name| loader.rms_norm(name, config.hidden_size, config.rms_norm_eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: Attention::new(config, &loader.sub("self_attn")),
            post_attention_layernorm: norm("post_attention_layernorm"),
            mlp: FeedForward::new(config, index, &loader.sub("mlp")),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        index: usize,
        rope: &Rope,
        cache: &mut KvCache,
        wanted: Wanted,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let normed = self.input_layernorm.forward(x)?;
        let attended = self.self_attn.forward(&normed, index, rope, cache)?;
        observer.observe(format_args!("layer{index}.attn"), &attended)?;
        let mut x = (x + attended)?;
        if wanted == Wanted::Last {
            x = x.narrow(0, x.dim(0)? - 1, 1)?;
        }
        let normed = self.post_attention_layernorm.forward(&x)?;
        let fed = self.mlp.forward(&normed, index, observer)?;
        observer.observe(format_args!("layer{index}.mlp"), &fed)?;
        Ok((x + fed)?)
    }
}

/// Causal attention with rotary positions.
#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    head_dim: usize,
}

impl Attention {
    fn new(config: &LanguageConfig, loader: &Loader<'_>) -> Self {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim());
        let kv = config.num_key_value_heads * head_dim;
        Self {
            q_proj: loader.linear("q_proj", hidden, hidden),
            k_proj: loader.linear("k_proj", hidden, kv),
            v_proj: loader.linear("v_proj", hidden, kv),
            o_proj: loader.linear("o_proj", hidden, hidden),
            head_dim,
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        layer: usize,
        rope: &Rope,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let heads = |y: Tensor| y.reshape((y.dim(0)?, (), self.head_dim));
        let [q, k, v] = Linear::forward_all([&self.q_proj, &self.k_proj, &self.v_proj], x)?;
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
        let position = cache.len();
        let (q, k) = (rope.forward(&q, position)?, rope.forward(&k, position)?);
        Ok(self.o_proj.forward(&cache.attend(layer, &q, &k, &v)?)?)
    }
}

/// The feed-forward part: dense in the first layers, a mixture of experts in the others.
#[derive(Debug)]
enum FeedForward {
    Dense(SwiGlu),
    Mixture { gate: Router, experts: Experts },
}

impl FeedForward {
    fn new(config: &LanguageConfig, layer: usize, loader: &Loader<'_>) -> Self {
        let hidden = config.hidden_size;
        if layer < config.first_k_dense_replace {
            return Self::Dense(loader.swiglu("", hidden, config.intermediate_size));
        }
        let (count, inner) = (config.n_routed_experts, config.moe_intermediate_size);
        let gate = loader.sub("gate").weight("weight", &[count, hidden]);
        let experts = loader.sub("experts");
        let expert = |i| experts.sub(i).swiglu("", hidden, inner);
        let shared = loader.swiglu("shared_experts", hidden, config.n_shared_experts * inner);
        Self::Mixture {
            gate: Router::new(gate, config.num_experts_per_tok),
            experts: Experts::new((0..count).map(expert).collect(), shared),
        }
    }

    fn forward(&self, x: &Tensor, layer: usize, observer: &dyn Observer) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => Ok(mlp.forward(x)?),
            Self::Mixture { gate, experts } => {
                let routing = gate.route(x)?;
                if observer.looks() {
                    let (experts, weights) = (routing.experts()?, routing.weights()?);
                    observer.observe(format_args!("layer{layer}.router.idx"), &experts)?;
                    observer.observe(format_args!("layer{layer}.router.weight"), &weights)?;
                }
                Ok(experts.forward(x, &routing)?)
            }
        }
    }
}
