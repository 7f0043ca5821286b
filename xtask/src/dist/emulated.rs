//! Tests of an ARM64 binary under qemu. On an ARM64 machine `cargo test` does what is done here.

use super::{build::Build, linker::setting};
use crate::tool;
use anyhow::{Context, Result, ensure};
use std::{
    env,
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

/// The package that knows processors.
const KERNELS: &[&str] = &["agx-ocr-kernels"];

/// Those whose tests take seconds under emulation, too.
const OTHERS: &[&str] = &[
    "agx-ocr-text",
    "agx-ocr-vision",
    "agx-ocr-language",
    "agx-ocr-backend",
];

/// The page that is always read.
const PAGE: &str = "line-fox";

/// `qemu-user`, with the libraries of the machine.
pub struct Emulator {
    program: String,
    arguments: Vec<String>,
}

impl Emulator {
    pub fn find(target: &str) -> Result<Self> {
        let arch = "aarch64";
        ensure!(
            target.starts_with(arch),
            "only ARM64 is tested under emulation"
        );
        let names = [format!("qemu-{arch}-static"), format!("qemu-{arch}")];
        // Older ones do not know all processors. (Asked for help, they answer and fail.)
        let knows = |name: &String| {
            let answer = Command::new(name).args(["-cpu", "help"]).output();
            let known = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned());
            known.is_ok_and(|known| PROCESSORS.iter().all(|p| known.contains(p.name)))
        };
        let program = names.into_iter().find(knows).with_context(|| {
            format!("qemu-{arch} 7 or later is not here (Debian, Ubuntu: package qemu-user-static)")
        })?;
        let mut arguments = Vec::new();
        // Where Debian's and Ubuntu's cross compilers have them; qemu heeds the variable itself.
        let libraries = format!("/usr/{arch}-linux-gnu");
        if env::var_os("QEMU_LD_PREFIX").is_none() && Path::new(&libraries).is_dir() {
            arguments.extend(["-L".to_owned(), libraries]);
        }
        Ok(Self { program, arguments })
    }

    /// Starts a program on whatever processor it likes.
    pub fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(binary);
        command
    }

    /// Runs lints and tests, and reads pages with `binary`.
    pub fn run(&self, build: &Build, binary: &Path, all_pages: bool) -> Result<()> {
        let [best, _] = &PROCESSORS;
        let mut clippy = build.cargo("clippy");
        clippy.args(["--locked", "--quiet", "--all-targets"]);
        clippy.args(named(KERNELS));
        tool::run(clippy.args(["--", "-Dwarnings"]))?;
        for processor in &PROCESSORS {
            self.test(build, processor, KERNELS)?;
        }
        self.test(build, best, OTHERS)?;
        for processor in &PROCESSORS {
            self.read(binary, processor, PAGE)?;
        }
        if all_pages {
            for page in pages()?.iter().filter(|page| *page != PAGE) {
                self.read(binary, best, page)?;
            }
        }
        Ok(())
    }

    /// The arguments behind which a program of `processor` is named.
    fn on(&self, processor: &Processor) -> Vec<String> {
        let cpu = ["-cpu", processor.name].map(str::to_owned);
        [&self.arguments[..], &cpu].concat()
    }

    fn test(&self, build: &Build, processor: &Processor, packages: &[&str]) -> Result<()> {
        println!("testing on {}: {}", processor.name, packages.join(", "));
        let mut cargo = build.cargo("test");
        cargo.args(["--locked", "--quiet"]);
        cargo.args(named(packages));
        // Not the documentation's examples: rustdoc would have to be told all of this, too.
        cargo.args(["--lib", "--tests"]);
        let runner = format!("{} {}", self.program, self.on(processor).join(" "));
        tool::run(cargo.env(setting(&build.target, "RUNNER"), runner))
    }

    /// Reads a sample page, and compares the text with what every other machine reads.
    fn read(&self, binary: &Path, processor: &Processor, page: &str) -> Result<()> {
        let fixtures = fixtures();
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(self.on(processor))
            .arg(binary)
            // Its own choice is what is tested.
            .env_remove("AGX_OCR_KERNELS")
            .arg("--stats")
            // Emulation takes a hundred times as long.
            .args(["--max-seconds", "7200"])
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

/// Cargo's arguments for some packages.
fn named<'a>(packages: &[&'a str]) -> impl Iterator<Item = &'a str> {
    packages.iter().flat_map(|package| ["--package", package])
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
