//! Layers with weights of their own.

use super::{
    Gpu, Uploaded,
    launch::{Arg, name, several},
};
use crate::{Activation, LayerNorm, Linear, Result, RmsNorm, Weight};
use candle_core::{DType, Error, Tensor};

impl Weight {
    /// The weight on the device, in its element type.
    pub(super) fn on_gpu(&self) -> Result<&Tensor> {
        self.uploaded().map(Uploaded::values)
    }

    fn uploaded(&self) -> Result<&Uploaded> {
        let missing = || Error::Msg("a weight that was loaded for the CPU".into()).into();
        self.uploaded.as_ref().ok_or_else(missing)
    }
}

impl Gpu {
    /// `y = x Wᵀ + b` in f32.
    pub(crate) fn linear(&self, layer: &Linear, x: &Tensor) -> Result<Tensor> {
        let y = self.product_of(layer, x, DType::F32)?;
        y.reshape(shape(x, layer.output())).map_err(Into::into)
    }

    /// `y = norm(x) Wᵀ + b` in the device's type.
    pub(crate) fn linear_normed(
        &self,
        layer: &Linear,
        norm: &LayerNorm,
        x: &Tensor,
    ) -> Result<Tensor> {
        let normed = self.normed(norm, x, self.dtype())?;
        let y = self.product_of(layer, &normed, self.dtype())?;
        y.reshape(shape(x, layer.output())).map_err(Into::into)
    }

    /// `residual += x Wᵀ + b` in place, in f32.
    pub(crate) fn linear_add(&self, layer: &Linear, residual: &Tensor, x: &Tensor) -> Result<()> {
        let x = self.factor(x)?;
        let bias = self.bias(layer.bias.as_ref(), DType::F32)?;
        self.add_product(&x, layer.weight.on_gpu()?, bias.as_ref(), residual)
    }

    /// `x += second(activation(first(norm(x))))` in place.
    pub(crate) fn mlp_add(
        &self,
        (first, activation, second): (&Linear, Activation, &Linear),
        norm: &LayerNorm,
        x: &Tensor,
    ) -> Result<()> {
        let normed = self.normed(norm, x, self.dtype())?;
        let weight = first.weight.on_gpu()?;
        let bias = self.bias(first.bias.as_ref(), self.dtype())?;
        let bias = bias.ok_or_else(|| Error::Msg("an MLP without biases".into()))?;
        // Where values are rounded to 16 bits anyway.
        let fused = activation == Activation::Gelu && self.dtype() != DType::F32;
        let inner = if fused {
            self.product_gelu(&normed, weight, &bias)?
        } else {
            let inner = self.product(&normed, weight, None, self.dtype())?;
            self.bias_gelu(&inner, &bias, activation)?;
            inner
        };
        self.linear_add(second, x, &inner)
    }

    /// `x += down(silu(gate(norm(x))) * up(norm(x)))` in place.
    pub(crate) fn swiglu_add(
        &self,
        [gate, up, down]: [&Linear; 3],
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<()> {
        let one = x.elem_count() == gate.input();
        if one && self.fits_one(&[gate.input(), gate.output()], None) {
            return self.swiglu_one([gate, up, down], norm, x);
        }
        let normed = self.rms_normed(norm, x, self.dtype())?;
        let inner = self.product_of(gate, &normed, self.dtype())?;
        let other = self.product_of(up, &normed, self.dtype())?;
        self.silu_product(&inner, &other)?;
        self.linear_add(down, x, &inner)
    }

    pub(crate) fn normed(&self, norm: &LayerNorm, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let x = self.contiguous(x)?;
        let (weight, bias) = (norm.weight.on_gpu()?, norm.bias.on_gpu()?);
        self.layer_norm(&x, (weight, bias, norm.eps), dtype)
    }

    pub(crate) fn rms_normed(&self, norm: &RmsNorm, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let x = self.contiguous(x)?;
        self.rms_norm(&x, (norm.weight.on_gpu()?, norm.eps), dtype)
    }

    /// `norm(x) Wᵀ` in f32, of a layer without a bias. The result for one row is in memory that the
    /// next such call uses again.
    pub(crate) fn linear_rms_normed(
        &self,
        layer: &Linear,
        norm: &RmsNorm,
        x: &Tensor,
    ) -> Result<Tensor> {
        let one = x.elem_count() == layer.input() && layer.bias.is_none();
        if one && self.fits_one(&[layer.input(), layer.output()], None) {
            return self.logits_one(layer, norm, x);
        }
        self.linear(layer, &self.rms_normed(norm, x, self.dtype())?)
    }

    /// A convolution of square kernels, `[batch, height, width, input]` with any strides to
    /// `[batch, height', width', output]`, f32.
    pub(crate) fn conv2d(
        &self,
        (weight, bias): (&Weight, Option<&Weight>),
        (stride, padding): (usize, usize),
        x: &Tensor,
    ) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let weight = weight.on_gpu()?;
        let (output, _, kernel, _) = weight.dims4()?;
        let size = |side: usize| (side + 2 * padding).saturating_sub(kernel) / stride + 1;
        let (down, across) = (size(height), size(width));
        let (rows, input) = (batch * down * across, channels * kernel * kernel);
        let unfolded = self.empty((rows, input), self.dtype())?;
        let count = rows * input;
        let mut args = vec![self.start(x)?, self.address(&unfolded)?, Arg::long(count)];
        let sizes = [
            height, width, channels, down, across, kernel, stride, padding,
        ];
        args.extend(sizes.map(Arg::int));
        args.extend(x.stride().iter().map(|&stride| Arg::long(stride)));
        let name = self.named("unfold");
        self.launch(&name, several(count), &args)?;
        let (weight, bias) = (
            weight.reshape((output, input))?,
            self.bias(bias, DType::F32)?,
        );
        let y = self.product(&unfolded, &weight, bias.as_ref(), DType::F32)?;
        Ok(y.reshape((batch, down, across, output))?)
    }

    /// Rows of a table, f32.
    pub(crate) fn embedding(&self, table: &Weight, ids: &[u32]) -> Result<Tensor> {
        let table = table.on_gpu()?;
        let size = table.dim(1)?;
        let ids = Tensor::new(ids, &self.device())?;
        let y = self.empty((ids.elem_count(), size), DType::F32)?;
        let count = y.elem_count();
        let args = [
            self.address(table)?,
            self.address(&ids)?,
            self.address(&y)?,
            Arg::long(count),
            Arg::int(size),
        ];
        let kernel = format!("embed_rows_{}", name(table.dtype()));
        self.launch(&kernel, several(count), &args)?;
        Ok(y)
    }

    /// `x Wᵀ + b` of `dtype`, `[rows, output]`.
    pub(super) fn product_of(&self, layer: &Linear, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let bias = self.bias(layer.bias.as_ref(), dtype)?;
        self.product(
            &self.factor(x)?,
            layer.weight.on_gpu()?,
            bias.as_ref(),
            dtype,
        )
    }

    /// `x` as products take it.
    fn factor(&self, x: &Tensor) -> Result<Tensor> {
        self.convert(&self.contiguous(x)?, self.dtype())
    }

    /// A bias as values of `dtype`: the device's type, or f32.
    pub(super) fn bias(&self, bias: Option<&Weight>, dtype: DType) -> Result<Option<Tensor>> {
        let of = |bias: &Weight| bias.uploaded()?.of_type(self, dtype);
        bias.map(of).transpose()
    }
}

/// The shape of `x` with another last dimension.
fn shape(x: &Tensor, output: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = output;
    }
    dims
}
