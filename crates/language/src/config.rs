//! The sizes of the decoder, as the top level of config.json states them.

use crate::{Error, Result};
use serde::Deserialize;

/// Sizes and constants of the decoder. The reference reads the top level of config.json only;
/// what is absent there has the reference's default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct LanguageConfig {
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Values in a position.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Key-value heads.
    pub num_key_value_heads: usize,
    /// Inner size of the dense layers' SwiGLU.
    pub intermediate_size: usize,
    /// Inner size of an expert's SwiGLU.
    pub moe_intermediate_size: usize,
    /// Routed experts a layer.
    pub n_routed_experts: usize,
    /// Shared experts a layer; together they are one SwiGLU of this many times the inner size.
    pub n_shared_experts: usize,
    /// Routed experts that a token uses.
    pub num_experts_per_tok: usize,
    /// Layers below this one are dense.
    pub first_k_dense_replace: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in norms.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
}

fn rms_norm_eps() -> f64 {
    1e-6
}

fn rope_theta() -> f64 {
    10_000.0
}

/// More than any model of this kind has; keeps sums and allocations in bounds.
const LARGEST: usize = 1 << 20;

/// Settings of the family that this decoder does not compute, with the values it takes.
const FIXED: [(&str, &[&str]); 12] = [
    ("use_mla", &["false"]),
    ("norm_topk_prob", &["false"]),
    ("routed_scaling_factor", &["1.0", "1"]),
    ("scoring_func", &["\"softmax\""]),
    ("topk_method", &["\"greedy\""]),
    ("n_group", &["1"]),
    ("topk_group", &["1"]),
    ("moe_layer_freq", &["1"]),
    ("attention_bias", &["false"]),
    ("tie_word_embeddings", &["false"]),
    ("rope_scaling", &["null"]),
    ("hidden_act", &["\"silu\""]),
];

impl LanguageConfig {
    /// The sizes in a parsed config.json.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is missing or absurd, or a setting asks for something that
    /// this decoder does not compute.
    pub fn from_json(config: &serde_json::Value) -> Result<Self> {
        for (name, values) in FIXED {
            if let Some(value) = config.get(name).map(ToString::to_string)
                && !values.contains(&&value[..])
            {
                let reason = format!("{name} is {value}; only {} is supported", values[0]);
                return Err(Error::Config(reason));
            }
        }
        let config = Self::deserialize(config).map_err(|e| Error::Config(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Values in an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("intermediate_size", self.intermediate_size),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("n_routed_experts", self.n_routed_experts),
            ("n_shared_experts", self.n_shared_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let fail = |reason: String| Err(Error::Config(reason));
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return fail(format!("{name} is {size}, outside of 1..={LARGEST}"));
        }
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        if !self.hidden_size.is_multiple_of(2 * heads) {
            return fail(format!(
                "hidden_size {} gives {heads} heads no even size",
                self.hidden_size
            ));
        }
        if !heads.is_multiple_of(kv) {
            return fail(format!(
                "{heads} heads cannot share {kv} key-value heads evenly"
            ));
        }
        if self.num_experts_per_tok > self.n_routed_experts {
            let (k, n) = (self.num_experts_per_tok, self.n_routed_experts);
            return fail(format!("{k} experts a token of {n} experts"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tiny() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/parity/tiny/config.json"
        );
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn reads_sizes_and_defaults() {
        let config = LanguageConfig::from_json(&tiny()).unwrap();
        assert_eq!(
            (
                config.hidden_size,
                config.head_dim(),
                config.n_routed_experts
            ),
            (64, 16, 8)
        );
        assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 10_000.0));
    }

    #[test]
    fn refuses_what_it_does_not_compute() {
        for (name, value) in [
            ("use_mla", json!(true)),
            ("norm_topk_prob", json!(true)),
            ("hidden_act", json!("gelu")),
            ("num_hidden_layers", json!(0)),
            ("vocab_size", json!(1_u64 << 40)),
            ("hidden_size", json!("wide")),
            ("num_key_value_heads", json!(3)),
            ("num_experts_per_tok", json!(9)),
        ] {
            let mut config = tiny();
            config[name] = value;
            let error = LanguageConfig::from_json(&config).unwrap_err().to_string();
            assert!(error.starts_with("config.json: "), "{name}: {error}");
        }
    }
}
