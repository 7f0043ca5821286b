//! Statements 4 and 5 on a terminal.

use crate::support::{Run, agx_ocr, bare, expected, page};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use std::{
    fs::File,
    io::{Read, Write},
    process::Stdio,
};

/// A terminal: the side of who looks at it, and the side of the program.
fn terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    (ours.into(), theirs.into())
}

/// What a program wrote to it, when nobody has its other side any more.
fn shown(mut terminal: File) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // The end is an error.
    while let Ok(n @ 1..) = terminal.read(&mut buffer) {
        text.extend(&buffer[..n]);
    }
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

/// Runs with standard output on a terminal.
fn on_terminal(mut run: Run, input: &[u8]) -> String {
    let (ours, theirs) = terminal();
    let command = &mut run.command;
    command.stdin(Stdio::piped()).stdout(theirs);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    // It has the terminal's other side too.
    drop(run);
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input);
    drop(stdin);
    let shown = shown(ours);
    assert!(child.wait().unwrap().success(), "{shown}");
    shown
}

#[test]
fn au_05_json_is_pretty_on_a_terminal() {
    let pipe = agx_ocr(&[]).input(page("line-fox")).run().stdout;
    let terminal = on_terminal(agx_ocr(&[]), &page("line-fox"));
    assert!(terminal.lines().count() > 10, "{terminal}");
    assert!(terminal.starts_with("{\n  \"text\": "), "{terminal}");
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&terminal), parse(&pipe));

    let card = on_terminal(bare(&["--describe"]), &[]);
    assert!(card.starts_with("{\n  \""), "{card}");
    // A line of jsonl is one everywhere.
    let line = on_terminal(agx_ocr(&["--format", "jsonl"]), &page("line-fox"));
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn an_image_is_not_waited_for_on_a_terminal() {
    let (_ours, theirs) = terminal();
    let mut run = agx_ocr(&[]);
    let output = run.command.stdin(theirs).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("pipe one in"), "{stderr}");
}

/// Who sits there sees what is being done; a program that reads JSON there sees nothing else.
#[test]
fn au_04_progress_is_for_people_only() {
    let path = crate::support::document("../pages/receipt-fuel.png");
    let run = |args: &[&str]| {
        let (ours, theirs) = terminal();
        let mut run = agx_ocr(&["--input", &path]);
        let command = run.command.args(args).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(theirs).spawn();
        drop(run);
        let said = shown(ours);
        let output = child.unwrap().wait_with_output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["text"], expected("receipt-fuel", "out"));
        said
    };
    assert!(run(&[]).contains("tokens"));
    assert_eq!(run(&["--log-format", "json"]), "");
    let lines = run(&["--log-format", "json", "-v"]);
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}
