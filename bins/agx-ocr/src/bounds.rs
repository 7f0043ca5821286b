//! How much time and memory reading may take.

use crate::memory;
use std::time::{Duration, Instant};

/// How often it is looked whether they are kept. Memory is had at a few gigabytes a second: so much
/// more may be taken.
pub const PULSE: Duration = Duration::from_millis(20);

/// How much time and memory reading may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The time in all, once the model is loaded.
    pub time: Duration,
    /// Bytes of memory beside the model.
    pub memory: u64,
}

impl Bounds {
    /// What is said when the time is over.
    pub fn time_is_over(&self) -> String {
        let seconds = self.time.as_secs_f64();
        format!("the time of {seconds} s was over (--max-seconds)")
    }

    /// What is said when it takes more memory.
    pub fn memory_is_over(&self) -> String {
        let most = self.memory;
        format!("it takes more than {most} bytes of memory (--max-memory)")
    }
}

/// Bounds since reading began.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    pub bounds: Bounds,
    /// When the time is over, if ever.
    end: Option<Instant>,
}

impl Watch {
    /// Begins now, with so much more time.
    pub fn begin(bounds: Bounds, grace: Duration) -> Self {
        let end = Instant::now().checked_add(bounds.time.saturating_add(grace));
        Self { bounds, end }
    }

    /// How much time is left, if it ends.
    pub fn time_left(&self) -> Option<Duration> {
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        self.end.map(left)
    }

    /// What was exceeded by this process, together with a child.
    pub fn exceeded(&self, child: Option<u32>) -> Option<String> {
        if self.time_left() == Some(Duration::ZERO) {
            return Some(self.bounds.time_is_over());
        }
        let child = child.and_then(memory::taken_by).unwrap_or(0);
        let taken = memory::taken().unwrap_or(0).saturating_add(child);
        (taken > self.bounds.memory).then(|| self.bounds.memory_is_over())
    }
}
