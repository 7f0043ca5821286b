//! The reference's dumps and its drift under bf16.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Named tensors, all as f64.
pub struct Dump(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Dump {
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let values = values(view.dtype(), view.data());
            (name, (view.shape().to_vec(), values))
        };
        Self(file.tensors().into_iter().map(entry).collect())
    }

    pub fn get(&self, name: &str) -> Option<&(Vec<usize>, Vec<f64>)> {
        self.0.get(name)
    }

    pub fn ids(&self, name: &str) -> Option<Vec<u32>> {
        self.get(name)
            .map(|(_, values)| values.iter().map(|v| *v as u32).collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &name[..])
    }
}

fn values(dtype: Dtype, data: &[u8]) -> Vec<f64> {
    macro_rules! read {
        ($type:ty) => {
            data.chunks_exact(size_of::<$type>())
                .map(|b| <$type>::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect()
        };
    }
    match dtype {
        Dtype::F32 => read!(f32),
        Dtype::I32 => read!(i32),
        Dtype::I64 => read!(i64),
        Dtype::U8 => read!(u8),
        other => panic!("a dump of {other:?}"),
    }
}

/// The prompt of a case, from the manifest beside its dump.
pub fn prompt(dumps: &Path, case: &str) -> String {
    let read = |name| std::fs::read(dumps.join(name));
    let manifest = read("manifest.json")
        .or_else(|_| read("manifest_f32.json"))
        .unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest[case]["prompt"].as_str().unwrap().to_owned()
}

/// How far plain bf16 arithmetic of the reference moves from its f32 arithmetic, relative L2.
pub struct Drift(BTreeMap<String, BTreeMap<String, f64>>);

impl Drift {
    pub fn tiny(manifest: &Path) -> Self {
        Self::read(manifest, |case| &case["bf16"]["bf16"])
    }

    pub fn full(manifest: &Path) -> Self {
        Self::read(manifest, |case| &case["vs_f32"])
    }

    fn read(manifest: &Path, stages: impl Fn(&Value) -> &Value) -> Self {
        let parsed: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        let mut drift = BTreeMap::new();
        for (name, case) in parsed.as_object().unwrap() {
            let Some(stages) = stages(case).as_object() else {
                continue;
            };
            let of = |(stage, v): (&String, &Value)| Some((stage.clone(), v["rel_l2"].as_f64()?));
            drift.insert(name.clone(), stages.iter().filter_map(of).collect());
        }
        Self(drift)
    }

    pub fn of(&self, case: &str, stage: &str) -> f64 {
        // A small image in tiled mode has no tiles: it is the base case.
        let case = if case == "small_gundam" {
            "small_base"
        } else {
            case
        };
        let stages = &self.0[case];
        *stages
            .get(stage)
            .unwrap_or_else(|| panic!("no drift of {stage} in {case}"))
    }
}
