//! GPUs that are not there or cannot be used: `auto` reads on the CPU and says why, `cuda` is an error.
//!
//! Libraries of CUDA that a test makes take the place of real ones, so these are tests of a build that
//! opens them when it runs.

use crate::support::{agx_ocr, expected, page, skipped};
use std::{fs, path::Path, process::Command};

/// What a driver says: what its start gives, its version, and how many GPUs it sees.
struct Driver {
    init: i32,
    version: i32,
    count: i32,
}

impl Driver {
    const GOOD: Self = Self {
        init: 0,
        version: 13_000,
        count: 1,
    };

    fn source(&self) -> String {
        let Self {
            init,
            version,
            count,
        } = self;
        format!(
            "int cuInit(unsigned flags) {{ return {init}; }}\n\
             int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}\n\
             int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}\n"
        )
    }
}

/// Makes a library under both of its names.
fn library(dir: &Path, name: &str, version: u32, source: &str) {
    let code = dir.join(format!("{name}.c"));
    fs::write(&code, source).unwrap();
    let file = dir.join(format!("lib{name}.so.{version}"));
    let mut cc = Command::new("cc");
    let made = cc.args(["-shared", "-fPIC", "-o"]).arg(&file).arg(&code);
    assert!(made.status().unwrap().success());
    fs::copy(&file, dir.join(format!("lib{name}.so"))).unwrap();
}

/// A file that is no library has the names of one.
fn broken(dir: &Path, name: &str, version: u32) {
    for file in [format!("lib{name}.so.{version}"), format!("lib{name}.so")] {
        fs::write(dir.join(file), "no library").unwrap();
    }
}

/// Reads a page where CUDA's libraries are those in `dir`, with each of the choices.
fn falls_back(dir: &Path, reason: &str) {
    let run = |device: &str| {
        let mut run = agx_ocr(&["--device", device]).input(page("line-fox"));
        run.command.env("LD_LIBRARY_PATH", dir);
        run
    };
    let result = run("auto").json();
    assert_eq!(result["text"], expected("line-fox", "out"));
    let warnings = result["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let warning = warnings[0].as_str().unwrap();
    assert!(
        warning.contains("CPU") && warning.contains(reason),
        "{warning}"
    );
    run("cuda").run().fails(2, &[reason]);
    assert!(run("cpu").json()["warnings"].as_array().unwrap().is_empty());

    let mut devices = agx_ocr(&["devices", "--json"]);
    devices.command.env("LD_LIBRARY_PATH", dir);
    let devices = devices.json();
    assert_eq!(devices["auto"], "cpu");
    let said = devices["no_gpu"].as_str().unwrap();
    assert!(said.contains(reason), "{said}");
}

/// Whether libraries cannot be made here, which then is why a test is skipped.
fn no_compiler(test: &str) -> bool {
    let missing = Command::new("cc").arg("--version").output().is_err();
    if missing {
        skipped(test, "no C compiler to make libraries with");
    }
    missing
}

#[test]
fn what_is_wrong_with_a_gpu_is_said() {
    if no_compiler("what_is_wrong_with_a_gpu_is_said") {
        return;
    }
    let no_device = Driver {
        init: 100,
        ..Driver::GOOD
    };
    let none_seen = Driver {
        count: 0,
        ..Driver::GOOD
    };
    let old = Driver {
        version: 12_040,
        ..Driver::GOOD
    };
    let unwell = Driver {
        init: 803,
        ..Driver::GOOD
    };
    for (driver, reason) in [
        (no_device, "CUDA_VISIBLE_DEVICES hides it"),
        (none_seen, "CUDA_VISIBLE_DEVICES hides it"),
        (old, "knows CUDA 12.4, and this build needs 13.0"),
        (unwell, "the NVIDIA driver cannot be used"),
        // It has no other function.
        (Driver::GOOD, "the NVIDIA driver cannot be used"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        library(dir.path(), "cuda", 1, &driver.source());
        library(dir.path(), "cublas", 13, "");
        library(dir.path(), "cublasLt", 13, "");
        library(dir.path(), "curand", 10, "");
        falls_back(dir.path(), reason);
    }
}

#[test]
fn a_library_that_is_missing_is_named() {
    if no_compiler("a_library_that_is_missing_is_named") {
        return;
    }
    for (name, version) in [("cuda", 1), ("cublas", 13), ("curand", 10)] {
        let dir = tempfile::tempdir().unwrap();
        library(dir.path(), "cuda", 1, &Driver::GOOD.source());
        library(dir.path(), "cublas", 13, "");
        library(dir.path(), "curand", 10, "");
        broken(dir.path(), name, version);
        if name == "cublas" {
            broken(dir.path(), name, 12);
        }
        falls_back(
            dir.path(),
            &format!("lib{name}.so.{version} cannot be opened"),
        );
    }
}
