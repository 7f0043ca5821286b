//! Tensors on the CPU as slices, for the kernels.

use crate::Result;
use candle_core::{
    CpuStorage, Device, Error, InplaceOp1, Layout, Shape, Storage, Tensor, WithDType,
};
use std::cell::RefCell;

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

/// Calls `f` with the values of `x`, f32 and contiguous on the CPU, to change them in place: all
/// tensors that share them see it.
pub(crate) fn with_mut<R>(x: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    struct Change<F>(RefCell<F>);
    impl<F: FnMut(&mut [f32])> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }

        fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<(), Error> {
            let (CpuStorage::F32(x), Some((start, end))) = (x, layout.contiguous_offsets()) else {
                return Err(Error::Msg("contiguous f32 values are wanted".into()));
            };
            (self.0.borrow_mut())(&mut x[start..end]);
            Ok(())
        }
    }
    let (mut f, mut result) = (Some(f), None);
    let call = |x: &mut [f32]| result = f.take().map(|f| f(x));
    x.inplace_op1(&Change(RefCell::new(call)))?;
    result
        .ok_or_else(|| Error::Msg("this layer has no kernel for the tensor's device".into()).into())
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

/// An error unless `x` has this shape.
pub(crate) fn same_shape(x: &Tensor, wanted: &[usize]) -> Result<()> {
    if x.dims() == wanted {
        return Ok(());
    }
    let message = format!("{:?} does not fit {wanted:?}", x.dims());
    Err(Error::Msg(message).into())
}
