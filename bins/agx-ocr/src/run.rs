//! From arguments to the printed page.

use crate::{
    args::Args,
    card::card,
    config::Config,
    failure::Failure,
    output::{self, Measured},
    progress::Progress,
};
use agx_ocr_pipeline::{Event, Ocr};
use anyhow::anyhow;
use clap::Parser;
use std::{ffi::OsString, io, ops::ControlFlow, time::Instant};
use tracing::{Level, debug, info, trace};

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
        Err(help) if !help.use_stderr() => return output::print(help.to_string().as_bytes()),
        Err(error) => {
            let message = error.to_string();
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            return Err(Failure::invalid(anyhow!("{}", message.trim_end())));
        }
    };
    log(args.verbose);
    read_page(&Config::new(args)?)
}

fn read_page(config: &Config) -> Result<(), Failure> {
    // To its end before anything is written, even if the model is missing: a caller that writes
    // all of it first, and reads only then, would wait for us as we for it.
    let bytes = config.source.read(config.options.limits.bytes);

    let mut progress = Progress::new(config.progress);
    progress.stage("loading the model");
    let started = Instant::now();
    let (ocr, bytes) = match (load(config), bytes) {
        (Ok(ocr), Ok(bytes)) => (ocr, bytes),
        (Err(model), Err(input)) => return Err(model.and(input)),
        (Err(failure), _) | (_, Err(failure)) => return Err(failure),
    };
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    info!(model = ocr.name(), load_ms, "loaded");

    info!(bytes = bytes.len(), task = config.task.name(), "reading");
    let page = ocr.read_streaming(&bytes, &config.task, |event| {
        log_event(&event);
        progress.event(&event);
        ControlFlow::Continue(())
    })?;
    drop(progress);
    info!(
        regions = page.regions.len(),
        tokens = page.tokens.generated,
        finish_reason = ?page.finish_reason,
        warnings = page.warnings.len(),
        "read"
    );
    debug!(stats = ?page.stats, "times");
    let measured = config.output.stats.then(|| Measured {
        load_ms,
        machine: ocr.machine(),
        weight_bytes: ocr.weight_bytes(),
    });
    output::print_page(page, measured, &config.output)
}

fn load(config: &Config) -> Result<Ocr, Failure> {
    let Some(path) = &config.model else {
        return Err(Failure::invalid(anyhow!(
            "no model: give its directory with --model-path PATH or in MODEL_PATH"
        )));
    };
    Ok(Ocr::load(path, config.options.clone())?)
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

/// Logs a step; never what was read.
fn log_event(event: &Event<'_>) {
    match *event {
        Event::Image {
            width,
            height,
            bands,
        } => info!(width, height, bands, "page"),
        Event::View { done, total } => debug!(done, total, "view"),
        Event::Prefill { tokens } => debug!(tokens, "prompt"),
        Event::Token { count, .. } => trace!(count, "token"),
        _ => {}
    }
}
