//! The order in which characters stand on paper.

/// Whether a line is to be read from its right end: its first letter says so (UAX 9, P2 and P3).
pub(super) fn is_from_right(line: &[char]) -> bool {
    let mut kinds = line.iter().map(|c| kind(*c));
    kinds.find(|kind| kind.is_letter()) == Some(Kind::Right)
}

/// Puts characters from the order of reading into that from left to right, which is what readers
/// of PDFs expect.
///
/// This is the Unicode bidirectional algorithm (UAX 9) for letters, numbers and what is between
/// them; embeddings, isolates and pairs of brackets are not heeded. `from_right` says how the line
/// that they are from is read.
pub(super) fn left_to_right(text: &mut [char], from_right: bool) {
    if !text.iter().any(|c| kind(*c) == Kind::Right) {
        return;
    }
    let levels = levels(text, from_right);
    // Rule L2: whatever is at a level or above is reversed, from the highest level on. Each such
    // run lies inside of one of the next level, so the places hold.
    for level in [2, 1] {
        let mut from = 0;
        for run in levels.chunk_by(|a, b| (*a >= level) == (*b >= level)) {
            let to = from + run.len();
            if run[0] >= level {
                text[from..to].reverse();
            }
            from = to;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Left,
    Right,
    Number,
    /// Between numbers, or before or after one, part of it.
    InNumber,
    /// Part of the character before.
    Mark,
    Neutral,
}

impl Kind {
    fn is_letter(self) -> bool {
        matches!(self, Self::Left | Self::Right)
    }
}

fn kind(character: char) -> Kind {
    match character {
        '0'..='9' | '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}' => Kind::Number,
        ',' | '.' | ':' | '/' | '+' | '-' | '#' | '$' | '%' | '£' | '¥' | '€' | '°' => {
            Kind::InNumber
        }
        '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => Kind::Mark,
        '\u{590}'..='\u{8ff}'
        | '\u{fb1d}'..='\u{fdff}'
        | '\u{fe70}'..='\u{fefe}'
        | '\u{10800}'..='\u{10fff}'
        | '\u{1e800}'..='\u{1efff}' => Kind::Right,
        character if character.is_alphanumeric() => Kind::Left,
        _ => Kind::Neutral,
    }
}

/// How deep each character is embedded: 0 runs to the right, 1 to the left, 2 to the right again.
fn levels(text: &[char], from_right: bool) -> Vec<u8> {
    let mut kinds: Vec<Kind> = text.iter().map(|c| kind(*c)).collect();
    // Rules W1, W4 and W5.
    for i in 0..kinds.len() {
        let before = i.checked_sub(1).map(|i| kinds[i]);
        if kinds[i] == Kind::Mark {
            kinds[i] = before.unwrap_or(Kind::Neutral);
        } else if kinds[i] == Kind::InNumber {
            let after = kinds.get(i + 1).copied();
            let inner = matches!(text[i], ',' | '.' | ':' | '/');
            let numbers = [before, after].map(|kind| kind == Some(Kind::Number));
            let part = match numbers {
                [true, true] => true,
                [a, b] => !inner && (a || b),
            };
            kinds[i] = if part { Kind::Number } else { Kind::Neutral };
        }
    }
    // Rule W7: a number after a word runs with it.
    let base = if from_right { Kind::Right } else { Kind::Left };
    let mut letters = base;
    for kind in &mut kinds {
        match kind {
            Kind::Left | Kind::Right => letters = *kind,
            Kind::Number if letters == Kind::Left => *kind = Kind::Left,
            _ => {}
        }
    }
    // Rules N1 and N2: what is between two of a direction takes it. Numbers count as right.
    let direction = |kind| match kind {
        Kind::Left => Kind::Left,
        _ => Kind::Right,
    };
    let mut start = 0;
    while start < kinds.len() {
        let neutral = |kind: &Kind| *kind == Kind::Neutral;
        let length = kinds[start..]
            .iter()
            .take_while(|kind| neutral(kind))
            .count();
        let end = start + length;
        let before = start.checked_sub(1).map_or(base, |i| direction(kinds[i]));
        let after = kinds.get(end).map_or(base, |kind| direction(*kind));
        let taken = if before == after { before } else { base };
        kinds[start..end].fill(taken);
        start = end + 1;
    }
    // Rules I1 and I2.
    let level = |kind: &Kind| match (kind, from_right) {
        (Kind::Left, false) => 0,
        (Kind::Left | Kind::Number, _) => 2,
        _ => 1,
    };
    kinds.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it stands, with capital letters for those that run to the left.
    fn stands(text: &str) -> String {
        let hebrew = |c: char| match c {
            'A'..='Z' => char::from_u32(u32::from(c) - u32::from('A') + 0x5d0).unwrap(),
            c => c,
        };
        let mut text: Vec<char> = text.chars().map(hebrew).collect();
        let from_right = is_from_right(&text);
        left_to_right(&mut text, from_right);
        let capital = |c: char| match u32::from(c) {
            code @ 0x5d0..0x5ea => char::from_u32(code - 0x5d0 + u32::from('A')).unwrap(),
            _ => c,
        };
        text.into_iter().map(capital).collect()
    }

    #[test]
    fn runs_are_turned_where_they_run_to_the_left() {
        for (read, wanted) in [
            ("", ""),
            ("plain, 12.5!", "plain, 12.5!"),
            ("ABC", "CBA"),
            ("ABC DEF.", ".FED CBA"),
            ("car is THE CAR in hebrew", "car is RAC EHT in hebrew"),
            ("ABC car DEF", "FED car CBA"),
            ("ABC 123 DEF", "FED 123 CBA"),
            ("ABC 123 car DEF", "FED car 123 CBA"),
            ("ABC car 123 DEF", "FED car 123 CBA"),
            ("car ABC 123", "car 123 CBA"),
            ("ABC $1,284.50 DEF", "FED $1,284.50 CBA"),
            ("ABC 1, 2", "2 ,1 CBA"),
            ("car ABC, DEF.", "car FED ,CBA."),
            ("12 ABC", "CBA 12"),
            ("ABC e\u{301} D", "D e\u{301} CBA"),
        ] {
            assert_eq!(stands(read), wanted, "{read}");
        }
    }

    #[test]
    fn the_first_letter_says_where_a_line_begins() {
        let from_right = |text: &str| is_from_right(&text.chars().collect::<Vec<_>>());
        assert!(from_right("12. שלום car"));
        assert!(!from_right("12. car שלום"));
        assert!(!from_right("12"));
    }
}
