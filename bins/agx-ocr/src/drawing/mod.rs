//! PDF pages, drawn in a process of their own.
//!
//! A PDF may ask its renderer for more memory, or a deeper stack, than there is, and then the
//! system ends the process. So that it is not this one, the program starts itself once more as a
//! [`worker`], which gets the PDF on standard input and gives the pages on standard output to the
//! [`PdfPages`] here. Its end is one page's error; the next page gets a new worker.
//!
//! | to the worker | from it |
//! |---|---|
//! | [`Job`], a line of JSON; then the PDF | [`Opened`], a line of JSON |
//! | a page's number, a line | [`Drawn`], a line of JSON; then the pixels, RGB |

mod pages;
mod worker;

pub use pages::PdfPages;
pub use worker::work;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, BufRead, Read, Write};

/// The argument, the only one, that makes the program a worker.
pub const WORKER: &str = "--draw-pdf-pages";

/// The exit code of a worker that can start no thread.
const NO_THREAD: u8 = 3;

/// What is to be drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    /// Of the PDF.
    bytes: u64,
    /// Pixels an inch.
    dpi: f32,
    /// Pixels of a page's width, at most.
    width: u32,
    /// Pixels of a page's height, at most.
    height: u32,
    /// Pixels of a page, at most.
    pixels: u64,
}

/// The PDF's number of pages, or what is wrong with it.
type Opened = Result<usize, String>;

/// A page, or what is wrong with it.
type Drawn = Result<Drawing, String>;

/// A page's image; the pixels follow.
#[derive(Debug, Serialize, Deserialize)]
struct Drawing {
    width: u32,
    height: u32,
    warnings: Vec<String>,
}

/// Bytes of a line, at most.
const LINE: u64 = 1 << 20;

/// Writes a line of JSON.
fn say(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n")?;
    to.flush()
}

/// Reads a line of JSON.
fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    from.take(LINE).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
