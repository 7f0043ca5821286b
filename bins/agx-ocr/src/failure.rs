//! Error messages and exit codes.

use agx_ocr_pipeline::ErrorKind;
use anyhow::anyhow;
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

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

    /// A defect of this program; the panic's own message says where.
    pub fn internal() -> Self {
        Self::failed(anyhow!("internal error: please report it"))
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
            say(&format!("Error: {error}"));
            for cause in error.chain().skip(1) {
                say(&format!("Caused by: {cause}"));
            }
        }
    }
}

impl From<agx_ocr_pipeline::Error> for Failure {
    fn from(error: agx_ocr_pipeline::Error) -> Self {
        Self::new(error.kind(), error.into())
    }
}

/// Writes a line to standard error. Where nobody reads it, nothing can be done about that.
pub fn say(line: &dyn Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
