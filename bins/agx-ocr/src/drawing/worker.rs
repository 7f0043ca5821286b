//! The process that draws.

use super::{Drawing, Drawn, Job, NO_THREAD, Opened, hear, say};
use crate::{failure::Failure, reader::STACK};
use agx_ocr_pipeline::{Document, Error, Limits, Rendering, input::InputError};
use std::{
    io::{self, BufRead, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{self, ExitCode},
    sync::mpsc::{self, Receiver},
    thread,
};

/// Draws the pages that standard input asks for. At its end nobody waits for them any more, and
/// what is being drawn is left.
pub fn work() -> ExitCode {
    leave_no_core();
    let mut stdin = io::stdin().lock();
    let Ok((job, pdf)) = job(&mut stdin) else {
        return ExitCode::FAILURE;
    };
    let (asked, pages) = mpsc::channel();
    let draw = move || {
        let draw = AssertUnwindSafe(|| draw(&job, pdf, &pages));
        // It ends before standard input does: by a defect, or because nobody reads.
        let _ = catch_unwind(draw);
        process::exit(1);
    };
    let started = thread::Builder::new().stack_size(STACK).spawn(draw);
    if started.is_err() {
        return ExitCode::from(NO_THREAD);
    }
    for line in stdin.lines() {
        let page = line.ok().and_then(|line| line.parse::<usize>().ok());
        if page.is_none_or(|page| asked.send(page).is_err()) {
            return ExitCode::FAILURE;
        }
    }
    // `asked` lives so long: its end would be the drawing thread's too.
    ExitCode::SUCCESS
}

fn job(from: &mut impl BufRead) -> io::Result<(Job, Vec<u8>)> {
    let job: Job = hear(from)?;
    let mut pdf = Vec::new();
    from.take(job.bytes).read_to_end(&mut pdf)?;
    Ok((job, pdf))
}

fn draw(job: &Job, pdf: Vec<u8>, pages: &Receiver<usize>) -> io::Result<()> {
    let mut limits = Limits::default();
    limits.bytes = job.bytes;
    limits.width = job.width;
    limits.height = job.height;
    limits.pixels = job.pixels;
    let mut rendering = Rendering::default();
    rendering.dpi = job.dpi;

    let mut stdout = io::stdout().lock();
    let document = match Document::open(pdf, &limits) {
        Ok(document) => document,
        Err(error) => return say(&mut stdout, &Opened::Err(reason(error))),
    };
    say(&mut stdout, &Opened::Ok(document.pages()))?;
    for number in pages {
        match document.page(number, &rendering) {
            Ok(page) => {
                let (width, height) = page.image.dimensions();
                let drawing = Drawing {
                    width,
                    height,
                    warnings: page.warnings,
                };
                say(&mut stdout, &Drawn::Ok(drawing))?;
                stdout.write_all(page.image.as_raw())?;
                stdout.flush()?;
            }
            Err(error) => say(&mut stdout, &Drawn::Err(reason(error)))?,
        }
    }
    Ok(())
}

/// What is wrong with the PDF.
fn reason(error: InputError) -> String {
    Failure::from(Error::from(error)).to_string()
}

/// When the system ends it, no file shall stay behind.
#[cfg(unix)]
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
}

#[cfg(not(unix))]
fn leave_no_core() {}
