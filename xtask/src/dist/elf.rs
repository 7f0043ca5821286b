//! What `readelf` says of a binary: for which machine it is, and what it needs there.

use crate::tool;
use anyhow::{Context, Result, bail, ensure};
use std::{path::Path, process::Command};

/// The newest C library that a binary may need: Ubuntu 24.04's.
const GLIBC: Version = Version(2, 39);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

/// A `readelf`, any of which knows all machines.
pub fn readelf(target: &str) -> Result<String> {
    let own = format!("{target}-readelf");
    let programs = ["readelf", "llvm-readelf", &own];
    let found = programs
        .into_iter()
        .find(|program| tool::answers(program, &["--version"]));
    let found = found.context("readelf is not here (Debian and Ubuntu: package binutils)")?;
    Ok(found.to_owned())
}

/// A binary.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    machine: String,
    /// Shared libraries.
    needed: Vec<String>,
    /// The newest version of the C library of which it uses something.
    glibc: Option<Version>,
    stripped: bool,
}

impl Elf {
    pub fn of(binary: &Path, readelf: &str) -> Result<Self> {
        let mut command = Command::new(readelf);
        // Its words differ between languages.
        command
            .env("LC_ALL", "C")
            .args(["-W", "-h", "-S", "-d", "-V"]);
        Self::parse(&tool::output(command.arg(binary))?)
    }

    fn parse(said: &str) -> Result<Self> {
        let machine = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("Machine:"));
        let needed = said.lines().filter(|line| line.contains("(NEEDED)"));
        let name = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
        let versions = said.split("GLIBC_").skip(1).filter_map(|rest| {
            let end = rest
                .find(|c: char| c != '.' && !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let mut numbers = rest[..end].split('.').map(str::parse);
            Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        Ok(Self {
            machine: machine
                .context("readelf names no machine")?
                .trim()
                .to_owned(),
            needed: needed.filter_map(name).collect(),
            glibc: versions.max(),
            stripped: !said.contains(".symtab"),
        })
    }

    /// Says what the binary is, and fails where it is not what `target` should get.
    pub fn check(&self, target: &str, linked_statically: bool) -> Result<()> {
        println!("machine: {}", self.machine);
        match &self.needed[..] {
            [] => println!("needs: no library"),
            needed => println!("needs: {}", needed.join(", ")),
        }
        if let Some(Version(major, minor)) = self.glibc {
            println!("needs: glibc {major}.{minor} or later");
        }
        let wanted = match target.split('-').next() {
            Some("aarch64") => "AArch64",
            Some("x86_64") => "X86-64",
            _ => bail!("it is not known what a binary for {target} should look like"),
        };
        ensure!(
            self.machine.contains(wanted),
            "the binary is not for {target}"
        );
        ensure!(self.stripped, "the binary holds symbols");
        // Parts of the C library, some of which became empty over time, and the unwinder.
        let usual = [
            "libc.so.6",
            "libm.so.6",
            "libpthread.so.0",
            "libdl.so.2",
            "libgcc_s.so.1",
        ];
        for name in &self.needed {
            let allowed = usual.contains(&&name[..]) || name.starts_with("ld-linux-");
            ensure!(
                allowed && !linked_statically,
                "the binary should not need {name}"
            );
        }
        ensure!(
            self.glibc.is_none_or(|version| version <= GLIBC),
            "the binary needs a newer C library than Ubuntu 24.04's"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "ELF Header:
  Machine:                           AArch64
Section Headers:
  [ 1] .interp           PROGBITS        0000000000000238 000238 00001b 00   A  0   0  1
Dynamic section at offset 0x5dfd20 contains 29 entries:
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
Version needs section '.gnu.version_r' contains 2 entries:
  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 4
  0x0020:   Name: GLIBC_2.34  Flags: none  Version: 2
";

    fn check(said: &str, target: &str, linked_statically: bool) -> Result<(), String> {
        let elf = Elf::parse(said).unwrap();
        elf.check(target, linked_statically)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_readelf_says_is_understood() {
        let elf = Elf::parse(SAID).unwrap();
        assert_eq!(elf.machine, "AArch64");
        assert_eq!(elf.needed, ["libgcc_s.so.1", "libc.so.6"]);
        assert_eq!(elf.glibc, Some(Version(2, 34)));
        assert!(elf.stripped);
    }

    #[test]
    fn only_what_the_target_can_run_passes() {
        let arm = "aarch64-unknown-linux-gnu";
        assert_eq!(check(SAID, arm, false), Ok(()));
        for (said, target, linked_statically, wanted) in [
            (
                SAID.to_owned(),
                "x86_64-unknown-linux-gnu",
                false,
                "not for x86_64",
            ),
            (SAID.to_owned(), arm, true, "should not need libgcc_s.so.1"),
            (
                SAID.replace("libc.so.6", "libfoo.so"),
                arm,
                false,
                "should not need libfoo.so",
            ),
            (SAID.replace("2.34", "2.40"), arm, false, "newer C library"),
            (SAID.replace(".interp", ".symtab"), arm, false, "symbols"),
            (
                SAID.to_owned(),
                "mips-unknown-linux-gnu",
                false,
                "not known",
            ),
        ] {
            let error = check(&said, target, linked_statically).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
