//! The tasks, their prompts, and a prompt's ids.

use std::ops::Range;

use crate::tokenizer::{IMAGE, Tokenizer};
use crate::{Error, MarkupStyle, Result};

/// What to ask of the model. The prompts are the ones it was trained with; it is sensitive to
/// their wording.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// The plain text, without layout: `Free OCR.`
    Text,
    /// The document as markdown, with the place and kind of each block.
    Markdown,
    /// The text piece by piece, with the place of each.
    Ocr,
    /// The content of a chart, a drawing or a formula: `Parse the figure.`
    Figure,
    /// A description of the picture.
    Describe,
    /// The place of the given text or thing.
    Locate(String),
    /// A prompt of your own. It may contain special tokens such as `<|grounding|>`, and one
    /// `<image>`; without it the image comes first, on a line of its own.
    Prompt(String),
}

impl Task {
    /// The prompt.
    ///
    /// # Errors
    /// The text to locate is blank, or would be taken for special tokens; an own prompt is blank.
    pub fn prompt(&self) -> Result<String> {
        let stock = |text: &str| Ok(format!("{IMAGE}\n{text}"));
        match self {
            Self::Text => stock("Free OCR."),
            Self::Markdown => stock("<|grounding|>Convert the document to markdown."),
            Self::Ocr => stock("<|grounding|>OCR this image."),
            Self::Figure => stock("Parse the figure."),
            Self::Describe => stock("Describe this image in detail."),
            Self::Locate(find) => {
                let find = find.trim();
                if find.is_empty() {
                    return Err(Error::EmptyLocate);
                }
                if let Some(found) = ["<|", "<｜", IMAGE].into_iter().find(|s| find.contains(s)) {
                    return Err(Error::SpecialInLocate { found });
                }
                stock(&format!("Locate <|ref|>{find}<|/ref|> in the image."))
            }
            Self::Prompt(prompt) if prompt.trim().is_empty() => Err(Error::EmptyPrompt),
            Self::Prompt(prompt) => Ok(prompt.clone()),
        }
    }

    /// The task's name, in lower case: `text`, `markdown`, `ocr`, `figure`, `describe`, `locate`
    /// or `prompt`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Ocr => "ocr",
            Self::Figure => "figure",
            Self::Describe => "describe",
            Self::Locate(_) => "locate",
            Self::Prompt(_) => "prompt",
        }
    }

    /// How the answer's markup is to be read; `None` where only the answer can tell, see
    /// [`Markup::style`](crate::Markup::style).
    pub fn markup_style(&self) -> Option<MarkupStyle> {
        match self {
            Self::Markdown => Some(MarkupStyle::Layout),
            Self::Ocr | Self::Locate(_) => Some(MarkupStyle::Lines),
            Self::Text | Self::Figure | Self::Describe | Self::Prompt(_) => None,
        }
    }
}

/// A prompt's ids, and where the image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIds {
    /// The ids, from the one that begins a text.
    pub ids: Vec<u32>,
    /// The positions in `ids` that image features replace.
    pub image: Range<usize>,
}

/// Encodes a prompt with room for `image_tokens` rows of image features.
///
/// This is the `plain` conversation template: the prompt is trimmed and stands alone, without
/// role tags. It is split at `<image>`, and the parts are encoded separately.
///
/// # Errors
/// The prompt is blank or has more than one `<image>`, or the tokenizer fails.
pub fn prompt_ids(tokenizer: &Tokenizer, prompt: &str, image_tokens: usize) -> Result<PromptIds> {
    let prompt = prompt.trim();
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    let with_image;
    let (before, after) = match prompt.split_once(IMAGE) {
        Some(parts) => parts,
        None => {
            with_image = format!("\n{prompt}");
            ("", with_image.as_str())
        }
    };
    let more = after.matches(IMAGE).count();
    if more > 0 {
        return Err(Error::TooManyImages { count: more + 1 });
    }
    let mut ids = vec![tokenizer.special().bos];
    ids.extend(tokenizer.encode(before)?);
    let start = ids.len();
    ids.extend(std::iter::repeat_n(tokenizer.special().image, image_tokens));
    let image = start..ids.len();
    ids.extend(tokenizer.encode(after)?);
    Ok(PromptIds { ids, image })
}
