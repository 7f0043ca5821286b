//! Running the program, as a worker would.

use std::{
    fs,
    io::{self, Cursor, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file of the project's test data.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// A sample page.
pub fn page(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("pages/{name}.png"))).unwrap()
}

/// The path of a document, as an argument.
pub fn document(name: &str) -> String {
    let path = fixture(&format!("documents/{name}"));
    path.to_str().unwrap().to_owned()
}

/// What the model reads on a sample page: `out`, or `grounding` with places.
pub fn expected(name: &str, kind: &str) -> String {
    let text = fs::read_to_string(fixture(&format!("pages/{name}.{kind}.txt"))).unwrap();
    text.trim_end_matches('\n').to_owned()
}

/// A run to be.
pub struct Run {
    pub command: Command,
    input: Box<dyn Read + Send>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Whether all of the input could be written.
    pub written: io::Result<()>,
}

/// The program without a model.
pub fn bare(args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agx-ocr"));
    command.env_remove("MODEL_PATH").args(args);
    Run {
        command,
        input: Box::new(io::empty()),
    }
}

/// The program with the mini model.
pub fn agx_ocr(args: &[&str]) -> Run {
    let mut run = bare(args);
    run.command
        .env("MODEL_PATH", fixture("models/agx-ocr-mini"));
    run
}

impl Run {
    /// Sets the bytes for standard input.
    pub fn input(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stream(Cursor::new(bytes.into()))
    }

    /// Sets what is written to standard input.
    pub fn stream(mut self, input: impl Read + Send + 'static) -> Self {
        self.input = Box::new(input);
        self
    }

    /// Starts the program with pipes all around.
    pub fn spawn(&mut self) -> Child {
        let command = &mut self.command;
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs as a worker does: all input is written before any output is read.
    pub fn run(mut self) -> Outcome {
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().unwrap();
        let mut input = self.input;
        let writer = thread::spawn(move || io::copy(&mut input, &mut stdin).map(drop));
        patiently(&mut child, |_| writer.is_finished());
        let written = writer.join().unwrap();
        finish(child, written)
    }

    /// Runs, and gives the JSON document.
    pub fn json(self) -> serde_json::Value {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        serde_json::from_str(&outcome.stdout).unwrap()
    }
}

/// A line that a run without its tools prints. Not `eprintln!`, which the test harness keeps to
/// itself.
pub fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {test}, because {reason}");
}

/// Waits for the end and for all output.
pub fn finish(mut child: Child, written: io::Result<()>) -> Outcome {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    patiently(&mut child, |child| child.try_wait().unwrap().is_some());
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.map_or(String::new(), |reader| reader.join().unwrap())
    };
    Outcome {
        code: child.wait().unwrap().code(),
        stdout: text(stdout),
        stderr: text(stderr),
        written,
    }
}

/// Waits until `done`; a child that takes too long is ended.
fn patiently(child: &mut Child, mut done: impl FnMut(&mut Child) -> bool) {
    let started = Instant::now();
    while !done(child) {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("no end after {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads all of a pipe, which must be UTF-8.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

/// Writes to the child's standard input and leaves it open.
pub fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
}

/// The processes that this one has started.
#[cfg(target_os = "linux")]
pub fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let files = threads.into_iter().flatten().flatten();
    let lists = files.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let numbers = |list: String| {
        let numbers = list
            .split_whitespace()
            .map(|number| number.parse().unwrap());
        numbers.collect::<Vec<u32>>()
    };
    lists.flat_map(numbers).collect()
}

/// Bytes of memory of its own that a process has; none when it has ended.
#[cfg(target_os = "linux")]
fn taken_by(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Waits for the end, and gives the most bytes of memory of their own that the child and what it
/// has started had together meanwhile: a sample every few milliseconds.
#[cfg(target_os = "linux")]
pub fn finish_with_peak(mut child: Child) -> (Outcome, u64) {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let mut peak = 0;
    patiently(&mut child, |child| {
        let all = children(child.id()).into_iter().chain([child.id()]);
        peak = peak.max(all.map(taken_by).sum());
        child.try_wait().unwrap().is_some()
    });
    child.stdout = None;
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.map_or(String::new(), |reader| reader.join().unwrap())
    };
    let outcome = Outcome {
        code: child.wait().unwrap().code(),
        stdout: text(stdout),
        stderr: text(stderr),
        written: Ok(()),
    };
    (outcome, peak)
}

impl Outcome {
    /// Holds a failure against the contract: its exit code, words on standard error, and nothing
    /// on standard output.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.starts_with("Error: "), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert!(self.written.is_ok(), "{:?}", self.written);
    }
}
