//! The inputs' bytes, and what is left of standard input.

use crate::failure::Failure;
use agx_ocr_pipeline::{Error, input::InputError};
use anyhow::{Context, anyhow};
use std::{
    fmt,
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long [`Drain::wait`] waits for the next bytes. Who has bytes to write does so at once; this
/// is for a pipe that a caller left open by accident.
const IDLE: Duration = Duration::from_secs(2);
/// How long a writer is listened to who never comes to an end.
const LONGEST: Duration = Duration::from_secs(60);

/// Where an image or a document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// All bytes of standard input, unless they are more than `limit`. What somebody writes beyond that
/// is read too, to its end if it has one.
pub fn from_stdin(limit: u64) -> Result<Vec<u8>, Failure> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::invalid(anyhow!(
            "no image: pipe one in, or give its file with --input PATH"
        )));
    }
    let bytes = read(&mut stdin, limit).context("cannot read standard input");
    let bytes = bytes.map_err(Failure::failed)?;
    drop(stdin);
    let drain = drain();
    drain.wait();
    check(bytes, drain.bytes.load(Ordering::Relaxed), limit)
}

/// All bytes of a file, unless they are more than `limit`.
pub fn from_file(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let about = || format!("cannot read the image {}", path.display());
    let open = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        match metadata.is_dir() {
            true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            false => Ok((file, metadata.len())),
        }
    };
    let (mut file, size) = open().with_context(about).map_err(Failure::invalid)?;
    let bytes = read(&mut file, limit).with_context(about);
    let bytes = bytes.map_err(Failure::failed)?;
    let rest = size.saturating_sub(bytes.len() as u64);
    check(bytes, rest, limit)
}

/// Reads to the end, or one byte more than `limit`.
fn read(source: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes, unless there are none or, with the `rest` that was left out, too many.
fn check(bytes: Vec<u8>, rest: u64, limit: u64) -> Result<Vec<u8>, Failure> {
    let actual = rest.saturating_add(bytes.len() as u64);
    if actual > limit {
        return Err(Error::from(InputError::TooLarge { actual, limit }).into());
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Error::from(InputError::Empty).into());
    }
    Ok(bytes)
}

/// Begins to read and forget what comes on standard input: nobody here reads it, or no longer.
///
/// A caller that writes its input first and then looks at what comes out would otherwise meet a
/// closed pipe, or wait for us as we for it. Only a pipe has such a writer: what a file or a
/// terminal holds is left alone.
pub fn drain() -> &'static Drain {
    static DRAIN: OnceLock<Drain> = OnceLock::new();
    DRAIN.get_or_init(|| {
        let drain = Drain {
            started: Instant::now(),
            latest: Arc::default(),
            bytes: Arc::default(),
            ended: Arc::new(AtomicBool::new(!has_writer())),
        };
        let Drain {
            started,
            latest,
            bytes,
            ended,
        } = drain.clone();
        let reader = move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; 64 << 10];
            while !ended.load(Ordering::Relaxed) {
                match stdin.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => ended.store(true, Ordering::Relaxed),
                    Ok(n) => {
                        bytes.fetch_add(n as u64, Ordering::Relaxed);
                        latest.store(milliseconds(started), Ordering::Relaxed);
                    }
                }
            }
        };
        // The thread may outlast everything; it ends with the process.
        let thread = thread::Builder::new().name("stdin".into()).spawn(reader);
        if thread.is_err() {
            drain.ended.store(true, Ordering::Relaxed);
        }
        drain
    })
}

/// What is known of standard input while it is drained.
#[derive(Clone, Debug)]
pub struct Drain {
    started: Instant,
    /// When something came last, in milliseconds since the start.
    latest: Arc<AtomicU64>,
    /// How much came.
    bytes: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Drain {
    /// Waits for its end, as long as something comes: [`IDLE`] without anything is enough, and so
    /// is [`LONGEST`] in all.
    pub fn wait(&self) {
        let idle = || {
            let latest = self.latest.load(Ordering::Relaxed);
            milliseconds(self.started).saturating_sub(latest)
        };
        while !self.ended.load(Ordering::Relaxed)
            && u128::from(idle()) < IDLE.as_millis()
            && self.started.elapsed() < LONGEST
        {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn milliseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether standard input is a pipe or a socket.
#[cfg(unix)]
fn has_writer() -> bool {
    use std::os::{fd::AsFd, unix::fs::FileTypeExt};
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let metadata = stdin.and_then(|stdin| File::from(stdin).metadata());
    metadata.is_ok_and(|it| it.file_type().is_fifo() || it.file_type().is_socket())
}

#[cfg(not(unix))]
fn has_writer() -> bool {
    !io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_held() {
        let mut endless = io::repeat(7);
        assert_eq!(read(&mut endless, 10).unwrap().len(), 11);
    }

    #[test]
    fn a_writer_without_end_is_not_listened_to_for_ever() {
        let drain = Drain {
            started: Instant::now().checked_sub(LONGEST).unwrap(),
            latest: Arc::new(AtomicU64::new(u64::MAX)),
            bytes: Arc::default(),
            ended: Arc::default(),
        };
        let waiting = Instant::now();
        drain.wait();
        assert!(waiting.elapsed() < LONGEST / 2);
    }

    #[test]
    fn limits_count_what_was_left_out() {
        assert!(check(vec![1; 10], 0, 10).is_ok());
        assert!(check(vec![1; 10], 1, 10).is_err());
        assert!(check(b" \n".to_vec(), 0, 10).is_err());
    }
}
