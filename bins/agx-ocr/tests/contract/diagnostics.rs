//! Statements 4 and 22: what standard error says, in lines of JSON where asked, and what it never
//! says.

use crate::support::{Outcome, agx_ocr, bare, expected, page};
use serde_json::{Value, json};

/// Standard error, of which every line is an object with a level and a message.
#[track_caller]
fn lines(outcome: &Outcome) -> Vec<Value> {
    let parse = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let words = ["level", "message"].map(|key| line[key].as_str().unwrap());
        assert!(words.iter().all(|word| !word.is_empty()), "{line}");
        line
    };
    outcome.stderr.lines().map(parse).collect()
}

#[test]
fn au_04_errors_as_json() {
    for args in [
        &["--log-format", "json", "--nonsense"][..],
        &["--nonsense", "--log-format=json"],
        &["--mode", "huge", "--log-format", "json"],
        &["--prompt", "--log-format", "json"],
        &["two", "prompts", "--log-format=json"],
        &["--log-format=json", "--task", "locate"],
        &["--log-format=json", "--log-format=json"],
        &["--log-format=json", "--input", "/no/such/page.png"],
        &["--log-format=json", "--max-width", "639"],
        &["--log-format=json", "--model-path", "/no/such/model"],
        &["devices", "--all", "--log-format", "json"],
        &["--log-format", "json", "devices", "--all"],
        &["--log-format", "json", "-vv", "--no-repeat-ngram", "many"],
    ] {
        let outcome = agx_ocr(args).input(page("line-fox")).run();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
        let lines = lines(&outcome);
        assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
        assert_eq!(lines[0]["level"], "error");
        assert!(lines[0]["causes"].is_array(), "{lines:?}");
    }
    // What else is wrong is said too, and causes are beside what they caused.
    let both = lines(&bare(&["--log-format", "json"]).run());
    assert_eq!(both.len(), 2, "{both:?}");
    let missing = lines(&agx_ocr(&["--log-format", "json", "--input", "none.png"]).run());
    let causes = missing[0]["causes"].as_array().unwrap();
    assert!(causes.len() == 1 && causes[0].is_string(), "{missing:?}");
    // A format that there is not.
    agx_ocr(&["--log-format", "xml"])
        .run()
        .fails(2, &["--log-format", "xml"]);
}

#[test]
fn au_04_warnings_as_json() {
    let args = ["--format", "text", "--max-tokens", "4", "--log-format"];
    let outcome = agx_ocr(&[&args[..], &["json"]].concat())
        .input(page("line-total"))
        .run();
    assert_eq!(outcome.code, Some(0));
    let as_json = lines(&outcome);
    assert_eq!(as_json.len(), 1, "{as_json:?}");
    let text = agx_ocr(&[&args[..], &["text"]].concat());
    let text = text.input(page("line-total")).run().stderr;
    let message = text.trim_end().strip_prefix("Warning: ").unwrap();
    assert_eq!(as_json[0], json!({"level": "warning", "message": message}));
}

#[test]
fn au_04_steps_as_json() {
    let args = ["-vvv", "--log-format", "json", "--prompt", "Free OCR."];
    let outcome = agx_ocr(&args).input(page("line-fox")).run();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines = lines(&outcome);
    let mut before = 0.0;
    for line in &lines {
        let seconds = line["seconds"].as_f64().unwrap();
        assert!(seconds >= before, "{line}");
        before = seconds;
        assert!(line["target"].as_str().unwrap().starts_with("agx_ocr"));
    }
    let has = |level: &str, message: &str, field: &str, value: Value| {
        lines.iter().any(|line| {
            let said = (&line["level"], &line["message"], &line[field]);
            said == (&json!(level), &json!(message), &value)
        })
    };
    assert!(has("info", "page", "width", json!(640)), "{lines:?}");
    assert!(has("info", "read", "finish_reason", json!("Stop")));
    assert!(has("trace", "token", "count", json!(1)));
    // As little as in text of what was asked and read.
    for secret in ["Free", "OCR", "quick", "brown"] {
        assert!(!outcome.stderr.contains(secret), "{}", outcome.stderr);
    }
    assert!(expected("line-fox", "out").contains("quick brown"));
}

#[test]
fn au_04_devices_take_the_format_too() {
    for args in [
        &["devices", "--json", "--log-format", "json"][..],
        &["--log-format=json", "devices", "--json"],
    ] {
        let devices = agx_ocr(args).json();
        assert!(devices["cpu_threads"].as_u64() >= Some(1), "{devices}");
    }
}

#[test]
fn au_22_a_misplaced_prompt_is_not_repeated() {
    for args in [
        &["Read it.", "my secret"][..],
        &["Read", "my", "secret"],
        &["--my secret"],
        &["--prompt", "--my secret"],
        &["--prompt", "Read it.", "my secret"],
        &["--prompt", "my secret", "--task", "ocr"],
        &["--prompt", "my secret", "--find", "my secret"],
        &["--find", "my secret"],
        &["--task", "locate", "--find", "<|my secret"],
        &["--task", "locate", "my secret"],
        &["--task", "my secret"],
        &["--pages", "my secret"],
        &["--device", "my secret"],
        &["--special=my secret"],
        &["devices", "my secret"],
        &["<image><image>my secret"],
        &["my secret", "--max-prompt-bytes", "3"],
    ] {
        for format in [&[][..], &["--log-format", "json", "-vvv"]] {
            let args = [args, format].concat();
            let outcome = agx_ocr(&args).input(page("line-fox")).run();
            assert_eq!(outcome.code, Some(2), "{args:?}: {}", outcome.stderr);
            let stderr = &outcome.stderr;
            assert!(!stderr.contains("secret"), "{args:?}: {stderr}");
        }
    }
}

/// Not even in part, where it is no text.
#[cfg(unix)]
#[test]
fn au_22_a_prompt_that_is_no_text_is_not_repeated() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let secret = OsStr::from_bytes(b"secret \xff\xfe");
    for flag in ["--prompt", "--find", "--task", "--special", "Read."] {
        let mut run = agx_ocr(&[flag]).input(page("line-fox"));
        run.command.arg(secret);
        let outcome = run.run();
        outcome.fails(2, &[]);
        let stderr = &outcome.stderr;
        assert!(!stderr.contains("secret"), "{flag}: {stderr}");
    }
}
