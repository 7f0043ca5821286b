//! Model directories with links, pipes and directories where files should be.
#![cfg(unix)]

use agx_ocr_backend::{Checkpoint, Error, ModelFiles};
use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::{TempDir, tempdir};

/// A safetensors file of one tensor.
const FILE: &[u8] =
    b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}} \x80\x3f";

/// A directory with `model/` in it, and a file outside of that.
fn dir() -> TempDir {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("model")).unwrap();
    fs::write(dir.path().join("outside"), FILE).unwrap();
    dir
}

/// The error's words and those of its cause.
fn words(error: Error) -> String {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}; {}", cause.unwrap_or_default())
}

/// Fails when opening takes longer than any file could.
fn open(path: &Path) -> Result<Checkpoint, Error> {
    let (done, result) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || done.send(Checkpoint::open(&path)));
    result
        .recv_timeout(Duration::from_secs(20))
        .expect("opening does not wait")
}

#[test]
fn a_link_out_of_the_directory_is_refused() {
    let dir = dir();
    let model = dir.path().join("model");
    let target = fs::canonicalize(dir.path()).unwrap().join("outside");
    for (name, points) in [
        ("m.safetensors", "../outside"),
        ("n.safetensors", target.to_str().unwrap()),
    ] {
        let link = model.join(name);
        symlink(points, &link).unwrap();
        let error = words(open(&model).unwrap_err());
        let wanted = format!(
            "{} is a link to {}, outside of the model's directory: put the file itself in its place",
            link.display(),
            target.display()
        );
        assert!(error.starts_with(&wanted), "{error}");
        fs::remove_file(&link).unwrap();
    }
    // So is one that an index names, and the index itself.
    symlink("../outside", model.join("m.safetensors")).unwrap();
    let index = model.join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map":{"a":"m.safetensors"}}"#).unwrap();
    assert!(
        matches!(open(&model), Err(Error::OutsideLink { link, .. }) if link.ends_with("m.safetensors"))
    );
    fs::remove_file(&index).unwrap();
    symlink("../outside", &index).unwrap();
    assert!(matches!(open(&model), Err(Error::OutsideLink { link, .. }) if link == index));
}

#[test]
fn links_inside_and_to_the_directory_are_followed() {
    let dir = dir();
    let model = dir.path().join("model");
    fs::write(model.join("weights.bin"), FILE).unwrap();
    symlink("weights.bin", model.join("m.safetensors")).unwrap();
    assert_eq!(open(&model).unwrap().size(), 2);
    symlink("model", dir.path().join("current")).unwrap();
    assert_eq!(open(&dir.path().join("current")).unwrap().size(), 2);
    // A link that the caller names leads where he likes.
    let named = dir.path().join("named.safetensors");
    symlink(dir.path().join("outside"), &named).unwrap();
    assert_eq!(open(&named).unwrap().size(), 2);
}

#[test]
fn the_layout_of_a_download_cache_is_known() {
    let dir = tempdir().unwrap();
    let repo = dir.path().join("models--deepseek-ai--DeepSeek-OCR");
    let snapshot = repo.join("snapshots/9f30c71");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("blobs")).unwrap();
    fs::write(repo.join("blobs/0123abcd"), FILE).unwrap();
    let link = snapshot.join("model-00001-of-000001.safetensors");
    symlink("../../blobs/0123abcd", &link).unwrap();
    assert_eq!(open(&snapshot).unwrap().size(), 2);
    assert_eq!(open(&link).unwrap().size(), 2);
    // Also by a link to the snapshot.
    symlink(&snapshot, dir.path().join("ocr")).unwrap();
    assert_eq!(open(&dir.path().join("ocr")).unwrap().size(), 2);

    // Not into another repository's blobs, nor beside blobs, nor through them and out again.
    fs::create_dir_all(dir.path().join("other/blobs")).unwrap();
    fs::write(dir.path().join("other/blobs/0123abcd"), FILE).unwrap();
    fs::create_dir(repo.join("blobs-2")).unwrap();
    fs::write(repo.join("blobs-2/0123abcd"), FILE).unwrap();
    symlink("../../other/blobs/0123abcd", repo.join("blobs/out")).unwrap();
    for target in [
        "../../../other/blobs/0123abcd",
        "../../blobs-2/0123abcd",
        "../../blobs/out",
    ] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        assert!(
            matches!(open(&snapshot), Err(Error::OutsideLink { .. })),
            "{target}"
        );
    }
}

#[test]
fn links_that_lead_nowhere_say_so() {
    let dir = dir();
    let model = dir.path().join("model");
    let link = model.join("m.safetensors");
    symlink("missing", &link).unwrap();
    let error = words(open(&model).unwrap_err());
    let start = format!("{} is a link to missing, which cannot", link.display());
    assert!(error.starts_with(&start), "{error}");
    assert!(error.contains("No such file"), "{error}");

    fs::remove_file(&link).unwrap();
    symlink("n.safetensors", &link).unwrap();
    symlink("m.safetensors", model.join("n.safetensors")).unwrap();
    let error = words(open(&model).unwrap_err());
    assert!(error.contains("which cannot be followed"), "{error}");
    assert!(error.contains("symbolic links"), "{error}");

    // What the caller names, too.
    let error = words(open(&link).unwrap_err());
    assert!(error.contains("which cannot be followed"), "{error}");
}

#[test]
fn only_regular_files_are_opened() {
    let dir = dir();
    let model = dir.path().join("model");
    let path = model.join("m.safetensors");
    let other = "a pipe, a socket or a device";

    fs::create_dir(&path).unwrap();
    let is = |what: &str| {
        let wanted = format!("{} is {what}, and a file is wanted; ", path.display());
        // Found in a directory, named by an index, or named by the caller.
        let index = model.join("model.safetensors.index.json");
        assert_eq!(words(open(&model).unwrap_err()), wanted);
        fs::write(&index, r#"{"weight_map":{"a":"m.safetensors"}}"#).unwrap();
        assert_eq!(words(open(&model).unwrap_err()), wanted);
        fs::remove_file(&index).unwrap();
        if what == other {
            assert_eq!(words(open(&path).unwrap_err()), wanted);
        }
    };
    is("a directory");
    fs::remove_dir(&path).unwrap();

    // Nobody writes to it: reading would wait for ever.
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    is(other);
    // Behind a link, too.
    fs::rename(&path, model.join("pipe")).unwrap();
    symlink("pipe", &path).unwrap();
    is(other);
    fs::remove_file(&path).unwrap();

    let socket = UnixListener::bind(&path).unwrap();
    is(other);
    drop(socket);
    fs::remove_file(&path).unwrap();

    symlink("/dev/zero", &path).unwrap();
    assert!(matches!(open(&model), Err(Error::OutsideLink { .. })));
    let error = words(open(&path).unwrap_err());
    assert!(error.contains(other), "{error}");
}

#[test]
fn large_files_are_not_read() {
    let dir = tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    File::create(&index).unwrap().set_len(1 << 40).unwrap();
    let error = words(open(dir.path()).unwrap_err());
    let wanted = format!(
        "{} is 1099511627776 bytes long, and at most 16777216 are read; ",
        index.display()
    );
    assert_eq!(error, wanted);

    let files = ModelFiles::new(dir.path()).unwrap();
    fs::write(dir.path().join("four"), "1234").unwrap();
    assert_eq!(files.read("four", 4).unwrap(), Some(b"1234".to_vec()));
    assert!(matches!(
        files.read("four", 3),
        Err(Error::TooLarge {
            size: 4,
            most: 3,
            ..
        })
    ));
    assert_eq!(files.read("five", 4).unwrap(), None);
}
