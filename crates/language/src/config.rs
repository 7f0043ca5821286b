//! The sizes of the decoder, as the top level of config.json states them.

use crate::{Error, Result};
use agx_ocr_backend::Fields;
use std::ops::RangeInclusive;

/// Sizes and constants of the decoder. The reference reads the top level of config.json only;
/// what is absent there has the reference's default.
#[derive(Clone, Debug, PartialEq)]
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
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

// More than any model of this kind has: the bounds keep sums, allocations and loops small whatever
// the file says.
const LAYERS: RangeInclusive<usize> = 1..=1024;
const HEADS: RangeInclusive<usize> = 1..=4096;
const EXPERTS: RangeInclusive<usize> = 1..=4096;
const SHARED_EXPERTS: RangeInclusive<usize> = 1..=256;
const WIDTH: RangeInclusive<usize> = 1..=1 << 16;
const INNER: RangeInclusive<usize> = 1..=1 << 20;
const VOCABULARY: RangeInclusive<usize> = 1..=1 << 22;
const POSITIONS: RangeInclusive<usize> = 1..=1 << 20;
/// Of the norms' constant; zero would divide by zero.
const EPS: RangeInclusive<f64> = 1e-30..=1.0;
/// Of the rotary base, which f32 must hold.
const THETA: RangeInclusive<f64> = 1.0..=1e30;
/// Experts of all layers.
const ALL_EXPERTS: usize = 1 << 17;
/// Values of the rotary tables, which are made for all positions.
const ROTARY: usize = 1 << 25;

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
        let config = Self::take(&Fields::new(config)).map_err(Error::Config)?;
        config.check()?;
        Ok(config)
    }

    fn take(fields: &Fields<'_>) -> Result<Self, String> {
        for (name, values) in FIXED {
            fields.fixed(name, values)?;
        }
        Ok(Self {
            vocab_size: fields.size("vocab_size", VOCABULARY)?,
            hidden_size: fields.size("hidden_size", WIDTH)?,
            num_hidden_layers: fields.size("num_hidden_layers", LAYERS)?,
            num_attention_heads: fields.size("num_attention_heads", HEADS)?,
            num_key_value_heads: fields.size("num_key_value_heads", HEADS)?,
            intermediate_size: fields.size("intermediate_size", INNER)?,
            moe_intermediate_size: fields.size("moe_intermediate_size", INNER)?,
            n_routed_experts: fields.size("n_routed_experts", EXPERTS)?,
            n_shared_experts: fields.size("n_shared_experts", SHARED_EXPERTS)?,
            num_experts_per_tok: fields.size("num_experts_per_tok", EXPERTS)?,
            first_k_dense_replace: fields.size("first_k_dense_replace", 0..=*LAYERS.end())?,
            max_position_embeddings: fields.size("max_position_embeddings", POSITIONS)?,
            rms_norm_eps: fields.number_or("rms_norm_eps", EPS, 1e-6)?,
            rope_theta: fields.number_or("rope_theta", THETA, 10_000.0)?,
        })
    }

    /// Values in an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    fn check(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
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
        let experts = self.num_hidden_layers * self.n_routed_experts;
        if experts > ALL_EXPERTS {
            return fail(format!(
                "num_hidden_layers times n_routed_experts is {experts}, more than {ALL_EXPERTS}"
            ));
        }
        let (positions, dim) = (self.max_position_embeddings, self.head_dim());
        if positions * dim > ROTARY {
            return fail(format!(
                "max_position_embeddings is {positions}, too many for heads of {dim} values"
            ));
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
        let huge = json!(1_u64 << 63);
        for (name, value, wanted) in [
            (
                "use_mla",
                json!(true),
                "use_mla is true; only false is supported",
            ),
            ("norm_topk_prob", json!(true), "only false is supported"),
            ("hidden_act", json!("gelu"), "hidden_act is \"gelu\""),
            (
                "rope_scaling",
                json!({"type": "yarn"}),
                "rope_scaling is an object",
            ),
            (
                "num_hidden_layers",
                json!(0),
                "num_hidden_layers is 0, not a whole number from 1",
            ),
            (
                "num_hidden_layers",
                json!(1_000_000),
                "num_hidden_layers is 1000000, not",
            ),
            (
                "num_attention_heads",
                json!(-4),
                "num_attention_heads is -4, not",
            ),
            (
                "vocab_size",
                huge.clone(),
                "vocab_size is 9223372036854775808, not",
            ),
            ("hidden_size", json!("wide"), "hidden_size is \"wide\", not"),
            (
                "intermediate_size",
                json!(1e300),
                "intermediate_size is 1e+300, not",
            ),
            (
                "moe_intermediate_size",
                json!(12.5),
                "moe_intermediate_size is 12.5, not",
            ),
            (
                "n_shared_experts",
                json!([2]),
                "n_shared_experts is a list of 1, not",
            ),
            (
                "first_k_dense_replace",
                huge.clone(),
                "first_k_dense_replace is 922",
            ),
            (
                "max_position_embeddings",
                huge,
                "max_position_embeddings is 922",
            ),
            (
                "max_position_embeddings",
                json!(null),
                "max_position_embeddings is null",
            ),
            (
                "num_key_value_heads",
                json!(3),
                "4 heads cannot share 3 key-value heads",
            ),
            (
                "num_attention_heads",
                json!(64),
                "hidden_size 64 gives 64 heads no even size",
            ),
            (
                "num_experts_per_tok",
                json!(9),
                "9 experts a token of 8 experts",
            ),
            (
                "rms_norm_eps",
                json!(-1e-6),
                "rms_norm_eps is -1e-6, not a number from",
            ),
            (
                "rms_norm_eps",
                json!(0),
                "rms_norm_eps is 0, not a number from",
            ),
            ("rms_norm_eps", json!(1e-300), "rms_norm_eps is 1e-300, not"),
            ("rope_theta", json!(0), "rope_theta is 0, not a number from"),
            (
                "rope_theta",
                json!(-10_000.0),
                "rope_theta is -10000.0, not",
            ),
            ("rope_theta", json!(1e300), "rope_theta is 1e+300, not"),
            ("rope_theta", json!("NaN"), "rope_theta is \"NaN\", not"),
        ] {
            let mut config = tiny();
            config[name] = value;
            let error = LanguageConfig::from_json(&config).unwrap_err().to_string();
            assert!(
                error.starts_with("config.json: ") && error.contains(wanted),
                "{name}: {error}"
            );
        }
        let mut config = tiny();
        config.as_object_mut().unwrap().remove("hidden_size");
        let error = LanguageConfig::from_json(&config).unwrap_err().to_string();
        assert_eq!(error, "config.json: hidden_size is missing");
    }

    #[test]
    fn refuses_sizes_whose_products_are_absurd() {
        for (values, wanted) in [
            (
                json!({"num_hidden_layers": 1024, "n_routed_experts": 4096}),
                "num_hidden_layers times n_routed_experts is 4194304, more than",
            ),
            (
                json!({"hidden_size": 65536, "max_position_embeddings": 1 << 20}),
                "max_position_embeddings is 1048576, too many for heads of 16384 values",
            ),
        ] {
            let mut config = tiny();
            for (name, value) in values.as_object().unwrap() {
                config[name] = value.clone();
            }
            let error = LanguageConfig::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
