//! A model's weights on disk: one safetensors file, or several with or without an index.

use crate::{Error, Result};
use agx_ocr_kernels::{half::bf16, mapped::MappedFile};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint by name. The files are mapped; opening reads their headers only.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    pub(crate) file: Arc<MappedFile>,
    pub(crate) range: Range<usize>,
}

impl TensorInfo {
    /// The values as they lie in the file.
    pub fn bytes(&self) -> &[u8] {
        // Opening the file has checked the range.
        self.file.bytes().get(self.range.clone()).unwrap_or(&[])
    }
}

/// A bf16 tensor of a checkpoint, where it lies.
#[derive(Clone, Debug)]
pub struct Weight {
    pub(crate) shape: Vec<usize>,
    pub(crate) file: Arc<MappedFile>,
    pub(crate) range: Range<usize>,
}

impl Weight {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    pub fn values(&self) -> &[bf16] {
        // The loader has checked range and alignment.
        self.file.bf16(self.range.clone()).unwrap_or(&[])
    }

    /// The values widened to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values().iter().map(|v| v.to_f32()).collect()
    }
}

impl Checkpoint {
    /// Opens `path`: a safetensors file, or a directory with an index or with one or several
    /// safetensors files.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Header`], [`Error::Index`] or [`Error::NoWeights`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in files(path)? {
            for (name, info) in read(&file)? {
                if tensors.insert(name.clone(), info).is_some() {
                    let reason =
                        format!("tensor {name} lies in another file of the checkpoint too");
                    return Err(Error::Index { path: file, reason });
                }
            }
        }
        Ok(Self { tensors })
    }

    /// The tensors below `prefix` alone (`model.norm` for `model.norm.weight`), named as before.
    pub fn only(self, prefix: &str) -> Self {
        self.filter(|name| below(name, prefix))
    }

    /// The tensors that are below none of the prefixes.
    pub fn without(self, prefixes: &[&str]) -> Self {
        self.filter(|name| !prefixes.iter().any(|prefix| below(name, prefix)))
    }

    fn filter(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|name, _| keep(name));
        self
    }

    /// Names and places of all tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (&name[..], info))
    }

    /// Bytes of all tensors.
    pub fn size(&self) -> usize {
        self.tensors.values().map(|t| t.range.len()).sum()
    }
}

/// Whether `name` is `prefix` or begins with it and a point.
fn below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The safetensors files that make up the checkpoint at `path`.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let open = |path: &Path, source| Error::Open {
        path: path.to_owned(),
        source,
    };
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let index = path.join(INDEX);
    if index.is_file() {
        let text = fs::read(&index).map_err(|e| open(&index, e))?;
        return indexed(path, &index, &text);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| open(path, e))? {
        let file = entry.map_err(|e| open(path, e))?.path();
        if file.extension().is_some_and(|e| e == "safetensors") {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(Error::NoWeights(path.to_owned()));
    }
    found.sort();
    Ok(found)
}

/// The files that an index names: plain names beside it.
fn indexed(dir: &Path, index: &Path, text: &[u8]) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let fail = |reason: String| Error::Index {
        path: index.to_owned(),
        reason,
    };
    let parsed: Index =
        serde_json::from_slice(text).map_err(|e| fail(format!("not an index: {e}")))?;
    let names: BTreeSet<&String> = parsed.weight_map.values().collect();
    if names.is_empty() {
        return Err(fail("names no files".into()));
    }
    let plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
    if let Some(name) = names.iter().find(|name| !plain(name)) {
        return Err(fail(format!(
            "{name:?} is not the name of a file beside it"
        )));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The tensors of one file.
fn read(path: &Path) -> Result<Vec<(String, TensorInfo)>> {
    let file = MappedFile::open(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    let file = Arc::new(file);
    let (header, metadata) =
        SafeTensors::read_metadata(file.bytes()).map_err(|source| Error::Header {
            path: path.to_owned(),
            source,
        })?;
    // The header is preceded by its length in eight bytes.
    let start = header + 8;
    let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        let info = TensorInfo {
            dtype: info.dtype,
            shape: info.shape.clone(),
            file: file.clone(),
            range,
        };
        (name, info)
    };
    Ok(metadata.tensors().into_iter().map(place).collect())
}
