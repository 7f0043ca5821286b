//! Models of which single layers can be timed: the mini model, and one with the full-size model's
//! widths and few layers.

use crate::{device::device, fixture, weights};
use agx_ocr_backend::{Activations, Checkpoint};
use agx_ocr_kernels::half::bf16;
use agx_ocr_language::{Decoder, LanguageConfig};
use agx_ocr_vision::{VisionConfig, clip::Clip, sam::Sam};
use safetensors::{Dtype, View, serialize_to_file};
use serde_json::{Value, json};
use std::{borrow::Cow, error::Error, path::Path};
use tempfile::TempDir;

/// The parts of a model.
#[derive(Debug)]
pub struct Model {
    /// The first encoder.
    pub sam: Sam,
    /// The second one.
    pub clip: Clip,
    /// The decoder.
    pub decoder: Decoder,
    /// Holds the weights until the parts are gone.
    _dir: Option<TempDir>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

impl Model {
    /// The project's mini model.
    ///
    /// # Errors
    /// When its files are missing.
    pub fn mini() -> Result<Self> {
        Self::at(&fixture("models/agx-ocr-mini"))
    }

    /// The full-size model with three SAM blocks (the last one global), one CLIP layer, one dense
    /// and one mixture layer, and a small vocabulary. Its random weights, 0.6 GB, lie in `dir`
    /// while the model lives.
    ///
    /// # Errors
    /// When the weights cannot be written.
    pub fn few_layers(dir: &Path) -> Result<Self> {
        let dir = TempDir::new_in(dir)?;
        serialize_to_file(tensors().0, None, &dir.path().join("model.safetensors"))?;
        let path = dir.path().to_owned();
        Self::open(&path, &config(), Some(dir))
    }

    /// The model in a directory, such as the real one.
    ///
    /// # Errors
    /// When its files are missing.
    pub fn at(dir: &Path) -> Result<Self> {
        let config = serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?;
        Self::open(dir, &config, None)
    }

    fn open(path: &Path, config: &Value, dir: Option<TempDir>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let (vision, language) = (
            VisionConfig::from_json(config)?,
            LanguageConfig::from_json(config)?,
        );
        let (device, activations) = (device(), Activations::default());
        let sam = checkpoint.clone().only("model.sam_model");
        let clip = checkpoint.clone().only("model.vision_model");
        let rest = checkpoint.without(&[
            "model.sam_model",
            "model.vision_model",
            "model.projector",
            "model.image_newline",
            "model.view_seperator",
        ]);
        Ok(Self {
            sam: sam.build(&device, activations, |loader| {
                Sam::new(&vision.sam, &loader.sub("model.sam_model"))
            })?,
            clip: clip.build(&device, activations, |loader| {
                Clip::new(&vision.clip, &loader.sub("model.vision_model"))
            })??,
            decoder: rest.build(&device, activations, |loader| {
                Decoder::new(&language, loader)
            })?,
            _dir: dir,
        })
    }
}

/// Rows of the embedding and of the head.
const VOCAB: usize = 512;
const EXPERTS: usize = 64;

fn config() -> Value {
    let sam = json!({
        "width": 768, "layers": 3, "heads": 12, "global_attn_indexes": [2],
        "downsample_channels": [512, 1024],
    });
    let clip = json!({
        "width": 1024, "layers": 1, "heads": 16, "image_size": 224, "patch_size": 14,
    });
    json!({
        "vocab_size": VOCAB, "hidden_size": 1280, "num_hidden_layers": 2,
        "num_attention_heads": 10, "num_key_value_heads": 10, "intermediate_size": 6848,
        "moe_intermediate_size": 896, "n_routed_experts": EXPERTS, "n_shared_experts": 2,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "max_position_embeddings": 8192,
        "vision_config": {
            "image_size": 1024, "width": { "sam_vit_b": sam, "clip-l-14-224": clip },
        },
        "projector_config": { "input_dim": 2048, "n_embed": 1280 },
    })
}

/// The tensors that [`config`] asks for.
fn tensors() -> Tensors {
    let mut all = Tensors(Vec::new());
    let at = "model.sam_model";
    all.add(format!("{at}.pos_embed"), &[1, 64, 64, 768]);
    all.add(format!("{at}.patch_embed.proj.weight"), &[768, 3, 16, 16]);
    all.add(format!("{at}.patch_embed.proj.bias"), &[768]);
    for (i, side) in [14, 14, 64].into_iter().enumerate() {
        let at = format!("{at}.blocks.{i}");
        all.norms([&format!("{at}.norm1"), &format!("{at}.norm2")], 768);
        all.affine(&format!("{at}.attn.qkv"), 768, 2304);
        all.affine(&format!("{at}.attn.proj"), 768, 768);
        all.affine(&format!("{at}.mlp.lin1"), 768, 3072);
        all.affine(&format!("{at}.mlp.lin2"), 3072, 768);
        for axis in ["h", "w"] {
            all.add(format!("{at}.attn.rel_pos_{axis}"), &[2 * side - 1, 64]);
        }
    }
    all.norms([&format!("{at}.neck.1"), &format!("{at}.neck.3")], 256);
    all.add(format!("{at}.neck.0.weight"), &[256, 768, 1, 1]);
    all.add(format!("{at}.neck.2.weight"), &[256, 256, 3, 3]);
    all.add(format!("{at}.net_2.weight"), &[512, 256, 3, 3]);
    all.add(format!("{at}.net_3.weight"), &[1024, 512, 3, 3]);

    let at = "model.vision_model";
    let embeddings = format!("{at}.embeddings");
    all.add(format!("{embeddings}.class_embedding"), &[1024]);
    all.add(
        format!("{embeddings}.patch_embedding.weight"),
        &[1024, 3, 14, 14],
    );
    all.add(
        format!("{embeddings}.position_embedding.weight"),
        &[257, 1024],
    );
    let layer = format!("{at}.transformer.layers.0");
    let norms = [1, 2].map(|i| format!("{layer}.layer_norm{i}"));
    all.norms([&format!("{at}.pre_layrnorm"), &norms[0], &norms[1]], 1024);
    all.affine(&format!("{layer}.self_attn.qkv_proj"), 1024, 3072);
    all.affine(&format!("{layer}.self_attn.out_proj"), 1024, 1024);
    all.affine(&format!("{layer}.mlp.fc1"), 1024, 4096);
    all.affine(&format!("{layer}.mlp.fc2"), 4096, 1024);

    for i in 0..2 {
        let at = format!("model.layers.{i}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.add(format!("{at}.{norm}.weight"), &[1280]);
        }
        for part in ["q", "k", "v", "o"] {
            all.add(format!("{at}.self_attn.{part}_proj.weight"), &[1280, 1280]);
        }
    }
    all.swiglu("model.layers.0.mlp", 6848);
    all.add("model.layers.1.mlp.gate.weight".into(), &[EXPERTS, 1280]);
    all.swiglu("model.layers.1.mlp.shared_experts", 2 * 896);
    for i in 0..EXPERTS {
        all.swiglu(&format!("model.layers.1.mlp.experts.{i}"), 896);
    }
    all.add("model.norm.weight".into(), &[1280]);
    all.add("model.embed_tokens.weight".into(), &[VOCAB, 1280]);
    all.add("lm_head.weight".into(), &[VOCAB, 1280]);
    all
}

/// Names and shapes.
struct Tensors(Vec<(String, Random)>);

impl Tensors {
    fn add(&mut self, name: String, shape: &[usize]) {
        // Weights of norms are about 1.
        let ones = shape.len() == 1 && name.ends_with(".weight");
        let shape = shape.to_vec();
        self.0.push((name, Random { shape, ones }));
    }

    fn norms<const N: usize>(&mut self, names: [&str; N], size: usize) {
        for name in names {
            self.add(format!("{name}.weight"), &[size]);
            self.add(format!("{name}.bias"), &[size]);
        }
    }

    fn affine(&mut self, name: &str, input: usize, output: usize) {
        self.add(format!("{name}.weight"), &[output, input]);
        self.add(format!("{name}.bias"), &[output]);
    }

    fn swiglu(&mut self, name: &str, inner: usize) {
        self.add(format!("{name}.gate_proj.weight"), &[inner, 1280]);
        self.add(format!("{name}.up_proj.weight"), &[inner, 1280]);
        self.add(format!("{name}.down_proj.weight"), &[1280, inner]);
    }
}

/// A tensor whose values are made when they are written.
struct Random {
    shape: Vec<usize>,
    ones: bool,
}

impl View for Random {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let n = self.shape.iter().product();
        let values = match self.ones {
            true => vec![bf16::ONE; n],
            false => weights(n),
        };
        bytemuck::cast_slice(&values).to_vec().into()
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}
