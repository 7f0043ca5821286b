//! The CLIP vision encoder (Radford et al., 2021), fed with SAM's output instead of patches.

use crate::{Result, config::ClipConfig, positions::AbsolutePositions};
use agx_ocr_backend::{
    Activation, LayerNorm, Linear, Loader, Mlp, Observer, SelfAttention, add_rows, cat,
};
use candle_core::Tensor;

/// All of its norms.
const EPS: f64 = 1e-5;

/// A feature map to one vector a position, and one for the class token.
#[derive(Debug)]
pub struct Clip {
    class_embedding: Tensor,
    positions: AbsolutePositions,
    pre_layernorm: LayerNorm,
    layers: Vec<Layer>,
}

impl Clip {
    /// The encoder below `loader` (`model.vision_model`).
    ///
    /// # Errors
    /// When memory for the class embedding cannot be had on the device.
    pub fn new(config: &ClipConfig, loader: &Loader<'_>) -> Result<Self> {
        let ClipConfig {
            width,
            image_size,
            patch_size,
            ..
        } = *config;
        let grid = image_size / patch_size;
        let at = loader.sub("embeddings");
        at.unused(
            "patch_embedding.weight",
            &[width, 3, patch_size, patch_size],
        );
        let class = at.host_weight("class_embedding", &[width]).to_f32();
        let positions = at.host_weight("position_embedding.weight", &[1 + grid * grid, width]);
        let layers = loader.sub("transformer.layers");
        Ok(Self {
            class_embedding: Tensor::from_vec(class.clone(), class.len(), loader.device())?,
            positions: AbsolutePositions::new(positions, 1, grid, loader.device()),
            // The checkpoint's spelling.
            pre_layernorm: loader.layer_norm("pre_layrnorm", width, EPS),
            layers: (0..config.layers)
                .map(|i| Layer::new(config, &layers.sub(i)))
                .collect(),
        })
    }

    /// SAM's map `[batch, n, n, width]` to `[batch, 1 + n², width]`, the class token first.
    ///
    /// # Errors
    /// When shapes do not fit, or `observer` stops.
    pub fn forward(&self, features: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        let (batch, n, _, width) = features.dims4()?;
        let class = self
            .class_embedding
            .reshape((1, 1, width))?
            .expand((batch, 1, width))?;
        let patches = features.reshape((batch, n * n, width))?;
        let mut x = add_rows(cat(&[&class, &patches], 1)?, &self.positions.at(n)?)?;
        observer.observe(format_args!("clip.embeddings"), &x)?;
        x = self.pre_layernorm.forward(&x)?;
        observer.observe(format_args!("clip.pre_layrnorm"), &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x)?;
            observer.observe(format_args!("clip.layer{i}"), &x)?;
        }
        observer.observe(format_args!("clip"), &x)?;
        Ok(x)
    }
}

/// A transformer layer.
#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    qkv_proj: Linear,
    mix: SelfAttention,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &ClipConfig, loader: &Loader<'_>) -> Self {
        let width = config.width;
        Self {
            layer_norm1: loader.layer_norm("layer_norm1", width, EPS),
            qkv_proj: loader.linear_bias("self_attn.qkv_proj", width, 3 * width),
            out_proj: loader.linear_bias("self_attn.out_proj", width, width),
            layer_norm2: loader.layer_norm("layer_norm2", width, EPS),
            mlp: loader.mlp(
                ["mlp.fc1", "mlp.fc2"],
                width,
                4 * width,
                Activation::QuickGelu,
            ),
            mix: loader.attention(config.heads),
        }
    }

    /// `x`, with what the layer adds to it in place.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let qkv = self.qkv_proj.forward_normed(&self.layer_norm1, &x)?;
        let x = self.out_proj.add_to(x, &self.mix.forward(&qkv, None)?)?;
        Ok(self.mlp.add_to(x, &self.layer_norm2)?)
    }
}
