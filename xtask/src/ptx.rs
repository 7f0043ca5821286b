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
}

/// Compiles each kernel file to PTX, compressed, with the sum of all sources in its first line.
pub fn run(args: &Args) -> Result<()> {
    let nvcc = args.nvcc.clone().unwrap_or_else(|| {
        let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
        home.filter(|nvcc| nvcc.is_file())
            .unwrap_or_else(|| "nvcc".into())
    });
    let sources = sources()?;
    let sum = sum(&sources)?;
    let work = tempfile::tempdir()?;
    for source in sources
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
    {
        let name = source.file_stem().context("a kernel file without a name")?;
        let ptx = work.path().join(name).with_extension("ptx");
        let target = format!("-gencode=arch={ARCHITECTURE},code={ARCHITECTURE}");
        let mut command = Command::new(&nvcc);
        command.args(["-std=c++17", "-O3", "--ptx", &target, "-o"]);
        tool::run(command.arg(&ptx).arg(source))?;
        let text = fs::read_to_string(&ptx)?;
        ensure!(
            text.is_ascii(),
            "{} has letters beyond ASCII",
            ptx.display()
        );
        let file = checked_in().join(name).with_extension("ptx.gz");
        fs::write(&file, compressed(&format!("{}{text}", first_line(&sum)))?)?;
        println!("{}: {} bytes", file.display(), fs::metadata(&file)?.len());
    }
    Ok(())
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
