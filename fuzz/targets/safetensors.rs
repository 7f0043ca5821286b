//! Checkpoints: a file, a file with a made-up header, and an index over two files.
#![no_main]

use agx_ocr_backend::Checkpoint;
use agx_ocr_fuzz::made;
use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::{fs, path::PathBuf, sync::LazyLock};

/// First bytes: no header of a file that is taken ends its length with them, as lengths are small.
const HEADER: u8 = 0xFF;
const INDEX: u8 = 0xFE;

/// A directory of this process, in `TMPDIR`.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("agx-ocr-fuzz-{}", std::process::id()));
    fs::create_dir_all(dir.join("indexed")).expect("a scratch directory");
    for name in ["a", "b"] {
        let header =
            format!(r#"{{"{name}.x":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
        let file = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &[7; 8],
        ]
        .concat();
        fs::write(dir.join(format!("indexed/{name}.safetensors")), file).expect("a scratch file");
    }
    dir
});

fuzz_target!(|data: &[u8]| {
    let (path, length) = match data.split_first() {
        Some((&INDEX, index)) => {
            fs::write(DIR.join("indexed/model.safetensors.index.json"), index)
                .expect("a scratch file");
            (DIR.join("indexed"), usize::MAX)
        }
        Some((&HEADER, choices)) => {
            let Ok(file) = file(&mut Unstructured::new(choices)) else {
                return;
            };
            (write(&file), file.len())
        }
        _ => (write(data), data.len()),
    };
    match Checkpoint::open(&path) {
        Ok(checkpoint) => read(&checkpoint, length),
        // A line that fits a terminal, whatever the file says.
        Err(error) => assert!((1..2000).contains(&error.to_string().len())),
    }
});

fn write(file: &[u8]) -> PathBuf {
    let path = DIR.join("model.safetensors");
    fs::write(&path, file).expect("a scratch file");
    path
}

/// Reads every byte, and checks it against its tensor's shape and type.
fn read(checkpoint: &Checkpoint, length: usize) {
    let (mut all, mut sum) = (0, 0_u64);
    for (name, tensor) in checkpoint.tensors() {
        let values: usize = tensor.shape.iter().product();
        assert_eq!(
            tensor.bytes().len() * 8,
            values * tensor.dtype.bitsize(),
            "{name}"
        );
        sum += tensor
            .bytes()
            .iter()
            .map(|&byte| u64::from(byte))
            .sum::<u64>();
        all += tensor.bytes().len();
    }
    std::hint::black_box(sum);
    assert_eq!(all, checkpoint.size());
    assert!(all <= length);
    let (some, others) = (
        checkpoint.clone().only("a"),
        checkpoint.clone().without(&["a"]),
    );
    assert_eq!(some.size() + others.size(), all);
}

/// A file with a header that is right but for some of its numbers and names.
fn file(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const TYPES: [(&str, u64); 12] = [
        ("BF16", 2),
        ("F32", 4),
        ("F64", 8),
        ("U8", 1),
        ("I64", 8),
        ("BOOL", 1),
        ("F8_E4M3", 1),
        ("F4", 1),
        ("C64", 8),
        ("F6_E2M3", 1),
        ("E8", 1),
        ("bf16", 2),
    ];
    let mut entries = Vec::new();
    let mut at = 0_u64;
    for number in 0..u.int_in_range(0..=6)? {
        let name = match u.int_in_range(0..=9)? {
            0 => u.arbitrary::<String>()?,
            1 => "a".into(),
            2 => "__metadata__".into(),
            _ => format!("a.{number}"),
        };
        let (dtype, bytes) = *u.choose(&TYPES)?;
        let mut shape = Vec::new();
        for _ in 0..u.int_in_range(0..=4)? {
            shape.push(size(u)?);
        }
        let taken = shape
            .iter()
            .fold(bytes, |product, size| product.wrapping_mul(*size));
        let (mut start, mut end) = (at, at.wrapping_add(taken));
        match u.int_in_range(0..=15)? {
            0 => start = size(u)?,
            1 => end = size(u)?,
            2 => (start, end) = (0, taken),
            _ => {}
        }
        at = end;
        let name = serde_json::to_string(&name).unwrap_or_default();
        entries.push(format!(
            r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len() + u.int_in_range(0..=8_usize)?, b' ');
    let length = match u.int_in_range(0..=15)? {
        0 => u.arbitrary()?,
        _ => header.len() as u64,
    };
    let data = match u.int_in_range(0..=7)? {
        0 => u.int_in_range(0..=4096)?,
        _ => at.min(1 << 16),
    };
    let mut file = [&length.to_le_bytes()[..], &header].concat();
    file.resize(file.len() + data as usize, 1);
    Ok(made(file))
}

/// Mostly a small number, else one at some bound.
fn size(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=15)? {
        0 => u.arbitrary()?,
        1 => (1 << u.int_in_range(0..=63)?) - u64::from(u.arbitrary::<bool>()?),
        2 => 0,
        _ => u.int_in_range(1..=12)?,
    })
}
