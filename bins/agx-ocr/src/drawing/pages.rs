//! A PDF's pages, seen from here.

use super::{Drawing, Drawn, Job, NO_THREAD, Opened, WORKER, hear, say};
use crate::{
    bounds::{PULSE, Watch},
    failure::Failure,
};
use agx_ocr_pipeline::{
    Error, Limits,
    input::{DecodedImage, Format, InputError},
};
use anyhow::{Context, anyhow};
use image::RgbImage;
use std::{
    env,
    io::{self, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Instant,
};

/// A PDF whose pages a worker draws.
pub struct PdfPages {
    pdf: Vec<u8>,
    job: Job,
    count: usize,
    /// Nobody after an accident.
    worker: Option<Worker>,
}

impl PdfPages {
    /// Opens a PDF, whose pages are to have so many pixels an inch.
    ///
    /// # Errors
    /// When its pages cannot be counted within bounds, or no process can be started.
    pub fn open(pdf: Vec<u8>, limits: &Limits, dpi: f32, watch: &Watch) -> Result<Self, Failure> {
        let job = Job {
            bytes: pdf.len() as u64,
            dpi,
            width: limits.width,
            height: limits.height,
            pixels: limits.pixels,
        };
        let (worker, count) = Worker::start(&job, &pdf, watch)?;
        Ok(Self {
            pdf,
            job,
            count,
            worker: Some(worker),
        })
    }

    /// The number of pages.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Draws a page, counted from 1.
    ///
    /// # Errors
    /// When it cannot be drawn within bounds. Others may be well.
    pub fn draw(&mut self, number: usize, watch: &Watch) -> Result<DecodedImage, Failure> {
        let started = Instant::now();
        let mut worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(&self.job, &self.pdf, watch)?.0,
        };
        let drawn = worker.ask(watch, |stdin, stdout| {
            writeln!(stdin, "{number}")?;
            Ok(match hear::<Drawn>(stdout)? {
                Ok(drawing) => Ok(receive(drawing, stdout)?),
                Err(reason) => Err(reason),
            })
        })?;
        self.worker = Some(worker);
        let mut page = drawn.map_err(refused)?;
        page.decode_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(page)
    }
}

/// A process that draws. It ends when this does.
struct Worker {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one, gives it the PDF, and gets the number of pages.
    fn start(job: &Job, pdf: &[u8], watch: &Watch) -> Result<(Self, usize), Failure> {
        let about = || "cannot start the process that draws a PDF's pages";
        let mut worker = Self::spawn().with_context(about).map_err(Failure::failed)?;
        let opened: Opened = worker.ask(watch, |stdin, stdout| {
            say(stdin, job)?;
            stdin.write_all(pdf)?;
            hear(stdout)
        })?;
        Ok((worker, opened.map_err(refused)?))
    }

    fn spawn() -> io::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.arg(WORKER);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // There the system's last words about it would go.
        command.stderr(Stdio::null());
        let mut process = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Self {
            process,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// Talks with it, as long as it keeps within bounds.
    fn ask<T: Send>(
        &mut self,
        watch: &Watch,
        talk: impl FnOnce(&mut ChildStdin, &mut BufReader<ChildStdout>) -> io::Result<T> + Send,
    ) -> Result<T, Failure> {
        let (stdin, stdout) = (&mut self.stdin, &mut self.stdout);
        let process = &mut self.process;
        let answer = thread::scope(|scope| {
            let (said, answer) = mpsc::sync_channel(1);
            let talk = move || {
                let _ = said.send(talk(stdin, stdout));
            };
            let started = thread::Builder::new().spawn_scoped(scope, talk);
            started.map_err(|error| Some(Failure::no_thread(error)))?;
            let mut given_up = None;
            loop {
                match answer.recv_timeout(PULSE) {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(given_up),
                    Err(RecvTimeoutError::Timeout) if given_up.is_none() => {
                        if let Some(reason) = watch.exceeded(Some(process.id())) {
                            given_up = Some(Failure::failed(anyhow!(reason)));
                            let _ = process.kill();
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        });
        answer.map_err(|given_up| given_up.unwrap_or_else(|| self.accident()))
    }

    /// Why it ended although nobody wanted it to.
    fn accident(&mut self) -> Failure {
        match self.process.wait() {
            Ok(status) if was_killed(status) => Failure::failed(anyhow!(
                "the system killed the process that draws the page: it may be short of memory"
            )),
            Ok(status) if status.code() == Some(NO_THREAD.into()) => Failure::failed(anyhow!(
                "cannot start a thread in the process that draws the page"
            )),
            Ok(_) => Error::from(InputError::Corrupt {
                format: Format::Pdf,
                reason: "drawing it asks for more memory or stack than there is".into(),
            })
            .into(),
            Err(error) => Failure::failed(error),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A page, whose pixels come next.
fn receive(drawing: Drawing, from: &mut impl Read) -> io::Result<DecodedImage> {
    let (width, height) = (drawing.width, drawing.height);
    let mut pixels = Vec::new();
    let size = 3 * u64::from(width) * u64::from(height);
    from.take(size).read_to_end(&mut pixels)?;
    // Too few: the worker ended amid them.
    let image = RgbImage::from_raw(width, height, pixels);
    let mut page = DecodedImage::new(image.ok_or(io::ErrorKind::UnexpectedEof)?, Format::Pdf);
    page.warnings = drawing.warnings;
    Ok(page)
}

/// What a worker said about the PDF.
fn refused(reason: String) -> Failure {
    Failure::invalid(anyhow!(reason))
}

/// This program, even if its file has been replaced since it was started.
fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    env::current_exe()
}

/// Whether it was ended by SIGKILL.
#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9)
}

#[cfg(not(unix))]
fn was_killed(_: ExitStatus) -> bool {
    false
}
