//! Symbolic links in and to a model.
#![cfg(unix)]

use crate::{Model, copy_to, load, refusal};
use agx_ocr_pipeline::{Error, Ocr};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use tempfile::{TempDir, tempdir};

/// All files that a model may have.
const FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "processor_config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
];

fn good() -> Model {
    let model = Model::new();
    model.write("generation_config.json", "{}");
    model
}

/// Moves a file of the model elsewhere and leaves a link in its place.
fn move_to(model: &Path, name: &str, place: &Path, link: impl AsRef<Path>) {
    fs::rename(model.join(name), place).unwrap();
    symlink(link, model.join(name)).unwrap();
}

#[test]
fn each_file_that_leads_out_is_refused() {
    for name in FILES {
        let model = good();
        let elsewhere = tempdir().unwrap();
        let target = fs::canonicalize(elsewhere.path()).unwrap().join("target");
        move_to(model.path(), name, &target, &target);
        let wanted = format!(
            "{} is a link to {}, outside of the model's directory: put the file itself in its \
             place, if you trust it",
            model.file(name).display(),
            target.display()
        );
        assert_eq!(model.refusal(), wanted);
        // Neither a longer way nor a link to a link helps.
        fs::remove_file(model.file(name)).unwrap();
        symlink(&target, model.file("step")).unwrap();
        symlink("./step", model.file(name)).unwrap();
        assert_eq!(model.refusal(), wanted);
    }
}

#[test]
fn links_that_lead_nowhere_say_so() {
    for name in FILES {
        let model = good();
        let path = model.file(name);
        fs::remove_file(&path).unwrap();
        symlink("missing", &path).unwrap();
        let error = model.refusal();
        let start = format!(
            "{} is a link to missing, which cannot be followed",
            path.display()
        );
        assert!(
            error.starts_with(&start) && error.contains("No such file"),
            "{error}"
        );

        fs::remove_file(&path).unwrap();
        symlink(name, &path).unwrap();
        let error = model.refusal();
        let start = format!(
            "{} is a link to {name}, which cannot be followed",
            path.display()
        );
        assert!(
            error.starts_with(&start) && error.contains("symbolic links"),
            "{error}"
        );
    }
}

#[test]
fn a_path_where_nothing_can_be_is_not_found() {
    let model = good();
    let file = model.file("model.safetensors");
    let long = "m".repeat(5000);
    for path in [
        file.join("x"),
        file.join(""),
        model.file("nowhere"),
        model.file(&long),
        model.file("config.json").join("model.safetensors"),
    ] {
        let error = load(&path).unwrap_err();
        assert!(matches!(error, Error::ModelNotFound(_)), "{error}");
    }
}

#[test]
fn links_inside_are_followed() {
    let model = good();
    fs::create_dir(model.file("files")).unwrap();
    for name in FILES {
        let place = PathBuf::from("files").join(name);
        move_to(
            model.path(),
            name,
            &model.file(place.to_str().unwrap()),
            &place,
        );
    }
    load(model.path()).unwrap();
}

#[test]
fn the_path_itself_may_be_a_link() {
    let model = good();
    let elsewhere = tempdir().unwrap();
    let dir = elsewhere.path().join("ocr");
    symlink(model.path(), &dir).unwrap();
    assert_eq!(
        load(&dir).unwrap().name(),
        load(model.path()).unwrap().name()
    );

    // The other files lie beside what a link to the weights leads to, …
    let link = elsewhere.path().join("weights.safetensors");
    symlink(model.file("model.safetensors"), &link).unwrap();
    load(&link).unwrap();
    // … or beside the link.
    let model = Model::new();
    let weights = elsewhere.path().join("weights");
    move_to(model.path(), "model.safetensors", &weights, &weights);
    load(&model.file("model.safetensors")).unwrap();

    for target in ["nowhere", "circle.safetensors"] {
        let link = elsewhere.path().join("circle.safetensors");
        let _ = fs::remove_file(&link);
        symlink(target, &link).unwrap();
        let error = refusal(&link);
        let start = format!(
            "{} is a link to {target}, which cannot be followed",
            link.display()
        );
        assert!(error.starts_with(&start), "{error}");
    }
}

/// A download as Hugging Face's tools keep it: the repository's directory and the snapshot's.
fn download() -> (TempDir, PathBuf, PathBuf) {
    let cache = tempdir().unwrap();
    let repository = cache.path().join("hub/models--deepseek-ai--DeepSeek-OCR");
    let snapshot = repository.join("snapshots/2c968b4");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(repository.join("blobs")).unwrap();
    copy_to(&snapshot);
    fs::write(snapshot.join("generation_config.json"), "{}").unwrap();
    for (i, name) in FILES.iter().enumerate() {
        let blob = format!("5f7c{i}");
        let link = PathBuf::from("../../blobs").join(&blob);
        move_to(&snapshot, name, &repository.join("blobs").join(&blob), link);
    }
    (cache, repository, snapshot)
}

#[test]
fn a_download_cache_works() {
    let (cache, _, snapshot) = download();
    load(&snapshot).unwrap();
    load(&snapshot.join("model.safetensors")).unwrap();
    let link = cache.path().join("ocr");
    symlink(&snapshot, &link).unwrap();
    load(&link).unwrap();
    // The same with links that are not relative.
    let blob = fs::canonicalize(snapshot.join("config.json")).unwrap();
    fs::remove_file(snapshot.join("config.json")).unwrap();
    symlink(&blob, snapshot.join("config.json")).unwrap();
    load(&snapshot).unwrap();
}

#[test]
fn a_download_cache_is_no_way_out() {
    let (cache, repository, snapshot) = download();
    let config = snapshot.join("config.json");
    let blob = fs::canonicalize(&config).unwrap();
    // Another repository's blobs, a directory called nearly the same, one that is a link.
    let other = cache.path().join("hub/models--evil/blobs");
    let near = repository.join("blobs.d");
    for dir in [&other, &near] {
        fs::create_dir_all(dir).unwrap();
        fs::copy(&blob, dir.join("config")).unwrap();
        fs::remove_file(&config).unwrap();
        symlink(dir.join("config"), &config).unwrap();
        assert!(refusal(&snapshot).contains("outside of the model's directory"));
    }
    fs::rename(repository.join("blobs"), cache.path().join("real")).unwrap();
    symlink(cache.path().join("real"), repository.join("blobs")).unwrap();
    assert!(refusal(&snapshot).contains("outside of the model's directory"));
    // Links into `blobs` are for snapshots only.
    let (_cache, repository, snapshot) = download();
    let copy = repository.join("copies/2c968b4");
    fs::create_dir(repository.join("copies")).unwrap();
    fs::rename(&snapshot, &copy).unwrap();
    assert!(refusal(&copy).contains("outside of the model's directory"));
}

#[test]
fn a_model_here_is_named_after_its_directory() {
    let model = Model::new();
    model.change("config.json", |config| {
        config.as_object_mut().unwrap().remove("_name_or_path");
    });
    let name = model
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let ocr: Ocr = load(&model.path().join(".")).unwrap();
    assert_eq!(ocr.name(), name);
    assert_eq!(
        load(&model.path().join("../").join(&name)).unwrap().name(),
        name
    );
}
