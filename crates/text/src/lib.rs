//! Tokenizer, prompts and grounding markup of DeepSeek-OCR.
//!
//! What happens on the text side of reading a page:
//!
//! 1. A [`Task`] gives the prompt, and [`prompt_ids`] its ids with room for the image.
//! 2. The generated ids become text with [`Tokenizer::decode_spans`], or token by token with a
//!    [`TokenStream`].
//! 3. [`parse`] finds the grounding markup: labels, boxes, and what was malformed.
//! 4. [`markdown`] or [`lines`] writes the text without markup, and [`clean`] finishes it.
//!
//! ```
//! use agx_ocr_text::{clean, markdown, parse};
//!
//! let text = "<|ref|>title<|/ref|><|det|>[[61, 45, 812, 120]]<|/det|>\n# Report\n\
//!     <|ref|>image<|/ref|><|det|>[[125, 200, 680, 999]]<|/det|>";
//! let markup = parse(text);
//! assert_eq!(markup.entries[0].label, "title");
//! assert_eq!(markup.entries[0].boxes[0].to_pixels(480, 900), [29, 40, 390, 108]);
//!
//! let page = markdown(text, &markup, |i, _| format!("![](images/{i}.jpg)\n"));
//! assert_eq!(clean(&page), "# Report\n![](images/0.jpg)");
//! ```
//!
//! With a checkpoint at hand:
//!
//! ```no_run
//! use agx_ocr_text::{Task, Tokenizer, prompt_ids};
//!
//! let tokenizer = Tokenizer::from_file("models/deepseek-ocr/tokenizer.json".as_ref())?;
//! let prompt = prompt_ids(&tokenizer, &Task::Markdown.prompt()?, 273)?;
//! assert_eq!(prompt.image, 1..274);
//! # Ok::<(), agx_ocr_text::Error>(())
//! ```
//!
//! # Caveats
//!
//! Markup is recognised in the text, as in the reference: a page that shows `<|ref|>` in print
//! can look like markup. The parser never fails on it and loses no text outside of well-formed
//! tags; the boxes then mean nothing.

mod error;
mod markup;
mod prompt;
mod stream;
mod tokenizer;

pub use error::{Error, Result};
pub use markup::{
    Entry, Markup, MarkupStyle, MarkupWarning, MarkupWarningKind, NormBox, clean,
    collapse_blank_lines, lines, markdown, parse,
};
pub use prompt::{PromptIds, Task, prompt_ids};
pub use stream::TokenStream;
pub use tokenizer::{Decoded, Special, SpecialTokens, Tokenizer};

/// Runs the README's example as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
