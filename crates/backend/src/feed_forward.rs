//! Feed-forward layers: two products with an activation between, gated, and mixtures of experts.

use crate::{LayerNorm, Linear, Result, RmsNorm, Weight, cpu};
pub use agx_ocr_kernels::activation::Function as Activation;
use agx_ocr_kernels::{
    linear::{Expert, Matrix, add_mlp, experts, swiglu},
    routing::Choice,
};
use candle_core::{Device, Tensor};
#[cfg(feature = "cuda")]
use {crate::cuda, std::sync::OnceLock};

/// `second(activation(first(x)))`, which stands behind a norm and is added to its input.
#[derive(Clone, Debug)]
pub struct Mlp {
    pub(crate) first: Linear,
    pub(crate) activation: Activation,
    pub(crate) second: Linear,
}

impl Mlp {
    /// `x + mlp(norm(x))`, in the memory of `x`, whose values no other tensor may share.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn add_to(&self, x: Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let shape = cpu::replace_last(&x, self.first.input(), self.second.output())?;
        cpu::same_shape(&x, &shape)?;
        on_gpu!(x, gpu => {
            gpu.mlp_add((&self.first, self.activation, &self.second), norm, &x)?;
            Ok(x)
        });
        let layers = [self.first.affine(), self.second.affine()];
        let (norm, activations) = (norm.parameters(), self.first.activations);
        cpu::with_mut(&x, |x| {
            add_mlp(x, norm, layers, self.activation, activations)
        })?;
        Ok(x)
    }
}

/// `down(silu(gate(x)) * up(x))` (Shazeer, 2020).
#[derive(Clone, Debug)]
pub struct SwiGlu {
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

impl SwiGlu {
    /// `x + swiglu(norm(x))`, `x` `[…, size]`, in its memory where the device works so.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn add_to(&self, x: Tensor, norm: &RmsNorm) -> Result<Tensor> {
        let shape = cpu::replace_last(&x, self.gate.input(), self.down.output())?;
        on_gpu!(x, gpu => {
            gpu.swiglu_add([&self.gate, &self.up, &self.down], norm, &x)?;
            Ok(x)
        });
        let normed = norm.forward(&x)?;
        let mut y = vec![0.0; x.elem_count()];
        cpu::with(&normed, |x| {
            swiglu(x, self.weights(), &mut y, self.gate.activations)
        })?;
        Ok((x + cpu::tensor(y, shape)?)?)
    }

    fn weights(&self) -> Expert<'_> {
        Expert {
            gate: self.gate.matrix(),
            up: self.up.matrix(),
            down: self.down.matrix(),
        }
    }
}

/// The experts chosen for each row, most probable first, on the CPU.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Their numbers, u32 `[rows, k]`.
    pub experts: Tensor,
    /// Their probabilities, f32 `[rows, k]`.
    pub weights: Tensor,
}

/// A mixture of experts (Shazeer et al., 2017; DeepSeek-AI, 2024): each row uses the most probable
/// of them, by a softmax over all, with their probabilities as they are (not normalised again), and
/// one that all rows use.
#[derive(Clone, Debug)]
pub struct Experts {
    pub(crate) router: Weight,
    pub(crate) top_k: usize,
    pub(crate) routed: Vec<SwiGlu>,
    pub(crate) shared: SwiGlu,
    #[cfg(feature = "cuda")]
    pub(crate) addresses: OnceLock<cuda::Addresses>,
}

impl Experts {
    /// Values between gate and down of an expert that is chosen.
    #[cfg(feature = "cuda")]
    pub(crate) fn inner(&self) -> usize {
        let first = self.routed.first();
        first.map_or(0, |expert| expert.gate.output())
    }

    /// The experts for each row of `norm(x)`, `x` `[rows, size]`. All arithmetic is f32: a rounded
    /// logit may choose another expert.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn route(&self, x: &Tensor, norm: &RmsNorm) -> Result<Routing> {
        on_gpu!(x, gpu => {
            let routed = gpu.route(self, norm, x)?;
            Ok(Routing {
                experts: routed.ids.to_device(&Device::Cpu)?,
                weights: routed.weights.to_device(&Device::Cpu)?,
            })
        });
        let choice = self.choose(&norm.forward(x)?)?;
        let shape = (x.dim(0)?, self.top_k);
        Ok(Routing {
            experts: Tensor::from_slice(choice.experts(), shape, &Device::Cpu)?,
            weights: Tensor::from_slice(choice.weights(), shape, &Device::Cpu)?,
        })
    }

    /// The experts of rows that are normalised.
    fn choose(&self, normed: &Tensor) -> Result<Choice> {
        let (count, size) = (self.router.shape[0], self.router.shape[1]);
        cpu::replace_last(normed, size, count)?;
        let weight = Matrix::new(self.router.values(), count, size);
        cpu::with(normed, |x| Choice::new(x, weight, self.top_k))
    }

    /// `x` `[rows, size]` plus, for each row of `norm(x)`, the sum of its experts' outputs times
    /// their probabilities, and of the shared expert's output.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn add_to(&self, x: Tensor, norm: &RmsNorm) -> Result<Tensor> {
        let (rows, size) = x.dims2()?;
        on_gpu!(x, gpu => {
            gpu.experts_add(self, norm, &x)?;
            Ok(x)
        });
        let normed = norm.forward(&x)?;
        let choice = self.choose(&normed)?;
        let (chosen, weights) = (choice.experts(), choice.weights());
        let mut y = vec![0.0; rows * size];
        let all: Vec<Expert<'_>> = self.routed.iter().map(SwiGlu::weights).collect();
        let (shared, activations) = (self.shared.weights(), self.shared.gate.activations);
        cpu::with(&normed, |x| {
            experts(x, &all, Some(shared), chosen, weights, &mut y, activations);
        })?;
        Ok((x + cpu::tensor(y, (rows, size))?)?)
    }
}
