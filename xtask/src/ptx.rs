//! The CUDA kernels: from their source to what is checked in.

use crate::tool;
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// What runs on every GPU from compute capability 8.0 on: the driver compiles it for the one that
/// is there.
const ARCHITECTURE: &str = "compute_80";

#[derive(Parser)]
pub struct Args {
    /// The compiler [default: nvcc in $CUDA_HOME/bin or in PATH]
    #[arg(long, env = "NVCC", value_name = "PATH")]
    nvcc: Option<PathBuf>,

    /// Instead of what is checked in, leave machine code for several architectures in this
    /// directory, which AGX_OCR_FATBINS names to a build with `--cfg agx_ocr_fatbin`
    #[arg(long, value_name = "DIR")]
    fatbin: Option<PathBuf>,

    /// The architectures of the machine code; AGX_OCR_FATBIN_ARCHITECTURES names them to the build
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "80,90,120"
    )]
    architectures: Vec<u32>,
}

/// Compiles each kernel file to PTX, compressed, with the sum of all sources in its first line; or to
/// machine code, with PTX for all other GPUs.
pub fn run(args: &Args) -> Result<()> {
    let nvcc = args.nvcc.clone().unwrap_or_else(|| {
        let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
        home.filter(|nvcc| nvcc.is_file())
            .unwrap_or_else(|| "nvcc".into())
    });
    let sources = sources()?;
    let sum = sum(&sources)?;
    let is_kernel = |path: &&PathBuf| path.extension().is_some_and(|end| end == "cu");
    for source in sources.iter().filter(is_kernel) {
        let name = source.file_stem().context("a kernel file without a name")?;
        let mut command = Command::new(&nvcc);
        command.args(["-std=c++17", "-O3", &text()]).arg(source);
        let file = match &args.fatbin {
            Some(dir) => {
                let file = dir.join(name).with_extension("fatbin");
                machine_code(command, &args.architectures, &file)?;
                file
            }
            None => {
                let file = checked_in().join(name).with_extension("ptx.gz");
                ptx(command, &sum, &file)?;
                file
            }
        };
        println!("{}: {} bytes", file.display(), fs::metadata(&file)?.len());
    }
    Ok(())
}

/// Compiles to machine code for each architecture, beside PTX.
fn machine_code(mut command: Command, architectures: &[u32], file: &Path) -> Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    for number in architectures {
        command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
    }
    tool::run(command.args(["-fatbin", "-o"]).arg(file))
}

/// Compiles to PTX, and compresses it behind a line with the sources' sum.
fn ptx(mut command: Command, sum: &str, file: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let ptx = work.path().join("kernels.ptx");
    tool::run(command.args(["--ptx", "-o"]).arg(&ptx))?;
    let text = fs::read_to_string(&ptx)?;
    ensure!(
        text.is_ascii(),
        "{} has letters beyond ASCII",
        file.display()
    );
    Ok(fs::write(
        file,
        compressed(&format!("{}{text}", first_line(sum)))?,
    )?)
}

/// The compiler's argument for PTX.
fn text() -> String {
    format!("-gencode=arch={ARCHITECTURE},code={ARCHITECTURE}")
}

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/backend/src/cuda/kernels")
}

fn checked_in() -> PathBuf {
    kernels().join("../ptx")
}

/// All files that kernels are made of, in the order of their names.
fn sources() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(kernels())?.collect::<Result<Vec<_>, _>>()?;
    let mut sources: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    sources.sort();
    if sources.is_empty() {
        bail!("no kernels in {}", kernels().display());
    }
    Ok(sources)
}

/// SHA-256 of the sources.
fn sum(sources: &[PathBuf]) -> Result<String> {
    let mut hasher = Sha256::new();
    for source in sources {
        hasher.update(fs::read(source)?);
    }
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn first_line(sum: &str) -> String {
    format!("// Of sources with the sum {sum}\n")
}

fn compressed(text: &str) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    #[test]
    fn what_is_checked_in_is_made_from_the_sources() {
        let sources = sources().unwrap();
        let first = first_line(&sum(&sources).unwrap());
        let names = |dir: PathBuf, end: &str| -> Vec<String> {
            let names = fs::read_dir(dir).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names
                .filter_map(|name| Some(name.strip_suffix(end)?.to_owned()))
                .collect();
            names.sort();
            names
        };
        let found = names(checked_in(), ".ptx.gz");
        assert_eq!(found, names(kernels(), ".cu"), "run cargo xtask ptx");
        for name in found {
            let file = fs::read(checked_in().join(format!("{name}.ptx.gz"))).unwrap();
            let mut text = String::new();
            GzDecoder::new(&file[..]).read_to_string(&mut text).unwrap();
            assert!(
                text.starts_with(&first),
                "{name} is of other sources: run cargo xtask ptx"
            );
            assert!(text.contains(".target sm_80"), "{name}");
        }
    }
}
