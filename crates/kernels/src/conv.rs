//! 2-D convolution on channels-last images.

use crate::linear::{Activations, Affine, Matrix, linear_of_rows};
use half::bf16;

/// The geometry of a square convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Input and output channels.
    pub channels: (usize, usize),
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
}

impl Conv {
    /// The side of the output for an input side.
    pub fn output(&self, side: usize) -> usize {
        (side + 2 * self.padding - self.kernel) / self.stride + 1
    }
}

/// `x` `[height, width, in]`, `weight` `[out, in, kernel, kernel]` to `y` `[h', w', out]`.
///
/// A position's input is unfolded to `in * kernel²` values, in the order of the weight's rows, and
/// packed at once; the unfolded image never exists.
pub fn conv2d(
    x: &[f32],
    (height, width): (usize, usize),
    weight: &[bf16],
    bias: Option<&[bf16]>,
    conv: Conv,
    y: &mut [f32],
    activations: Activations,
) {
    let (inputs, outputs) = conv.channels;
    let (out_height, out_width) = (conv.output(height), conv.output(width));
    assert_eq!(x.len(), height * width * inputs, "input image");
    assert_eq!(y.len(), out_height * out_width * outputs, "output image");
    let patch = inputs * conv.kernel * conv.kernel;
    let layer = Affine::new(Matrix::new(weight, outputs, patch), bias);
    let row = |at: usize, row: &mut [f32]| {
        let at = (at / out_width, at % out_width);
        unfold(x, (height, width), conv, at, row);
    };
    linear_of_rows(out_height * out_width, &row, layer, y, activations);
}

/// The values under the kernel at output `(oy, ox)`, ordered channel, row, column.
fn unfold(
    x: &[f32],
    (height, width): (usize, usize),
    conv: Conv,
    (oy, ox): (usize, usize),
    row: &mut [f32],
) {
    let (inputs, kernel) = (conv.channels.0, conv.kernel);
    for ky in 0..kernel {
        for kx in 0..kernel {
            let (iy, ix) = (oy * conv.stride + ky, ox * conv.stride + kx);
            let inside = (conv.padding..height + conv.padding).contains(&iy)
                && (conv.padding..width + conv.padding).contains(&ix);
            let places = row
                .iter_mut()
                .skip(ky * kernel + kx)
                .step_by(kernel * kernel);
            if inside {
                let at = ((iy - conv.padding) * width + ix - conv.padding) * inputs;
                places
                    .zip(&x[at..at + inputs])
                    .for_each(|(to, from)| *to = *from);
            } else {
                places.for_each(|to| *to = 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_definition_at_edges_and_strides() {
        // The last one has more rows than are unfolded at a time.
        for (kernel, stride, padding, height, width) in [
            (1, 1, 0, 13, 10),
            (3, 1, 1, 13, 10),
            (3, 2, 1, 13, 10),
            (2, 2, 0, 13, 10),
            (3, 1, 1, 47, 45),
        ] {
            let conv = Conv {
                channels: (3, 5),
                kernel,
                stride,
                padding,
            };
            let value = |i: usize| ((i * 29 % 53) as f32 - 26.0) / 16.0;
            let x: Vec<f32> = (0..height * width * 3).map(value).collect();
            let w: Vec<bf16> = (0..5 * 3 * kernel * kernel)
                .map(|i| bf16::from_f32(value(i + 7)))
                .collect();
            let (oh, ow) = (conv.output(height), conv.output(width));
            let mut y = vec![f32::NAN; oh * ow * 5];
            conv2d(
                &x,
                (height, width),
                &w,
                None,
                conv,
                &mut y,
                Activations::F32,
            );
            for (i, y) in y.iter().enumerate() {
                let (oy, ox, o) = (i / 5 / ow, i / 5 % ow, i % 5);
                let mut sum = 0.0;
                for c in 0..3 {
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let (iy, ix) = (oy * stride + ky, ox * stride + kx);
                            if iy < padding
                                || ix < padding
                                || iy >= height + padding
                                || ix >= width + padding
                            {
                                continue;
                            }
                            sum += x[((iy - padding) * width + ix - padding) * 3 + c]
                                * w[((o * 3 + c) * kernel + ky) * kernel + kx].to_f32();
                        }
                    }
                }
                assert!(
                    (y - sum).abs() < 1e-4,
                    "{conv:?} at {oy},{ox},{o}: {y} for {sum}"
                );
            }
        }
    }
}
