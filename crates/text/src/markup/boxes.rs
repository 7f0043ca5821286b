//! Boxes: their list notation and their coordinates.

use std::ops::Range;

use super::MarkupWarningKind as Kind;

/// The largest coordinate: 0 is the left or top edge of the image, 999 the right or bottom one.
const MAX: f64 = 999.0;

/// A box in thousandths of the image, whatever its size: each coordinate lies in 0 to 999.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormBox {
    /// Left edge.
    pub x0: f64,
    /// Top edge.
    pub y0: f64,
    /// Right edge, not less than `x0`.
    pub x1: f64,
    /// Bottom edge, not less than `y0`.
    pub y1: f64,
}

impl NormBox {
    /// The box `[x0, y0, x1, y1]` in pixels of an image: ⌊v / 999 · size⌋, in double precision.
    ///
    /// The size is that of the original image (upright), in every resolution mode: the model's
    /// coordinates take no notice of padding or tiles.
    pub fn to_pixels(&self, width: u32, height: u32) -> [u32; 4] {
        let scale = |v: f64, size: u32| (v / MAX * f64::from(size)) as u32;
        [
            scale(self.x0, width),
            scale(self.y0, height),
            scale(self.x1, width),
            scale(self.y1, height),
        ]
    }
}

/// What was read of a list of boxes.
pub(super) struct BoxList {
    pub boxes: Vec<NormBox>,
    /// Whether the whole range was one well-formed list.
    pub complete: bool,
    /// Offset in the text where the list ends, or where it stops being one.
    pub end: usize,
}

/// Reads the boxes in a range of the text: bracketed groups of four numbers, nested to any
/// depth, separated by commas or white space. So `[[1, 2, 3, 4], [5, 6, 7, 8]]`, a single flat
/// `[1,2,3,4]`, and tuples all read alike.
pub(super) fn parse(
    text: &str,
    range: Range<usize>,
    warn: &mut impl FnMut(Kind, Range<usize>),
) -> BoxList {
    let source = text.get(range.clone()).unwrap_or_default();
    let mut boxes = Vec::new();
    let mut group = Group::default();
    let (mut depth, mut at, mut list_end) = (0_usize, 0, 0);
    while let Some(&byte) = source.as_bytes().get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => at += 1,
            b'[' | b'(' if group.len == 0 => {
                depth += 1;
                at += 1;
            }
            b']' | b')' if depth > 0 => {
                let span = range.start + group.start..range.start + at;
                boxes.extend(std::mem::take(&mut group).close(span, warn));
                depth -= 1;
                at += 1;
                list_end = at;
            }
            b'0'..=b'9' | b'+' | b'-' | b'.' if depth > 0 => {
                let number = number_at(source, at);
                let Ok(value) = number.parse() else { break };
                group.push(value, at);
                at += number.len();
            }
            _ => break,
        }
    }
    let end = range.start + if depth == 0 { list_end } else { at };
    let complete = depth == 0 && list_end > 0 && at == source.len();
    BoxList {
        boxes,
        complete,
        end,
    }
}

/// The longest run of characters at an offset that a decimal number may consist of.
fn number_at(source: &str, at: usize) -> &str {
    let rest = source.get(at..).unwrap_or_default();
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    rest.get(..len).unwrap_or_default()
}

/// The numbers since the last bracket.
#[derive(Default)]
struct Group {
    /// Offset of the first one.
    start: usize,
    /// How many there are.
    len: usize,
    /// The first four.
    values: [f64; 4],
}

impl Group {
    fn push(&mut self, value: f64, at: usize) {
        if self.len == 0 {
            self.start = at;
        }
        if let Some(slot) = self.values.get_mut(self.len) {
            *slot = value;
        }
        self.len += 1;
    }

    /// The group as a box, if it is one.
    fn close(
        self,
        span: Range<usize>,
        warn: &mut impl FnMut(Kind, Range<usize>),
    ) -> Option<NormBox> {
        match self.len {
            0 => return None, // an outer bracket
            4 => {}
            _ => {
                warn(Kind::NotFourNumbers, span);
                return None;
            }
        }
        let clamped = self.values.map(|v| v.clamp(0.0, MAX));
        if clamped != self.values {
            warn(Kind::OutOfRange, span.clone());
        }
        let [x0, y0, x1, y1] = clamped;
        if x1 < x0 || y1 < y0 {
            warn(Kind::InvertedBox, span);
            return None;
        }
        Some(NormBox { x0, y0, x1, y1 })
    }
}
