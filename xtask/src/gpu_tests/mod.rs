//! Tests and benchmarks for a machine with an NVIDIA GPU, built on one without: docs/gpu-testing.md.

use crate::{
    dist::{Build, Dist, GpuCode},
    tool,
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What runs there.
const SCRIPT: &str = include_str!("run.sh");

/// The unit tests of the package with this library.
const UNIT_TESTS: &str = "agx_ocr_backend";
/// Packages, and of each the tests that compute.
const TESTS: [(&str, &[&str]); 3] = [
    ("agx-ocr-backend", &[UNIT_TESTS]),
    ("agx-ocr-pipeline", &["parity", "batch", "pages"]),
    ("agx-ocr", &["contract"]),
];
const BENCHES: [&str; 3] = ["batch", "layers", "page"];

#[derive(clap::Args)]
pub struct Args {
    /// The folder to leave everything in
    #[arg(long, value_name = "DIR", default_value = "target/gpu-tests")]
    to: PathBuf,
    #[command(flatten)]
    code: GpuCode,
}

/// Builds everything, and leaves it in a folder to carry.
pub fn run(args: &Args) -> Result<()> {
    let dist = Dist::for_gpus(args.code.clone());
    let build = Build::new(&tool::host()?, &dist)?;
    let to = |kind: &str, name: &str| args.to.join(kind).join(name);
    for kind in ["tests", "benches"] {
        let dir = args.to.join(kind);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    let mut command = None;
    for (package, tests) in TESTS {
        let mut cargo = build.cargo_for_gpus("test");
        cargo.args(["--package", package]);
        for &test in tests {
            match test {
                UNIT_TESTS => cargo.arg("--lib"),
                test => cargo.args(["--test", test]),
            };
        }
        for (name, path) in executables(&mut cargo)? {
            match name == "agx-ocr" {
                true => command = Some(path),
                false => keep(&path, &to("tests", &name))?,
            }
        }
    }
    let mut cargo = build.cargo_for_gpus("bench");
    cargo.args(["--package", "agx-ocr-benches"]);
    for bench in BENCHES {
        cargo.args(["--bench", bench]);
    }
    for (name, path) in executables(&mut cargo)? {
        keep(&path, &to("benches", &name))?;
    }
    // Tests look for the command, and all of them for fixtures, where they were built.
    let command = command.context("the tests' build left no command")?;
    keep(&build.binary()?, &args.to.join("agx-ocr"))?;
    fs::write(args.to.join("command"), command.display().to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize()?;
    fs::write(args.to.join("root"), root.display().to_string())?;
    let script = args.to.join("run.sh");
    fs::write(&script, SCRIPT)?;
    make_executable(&script)?;
    println!("to carry: {} and fixtures", args.to.display());
    Ok(())
}

/// Builds, and gives what can be run, with the names of the targets.
fn executables(cargo: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    cargo.args([
        "--no-run",
        "--locked",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let found = parse(&tool::output(cargo)?);
    ensure!(!found.is_empty(), "cargo built nothing that can be run");
    Ok(found)
}

/// What can be run, out of cargo's messages.
fn parse(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let executable = |message: serde_json::Value| {
        let path = message["executable"].as_str()?.into();
        Some((message["target"]["name"].as_str()?.to_owned(), path))
    };
    messages.filter_map(executable).collect()
}

/// Copies an executable, without its symbols where they can be taken off.
fn keep(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to).with_context(|| from.display().to_string())?;
    }
    println!("{}: {} bytes", to.display(), fs::metadata(to)?.len());
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_run_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"half"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"parity"},"executable":"/t/deps/parity-1"}
{"reason":"build-finished","success":true}
no JSON"#;
        assert_eq!(
            parse(messages),
            [("parity".to_owned(), PathBuf::from("/t/deps/parity-1"))]
        );
    }

    #[test]
    fn the_script_runs_what_is_built() {
        for (_, tests) in TESTS {
            for test in tests {
                assert!(SCRIPT.contains(&format!("tests/{test}")), "{test}");
            }
        }
        for bench in BENCHES {
            assert!(SCRIPT.contains(bench), "{bench}");
        }
    }
}
