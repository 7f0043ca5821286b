//! Large products, by cuBLASLt: a bias, and the sum with what is there, cost no pass of their own.

use super::Gpu;
use crate::Result;
use candle_core::{
    DType, Error, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::{
            cublas::sys::cublasOperation_t,
            cublaslt::{
                result::{self, CublasError},
                sys,
            },
        },
    },
};
use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
    sync::PoisonError,
};
use sys::{
    cublasLtMatmulDescAttributes_t as Description, cublasLtMatmulPreferenceAttributes_t as Wish,
};

/// Bytes that cuBLASLt may work in: what NVIDIA recommends for Hopper and Blackwell.
const WORKSPACE: usize = 32 << 20;
/// Addresses that are multiples of so many bytes are as good as any.
const ALIGNED: u64 = 256;

/// The library, and how it computes the products that it was asked for.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Kind, Plan>,
}

/// What the choice of a kernel depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    rows: usize,
    input: usize,
    output: usize,
    factors: DType,
    sums: DType,
    bias: bool,
    /// What all addresses are multiples of.
    aligned: u32,
}

/// A product as cuBLASLt describes it, which counts columns: it sees each matrix transposed, and
/// `weight x` instead of `x weightᵀ`.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: the library's handles may be used on any thread, by one at a time.
unsafe impl Send for Blas {}

impl Blas {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            handle: result::create_handle().map_err(failed)?,
            plans: HashMap::new(),
        })
    }

    fn plan(&mut self, kind: Kind) -> Result<(sys::cublasLtHandle_t, &Plan)> {
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

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, kind: Kind) -> Result<Self, CublasError> {
        let (factors, sums) = (named(kind.factors), named(kind.sums));
        let layout = |kind, rows: usize, columns: usize| {
            result::create_matrix_layout(kind, rows as u64, columns as u64, rows as i64)
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let scale = sys::cudaDataType::CUDA_R_32F;
        let mut plan = Self {
            product: result::create_matmul_desc(compute, scale)?,
            weight: layout(factors, kind.input, kind.output)?,
            x: layout(factors, kind.input, kind.rows)?,
            y: layout(sums, kind.output, kind.rows)?,
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        let transposed = cublasOperation_t::CUBLAS_OP_T;
        plan.set(Description::CUBLASLT_MATMUL_DESC_TRANSA, transposed)?;
        if kind.bias {
            let bias = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            plan.set(Description::CUBLASLT_MATMUL_DESC_EPILOGUE, bias)?;
            plan.set(Description::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, sums)?;
        }
        let wishes = result::create_matmul_pref()?;
        let algorithm = plan.choose(handle, wishes, kind.aligned);
        // SAFETY: it was created above, and is not used below.
        unsafe { result::destroy_matmul_pref(wishes)? };
        plan.algorithm = algorithm?;
        Ok(plan)
    }

    /// The kernel that the library thinks is the fastest.
    fn choose(
        &self,
        handle: sys::cublasLtHandle_t,
        wishes: sys::cublasLtMatmulPreference_t,
        aligned: u32,
    ) -> Result<sys::cublasLtMatmulAlgo_t, CublasError> {
        let wish = |what, value: *const c_void, size| {
            // SAFETY: `value` has so many bytes, and `wishes` lives.
            unsafe { result::set_matmul_pref_attribute(wishes, what, value, size) }
        };
        let most = WORKSPACE;
        wish(
            Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const most).cast(),
            size_of::<usize>(),
        )?;
        for what in [
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            wish(what, (&raw const aligned).cast(), size_of::<u32>())?;
        }
        let &Self {
            product,
            weight,
            x,
            y,
            ..
        } = self;
        // SAFETY: all of them live.
        let found =
            unsafe { result::get_matmul_algo_heuristic(handle, product, weight, x, y, y, wishes) };
        found.map(|found| found.algo)
    }

    fn set<T>(&self, what: Description, value: T) -> Result<(), CublasError> {
        let place = (&raw const value).cast();
        // SAFETY: the value has as many bytes as said, and the description lives.
        unsafe { result::set_matmul_desc_attribute(self.product, what, place, size_of::<T>()) }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: they were created, and nobody has them any more.
        unsafe {
            let _ = result::destroy_matmul_desc(self.product);
            for layout in [self.weight, self.x, self.y] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
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
        self.multiply(x, weight, bias, &y, false)?;
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
        self.multiply(x, weight, bias, y, true)
    }

    fn multiply(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
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
        let [weight_at, x_at, y_at, workspace] = [
            self.pointer(weight)?,
            self.pointer(x)?,
            self.pointer(y)?,
            self.pointer(&workspace)?,
        ];
        let bias = bias.map(|bias| self.pointer(bias)).transpose()?;
        let all = weight_at | x_at | y_at | bias.unwrap_or(0) | ALIGNED;
        let kind = Kind {
            rows,
            input,
            output,
            factors: x.dtype(),
            sums: y.dtype(),
            bias: bias.is_some(),
            aligned: 1 << all.trailing_zeros(),
        };
        self.stream().context().bind_to_thread().w()?;
        let mut blas = self.blas.lock().unwrap_or_else(PoisonError::into_inner);
        let (handle, plan) = blas.plan(kind)?;
        if let Some(bias) = bias {
            let place = Description::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            plan.set(place, bias).map_err(failed)?;
        }
        let (one, before) = (1_f32, if add { 1_f32 } else { 0.0 });
        let pointer = |address: u64| address as *mut c_void;
        // SAFETY: rows of the matrices are contiguous, of the sizes and types that the plan was made
        // for, and the workspace is as large as the plan may want it.
        unsafe {
            result::matmul(
                handle,
                plan.product,
                (&raw const one).cast(),
                (&raw const before).cast(),
                pointer(weight_at),
                plan.weight,
                pointer(x_at),
                plan.x,
                pointer(y_at),
                plan.y,
                pointer(y_at),
                plan.y,
                &raw const plan.algorithm,
                pointer(workspace),
                WORKSPACE,
                self.stream().cu_stream().cast(),
            )
        }
        .map_err(failed)
    }
}

fn named(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::BF16 => sys::cudaDataType::CUDA_R_16BF,
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        _ => sys::cudaDataType::CUDA_R_32F,
    }
}

fn failed(error: CublasError) -> crate::Error {
    Error::Msg(format!("cuBLASLt: {error}")).into()
}
