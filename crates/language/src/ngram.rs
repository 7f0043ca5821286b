//! Keeping the decoder from repeating itself: no n-gram twice.

use std::collections::BTreeSet;

/// Forbids tokens that would complete an n-gram for the second time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRepeatNgram {
    /// Length of the n-grams; 1 forbids every token seen.
    pub size: usize,
    /// Where earlier n-grams count.
    pub scope: NgramScope,
    /// Tokens that are never forbidden.
    pub whitelist: Vec<u32>,
}

/// Where earlier n-grams count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NgramScope {
    /// In the prompt, its image placeholders too, and in the whole answer: what Hugging Face
    /// transformers does.
    All,
    /// In the answer, where they start among its last tokens, this many: what the vendor's scripts
    /// for vLLM do.
    Window(usize),
}

impl NoRepeatNgram {
    /// The tokens that may not come next after `prompt` and `answer`.
    pub fn banned(&self, prompt: &[u32], answer: &[u32]) -> BTreeSet<u32> {
        match self.scope {
            NgramScope::All => self.banned_in(&[prompt, answer].concat()),
            NgramScope::Window(window) => {
                self.banned_in(&answer[answer.len().saturating_sub(window)..])
            }
        }
    }

    /// The tokens that would repeat an n-gram of `ids` at its end.
    fn banned_in(&self, ids: &[u32]) -> BTreeSet<u32> {
        let Some(prefix) = self
            .size
            .checked_sub(1)
            .and_then(|n| ids.len().checked_sub(n))
        else {
            return BTreeSet::new();
        };
        let prefix = &ids[prefix..];
        let completing = |ngram: &&[u32]| ngram.starts_with(prefix);
        ids.windows(self.size)
            .filter(completing)
            .map(|ngram| ngram[self.size - 1])
            .filter(|token| !self.whitelist.contains(token))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        seq: Vec<u32>,
        prompt_len: usize,
        ngram: usize,
        window: usize,
        whitelist: Vec<u32>,
        banned_hf: BTreeSet<u32>,
        /// Absent where the reference fails (a size of 1).
        banned_vllm_generated_only: Option<BTreeSet<u32>>,
    }

    #[test]
    fn bans_what_both_references_ban() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/parity/language/ngram_vectors.json"
        );
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(
            cases
                .iter()
                .flat_map(|case| &case.banned_vllm_generated_only)
                .any(|banned| !banned.is_empty())
        );
        for case in cases {
            let (prompt, answer) = case.seq.split_at(case.prompt_len);
            let all = NoRepeatNgram {
                size: case.ngram,
                scope: NgramScope::All,
                whitelist: Vec::new(),
            };
            assert_eq!(all.banned(prompt, answer), case.banned_hf, "{:?}", case.seq);
            let window = NoRepeatNgram {
                scope: NgramScope::Window(case.window),
                whitelist: case.whitelist,
                ..all
            };
            if let Some(banned) = case.banned_vllm_generated_only {
                assert_eq!(window.banned(prompt, answer), banned, "{:?}", case.seq);
            }
        }
    }

    #[test]
    fn a_size_of_one_forbids_all_seen_tokens() {
        let guard = NoRepeatNgram {
            size: 1,
            scope: NgramScope::All,
            whitelist: vec![3],
        };
        assert_eq!(guard.banned(&[1, 3], &[2]), BTreeSet::from([1, 2]));
        assert_eq!(
            NoRepeatNgram { size: 0, ..guard }.banned(&[1], &[2]),
            BTreeSet::new()
        );
    }
}
