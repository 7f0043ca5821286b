//! Where the standard library of another machine comes from.

use super::{hex, sysroot};
use crate::tool;
use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A way to a standard library, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StdLibrary {
    /// In the toolchain, as `rustup target add` puts it.
    Installed,
    /// In a sysroot of our own that was built earlier.
    Kept(PathBuf),
    /// In such a sysroot, to be built from the library's sources.
    Sources { from: PathBuf, to: PathBuf },
    /// In a container of the `cross` command, linker included.
    Container,
}

impl fmt::Display for StdLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => write!(f, "installed in the toolchain"),
            Self::Kept(sysroot) => write!(f, "built earlier, in {}", sysroot.display()),
            Self::Sources { from, .. } => write!(f, "to be built from {}", from.display()),
            Self::Container => write!(f, "in a container of `cross`"),
        }
    }
}

/// What is at hand.
struct Found {
    installed: bool,
    kept: bool,
    sources: Option<PathBuf>,
    container: bool,
}

impl StdLibrary {
    /// The best way for `target`; sysroots are kept in `target_dir`.
    pub fn find(target: &str, target_dir: &Path) -> Result<Self> {
        let installed =
            tool::output(tool::rustc().args(["--print", "target-libdir", "--target", target]))?;
        // No other compiler could read it.
        let version = tool::output(tool::rustc().arg("-vV"))?;
        let key = &hex(&Sha256::digest(version))[..16];
        let sysroot = target_dir.join("sysroot").join(format!("{target}-{key}"));
        let installed = sysroot::holds_std(Path::new(installed.trim()));
        let kept = sysroot::holds_std(&sysroot::lib_dir(&sysroot, target));
        // The rest takes longer to find out.
        let wanted = !installed && !kept;
        let found = Found {
            installed,
            kept,
            sources: if wanted { sources()? } else { None },
            // The client alone is of no use: the daemon has to answer.
            container: wanted
                && tool::answers("cross", &["--version"])
                && tool::answers("docker", &["info"]),
        };
        found.best(target, sysroot)
    }
}

impl Found {
    fn best(self, target: &str, sysroot: PathBuf) -> Result<StdLibrary> {
        Ok(match self {
            Self {
                installed: true, ..
            } => StdLibrary::Installed,
            Self { kept: true, .. } => StdLibrary::Kept(sysroot),
            Self {
                sources: Some(from),
                ..
            } => StdLibrary::Sources { from, to: sysroot },
            Self {
                container: true, ..
            } => StdLibrary::Container,
            _ => bail!(
                "there is no standard library for {target}.\n\
                 The usual way to one: rustup target add {target}\n\
                 From sources: rustup component add rust-src, or AGX_RUST_SRC=DIR with the directory \
                 `library` of this compiler's sources.\n\
                 In a container: the command `cross`, and a running docker."
            ),
        })
    }
}

/// The directory `library` of the compiler's sources, where one is at hand.
fn sources() -> Result<Option<PathBuf>> {
    let root = tool::output(tool::rustc().args(["--print", "sysroot"]))?;
    let release = tool::compiler("release")?;
    let component = Path::new(root.trim()).join("lib/rustlib/src/rust/library");
    let distribution = PathBuf::from(format!("/usr/src/rustc-{release}/library"));
    if let Some(given) = std::env::var_os("AGX_RUST_SRC") {
        let given = PathBuf::from(given);
        if !sysroot::holds_sources(&given) {
            bail!(
                "AGX_RUST_SRC={} is not the directory `library` of Rust's sources",
                given.display()
            );
        }
        return Ok(Some(given.canonicalize()?));
    }
    let candidates = [component, distribution].into_iter();
    Ok(candidates
        .into_iter()
        .find(|dir| sysroot::holds_sources(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_way_is_taken() {
        let best = |installed, kept, sources: Option<&str>, container| {
            let found = Found {
                installed,
                kept,
                sources: sources.map(PathBuf::from),
                container,
            };
            found.best("some-target", PathBuf::from("kept"))
        };
        let kept = || PathBuf::from("kept");
        let from_sources = StdLibrary::Sources {
            from: PathBuf::from("library"),
            to: kept(),
        };
        for (way, wanted) in [
            (
                best(true, true, Some("library"), true),
                StdLibrary::Installed,
            ),
            (
                best(false, true, Some("library"), true),
                StdLibrary::Kept(kept()),
            ),
            (best(false, false, Some("library"), true), from_sources),
            (best(false, false, None, true), StdLibrary::Container),
        ] {
            assert_eq!(way.unwrap(), wanted);
        }
        let error = best(false, false, None, false).unwrap_err().to_string();
        assert!(error.contains("rustup target add some-target"), "{error}");
    }
}
