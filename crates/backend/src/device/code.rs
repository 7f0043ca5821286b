//! Which of the code that a build holds a GPU can run.

use super::NoGpu;
use serde::Serialize;
use std::fmt;

/// A GPU's compute capability, such as 9.0 or 12.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Capability {
    /// The generation.
    pub major: u32,
    /// Its member.
    pub minor: u32,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The least that the kernels need: bf16 on tensor cores, and asynchronous copies.
pub const LEAST: Capability = Capability { major: 8, minor: 0 };

/// A version of CUDA, such as 13.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion {
    /// Before the point.
    pub major: u32,
    /// Behind it.
    pub minor: u32,
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What compiled the kernels, and what they need: neither text nor machine code of a later CUDA is
/// taken by a driver. It comes with drivers from 580 on.
pub(super) const LEAST_DRIVER: CudaVersion = CudaVersion {
    major: 13,
    minor: 0,
};

#[cfg_attr(
    not(any(feature = "cuda", test)),
    allow(dead_code, reason = "other builds ask no driver")
)]
impl CudaVersion {
    /// As drivers say it: 13000 for 13.0.
    pub(crate) fn of(number: i32) -> Self {
        let number = u32::try_from(number).unwrap_or(0);
        Self {
            major: number / 1000,
            minor: number % 1000 / 10,
        }
    }

    /// An error where the driver is older than the kernels' compiler.
    pub(crate) fn check(self) -> Result<(), NoGpu> {
        match self >= LEAST_DRIVER {
            true => Ok(()),
            false => Err(NoGpu::OldDriver { found: self }),
        }
    }
}

/// The code for GPUs that a build holds.
#[cfg_attr(
    not(any(feature = "cuda", test)),
    allow(dead_code, reason = "other builds hold none")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contents<'a> {
    /// Architectures with machine code.
    pub machine: &'a [Capability],
    /// The architecture of the text that the driver compiles.
    pub text: Option<Capability>,
}

/// Code that a GPU can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// Machine code for this architecture.
    Machine(Capability),
    /// Text for this architecture, which the driver compiles when it is first used.
    Text(Capability),
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(of) => write!(f, "machine code for {of}"),
            Self::Text(of) => write!(f, "PTX for {of}, which the driver compiles once"),
        }
    }
}

#[cfg_attr(
    not(any(feature = "cuda", test)),
    allow(dead_code, reason = "other builds hold none")
)]
impl Contents<'_> {
    /// The best code for a GPU: machine code runs on later members of its generation (CUDA C++
    /// Programming Guide, "Binary Compatibility"), text on everything later.
    pub(crate) fn code_for(&self, gpu: Capability) -> Option<Code> {
        if gpu < LEAST {
            return None;
        }
        let runs = |code: &&Capability| code.major == gpu.major && code.minor <= gpu.minor;
        let machine = self.machine.iter().filter(runs).max();
        let text = self.text.filter(|text| *text <= gpu);
        let machine = machine.copied().map(Code::Machine);
        machine.or(text.map(Code::Text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(major: u32, minor: u32) -> Capability {
        Capability { major, minor }
    }

    #[test]
    fn each_gpu_gets_the_best_code_that_it_can_run() {
        let release = Contents {
            machine: &[at(8, 0), at(9, 0), at(12, 0)],
            text: Some(at(8, 0)),
        };
        let plain = Contents {
            machine: &[],
            text: Some(at(8, 0)),
        };
        let hopper_alone = Contents {
            machine: &[at(9, 0)],
            text: None,
        };
        let newest = Contents {
            machine: &[at(12, 1)],
            text: Some(at(12, 0)),
        };
        let machine = |major, minor| Some(Code::Machine(at(major, minor)));
        let text = |major, minor| Some(Code::Text(at(major, minor)));
        for (gpu, wanted) in [
            (at(7, 5), [None, None, None, None]),
            (at(8, 0), [machine(8, 0), text(8, 0), None, None]),
            (at(8, 6), [machine(8, 0), text(8, 0), None, None]),
            (at(8, 9), [machine(8, 0), text(8, 0), None, None]),
            (at(9, 0), [machine(9, 0), text(8, 0), machine(9, 0), None]),
            (at(10, 0), [text(8, 0), text(8, 0), None, None]),
            (at(12, 0), [machine(12, 0), text(8, 0), None, text(12, 0)]),
            (
                at(12, 1),
                [machine(12, 0), text(8, 0), None, machine(12, 1)],
            ),
        ] {
            let found = [release, plain, hopper_alone, newest].map(|build| build.code_for(gpu));
            assert_eq!(found, wanted, "{gpu}");
        }
    }

    #[test]
    fn drivers_older_than_the_kernels_are_refused() {
        for (number, name, fits) in [
            (11080, "11.8", false),
            (12090, "12.9", false),
            (13000, "13.0", true),
            (13010, "13.1", true),
        ] {
            let version = CudaVersion::of(number);
            assert_eq!(version.to_string(), name);
            assert_eq!(version.check().is_ok(), fits, "{name}");
        }
        let error = CudaVersion::of(12040).check().unwrap_err().to_string();
        assert!(error.contains("12.4") && error.contains("13.0"), "{error}");
    }
}
