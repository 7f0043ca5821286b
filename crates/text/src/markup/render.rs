//! From marked-up text to text for people.

use super::{Entry, Markup};

/// Writes a text of [`MarkupStyle::Layout`](super::MarkupStyle::Layout) as markdown.
///
/// Each box of an image entry becomes what `figure` makes of it: usually a link such as
/// `![](images/0.jpg)` and a newline. `figure` gets the figure's index on the page (see
/// [`Markup::figures`]) and its entry. Other entries vanish, and their content stays.
/// `\coloneqq` becomes `:=` and `\eqqcolon` becomes `=:`, since markdown viewers lack both.
///
/// Three faults of the reference implementation are not repeated. It numbers figure files by
/// box but their links by entry, so that they drift apart when an entry has several boxes. It
/// replaces equal entries all at once, so that the second gets the first one's link. And it
/// replaces the two operators only where a text has an entry that is not an image.
///
/// Blank lines stay as they are: see [`collapse_blank_lines`]. `text` is the text that was
/// parsed. Finish with [`clean`].
pub fn markdown(
    text: &str,
    markup: &Markup,
    mut figure: impl FnMut(usize, &Entry) -> String,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut index = 0;
    for (before, entry) in pieces(text, markup) {
        out.push_str(
            &before
                .replace("\\coloneqq", ":=")
                .replace("\\eqqcolon", "=:"),
        );
        if let Some(entry) = entry.filter(|entry| entry.is_image()) {
            for _ in &entry.boxes {
                out.push_str(&figure(index, entry));
                index += 1;
            }
        }
    }
    out
}

/// Writes a text of [`MarkupStyle::Lines`](super::MarkupStyle::Lines): each label on a line of
/// its own, and any text outside of entries in its place.
///
/// `text` is the text that was parsed. Finish with [`clean`].
pub fn lines(text: &str, markup: &Markup) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_label = false;
    for (before, entry) in pieces(text, markup) {
        if !before.is_empty() {
            if after_label && !before.starts_with('\n') {
                out.push('\n');
            }
            out.push_str(before);
            after_label = false;
        }
        if let Some(entry) = entry.filter(|entry| !entry.label.is_empty()) {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&entry.label);
            after_label = true;
        }
    }
    out
}

/// Each entry with the text before it, then the text after the last.
fn pieces<'a>(
    text: &'a str,
    markup: &'a Markup,
) -> impl Iterator<Item = (&'a str, Option<&'a Entry>)> {
    let mut from = 0;
    let entries = markup.entries.iter().map(Some);
    entries.chain([None]).map(move |entry| {
        let to = entry.map_or(text.len(), |entry| entry.span.start);
        let before = text.get(from..to).unwrap_or_default();
        from = entry.map_or(to, |entry| entry.span.end);
        (before, entry)
    })
}

/// Shortens runs of three and more newlines to two, that is, to one blank line.
///
/// Deleted entries leave such runs behind. Of the reference's scripts only the one for PDFs does
/// this, and only for runs of up to four, so it is a step of its own here.
pub fn collapse_blank_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut newlines = 0;
    for c in text.chars() {
        newlines = if c == '\n' { newlines + 1 } else { 0 };
        if newlines <= 2 {
            out.push(c);
        }
    }
    out
}

/// Special tokens that are no part of a page's text. `<image>` and the table tags are, and stay.
const CONTROL: [&str; 8] = [
    "<|ref|>",
    "<|/ref|>",
    "<|det|>",
    "<|/det|>",
    "<|grounding|>",
    "<|User|>",
    "<|Assistant|>",
    "<|EOT|>",
];

/// Removes control tokens, such as the final `<｜end▁of▁sentence｜>` and the stray tags of
/// malformed markup, and trims white space at both ends.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find('<').and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        let skip = control_len(from);
        if skip == 0 {
            out.push('<');
        }
        rest = from.get(skip.max(1)..).unwrap_or_default();
    }
    out.push_str(rest);
    out.trim().to_owned()
}

/// The length of the control token that a text begins with, or 0.
fn control_len(text: &str) -> usize {
    if let Some(token) = CONTROL.iter().find(|token| text.starts_with(**token)) {
        return token.len();
    }
    // `<｜name｜>`, with full-width bars: the family's older tokens.
    let after_name = text
        .strip_prefix("<｜")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '▁'))
        .and_then(|rest| rest.strip_prefix("｜>"));
    after_name.map_or(0, |rest| text.len() - rest.len())
}
