//! Statements 11 to 14: configuration.

use crate::support::{agx_ocr, bare, expected, fixture, page};
use std::{fs, path::Path};

#[test]
fn au_11_a_model_is_needed() {
    bare(&[])
        .input(page("line-fox"))
        .run()
        .fails(2, &["MODEL_PATH"]);
    let mut empty = bare(&[]).input(page("line-fox"));
    empty.command.env("MODEL_PATH", "");
    empty.run().fails(2, &["MODEL_PATH"]);
    // What else is wrong is said too.
    bare(&[]).run().fails(2, &["MODEL_PATH", "empty"]);
}

#[test]
fn au_11_a_model_that_is_not_there() {
    let run = bare(&["--model-path", "/no/such/model"]).input(page("line-fox"));
    run.run().fails(2, &["not found", "/no/such/model"]);
    let mut run = bare(&[]).input(page("line-fox"));
    run.command.env("MODEL_PATH", "/no/such/model");
    run.run().fails(2, &["not found"]);
}

#[test]
fn au_11_a_directory_or_a_file_and_the_argument_wins() {
    for name in [
        "models/agx-ocr-mini",
        "models/agx-ocr-mini/model.safetensors",
    ] {
        let path = fixture(name);
        let mut run = bare(&["--model-path", path.to_str().unwrap()]).input(page("line-fox"));
        run.command.env("MODEL_PATH", "/no/such/model");
        assert_eq!(run.json()["text"], expected("line-fox", "out").as_str());
    }
}

#[test]
fn au_12_own_prompts() {
    for args in [&["--prompt", "Free OCR."][..], &["Free OCR."]] {
        let result = agx_ocr(args).input(page("line-fox")).json();
        assert_eq!(result["text"], expected("line-fox", "out").as_str());
        assert_eq!(result["task"], "prompt");
    }
    let places = agx_ocr(&["<|grounding|>OCR this image."])
        .input(page("line-fox"))
        .json();
    assert_ne!(
        places["regions"][0]["bbox"],
        serde_json::json!([0, 0, 640, 60])
    );
}

#[test]
fn au_12_arguments_that_cannot_be() {
    for args in [
        &["--nonsense"][..],
        &["-x"],
        &["two", "prompts"],
        &["--prompt", ""],
        &["--prompt", "a", "--task", "text"],
        &["a", "--task", "ocr"],
        &["--task", "read"],
        &["--task", "locate"],
        &["--find", "total"],
        &["--max-tokens", "0"],
        &["--max-tokens", "many"],
        &["--temperature", "-1"],
        &["--top-p", "0.5"],
        &["--ngram-window", "90"],
        &["--input"],
    ] {
        let outcome = agx_ocr(args).input(page("line-fox")).run();
        assert_eq!(outcome.code, Some(2), "{args:?}");
        outcome.fails(2, &[]);
    }
}

#[test]
fn au_13_no_state_and_no_dependence_on_the_directory() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("au_13");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let model = fs::canonicalize(fixture("models/agx-ocr-mini")).unwrap();
    let mut run = bare(&[]).input(page("line-fox"));
    run.command
        .env_clear()
        .env("MODEL_PATH", model)
        .env("HOME", &dir)
        .env("TMPDIR", &dir)
        .current_dir(&dir);
    let there = run.run();
    let here = agx_ocr(&[]).input(page("line-fox")).run();
    assert_eq!(there.code, Some(0), "{}", there.stderr);
    assert_eq!(there.stdout, here.stdout);
    let left: Vec<_> = fs::read_dir(&dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn au_14_tasks_stand_for_prompts() {
    for task in ["text", "ocr", "markdown", "figure", "describe"] {
        let args = ["--task", task, "--max-tokens", "3"];
        let result = agx_ocr(&args).input(page("line-fox")).json();
        assert_eq!(result["task"], task);
    }
    let args = ["--task", "locate", "--find", "fox", "--max-tokens", "3"];
    let result = agx_ocr(&args).input(page("line-fox")).json();
    assert_eq!(result["task"], "locate");
}

#[test]
fn au_14_input_from_a_file() {
    let path = fixture("pages/line-error.png");
    let result = agx_ocr(&["--input", path.to_str().unwrap()]).json();
    assert_eq!(result["text"], expected("line-error", "out").as_str());
    let result = agx_ocr(&["--input", "-"]).input(page("line-error")).json();
    assert_eq!(result["text"], expected("line-error", "out").as_str());
}
