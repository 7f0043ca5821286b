//! The sizes of the vision encoder, as config.json states them.

use crate::{Error, Result};
use serde::Deserialize;

/// Sizes of SAM, CLIP and the projector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VisionConfig {
    /// The image encoder that looks at the pixels.
    pub sam: SamConfig,
    /// The encoder that looks at SAM's output.
    pub clip: ClipConfig,
    /// Size of a vision token, the decoder's hidden size.
    pub hidden_size: usize,
}

/// Sizes of the SAM encoder (Kirillov et al., 2023).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SamConfig {
    /// Values in a position.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads a block.
    pub heads: usize,
    /// Blocks that attend to the whole image; the others attend inside windows.
    pub global_attn_indexes: Vec<usize>,
    /// Channels after the first and the second down-sampling convolution.
    pub downsample_channels: [usize; 2],
    /// Channels of the neck.
    #[serde(default = "neck_channels")]
    pub out_chans: usize,
    /// Side of the grid that the stored positions belong to.
    #[serde(skip)]
    pub grid: usize,
}

/// Sizes of the CLIP encoder (Radford et al., 2021).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ClipConfig {
    /// Values in a position.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads a layer.
    pub heads: usize,
    /// Side of the image that the stored positions belong to, in pixels.
    pub image_size: usize,
    /// Side of a patch of it, in pixels.
    pub patch_size: usize,
}

fn neck_channels() -> usize {
    256
}

/// Side of SAM's patches in pixels.
pub const SAM_PATCH: usize = 16;
/// Side of SAM's attention windows in patches.
pub const SAM_WINDOW: usize = 14;

#[derive(Deserialize)]
struct Root {
    vision_config: Vision,
    projector_config: Projector,
}

#[derive(Deserialize)]
struct Vision {
    image_size: usize,
    width: Widths,
}

#[derive(Deserialize)]
struct Widths {
    sam_vit_b: SamConfig,
    #[serde(rename = "clip-l-14-224")]
    clip: ClipConfig,
}

#[derive(Deserialize)]
struct Projector {
    input_dim: usize,
    n_embed: usize,
}

/// More than any model of this kind has; keeps sums and allocations in bounds.
const LARGEST: usize = 1 << 16;

impl VisionConfig {
    /// The sizes in a parsed config.json.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is missing or no encoder can have it.
    pub fn from_json(config: &serde_json::Value) -> Result<Self> {
        let root = Root::deserialize(config).map_err(|e| Error::Config(e.to_string()))?;
        let Widths {
            mut sam_vit_b,
            clip,
        } = root.vision_config.width;
        sam_vit_b.grid = root.vision_config.image_size / SAM_PATCH;
        let config = Self {
            sam: sam_vit_b,
            clip,
            hidden_size: root.projector_config.n_embed,
        };
        config.check(root.projector_config.input_dim)?;
        Ok(config)
    }

    fn check(&self, projected: usize) -> Result<()> {
        let Self {
            sam,
            clip,
            hidden_size,
        } = self;
        let sizes = [
            ("sam width", sam.width),
            ("sam layers", sam.layers),
            ("sam heads", sam.heads),
            ("sam out_chans", sam.out_chans),
            ("sam downsample_channels", sam.downsample_channels[0]),
            ("sam downsample_channels", sam.downsample_channels[1]),
            ("image_size / 16", sam.grid),
            ("clip width", clip.width),
            ("clip layers", clip.layers),
            ("clip heads", clip.heads),
            ("clip image_size", clip.image_size),
            ("clip patch_size", clip.patch_size),
            ("projector n_embed", *hidden_size),
        ];
        let fail = |reason: String| Err(Error::Config(reason));
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return fail(format!("{name} is {size}, outside of 1..={LARGEST}"));
        }
        for (name, width, heads) in [
            ("sam", sam.width, sam.heads),
            ("clip", clip.width, clip.heads),
        ] {
            if !width.is_multiple_of(heads) {
                return fail(format!(
                    "{name}: width {width} is no multiple of {heads} heads"
                ));
            }
        }
        if let Some(index) = sam.global_attn_indexes.iter().find(|i| **i >= sam.layers) {
            return fail(format!(
                "global_attn_indexes: {index} is not below {} layers",
                sam.layers
            ));
        }
        let [_, compressed] = sam.downsample_channels;
        if compressed != clip.width {
            return fail(format!(
                "sam gives {compressed} channels, clip takes {}",
                clip.width
            ));
        }
        if projected != compressed + clip.width {
            return fail(format!(
                "projector input_dim is {projected}, not {compressed} + {}",
                clip.width
            ));
        }
        Ok(())
    }
}
