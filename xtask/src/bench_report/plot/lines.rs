//! Lines over numbers that double, as batch sizes do.

use super::{
    super::figures,
    axis::Axis,
    canvas::{Anchor, Canvas, GRID, LETTER, STRONG, TEXT},
};

pub struct Line {
    pub name: String,
    pub color: &'static str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

pub struct Lines<'a> {
    pub title: &'a str,
    /// What lies on the axis from left to right, and on the one upwards.
    pub across: &'a str,
    pub up: &'a str,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const TOP: f64 = 100.0;
const BOTTOM: f64 = HEIGHT - 56.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 48.0;

impl Lines<'_> {
    /// The plot, if there is a point.
    pub fn draw(self) -> Option<String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let values: Vec<f64> = points().map(|(_, y)| *y).collect();
        let axis = Axis::new(&values, true)?;
        let mut across: Vec<f64> = points().map(|(x, _)| *x).collect();
        across.sort_by(f64::total_cmp);
        across.dedup();
        let (first, last) = (across.first()?.log2(), across.last()?.log2());
        let x = |value: f64| match last > first {
            true => LEFT + 24.0 + (RIGHT - LEFT - 48.0) * (value.log2() - first) / (last - first),
            false => (LEFT + RIGHT) / 2.0,
        };
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * axis.place(value);

        let mut canvas = Canvas::new(WIDTH, HEIGHT, self.title);
        let entries = self
            .lines
            .iter()
            .map(|line| (line.name.clone(), line.color));
        canvas.legend(&entries.collect::<Vec<_>>());
        for (value, name) in axis.ticks() {
            canvas.line((LEFT, y(value)), (RIGHT, y(value)), GRID);
            canvas.text((LEFT - 8.0, y(value) + 4.0), Anchor::End, TEXT, &name);
        }
        let name = format!("{}{}", self.up, axis.note());
        canvas.text((16.0, TOP - 22.0), Anchor::Start, TEXT, &name);
        for value in &across {
            canvas.line((x(*value), BOTTOM), (x(*value), BOTTOM + 5.0), STRONG);
            let name = format!("{value}");
            canvas.text((x(*value), BOTTOM + 20.0), Anchor::Middle, TEXT, &name);
        }
        let middle = ((LEFT + RIGHT) / 2.0, BOTTOM + 42.0);
        canvas.text(middle, Anchor::Middle, TEXT, self.across);
        canvas.line((LEFT, TOP), (LEFT, BOTTOM), STRONG);
        canvas.line((LEFT, BOTTOM), (RIGHT, BOTTOM), STRONG);
        let place = |(at, value): &(f64, f64)| (x(*at), y(*value));
        for line in &self.lines {
            let places: Vec<(f64, f64)> = line.points.iter().map(place).collect();
            canvas.curve(&places, line.color);
        }
        for line in &self.lines {
            for point in &line.points {
                let ((at, above), text) = (place(point), figures::number(point.1, 3));
                // What is drawn below a number is not to strike it through.
                let size = (LETTER * text.len() as f64 + 2.0, 14.0);
                canvas.rect((at - size.0 / 2.0, above - 21.0), size, "#ffffff");
                canvas.text((at, above - 10.0), Anchor::Middle, line.color, &text);
            }
        }
        Some(canvas.finish())
    }
}
