//! Safetensors files whose headers lie.

use agx_ocr_backend::{Activations, Checkpoint, Error};
use candle_core::Device;
use std::{
    fs::{self, File},
    path::Path,
};
use tempfile::tempdir;

/// A file with this header and so many zeros.
fn file(header: &[u8], data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, &vec![0; data]].concat()
}

/// What is said about a file of this content; it names the file.
fn refusal(bytes: &[u8]) -> String {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    of_path(&path)
}

fn of_path(path: &Path) -> String {
    let error = match Checkpoint::open(path) {
        Err(error @ Error::Header { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let start = format!("{} is not a valid safetensors file: ", path.display());
    error
        .strip_prefix(&start)
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
}

#[track_caller]
fn refused(header: &str, data: usize, wanted: &str) {
    let found = refusal(&file(header.as_bytes(), data));
    assert!(found.contains(wanted), "{header}: {found}");
    assert!(found.len() < 500, "{found}");
}

#[test]
fn a_file_too_short_for_its_header() {
    assert_eq!(refusal(b""), "it is 0 bytes long, too short for a header");
    let short = "it is 7 bytes long, too short for a header";
    assert_eq!(refusal(&[0; 7]), short);
    let cut = &file(
        br#"{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}"#,
        2,
    )[..40];
    assert_eq!(
        refusal(cut),
        "its header is said to be 55 bytes long, and 32 follow"
    );
    for length in [3, 1 << 40, u64::MAX] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        let wanted = format!("its header is said to be {length} bytes long, and 2 follow");
        assert_eq!(refusal(&bytes), wanted);
    }
}

#[test]
fn a_header_of_many_megabytes_is_not_read() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, (1_u64 << 30).to_le_bytes()).unwrap();
    // A hole, which takes no space.
    let end = 8 + (1 << 30);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(end)
        .unwrap();
    let wanted = "its header is 1073741824 bytes long, and more than 16777216 are not taken";
    assert_eq!(of_path(&path), wanted);
}

#[test]
fn a_header_that_is_no_json_object() {
    let not_text = refusal(&file(b"\xff\xfe", 0));
    assert!(
        not_text.starts_with("its header is not UTF-8: "),
        "{not_text}"
    );
    refused("", 0, "its header is not valid: EOF");
    refused("weights", 0, "its header is not valid: expected value");
    refused("[]", 0, "expected an object of tensors");
    refused("{\"a\":", 0, "EOF while parsing");
    refused("{} {}", 0, "trailing characters");
    for part in ["{\"a\":", "["] {
        let nested = format!("{{\"a\":{}", part.repeat(200_000));
        let found = refusal(&file(nested.as_bytes(), 0));
        assert!(
            found.starts_with("its header is not valid: tensor \"a\""),
            "{found}"
        );
    }
}

#[test]
fn an_entry_that_is_no_tensor() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for (dtype, shape, offsets, wanted) in [
        ("\"BF17\"", "[1]", "[0,2]", "unknown variant `BF17`"),
        ("16", "[1]", "[0,2]", "tensor \"w\": "),
        ("\"BF16\"", "[-1]", "[0,2]", "integer `-1`, expected usize"),
        (
            "\"BF16\"",
            "[1.5]",
            "[0,2]",
            "floating point `1.5`, expected usize",
        ),
        ("\"BF16\"", "\"one\"", "[0,2]", "expected a sequence"),
        (
            "\"BF16\"",
            "[18446744073709551616]",
            "[0,2]",
            "expected usize",
        ),
        ("\"BF16\"", "[1]", "[0]", "invalid length 1"),
        ("\"BF16\"", "[1]", "[0,1,2]", "trailing characters"),
        ("\"BF16\"", "[1]", "null", "invalid type: null"),
    ] {
        refused(&entry(dtype, shape, offsets), 2, wanted);
    }
    refused(r#"{"w":{}}"#, 0, "tensor \"w\": missing field");
    refused(r#"{"w":7}"#, 0, "tensor \"w\": invalid type");
    let twice = r#"{"w":{"shape":[1],"shape":[2],"dtype":"BF16","data_offsets":[0,2]}}"#;
    refused(twice, 2, "duplicate field `shape`");
}

#[test]
fn a_shape_that_is_not_the_places() {
    let entry = |shape: &str, offsets: [u64; 2]| {
        format!(r#"{{"w":{{"dtype":"BF16","shape":{shape},"data_offsets":{offsets:?}}}}}"#)
    };
    let size = "tensor w lies at 0..24, and [4, 4] values of type BF16 take 32 bytes";
    refused(&entry("[4,4]", [0, 24]), 24, size);
    refused(
        &entry("[4]", [8, 0]),
        8,
        "tensor w lies at 8..0, and [4] values",
    );
    refused(&entry("[]", [0, 4]), 4, "and [] values of type BF16 take 2");
    refused(
        &entry("[3,0]", [0, 2]),
        2,
        "[3, 0] values of type BF16 take 0",
    );
    let huge = "tensor w has the shape [4294967296, 4294967296], more than can be addressed";
    refused(&entry("[4294967296,4294967296]", [0, 8]), 8, huge);
    let bits = "tensor w has the shape [9223372036854775808], more than can be addressed";
    refused(&entry("[9223372036854775808]", [0, 8]), 8, bits);
    let many = format!("[{}1]", "1,".repeat(10_000));
    refused(&entry(&many, [0, 2]), 2, "tensor w has 10001 dimensions");
    let half = r#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#;
    refused(half, 2, "tensor w of 12 bits does not end with a byte");
}

#[test]
fn places_that_overlap_leave_the_file_or_holes() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry = |name: &str, [start, end]: [u64; 2]| {
            let values = (end - start) / 2;
            format!(
                r#""{name}":{{"dtype":"BF16","shape":[{values}],"data_offsets":[{start},{end}]}}"#
            )
        };
        format!("{{{},{}}}", entry("a", a), entry("b", b))
    };
    let overlap = "the tensors a and b overlap: one ends at 8, the other begins at 4";
    refused(&two([0, 8], [4, 12]), 12, overlap);
    refused(
        &two([0, 8], [0, 8]),
        8,
        "one ends at 8, the other begins at 0",
    );
    // An empty one inside of another.
    refused(&two([0, 8], [4, 4]), 8, "the tensors a and b overlap");
    let hole = "the bytes 8..10, before tensor b, belong to no tensor";
    refused(&two([0, 8], [10, 12]), 12, hole);
    refused(
        &two([2, 8], [8, 12]),
        12,
        "the bytes 0..2, before tensor a,",
    );
    let rest = "the last 100 bytes belong to no tensor";
    refused(&two([0, 8], [8, 12]), 112, rest);
    refused("{}", 3, "the last 3 bytes belong to no tensor");
    let cut = "tensor b lies at 8..12 of the data, of which there are 11 bytes: the file is \
               incomplete";
    refused(&two([0, 8], [8, 12]), 11, cut);
    let far = (1_u64 << 59) + 8;
    refused(&two([0, 8], [8, far]), 12, "tensor b lies at 8..57646075");
}

#[test]
fn names_that_come_twice_or_are_none() {
    // Both at one place, so that nothing else is wrong.
    let entry = r#"{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}"#;
    let twice = format!(r#"{{"w":{entry},"\u0077":{entry}}}"#);
    refused(&twice, 2, "\"w\" is given twice");
    let metadata = r#"{"__metadata__":{},"__metadata__":{}}"#;
    refused(metadata, 0, "\"__metadata__\" is given twice");
    refused(
        &format!(r#"{{"a\u001b[2J":{entry}}}"#),
        2,
        r#""a\u{1b}[2J" is no name of a tensor"#,
    );
    refused(
        &format!(r#"{{"{}":{entry}}}"#, "w".repeat(257)),
        2,
        "www… is no name of a tensor",
    );
}

/// Opened as a checkpoint, and then built as a model of one norm `b` of five values.
fn norm(header: &str, data: usize) -> Result<(), String> {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, file(header.as_bytes(), data)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    checkpoint
        .build(&Device::Cpu, Activations::F32, |loader| {
            loader.rms_norm("b", 5, 1e-6);
        })
        .map_err(|error| error.to_string())
}

#[test]
fn valid_files_that_fit_no_model() {
    let b = |shape: &str, end: usize, pad: &str| {
        format!(
            r#"{{"b.weight":{{"dtype":"BF16","shape":{shape},"data_offsets":[0,{end}]}}}}{pad}"#
        )
    };
    let even = b("[5]", 10, " ");
    assert_eq!(even.len() % 2, 0, "so that the data is aligned");
    assert_eq!(norm(&even, 10), Ok(()));
    let error = norm(&b("[5]", 10, ""), 10).unwrap_err();
    assert!(
        error.contains("b.weight is not aligned to two bytes"),
        "{error}"
    );
    for (shape, end) in [("[]", 2), ("[0]", 0), ("[5,0]", 0), ("[5,1]", 10)] {
        let error = norm(&b(shape, end, ""), end).unwrap_err();
        let shape = shape.replace(',', ", ");
        let wanted = format!("1 wrong: b.weight is {shape}, wanted [5]");
        assert!(error.contains(&wanted), "{error}");
    }
    // No tensors at all.
    let error = norm("{}", 0).unwrap_err();
    assert!(error.contains("1 missing: every tensor"), "{error}");
}

#[test]
fn metadata_and_empty_tensors_are_no_obstacle() {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"#,
        r#""b.weight":{"dtype":"BF16","shape":[5],"data_offsets":[0,10]},"#,
        r#""empty.position_ids":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}"#
    );
    let pad = " ".repeat(header.len() % 2);
    assert_eq!(norm(&format!("{header}{pad}"), 10), Ok(()));
}
