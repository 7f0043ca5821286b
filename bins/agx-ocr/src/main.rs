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
//! | `document`, `drawing` | a document's pages as images; a PDF's are drawn in another process |
//! | `bounds` | how much time and memory reading may take |
//! | `input` | the inputs' bytes, and what is left of standard input |
//! | `reader`, `pages` | from inputs to pages |
//! | `output` | pages as JSON and in other formats, on standard output and in files |
//! | `devices` | what `agx-ocr devices` prints |
//! | `card` | what `--describe` prints |
//! | `progress` | what a person at a terminal sees meanwhile |
//! | `memory`, `signals` | what the process takes, and what may end it |
//! | `failure`, `refusal` | error messages and exit codes |
//! | `log` | what goes to standard error, as text or as JSON |

mod args;
mod bounds;
mod card;
mod config;
mod devices;
mod document;
mod drawing;
mod failure;
mod feed;
mod input;
mod log;
mod memory;
mod names;
mod output;
mod pages;
mod progress;
mod ranges;
mod reader;
mod refusal;
mod run;
mod signals;

use failure::Failure;
use std::{env, ffi::OsString, process::ExitCode, thread};

/// Bytes of the stack that arguments and results are put together on.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    failure::quieten_panics();
    let args: Vec<OsString> = env::args_os().collect();
    if let [_, only] = &args[..]
        && only == drawing::WORKER
    {
        return drawing::work();
    }
    log::choose(&args);
    signals::listen();
    // The first thread's stack may be as small as the caller wants.
    let run = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || run::run(&args));
    let outcome = match run {
        Ok(run) => run.join().unwrap_or_else(|_| Err(Failure::internal())),
        Err(error) => Err(Failure::no_thread(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // First, so that whoever still writes to us gets to read the rest.
            input::drain().wait();
            failure.report();
            failure.exit_code()
        }
    }
}
