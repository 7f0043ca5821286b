//! Models that are damaged, or made to do harm: a clear error, quickly, and nothing else.

mod config;
mod hollow;
mod links;
mod odd;
mod tokenizer;
mod weights;

use agx_ocr_pipeline::{Error, ErrorKind, Ocr, Options};
use serde_json::Value;
use std::{
    error::Error as _,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// What nothing here may take, on a busy machine with little optimisation either.
const LONG: Duration = Duration::from_secs(60);

/// A copy of the small model of the parity tests, to be spoilt.
struct Model {
    dir: TempDir,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_to(dir.path());
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(name), content).unwrap();
    }

    /// Changes a JSON file.
    fn change(&self, name: &str, f: impl FnOnce(&mut Value)) {
        let mut json = self.json(name);
        f(&mut json);
        self.write(name, json.to_string());
    }

    /// What is said about it.
    fn refusal(&self) -> String {
        refusal(self.path())
    }
}

/// The small model's files.
fn copy_to(dir: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity/tiny");
    for file in [
        "config.json",
        "processor_config.json",
        "tokenizer.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ] {
        fs::copy(from.join(file), dir.join(file)).unwrap();
    }
}

/// Loads a model; fails when that takes long.
fn load_with(path: &Path, options: Options) -> Result<Ocr, Error> {
    let (done, result) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || {
        let _ = done.send(Ocr::load(path, options));
    });
    result
        .recv_timeout(LONG)
        .expect("loading neither waits nor panics")
}

fn load(path: &Path) -> Result<Ocr, Error> {
    load_with(path, Options::default())
}

/// What is said, with the causes, about a model that is at fault.
fn refusal(path: &Path) -> String {
    let error = match load(path) {
        Ok(_) => panic!("{} loads", path.display()),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    words(&error)
}

/// An error and its causes.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[test]
fn the_model_that_is_spoilt_here_is_good() {
    load(Model::new().path()).unwrap();
}
