//! `agx-ocr` reads the text of an image with DeepSeek-OCR: an AGEniX Agentic Unit.
//!
//! The bytes of an image come on standard input, one JSON document goes to standard output, and
//! all else to standard error.
//!
//! | | |
//! |---|---|
//! | `args` | the arguments as they are typed, and the help |
//! | `config` | the same, checked and put in the library's terms |
//! | `input` | the image's bytes, and what is left of standard input |
//! | `run` | from arguments to the printed page |
//! | `output` | a page as JSON or text |
//! | `card` | what `--describe` prints |
//! | `progress` | what a person at a terminal sees meanwhile |
//! | `failure` | error messages and exit codes |

mod args;
mod card;
mod config;
mod failure;
mod input;
mod output;
mod progress;
mod run;

use failure::Failure;
use std::{env, ffi::OsString, panic, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    let outcome = panic::catch_unwind(|| run::run(&args));
    match outcome.unwrap_or_else(|_| Err(Failure::internal())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // First, so that whoever still writes to us gets to read the rest.
            input::drain();
            failure.report();
            failure.exit_code()
        }
    }
}
