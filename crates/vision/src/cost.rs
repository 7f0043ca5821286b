//! What encoding a view costs, in multiply-adds: two operations each.
//!
//! Counted are the products that the encoders make. Padded positions count where they take part,
//! inside of attention windows; norms, activation functions and softmax are left out, as is usual.
//! Arithmetic is f64: exact up to 2^53, which is far off, and without overflow.

use crate::{
    ClipConfig, SamConfig, VisionConfig,
    config::{SAM_PATCH, SAM_WINDOW},
    views::STRIDE,
};

impl VisionConfig {
    /// Multiply-adds (two operations each) for one view of `side` x `side` pixels: SAM, CLIP and
    /// the projector.
    pub fn multiply_adds(&self, side: u32) -> u64 {
        let patches = f64::from(side / STRIDE).powi(2);
        let features = (self.clip.width + self.sam.downsample_channels[1]) as f64;
        let projector = patches * features * self.hidden_size as f64;
        // The class token is a position too.
        (self.sam.multiply_adds(side) + self.clip.multiply_adds(patches + 1.0) + projector) as u64
    }
}

impl SamConfig {
    /// Multiply-adds for an image of `side` x `side` pixels, with all convolutions.
    fn multiply_adds(&self, side: u32) -> f64 {
        let grid = f64::from(side / SAM_PATCH as u32);
        let positions = grid * grid;
        let [width, neck, half, quarter] = [
            self.width,
            self.out_chans,
            self.downsample_channels[0],
            self.downsample_channels[1],
        ]
        .map(|size| size as f64);

        let patches = positions * (3 * SAM_PATCH * SAM_PATCH) as f64 * width;
        // To each position the tables' rows for its distances to all rows and all columns.
        let attend = |grid: f64| attention(grid * grid, width) + grid * grid * 2.0 * grid * width;
        let window = SAM_WINDOW as f64;
        let windows = (grid / window).ceil().powi(2);
        let is_global = |block: &usize| self.global_attn_indexes.contains(block);
        let global = (0..self.layers).filter(is_global).count() as f64;
        let blocks = self.layers as f64;
        let mixing = global * attend(grid) + (blocks - global) * windows * attend(window);

        let necks = positions * neck * (width + 9.0 * neck);
        // Each halves both sides.
        let compression = 9.0 * (positions / 4.0 * neck * half + positions / 16.0 * half * quarter);
        patches + blocks * layers_of(positions, width) + mixing + necks + compression
    }
}

impl ClipConfig {
    /// Multiply-adds for `positions` positions, the class token among them.
    fn multiply_adds(&self, positions: f64) -> f64 {
        let width = self.width as f64;
        self.layers as f64 * (layers_of(positions, width) + attention(positions, width))
    }
}

/// The linear layers of a transformer block: q, k and v, the projection behind the attention, and
/// an MLP of four times the width.
fn layers_of(positions: f64, width: f64) -> f64 {
    positions * (3.0 + 1.0 + 4.0 + 4.0) * width * width
}

/// Both products of attention of all heads: queries by keys, and weights by values.
fn attention(positions: f64, width: f64) -> f64 {
    2.0 * positions * positions * width
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of DeepSeek-OCR.
    fn deepseek() -> VisionConfig {
        VisionConfig {
            sam: SamConfig {
                width: 768,
                layers: 12,
                heads: 12,
                global_attn_indexes: vec![2, 5, 8, 11],
                downsample_channels: [512, 1024],
                out_chans: 256,
                grid: 64,
            },
            clip: ClipConfig {
                width: 1024,
                layers: 24,
                heads: 16,
                image_size: 224,
                patch_size: 14,
            },
            hidden_size: 1280,
        }
    }

    #[track_caller]
    fn near(value: f64, wanted: f64, tolerance: f64) {
        assert!((value / wanted - 1.0).abs() < tolerance, "{value:e}");
    }

    #[test]
    fn costs_are_the_known_ones() {
        let config = deepseek();
        // 0.95 and 0.16 TFLOP for 1024 pixels; SAM at 640 0.33.
        near(config.sam.multiply_adds(1024), 0.95e12 / 2.0, 0.1);
        near(config.sam.multiply_adds(640), 0.33e12 / 2.0, 0.1);
        near(config.clip.multiply_adds(257.0), 0.16e12 / 2.0, 0.1);
        let projector = 256.0 * 2048.0 * 1280.0;
        let all = (0.95e12 + 0.16e12) / 2.0 + projector;
        near(config.multiply_adds(1024) as f64, all, 0.1);
    }

    #[test]
    fn small_costs_can_be_counted_by_hand() {
        let mut config = deepseek();
        config.sam.layers = 1;
        config.sam.width = 2;
        config.sam.global_attn_indexes.clear();
        config.sam.out_chans = 3;
        config.sam.downsample_channels = [5, 7];
        config.clip.width = 7;
        config.clip.layers = 1;
        config.hidden_size = 11;
        // 64 pixels are a grid of 4 x 4 in one window of 14 x 14, then one patch and the class.
        let patches = 16 * 768 * 2;
        let block = 16 * 12 * 2 * 2 + 2 * 196 * 196 * 2 + 196 * (14 + 14) * 2;
        let convolutions = 16 * 2 * 3 + 16 * 9 * 3 * 3 + 4 * 9 * 3 * 5 + 9 * 5 * 7;
        let clip = 2 * 12 * 7 * 7 + 2 * 2 * 2 * 7;
        let projector = (7 + 7) * 11;
        let all = patches + block + convolutions + clip + projector;
        assert_eq!(config.multiply_adds(64), all);

        config.sam.global_attn_indexes.push(0);
        let (window, global) = (
            2 * 196 * 196 * 2 + 196 * 28 * 2,
            2 * 16 * 16 * 2 + 16 * 8 * 2,
        );
        assert_eq!(config.multiply_adds(64), all - window + global);
    }
}
