//! The decoder: DeepSeek-V2's layers with plain multi-head attention (DeepSeek-AI, 2024).

use crate::{LanguageConfig, Result};
use agx_ocr_backend::{
    Activations, CausalAttention, Embedding, Experts, Extended, KvBatch, KvCache, Linear, Loader,
    Observer, RmsNorm, Rope, SwiGlu, awake, cat,
};
use candle_core::{Device, Tensor};
use std::fmt;

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
    device: Device,
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
            device: loader.device().clone(),
            config: config.clone(),
        }
    }

    /// The sizes.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// The device that it computes on.
    pub fn device(&self) -> &Device {
        &self.device
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
            &self.device,
        )
    }

    /// The table of the tokens' embeddings.
    #[cfg(feature = "cuda")]
    pub(crate) fn embeddings(&self) -> &Embedding {
        &self.embed_tokens
    }

    /// The embeddings `[ids.len(), hidden]` of tokens.
    ///
    /// # Errors
    /// When an id is beyond the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.embed_tokens.forward(ids)?)
    }

    /// Runs all layers on `n` new positions `[n, hidden]`, whose values no other tensor may share,
    /// behind those in the cache, which keeps them; the result is the residual stream, as
    /// [`Self::logits`] takes it, of the `wanted` positions: `[n, hidden]` or `[1, hidden]`.
    ///
    /// # Errors
    /// When the cache is full, or `observer` stops.
    pub fn forward(
        &self,
        embeddings: Tensor,
        cache: &mut KvCache,
        wanted: Wanted,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let count = embeddings.dim(0)?;
        let sequences = &mut [Extended { count, cache }];
        self.forward_all(embeddings, sequences, wanted, observer)
    }

    /// [`Self::forward`] for several sequences at once, which read the weights once for all: the new
    /// positions of one lie behind those of the other, in `embeddings` as in the result.
    ///
    /// # Errors
    /// As of [`Self::forward`].
    pub fn forward_all(
        &self,
        embeddings: Tensor,
        sequences: &mut [Extended<'_>],
        wanted: Wanted,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let mut x = embeddings;
        observer.observe(format_args!("embeds"), &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            // Positions that nobody wants are needed up to the last layer's keys and values.
            let wanted = match i + 1 == self.layers.len() {
                true => wanted,
                false => Wanted::All,
            };
            x = layer.forward(x, i, &self.rope, sequences, wanted, observer)?;
            observer.observe(format_args!("layer{i}.out"), &x)?;
        }
        for Extended { count, cache } in sequences {
            cache.advance(*count);
        }
        Ok(x)
    }

    /// The logits `[1, vocab]` behind new positions, as [`Self::forward`] takes them.
    pub(crate) fn next_logits(
        &self,
        embeddings: Tensor,
        cache: &mut KvCache,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let count = embeddings.dim(0)?;
        self.next_logits_all(embeddings, &mut [Extended { count, cache }], observer)
    }

    /// The logits `[sequences.len(), vocab]` behind the new positions of each sequence, as
    /// [`Self::forward_all`] takes them.
    pub(crate) fn next_logits_all(
        &self,
        embeddings: Tensor,
        sequences: &mut [Extended<'_>],
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        awake(&self.device, || {
            let last = self.forward_all(embeddings, sequences, Wanted::Last, observer)?;
            self.logits(&last, observer)
        })
    }

    /// Runs all layers on one new position `[n, hidden]` of each of `n` sequences behind those in
    /// their caches, as [`Self::forward`] does for one sequence; the rows of the batch are theirs.
    ///
    /// # Errors
    /// When a cache is full.
    pub fn forward_each(&self, embeddings: Tensor, caches: &mut KvBatch) -> Result<Tensor> {
        let mut x = embeddings;
        for (i, layer) in self.layers.iter().enumerate() {
            let norm = &layer.input_layernorm;
            x = layer
                .self_attn
                .add_to_each(x, norm, &self.rope, i, caches)?;
            x = layer.mlp.add_to(x, &layer.post_attention_layernorm)?;
        }
        caches.advance();
        Ok(x)
    }

    /// The scores `[n, vocab]` of the next token behind each of `n` positions.
    ///
    /// # Errors
    /// When shapes do not fit, or `observer` stops.
    pub fn logits(&self, x: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        if observer.looks() {
            observer.observe(format_args!("norm.out"), &self.norm.forward(x)?)?;
        }
        Ok(self.lm_head.forward_rms_normed(&self.norm, x)?)
    }
}

/// The positions whose results are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All new positions.
    All,
    /// The last one of each sequence.
    Last,
}

/// Attention, then a feed-forward part, each behind a norm and added to its input.
#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: CausalAttention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

impl Layer {
    fn new(config: &LanguageConfig, index: usize, loader: &Loader<'_>) -> Self {
        let norm = |name| loader.rms_norm(name, config.hidden_size, config.rms_norm_eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: loader.causal_attention(
                "self_attn",
                config.hidden_size,
                (config.num_attention_heads, config.num_key_value_heads),
                config.head_dim(),
            ),
            post_attention_layernorm: norm("post_attention_layernorm"),
            mlp: FeedForward::new(config, index, &loader.sub("mlp")),
        }
    }

    /// `x` with what the layer adds to it in place.
    fn forward(
        &self,
        x: Tensor,
        index: usize,
        rope: &Rope,
        sequences: &mut [Extended<'_>],
        wanted: Wanted,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let before = Seen::new(&x, observer)?;
        let norm = &self.input_layernorm;
        let mut x = self.self_attn.add_to(x, norm, rope, index, sequences)?;
        before.observe(format_args!("layer{index}.attn"), &x)?;
        if wanted == Wanted::Last {
            x = last_of_each(&x, sequences)?;
        }
        let before = Seen::new(&x, observer)?;
        let norm = &self.post_attention_layernorm;
        if let (FeedForward::Mixture(experts), true) = (&self.mlp, observer.looks()) {
            let routing = experts.route(&x, norm)?;
            observer.observe(format_args!("layer{index}.router.idx"), &routing.experts)?;
            observer.observe(format_args!("layer{index}.router.weight"), &routing.weights)?;
        }
        let x = self.mlp.add_to(x, norm)?;
        before.observe(format_args!("layer{index}.mlp"), &x)?;
        Ok(x)
    }
}

/// The last row of each sequence.
fn last_of_each(x: &Tensor, sequences: &[Extended<'_>]) -> Result<Tensor> {
    let mut end = 0;
    let rows = sequences.iter().map(|sequence| {
        end += sequence.count;
        x.narrow(0, end - 1, 1)
    });
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    match &rows[..] {
        // It is where it lies.
        [row] => Ok(row.clone()),
        rows => Ok(cat(&rows.iter().collect::<Vec<_>>(), 0)?),
    }
}

/// The residual stream before a part of a layer, for an observer who looks.
struct Seen<'a> {
    before: Option<Tensor>,
    observer: &'a dyn Observer,
}

impl<'a> Seen<'a> {
    fn new(x: &Tensor, observer: &'a dyn Observer) -> Result<Self> {
        let copy = || x.to_device(&Device::Cpu)?.copy();
        let before = observer.looks().then(copy).transpose()?;
        Ok(Self { before, observer })
    }

    /// Shows what the part has added.
    fn observe(&self, stage: fmt::Arguments<'_>, after: &Tensor) -> Result<()> {
        let added = match &self.before {
            Some(before) => (after.to_device(&Device::Cpu)? - before)?,
            None => after.clone(),
        };
        Ok(self.observer.observe(stage, &added)?)
    }
}

/// The feed-forward part: dense in the first layers, a mixture of experts in the others.
#[derive(Debug)]
enum FeedForward {
    Dense(SwiGlu),
    Mixture(Experts),
}

impl FeedForward {
    fn new(config: &LanguageConfig, layer: usize, loader: &Loader<'_>) -> Self {
        let hidden = config.hidden_size;
        if layer < config.first_k_dense_replace {
            return Self::Dense(loader.swiglu("", hidden, config.intermediate_size));
        }
        let (count, inner) = (config.n_routed_experts, config.moe_intermediate_size);
        Self::Mixture(loader.experts(
            hidden,
            (count, inner),
            config.num_experts_per_tok,
            config.n_shared_experts * inner,
        ))
    }

    /// `x` with the part's result for `norm(x)` added.
    fn add_to(&self, x: Tensor, norm: &RmsNorm) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(mlp) => mlp.add_to(x, norm)?,
            Self::Mixture(experts) => experts.add_to(x, norm)?,
        })
    }
}
