//! What was read, in the format that was asked for, on standard output and in files.

mod costs;
mod files;
mod options;
mod render;
mod report;
mod results;

pub use costs::Measured;
pub use files::is_stdout;
pub use options::{Format, Output};
pub use results::Results;

use crate::failure::Failure;
use anyhow::Context;
use serde::Serialize;
use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    sync::Mutex,
};

/// Held while standard output is written to: a signal waits for it, so that it meets no half
/// document.
pub static WRITING: Mutex<()> = Mutex::new(());

/// Prints one JSON document: in lines on a terminal or where asked for, else compact.
pub fn print_json(document: &impl Serialize, pretty: bool) -> Result<(), Failure> {
    print(&json(document, pretty)?).map(|_| ())
}

/// A JSON document and a newline.
fn json(document: &impl Serialize, pretty: bool) -> Result<Vec<u8>, Failure> {
    let json = if pretty || io::stdout().is_terminal() {
        serde_json::to_vec_pretty(document)
    } else {
        serde_json::to_vec(document)
    };
    let mut json = json
        .context("cannot write the result as JSON")
        .map_err(Failure::failed)?;
    json.push(b'\n');
    Ok(json)
}

/// Writes to standard output. A reader who has seen enough is no error: then there is no use in
/// more.
pub fn print(bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
    let _writing = WRITING.lock();
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            Err(Failure::failed(error))
        }
    }
}
