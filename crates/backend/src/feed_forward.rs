//! Feed-forward layers: two products with an activation between, gated, and mixtures of experts.

use crate::{Activations, Linear, Result, Weight, cpu};
use agx_ocr_kernels::{
    activation,
    linear::{Matrix, linear},
    routing,
};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// The function between the two products of an [`Mlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, with the exact error function.
    Gelu,
    /// `x σ(1.702 x)`.
    QuickGelu,
}

/// `second(activation(first(x)))`
#[derive(Clone, Debug)]
pub struct Mlp {
    pub(crate) first: Linear,
    pub(crate) activation: Activation,
    pub(crate) second: Linear,
}

impl Mlp {
    /// `[…, size]` to the same shape.
    ///
    /// # Errors
    /// When the last dimension of `x` is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = cpu::replace_last(x, self.first.input(), self.second.output())?;
        let mut inner = cpu::with(x, |x| self.first.apply(x))?;
        match self.activation {
            Activation::Gelu => activation::gelu(&mut inner),
            Activation::QuickGelu => activation::quick_gelu(&mut inner),
        }
        cpu::tensor(self.second.apply(&inner), shape)
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
        cpu::tensor(cpu::with(x, |x| self.apply(x))?, shape)
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut inner = self.gate.apply(x);
        activation::silu_mul(&mut inner, &self.up.apply(x));
        self.down.apply(&inner)
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
#[derive(Clone, Debug)]
pub struct Routing {
    /// Numbers of the experts, u32 `[rows, k]`.
    pub experts: Tensor,
    /// Their probabilities, f32 `[rows, k]`.
    pub weights: Tensor,
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
        let rows = x.elem_count() / size;
        let mut scores = vec![0.0; rows * count];
        let weight = Matrix::new(self.weight.values(), count, size);
        cpu::with(x, |x| {
            linear(x, weight, None, &mut scores, Activations::F32)
        })?;
        let mut experts = vec![0; rows * self.top_k];
        let mut weights = vec![0.0; rows * self.top_k];
        let chosen = experts
            .chunks_exact_mut(self.top_k)
            .zip(weights.chunks_exact_mut(self.top_k));
        for (scores, (experts, weights)) in scores.chunks_exact_mut(count).zip(chosen) {
            routing::softmax(scores);
            routing::top_k(scores, self.top_k, experts, weights);
        }
        let shape = (rows, self.top_k);
        Ok(Routing {
            experts: Tensor::from_vec(experts, shape, &Device::Cpu)?,
            weights: cpu::tensor(weights, shape)?,
        })
    }
}

/// Experts of one layer, of which each row uses those that a [`Router`] chose.
#[derive(Clone, Debug)]
pub struct Experts(Vec<SwiGlu>);

impl Experts {
    /// Experts in the order of their numbers.
    pub fn new(experts: Vec<SwiGlu>) -> Self {
        Self(experts)
    }

    /// For each row of `x` `[rows, size]` the sum of its experts' outputs times their weights.
    ///
    /// # Errors
    /// When shapes do not fit, or an expert's number is not below the number of experts.
    pub fn forward(&self, x: &Tensor, routing: &Routing) -> Result<Tensor> {
        let (rows, size) = x.dims2()?;
        let (routed, k) = routing.experts.dims2()?;
        let experts = routing.experts.flatten_all()?.to_vec1::<u32>()?;
        let weights = routing.weights.flatten_all()?.to_vec1::<f32>()?;
        if routed != rows || experts.iter().any(|&e| e as usize >= self.0.len()) {
            let message = format!("a routing of {routed} rows does not fit {rows} rows");
            return Err(candle_core::Error::Msg(message).into());
        }
        // Each expert runs once, on all its rows together.
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); self.0.len()];
        let mut place = vec![0; rows * k];
        for (slot, &expert) in experts.iter().enumerate() {
            place[slot] = slots[expert as usize].len();
            slots[expert as usize].push(slot);
        }
        let outputs: Vec<Vec<f32>> = cpu::with(x, |x: &[f32]| {
            let run = |(expert, slots): (&SwiGlu, &Vec<usize>)| {
                if slots.is_empty() {
                    return Vec::new();
                }
                let row = |slot: &usize| &x[slot / k * size..(slot / k + 1) * size];
                expert.apply(&slots.iter().flat_map(row).copied().collect::<Vec<f32>>())
            };
            self.0.par_iter().zip(&slots).map(run).collect()
        })?;
        let mut y = vec![0.0; rows * size];
        y.par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(row, y)| {
                // In the order of the choice, so that the sum does not depend on the other rows.
                for slot in row * k..(row + 1) * k {
                    let of = &outputs[experts[slot] as usize][place[slot] * size..][..size];
                    y.iter_mut()
                        .zip(of)
                        .for_each(|(y, v)| *y += weights[slot] * v);
                }
            });
        cpu::tensor(y, (rows, size))
    }
}
