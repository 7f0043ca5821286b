//! Signals: the program ends with an exit code, and leaves no half document on standard output.

#[cfg(unix)]
use crate::{log, output::WRITING};
#[cfg(unix)]
use std::{process, sync::Arc, thread, time::Duration};

/// How long a signal waits for a document that is being written, in tenths of a second. Its reader
/// may have stopped reading.
#[cfg(unix)]
const PATIENCE: usize = 10;

/// Ends with the code 128 and the signal's number at SIGHUP, SIGINT and SIGTERM; those that the
/// caller has ignored, as nohup does, stay so. SIGXFSZ does not end it.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
        flag,
        iterator::Signals,
        low_level::signal_name,
    };
    // With a handler, a file that may not grow is an error of writing.
    let _ = flag::register(SIGXFSZ, Arc::default());
    let ignored = ignored();
    let heeded = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let Ok(mut signals) = Signals::new(heeded) else {
        return;
    };
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            for _ in 0..PATIENCE {
                let writing = WRITING.try_lock();
                if writing.is_ok() {
                    let name = signal_name(signal).unwrap_or("a signal");
                    log::error(format_args!("ended by {name}"), &[]);
                    process::exit(128 + signal);
                }
                thread::sleep(Duration::from_millis(100));
            }
            process::exit(128 + signal);
        }
    };
    let _ = thread::Builder::new().name("signals".into()).spawn(wait);
}

/// The signals that were ignored when the program started, a bit each from 1; none where the
/// system does not say.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// There are no such signals.
#[cfg(not(unix))]
pub fn listen() {}
