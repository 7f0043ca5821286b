//! Rows: a line of text as it is laid out on its box.

use super::font::width;
use super::order::{is_from_right, left_to_right};

/// Characters from left to right.
pub(super) struct Row {
    /// The characters, in the order in which they stand.
    pub text: Vec<char>,
    /// The sum of their widths, as a multiple of the font's size; more than 0.
    pub width: f32,
    /// Whether the row is to be read from its right end.
    pub from_right: bool,
}

/// Breaks a line into rows of about equal length, as many as letters of usual proportions need to
/// fill a box `aspect` times as wide as high. Most lines are one row.
pub(super) fn rows(line: &str, aspect: f32) -> Vec<Row> {
    let characters: Vec<char> = line.chars().filter_map(written).collect();
    let from_right = is_from_right(&characters);
    let total: f32 = characters.iter().copied().map(width).sum();
    // Letters of the natural shape fill `total * size / count` along, and `size * count` down.
    let count = (total / aspect).sqrt().round().max(1.0);
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut along = 0.0;
    for character in characters {
        along += width(character);
        row.push(character);
        let full = along >= total * (rows.len() + 1) as f32 / count;
        // Between words, after tags of tables, or anywhere in scripts without spaces.
        if full && (matches!(character, ' ' | '>') || width(character) == 1.0) {
            rows.push(std::mem::take(&mut row));
        }
    }
    rows.push(row);
    let blank = |row: &Vec<char>| row.iter().all(|c| c.is_whitespace());
    let rows = rows.into_iter().filter(|row| !blank(row));
    rows.map(|mut text| {
        left_to_right(&mut text, from_right);
        Row {
            width: text.iter().copied().map(width).sum(),
            text,
            from_right,
        }
    })
    .collect()
}

/// The character that stands for one of the text, if any.
fn written(character: char) -> Option<char> {
    match character {
        '\t' => Some(' '),
        // Neither has a place in a `ToUnicode` map.
        '\u{feff}' | '\u{fffe}' => None,
        character if character.is_control() => None,
        character => Some(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str, aspect: f32) -> Vec<String> {
        let rows = rows(line, aspect).into_iter();
        rows.map(|row| row.text.into_iter().collect()).collect()
    }

    #[test]
    fn a_line_of_usual_proportions_is_one_row() {
        // 24 letters of half their height and 3 spaces: 13 heights wide.
        let line = "seven words, of any length";
        for aspect in [6.0, 13.0, 100.0, 1e6] {
            assert_eq!(texts(line, aspect), [line]);
        }
    }

    #[test]
    fn a_long_line_is_broken_between_words() {
        let line = "one two three four five six seven eight nine ten";
        assert_eq!(
            texts(line, 3.0),
            ["one two three four ", "five six seven ", "eight nine ten"]
        );
        assert_eq!(texts(line, 1e-6).concat(), line);
        assert_eq!(
            texts("语".repeat(90).as_str(), 10.0),
            vec!["语".repeat(30); 3]
        );
        assert_eq!(texts(&"x".repeat(90), 1.0), ["x".repeat(90)]);
        let table = "<td>1</td><td>2</td><td>3</td><td>4</td>";
        assert_eq!(
            texts(table, 5.0),
            ["<td>1</td><td>2</td>", "<td>3</td><td>4</td>"]
        );
    }

    #[test]
    fn every_row_says_where_its_line_begins() {
        let rows = rows("שלום one two three four five", 1.0);
        assert!(rows.len() > 2);
        assert!(rows.iter().all(|row| row.from_right));
    }

    #[test]
    fn what_cannot_be_seen_has_no_row() {
        assert!(texts("\u{0}\u{feff}", 1.0).is_empty());
        assert!(texts(" \t\u{3000}", 1.0).is_empty());
        assert_eq!(texts("\u{0}a\tb\u{7f}\u{85}\u{fffe}", 9.0), ["a b"]);
    }
}
