//! The program that links for another machine.

use crate::tool;
use anyhow::{Result, bail};
use std::fmt;

/// How binaries are linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linker {
    /// As cargo does it for this machine.
    Usual,
    /// By a C compiler for the target.
    Program(String),
    /// By zig, which `cargo-zigbuild` calls.
    Zig,
}

impl Linker {
    /// The best linker for `target`.
    pub fn find(target: &str) -> Result<Self> {
        if let Ok(given) = std::env::var(setting(target, "LINKER")) {
            return Ok(Self::Program(given));
        }
        if target == tool::host()? {
            return Ok(Self::Usual);
        }
        Self::best(target, tool::answers)
    }

    /// The first that answers.
    fn best(target: &str, answers: impl Fn(&str, &[&str]) -> bool) -> Result<Self> {
        // Distributions leave the vendor out of the name; Homebrew keeps it.
        let short: Vec<&str> = match target.split('-').collect::<Vec<_>>()[..] {
            [arch, _, system, abi] => vec![arch, system, abi],
            ref parts => parts.to_vec(),
        };
        let short = short.join("-");
        let programs = [&short[..], target].map(|name| format!("{name}-gcc"));
        if answers(&programs[0], &["--version"]) {
            return Ok(Self::Program(programs[0].clone()));
        }
        // It looks for zig in several places itself.
        if answers("cargo-zigbuild", &["zig", "cc", "--", "--version"]) {
            return Ok(Self::Zig);
        }
        if answers(&programs[1], &["--version"]) {
            return Ok(Self::Program(programs[1].clone()));
        }
        bail!(
            "nothing links for {target}. One of these will do:\n\
             {} (Debian and Ubuntu: package gcc-{short})\n\
             cargo-zigbuild with zig\n\
             {} (macOS: Homebrew)\n\
             another one, named in {}",
            programs[0],
            programs[1],
            setting(target, "LINKER"),
        )
    }

    /// The C compiler that links, for what else is to be made for `target`.
    pub fn c_compiler(&self, target: &str) -> Result<String> {
        match self {
            Self::Usual => Ok(std::env::var("CC").unwrap_or_else(|_| "cc".into())),
            Self::Program(name) => Ok(name.clone()),
            Self::Zig => bail!(
                "zig alone will not do here: name a C compiler for {target} in {}",
                setting(target, "LINKER")
            ),
        }
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => "as usual",
            Self::Program(name) => name,
            Self::Zig => "zig",
        })
    }
}

/// The environment variable in which cargo looks for a setting of `target`.
pub fn setting(target: &str, name: &str) -> String {
    let target = target.replace(['-', '.'], "_").to_uppercase();
    format!("CARGO_TARGET_{target}_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_linker_that_answers_is_taken() {
        let target = "aarch64-unknown-linux-gnu";
        let best = |there: &[&str]| Linker::best(target, |program, _| there.contains(&program));
        let program = |name: &str| Linker::Program(name.into());
        let (debian, homebrew) = ("aarch64-linux-gnu-gcc", "aarch64-unknown-linux-gnu-gcc");
        assert_eq!(best(&[debian, "cargo-zigbuild"]).unwrap(), program(debian));
        assert_eq!(best(&["cargo-zigbuild", homebrew]).unwrap(), Linker::Zig);
        assert_eq!(best(&[homebrew]).unwrap(), program(homebrew));
        assert_eq!(program(debian).c_compiler(target).unwrap(), debian);
        assert!(Linker::Zig.c_compiler(target).is_err());
        let error = best(&[]).unwrap_err().to_string();
        for name in [
            debian,
            homebrew,
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        ] {
            assert!(error.contains(name), "{error}");
        }
    }
}
