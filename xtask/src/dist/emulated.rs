//! Tests on the machine that a binary is for: under qemu, or directly where this is one.

use super::{build::Build, linker::setting};
use crate::tool;
use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// A kind of processor, and the kernels that must be chosen on it.
struct Processor {
    name: &'static str,
    kernels: &'static str,
}

/// One that multiplies bf16, and one that does not.
const PROCESSORS: [Processor; 2] = [
    Processor {
        name: "max",
        kernels: "neon-bf16",
    },
    Processor {
        name: "neoverse-n1",
        kernels: "neon",
    },
];

/// What to test on every processor.
const KERNELS: &[&str] = &["--package", "agx-ocr-kernels"];

/// What else takes seconds under emulation.
const REST: &[&str] = &[
    "--package",
    "agx-ocr-text",
    "--package",
    "agx-ocr-vision",
    "--package",
    "agx-ocr-language",
    "--package",
    "agx-ocr-backend",
];

/// What takes most of an hour.
const PARITY: &[&str] = &["--package", "agx-ocr-pipeline", "--test", "parity"];

/// The page that is always read.
const PAGE: &str = "line-fox";

/// Runs the tests, and reads pages with `binary`.
pub fn run(build: &Build, binary: &Path, thorough: bool) -> Result<()> {
    let emulator = Emulator::find(&build.target)?;
    let [best, _] = &PROCESSORS;
    for processor in &PROCESSORS {
        emulator.test(build, processor, KERNELS)?;
    }
    emulator.test(build, best, REST)?;
    for processor in &PROCESSORS {
        emulator.read(binary, processor, PAGE)?;
    }
    if thorough {
        for page in pages()?.iter().filter(|page| *page != PAGE) {
            emulator.read(binary, best, page)?;
        }
        emulator.test(build, best, PARITY)?;
    }
    Ok(())
}

/// `qemu-user`, with the libraries of the machine.
struct Emulator {
    command: Vec<OsString>,
}

impl Emulator {
    fn find(target: &str) -> Result<Self> {
        let arch = target.split('-').next().unwrap_or_default();
        let names = [format!("qemu-{arch}-static"), format!("qemu-{arch}")];
        let found = names
            .into_iter()
            .find(|name| tool::answers(name, &["--version"]));
        let name = found.with_context(|| {
            format!("qemu-{arch} is not here (Debian and Ubuntu: package qemu-user-static)")
        })?;
        let mut command = vec![name.into()];
        // Where Debian's and Ubuntu's cross compilers have them; qemu heeds the variable itself.
        let libraries = format!("/usr/{arch}-linux-gnu");
        if std::env::var_os("QEMU_LD_PREFIX").is_none() && Path::new(&libraries).is_dir() {
            command.extend(["-L".into(), libraries.into()]);
        }
        Ok(Self { command })
    }

    fn on(&self, processor: &Processor) -> Vec<OsString> {
        let cpu = ["-cpu", processor.name].map(OsString::from);
        [&self.command[..], &cpu].concat()
    }

    /// `cargo test` of `what`.
    fn test(&self, build: &Build, processor: &Processor, what: &[&str]) -> Result<()> {
        println!("testing on {}: {}", processor.name, what.join(" "));
        let mut cargo = build.cargo("test");
        cargo.args(["--locked", "--quiet"]).args(what);
        if !what.contains(&"--test") {
            // Not the documentation's examples: rustdoc would have to be told all of this, too.
            cargo.args(["--lib", "--tests"]);
        }
        let runner = self.on(processor).join(" ".as_ref());
        tool::run(cargo.env(setting(&build.target, "RUNNER"), runner))
    }

    /// Reads a sample page, and compares the text with what every other machine reads.
    fn read(&self, binary: &Path, processor: &Processor, page: &str) -> Result<()> {
        let fixtures = fixtures();
        let started = Instant::now();
        let [qemu, arguments @ ..] = &self.on(processor)[..] else {
            unreachable!("a command has a name");
        };
        let mut command = Command::new(qemu);
        command
            .args(arguments)
            .arg(binary)
            .arg("--stats")
            .arg("--model-path")
            .arg(fixtures.join("models/agx-ocr-mini"))
            .stdin(File::open(fixtures.join(format!("pages/{page}.png")))?);
        let read: serde_json::Value = serde_json::from_str(&tool::output(&mut command)?)?;
        let expected = fs::read_to_string(fixtures.join(format!("pages/{page}.out.txt")))?;
        ensure!(
            read["text"] == expected.trim_end(),
            "{page} on {}: {} was read instead of {expected:?}",
            processor.name,
            read["text"],
        );
        let kernels = &read["stats"]["machine"]["kernels"];
        ensure!(
            kernels == processor.kernels,
            "{} chose the kernels {kernels} instead of {}",
            processor.name,
            processor.kernels,
        );
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "read on {}: {page}, the same text, in {seconds:.0} s",
            processor.name
        );
        Ok(())
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The names of all sample pages.
fn pages() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fixtures().join("pages"))? {
        let name = entry?.file_name();
        let page = name.to_str().and_then(|name| name.strip_suffix(".png"));
        names.extend(page.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
