//! Building for a machine, with what is at hand.

use super::{
    Dist,
    cuda::Cuda,
    linker::{Linker, setting},
    std_library::StdLibrary,
    sysroot,
};
use crate::tool;
use anyhow::{Context, Result, ensure};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The profile of what is handed out.
const PROFILE: &str = "lean";

/// How binaries for a machine are built.
pub struct Build {
    pub target: String,
    pub linked_statically: bool,
    pub without_pdf: bool,
    /// For GPUs.
    pub cuda: Option<Cuda>,
    /// Cargo's.
    pub target_dir: PathBuf,
    std_library: StdLibrary,
    linker: Linker,
}

impl Build {
    /// Finds a standard library, which is built if need be, and a linker; says which.
    pub fn new(target: &str, args: &Dist) -> Result<Self> {
        let linked_statically = args.linked_statically;
        ensure!(
            !linked_statically || target.ends_with("linux-gnu"),
            "--static is for Linux with glibc, not for {target}"
        );
        let target_dir = target_dir()?;
        let std_library = StdLibrary::find(target, &target_dir)?;
        println!("standard library: {std_library}");
        let linker = match &std_library {
            StdLibrary::Container => Linker::Usual,
            _ => Linker::find(target)?,
        };
        println!("linker: {linker}");
        ensure!(
            !linked_statically || linker != Linker::Zig && std_library != StdLibrary::Container,
            "--static needs a C compiler for {target} with glibc's static library"
        );
        ensure!(
            !args.cuda.cuda || std_library != StdLibrary::Container,
            "--cuda needs the standard library for {target} without a container: rustup target add \
             {target}"
        );
        let cuda = Cuda::prepare(&args.cuda, target, &linker, &target_dir)?;
        let mut build = Self {
            target: target.to_owned(),
            linked_statically,
            without_pdf: args.without_pdf,
            cuda,
            target_dir,
            std_library,
            linker,
        };
        if let StdLibrary::Sources { from, to } = build.std_library.clone() {
            sysroot::build(&from, &to, &build)?;
            build.std_library = StdLibrary::Kept(to);
        }
        Ok(build)
    }

    /// Builds the command.
    pub fn binary(&self) -> Result<PathBuf> {
        let mut cargo = self.cargo_for_gpus("build");
        cargo.args(["--locked", "--package", "agx-ocr", "--profile", PROFILE]);
        if self.without_pdf {
            cargo.arg("--no-default-features");
        }
        tool::run(&mut cargo)?;
        let dir = self.target_dir.join(&self.target).join(PROFILE);
        let binary = dir.join(format!("agx-ocr{}", env::consts::EXE_SUFFIX));
        ensure!(binary.is_file(), "the build left no {}", binary.display());
        Ok(binary)
    }

    /// `cargo verb` for the target, with the code for GPUs if there is to be any.
    pub fn cargo_for_gpus(&self, verb: &str) -> Command {
        let flags = self.cuda.as_ref().map(Cuda::flags).unwrap_or_default();
        let mut cargo = self.cargo_with(verb, flags);
        if let Some(cuda) = &self.cuda {
            cuda.set_up(&mut cargo);
        }
        cargo
    }

    /// `cargo verb` for the target, or what takes its place.
    pub fn cargo(&self, verb: &str) -> Command {
        self.cargo_with(verb, Vec::new())
    }

    /// The same with flags for the compiler.
    fn cargo_with(&self, verb: &str, mut flags: Vec<String>) -> Command {
        let (mut command, verb) = match (&self.std_library, &self.linker, verb) {
            (StdLibrary::Container, _, verb) => (Command::new("cross"), verb),
            (_, Linker::Zig, "build") => (Command::new("cargo-zigbuild"), "zigbuild"),
            (_, Linker::Zig, verb) => (Command::new("cargo-zigbuild"), verb),
            (_, _, verb) => (tool::cargo(), verb),
        };
        command.args([verb, "--target", &self.target]);
        if let Linker::Program(program) = &self.linker {
            command.env(setting(&self.target, "LINKER"), program);
        }
        if let StdLibrary::Kept(sysroot) = &self.std_library {
            flags.push(format!("--sysroot={}", sysroot.display()));
        }
        if self.linked_statically {
            flags.push("-Ctarget-feature=+crt-static".into());
        }
        if !flags.is_empty() {
            self.add_flags(&mut command, &flags);
        }
        command
    }

    /// Adds flags for the compiler to those that are given.
    fn add_flags(&self, command: &mut Command, flags: &[String]) {
        // Cargo heeds the first of these that is set, else its configuration.
        let encoded = env::var("CARGO_ENCODED_RUSTFLAGS");
        let plain = env::var("RUSTFLAGS").map(|flags| flags.replace(' ', "\x1f"));
        match encoded.or(plain) {
            Ok(given) => {
                let all = format!("{given}\x1f{}", flags.join("\x1f"));
                command.env("CARGO_ENCODED_RUSTFLAGS", all.trim_start_matches('\x1f'));
            }
            Err(_) => {
                // Lists of all configurations are joined. A list of strings is written alike in
                // Rust and in TOML.
                let setting = format!("target.{}.rustflags={flags:?}", self.target);
                command.args(["--config", &setting]);
            }
        }
    }
}

/// Cargo's directory for what it builds.
fn target_dir() -> Result<PathBuf> {
    let mut metadata = tool::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&tool::output(&mut metadata)?)?;
    let dir = metadata["target_directory"].as_str();
    Ok(Path::new(dir.context("cargo names no target directory")?).to_owned())
}
