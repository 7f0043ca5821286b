//! Options that the contract does not name.

use crate::support::{agx_ocr, bare, expected, page};

#[test]
fn text_and_markdown_on_stdout() {
    let text = format!("{}\n", expected("line-total", "out"));
    for args in [
        &["--format", "text"][..],
        &["--format", "markdown", "--task", "text"],
    ] {
        let outcome = agx_ocr(args).input(page("line-total")).run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert_eq!(outcome.stdout, text);
    }
}

#[test]
fn warnings_beside_plain_text() {
    let args = ["--format", "text", "--max-tokens", "4"];
    let outcome = agx_ocr(&args).input(page("line-total")).run();
    assert_eq!(outcome.code, Some(0));
    assert!(
        outcome.stderr.starts_with("Warning: "),
        "{}",
        outcome.stderr
    );
}

#[test]
fn special_keeps_the_markup() {
    let args = ["--task", "ocr", "--special"];
    let result = agx_ocr(&args).input(page("line-error")).json();
    assert_eq!(result["text"], expected("line-error", "grounding").as_str());
}

#[test]
fn exact_arithmetic_reads_the_same() {
    let args = ["--dtype", "f32", "--split", "none"];
    let result = agx_ocr(&args).input(page("line-error")).json();
    assert_eq!(result["text"], expected("line-error", "out").as_str());
}

#[test]
fn sampling_follows_its_seed() {
    let run = |seed: &str| {
        let args = ["--temperature", "8", "--seed", seed, "--max-tokens", "20"];
        agx_ocr(&args).input(page("line-fox")).json()["text"].clone()
    };
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn the_guard_forbids_what_comes_twice() {
    // A token is about a character here: no two of a kind in all of the answer.
    let args = ["--no-repeat-ngram", "1", "--max-tokens", "20"];
    let result = agx_ocr(&args).input(page("line-fox")).json();
    let text = result["text"].as_str().unwrap();
    assert!(!text.starts_with("The quick brown fox"), "{text}");
    let args = ["--no-repeat-ngram", "0"];
    let result = agx_ocr(&args).input(page("line-fox")).json();
    assert_eq!(result["text"], expected("line-fox", "out").as_str());
}

#[test]
fn a_view_of_another_size() {
    let args = ["--mode", "tiny", "--max-tokens", "1"];
    let tiny = agx_ocr(&args).input(page("line-fox")).json();
    let auto = agx_ocr(&["--max-tokens", "1"])
        .input(page("line-fox"))
        .json();
    assert!(tiny["tokens"]["prompt"].as_u64() < auto["tokens"]["prompt"].as_u64());
}

/// They start, and the input is what is wrong; a machine without room for their stacks says so.
/// Reading with a thousand threads on a few cores would take other tests' time.
#[test]
fn as_many_threads_as_may_be() {
    let outcome = agx_ocr(&["--threads", "1024"]).input("no image").run();
    if outcome.code == Some(1) {
        let words = ["the model needs", "cannot start the threads"];
        let stderr = &outcome.stderr;
        assert!(words.iter().any(|word| stderr.contains(word)), "{stderr}");
    } else {
        outcome.fails(2, &["not an image"]);
    }
    let too_many = agx_ocr(&["--threads", "1025"]).input(page("line-fox"));
    too_many.run().fails(2, &["--threads"]);
}

#[test]
fn help_is_short_or_complete() {
    let short = bare(&["-h"]).run();
    let long = bare(&["--help"]).run();
    for outcome in [&short, &long] {
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert!(outcome.stdout.contains("MODEL_PATH"));
    }
    assert!(!short.stdout.contains("Exit codes:"));
    for part in ["Examples:", "Exit codes:", "export MODEL_PATH"] {
        assert!(long.stdout.contains(part), "{part}");
    }
}

#[test]
fn devices_that_cannot_be_used_are_errors_where_they_are_asked_for() {
    let run = |args: &[&str]| agx_ocr(args).input(page("line-fox"));
    assert_eq!(
        run(&["--device", "cpu"]).json()["text"],
        expected("line-fox", "out")
    );
    run(&["--device", "gpu"])
        .run()
        .fails(2, &["--device", "cuda:N"]);
    run(&["--device", "cpu", "--dtype", "f16"])
        .run()
        .fails(2, &["f16"]);
    if !cfg!(feature = "cuda") {
        run(&["--device", "cuda"])
            .run()
            .fails(2, &["no GPU", "feature cuda"]);
    }
}

#[test]
fn devices_are_listed() {
    let table = agx_ocr(&["devices"]).run();
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    assert!(table.stdout.contains("threads"), "{}", table.stdout);
    let json = agx_ocr(&["devices", "--json"]).json();
    assert!(json["cpu_threads"].as_u64().unwrap() >= 1);
    if !cfg!(feature = "cuda") {
        assert_eq!(json["auto"], "cpu");
        assert!(json["no_gpu"].as_str().unwrap().contains("feature cuda"));
    }
    agx_ocr(&["devices", "--all"]).run().fails(2, &["--json"]);
}
