//! The real model's tensors by name and shape, without their values.

use agx_ocr_pipeline::{Ocr, Options};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// Writes a safetensors file with the tensors of an index (`name <tab> dtype <tab> shape` a
/// line). Its data is a hole: zeros that take no space.
fn write_hollow(path: &Path, index: &str) -> usize {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for line in index
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let [name, _, shape] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let shape: Vec<u64> = serde_json::from_str(shape).unwrap();
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let entry =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
    }
    // A saved buffer, as some tools leave it.
    let ids = serde_json::json!({"dtype": "I64", "shape": [1, 257], "data_offsets": [end, end + 8 * 257]});
    header.insert("model.vision_model.embeddings.position_ids".into(), ids);
    let count = header.len();
    let header = serde_json::to_vec(&header).unwrap();
    let padded = header.len().next_multiple_of(8);
    let mut file = File::create(path).unwrap();
    file.write_all(&(padded as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(&vec![b' '; padded - header.len()]).unwrap();
    file.set_len(8 + padded as u64 + end + 8 * 257).unwrap();
    count
}

#[test]
fn all_tensors_of_the_real_model_load() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    let Ok(index) = fs::read_to_string(reference.join("tensor_index.txt")) else {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the real model's tensors, because {} is absent",
            reference.display()
        );
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "processor_config.json", "tokenizer.json"] {
        fs::copy(reference.join(file), dir.path().join(file)).unwrap();
    }
    let count = write_hollow(
        &dir.path().join("model-00001-of-000001.safetensors"),
        &index,
    );
    assert_eq!(count, 2711);
    let ocr = Ocr::load(dir.path(), Options::default()).unwrap();
    assert_eq!(ocr.name(), "deepseek-ai/DeepSeek-OCR");

    // One expert less: its three tensors are named.
    let less: String = index
        .lines()
        .filter(|line| !line.contains("layers.7.mlp.experts.63."))
        .map(|l| format!("{l}\n"))
        .collect();
    write_hollow(&dir.path().join("model-00001-of-000001.safetensors"), &less);
    let error = Ocr::load(dir.path(), Options::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("3 missing: model.layers.7.mlp.experts.63.gate_proj.weight"),
        "{error}"
    );
}
