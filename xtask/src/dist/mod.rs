//! Binaries to hand out: built, checked, and left with a checksum in `target/dist`.

mod build;
mod cuda;
mod elf;
mod emulated;
mod fatbin;
mod linker;
mod std_library;
mod sysroot;

use crate::tool;
use anyhow::{Context, Result, ensure};
pub use build::Build;
pub use cuda::GpuCode;
use elf::Elf;
use emulated::Emulator;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The machine that everything is built for besides this one.
pub const ARM64: &str = "aarch64-unknown-linux-gnu";

/// The largest binary that is handed out, in bytes.
const MOST_BYTES: u64 = 12_500_000;
/// The same without PDF: fonts, character maps and decoders of its own.
const MOST_BYTES_WITHOUT_PDF: u64 = 7_000_000;
/// What code for GPUs may add.
const MOST_BYTES_OF_CUDA: u64 = 3_000_000;

#[derive(Default, clap::Args)]
pub struct Dist {
    /// Link everything, the C library too, into the binary.
    #[arg(long = "static")]
    pub linked_statically: bool,
    /// Leave out PDF, which takes two fifths of the binary.
    #[arg(long)]
    pub without_pdf: bool,
    #[command(flatten)]
    pub cuda: cuda::Args,
}

impl Dist {
    /// With everything, and with code for GPUs.
    pub fn for_gpus(code: GpuCode) -> Self {
        let cuda = cuda::Args { cuda: true, code };
        Self {
            cuda,
            ..Self::default()
        }
    }
}

#[derive(clap::Args)]
pub struct Cross {
    #[command(flatten)]
    dist: Dist,
    /// The machine to build for.
    #[arg(long, default_value = ARM64)]
    target: String,
    /// Run tests, and read a page with the binary, under emulation.
    #[arg(long)]
    run_tests: bool,
    /// Read all sample pages, which takes most of an hour.
    #[arg(long, requires = "run_tests")]
    all_pages: bool,
}

/// A binary for this machine.
pub fn dist(args: &Dist) -> Result<()> {
    hand_out(&Build::new(&tool::host()?, args)?).map(|_| ())
}

/// A binary for another machine.
pub fn cross(args: &Cross) -> Result<()> {
    let emulator = match args.run_tests {
        true => Some(Emulator::find(&args.target)?),
        false => None,
    };
    let build = Build::new(&args.target, &args.dist)?;
    let binary = hand_out(&build)?;
    match emulator {
        Some(emulator) => emulator.run(&build, &binary, args.all_pages),
        None => Ok(()),
    }
}

/// Builds the binary, checks it, and leaves it with its checksum.
fn hand_out(build: &Build) -> Result<PathBuf> {
    // What checks need is looked for before the long build.
    let readelf = match build.target.contains("linux") {
        true => Some(elf::readelf(&build.target)?),
        false => None,
    };
    let built = build.binary()?;
    let size = fs::metadata(&built)?.len();
    println!("binary: {:.2} MB", size as f64 / 1e6);
    let most = most_bytes(build.without_pdf, build.cuda.is_some());
    ensure!(
        size <= most,
        "the binary has {size} bytes, more than the {most} that are handed out at most"
    );
    match readelf {
        Some(readelf) => {
            Elf::of(&built, &readelf)?.check(&build.target, build.linked_statically)?
        }
        None => println!("not inspected: {} has no ELF binaries", build.target),
    }
    if let Some(cuda) = &build.cuda {
        cuda.check(&built)?;
    }
    start(build, &built)?;
    let dir = build.target_dir.join("dist");
    fs::create_dir_all(&dir)?;
    let kind = kind(
        build.cuda.is_some(),
        build.without_pdf,
        build.linked_statically,
    );
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("agx-ocr-{version}-{}{kind}", build.target);
    // An older version beside it would be taken for it.
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let older = path.file_name().unwrap_or_default().to_string_lossy();
        let older = older.strip_suffix(".sha256").unwrap_or(&older);
        if older.starts_with("agx-ocr-") && older.ends_with(&format!("-{}{kind}", build.target)) {
            fs::remove_file(&path)?;
        }
    }
    let to = dir.join(&name);
    fs::copy(&built, &to).with_context(|| to.display().to_string())?;
    let sum = hex(&Sha256::digest(fs::read(&to)?));
    fs::write(
        dir.join(format!("{name}.sha256")),
        format!("{sum}  {name}\n"),
    )?;
    println!("left as {}, SHA-256 {sum}", to.display());
    Ok(to)
}

/// The end of a binary's name.
fn kind(cuda: bool, without_pdf: bool, linked_statically: bool) -> String {
    let parts = [
        (cuda, "-cuda"),
        (without_pdf, "-without-pdf"),
        (linked_statically, "-static"),
    ];
    let parts = parts.into_iter().filter(|(is, _)| *is);
    parts.map(|(_, part)| part).collect()
}

fn most_bytes(without_pdf: bool, cuda: bool) -> u64 {
    let most = match without_pdf {
        true => MOST_BYTES_WITHOUT_PDF,
        false => MOST_BYTES,
    };
    most + if cuda { MOST_BYTES_OF_CUDA } else { 0 }
}

/// Starts a binary where that can be done: with CUDA, too, it has to start without a GPU.
fn start(build: &Build, binary: &Path) -> Result<()> {
    let emulator = match build.target == tool::host()? {
        true => None,
        false => match Emulator::find(&build.target) {
            Ok(emulator) => Some(emulator),
            Err(error) => {
                println!("not started: {error}");
                return Ok(());
            }
        },
    };
    for argument in ["--version", "devices"] {
        let mut command = match &emulator {
            Some(emulator) => emulator.command(binary),
            None => Command::new(binary),
        };
        print!("starts: {}", tool::output(command.arg(argument))?);
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_inside() {
        assert_eq!(kind(false, false, false), "");
        assert_eq!(kind(false, true, true), "-without-pdf-static");
        assert_eq!(kind(true, true, false), "-cuda-without-pdf");
        assert!(most_bytes(true, true) < most_bytes(false, true));
    }
}
