//! The sizes of the vision encoder, as config.json states them.

use crate::{Error, Result};
use agx_ocr_backend::Fields;
use std::ops::RangeInclusive;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub out_chans: usize,
    /// Side of the grid that the stored positions belong to.
    pub grid: usize,
}

/// Sizes of the CLIP encoder (Radford et al., 2021).
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Side of SAM's patches in pixels.
pub const SAM_PATCH: usize = 16;
/// Side of SAM's attention windows in patches.
pub const SAM_WINDOW: usize = 14;

/// Channels of SAM's neck where config.json is silent, as the published one is.
const NECK_CHANNELS: usize = 256;

// More than any model of this kind has: the bounds keep sums, allocations and loops small whatever
// the file says.
const LAYERS: RangeInclusive<usize> = 1..=512;
const HEADS: RangeInclusive<usize> = 1..=1024;
const WIDTH: RangeInclusive<usize> = 1..=1 << 14;
const HIDDEN: RangeInclusive<usize> = 1..=1 << 16;
/// Of the images that positions are stored for, in pixels.
const LARGEST_IMAGE: usize = 1 << 12;

impl VisionConfig {
    /// The sizes in a parsed config.json.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is missing or no encoder can have it.
    pub fn from_json(config: &serde_json::Value) -> Result<Self> {
        let (config, projected) = Self::take(&Fields::new(config)).map_err(Error::Config)?;
        config.check(projected)?;
        Ok(config)
    }

    /// The sizes, and the projector's input.
    fn take(fields: &Fields<'_>) -> Result<(Self, usize), String> {
        let vision = fields.object("vision_config")?;
        let widths = vision.object("width")?;
        let (sam, clip) = (widths.object("sam_vit_b")?, widths.object("clip-l-14-224")?);
        let projector = fields.object("projector_config")?;
        let image_size = vision.size("image_size", SAM_PATCH..=LARGEST_IMAGE)?;
        let layers = sam.size("layers", LAYERS)?;
        let channels = sam.sizes("downsample_channels", 2..=2, WIDTH)?;
        let sam = SamConfig {
            width: sam.size("width", WIDTH)?,
            layers,
            heads: sam.size("heads", HEADS)?,
            global_attn_indexes: sam.sizes("global_attn_indexes", 0..=layers, 0..=layers - 1)?,
            downsample_channels: [channels[0], channels[1]],
            out_chans: sam.size_or("out_chans", WIDTH, NECK_CHANNELS)?,
            grid: image_size / SAM_PATCH,
        };
        let image_size = clip.size("image_size", 1..=LARGEST_IMAGE)?;
        let clip = ClipConfig {
            width: clip.size("width", WIDTH)?,
            layers: clip.size("layers", LAYERS)?,
            heads: clip.size("heads", HEADS)?,
            image_size,
            // A patch at least, or there are no positions.
            patch_size: clip.size("patch_size", 1..=image_size)?,
        };
        let hidden_size = projector.size("n_embed", HIDDEN)?;
        let projected = projector.size("input_dim", 2..=2 * *WIDTH.end())?;
        Ok((
            Self {
                sam,
                clip,
                hidden_size,
            },
            projected,
        ))
    }

    fn check(&self, projected: usize) -> Result<()> {
        let Self { sam, clip, .. } = self;
        let fail = |reason: String| Err(Error::Config(reason));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tiny() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/parity/tiny/config.json"
        );
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn reads_sizes_and_defaults() {
        let mut json = tiny();
        let config = VisionConfig::from_json(&json).unwrap();
        assert_eq!((config.sam.grid, config.sam.out_chans), (64, 32));
        assert_eq!(config.sam.global_attn_indexes, [1, 3]);
        assert_eq!(config.hidden_size, 64);
        let sam = json.pointer_mut("/vision_config/width/sam_vit_b").unwrap();
        sam.as_object_mut().unwrap().remove("out_chans");
        let config = VisionConfig::from_json(&json).unwrap();
        assert_eq!(config.sam.out_chans, NECK_CHANNELS);
    }

    #[test]
    fn refuses_what_no_encoder_has() {
        const SAM: &str = "/vision_config/width/sam_vit_b";
        const CLIP: &str = "/vision_config/width/clip-l-14-224";
        for (object, name, value, wanted) in [
            (
                "",
                "vision_config",
                json!(7),
                "vision_config is 7, not an object",
            ),
            (
                "/vision_config",
                "width",
                json!([]),
                "vision_config.width is a list of 0, not an",
            ),
            (
                "/vision_config",
                "image_size",
                json!(8),
                "vision_config.image_size is 8, not",
            ),
            (
                "/vision_config",
                "image_size",
                json!(1_u64 << 63),
                "image_size is 9223372036854775808",
            ),
            (
                SAM,
                "layers",
                json!(0),
                "vision_config.width.sam_vit_b.layers is 0, not",
            ),
            (
                SAM,
                "layers",
                json!(1_000_000),
                "sam_vit_b.layers is 1000000, not",
            ),
            (SAM, "width", json!(1e300), "sam_vit_b.width is 1e+300, not"),
            (
                SAM,
                "heads",
                json!(5),
                "sam: width 64 is no multiple of 5 heads",
            ),
            (
                SAM,
                "global_attn_indexes",
                json!([4]),
                "global_attn_indexes is a list of 1, not a list of 0 to 4 whole numbers from 0 to 3",
            ),
            (
                SAM,
                "global_attn_indexes",
                json!(vec![0; 100_000]),
                "is a list of 100000, not",
            ),
            (
                SAM,
                "downsample_channels",
                json!([128]),
                "downsample_channels is a list of 1, not a list of 2",
            ),
            (
                SAM,
                "downsample_channels",
                json!([128, 96]),
                "sam gives 96 channels, clip takes 80",
            ),
            (
                SAM,
                "out_chans",
                json!(-1),
                "sam_vit_b.out_chans is -1, not",
            ),
            (
                CLIP,
                "patch_size",
                json!(0),
                "clip-l-14-224.patch_size is 0, not",
            ),
            (
                CLIP,
                "patch_size",
                json!(225),
                "patch_size is 225, not a whole number from 1 to 224",
            ),
            (
                CLIP,
                "heads",
                json!("many"),
                "clip-l-14-224.heads is \"many\", not",
            ),
            (
                "/projector_config",
                "n_embed",
                json!(null),
                "projector_config.n_embed is null, not",
            ),
            (
                "/projector_config",
                "input_dim",
                json!(161),
                "projector input_dim is 161, not 80 + 80",
            ),
        ] {
            let mut config = tiny();
            config.pointer_mut(object).unwrap()[name] = value;
            let error = VisionConfig::from_json(&config).unwrap_err().to_string();
            assert!(
                error.starts_with("config.json: ") && error.contains(wanted),
                "{name}: {error}"
            );
        }
    }
}
