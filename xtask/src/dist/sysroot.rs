//! A sysroot of our own: the standard library of another machine, built from its sources.
//!
//! The compiler then takes it by `--sysroot`, and everything else stays as with an installed one:
//! stable features only, link-time optimisation, unwinding.

use super::build::Build;
use crate::tool;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where a sysroot has the libraries of `target`.
pub fn lib_dir(sysroot: &Path, target: &str) -> PathBuf {
    sysroot.join("lib/rustlib").join(target).join("lib")
}

/// Whether a directory of libraries holds the standard one.
pub fn holds_std(dir: &Path) -> bool {
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| name.to_str().is_some_and(is_std))
}

/// Whether `dir` is the directory `library` of the compiler's sources.
pub fn holds_sources(dir: &Path) -> bool {
    dir.join("sysroot/Cargo.toml").is_file() && dir.join("Cargo.lock").is_file()
}

/// Builds the standard library from the sources `from` into the sysroot `to`.
pub fn build(from: &Path, to: &Path, by: &Build) -> Result<()> {
    println!("building the standard library, once");
    let target = &by.target;
    let work = to.with_extension("building");
    // What an interrupted build, perhaps of other sources, may have left would be mixed in.
    for dir in [&work, to] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
    }
    let commit = tool::compiler("commit-hash")?;
    let flags = [
        "-Zforce-unstable-if-unmarked".to_owned(),
        // For link-time optimisation over its border.
        "-Cembed-bitcode=yes".into(),
        "--cap-lints=allow".into(),
        format!(
            "--remap-path-prefix={}=/rustc/{commit}/library",
            from.display()
        ),
    ];
    let mut cargo = by.cargo("build");
    cargo
        .current_dir(from.join("sysroot"))
        .args(["--quiet", "--locked", "--release"])
        .args(["--features", "panic-unwind backtrace", "-Zavoid-dev-deps"])
        // The library uses what is unstable for others.
        .env("RUSTC_BOOTSTRAP", "1")
        // Its own crates must not be taken for ours.
        .env("__CARGO_DEFAULT_LIB_METADATA", "agx-ocr-std")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", &work);
    let vendored = from.join("vendor");
    if vendored.is_dir() {
        let directory = vendored.display().to_string();
        let directory = format!("source.vendored.directory={directory:?}");
        cargo.args(["--offline", "--config", &directory]);
        cargo.args(["--config", r#"source.crates-io.replace-with="vendored""#]);
    }
    tool::run(&mut cargo)?;

    // Put in place as a whole: an interrupted build leaves no sysroot.
    let parts = work.join("parts");
    let libs = lib_dir(&parts, target);
    fs::create_dir_all(&libs)?;
    for entry in fs::read_dir(work.join(target).join("release/deps"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        // The package that pulls in all others has no code.
        let wanted = path.extension().is_some_and(|e| e == "rlib")
            && !name.to_string_lossy().starts_with("libsysroot-");
        if wanted {
            fs::copy(&path, libs.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    ensure!(
        holds_std(&libs),
        "the build left no standard library in {}",
        work.display()
    );
    fs::rename(&parts, to)?;
    Ok(fs::remove_dir_all(&work)?)
}
