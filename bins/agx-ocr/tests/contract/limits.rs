//! Statements 17 to 22 and 25: limits, safety, and what happens to standard input.

use crate::support::{agx_ocr, bare, document, expected, feed, finish, fixture, page};
use serde_json::json;
use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    thread,
    time::{Duration, Instant},
};

#[test]
fn au_17_too_much_input() {
    let zeros = || io::repeat(0).take(100_000_000);
    let outcome = agx_ocr(&[]).stream(zeros()).run();
    outcome.fails(2, &["too large", "100000000", "--max-input-bytes"]);
    let raised = agx_ocr(&["--max-input-bytes", "100000000"])
        .stream(zeros())
        .run();
    raised.fails(2, &["not an image"]);

    let path = fixture("pages/line-fox.png");
    let args = ["--max-input-bytes", "99", "--input", path.to_str().unwrap()];
    agx_ocr(&args).run().fails(2, &["too large"]);
}

#[test]
fn au_18_a_beginning_followed_by_rubbish() {
    for (start, name) in [
        (&b"\x89PNG"[..], "PNG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
    ] {
        let rubbish = [start, &[0xA5; 5000]].concat();
        let outcome = agx_ocr(&[]).input(rubbish).run();
        outcome.fails(2, &["corrupt or invalid", name]);
    }
}

#[test]
fn au_19_dimensions_are_checked_first() {
    // 10 GB of pixels, if anybody made room for them.
    let outcome = agx_ocr(&[]).input("P6 60000 60000 255\n").run();
    outcome.fails(2, &["too large", "60000x60000"]);
    for args in [
        ["--max-width", "639"],
        ["--max-height", "59"],
        ["--max-pixels", "38399"],
    ] {
        let outcome = agx_ocr(&args).input(page("line-fox")).run();
        outcome.fails(2, &["too large", "640x60", &format!("({})", args[0])]);
    }
    let outcome = agx_ocr(&["--max-width", "639"])
        .input(fs::read(document("turned.pdf")).unwrap())
        .run();
    outcome.fails(2, &["too large", "(--max-width)"]);
}

/// As the manual has them.
#[test]
fn au_19_the_limits_defaults() {
    let mut defaults = json!({
        "max-input-bytes": 50_000_000,
        "max-width": 30_000,
        "max-height": 30_000,
        "max-pixels": 100_000_000,
        "max-pages": 1000,
        "max-prompt-bytes": 32_768,
        "max-output-bytes": 10_000_000,
        "max-seconds": 300,
        // The model's, and what the machine has.
        "max-tokens": null,
        "max-memory": null,
        "no-memory-check": false,
    });
    let card = bare(&["--describe"]).json();
    let config = card["config"].as_object().unwrap();
    for (name, setting) in config {
        if let Some(default) = defaults.as_object_mut().unwrap().remove(name) {
            assert_eq!(setting["default"], default, "{name}");
        } else {
            assert!(!name.starts_with("max-"), "{name} has no line here");
        }
    }
    assert_eq!(defaults, json!({}));
}

/// The same at work: a pixel or a byte more than there may be.
#[test]
fn au_19_the_limits_without_options() {
    for (header, flags) in [
        ("P6 30001 1 255\n", "(--max-width)"),
        ("P6 1 30001 255\n", "(--max-height)"),
        ("P6 10001 10000 255\n", "(--max-pixels)"),
        (
            "P6 40000 40000 255\n",
            "(--max-width, --max-height, --max-pixels)",
        ),
    ] {
        let outcome = agx_ocr(&[]).input(header).run();
        outcome.fails(2, &["too large", flags]);
    }
    // These are not too large, but end too early.
    for header in [
        "P6 30000 1 255\n",
        "P6 1 30000 255\n",
        "P6 10000 10000 255\n",
    ] {
        agx_ocr(&[]).input(header).run().fails(2, &["corrupt"]);
    }
    let too_much = agx_ocr(&[]).stream(io::repeat(0).take(50_000_001)).run();
    too_much.fails(2, &["too large", "(--max-input-bytes)"]);
    let zeros = agx_ocr(&[]).stream(io::repeat(0).take(50_000_000)).run();
    zeros.fails(2, &["not an image"]);
    let prompt = "a".repeat(32_769);
    bare(&["--prompt", &prompt])
        .run()
        .fails(2, &["too long", "--max-prompt-bytes"]);
    bare(&["--prompt", &prompt[1..]])
        .run()
        .fails(2, &["MODEL_PATH"]);
}

#[test]
fn au_19_the_prompts_length_is_checked() {
    let long = "word ".repeat(20_000);
    for args in [&[long.as_str()][..], &["--task", "locate", "--find", &long]] {
        let outcome = agx_ocr(args).input(page("line-fox")).run();
        outcome.fails(2, &["too long"]);
        assert!(!outcome.stderr.contains("word"));
    }
}

#[test]
fn au_20_strange_model_paths() {
    for path in [
        "../../../etc/passwd",
        "model.gguf; rm -rf /",
        "$(reboot)",
        "a\nb",
    ] {
        let run = bare(&["--model-path", path]).input(page("line-fox"));
        run.run().fails(2, &["not found"]);
    }
}

#[test]
fn au_22_nothing_of_page_or_prompt_in_logs() {
    let args = ["-vvv", "--prompt", "Free OCR."];
    let outcome = agx_ocr(&args).input(page("line-fox")).run();
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("tokens"), "{}", outcome.stderr);
    for secret in expected("line-fox", "out")
        .split_whitespace()
        .filter(|word| word.len() > 3)
        .chain(["Free", "OCR"])
    {
        let stderr = &outcome.stderr;
        assert!(!stderr.contains(secret), "{secret:?} in {stderr}");
    }
    // A token may be one letter: the lines say so often only the same.
    let same = |line: &str| line.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    let kinds: HashSet<String> = outcome.stderr.lines().map(same).collect();
    assert!(outcome.stderr.lines().count() > 40, "{}", outcome.stderr);
    assert!(kinds.len() < 12, "{kinds:?}");

    let clash = agx_ocr(&["--prompt", "confidential", "--task", "text"]).run();
    assert!(!clash.stderr.contains("confidential"));
}

#[test]
fn au_25_stdin_is_drained_before_a_failing_exit() {
    for args in [
        &["--nonsense"][..],
        &["--task", "locate"],
        &["--model-path", "/no/such/model"],
        &["--input", "/no/such/page.png"],
        &["--max-input-bytes", "10"],
    ] {
        // Far more than a pipe holds.
        let zeros = io::repeat(0).take(8 << 20);
        let outcome = agx_ocr(args).stream(zeros).run();
        assert!(outcome.written.is_ok(), "{args:?}: {:?}", outcome.written);
        outcome.fails(2, &[]);
    }
}

#[test]
fn au_25_stdin_is_drained_where_it_is_not_read() {
    let path = fixture("pages/line-fox.png");
    let zeros = io::repeat(0).take(8 << 20);
    let outcome = agx_ocr(&["--input", path.to_str().unwrap()])
        .stream(zeros)
        .run();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.written.is_ok(), "{:?}", outcome.written);
    assert!(outcome.stdout.contains(&expected("line-fox", "out")));
}

#[test]
fn au_25_a_stdin_that_nobody_closes_is_not_waited_for() {
    let path = fixture("pages/line-fox.png");
    for (args, code) in [
        (&["--nonsense"][..], 2),
        (&["--input", "/no/such/page.png"], 2),
        (&["--input", path.to_str().unwrap()], 0),
    ] {
        let started = Instant::now();
        let mut child = agx_ocr(args).spawn();
        let stdin = child.stdin.take();
        let outcome = finish(child, Ok(()));
        drop(stdin);
        assert_eq!(outcome.code, Some(code), "{args:?}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn au_25_nothing_is_written_before_the_end_of_stdin() {
    for args in [&["-vvv"][..], &["-vvv", "--model-path", "/no/such/model"]] {
        let mut child = agx_ocr(args).spawn();
        feed(&mut child, &page("line-fox"));
        let mut stdin = child.stdin.take();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let first = |pipe: &mut dyn Read| pipe.read(&mut [0]).map(|_| Instant::now()).unwrap();
        let (written, closed) = thread::scope(|scope| {
            let out = scope.spawn(|| first(&mut stdout));
            let err = scope.spawn(|| first(&mut stderr));
            thread::sleep(Duration::from_millis(500));
            let closed = Instant::now();
            drop(stdin.take());
            let written = out.join().unwrap().min(err.join().unwrap());
            (written, closed)
        });
        child.wait().unwrap();
        assert!(written >= closed, "written before the end: {args:?}");
    }
}
