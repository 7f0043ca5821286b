//! Large products, by cuBLASLt: a bias, GELU, and the sum with what is there cost no pass of their own.

use super::{
    Gpu,
    plan::{After, Kind, Operands, Plan, WORKSPACE},
};
use crate::Result;
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::{
            cublaslt::{
                result::{self, CublasError},
                sys,
            },
            driver::sys::{CUevent_flags, CUstreamCaptureStatus},
        },
    },
};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::PoisonError,
};

/// Addresses that are multiples of so many bytes are as good as any.
const ALIGNED: u64 = 256;
/// How often in a row a kernel is run to be timed.
const REPEATS: usize = 3;

/// The library, and how it computes the products that it was asked for.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Kind, Plan>,
    /// Whether kernels are tried for what is asked for.
    choosing: bool,
}

// SAFETY: the library's handles may be used on any thread, by one at a time.
unsafe impl Send for Blas {}

impl Blas {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            handle: result::create_handle().map_err(failed)?,
            plans: HashMap::new(),
            choosing: false,
        })
    }

    fn plan(&mut self, kind: Kind) -> Result<(sys::cublasLtHandle_t, &mut Plan)> {
        let plan = match self.plans.entry(kind) {
            Entry::Occupied(plan) => plan.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Plan::new(self.handle, kind).map_err(|error| {
                    let Kind {
                        rows,
                        input,
                        output,
                        factors,
                        ..
                    } = kind;
                    let what = format!("{rows} x {input} x {output} of {factors:?}");
                    Error::Msg(format!("cuBLASLt: no product of {what}: {error}"))
                })?)
            }
        };
        Ok((self.handle, plan))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody has it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Gpu {
    /// `x [rows, input] weightᵀ [input, output] + bias`, as `[rows, output]` of `dtype`; both factors are
    /// of the device's element type, the bias of `dtype`, sums are f32.
    pub(super) fn product(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        let (output, input) = weight.dims2()?;
        let y = self.empty((x.elem_count() / input.max(1), output), dtype)?;
        let after = bias.map_or(After::Nothing, |_| After::Bias);
        self.multiply(x, weight, (bias, after), &y, false)?;
        Ok(y)
    }

    /// `gelu(x weightᵀ + bias)` of the device's element type, with the hyperbolic tangent for the error
    /// function: at most 5e-4 away from it (Hendrycks and Gimpel, 2016).
    pub(super) fn product_gelu(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
    ) -> Result<Tensor> {
        let (output, input) = weight.dims2()?;
        let y = self.empty((x.elem_count() / input.max(1), output), self.dtype())?;
        self.multiply(x, weight, (Some(bias), After::BiasGelu), &y, false)?;
        Ok(y)
    }

    /// `y += x weightᵀ + bias` in place; `y` and the bias have the same element type.
    pub(super) fn add_product(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<()> {
        let after = bias.map_or(After::Nothing, |_| After::Bias);
        self.multiply(x, weight, (bias, after), y, true)
    }

    fn multiply(
        &self,
        x: &Tensor,
        weight: &Tensor,
        (bias, after): (Option<&Tensor>, After),
        y: &Tensor,
        add: bool,
    ) -> Result<()> {
        let (output, input) = weight.dims2()?;
        let rows = x.elem_count() / input.max(1);
        let fits = x.dtype() == weight.dtype()
            && x.elem_count() == rows * input
            && y.elem_count() == rows * output
            && bias.is_none_or(|bias| (bias.dtype(), bias.elem_count()) == (y.dtype(), output));
        if !fits {
            let (found, wanted) = (x.shape(), weight.shape());
            let message = format!("{found:?} of {:?} for {wanted:?}", x.dtype());
            return Err(Error::Msg(message).into());
        }
        if rows == 0 {
            return Ok(());
        }
        let workspace = self.scratch("products", WORKSPACE / 4, DType::F32, 0)?;
        let at = Operands {
            weight: self.pointer(weight)?,
            x: self.pointer(x)?,
            y: self.pointer(y)?,
            workspace: self.pointer(&workspace)?,
            add,
        };
        let bias = bias.map(|bias| self.pointer(bias)).transpose()?;
        let all = at.weight | at.x | at.y | bias.unwrap_or(0) | ALIGNED;
        let kind = Kind {
            rows,
            input,
            output,
            factors: x.dtype(),
            sums: y.dtype(),
            after,
            aligned: 1 << all.trailing_zeros(),
        };
        self.stream().context().bind_to_thread().w()?;
        let mut blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let choosing = blas.choosing;
        let (handle, plan) = blas.plan(kind)?;
        if let Some(bias) = bias {
            plan.set_bias(bias).map_err(failed)?;
        }
        let recorded = self.stream().capture_status().w()?;
        if choosing && recorded == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            plan.choose(|plan, algorithm| {
                self.time(y, |y| {
                    plan.run(self, handle, algorithm, Operands { y, ..at })
                })
            });
        }
        plan.run(self, handle, plan.algorithm(), at)
    }

    /// `work`, for whose products several kernels are tried and the fastest kept: that loads them, which
    /// takes milliseconds each.
    pub(super) fn choosing<R>(&self, work: impl FnOnce() -> R) -> R {
        let set = |to| {
            let mut blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
            blas.choosing = to;
        };
        set(true);
        let done = work();
        set(false);
        done
    }

    /// Has each product that was asked for computed by its other kernel of this number, and says how many
    /// have so many.
    #[cfg(test)]
    pub(super) fn take_others(&self, number: usize) -> usize {
        let mut blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let plans = blas.plans.values_mut();
        plans
            .filter_map(|plan| plan.take_other(number).then_some(()))
            .count()
    }

    /// Milliseconds for `work` that writes to an address of memory like `y`'s, and not to `y`.
    fn time(&self, y: &Tensor, work: impl Fn(u64) -> Result<()>) -> Result<f32> {
        let y = self.empty(y.shape(), y.dtype())?;
        let to = self.pointer(&y)?;
        let event = || {
            self.stream()
                .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
        };
        let start = event().w()?;
        (0..REPEATS).try_for_each(|_| work(to))?;
        Ok(start.elapsed_ms(&event().w()?).w()?)
    }
}

pub(super) fn failed(error: CublasError) -> crate::Error {
    Error::Msg(format!("cuBLASLt: {error}")).into()
}
