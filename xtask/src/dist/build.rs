//! Building for a machine, with what is at hand.

use super::{
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
    /// Cargo's.
    pub target_dir: PathBuf,
    std_library: StdLibrary,
    linker: Linker,
}

impl Build {
    /// Finds a standard library, which is built if need be, and a linker; says which.
    pub fn new(target: &str, linked_statically: bool) -> Result<Self> {
        let target_dir = target_dir()?;
        let std_library = StdLibrary::find(target, &target_dir)?;
        let linker = match &std_library {
            StdLibrary::Container => Linker::Usual,
            _ => Linker::find(target)?,
        };
        ensure!(
            !linked_statically || linker != Linker::Zig && std_library != StdLibrary::Container,
            "--static needs a C compiler for {target} and its C library"
        );
        println!("standard library: {std_library}");
        println!("linker: {linker}");
        let std_library = match std_library {
            StdLibrary::Sources { from, to } => {
                sysroot::build(&from, &to, target)?;
                StdLibrary::Kept(to)
            }
            other => other,
        };
        Ok(Self {
            target: target.to_owned(),
            linked_statically,
            target_dir,
            std_library,
            linker,
        })
    }

    /// Builds the command.
    pub fn binary(&self) -> Result<PathBuf> {
        let mut cargo = self.cargo("build");
        tool::run(cargo.args(["--locked", "--package", "agx-ocr", "--profile", PROFILE]))?;
        let dir = self.target_dir.join(&self.target).join(PROFILE);
        let binary = dir.join(format!("agx-ocr{}", env::consts::EXE_SUFFIX));
        ensure!(binary.is_file(), "the build left no {}", binary.display());
        Ok(binary)
    }

    /// `cargo verb` for the target, or what takes its place.
    pub fn cargo(&self, verb: &str) -> Command {
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
        let mut ours = Vec::new();
        if let StdLibrary::Kept(sysroot) = &self.std_library {
            ours.push(format!("--sysroot={}", sysroot.display()));
        }
        if self.linked_statically {
            ours.push("-Ctarget-feature=+crt-static".into());
        }
        if !ours.is_empty() {
            // Of several variables cargo heeds one: what is said in any of them must stay.
            let flags = [given_flags(&self.target), ours].concat();
            command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        }
        command
    }
}

/// The compiler's flags from the variable that cargo would heed.
fn given_flags(target: &str) -> Vec<String> {
    let split = |flags: String, by: char| -> Vec<String> {
        let flags = flags.split(by).filter(|flag| !flag.is_empty());
        flags.map(str::to_owned).collect()
    };
    if let Ok(flags) = env::var("CARGO_ENCODED_RUSTFLAGS") {
        return split(flags, '\x1f');
    }
    let others = [
        env::var("RUSTFLAGS"),
        env::var(setting(target, "RUSTFLAGS")),
    ];
    let first = others.into_iter().flatten().next();
    first.map(|flags| split(flags, ' ')).unwrap_or_default()
}

/// Cargo's directory for what it builds.
fn target_dir() -> Result<PathBuf> {
    let mut metadata = tool::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&tool::output(&mut metadata)?)?;
    let dir = metadata["target_directory"].as_str();
    Ok(Path::new(dir.context("cargo names no target directory")?).to_owned())
}
