//! Standard error: errors with their causes, warnings and logs, as text or as lines of JSON.

use crate::names::LogFormatName;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Display},
    io::{self, Write},
    sync::OnceLock,
    time::Instant,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time},
    registry::LookupSpan,
};

const OPTION: &str = "--log-format";

/// What [`choose`] chose.
static FORMAT: OnceLock<LogFormatName> = OnceLock::new();

/// Chooses the format that the arguments ask for: before they are parsed, for that may fail.
pub fn choose(args: &[OsString]) {
    let _ = FORMAT.set(split(args).0);
}

/// The arguments without those that ask for a format.
pub fn without_format(args: &[OsString]) -> Vec<OsString> {
    split(args).1
}

/// The format that arguments ask for, and all others. What is wrong is among the others.
fn split(args: &[OsString]) -> (LogFormatName, Vec<OsString>) {
    let named = |value: &OsStr| LogFormatName::from_str(value.to_str()?, false).ok();
    let mut format = LogFormatName::Text;
    let mut others = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let attached = arg.to_str().and_then(|arg| arg.strip_prefix(OPTION));
        let asked = match attached {
            Some("") => args.peek().and_then(|value| named(value)),
            Some(value) => value.strip_prefix('=').map(OsStr::new).and_then(named),
            None => None,
        };
        match asked {
            Some(name) => {
                format = name;
                // Its value.
                args.next_if(|_| attached == Some(""));
            }
            None => others.push(arg.clone()),
        }
        if arg == "--" {
            break;
        }
    }
    others.extend(args.cloned());
    (format, others)
}

fn is_json() -> bool {
    FORMAT.get() == Some(&LogFormatName::Json)
}

/// Says what is wrong, and why.
pub fn error(message: impl Display, causes: &[String]) {
    if is_json() {
        return say_json(&Line {
            causes: Some(causes),
            ..Line::new("error", &message.to_string())
        });
    }
    say(&format!("Error: {message}"));
    for cause in causes {
        say(&format!("Caused by: {cause}"));
    }
}

/// Says what a reader of the result should know.
pub fn warning(message: impl Display) {
    match is_json() {
        true => say_json(&Line::new("warning", &message.to_string())),
        false => say(&format!("Warning: {message}")),
    }
}

/// From now on says what is done: nothing, steps, or details.
pub fn steps(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        // Nobody may be there to read: no reason to panic.
        .log_internal_errors(false);
    let _ = match is_json() {
        true => log.event_format(Steps(Instant::now())).try_init(),
        false => log.with_timer(time::uptime()).try_init(),
    };
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    /// `error`, `warning`, `info`, `debug` or `trace`.
    level: &'a str,
    message: &'a str,
    /// Of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    causes: Option<&'a [String]>,
    /// Of a step: since the program began.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// Of a step: the module that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    /// Of a step.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl<'a> Line<'a> {
    fn new(level: &'a str, message: &'a str) -> Self {
        Self {
            level,
            message,
            causes: None,
            seconds: None,
            target: None,
            fields: Map::new(),
        }
    }
}

fn say_json(line: &Line<'_>) {
    say(&serde_json::to_string(line).unwrap_or_default());
}

/// Writes a line at once: other threads write too. Where nobody reads it, nothing can be done about
/// that.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Steps as lines of JSON, timed from here.
struct Steps(Instant);

impl<S, N> FormatEvent<S, N> for Steps
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_ascii_lowercase();
        let line = Line {
            seconds: Some((self.0.elapsed().as_secs_f64() * 1e6).round() / 1e6),
            target: Some(metadata.target()),
            fields: fields.others,
            ..Line::new(&level, &fields.message)
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.insert(field, text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.insert(field, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_found_whatever_is_around_it() {
        let found = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let (format, others) = split(&args);
            let others = others.join(OsStr::new(" ")).into_string().unwrap();
            (format == LogFormatName::Json, others)
        };
        for (line, json, others) in [
            ("a --log-format json b", true, "a b"),
            ("a --nonsense --log-format=json", true, "a --nonsense"),
            ("a --log-format json --log-format text", false, "a"),
            ("a --log-format", false, "a --log-format"),
            ("a --log-format xml b", false, "a --log-format xml b"),
            ("a --log-formats json", false, "a --log-formats json"),
            ("a -- --log-format json", false, "a -- --log-format json"),
        ] {
            assert_eq!(found(line), (json, others.to_owned()), "{line}");
        }
    }
}
