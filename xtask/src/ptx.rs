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

/// The GPUs that get machine code: of the A100's, the H100's and the RTX 50's generation, to which the
/// GB10 belongs.
pub const ARCHITECTURES: &str = "80,90,120";

#[derive(Parser)]
pub struct Args {
    /// The compiler [default: $NVCC, $CUDA_HOME/bin/nvcc, nvcc in PATH or in /usr/local/cuda]
    #[arg(long, value_name = "PATH")]
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
        default_value = ARCHITECTURES
    )]
    architectures: Vec<u32>,
}

/// Compiles each kernel file to PTX, compressed, with the sum of all sources in its first line; or to
/// machine code, with PTX for all other GPUs.
pub fn run(args: &Args) -> Result<()> {
    let nvcc = nvcc(args.nvcc.as_deref())?;
    if let Some(dir) = &args.fatbin {
        return fat_binaries(&nvcc, &args.architectures, dir).map(|_| ());
    }
    let sum = sum(&sources()?)?;
    each_kernel(&nvcc, &checked_in(), "ptx.gz", |command, file| {
        ptx(command, &sum, file)
    })?;
    Ok(())
}

/// Finds CUDA's compiler: the given one, else that of a toolkit.
pub fn nvcc(given: Option<&Path>) -> Result<PathBuf> {
    let given = given.map(Path::to_owned);
    let candidates = match given.or_else(|| env::var_os("NVCC").map(PathBuf::from)) {
        Some(given) => vec![given],
        None => {
            let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
            let usual = ["nvcc", "/usr/local/cuda/bin/nvcc"].map(PathBuf::from);
            home.into_iter().chain(usual).collect()
        }
    };
    // Not what takes its place elsewhere.
    let is_nvcc = |path: &PathBuf| {
        let said = tool::output(Command::new(path).arg("--version"));
        said.is_ok_and(|said| said.contains("NVIDIA"))
    };
    let found = candidates.iter().find(|path| is_nvcc(path)).cloned();
    found.with_context(|| {
        let names: Vec<_> = candidates.iter().map(|p| p.display().to_string()).collect();
        format!(
            "CUDA's compiler is not here (tried: {}).\n\
             From PyPI, without root:\n\
             python3 -m venv cuda\n\
             cuda/bin/pip install 'cuda-toolkit[nvcc,cudart,cccl,crt,nvvm]==13.0.*'\n\
             then add --nvcc cuda/lib/python3*/site-packages/nvidia/cu13/bin/nvcc\n\
             Or NVIDIA's CUDA toolkit 13, whose nvcc is found in PATH and in /usr/local/cuda.\n\
             `cargo xtask dist --cuda --no-machine-code` does without: each GPU compiles the kernels \
             at its first start, for about 10 seconds.",
            names.join(", ")
        )
    })
}

/// Compiles each kernel file in `dir` to machine code for several architectures, beside PTX.
pub fn fat_binaries(nvcc: &Path, architectures: &[u32], dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    each_kernel(nvcc, dir, "fatbin", |mut command, file| {
        tool::run(command.args(fat(architectures)).arg("-o").arg(file))
    })
}

/// Has `compile` make a file in `dir` of each kernel file.
fn each_kernel(
    nvcc: &Path,
    dir: &Path,
    extension: &str,
    compile: impl Fn(Command, &Path) -> Result<()>,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for source in sources()? {
        if source.extension().is_none_or(|end| end != "cu") {
            continue;
        }
        let name = source.file_stem().context("a kernel file without a name")?;
        let file = dir.join(name).with_extension(extension);
        let mut command = Command::new(nvcc);
        command.args(["-std=c++17", "-O3", &text()]).arg(&source);
        compile(command, &file)?;
        println!("{}: {} bytes", file.display(), fs::metadata(&file)?.len());
        files.push(file);
    }
    Ok(files)
}

/// The compiler's arguments for machine code.
fn fat(architectures: &[u32]) -> Vec<String> {
    let code = |&number: &u32| {
        // What only Hopper has, no later GPU takes; there is no later member of its generation.
        let own = if number == 90 { "a" } else { "" };
        format!("-gencode=arch=compute_{number}{own},code=sm_{number}{own}")
    };
    let mut arguments: Vec<String> = architectures.iter().map(code).collect();
    // A tenth of what the default leaves; drivers know it since CUDA 12.4. One thread for each
    // architecture.
    arguments.extend(["-fatbin", "--compress-mode=size", "--threads=0"].map(str::to_owned));
    arguments
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
    fn machine_code_is_made_for_each_architecture() {
        let arguments = fat(&[80, 90, 120]);
        assert_eq!(arguments[0], "-gencode=arch=compute_80,code=sm_80");
        assert_eq!(arguments[1], "-gencode=arch=compute_90a,code=sm_90a");
        assert_eq!(arguments[2], "-gencode=arch=compute_120,code=sm_120");
        assert_eq!(arguments[3], "-fatbin");
    }

    #[test]
    fn without_the_compiler_it_is_said_where_one_comes_from() {
        let error = nvcc(Some(Path::new("/nowhere/nvcc"))).unwrap_err();
        let error = error.to_string();
        for part in ["/nowhere/nvcc", "cuda-toolkit[nvcc", "--no-machine-code"] {
            assert!(error.contains(part), "{error}");
        }
    }

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
