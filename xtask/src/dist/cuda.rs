//! Code for NVIDIA GPUs in a binary that starts where there is no CUDA.
//!
//! Three things make it so. The kernels are machine code for several GPUs. A setting makes cudarc open
//! CUDA's libraries when the command runs; what candle hands to the linker all the same are libraries
//! without contents, which it leaves out. And candle's own kernels, of which nothing here uses one, are
//! left empty by a stand-in for CUDA's compiler.

use super::{fatbin::Contents, linker::Linker};
use crate::{ptx, tool};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What candle and cudarc have the linker look for.
const LIBRARIES: [&str; 7] = [
    "cuda", "cublas", "cublasLt", "curand", "nvrtc", "cudart", "stdc++",
];

/// Where else cudarc would look for them.
const ELSEWHERE: [&str; 4] = [
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "CUDNN_LIB",
];

#[derive(Default, clap::Args)]
pub struct Args {
    /// Compute on NVIDIA GPUs, too, where the machine has CUDA's libraries.
    #[arg(long, conflicts_with = "linked_statically")]
    pub cuda: bool,
    #[command(flatten)]
    pub code: GpuCode,
}

/// What code for GPUs a build holds; for one that holds any.
#[derive(Clone, Default, clap::Args)]
pub struct GpuCode {
    /// CUDA's compiler, for the machine code [default: $NVCC, $CUDA_HOME/bin/nvcc, nvcc in PATH or in
    /// /usr/local/cuda]
    #[arg(long, value_name = "PATH")]
    nvcc: Option<PathBuf>,
    /// The GPUs to make machine code for; all others compile PTX at their first start.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = ptx::ARCHITECTURES
    )]
    architectures: Vec<u32>,
    /// Leave out machine code, for which CUDA's compiler is needed: every GPU compiles PTX.
    #[arg(long, conflicts_with_all = ["nvcc", "architectures"])]
    no_machine_code: bool,
}

/// What such a build needs, made before it.
pub struct Cuda {
    machine_code: Option<MachineCode>,
    /// Of it cudarc knows that libraries are in `lib`.
    stubs: PathBuf,
    /// The C compiler for the target.
    compiler: String,
}

struct MachineCode {
    files: Vec<PathBuf>,
    dir: PathBuf,
    architectures: Vec<u32>,
}

impl Cuda {
    /// Makes machine code and libraries without contents below `target_dir`.
    pub fn prepare(
        args: &Args,
        target: &str,
        linker: &Linker,
        target_dir: &Path,
    ) -> Result<Option<Self>> {
        if !args.cuda {
            return Ok(None);
        }
        ensure!(
            target.ends_with("linux-gnu"),
            "--cuda is for Linux with glibc, not for {target}"
        );
        let compiler = linker.c_compiler(target)?;
        let stubs = target_dir.join("cuda-stubs").join(target);
        make_stubs(&stubs.join("lib"), &compiler)?;
        let machine_code = match args.code.no_machine_code {
            true => None,
            false => Some(MachineCode::make(&args.code, target_dir)?),
        };
        Ok(Some(Self {
            machine_code,
            stubs,
            compiler,
        }))
    }

    /// Flags for Rust's compiler.
    pub fn flags(&self) -> Vec<String> {
        // A feature of cudarc's that candle rules out; its build script, which would object, does not
        // get these flags, as there is an explicit target.
        let mut flags = vec!["--cfg".to_owned(), r#"feature="dynamic-loading""#.into()];
        if self.machine_code.is_some() {
            flags.extend(["--cfg", "agx_ocr_fatbin"].map(str::to_owned));
        }
        flags
    }

    /// Adds features, and what build scripts want to know.
    pub fn set_up(&self, cargo: &mut Command) {
        cargo.args(["--features", "cuda"]);
        for name in ELSEWHERE {
            cargo.env_remove(name);
        }
        cargo
            .env("NVCC", stand_in())
            .env("NVCC_CCBIN", &self.compiler)
            .env("CUDA_HOME", &self.stubs)
            // Of the kernels that come out empty.
            .env("CUDA_COMPUTE_CAP", "80")
            // Whose functions are called, if the GPU's machine has them.
            .env("CUDARC_CUDA_VERSION", "13000");
        if let Some(code) = &self.machine_code {
            cargo
                .env("AGX_OCR_FATBINS", &code.dir)
                .env("AGX_OCR_FATBIN_ARCHITECTURES", list(&code.architectures));
        }
    }

    /// Says which code `binary` holds, and fails where that is not what was asked for.
    pub fn check(&self, binary: &Path) -> Result<()> {
        let Some(code) = &self.machine_code else {
            println!("for GPUs: PTX alone, which the driver compiles at the first start");
            return Ok(());
        };
        let binary = fs::read(binary)?;
        let wanted: BTreeSet<u32> = code.architectures.iter().copied().collect();
        let mut said = BTreeSet::new();
        for path in &code.files {
            let file = fs::read(path)?;
            let contents = Contents::of(&file).with_context(|| path.display().to_string())?;
            ensure!(
                contents.machine == wanted && !contents.text.is_empty(),
                "{} holds {contents}, not machine code for {} and PTX",
                path.display(),
                list(&code.architectures)
            );
            ensure!(
                contains(&binary, &file),
                "the binary does not hold {}",
                path.display()
            );
            said.insert(contents.to_string());
        }
        for contents in said {
            println!("for GPUs: {contents}");
        }
        Ok(())
    }
}

impl MachineCode {
    fn make(args: &GpuCode, target_dir: &Path) -> Result<Self> {
        let nvcc = ptx::nvcc(args.nvcc.as_deref())?;
        let architectures = args.architectures.clone();
        let dir = target_dir
            .join("fatbins")
            .join(list(&architectures).replace(',', "-"));
        println!("machine code: by {}", nvcc.display());
        let files = ptx::fat_binaries(&nvcc, &architectures, &dir)?;
        Ok(Self {
            files,
            dir,
            architectures,
        })
    }
}

/// Makes libraries without contents.
fn make_stubs(dir: &Path, compiler: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for name in LIBRARIES {
        // By its name it would be recognised if the binary came to need it.
        let soname = format!("-Wl,-soname,empty-{name}.so");
        let mut command = Command::new(compiler);
        command.args([
            "-shared",
            "-nostdlib",
            &soname,
            "-x",
            "c",
            "/dev/null",
            "-o",
        ]);
        tool::run(command.arg(dir.join(format!("lib{name}.so"))))?;
    }
    Ok(())
}

/// What takes the place of CUDA's compiler for candle's kernels.
fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/stand-in-nvcc")
}

/// As the build wants to hear of architectures.
fn list(architectures: &[u32]) -> String {
    let numbers: Vec<_> = architectures.iter().map(u32::to_string).collect();
    numbers.join(",")
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::{super::fatbin::tests::fatbin, *};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        dist: super::super::Dist,
    }

    fn parse(arguments: &str) -> Result<Args, clap::Error> {
        let cli = Cli::try_parse_from(format!("dist {arguments}").split_whitespace())?;
        Ok(cli.dist.cuda)
    }

    #[test]
    fn options_fit_together() {
        let args = parse("--cuda --nvcc a/nvcc --architectures 90,121").unwrap();
        assert_eq!(args.code.architectures, [90, 121]);
        assert_eq!(parse("--cuda").unwrap().code.architectures, [80, 90, 120]);
        assert!(!parse("").unwrap().cuda);
        for wrong in [
            "--cuda --static",
            "--cuda --no-machine-code --architectures 90",
            "--cuda --architectures sm_90",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cargo_is_told_where_everything_is() {
        let machine_code = |architectures: &[u32]| MachineCode {
            files: Vec::new(),
            dir: "fatbins".into(),
            architectures: architectures.to_vec(),
        };
        let mut cuda = Cuda {
            machine_code: Some(machine_code(&[80, 120])),
            stubs: "stubs".into(),
            compiler: "some-gcc".into(),
        };
        let set = |cuda: &Cuda, name: &str| {
            let mut cargo = Command::new("cargo");
            cuda.set_up(&mut cargo);
            let mut set = cargo.get_envs().filter(|(key, _)| *key == name);
            set.next()
                .and_then(|(_, value)| Some(value?.to_str()?.to_owned()))
        };
        assert_eq!(
            set(&cuda, "AGX_OCR_FATBIN_ARCHITECTURES").as_deref(),
            Some("80,120")
        );
        assert_eq!(set(&cuda, "AGX_OCR_FATBINS").as_deref(), Some("fatbins"));
        assert_eq!(set(&cuda, "NVCC_CCBIN").as_deref(), Some("some-gcc"));
        assert_eq!(cuda.flags().len(), 4);
        cuda.machine_code = None;
        assert_eq!(set(&cuda, "AGX_OCR_FATBINS"), None);
        assert_eq!(cuda.flags(), ["--cfg", r#"feature="dynamic-loading""#]);
    }

    #[test]
    fn the_binary_has_to_hold_what_was_asked_for() {
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str, bytes: &[u8]| {
            let path = work.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let code = fatbin(&[(2, 80), (1, 80), (2, 90)]);
        let file = at("rows.fatbin", &code);
        let full = at("full", &[b"before", &code[..], b"after"].concat());
        let empty = at("empty", b"beforeafter");
        let check = |architectures: &[u32], binary: &Path| {
            let machine_code = Some(MachineCode {
                files: vec![file.clone()],
                dir: work.path().into(),
                architectures: architectures.to_vec(),
            });
            let (stubs, compiler) = (PathBuf::new(), String::new());
            let cuda = Cuda {
                machine_code,
                stubs,
                compiler,
            };
            cuda.check(binary).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[90, 80], &full), Ok(()));
        let error = check(&[80, 90], &empty).unwrap_err();
        assert!(error.contains("does not hold"), "{error}");
        let error = check(&[80, 90, 120], &full).unwrap_err();
        assert!(error.contains("not machine code for 80,90,120"), "{error}");
    }

    #[test]
    fn the_stand_in_is_there() {
        assert!(stand_in().is_file(), "{}", stand_in().display());
    }
}
