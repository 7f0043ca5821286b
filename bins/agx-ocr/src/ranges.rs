//! Which pages of a document are read.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A page or a range of pages, counted from 1: `7`, `1-3`, `5-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRange(RangeInclusive<usize>);

impl FromStr for PageRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.trim().parse() {
            Ok(0) => Err("pages are counted from 1".to_owned()),
            Ok(number) => Ok(number),
            Err(_) => Err(format!("{text:?} is no page number")),
        };
        let (first, last) = match text.split_once('-') {
            None => (number(text)?, number(text)?),
            Some((first, "")) => (number(first)?, usize::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        if first > last {
            return Err(format!("page {first} comes after page {last}"));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self.0.start(), *self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, usize::MAX) => write!(f, "{first}-"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// The pages of a document with `pages` that the ranges name, in the document's order; all if
/// there is no range.
///
/// # Errors
/// The range that names a page that is not there. The end of `5-` is wherever the document ends.
pub fn chosen(ranges: &[PageRange], pages: usize) -> Result<Vec<usize>, PageRange> {
    let beyond = |PageRange(range): &&PageRange| {
        let last = *range.end();
        *range.start() > pages || (last != usize::MAX && last > pages)
    };
    if let Some(range) = ranges.iter().find(beyond) {
        return Err(range.clone());
    }
    let named = |page: &usize| ranges.iter().any(|PageRange(range)| range.contains(page));
    Ok((1..=pages)
        .filter(|page| ranges.is_empty() || named(page))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<PageRange> {
        text.split(',')
            .map(|range| range.parse().unwrap())
            .collect()
    }

    #[test]
    fn pages_come_in_the_documents_order_and_once() {
        assert_eq!(chosen(&ranges("7,1-3,2"), 9).unwrap(), [1, 2, 3, 7]);
        assert_eq!(chosen(&ranges("8-"), 9).unwrap(), [8, 9]);
        assert_eq!(chosen(&[], 3).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn pages_that_are_not_there_are_named() {
        for text in ["4", "2-4", "4-", "1,9-10"] {
            let range = chosen(&ranges(text), 3).unwrap_err();
            assert!(text.ends_with(&range.to_string()), "{range} of {text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "0", "0-3", "3-2", "a", "1-b", "-3", "1..3", "1-2-3"] {
            assert!(text.parse::<PageRange>().is_err(), "{text}");
        }
    }
}
