//! Rectangles, lines and texts.

use std::fmt::Write;

/// What each plot's file begins with, so that those which are made no more can be told and removed.
pub const MADE: &str = "<!-- Made by cargo xtask bench-report -->\n";

pub const TEXT: &str = "#24292f";
pub const GRID: &str = "#d8dee4";
/// Of lines that a reader is to see: axes and marks.
pub const STRONG: &str = "#57606a";

/// About how wide a letter is.
pub const LETTER: f64 = 7.0;
const FONT: f64 = 12.0;

/// Where a text begins, or what it is beside.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A plot that is being drawn, on white whatever the page's colour.
pub struct Canvas {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Canvas {
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut canvas = Self {
            width,
            height,
            title: escaped(title),
            body: String::new(),
        };
        canvas.rect((0.0, 0.0), (width, height), "#ffffff");
        let _ = writeln!(
            canvas.body,
            r#"<text x="16" y="26" font-size="15" font-weight="bold">{}</text>"#,
            canvas.title
        );
        canvas
    }

    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#,
        );
    }

    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), color: &str) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}"/>"#,
        );
    }

    /// A thick line through points, with a dot at each.
    pub fn curve(&mut self, points: &[(f64, f64)], color: &str) {
        let shown = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        let shown = shown.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            self.body,
            r#"<polyline points="{shown}" fill="none" stroke="{color}" stroke-width="2"/>"#
        );
        for (x, y) in points {
            let _ = writeln!(
                self.body,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{color}"/>"#
            );
        }
    }

    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, color: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{color}">{}</text>"#,
            escaped(text)
        );
    }

    /// A row of colours and what they stand for, below the title.
    pub fn legend(&mut self, entries: &[(String, &str)]) {
        let mut x = 16.0;
        for (name, color) in entries {
            self.rect((x, 38.0), (12.0, 12.0), color);
            self.text((x + 18.0, 48.0), Anchor::Start, TEXT, name);
            x += 40.0 + LETTER * name.chars().count() as f64;
        }
    }

    pub fn finish(self) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        let size = format!(r#"width="{width:.0}" height="{height:.0}""#);
        let view = format!(r#"viewBox="0 0 {width:.0} {height:.0}""#);
        let font = format!(r#"font-family="sans-serif" font-size="{FONT}" fill="{TEXT}""#);
        format!(
            "{MADE}<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {view} {font} role=\"img\">\n\
             <title>{title}</title>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
