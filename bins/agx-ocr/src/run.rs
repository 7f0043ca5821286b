//! From arguments to the printed result.
//!
//! The pages are read on a thread of their own. This one takes them as they come, and minds the
//! time and the memory meanwhile: whatever a decoder makes of its input, the program ends.

use crate::{
    args::Args,
    bounds::{PULSE, Watch},
    card::card,
    config::Config,
    devices,
    failure::Failure,
    input::{self, Source},
    log, memory,
    output::{self, Measured, Results},
    progress::Progress,
    reader::{self, Message},
    refusal,
};
use anyhow::anyhow;
use clap::Parser;
use std::{
    ffi::OsString,
    process,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// How long after its time the reader may still come to an end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Does what the arguments ask for. The first of them is the program's name.
pub fn run(args: &[OsString]) -> Result<(), Failure> {
    let given = |flag: &str| {
        let options = args.iter().skip(1).take_while(|arg| *arg != "--");
        options.into_iter().any(|arg| arg == flag)
    };
    // Before anything is parsed: it wins over every other argument, right or wrong.
    if given("--describe") {
        return output::print_json(&card(), given("--pretty"));
    }
    if let [_, command, rest @ ..] = &log::without_format(args)[..]
        && command == devices::COMMAND
    {
        return devices::run(rest);
    }
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(help) if !help.use_stderr() => {
            return output::print(help.to_string().as_bytes()).map(|_| ());
        }
        Err(error) => return Err(Failure::invalid(anyhow!(refusal::message(&error)))),
    };
    log::steps(args.verbose);
    read(Config::new(args)?)
}

fn read(config: Config) -> Result<(), Failure> {
    // To its end before anything is written, even if the model is missing: a caller that writes
    // all of it first, and reads only then, would wait for us as we for it.
    let stdin = match config.sources.contains(&Source::Stdin) {
        true => Some(input::from_stdin(config.options.limits.bytes)),
        false => {
            input::drain();
            None
        }
    };
    guard(config.bounds.memory);
    let config = Arc::new(config);
    let progress = Progress::new(config.progress);
    let messages = reader::spawn(config.clone(), stdin, progress.clone())?;
    let mut results = Results::new(&config.output);
    let end = collect(&config, &messages, &mut results);
    progress.end();
    match end? {
        End::Read(measured) => results.finish(measured),
        // The reader is left behind; it ends with the process.
        End::GivenUp(reason) if results.any() => {
            results.warn(format!("Reading was given up at a page: {reason}."));
            results.finish(None)
        }
        End::GivenUp(reason) => Err(Failure::failed(anyhow!("reading was given up: {reason}"))),
    }
}

/// How reading ended.
enum End {
    /// As it should, or nobody wants more.
    Read(Option<Measured>),
    /// For this reason, amid a page.
    GivenUp(String),
}

/// Takes the pages as they come, as long as there is time and memory.
fn collect(
    config: &Config,
    messages: &Receiver<Message>,
    results: &mut Results<'_>,
) -> Result<End, Failure> {
    let begin = || Watch::begin(config.bounds, GRACE);
    let mut watch = begin();
    let mut exceeded = None;
    loop {
        let message = match exceeded {
            None => messages.recv_timeout(PULSE),
            // What came meanwhile is not lost.
            Some(_) => messages.try_recv().map_err(|_| RecvTimeoutError::Timeout),
        };
        match message {
            Ok(Message::Loaded) => watch = begin(),
            Ok(Message::Warning(warning)) => results.warn(warning),
            Ok(Message::Page(page)) => {
                input::drain().wait();
                if results.add(*page)?.is_break() {
                    return Ok(End::Read(None));
                }
            }
            Ok(Message::End(measured)) => return Ok(End::Read(measured?.map(|it| *it))),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(End::GivenUp(Failure::internal().to_string()));
            }
            Err(RecvTimeoutError::Timeout) => match exceeded {
                Some(reason) => return Ok(End::GivenUp(reason)),
                None => exceeded = watch.exceeded(None),
            },
        }
    }
}

/// Ends the program where memory grows on although reading was given up, while what was read is
/// still being printed or standard input drained.
fn guard(most: u64) {
    let hard = most.saturating_add(most / 4);
    let watch = move || {
        while memory::taken().is_none_or(|bytes| bytes <= hard) {
            thread::sleep(PULSE);
        }
        let message = format_args!("it takes more than {hard} bytes of memory (--max-memory)");
        log::error(message, &[]);
        process::exit(1);
    };
    let _ = thread::Builder::new().name("memory".into()).spawn(watch);
}
