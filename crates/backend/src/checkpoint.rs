//! A model's weights on disk: one safetensors file, or several with or without an index.

#[cfg(feature = "cuda")]
use crate::cuda::Uploaded;
use crate::{Error, ModelFiles, Result, files, header, json};
use agx_ocr_kernels::{half::bf16, mapped::MappedFile};
use candle_core::Device;
use safetensors::Dtype;
use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

const INDEX: &str = "model.safetensors.index.json";
/// The most bytes of an index. The full-size model's takes 0.3 MB.
const LARGEST_INDEX: u64 = 16 << 20;

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
    /// The file's path, as it is called.
    named: Arc<Path>,
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
    /// A copy on a GPU, in the element type of its products.
    #[cfg(feature = "cuda")]
    pub(crate) uploaded: Option<Uploaded>,
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

    /// The device whose layers take it.
    pub fn device(&self) -> &Device {
        #[cfg(feature = "cuda")]
        if let Some(uploaded) = &self.uploaded {
            return uploaded.values().device();
        }
        &Device::Cpu
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
    /// The path may be a link; links in a directory are followed as [`ModelFiles`] says. A header
    /// is believed only as far as it agrees with its file, an index only as far as the files hold
    /// what it lists.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Header`], [`Error::Index`] or [`Error::NoWeights`], and those of
    /// [`ModelFiles::find`].
    pub fn open(path: &Path) -> Result<Self> {
        let (files, index) = files(path)?;
        let mut tensors = BTreeMap::new();
        for (file, real) in files {
            for (name, info) in read(&file, &real)? {
                if tensors.insert(name.clone(), info).is_some() {
                    let reason =
                        format!("tensor {name} lies in another file of the checkpoint too");
                    return Err(Error::Index { path: file, reason });
                }
            }
        }
        if let Some(index) = index {
            index.check(&tensors)?;
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

/// A safetensors file as it is called, and where it lies.
type Place = (PathBuf, PathBuf);

/// The safetensors files that make up the checkpoint at `path`, and its index.
fn files(path: &Path) -> Result<(Vec<Place>, Option<Index>)> {
    if !path.is_dir() {
        return Ok((vec![(path.to_owned(), files::named(path)?)], None));
    }
    let dir = ModelFiles::new(path)?;
    if let Some(text) = dir.read(INDEX, LARGEST_INDEX)? {
        let index = Index::new(path.join(INDEX), &text)?;
        return Ok((index.files(&dir)?, Some(index)));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Error::open(path, e))? {
        let entry = entry.map_err(|e| Error::open(path, e))?;
        let file = entry.path();
        if file.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        if let Some(real) = dir.find(entry.file_name())? {
            found.push((file, real));
        }
    }
    if found.is_empty() {
        return Err(Error::NoWeights(path.to_owned()));
    }
    found.sort();
    Ok((found, None))
}

/// An index: in which file each tensor lies.
struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn new(path: PathBuf, text: &[u8]) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Content {
            weight_map: BTreeMap<String, String>,
        }
        match json::parse_json::<Content>(text) {
            Ok(Content { weight_map }) => Ok(Self { path, weight_map }),
            Err(error) => {
                let reason = format!("not an index: {error}");
                Err(Error::Index { path, reason })
            }
        }
    }

    fn fail<T>(&self, reason: String) -> Result<T> {
        let path = self.path.clone();
        Err(Error::Index { path, reason })
    }

    /// The files that it names: plain names beside it.
    fn files(&self, dir: &ModelFiles) -> Result<Vec<Place>> {
        let mut names: Vec<&String> = self.weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return self.fail("names no files".into());
        }
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let quoted = json::shortened(&format!("{name:?}"));
            let plain = Path::new(name)
                .file_name()
                .is_some_and(|file| file == &name[..]);
            if !plain {
                return self.fail(format!("{quoted} is not the name of a file beside it"));
            }
            match dir.find(name)? {
                Some(real) => places.push((dir.dir().join(name), real)),
                None => return self.fail(format!("names {quoted}, which is missing")),
            }
        }
        Ok(places)
    }

    /// An error unless every tensor lies where the index says.
    fn check(&self, tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
        for (tensor, file) in &self.weight_map {
            let found = tensors.get(tensor);
            if !found.is_some_and(|info| info.named.ends_with(file)) {
                let tensor = json::shortened(&format!("{tensor:?}"));
                return self.fail(format!("lists {tensor} in {file}, which does not hold it"));
            }
        }
        Ok(())
    }
}

/// The tensors of one file.
fn read(path: &Path, real: &Path) -> Result<Vec<(String, TensorInfo)>> {
    let file = MappedFile::open(real).map_err(|e| Error::open(path, e))?;
    let file = Arc::new(file);
    let named: Arc<Path> = path.into();
    let entries = header::read(file.bytes()).map_err(|reason| Error::Header {
        path: path.to_owned(),
        reason,
    })?;
    let place = |entry: header::Entry| {
        let info = TensorInfo {
            dtype: entry.info.dtype,
            shape: entry.info.shape,
            file: file.clone(),
            named: named.clone(),
            range: entry.range,
        };
        (entry.name, info)
    };
    Ok(entries.into_iter().map(place).collect())
}
