//! Large products, by cuBLAS.

use super::Gpu;
use crate::Result;
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::cublas::{result, sys},
    },
};
use std::{ffi::c_void, sync::PoisonError};

impl Gpu {
    /// `x [rows, input] weightᵀ [input, output]`, as `[rows, output]` of `dtype`; both factors are
    /// of the device's element type, sums are f32.
    pub(super) fn product(&self, x: &Tensor, weight: &Tensor, dtype: DType) -> Result<Tensor> {
        let (output, input) = weight.dims2()?;
        let rows = x.elem_count() / input.max(1);
        let y = self.empty((rows, output), dtype)?;
        let kind = |dtype| match dtype {
            DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
            DType::F16 => sys::cudaDataType::CUDA_R_16F,
            _ => sys::cudaDataType::CUDA_R_32F,
        };
        if x.dtype() != weight.dtype() || x.elem_count() != rows * input {
            let message = format!(
                "{:?} of {:?} for {:?}",
                x.shape(),
                x.dtype(),
                weight.shape()
            );
            return Err(Error::Msg(message).into());
        }
        let size =
            |n: usize| i32::try_from(n).map_err(|_| Error::Msg(format!("{n} rows are too many")));
        let (m, n, k) = (size(output)?, size(rows)?, size(input)?);
        if n == 0 {
            return Ok(y);
        }
        let (one, zero) = (1_f32, 0_f32);
        let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
        let pointer = |x| Ok::<_, crate::Error>(self.pointer(x)? as *mut c_void);
        let (a, b, c) = (pointer(weight)?, pointer(x)?, pointer(&y)?);
        let blas = self.candle().cublas_handle();
        let _turn = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: rows of `a`, `b` and `c` are contiguous, of the sizes and types given; cuBLAS
        // counts columns, so that it sees each of them transposed.
        unsafe {
            result::gemm_ex(
                *blas.handle(),
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                m,
                n,
                k,
                one,
                a,
                kind(weight.dtype()),
                k,
                b,
                kind(x.dtype()),
                k,
                zero,
                c,
                kind(dtype),
                m,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()?;
        Ok(y)
    }
}
