//! Large products, by cuBLASLt: a bias, GELU, and the sum with what is there cost no pass of their own.

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
            driver::sys::{CUevent_flags, CUstreamCaptureStatus},
        },
    },
};
use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    sync::PoisonError,
};
use sys::{
    cublasLtMatmulAlgo_t as Algorithm, cublasLtMatmulDescAttributes_t as Description,
    cublasLtMatmulPreferenceAttributes_t as Wish,
};

/// Bytes that cuBLASLt may work in: what NVIDIA recommends for Hopper and Blackwell.
const WORKSPACE: usize = 32 << 20;
/// Addresses that are multiples of so many bytes are as good as any.
const ALIGNED: u64 = 256;
/// Kernels that are tried for a product.
const CANDIDATES: usize = 8;
/// How often, and how many times in a row.
const ROUNDS: usize = 2;
const REPEATS: usize = 3;

/// The library, and how it computes the products that it was asked for.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Kind, Plan>,
    /// Whether kernels are tried for what is asked for.
    choosing: bool,
}

/// What the choice of a kernel depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    rows: usize,
    input: usize,
    output: usize,
    factors: DType,
    sums: DType,
    after: After,
    /// What all addresses are multiples of.
    aligned: u32,
}

/// What is done to sums before they are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    Nothing,
    Bias,
    BiasGelu,
}

/// Addresses of a product's matrices, and of what it works with.
#[derive(Clone, Copy)]
struct Operands {
    weight: u64,
    x: u64,
    y: u64,
    workspace: u64,
    /// Whether `y` is added to.
    add: bool,
}

/// A product as cuBLASLt describes it, which counts columns: it sees each matrix transposed, and
/// `weight x` instead of `x weightᵀ`.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    /// The chosen kernel, the library's first choice until then.
    algorithm: Algorithm,
    /// Others that add in the same order, so that the choice changes no result.
    others: Vec<Algorithm>,
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
            algorithm: Algorithm { data: [0; 8] },
            others: Vec::new(),
        };
        let transposed = cublasOperation_t::CUBLAS_OP_T;
        plan.set(Description::CUBLASLT_MATMUL_DESC_TRANSA, transposed)?;
        let epilogue = match kind.after {
            After::Nothing => None,
            After::Bias => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS),
            After::BiasGelu => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS),
        };
        if let Some(epilogue) = epilogue {
            plan.set(Description::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            plan.set(Description::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, sums)?;
        }
        let wishes = result::create_matmul_pref()?;
        let found = plan.candidates(handle, wishes, kind.aligned);
        // SAFETY: it was created above, and is not used below.
        unsafe { result::destroy_matmul_pref(wishes)? };
        let mut found = found?.into_iter();
        let none = CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
        plan.algorithm = found.next().ok_or(none)?;
        if in_one_piece(&plan.algorithm) {
            plan.others = found.filter(in_one_piece).collect();
        }
        Ok(plan)
    }

    /// Kernels for the product, first the one that the library thinks is the fastest.
    fn candidates(
        &self,
        handle: sys::cublasLtHandle_t,
        wishes: sys::cublasLtMatmulPreference_t,
        aligned: u32,
    ) -> Result<Vec<Algorithm>, CublasError> {
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
        let mut found = [MaybeUninit::uninit(); CANDIDATES];
        let mut count = 0;
        // SAFETY: all of them live, and there is room for so many results.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                product,
                weight,
                x,
                y,
                y,
                wishes,
                CANDIDATES as c_int,
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
        }
        .result()?;
        let found = found.iter().take(count as usize);
        // SAFETY: so many results were written.
        let found = found.map(|one| unsafe { one.assume_init() });
        let works = |one: &sys::cublasLtMatmulHeuristicResult_t| one.state.result().is_ok();
        Ok(found.filter(works).map(|one| one.algo).collect())
    }

    /// Takes the fastest of the kernels, which `run` runs a few times: it gives the milliseconds.
    fn choose(&mut self, run: impl Fn(&Self, &Algorithm) -> Result<f32>) -> Result<()> {
        let mut candidates = std::mem::take(&mut self.others);
        if candidates.is_empty() {
            return Ok(());
        }
        candidates.insert(0, self.algorithm);
        let mut times = vec![f32::INFINITY; candidates.len()];
        // The first round also loads the kernels.
        for _ in 0..=ROUNDS {
            for (algorithm, time) in candidates.iter().zip(&mut times) {
                *time = time.min(run(self, algorithm)?);
            }
        }
        let fastest = times.iter().zip(candidates);
        if let Some((_, algorithm)) = fastest.min_by(|a, b| a.0.total_cmp(b.0)) {
            self.algorithm = algorithm;
        }
        Ok(())
    }

    /// Has the device multiply.
    fn run(
        &self,
        gpu: &Gpu,
        handle: sys::cublasLtHandle_t,
        algorithm: &Algorithm,
        at: Operands,
    ) -> Result<()> {
        let (one, before) = (1_f32, if at.add { 1_f32 } else { 0.0 });
        let pointer = |address: u64| address as *mut c_void;
        // SAFETY: rows of the matrices are contiguous, of the sizes and types that the plan was made
        // for, and the workspace is as large as the plan may want it.
        unsafe {
            result::matmul(
                handle,
                self.product,
                (&raw const one).cast(),
                (&raw const before).cast(),
                pointer(at.weight),
                self.weight,
                pointer(at.x),
                self.x,
                pointer(at.y),
                self.y,
                pointer(at.y),
                self.y,
                algorithm,
                pointer(at.workspace),
                WORKSPACE,
                gpu.stream().cu_stream().cast(),
            )
        }
        .map_err(failed)
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
            let place = Description::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            plan.set(place, bias).map_err(failed)?;
        }
        let recorded = self.stream().capture_status().w()?;
        if choosing && recorded == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            plan.choose(|plan, algorithm| {
                self.time(y, |y| {
                    plan.run(self, handle, algorithm, Operands { y, ..at })
                })
            })?;
        }
        plan.run(self, handle, &plan.algorithm, at)
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

/// Whether a kernel adds up each sum from its first product to its last, not parts of it first.
fn in_one_piece(algorithm: &Algorithm) -> bool {
    let (mut parts, mut written) = (0_i32, 0);
    let what = sys::cublasLtMatmulAlgoConfigAttributes_t::CUBLASLT_ALGO_CONFIG_SPLITK_NUM;
    let place = (&raw mut parts).cast();
    // SAFETY: the number is of four bytes.
    let read = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algorithm,
            what,
            place,
            size_of::<i32>(),
            &raw mut written,
        )
    };
    read.result().is_ok() && parts <= 1
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
