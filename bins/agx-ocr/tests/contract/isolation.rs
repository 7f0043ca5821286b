//! Statements 2, 13 and 15: no network, no file beside the named ones, and an end with an exit
//! code whatever happens around.

#[cfg(target_os = "linux")]
use crate::support::{Outcome, children};
use crate::support::{agx_ocr, document, finish, fixture, skipped};
use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The system calls about files and the network that a run makes, which ends with `code`.
fn trace(test: &str, args: &[&str], code: i32) -> Option<String> {
    if Command::new("strace").arg("-V").output().is_err() {
        skipped(test, "strace is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "trace=%file,%network", "-o"])
        .arg(&log);
    strace.arg(env!("CARGO_BIN_EXE_agx-ocr")).args(args);
    strace
        .env("MODEL_PATH", fixture("models/agx-ocr-mini"))
        .stdin(Stdio::null());
    let output = strace.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.contains("PTRACE") || stderr.contains("ptrace") {
        skipped(test, "processes may not be traced here");
        return None;
    }
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    Some(fs::read_to_string(log).unwrap())
}

/// Lines of a trace that open a connection, or that change a file.
fn deeds(trace: &str) -> Vec<&str> {
    const CHANGES: [&str; 10] = [
        "O_WRONLY",
        "O_RDWR",
        "O_CREAT",
        "rename",
        "unlink",
        "mkdir",
        "rmdir",
        "truncate(",
        "chmod",
        "link(",
    ];
    const NETWORK: [&str; 5] = ["socket(", "connect(", "bind(", "sendto(", "socketpair("];
    let is_deed = |line: &&str| {
        // The signals' thread is woken through a pair of sockets that leads nowhere else.
        let own = line.contains("socketpair(AF_UNIX");
        // Where the renderer's last words go.
        let nowhere = line.contains("\"/dev/null\"");
        !own && !nowhere
            && CHANGES
                .iter()
                .chain(&NETWORK)
                .any(|name| line.contains(name))
            && !line.contains("readlink")
    };
    trace.lines().filter(is_deed).collect()
}

#[test]
fn au_13_no_connection_and_no_file() {
    let test = "au_13_no_connection_and_no_file";
    let [pdf, page] = ["pages.pdf", "../pages/line-fox.png"].map(document);
    for (args, code) in [
        (&["--input", &pdf, "--task", "ocr"][..], 0),
        (&["--input", &page, "--task", "ocr"], 0),
        (&["--input", &page, "--task", "ocr", "--format", "pdf"], 0),
        (
            &["--input", &pdf, "--pages", "9", "--log-format", "json"],
            2,
        ),
        (&["--input", &page, "--max-output-bytes", "9"], 1),
        (
            &["-v", "--input", &document("crash.pdf"), "--pages", "2"],
            2,
        ),
    ] {
        let Some(trace) = trace(test, args, code) else {
            return;
        };
        assert!(trace.contains("model.safetensors"), "the trace is empty");
        let deeds = deeds(&trace);
        assert!(deeds.is_empty(), "{args:?}: {deeds:#?}");
    }
}

#[test]
fn au_13_only_named_files_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = dir.path().join("overlay.png");
    let args = [
        "--input",
        &document("../pages/line-fox.png"),
        "--overlay",
        overlay.to_str().unwrap(),
    ];
    let Some(trace) = trace("au_13_only_named_files_are_written", &args, 0) else {
        return;
    };
    let deeds = deeds(&trace);
    assert!(!deeds.is_empty());
    assert!(
        deeds.iter().all(|line| line.contains("overlay.png")),
        "{deeds:#?}"
    );
}

/// Starts the program with a page, and then a pipe into which nobody writes: it has read the one,
/// and waits for the other. Gives the child and what keeps the pipe's directory.
#[cfg(unix)]
fn waiting(command: Option<Command>) -> (Child, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("page.png");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let page = document("../pages/line-fox.png");
    let args = ["-v", "--input", &page, "--input", pipe.to_str().unwrap()];
    let mut run = agx_ocr(&args);
    if let Some(mut command) = command {
        command.arg(env!("CARGO_BIN_EXE_agx-ocr")).args(args);
        command.env("MODEL_PATH", fixture("models/agx-ocr-mini"));
        run.command = command;
    }
    run.command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = run.command.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.as_mut().unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(" read ") {
        let mut byte = [0];
        assert_eq!(
            stderr.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend(byte);
    }
    (child, dir)
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// Whether this process ignores a signal.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

#[cfg(unix)]
#[test]
fn au_15_signals_end_it_with_a_code_and_without_a_document() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        // As under nohup, whose children ignore it too.
        if is_ignored(code - 128) {
            skipped("au_15_signals", &format!("{signal} is ignored here"));
            continue;
        }
        let (child, _dir) = waiting(None);
        send(signal, &child);
        let outcome = finish(child, Ok(()));
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(code), ""),
            "{signal}"
        );
        assert!(
            outcome.stderr.contains("Error: ended by SIG"),
            "{}",
            outcome.stderr
        );
    }
}

/// As nohup starts it.
#[cfg(target_os = "linux")]
#[test]
fn au_15_a_signal_that_the_caller_ignores_is_ignored() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    let (child, _dir) = waiting(Some(shell));
    send("-HUP", &child);
    thread::sleep(Duration::from_millis(200));
    send("-TERM", &child);
    assert_eq!(finish(child, Ok(())).code, Some(143));
}

#[cfg(target_os = "linux")]
#[test]
fn au_15_a_signal_while_waiting_for_input() {
    for (args, said) in [
        (&[][..], "Error: ended by SIGTERM\n"),
        (
            &["--log-format", "json"],
            "{\"level\":\"error\",\"message\":\"ended by SIGTERM\",\"causes\":[]}\n",
        ),
    ] {
        let outcome = ended_while_waiting(agx_ocr(args).spawn());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(143), ""));
        assert_eq!(outcome.stderr, said);
    }
}

#[cfg(target_os = "linux")]
fn ended_while_waiting(mut child: Child) -> Outcome {
    // Until it heeds the signal, the fifteenth.
    let status = format!("/proc/{}/status", child.id());
    let heeds = || {
        let status = fs::read_to_string(&status).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap() >> 14 & 1 == 1
    };
    while !heeds() {
        thread::sleep(Duration::from_millis(1));
    }
    send("-TERM", &child);
    let stdin = child.stdin.take();
    let outcome = finish(child, Ok(()));
    drop(stdin);
    outcome
}

/// Whatever ends it, what it has started ends too.
#[cfg(target_os = "linux")]
#[test]
fn au_21_nothing_goes_on_behind_it() {
    let bomb = document("forms-bomb.pdf");
    let mut child = agx_ocr(&["--input", &bomb]).spawn();
    let started = Instant::now();
    let workers = loop {
        let workers = children(child.id());
        if !workers.is_empty() {
            break workers;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no process");
        thread::sleep(Duration::from_millis(1));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let runs = |process: &u32| {
        // Nobody may have asked yet how it ended.
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    };
    while workers.iter().any(runs) {
        assert!(started.elapsed() < Duration::from_secs(60), "{workers:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// As in a shell: `agx-ocr … >&-`.
#[cfg(unix)]
#[test]
fn au_15_a_closed_stdout_is_a_reader_who_wants_nothing() {
    let script = format!(
        "exec '{}' --input '{}' >&-",
        env!("CARGO_BIN_EXE_agx-ocr"),
        document("../pages/line-fox.png")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null());
    shell.env("MODEL_PATH", fixture("models/agx-ocr-mini"));
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn au_15_a_full_disk_in_every_format() {
    for format in ["json", "jsonl", "text", "markdown", "hocr", "alto", "pdf"] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut run = agx_ocr(&[
            "--format",
            format,
            "--input",
            &document("../pages/line-fox.png"),
        ]);
        run.command.stdin(Stdio::null()).stdout(full);
        let output = run.command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{format}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("cannot write to standard output"),
            "{stderr}"
        );
    }
    assert!(Path::new("/dev/full").exists());
}
