//! Models of any sizes, without values.

use crate::{Model, load, words};
use agx_ocr_backend::{Error as BackendError, Mismatch};
use agx_ocr_pipeline::Error;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// Writes a file of zeros with tensors of these names and shapes. They take no space.
fn write(path: &Path, tensors: &[(String, Vec<u64>)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let info = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = header.len() as u64;
    let mut file = File::create(path).unwrap();
    file.write_all(&length.to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + length + end).unwrap();
}

/// A model whose weights, all zero, fit `config`.
pub fn of(config: &Value) -> Model {
    let model = Model::new();
    model.write("config.json", config.to_string());
    fs::remove_file(model.file("model.safetensors.index.json")).unwrap();
    let weights = |tensors: &[(String, Vec<u64>)]| write(&model.file("model.safetensors"), tensors);
    // What is wanted is what is missed: first the names, then the shapes.
    weights(&[("other".into(), vec![1])]);
    let names = mismatch(&model).missing;
    let mut tensors: Vec<_> = names
        .into_iter()
        .map(|name| (name, vec![2, 2, 2, 2, 2]))
        .collect();
    weights(&tensors);
    for wrong in mismatch(&model).wrong {
        let (name, rest) = wrong
            .split_once(" is [2, 2, 2, 2, 2], wanted ")
            .expect(&wrong);
        let tensor = tensors.iter_mut().find(|(other, _)| other == name);
        tensor.unwrap().1 = serde_json::from_str(rest).unwrap();
    }
    weights(&tensors);
    model
}

fn mismatch(model: &Model) -> Mismatch {
    match load(model.path()) {
        Err(Error::Backend(BackendError::Mismatch(mismatch))) => mismatch,
        Err(other) => panic!("{}", words(&other)),
        Ok(_) => panic!("it loads"),
    }
}
