//! Bars from left to right, those of one workload side by side.

use super::{
    super::results::Run,
    axis::Axis,
    canvas::{Anchor, Canvas, GRID, LETTER, STRONG, TEXT},
    color, legend,
};

/// A run's value.
pub struct Bar {
    pub run: usize,
    pub value: f64,
    pub interval: Option<(f64, f64)>,
    /// What is written behind the bar.
    pub text: String,
}

pub struct Bars<'a> {
    pub title: &'a str,
    /// What is measured, and how to read it.
    pub axis: &'a str,
    pub hint: &'a str,
    /// A value that gets a line of its own and lies on the axis in any case.
    pub mark: Option<f64>,
    pub may_be_logarithmic: bool,
    /// Workloads and their values.
    pub rows: Vec<(String, Vec<Bar>)>,
}

const WIDTH: f64 = 860.0;
/// Where bars end at most; values are written behind them.
const RIGHT: f64 = WIDTH - 90.0;
const TOP: f64 = 64.0;
const BAR: f64 = 14.0;
/// Between workloads.
const GAP: f64 = 8.0;
/// Below the bars: names of values, and what they are.
const BOTTOM: f64 = 52.0;

impl Bars<'_> {
    /// The plot, if there is a bar.
    pub fn draw(self, runs: &[Run]) -> Option<String> {
        let bars = || self.rows.iter().flat_map(|(_, bars)| bars);
        let highs = bars().filter_map(|bar| Some(bar.interval?.1));
        let values: Vec<f64> = bars().map(|bar| bar.value).chain(highs).collect();
        if values.is_empty() {
            return None;
        }
        let with_mark: Vec<f64> = values.into_iter().chain(self.mark).collect();
        let axis = Axis::new(&with_mark, self.may_be_logarithmic)?;
        let letters = self.rows.iter().map(|(label, _)| label.chars().count());
        let left = 28.0 + LETTER * letters.max().unwrap_or(0) as f64;
        let x = |value: f64| left + (RIGHT - left) * axis.place(value);
        let height: f64 = self.rows.iter().map(|(_, bars)| row_height(bars)).sum();
        let end = TOP + height;

        let mut canvas = Canvas::new(WIDTH, end + BOTTOM, self.title);
        canvas.legend(&legend(runs, |i| bars().any(|bar| bar.run == i)));
        for (value, name) in axis.ticks() {
            canvas.line((x(value), TOP), (x(value), end), GRID);
            canvas.text((x(value), end + 18.0), Anchor::Middle, TEXT, &name);
        }
        let middle = (left + RIGHT) / 2.0;
        let name = format!("{}{}; {}", self.axis, axis.note(), self.hint);
        canvas.text((middle, end + 40.0), Anchor::Middle, TEXT, &name);
        let mut y = TOP;
        for (label, bars) in &self.rows {
            let height = row_height(bars);
            let baseline = y + height / 2.0 + 4.0;
            canvas.text((left - 8.0, baseline), Anchor::End, TEXT, label);
            let mut top = y + GAP / 2.0;
            for bar in bars {
                draw(&mut canvas, bar, top, left, &x);
                top += BAR;
            }
            y += height;
        }
        canvas.line((left, TOP), (left, end), STRONG);
        if let Some(mark) = self.mark {
            canvas.line((x(mark), TOP), (x(mark), end), STRONG);
        }
        Some(canvas.finish())
    }
}

fn row_height(bars: &[Bar]) -> f64 {
    BAR * bars.len().max(1) as f64 + GAP
}

/// One bar, its interval and its value.
fn draw(canvas: &mut Canvas, bar: &Bar, top: f64, left: f64, x: &dyn Fn(f64) -> f64) {
    let size = (x(bar.value) - left, BAR - 2.0);
    canvas.rect((left, top + 1.0), size, color(bar.run));
    let mut end = x(bar.value);
    if let Some((low, high)) = bar.interval {
        let (low, high, middle) = (x(low), x(high), top + BAR / 2.0);
        canvas.line((low, middle), (high, middle), TEXT);
        for at in [low, high] {
            canvas.line((at, middle - 3.0), (at, middle + 3.0), TEXT);
        }
        end = end.max(high);
    }
    let at = (end + 6.0, top + BAR - 3.0);
    canvas.text(at, Anchor::Start, TEXT, &bar.text);
}
