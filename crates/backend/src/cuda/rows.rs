//! Norms, activations, sums and copies.

use super::{
    Gpu,
    launch::{Arg, Dims, name, rows, several},
};
use crate::{Activation, Result};
use candle_core::{DType, Error, Shape, Tensor};

impl Gpu {
    /// `x` with values of another type; itself if it has them.
    pub(super) fn convert(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        if x.dtype() == dtype {
            return Ok(x.clone());
        }
        let x = &self.contiguous(x)?;
        let y = self.empty(x.shape(), dtype)?;
        let kernel = format!("convert_{}_{}", name(x.dtype()), name(dtype));
        let count = x.elem_count();
        let args = [self.address(x)?, self.address(&y)?, Arg::long(count)];
        self.launch(&kernel, several(count), &args)?;
        Ok(y)
    }

    /// Layer normalisation of f32 `x` over its last dimension, as `dtype`.
    pub(super) fn layer_norm(
        &self,
        x: &Tensor,
        (weight, bias, eps): (&Tensor, &Tensor, f32),
        dtype: DType,
    ) -> Result<Tensor> {
        self.normalise("layer_norm", x, &[weight, bias], eps, dtype)
    }

    /// Root-mean-square normalisation of f32 `x` over its last dimension, as `dtype`.
    pub(super) fn rms_norm(
        &self,
        x: &Tensor,
        (weight, eps): (&Tensor, f32),
        dtype: DType,
    ) -> Result<Tensor> {
        self.normalise("rms_norm", x, &[weight], eps, dtype)
    }

    /// What a kernel for rows makes of `x` with `parameters`, vectors of a row's size.
    fn normalise(
        &self,
        kernel: &str,
        x: &Tensor,
        parameters: &[&Tensor],
        eps: f32,
        dtype: DType,
    ) -> Result<Tensor> {
        let size = parameters.first().map_or(1, |vector| vector.elem_count());
        let count = x.elem_count() / size;
        let y = self.empty(x.shape(), dtype)?;
        let kernel = format!("{}_{}", self.named(kernel), name(dtype));
        let mut args = vec![self.address(x)?];
        for parameter in parameters {
            args.push(self.address(parameter)?);
        }
        args.extend([self.address(&y)?, Arg::int(size), Arg::Float(eps)]);
        self.launch(&kernel, rows(count, size), &args)?;
        Ok(y)
    }

    /// `y = activation(y + bias)` in place.
    pub(super) fn bias_gelu(
        &self,
        y: &Tensor,
        bias: &Tensor,
        activation: Activation,
    ) -> Result<()> {
        let quick = i32::from(activation == Activation::QuickGelu);
        let args = [
            self.address(y)?,
            self.address(bias)?,
            Arg::long(y.elem_count()),
            Arg::int(last(y)),
            Arg::Int(quick),
        ];
        let kernel = format!("bias_gelu_{}", name(y.dtype()));
        self.launch(&kernel, several(y.elem_count()), &args)
    }

    /// `x += y` in place, `y` again and again; both f32.
    pub(crate) fn add_rows(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let (count, period) = (x.elem_count(), y.elem_count());
        if period == 0 || count % period != 0 || (x.dtype(), y.dtype()) != (DType::F32, DType::F32)
        {
            return Err(Error::Msg(format!("{:?} on {:?}", y.shape(), x.shape())).into());
        }
        let args = [
            self.address(x)?,
            self.address(y)?,
            Arg::long(count),
            Arg::long(period),
        ];
        self.launch("add_rows", several(count), &args)
    }

    /// `gate = silu(gate) * up` in place.
    pub(super) fn silu_product(&self, gate: &Tensor, up: &Tensor) -> Result<()> {
        let count = gate.elem_count();
        let args = [self.address(gate)?, self.address(up)?, Arg::long(count)];
        let kernel = format!("silu_product_{}", name(gate.dtype()));
        self.launch(&kernel, several(count), &args)
    }

    /// `x` with its values one behind the other.
    pub(crate) fn contiguous(&self, x: &Tensor) -> Result<Tensor> {
        if x.is_contiguous() {
            return Ok(x.clone());
        }
        let y = self.empty(x.shape(), x.dtype())?;
        self.copy(x, &y)?;
        Ok(y)
    }

    /// Tensors one behind the other along a dimension.
    pub(crate) fn cat(&self, parts: &[&Tensor], dim: usize) -> Result<Tensor> {
        let Some(first) = parts.first() else {
            return Err(Error::Msg("nothing to put together".into()).into());
        };
        let mut dims = first.dims().to_vec();
        dims[dim] = 0;
        for part in parts {
            dims[dim] += part.dim(dim)?;
        }
        let all = self.empty(Shape::from(dims.clone()), first.dtype())?;
        let mut at = 0;
        for part in parts {
            let size = part.dim(dim)?;
            let place = all.narrow(dim, at, size)?;
            if place.dims() != part.dims() || part.dtype() != first.dtype() {
                return Err(Error::Msg(format!("{:?} beside {dims:?}", part.shape())).into());
            }
            self.copy(part, &place)?;
            at += size;
        }
        Ok(all)
    }

    /// Copies values of the same shape and type, whatever their strides.
    pub(super) fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        let bytes = from.dtype().size_in_bytes();
        let (x, y) = (self.start(from)?, self.start(to)?);
        let Some(dims) = Dims::new(from.dims(), from.stride(), to.stride()) else {
            return Err(Error::Msg(format!("{:?} is too much", from.shape())).into());
        };
        let units = dims.in_units(16 / bytes);
        let (kernel, values, dims) = match (units, bytes) {
            (Some(units), _) if x.aligned() && y.aligned() => ("copy_16", 16 / bytes, units),
            (_, 2) => ("copy_2", 1, dims),
            (_, 4) => ("copy_4", 1, dims),
            _ => return Err(Error::Msg(format!("values of {bytes} bytes")).into()),
        };
        let count = from.elem_count() / values;
        let args = [x, y, Arg::long(count), Arg::Dims(dims)];
        // A thread has four under way.
        self.launch(kernel, several(4 * count), &args)
    }

    /// `levels[byte]` for each of `bytes`, f32 of their shape; `levels` has 256 values.
    pub(crate) fn look_up(&self, bytes: &Tensor, levels: &Tensor) -> Result<Tensor> {
        if (bytes.dtype(), levels.dtype(), levels.elem_count()) != (DType::U8, DType::F32, 256) {
            let message = format!("{:?} of {:?}", bytes.dtype(), levels.shape());
            return Err(Error::Msg(message).into());
        }
        let y = self.empty(bytes.shape(), DType::F32)?;
        let count = y.elem_count();
        let args = [
            self.address(bytes)?,
            self.address(levels)?,
            self.address(&y)?,
            Arg::long(count),
        ];
        self.launch("look_up_levels", several(count), &args)?;
        Ok(y)
    }

    pub(super) fn address_or_null(&self, x: Option<&Tensor>) -> Result<Arg> {
        x.map_or(Ok(Arg::NULL), |x| self.address(x))
    }
}

fn last(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(1)
}
