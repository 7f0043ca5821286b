//! What a person at a terminal sees while a page is read.

use agx_ocr_pipeline::{BatchEvent, Event};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeSet,
    fmt::Display,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

/// A line on standard error that tells what is being done; nothing where that is no terminal.
#[derive(Clone, Debug)]
pub struct Progress {
    line: ProgressBar,
    /// Before every message: which page it is about.
    page: String,
    first_token: Option<Instant>,
}

impl Progress {
    /// Begins the line, if it is `wanted`.
    pub fn new(wanted: bool) -> Self {
        let line = if wanted && io::stderr().is_terminal() {
            let line = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
                line.set_style(style);
            }
            line.enable_steady_tick(Duration::from_millis(100));
            line
        } else {
            ProgressBar::hidden()
        };
        Self {
            line,
            page: String::new(),
            first_token: None,
        }
    }

    /// Begins a page of a document.
    pub fn page(&mut self, number: usize, of: usize) {
        self.page = format!("page {number} of {of}: ");
        self.first_token = None;
    }

    /// Names what is done from now on.
    pub fn stage(&self, what: impl Display) {
        self.line.set_message(format!("{}{what}", self.page));
    }

    /// Shows how far the reading is.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Image { .. } => self.stage("looking at the page"),
            Event::View { done, total } => {
                self.stage(format_args!("view {done} of {total}"));
            }
            Event::Prefill { .. } => self.stage("reading the prompt"),
            Event::Token { count, .. } => {
                let first = *self.first_token.get_or_insert_with(Instant::now);
                let seconds = first.elapsed().as_secs_f64();
                let rate = if seconds > 0.0 {
                    (*count as f64 - 1.0) / seconds
                } else {
                    0.0
                };
                self.stage(format_args!("{count} tokens, {rate:.0} a second"));
            }
            _ => {}
        }
    }
}

/// Several pages at a time, as a line that tells of them.
#[derive(Clone, Debug, Default)]
pub struct Together {
    read: usize,
    /// A page that is read once more is told of twice.
    under_way: BTreeSet<usize>,
    tokens: usize,
    first_token: Option<Instant>,
}

impl Together {
    /// Shows how far reading is.
    pub fn event(&mut self, event: &BatchEvent<'_>, progress: &Progress) {
        match event {
            BatchEvent::Page { index, event } => {
                self.under_way.insert(*index);
                if matches!(event, Event::Token { .. }) {
                    self.first_token.get_or_insert_with(Instant::now);
                    self.tokens += 1;
                }
            }
            BatchEvent::End { index, .. } => {
                self.under_way.remove(index);
                self.read += 1;
            }
            _ => {}
        }
        let seconds = self
            .first_token
            .map_or(0.0, |at| at.elapsed().as_secs_f64());
        let rate = self.tokens as f64 / seconds.max(0.1);
        progress.stage(format_args!(
            "{} pages read, {} being read, {rate:.0} tokens a second",
            self.read,
            self.under_way.len()
        ));
    }
}

impl Progress {
    /// Takes the line away, for all that share it.
    pub fn end(&self) {
        self.line.finish_and_clear();
    }
}
