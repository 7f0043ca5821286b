//! From arguments to the printed result.
//!
//! The pages are read on a thread of their own. This one takes them as they come, and minds the
//! time and the memory meanwhile: whatever a decoder makes of its input, the program ends.

use crate::{
    args::Args,
    card::card,
    config::Config,
    failure::Failure,
    input::{self, Source},
    memory,
    output::{self, Results},
    reader::{self, Message},
};
use anyhow::anyhow;
use clap::Parser;
use std::{
    ffi::OsString,
    io,
    ops::ControlFlow,
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};
use tracing::Level;

/// How often memory is looked at. Memory is had at a few gigabytes a second: so much more than the
/// limit may be taken.
const PULSE: Duration = Duration::from_millis(20);
/// How long after its time the reader may still come to an end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Does what the arguments ask for. The first of them is the program's name.
pub fn run(args: &[OsString]) -> Result<(), Failure> {
    let given = |flag: &str| {
        let options = args.iter().skip(1).take_while(|arg| *arg != "--");
        options.into_iter().any(|arg| arg == flag)
    };
    // Before the arguments are parsed: it wins over every other, right or wrong.
    if given("--describe") {
        return output::print_json(&card(), given("--pretty"));
    }
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(help) if !help.use_stderr() => {
            return output::print(help.to_string().as_bytes()).map(|_| ());
        }
        Err(error) => {
            let message = error.to_string();
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            return Err(Failure::invalid(anyhow!("{}", message.trim_end())));
        }
    };
    log(args.verbose);
    read(Config::new(args)?)
}

fn read(config: Config) -> Result<(), Failure> {
    // To its end before anything is written, even if the model is missing: a caller that writes
    // all of it first, and reads only then, would wait for us as we for it.
    let stdin = config
        .sources
        .contains(&Source::Stdin)
        .then(|| input::from_stdin(config.options.limits.bytes));

    let config = Arc::new(config);
    let messages = reader::spawn(config.clone(), stdin)?;
    let latest = Instant::now().checked_add(config.time.saturating_add(GRACE));
    let mut results = Results::new(&config.output);
    loop {
        let reason = match messages.recv_timeout(PULSE) {
            Ok(Message::Warning(warning)) => {
                results.warn(warning);
                continue;
            }
            Ok(Message::Page(page)) => match results.add(*page)? {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(()) => return results.finish(None),
            },
            Ok(Message::End(Ok(measured))) => return results.finish(measured.map(|it| *it)),
            Ok(Message::End(Err(failure))) => return Err(failure),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::internal()),
            Err(RecvTimeoutError::Timeout) => {
                if latest.is_some_and(|latest| Instant::now() > latest) {
                    let seconds = config.time.as_secs_f64();
                    format!("the time of {seconds} s was over (--max-seconds)")
                } else if memory::taken().is_some_and(|bytes| bytes > config.most_memory) {
                    let most = config.most_memory;
                    format!("it takes more than {most} bytes of memory (--max-memory)")
                } else {
                    continue;
                }
            }
        };
        // The reader is left behind; it ends with the process.
        if !results.any() {
            return Err(Failure::failed(anyhow!("reading was given up: {reason}")));
        }
        results.warn(format!("Reading was given up at a page: {reason}."));
        return results.finish(None);
    }
}

/// Sends what is logged to standard error: nothing, steps, or details.
fn log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_writer(io::stderr)
        // Nobody may be there to read: no reason to panic.
        .log_internal_errors(false)
        .try_init();
}
