use crate::Result;
use candle_core::Tensor;
use std::fmt;

/// Sees the named intermediate results of a model while it runs.
///
/// Parity tests compare them with reference data, statistics time the stages between them, and
/// an error ends the work early.
pub trait Observer {
    /// Takes note of `value`, the result of `stage` (as in `sam.block3` or `layer0.mlp`). The work
    /// may go on in its memory: keep a copy, not a clone.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped) ends the run; so does every other error.
    fn observe(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> Result<()>;

    /// Whether it looks at what would have to be copied for it.
    fn looks(&self) -> bool {
        true
    }
}

/// Takes note of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: fmt::Arguments<'_>, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn looks(&self) -> bool {
        false
    }
}

impl<F: Fn(fmt::Arguments<'_>, &Tensor) -> Result<()>> Observer for F {
    fn observe(&self, stage: fmt::Arguments<'_>, value: &Tensor) -> Result<()> {
        self(stage, value)
    }
}
