//! What the decoder's work costs: multiply-adds, two operations each, and bytes.
//!
//! Counted are the products that are needed; norms, activation functions, softmax and rotary
//! positions are left out, as is usual. Arithmetic is f64: exact up to 2^53, which is far off, and
//! without overflow.

use crate::LanguageConfig;

/// Bytes of a bf16 weight.
const WEIGHT: f64 = 2.0;
/// Bytes of a value in the cache, f32.
const CACHED: f64 = 4.0;

impl LanguageConfig {
    /// Multiply-adds (two operations each) for a prompt of `positions` positions, to the scores of
    /// its next token. Attention counts by the keys that each position sees. Behind the last
    /// layer's attention only the last position goes on.
    pub fn prefill_multiply_adds(&self, positions: usize) -> u64 {
        if positions == 0 {
            return 0;
        }
        let n = positions as f64;
        let seen = n * (n + 1.0) / 2.0;
        // Queries by keys, and weights by values.
        let attention = n * self.attention_weights() + 2.0 * seen * self.hidden_size as f64;
        let layers = |range: std::ops::Range<usize>| -> f64 {
            range.map(|layer| self.feed_forward_weights(layer)).sum()
        };
        let last = self.num_hidden_layers.saturating_sub(1);
        let feed_forward = n * layers(0..last) + layers(last..self.num_hidden_layers);
        (self.num_hidden_layers as f64 * attention + feed_forward + self.head_weights()) as u64
    }

    /// Bytes that the decoder reads for one token: the bf16 weights that take part, and the f32
    /// keys and values of `positions` cached positions.
    pub fn decode_bytes(&self, positions: usize) -> u64 {
        let layers = self.num_hidden_layers as f64;
        let hidden = self.hidden_size as f64;
        let norms = (2.0 * layers + 1.0) * hidden;
        let feed_forward: f64 = (0..self.num_hidden_layers)
            .map(|layer| self.feed_forward_weights(layer))
            .sum();
        let weights =
            layers * self.attention_weights() + feed_forward + norms + self.head_weights();
        let cached = layers * 2.0 * positions as f64 * self.kv_size();
        (WEIGHT * weights + CACHED * cached) as u64
    }

    /// Values in a position's key, and in its value, of all heads.
    fn kv_size(&self) -> f64 {
        (self.num_key_value_heads * self.head_dim()) as f64
    }

    /// Weights of a layer's attention: q and o, k and v.
    fn attention_weights(&self) -> f64 {
        let hidden = self.hidden_size as f64;
        2.0 * hidden * (hidden + self.kv_size())
    }

    /// Weights of a layer's feed-forward part that take part for one position: all of a dense
    /// one; of a mixture the router, the chosen experts and the shared ones.
    fn feed_forward_weights(&self, layer: usize) -> f64 {
        let hidden = self.hidden_size as f64;
        let swiglu = |inner: usize| 3.0 * hidden * inner as f64;
        if layer < self.first_k_dense_replace {
            return swiglu(self.intermediate_size);
        }
        let experts = (self.num_experts_per_tok + self.n_shared_experts) as f64;
        hidden * self.n_routed_experts as f64 + experts * swiglu(self.moe_intermediate_size)
    }

    /// Weights of the head.
    fn head_weights(&self) -> f64 {
        self.hidden_size as f64 * self.vocab_size as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of DeepSeek-OCR.
    fn deepseek() -> LanguageConfig {
        LanguageConfig {
            vocab_size: 129_280,
            hidden_size: 1280,
            num_hidden_layers: 12,
            num_attention_heads: 10,
            num_key_value_heads: 10,
            intermediate_size: 6848,
            moe_intermediate_size: 896,
            n_routed_experts: 64,
            n_shared_experts: 2,
            num_experts_per_tok: 6,
            first_k_dense_replace: 1,
            max_position_embeddings: 8192,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
        }
    }

    #[track_caller]
    fn near(value: u64, wanted: f64, tolerance: f64) {
        assert!((value as f64 / wanted - 1.0).abs() < tolerance, "{value}");
    }

    #[test]
    fn costs_are_the_known_ones() {
        let config = deepseek();
        // 573 M active weights of two bytes.
        near(config.decode_bytes(0), 2.0 * 573e6, 0.01);
        // Keys and values: 2 x 12 layers x 1280 values of four bytes.
        let a_position = config.decode_bytes(1001) - config.decode_bytes(1000);
        assert_eq!(a_position, 2 * 12 * 1280 * 4);
        // Each position goes through all weights but the head's 165.5 M and the last layer's 27.5 M;
        // its keys add little.
        let weights = (573.0 - 165.5 - 27.5) * 1e6;
        near(config.prefill_multiply_adds(270), 270.0 * weights, 0.02);
    }

    #[test]
    fn one_position_needs_each_weight_once() {
        let config = deepseek();
        let norms = (2 * 12 + 1) * 1280;
        let scores_and_sums = 12 * 2 * 1280;
        let weights = config.decode_bytes(0) / 2 - norms;
        assert_eq!(config.prefill_multiply_adds(1), weights + scores_and_sums);
        assert_eq!(config.prefill_multiply_adds(0), 0);
    }

    #[test]
    fn small_costs_can_be_counted_by_hand() {
        let config = LanguageConfig {
            vocab_size: 7,
            hidden_size: 4,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            intermediate_size: 5,
            moe_intermediate_size: 3,
            n_routed_experts: 6,
            n_shared_experts: 1,
            num_experts_per_tok: 2,
            ..deepseek()
        };
        let attention = 2 * 4 * 4 + 2 * 2 * 4;
        let (dense, mixture, head) = (3 * 4 * 5, 4 * 6 + 3 * 3 * 4 * 3, 4 * 7);
        // Positions see 1, 2 and 3 keys.
        let products = 2 * 6 * 4;
        let prefill = 2 * (3 * attention + products) + 3 * dense + mixture + head;
        assert_eq!(config.prefill_multiply_adds(3), prefill);
        let weights = 2 * attention + dense + mixture + 5 * 4 + head;
        assert_eq!(config.decode_bytes(3), 2 * weights + 4 * (2 * 2 * 3 * 2));
    }
}
