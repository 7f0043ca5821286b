//! Feed-forward layers: two products with an activation between, gated, and mixtures of experts.

use crate::{LayerNorm, Linear, Result, Weight, cpu};
pub use agx_ocr_kernels::activation::Function as Activation;
use agx_ocr_kernels::{
    linear::{Expert, Matrix, add_mlp, experts, swiglu},
    routing::Choice,
};
use candle_core::{Device, Tensor};

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
    /// `[…, size]` to the same shape.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = cpu::replace_last(x, self.gate.input(), self.down.output())?;
        let mut y = vec![0.0; x.elem_count()];
        cpu::with(x, |x| {
            swiglu(x, self.weights(), &mut y, self.gate.activations)
        })?;
        cpu::tensor(y, shape)
    }

    fn weights(&self) -> Expert<'_> {
        Expert {
            gate: self.gate.matrix(),
            up: self.up.matrix(),
            down: self.down.matrix(),
        }
    }
}

/// Chooses experts: softmax over all of them, then the most probable, with their probabilities
/// as they are (not normalised again).
#[derive(Clone, Debug)]
pub struct Router {
    weight: Weight,
    top_k: usize,
}

/// The experts chosen for each row, most probable first.
pub struct Routing {
    choice: Choice,
    rows: usize,
    top_k: usize,
}

impl Routing {
    /// Numbers of the experts, u32 `[rows, k]`.
    ///
    /// # Errors
    /// When memory for a copy cannot be had.
    pub fn experts(&self) -> Result<Tensor> {
        let shape = (self.rows, self.top_k);
        Ok(Tensor::from_slice(
            self.choice.experts(),
            shape,
            &Device::Cpu,
        )?)
    }

    /// Their probabilities, f32 `[rows, k]`.
    ///
    /// # Errors
    /// As [`Self::experts`].
    pub fn weights(&self) -> Result<Tensor> {
        let shape = (self.rows, self.top_k);
        Ok(Tensor::from_slice(
            self.choice.weights(),
            shape,
            &Device::Cpu,
        )?)
    }
}

impl Router {
    /// A router with `weight` `[experts, size]` that chooses `top_k` of its experts.
    pub fn new(weight: Weight, top_k: usize) -> Self {
        Self { weight, top_k }
    }

    /// The experts for each row of `x` `[rows, size]`. All arithmetic is f32: a rounded logit may
    /// choose another expert.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the router's.
    pub fn route(&self, x: &Tensor) -> Result<Routing> {
        let (count, size) = (self.weight.shape[0], self.weight.shape[1]);
        cpu::replace_last(x, size, count)?;
        let weight = Matrix::new(self.weight.values(), count, size);
        Ok(Routing {
            choice: cpu::with(x, |x| Choice::new(x, weight, self.top_k))?,
            rows: x.elem_count() / size,
            top_k: self.top_k,
        })
    }
}

/// Experts of one layer, of which each row uses those that a [`Router`] chose, and one that all
/// rows use.
#[derive(Clone, Debug)]
pub struct Experts {
    routed: Vec<SwiGlu>,
    shared: SwiGlu,
}

impl Experts {
    /// Experts in the order of their numbers, and the shared one.
    pub fn new(routed: Vec<SwiGlu>, shared: SwiGlu) -> Self {
        Self { routed, shared }
    }

    /// For each row of `x` `[rows, size]` the sum of its experts' outputs times their weights, and
    /// of the shared expert's output.
    ///
    /// # Errors
    /// When shapes do not fit, or an expert's number is not below the number of experts.
    pub fn forward(&self, x: &Tensor, routing: &Routing) -> Result<Tensor> {
        let (rows, size) = x.dims2()?;
        let (chosen, weights) = (routing.choice.experts(), routing.choice.weights());
        let count = self.routed.len();
        let known = chosen.iter().all(|&expert| (expert as usize) < count);
        if routing.rows != rows || !known || size != self.shared.gate.input() {
            let message = format!(
                "a routing of {} rows does not fit {:?}",
                routing.rows,
                x.dims()
            );
            return Err(candle_core::Error::Msg(message).into());
        }
        let mut y = vec![0.0; rows * size];
        let all: Vec<Expert<'_>> = self.routed.iter().map(SwiGlu::weights).collect();
        let (shared, activations) = (self.shared.weights(), self.shared.gate.activations);
        cpu::with(x, |x| {
            experts(x, &all, Some(shared), chosen, weights, &mut y, activations);
        })?;
        cpu::tensor(y, (rows, size))
    }
}
