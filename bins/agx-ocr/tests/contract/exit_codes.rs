//! Statements 15 and 16: exit codes, and no panics.

use crate::support::{agx_ocr, feed, finish, fixture, page};
use std::fs;

#[test]
fn au_15_what_the_caller_can_mend_is_2() {
    let dir = fixture("pages");
    let no_model = agx_ocr(&["--model-path", dir.to_str().unwrap()]);
    no_model
        .input(page("line-fox"))
        .run()
        .fails(2, &["config.json"]);
    agx_ocr(&["--input", dir.to_str().unwrap()])
        .run()
        .fails(2, &["directory"]);
    agx_ocr(&[]).input("%PDF-1.7").run().fails(2, &["PDF"]);
}

#[cfg(target_os = "linux")]
#[test]
fn au_15_failed_processing_is_1() {
    let mut run = agx_ocr(&[]);
    run.spawn_into("/dev/full", &page("line-fox"))
        .fails(1, &["cannot write", "Caused by: "]);
}

#[cfg(target_os = "linux")]
impl crate::support::Run {
    /// Runs with standard output in a file.
    fn spawn_into(&mut self, path: &str, input: &[u8]) -> crate::support::Outcome {
        use std::process::Stdio;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        self.command.stdin(Stdio::piped()).stdout(file);
        let mut child = self.command.stderr(Stdio::piped()).spawn().unwrap();
        feed(&mut child, input);
        drop(child.stdin.take());
        finish(child, Ok(()))
    }
}

#[test]
fn au_15_a_reader_who_leaves_is_no_error() {
    let mut run = agx_ocr(&[]);
    let mut child = run.spawn();
    drop(child.stdout.take());
    feed(&mut child, &page("line-fox"));
    drop(child.stdin.take());
    let outcome = finish(child, Ok(()));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn au_16_no_panic_when_nobody_reads_stderr() {
    for args in [&["-vvv"][..], &["--nonsense"]] {
        let mut run = agx_ocr(args);
        let mut child = run.spawn();
        drop(child.stderr.take());
        feed(&mut child, &page("line-fox"));
        drop(child.stdin.take());
        let outcome = finish(child, Ok(()));
        let code = if args[0] == "-vvv" { 0 } else { 2 };
        assert_eq!(outcome.code, Some(code));
    }
}

#[test]
fn au_16_cut_images_never_panic() {
    let jpeg = fs::read(fixture("inputs/progressive.jpg")).unwrap();
    let mut read = 0;
    for whole in [page("line-fox"), jpeg] {
        for part in 0..8 {
            let cut = whole[..whole.len() * part / 8].to_vec();
            let outcome = agx_ocr(&["--max-tokens", "1"]).input(cut).run();
            // Half a JPEG may be read, with a warning.
            if outcome.code == Some(0) {
                assert!(outcome.stdout.contains("breaks off"), "{}", outcome.stdout);
                read += 1;
            } else {
                outcome.fails(2, &[]);
            }
        }
    }
    assert!(read < 8, "{read} of 16 were read");
}

#[cfg(unix)]
#[test]
fn au_16_arguments_that_are_no_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let no_text = OsStr::from_bytes(b"\xff\xfe");
    for flag in ["--prompt", "--find", "--model-path", "--input", "--task"] {
        let mut run = agx_ocr(&[flag]).input(page("line-fox"));
        run.command.arg(no_text);
        run.run().fails(2, &[]);
    }
}
