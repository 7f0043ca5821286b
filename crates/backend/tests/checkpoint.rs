//! Checkpoints as people have them, and as they break.

use agx_ocr_backend::{Activations, Checkpoint, Error, Loader, Mismatch};
use candle_core::Device;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::{collections::BTreeMap, fs, path::Path};
use tempfile::{TempDir, tempdir};

/// A tensor's name, type and shape.
type Entry<'a> = (&'a str, Dtype, &'a [usize]);

/// Writes a file of zeros with these tensors.
fn write(path: &Path, tensors: &[Entry<'_>]) {
    let zeros = vec![0; 4096];
    let view = |dtype: Dtype, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).unwrap()
    };
    let views = tensors
        .iter()
        .map(|(name, dtype, shape)| (*name, view(*dtype, shape)));
    serialize_to_file(views, None, path).unwrap();
}

const A: Entry<'static> = ("a.weight", Dtype::BF16, &[4, 3]);
const B: Entry<'static> = ("b.weight", Dtype::BF16, &[5]);

/// A model of two tensors.
fn model(loader: &Loader<'_>) {
    loader.linear("a", 3, 4);
    loader.rms_norm("b", 5, 1e-6);
}

fn build(path: &Path) -> Result<(), Error> {
    Checkpoint::open(path)?.build(&Device::Cpu, Activations::F32, model)
}

fn mismatch(path: &Path) -> Mismatch {
    match build(path) {
        Err(Error::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

fn dir(files: &[(&str, &[Entry<'_>])]) -> TempDir {
    let dir = tempdir().unwrap();
    files
        .iter()
        .for_each(|(name, tensors)| write(&dir.path().join(name), tensors));
    dir
}

#[test]
fn one_file_several_files_and_an_index_are_the_same() {
    let one = dir(&[("model.safetensors", &[A, B])]);
    build(one.path()).unwrap();
    build(&one.path().join("model.safetensors")).unwrap();

    let two = dir(&[
        ("model-1-of-2.safetensors", &[A]),
        ("model-2-of-2.safetensors", &[B]),
    ]);
    build(two.path()).unwrap();

    // An index chooses among what lies there.
    write(
        &two.path().join("other.safetensors"),
        &[("c", Dtype::BF16, &[1])],
    );
    assert_eq!(mismatch(two.path()).extra, ["c"]);
    let map = BTreeMap::from([
        ("a.weight", "model-1-of-2.safetensors"),
        ("b.weight", "model-2-of-2.safetensors"),
    ]);
    let index = serde_json::json!({"metadata": {"total_size": 34}, "weight_map": map});
    fs::write(
        two.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    build(two.path()).unwrap();
}

#[test]
fn all_differences_are_listed_at_once() {
    let dir = dir(&[(
        "m.safetensors",
        &[("a.weight", Dtype::BF16, &[3, 4]), ("c", Dtype::BF16, &[1])],
    )]);
    let found = mismatch(dir.path());
    assert_eq!(found.missing, ["b.weight"]);
    assert_eq!(found.extra, ["c"]);
    assert_eq!(found.wrong, ["a.weight is [3, 4], wanted [4, 3]"]);
    let text = build(dir.path()).unwrap_err().to_string();
    for part in [
        "1 missing: b.weight",
        "1 not expected: c",
        "1 wrong: a.weight is [3, 4]",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn other_types_are_wrong_and_saved_buffers_are_ignored() {
    let ids = ("vision.embeddings.position_ids", Dtype::I64, &[1, 257][..]);
    let good = dir(&[("m.safetensors", &[A, B, ids])]);
    build(good.path()).unwrap();
    let wide = dir(&[("m.safetensors", &[("a.weight", Dtype::F32, &[4, 3]), B])]);
    assert_eq!(
        mismatch(wide.path()).wrong,
        ["a.weight is F32, wanted BF16"]
    );
}

#[test]
fn long_lists_are_counted() {
    let names: Vec<String> = (0..60).map(|i| format!("extra.{i:02}")).collect();
    let tensors: Vec<Entry<'_>> = names
        .iter()
        .map(|name| (&name[..], Dtype::BF16, &[1][..]))
        .chain([A, B])
        .collect();
    let dir = dir(&[("m.safetensors", &tensors)]);
    let text = build(dir.path()).unwrap_err().to_string();
    assert!(
        text.contains("60 not expected: extra.00, ") && text.ends_with("and 20 more"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_opened_says_why() {
    let empty = tempdir().unwrap();
    assert!(matches!(build(empty.path()), Err(Error::NoWeights(_))));
    assert!(matches!(
        build(&empty.path().join("nothing")),
        Err(Error::Open { .. })
    ));

    fs::write(empty.path().join("m.safetensors"), b"not a header").unwrap();
    assert!(matches!(build(empty.path()), Err(Error::Header { .. })));
    // A header that promises more than the file holds.
    let good = dir(&[("m.safetensors", &[A, B])]);
    let path = good.path().join("m.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(matches!(build(good.path()), Err(Error::Header { .. })));
}

#[test]
fn an_index_that_leaves_the_directory_is_refused() {
    for file in ["../m.safetensors", "/etc/passwd", "sub/m.safetensors", ".."] {
        let dir = dir(&[("m.safetensors", &[A, B])]);
        let index = serde_json::json!({"weight_map": {"a.weight": file}}).to_string();
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(
            matches!(build(dir.path()), Err(Error::Index { .. })),
            "{file}"
        );
    }
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let dir = dir(&[("1.safetensors", &[A]), ("2.safetensors", &[A, B])]);
    let error = build(dir.path()).unwrap_err().to_string();
    assert!(error.contains("a.weight lies in another file"), "{error}");
}

#[test]
fn an_index_must_be_true() {
    for (map, wanted) in [
        (r#"{"weight_map": {}}"#, "names no files"),
        (r#"{}"#, "not an index: missing field `weight_map`"),
        (r#"{"weight_map": [1]}"#, "not an index: invalid type"),
        ("weights", "not an index: expected value"),
        ("", "not an index: EOF"),
        (
            r#"{"weight_map": {"a.weight": 7}}"#,
            "not an index: invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"weight_map": {"a.weight": "1.safetensors", "a.weight": "2.safetensors"}}"#,
            "not an index: \"a.weight\" is given twice",
        ),
        (
            r#"{"weight_map": {"a.weight": "3.safetensors"}}"#,
            "names \"3.safetensors\", which is missing",
        ),
        (
            r#"{"weight_map": {"a.weight": "1.safetensors", "c": "2.safetensors"}}"#,
            "lists \"c\" in 2.safetensors, which does not hold it",
        ),
        (
            r#"{"weight_map": {"a.weight": "2.safetensors", "b.weight": "1.safetensors"}}"#,
            "lists \"a.weight\" in 2.safetensors, which does not hold it",
        ),
    ] {
        let dir = dir(&[("1.safetensors", &[A]), ("2.safetensors", &[B])]);
        let index = dir.path().join("model.safetensors.index.json");
        fs::write(&index, map).unwrap();
        let error = build(dir.path()).unwrap_err().to_string();
        let start = format!("{}: {wanted}", index.display());
        assert!(error.starts_with(&start), "{error}");
    }
    let dir = dir(&[("1.safetensors", &[A]), ("2.safetensors", &[B])]);
    let nested = "{\"weight_map\":".repeat(100_000);
    fs::write(dir.path().join("model.safetensors.index.json"), nested).unwrap();
    let error = build(dir.path()).unwrap_err().to_string();
    assert!(error.contains("recursion limit exceeded"), "{error}");
}
