//! `agx-ocr` reads the text of images and documents with DeepSeek-OCR: an AGEniX Agentic Unit.
//!
//! The bytes of an image or a document come on standard input, one JSON document goes to standard output, and
//! all else to standard error.
//!
//! | | |
//! |---|---|
//! | `args`, `names`, `ranges` | the arguments as they are typed, and the help |
//! | `config` | the same, checked and put in the library's terms |
//! | `run` | from arguments to the printed result, within time and memory |
//! | `input` | the inputs' bytes, and what is left of standard input |
//! | `reader`, `pages` | from inputs to pages |
//! | `output` | pages as JSON and in other formats, on standard output and in files |
//! | `card` | what `--describe` prints |
//! | `progress` | what a person at a terminal sees meanwhile |
//! | `memory`, `signals` | what the process takes, and what may end it |
//! | `failure` | error messages and exit codes |

mod args;
mod card;
mod config;
mod failure;
mod input;
mod memory;
mod names;
mod output;
mod pages;
mod progress;
mod ranges;
mod reader;
mod run;
mod signals;

use failure::Failure;
use std::{env, ffi::OsString, panic, process::ExitCode};

fn main() -> ExitCode {
    failure::quieten_panics();
    signals::listen();
    let args: Vec<OsString> = env::args_os().collect();
    let outcome = panic::catch_unwind(|| run::run(&args));
    match outcome.unwrap_or_else(|_| Err(Failure::internal())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // First, so that whoever still writes to us gets to read the rest.
            input::drain().wait();
            failure.report();
            failure.exit_code()
        }
    }
}
