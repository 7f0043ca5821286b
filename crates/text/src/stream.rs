//! Decoding one token at a time.

use crate::tokenizer::{Special, Tokenizer};

/// Decodes ids as they come, and gives text as soon as whole characters are ready.
///
/// The pieces, [`finish`](TokenStream::finish)'s included, add up to exactly what
/// [`Tokenizer::decode`] makes of all ids.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    special: Special,
    /// The beginning of a character whose last bytes have not come yet: at most three bytes.
    pending: Vec<u8>,
}

impl<'a> TokenStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, special: Special) -> Self {
        Self {
            tokenizer,
            special,
            pending: Vec::new(),
        }
    }

    /// Takes the next id. `None` when it completes no character.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.tokenizer
            .append_bytes(id, self.special, &mut self.pending);
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = used + invalid.len() == self.pending.len();
            if invalid.is_empty() || at_end && is_unfinished(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        (!text.is_empty()).then_some(text)
    }

    /// Ends the stream: U+FFFD if a character was left unfinished.
    pub fn finish(self) -> Option<String> {
        (!self.pending.is_empty()).then(|| String::from_utf8_lossy(&self.pending).into_owned())
    }
}

/// Whether more bytes could turn these into a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
