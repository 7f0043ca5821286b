//! Statements 15 and 16 where the system gives little: memory, threads, stacks, room in a file.

use crate::support::{document, expected, fixture, skipped};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs the program with a page under a limit of the shell's, its output in a file.
fn limited(limit: &str, args: &[&str], result: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(env!("CARGO_BIN_EXE_agx-ocr")).args(args);
    shell.args(["--input", &document("../pages/line-fox.png")]);
    shell.stdin(Stdio::null());
    shell.stdout(fs::File::create(result).unwrap());
    shell.env("MODEL_PATH", fixture("models/agx-ocr-mini"));
    shell.env("RUST_MIN_STACK", "1");
    shell.output().unwrap()
}

/// The words of a run that must fail with an exit code of its own.
#[track_caller]
fn failed(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("Error: "), "{stderr}");
    stderr
}

#[test]
fn au_15_a_file_that_may_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = failed(limited("-f 0", &[], &dir.path().join("result.json")));
    assert!(
        stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
}

#[test]
fn au_16_little_room_for_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let result = dir.path().join("result.json");
    let output = limited("-s 64", &[], &result);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(&result).unwrap();
    assert!(text.contains(&expected("line-fox", "out")), "{text}");
}

/// The gigabytes behind some words of a message.
fn gigabytes(message: &str, words: &str) -> f64 {
    let number = message.split(words).nth(1).and_then(|rest| {
        let (number, _) = rest.trim_start().split_once(" GB")?;
        number.parse().ok()
    });
    number.unwrap_or_else(|| panic!("no gigabytes behind {words:?} in {message}"))
}

#[test]
fn au_16_too_little_memory_for_the_model_is_said_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let run = |limit: &str, more: &[&str]| {
        let args = [&["--threads", "2"], more].concat();
        limited(limit, &args, &dir.path().join("result.json"))
    };
    // Stacks take a part of it.
    let message = failed(run("-d 120000", &[]));
    let file = fixture("models/agx-ocr-mini/model.safetensors");
    let file = fs::metadata(file).unwrap().len() as f64 / 1e9;
    let weights = gigabytes(&message, "(weights ");
    assert!((weights - file).abs() < 0.001, "{message}");
    let (needed, answer) = (
        gigabytes(&message, "needs "),
        gigabytes(&message, "of the most tokens "),
    );
    assert!(answer > 0.01 && needed > weights + answer, "{message}");
    let available = gigabytes(&message, ") and ");
    assert!(available > 0.0 && available < needed, "{message}");
    for advice in ["close other programs", "fewer tokens or smaller views"] {
        assert!(message.contains(advice), "no {advice:?} in {message}");
    }
    // As it advises.
    let message = failed(run("-d 120000", &["--max-tokens", "10", "--mode", "tiny"]));
    assert!(gigabytes(&message, "needs ") < needed - 0.01, "{message}");
    for enough in ["-d 400000", "-v 4000000"] {
        assert_eq!(run(enough, &[]).status.code(), Some(0), "{enough}");
    }
}

#[test]
fn au_16_too_little_memory_for_a_stack() {
    let dir = tempfile::tempdir().unwrap();
    for limit in ["-d 60000", "-v 60000"] {
        let stderr = failed(limited(limit, &[], &dir.path().join("result.json")));
        assert!(stderr.contains("cannot start a thread"), "{stderr}");
    }
}

/// A limit of threads: dash has a name of its own for it.
fn threads(most: u32) -> String {
    format!("-u {most} 2>/dev/null || ulimit -p {most}")
}

/// The superuser's threads are not counted: nobody in particular runs the program.
#[test]
fn au_16_too_few_threads() {
    let dir = tempfile::tempdir().unwrap();
    if !rustix::process::getuid().is_root() {
        let stderr = failed(limited(&threads(1), &[], &dir.path().join("result.json")));
        assert!(stderr.contains("cannot start a thread"), "{stderr}");
        return;
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        skipped("au_16_too_few_threads", "setpriv is not installed");
        return;
    }
    let place = |path: &Path| {
        let copy = dir.path().join(path.file_name().unwrap());
        fs::copy(path, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place(Path::new(env!("CARGO_BIN_EXE_agx-ocr")));
    place(Path::new(&document("pages.pdf")));
    for file in fs::read_dir(fixture("models/agx-ocr-mini")).unwrap() {
        place(&file.unwrap().path());
    }
    let mut read = 0;
    for most in 1..20 {
        let script = format!(
            "ulimit {}; exec setpriv --reuid=54321 --clear-groups \
             ./agx-ocr --model-path . --threads 2 --input pages.pdf",
            threads(most)
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(dir.path());
        let output = shell.stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            read += 1;
            continue;
        }
        assert!(output.stdout.is_empty());
        let stderr = failed(output);
        assert!(stderr.contains("cannot start "), "{most}: {stderr}");
    }
    assert!((1..19).contains(&read), "{read} of 19 were read");
}
