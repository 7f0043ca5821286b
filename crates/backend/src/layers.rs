//! Layers with weights of their own: products, convolutions, norms, embeddings.

use crate::{Activations, Result, Weight, cpu};
use agx_ocr_kernels::{
    conv::{Conv, conv2d},
    half::bf16,
    linear::{Affine, Matrix, Output, Write, linear, linear_normed, linears},
    norm, routing,
};
#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Error, Tensor};

/// `y = x Wᵀ + b` along the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Weight>,
    pub(crate) activations: Activations,
}

impl Linear {
    /// `[…, input]` to `[…, output]`.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's input.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = cpu::replace_last(x, self.input(), self.output())?;
        on_gpu!(x, gpu => gpu.linear(self, x));
        let mut y = vec![0.0; shape.iter().product()];
        cpu::with(x, |x| {
            linear(x, self.affine(), &mut y, Write::Set, self.activations)
        })?;
        cpu::tensor(y, shape)
    }

    /// [`Self::forward`] of `norm(x)`. On a GPU the result for one row is in memory that the next
    /// call for one row uses again.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's input.
    pub fn forward_rms_normed(&self, norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
        on_gpu!(x, gpu => gpu.linear_rms_normed(self, norm, x));
        self.forward(&norm.forward(x)?)
    }

    /// [`Self::forward`] of `norm(x)`, which is not kept. On a GPU the result has the weights' element
    /// type, as attention takes it.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layers' input.
    pub fn forward_normed(&self, norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
        let shape = cpu::replace_last(x, self.input(), self.output())?;
        on_gpu!(x, gpu => gpu.linear_normed(self, norm, x));
        let mut y = vec![0.0; shape.iter().product()];
        let norm = norm.parameters();
        cpu::with(x, |x| {
            linear_normed(x, norm, self.affine(), &mut y, self.activations)
        })?;
        cpu::tensor(y, shape)
    }

    /// `residual + forward(x)`, in the memory of `residual`, whose values no other tensor may
    /// share.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn add_to(&self, residual: Tensor, x: &Tensor) -> Result<Tensor> {
        cpu::same_shape(
            &residual,
            &cpu::replace_last(x, self.input(), self.output())?,
        )?;
        on_gpu!(x, gpu => {
            gpu.linear_add(self, &residual, x)?;
            Ok(residual)
        });
        cpu::with(x, |x| {
            cpu::with_mut(&residual, |y| {
                linear(x, self.affine(), y, Write::Add, self.activations)
            })
        })??;
        Ok(residual)
    }

    /// `x` through several layers of one input size, in one go.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layers' input.
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N]> {
        let mut outputs = Vec::with_capacity(N);
        for layer in layers {
            let shape = cpu::replace_last(x, layer.input(), layer.output())?;
            outputs.push((vec![0.0; shape.iter().product()], shape));
        }
        cpu::with(x, |x| {
            let pairs = layers.iter().zip(&mut outputs);
            let mut pairs: Vec<Output<'_>> = pairs
                .map(|(layer, (y, _))| (layer.affine(), &mut y[..]))
                .collect();
            let activations = layers
                .first()
                .map_or_else(Activations::default, |l| l.activations);
            linears(x, &mut pairs, activations);
        })?;
        let tensors = outputs.into_iter().map(|(y, shape)| cpu::tensor(y, shape));
        let tensors: Vec<Tensor> = tensors.collect::<Result<_>>()?;
        tensors
            .try_into()
            .map_err(|_| Error::Msg("one output a layer".into()).into())
    }

    /// The bias widened to f32: what the layer makes of zeros; without a bias, zeros.
    pub fn of_zero(&self) -> Vec<f32> {
        self.bias
            .as_ref()
            .map_or_else(|| vec![0.0; self.output()], Weight::to_f32)
    }

    /// Values in a row of inputs.
    pub fn input(&self) -> usize {
        self.weight.shape[1]
    }

    /// Values in a row of outputs.
    pub fn output(&self) -> usize {
        self.weight.shape[0]
    }

    pub(crate) fn affine(&self) -> Affine<'_> {
        Affine::new(self.matrix(), values(&self.bias))
    }

    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.weight.values(), self.output(), self.input())
    }
}

/// A convolution of square kernels on channels-last images.
#[derive(Clone, Debug)]
pub struct Conv2d {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Weight>,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) activations: Activations,
}

impl Conv2d {
    /// `[batch, height, width, input]` to `[batch, height', width', output]`.
    ///
    /// # Errors
    /// When `x` has another rank or number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, _) = x.dims4()?;
        let [output, input, kernel, _] = self.weight.shape[..] else {
            return Err(Error::Msg("a convolution's weight has four dimensions".into()).into());
        };
        cpu::replace_last(x, input, output)?;
        on_gpu!(x, gpu => {
            let weights = (&self.weight, self.bias.as_ref());
            gpu.conv2d(weights, (self.stride, self.padding), x)
        });
        let conv = Conv {
            channels: (input, output),
            kernel,
            stride: self.stride,
            padding: self.padding,
        };
        let (down, across) = (conv.output(height), conv.output(width));
        let mut y = vec![0.0; batch * down * across * output];
        let (weight, bias) = (self.weight.values(), values(&self.bias));
        cpu::with(x, |x| {
            let images = x.chunks_exact(height * width * input);
            for (x, y) in images.zip(y.chunks_exact_mut(down * across * output)) {
                conv2d(x, (height, width), weight, bias, conv, y, self.activations);
            }
        })?;
        cpu::tensor(y, (batch, down, across, output))
    }
}

/// Layer normalisation over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub(crate) weight: Weight,
    pub(crate) bias: Weight,
    pub(crate) eps: f32,
}

impl LayerNorm {
    pub(crate) fn parameters(&self) -> norm::LayerNorm<'_> {
        norm::LayerNorm {
            weight: self.weight.values(),
            bias: self.bias.values(),
            eps: self.eps,
        }
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias`, shape unchanged.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        on_gpu!(x, gpu => gpu.normed(self, x, DType::F32));
        let norm = self.parameters();
        normalise(x, norm.weight, |x, y| norm::layer_norm(x, norm, y))
    }
}

/// Root-mean-square normalisation over the last dimension.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    pub(crate) weight: Weight,
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// `x / sqrt(mean(x²) + eps) * weight`, shape unchanged.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        on_gpu!(x, gpu => gpu.rms_normed(self, x, DType::F32));
        let weight = self.weight.values();
        normalise(x, weight, |x, y| norm::rms_norm(x, weight, self.eps, y))
    }
}

fn normalise(x: &Tensor, weight: &[bf16], f: impl FnOnce(&[f32], &mut [f32])) -> Result<Tensor> {
    cpu::replace_last(x, weight.len(), weight.len())?;
    let mut y = vec![0.0; x.elem_count()];
    cpu::with(x, |x| f(x, &mut y))?;
    cpu::tensor(y, x.shape())
}

/// A table of rows, one for each token.
#[derive(Clone, Debug)]
pub struct Embedding {
    pub(crate) weight: Weight,
}

impl Embedding {
    /// The rows of `ids`, `[ids.len(), size]`.
    ///
    /// # Errors
    /// [`Error::Token`](crate::Error::Token) when an id is not below the number of rows.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let (count, size) = (self.weight.shape[0], self.weight.shape[1]);
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= count) {
            return Err(crate::Error::Token { id, count });
        }
        on_gpu!(self.weight, gpu => gpu.embedding(&self.weight, ids));
        let table = self.weight.values();
        let mut rows = Vec::with_capacity(ids.len() * size);
        for &id in ids {
            let at = id as usize;
            rows.extend(table[at * size..(at + 1) * size].iter().map(|v| v.to_f32()));
        }
        cpu::tensor(rows, (ids.len(), size))
    }
}

/// The natural logarithm of the probability that softmax of `logits` gives to `index`.
pub fn log_probability(logits: &[f32], index: usize) -> f32 {
    routing::log_probability(logits, index)
}

fn values(weight: &Option<Weight>) -> Option<&[bf16]> {
    weight.as_ref().map(Weight::values)
}
