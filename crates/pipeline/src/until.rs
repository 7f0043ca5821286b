//! When to stop: at a time, or when the caller says so.

use crate::{Error, FinishReason};
use agx_ocr_backend::{Error as BackendError, Observer, Result};
use candle_core::Tensor;
use std::{
    cell::Cell,
    fmt,
    time::{Duration, Instant},
};

/// Stops the model between its stages. What reads an answer token by token asks
/// [`Until::stopped`] instead, and keeps what it has.
#[derive(Debug)]
pub(crate) struct Until {
    deadline: Option<Instant>,
    cancelled: Cell<bool>,
    keeping: Cell<bool>,
}

impl Until {
    /// Stops after this time from now; without one, when cancelled.
    pub(crate) fn new(time: Option<Duration>) -> Self {
        Self::at(time.and_then(|time| Instant::now().checked_add(time)))
    }

    /// Stops at this time; without one, when cancelled.
    pub(crate) fn at(deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            cancelled: Cell::new(false),
            keeping: Cell::new(false),
        }
    }

    /// The caller wants no more.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// From now on (or no longer) there is something to keep: stages are not stopped.
    pub(crate) fn keep(&self, keeping: bool) {
        self.keeping.set(keeping);
    }

    /// Why to stop, if it is time to.
    pub(crate) fn stopped(&self) -> Option<FinishReason> {
        if self.cancelled.get() {
            return Some(FinishReason::Cancelled);
        }
        let over = self.deadline.is_some_and(|end| Instant::now() >= end);
        over.then_some(FinishReason::Timeout)
    }

    /// Why a stage ended with `error`, if this made it.
    pub(crate) fn made(&self, error: &Error) -> Option<FinishReason> {
        let stopped = matches!(error, Error::Backend(BackendError::Stopped(_)));
        self.stopped().filter(|_| stopped)
    }
}

impl Observer for Until {
    fn observe(&self, stage: fmt::Arguments<'_>, _: &Tensor) -> Result<()> {
        if self.keeping.get() || self.stopped().is_none() {
            return Ok(());
        }
        Err(BackendError::Stopped(format!("after {stage}")))
    }

    fn looks(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn observe(until: &Until) -> Result<()> {
        let value = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        until.observe(format_args!("stage"), &value)
    }

    #[test]
    fn stops_at_its_time_or_when_cancelled() {
        let until = Until::new(None);
        assert!(observe(&until).is_ok());
        until.cancel();
        let error = Error::from(observe(&until).unwrap_err());
        assert_eq!(until.made(&error), Some(FinishReason::Cancelled));

        let until = Until::new(Some(Duration::ZERO));
        let error = Error::from(observe(&until).unwrap_err());
        assert_eq!(until.made(&error), Some(FinishReason::Timeout));
        assert_eq!(until.made(&Error::Options("other".into())), None);
        assert!(observe(&Until::new(Some(Duration::MAX))).is_ok());
    }

    #[test]
    fn what_is_there_is_kept() {
        let until = Until::new(Some(Duration::ZERO));
        until.keep(true);
        assert!(observe(&until).is_ok());
        assert_eq!(until.stopped(), Some(FinishReason::Timeout));
        until.keep(false);
        assert!(observe(&until).is_err());
    }
}
