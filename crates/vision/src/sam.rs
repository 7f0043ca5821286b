//! The SAM image encoder (Kirillov et al., 2023; ViTDet's windows: Li et al., 2022), with the two
//! convolutions that DeepSeek-OCR adds to compress its output sixteenfold.

use crate::{
    Result,
    config::{SAM_PATCH, SAM_WINDOW, SamConfig},
    positions::{AbsolutePositions, RelativeTables},
};
use agx_ocr_backend::{
    Activation, Conv2d, LayerNorm, Linear, Loader, Mlp, Observer, SelfAttention, add_rows,
};
use candle_core::Tensor;

/// `norm1`, `norm2` and the neck's norms.
const EPS: f64 = 1e-6;

/// Pixels to a compressed feature map.
#[derive(Debug)]
pub struct Sam {
    patch_embed: Conv2d,
    pos_embed: AbsolutePositions,
    blocks: Vec<Block>,
    neck: Neck,
    net_2: Conv2d,
    net_3: Conv2d,
}

impl Sam {
    /// The encoder below `loader` (`model.sam_model`).
    pub fn new(config: &SamConfig, loader: &Loader<'_>) -> Self {
        let SamConfig {
            width,
            grid,
            out_chans,
            downsample_channels: [half, quarter],
            ..
        } = *config;
        let pos_embed = loader.host_weight("pos_embed", &[1, grid, grid, width]);
        let block = |i| {
            let window = (!config.global_attn_indexes.contains(&i)).then_some(SAM_WINDOW);
            Block::new(config, window, &loader.sub("blocks").sub(i))
        };
        Self {
            patch_embed: loader.conv2d(
                "patch_embed.proj",
                (3, width),
                (SAM_PATCH, SAM_PATCH, 0),
                true,
            ),
            pos_embed: AbsolutePositions::new(pos_embed, 0, grid, loader.device()),
            blocks: (0..config.layers).map(block).collect(),
            neck: Neck::new(config, &loader.sub("neck")),
            net_2: loader.conv2d("net_2", (out_chans, half), (3, 2, 1), false),
            net_3: loader.conv2d("net_3", (half, quarter), (3, 2, 1), false),
        }
    }

    /// `pixels` `[batch, side, side, 3]` to `[batch, side / 64, side / 64, channels]`.
    ///
    /// # Errors
    /// When the side is no multiple of 64, or `observer` stops.
    pub fn forward(&self, pixels: &Tensor, observer: &dyn Observer) -> Result<Tensor> {
        let mut x = self.patch_embed.forward(pixels)?;
        observer.observe(format_args!("sam.patch_embed"), &x)?;
        let (_, grid, _, width) = x.dims4()?;
        let positions = self.pos_embed.at(grid)?.reshape((1, grid, grid, width))?;
        x = add_rows(x, &positions)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x)?;
            observer.observe(format_args!("sam.block{i}"), &x)?;
        }
        x = self.neck.forward(&x)?;
        observer.observe(format_args!("sam.neck"), &x)?;
        x = self.net_2.forward(&x)?;
        observer.observe(format_args!("sam.net_2"), &x)?;
        x = self.net_3.forward(&x)?;
        observer.observe(format_args!("sam"), &x)?;
        Ok(x)
    }
}

/// A transformer block: attention to the whole image or inside windows, then an MLP.
#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(config: &SamConfig, window: Option<usize>, loader: &Loader<'_>) -> Self {
        let width = config.width;
        Self {
            norm1: loader.layer_norm("norm1", width, EPS),
            attn: Attention::new(config, window, &loader.sub("attn")),
            norm2: loader.layer_norm("norm2", width, EPS),
            mlp: loader.mlp(["mlp.lin1", "mlp.lin2"], width, 4 * width, Activation::Gelu),
        }
    }

    /// `x`, with what the block adds to it in place.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.attn.add_to(x, &self.norm1)?;
        Ok(self.mlp.add_to(x, &self.norm2)?)
    }
}

/// Attention with decomposed relative positions.
#[derive(Debug)]
struct Attention {
    qkv: Linear,
    mix: SelfAttention,
    proj: Linear,
    window: Option<usize>,
    relative: RelativeTables,
}

impl Attention {
    fn new(config: &SamConfig, window: Option<usize>, loader: &Loader<'_>) -> Self {
        let (width, heads) = (config.width, config.heads);
        let table = |name| {
            loader.host_weight(
                name,
                &[2 * window.unwrap_or(config.grid) - 1, width / heads],
            )
        };
        let qkv = loader.linear_bias("qkv", width, 3 * width);
        Self {
            qkv,
            proj: loader.linear_bias("proj", width, width),
            mix: loader.attention(heads),
            window,
            relative: RelativeTables::new(table("rel_pos_h"), table("rel_pos_w"), loader.device()),
        }
    }

    /// `x + attention(norm(x))` in place, `x` `[batch, grid, grid, width]`.
    fn add_to(&self, x: Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let (_, grid, _, _) = x.dims4()?;
        let qkv = self.qkv.forward_normed(norm, &x)?;
        let relative = self.relative.at(self.window.unwrap_or(grid))?;
        let mixed = match self.window {
            Some(window) => self.mix.windows(&qkv, window, &self.qkv, &relative)?,
            None => self.mix.forward(&qkv, Some(&relative))?,
        };
        Ok(self.proj.add_to(x, &mixed)?)
    }
}

/// Fewer channels: a 1x1 and a 3x3 convolution, each with a norm over the channels.
#[derive(Debug)]
struct Neck {
    conv1: Conv2d,
    norm1: LayerNorm,
    conv2: Conv2d,
    norm2: LayerNorm,
}

impl Neck {
    fn new(config: &SamConfig, loader: &Loader<'_>) -> Self {
        let (width, out) = (config.width, config.out_chans);
        Self {
            conv1: loader.conv2d("0", (width, out), (1, 1, 0), false),
            norm1: loader.layer_norm("1", out, EPS),
            conv2: loader.conv2d("2", (out, out), (3, 1, 1), false),
            norm2: loader.layer_norm("3", out, EPS),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm1.forward(&self.conv1.forward(x)?)?;
        Ok(self.norm2.forward(&self.conv2.forward(&x)?)?)
    }
}
