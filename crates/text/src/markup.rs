//! Grounding markup: which text stands where on the page.
//!
//! With grounding, the model writes entries of the form
//! `<|ref|>LABEL<|/ref|><|det|>[[x1, y1, x2, y2], …]<|/det|>`. The parser is a hand-written
//! scanner that takes time linear in the text, whatever the text is.

mod boxes;
mod render;

use std::fmt;
use std::ops::Range;

pub use boxes::NormBox;
pub use render::{clean, collapse_blank_lines, lines, markdown};

/// The entries of a text and what was wrong with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Markup {
    /// The entries, in the order of the text. Their spans do not overlap.
    pub entries: Vec<Entry>,
    /// What was malformed.
    pub warnings: Vec<MarkupWarning>,
}

/// One label with its boxes. All ranges are byte ranges of the parsed text, on character
/// boundaries.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The text between `<|ref|>` and `<|/ref|>`: a kind of block such as `title` or `image`
    /// ([`MarkupStyle::Layout`]), or recognised text ([`MarkupStyle::Lines`]).
    pub label: String,
    /// The well-formed boxes. May be empty.
    pub boxes: Vec<NormBox>,
    /// The whole entry, tags included.
    pub span: Range<usize>,
    /// The label without its tags.
    pub label_span: Range<usize>,
    /// What follows the entry, up to the next one or the end. Pass it through [`clean`].
    pub content: Range<usize>,
}

impl Entry {
    /// Whether the label is exactly `image`: a figure, to be cut out of the page.
    pub fn is_image(&self) -> bool {
        self.label == "image"
    }
}

/// How labels are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkupStyle {
    /// The label is the kind of a block, and the block's text follows the entry.
    Layout,
    /// The label is the recognised text.
    Lines,
}

/// Something malformed in the markup. Holds no text of the page, so it can be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkupWarning {
    /// What is wrong.
    pub kind: MarkupWarningKind,
    /// Where, as a byte range of the parsed text.
    pub span: Range<usize>,
}

/// What can be wrong with markup, and what the parser did about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkupWarningKind {
    /// `<|ref|>` without `<|/ref|>` before the next tag. It makes no entry; the text stays.
    UnclosedRef,
    /// A closed label without `<|det|>` after it. It makes no entry; the text stays.
    RefWithoutBoxes,
    /// A tag that belongs to no entry.
    StrayTag,
    /// The text ends, or another entry begins, inside the boxes. The entry is kept with the
    /// boxes that were complete.
    UnclosedBoxes,
    /// The boxes are not a list of numbers. Those before the fault are kept.
    MalformedBoxes,
    /// A box without exactly four numbers; dropped.
    NotFourNumbers,
    /// A coordinate outside 0 to 999; moved to the nearest.
    OutOfRange,
    /// A box whose right or bottom edge lies before its left or top one; dropped.
    InvertedBox,
}

impl fmt::Display for MarkupWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            MarkupWarningKind::UnclosedRef => "<|ref|> is not closed",
            MarkupWarningKind::RefWithoutBoxes => "a label has no boxes",
            MarkupWarningKind::StrayTag => "a tag belongs to no entry",
            MarkupWarningKind::UnclosedBoxes => "<|det|> is not closed",
            MarkupWarningKind::MalformedBoxes => "boxes are not a list of numbers",
            MarkupWarningKind::NotFourNumbers => "a box without four numbers was dropped",
            MarkupWarningKind::OutOfRange => "a coordinate outside 0 to 999 was moved inside",
            MarkupWarningKind::InvertedBox => "a box that ends before it starts was dropped",
        };
        write!(
            f,
            "markup: {what} (bytes {} to {})",
            self.span.start, self.span.end
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Ref,
    RefEnd,
    Det,
    DetEnd,
}

impl Tag {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Ref, "<|ref|>"),
        (Self::RefEnd, "<|/ref|>"),
        (Self::Det, "<|det|>"),
        (Self::DetEnd, "<|/det|>"),
    ];
}

/// All tags of a text with their places.
fn tags(text: &str) -> Vec<(Tag, Range<usize>)> {
    text.match_indices("<|")
        .filter_map(|(at, _)| {
            let rest = text.get(at..)?;
            let (tag, name) = Tag::ALL.iter().find(|(_, name)| rest.starts_with(name))?;
            Some((*tag, at..at + name.len()))
        })
        .collect()
}

/// Finds the entries of a decoded text, special tokens kept.
///
/// An entry is four tags in order with only white space between the label and its boxes, and
/// with no other tag inside the label or the boxes. Text that ends inside the boxes, as when
/// generation stops at its limit, still makes an entry.
pub fn parse(text: &str) -> Markup {
    let tags = tags(text);
    let mut markup = Markup {
        entries: Vec::new(),
        warnings: Vec::new(),
    };
    let mut rest = tags.as_slice();
    while let Some(used) = parse_entry(text, rest, &mut markup) {
        rest = rest.get(used..).unwrap_or_default();
    }
    let starts = markup.entries.iter().skip(1).map(|entry| entry.span.start);
    let content_ends: Vec<usize> = starts.chain([text.len()]).collect();
    for (entry, end) in markup.entries.iter_mut().zip(content_ends) {
        entry.content = entry.span.end..end;
    }
    markup
}

/// Parses what begins at the first tag, and gives the number of tags that it used up.
fn parse_entry(text: &str, tags: &[(Tag, Range<usize>)], markup: &mut Markup) -> Option<usize> {
    use MarkupWarningKind as Kind;
    let (first, open) = tags.first()?;
    let mut warn = |kind, span| markup.warnings.push(MarkupWarning { kind, span });
    if *first != Tag::Ref {
        warn(Kind::StrayTag, open.clone());
        return Some(1);
    }
    let Some((Tag::RefEnd, close)) = tags.get(1) else {
        warn(Kind::UnclosedRef, open.clone());
        return Some(1);
    };
    let label_span = open.end..close.start;

    // Where the boxes begin, where they must end, and whether `<|/det|>` stands there.
    let blank = |range: Range<usize>| text.get(range).is_some_and(|s| s.trim().is_empty());
    let (list, end, used) = match (tags.get(2), tags.get(3)) {
        (Some((Tag::Det, det)), next) if blank(close.end..det.start) => match next {
            Some((Tag::DetEnd, det_end)) => (det.end..det_end.start, Some(det_end.end), 4),
            Some((_, other)) => (det.end..other.start, None, 3),
            None => (det.end..text.len(), None, 3),
        },
        (None, _) if blank(close.end..text.len()) => (text.len()..text.len(), None, 2),
        _ => {
            warn(Kind::RefWithoutBoxes, open.start..close.end);
            return Some(2);
        }
    };

    let parsed = boxes::parse(text, list.clone(), &mut warn);
    let end = match end {
        Some(end) => {
            if !parsed.complete {
                warn(Kind::MalformedBoxes, list);
            }
            end
        }
        None => {
            warn(Kind::UnclosedBoxes, open.start..parsed.end);
            parsed.end
        }
    };
    markup.entries.push(Entry {
        label: text.get(label_span.clone()).unwrap_or_default().to_owned(),
        boxes: parsed.boxes,
        span: open.start..end,
        label_span,
        content: end..end,
    });
    Some(used)
}

impl Markup {
    /// Reads the style off the entries: [`MarkupStyle::Layout`] if any has text after it.
    ///
    /// `text` is the text that was parsed.
    pub fn style(&self, text: &str) -> MarkupStyle {
        let has_content = |entry: &Entry| {
            let content = text.get(entry.content.clone()).unwrap_or_default();
            // What follows a label that was cut off is not this entry's content.
            let content = content.split("<|ref|>").next().unwrap_or_default();
            !clean(content).is_empty()
        };
        if self.entries.iter().any(has_content) {
            MarkupStyle::Layout
        } else {
            MarkupStyle::Lines
        }
    }

    /// The figures of the page: each box of each image entry. A figure's place in this sequence
    /// is the index that [`markdown`] gives to its callback.
    pub fn figures(&self) -> impl Iterator<Item = (&Entry, NormBox)> {
        let images = self.entries.iter().filter(|entry| entry.is_image());
        images.flat_map(|entry| entry.boxes.iter().map(move |area| (entry, *area)))
    }
}
