//! Tensors on the CPU as slices, for the kernels.

use crate::Result;
use candle_core::{Device, Error, Shape, Storage, Tensor, WithDType};

/// Calls `f` with the values of `x`, which must lie on the CPU; a strided tensor is copied.
pub(crate) fn with<T: WithDType, R>(x: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::Msg("this layer has no kernel for the tensor's device".into()).into());
    };
    let values = storage.as_slice::<T>()?;
    let (start, end) = layout.contiguous_offsets().unwrap_or((0, values.len()));
    Ok(f(&values[start..end]))
}

/// A tensor of f32 `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The shape of `x` with its last dimension, which must be `from`, replaced by `to`.
pub(crate) fn replace_last(x: &Tensor, from: usize, to: usize) -> Result<Vec<usize>> {
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == from => *last = to,
        _ => {
            let message = format!("rows of {from} values are wanted, not {:?}", x.dims());
            return Err(Error::Msg(message).into());
        }
    }
    Ok(dims)
}
