//! Statements 8 to 10: the card and the version.

use crate::support::{bare, finish};
use serde_json::{Value, json};

fn card(args: &[&str]) -> Value {
    let mut run = bare(args);
    // Never written to and never closed: who reads it does not come back.
    let mut child = run.spawn();
    let stdin = child.stdin.take();
    let outcome = finish(child, Ok(()));
    drop(stdin);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.ends_with("}\n"));
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn au_08_describe_wins() {
    let plain = card(&["--describe"]);
    assert_eq!(plain["name"], "agx-ocr");
    for args in [
        &["--describe", "--nonsense"][..],
        &["--mode", "huge", "--describe"],
        &["--version", "--describe"],
        &["--help", "--describe"],
        &["--input", "/no/such/file", "--describe"],
        &["--prompt", "--describe"],
        &["a", "b", "--describe", "--pretty"],
        &["devices", "--describe"],
        &["devices", "--json", "--describe"],
        &["--log-format", "json", "devices", "--describe"],
        &["--draw-pdf-pages", "--describe"],
        &["--describe", "--draw-pdf-pages"],
    ] {
        assert_eq!(card(args), plain, "{args:?}");
    }
}

#[test]
fn au_09_the_card_satisfies_the_schema() {
    // The AGEniX specification's own, word for word.
    let schema = serde_json::from_str(include_str!("describe.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&card(&["--describe"]))
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!validator.is_valid(&json!({"name": "agx-ocr"})));
}

#[test]
fn au_09_the_card_is_complete() {
    let card = card(&["--describe"]);
    assert_eq!(card["version"], env!("CARGO_PKG_VERSION"));
    let capabilities = card["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&"ocr".into()));
    for side in ["inputs", "outputs"] {
        let formats = card[side].as_array().unwrap();
        assert!(
            formats
                .iter()
                .all(|format| format["media_type"].is_string())
        );
        assert!(!formats.is_empty());
    }
    let config = card["config"].as_object().unwrap();
    for (name, setting) in config {
        for key in ["type", "description"] {
            assert!(setting[key].is_string(), "{name}: {setting}");
        }
        assert!(setting.get("default").is_some(), "{name}: {setting}");
    }
    for name in ["model-path", "task", "find", "prompt", "mode", "input"] {
        assert!(config.contains_key(name), "{name}");
    }
    let devices = match cfg!(feature = "cuda") {
        true => json!(["cpu", "cuda"]),
        false => json!(["cpu"]),
    };
    assert_eq!(card["resources"]["devices"], devices);
}

#[test]
fn au_10_version() {
    let outcome = bare(&["--version"]).run();
    let version = concat!("agx-ocr ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(outcome.stdout, version);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}
