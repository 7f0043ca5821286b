//! Text to token ids and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::DecoderWrapper;

use crate::stream::TokenStream;
use crate::{Error, Result};

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
const PAD: &str = "<｜▁pad▁｜>";
pub(crate) const IMAGE: &str = "<image>";

/// The byte-level BPE tokenizer of a checkpoint, read from its `tokenizer.json`.
///
/// Decoding accepts any id. The model's head has more rows than the tokenizer has tokens, so
/// ids without a token can be generated; they decode to nothing.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
}

/// Ids of the tokens that the program itself deals with, looked up by their content.
///
/// Other tokens are found with [`Tokenizer::token_id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecialTokens {
    /// `<｜begin▁of▁sentence｜>`: once, at the start of every prompt.
    pub bos: u32,
    /// `<｜end▁of▁sentence｜>`: the model ends its answer with it.
    pub eos: u32,
    /// `<image>`: holds the place of one row of image features.
    pub image: u32,
    /// `<｜▁pad▁｜>`.
    pub pad: Option<u32>,
    /// `<td>`: a repetition guard must allow it, since empty cells repeat.
    pub td: Option<u32>,
    /// `</td>`: see [`SpecialTokens::td`].
    pub td_end: Option<u32>,
}

/// What decoding does with special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Write them as text. Markup and table cells are special tokens, so answers need this.
    Keep,
    /// Leave them all out, `<td>` and `<tr>` too.
    Skip,
}

/// Decoded text that knows where each token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The text, with special tokens written out.
    pub text: String,
    /// For each id the byte offset in `text` where it ends.
    ///
    /// Never decreasing, always on a character boundary, the last one `text.len()`. A character
    /// that is spread over several tokens ends with the last of them.
    pub ends: Vec<usize>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file cannot be read, is no tokenizer, is not byte-level, or lacks the tokens for the
    /// begin and end of a text or for an image.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::ReadTokenizer {
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&bytes)
    }

    /// Reads a tokenizer from the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_file`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut inner = unpanicked(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|source| Error::ParseTokenizer { source })?;
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(Error::NotByteLevel);
        }
        // A prompt is never cut or padded silently, whatever the file says.
        inner
            .with_truncation(None)
            .map_err(|source| Error::ParseTokenizer { source })?
            .with_padding(None);
        let required = |token: &'static str| {
            inner
                .token_to_id(token)
                .ok_or(Error::MissingToken { token })
        };
        let special = SpecialTokens {
            bos: required(BOS)?,
            eos: required(EOS)?,
            image: required(IMAGE)?,
            pad: inner.token_to_id(PAD),
            td: inner.token_to_id("<td>"),
            td_end: inner.token_to_id("</td>"),
        };
        Ok(Self { inner, special })
    }

    /// Ids of the tokens that the program itself deals with.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id of one token, given as it stands in `tokenizer.json`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Encodes a text. No token is added at its ends; special tokens that are written in the
    /// text become their one id.
    ///
    /// # Errors
    /// The tokenizer fails, which a byte-level one does for no text known.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = unpanicked(|| self.inner.encode_fast(text, false))
            .map_err(|source| Error::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes ids. Bytes that form no character become U+FFFD.
    pub fn decode(&self, ids: &[u32], special: Special) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            self.append_bytes(id, special, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Decodes ids, with special tokens kept, and tells where each id ends in the text.
    pub fn decode_spans(&self, ids: &[u32]) -> Decoded {
        let mut bytes = Vec::new();
        let mut byte_ends = Vec::with_capacity(ids.len());
        for &id in ids {
            self.append_bytes(id, Special::Keep, &mut bytes);
            byte_ends.push(bytes.len());
        }
        Decoded::new(&bytes, byte_ends)
    }

    /// Decodes ids one at a time, for live output.
    pub fn stream(&self, special: Special) -> TokenStream<'_> {
        TokenStream::new(self, special)
    }

    /// Appends the bytes that an id stands for; nothing for an id without a token.
    pub(crate) fn append_bytes(&self, id: u32, special: Special, out: &mut Vec<u8>) {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        if let Some(token) = added.get(&id) {
            if special == Special::Keep || !token.special {
                out.extend_from_slice(token.content.as_bytes());
            }
        } else if let Some(token) = self.inner.id_to_token(id) {
            match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                Some(bytes) => out.extend(bytes),
                None => out.extend_from_slice(token.as_bytes()),
            }
        }
    }
}

/// Calls the library, which panics on some files that no tokenizer of this family is like.
fn unpanicked<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // A tokenizer has no state but a cache, which it goes without when its lock is poisoned.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("its library gave up on it".into()))
}

/// The byte that a character of a byte-level vocabulary stands for.
///
/// Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, are written
/// as U+0100 to U+0143.
fn byte_of(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        own @ (33..=126 | 161..=172 | 174..=255) => own,
        low @ 256..=288 => low - 256,
        middle @ 289..=322 => middle - 289 + 127,
        323 => 173,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

impl Decoded {
    /// Converts bytes to text, and offsets in the bytes (never decreasing) to offsets in the text.
    fn new(bytes: &[u8], byte_ends: Vec<usize>) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut ends = Vec::with_capacity(byte_ends.len());
        let mut byte_ends = byte_ends.into_iter().peekable();
        let mut start = 0; // of the chunk, in the bytes
        for chunk in bytes.utf8_chunks() {
            let (valid, invalid) = (chunk.valid(), chunk.invalid());
            while let Some(end) = byte_ends.next_if(|&end| end <= start + valid.len()) {
                ends.push(text.len() + floor_boundary(valid, end - start));
            }
            text.push_str(valid);
            start += valid.len();
            if !invalid.is_empty() {
                while byte_ends
                    .next_if(|&end| end < start + invalid.len())
                    .is_some()
                {
                    ends.push(text.len());
                }
                text.push(char::REPLACEMENT_CHARACTER);
                start += invalid.len();
            }
        }
        ends.extend(byte_ends.map(|_| text.len()));
        Self { text, ends }
    }

    /// The ids whose text overlaps a byte range of `text`, as a range of positions in the ids.
    ///
    /// Leading tokens of a character that is spread over several belong to that character.
    pub fn ids_of(&self, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
        // The id that ends at the span's start, if any, and those before it lie outside.
        let first = match self.ends.partition_point(|&end| end < span.start) {
            0 if span.start == 0 => 0,
            i if self.ends.get(i) == Some(&span.start) => i + 1,
            i => i,
        };
        if span.is_empty() {
            return first..first;
        }
        let last = self.ends.partition_point(|&end| end < span.end);
        first..(last + 1).min(self.ends.len()).max(first)
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut seen = [0; 256];
        for c in '\0'..='\u{fff}' {
            if let Some(byte) = byte_of(c) {
                seen[usize::from(byte)] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('｜'), None);
    }

    #[test]
    fn ends_of_split_and_broken_characters() {
        // "a", then € over three ids, an id without a token, a lone continuation byte, an
        // unfinished character over two ids.
        let decoded = Decoded::new(
            b"a\xe2\x82\xac\x80b\xe2\x82",
            vec![1, 2, 3, 4, 4, 5, 6, 7, 8],
        );
        assert_eq!(decoded.text, "a€\u{fffd}b\u{fffd}");
        assert_eq!(decoded.ends, [1, 1, 1, 4, 4, 7, 8, 8, 11]);
    }

    #[test]
    fn ids_of_a_span() {
        let decoded = Decoded::new("ab€cd".as_bytes(), vec![0, 2, 3, 4, 5, 6, 7]);
        assert_eq!(decoded.ends, [0, 2, 2, 2, 5, 6, 7]);
        assert_eq!(decoded.ids_of(0..7), 0..7);
        assert_eq!(decoded.ids_of(0..2), 0..2);
        assert_eq!(decoded.ids_of(2..5), 2..5, "all three bytes of €");
        assert_eq!(decoded.ids_of(1..2), 1..2, "inside a token");
        assert_eq!(decoded.ids_of(5..6), 5..6);
        assert_eq!(decoded.ids_of(6..7), 6..7);
        assert_eq!(decoded.ids_of(5..5), 5..5);
        assert_eq!(decoded.ids_of(7..9), 7..7, "beyond the text");
    }
}
