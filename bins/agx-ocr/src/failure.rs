//! Error messages and exit codes.

use crate::log;
use agx_ocr_pipeline::{Error, ErrorKind, input::InputError};
use anyhow::anyhow;
use std::{
    fmt::{self, Display},
    io, panic,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

/// Where this program panicked last.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Why the program ends without a page: one error, or several that are independent.
#[derive(Debug)]
pub struct Failure {
    kind: ErrorKind,
    errors: Vec<anyhow::Error>,
}

impl Failure {
    /// The caller can mend it: arguments, input or model.
    pub fn invalid(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ErrorKind::Invalid, error.into())
    }

    /// Processing failed.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ErrorKind::Failed, error.into())
    }

    /// The system gives no thread.
    pub fn no_thread(error: io::Error) -> Self {
        Self::failed(anyhow::Error::new(error).context("cannot start a thread"))
    }

    /// A defect of this program.
    pub fn internal() -> Self {
        let place = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
        let place = place.unwrap_or_else(|| "an unknown place".into());
        Self::failed(anyhow!("internal error at {place}: please report it"))
    }

    fn new(kind: ErrorKind, error: anyhow::Error) -> Self {
        Self {
            kind,
            errors: vec![error],
        }
    }

    /// Both failures; the first one's exit code.
    pub fn and(mut self, other: Self) -> Self {
        self.errors.extend(other.errors);
        self
    }

    /// The same once more, in words.
    pub fn again(&self) -> Self {
        Self::new(self.kind, anyhow!("{self}"))
    }

    /// The same, saying before what it is about.
    pub fn context(mut self, about: String) -> Self {
        let add = |error: anyhow::Error| error.context(about.clone());
        self.errors = self.errors.into_iter().map(add).collect();
        self
    }

    /// 2 for what the caller can mend, else 1.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            ErrorKind::Invalid => 2,
            _ => 1,
        })
    }

    /// Says on standard error what is wrong.
    pub fn report(&self) {
        for error in &self.errors {
            let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
            log::error(error, &causes);
        }
    }
}

/// Errors with their causes, on one line.
impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            let separator = if i > 0 { "; " } else { "" };
            write!(f, "{separator}{error:#}")?;
        }
        Ok(())
    }
}

/// From now on a panic prints nothing by itself: its message may hold what was read. Its place is
/// remembered for [`Failure::internal`]; a decoder's panic is its input's error and nothing more.
pub fn quieten_panics() {
    panic::set_hook(Box::new(|info| {
        let mut place = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        *place = info.location().map(ToString::to_string);
    }));
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match limits(&error)[..] {
            [] => Self::new(kind, error.into()),
            ref flags => Self::new(kind, anyhow!("{error} ({})", flags.join(", "))),
        }
    }
}

/// The flags of the limits that an input exceeds.
fn limits(error: &Error) -> Vec<&'static str> {
    match error {
        Error::Input(InputError::TooLarge { .. }) => vec!["--max-input-bytes"],
        Error::Input(InputError::Dimensions {
            width,
            height,
            limits,
        }) => {
            let pixels = u64::from(*width) * u64::from(*height);
            let exceeded = [
                ("--max-width", *width > limits.width),
                ("--max-height", *height > limits.height),
                ("--max-pixels", pixels > limits.pixels),
            ];
            let exceeded = exceeded.into_iter().filter(|(_, exceeded)| *exceeded);
            exceeded.map(|(flag, _)| flag).collect()
        }
        _ => Vec::new(),
    }
}
