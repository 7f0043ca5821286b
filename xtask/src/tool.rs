//! Other programs: whether they are there, and what they say.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Whether `program arguments` can be run and succeeds.
pub fn answers(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs `command`, whose output the caller sees.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| shown(command))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{} failed ({status})", shown(command)),
    }
}

/// What `command` prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| shown(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{} failed ({}): {said}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| shown(command))
}

/// A command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    let parts: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
    parts.join(" ")
}

/// The cargo that runs this task.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The compiler that this cargo uses.
pub fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// A line of `rustc -vV`: `release`, `commit-hash` or `host`.
pub fn compiler(what: &str) -> Result<String> {
    let version = output(rustc().arg("-vV"))?;
    let mut lines = version.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(name, _)| *name == what);
    let (_, value) = found.with_context(|| format!("rustc -vV says no {what}"))?;
    Ok(value.to_owned())
}

/// The triple of this machine.
pub fn host() -> Result<String> {
    compiler("host")
}
