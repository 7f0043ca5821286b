//! How cuBLASLt computes a product, and with which of its kernels.

use super::{Gpu, blas::failed};
use crate::Result;
use candle_core::{
    DType,
    cuda_backend::cudarc::{
        cublas::sys::cublasOperation_t,
        cublaslt::{
            result::{self, CublasError},
            sys,
        },
    },
};
use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
};
use sys::{
    cublasLtMatmulAlgo_t as Algorithm, cublasLtMatmulDescAttributes_t as Description,
    cublasLtMatmulPreferenceAttributes_t as Wish,
};

/// Bytes that cuBLASLt may work in: what NVIDIA recommends for Hopper and Blackwell.
pub(super) const WORKSPACE: usize = 32 << 20;
/// Kernels that are tried for a product.
const CANDIDATES: usize = 8;
/// How often, after a first time which loads them.
const ROUNDS: usize = 2;

/// What the choice of a kernel depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) rows: usize,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) factors: DType,
    pub(super) sums: DType,
    pub(super) after: After,
    /// What all addresses are multiples of.
    pub(super) aligned: u32,
}

/// What is done to sums before they are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum After {
    Nothing,
    Bias,
    BiasGelu,
}

/// Addresses of a product's matrices, and of what it works with.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) weight: u64,
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) workspace: u64,
    /// Whether `y` is added to.
    pub(super) add: bool,
}

/// A matrix as cuBLASLt describes it.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// Columns that lie one behind the other.
    fn new(kind: sys::cudaDataType, rows: usize, columns: usize) -> Result<Self, CublasError> {
        let (rows, columns) = (rows as u64, columns as u64);
        result::create_matrix_layout(kind, rows, columns, rows as i64).map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody has it any more.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What cuBLASLt shall compute.
struct Product(sys::cublasLtMatmulDesc_t);

impl Product {
    fn set<T>(&self, what: Description, value: T) -> Result<(), CublasError> {
        let place = (&raw const value).cast();
        // SAFETY: the value has as many bytes as said, and the description lives.
        unsafe { result::set_matmul_desc_attribute(self.0, what, place, size_of::<T>()) }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody has it any more.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A product as cuBLASLt describes it, which counts columns: it sees each matrix transposed, and
/// `weight x` instead of `x weightᵀ`.
pub(super) struct Plan {
    product: Product,
    weight: Layout,
    x: Layout,
    y: Layout,
    /// The chosen kernel, the library's first choice until then.
    algorithm: Algorithm,
    /// Others that add in the same order, so that the choice changes no result.
    others: Vec<Algorithm>,
}

impl Plan {
    pub(super) fn new(handle: sys::cublasLtHandle_t, kind: Kind) -> Result<Self, CublasError> {
        let (factors, sums) = (named(kind.factors), named(kind.sums));
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let scale = sys::cudaDataType::CUDA_R_32F;
        let mut plan = Self {
            product: Product(result::create_matmul_desc(compute, scale)?),
            weight: Layout::new(factors, kind.input, kind.output)?,
            x: Layout::new(factors, kind.input, kind.rows)?,
            y: Layout::new(sums, kind.output, kind.rows)?,
            algorithm: Algorithm { data: [0; 8] },
            others: Vec::new(),
        };
        let transposed = cublasOperation_t::CUBLAS_OP_T;
        plan.product
            .set(Description::CUBLASLT_MATMUL_DESC_TRANSA, transposed)?;
        let epilogue = match kind.after {
            After::Nothing => None,
            After::Bias => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS),
            After::BiasGelu => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS),
        };
        if let Some(epilogue) = epilogue {
            plan.product
                .set(Description::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            plan.product
                .set(Description::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, sums)?;
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
        let mut found = [MaybeUninit::uninit(); CANDIDATES];
        let mut count = 0;
        // SAFETY: all of them live, and there is room for so many results.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.product.0,
                self.weight.0,
                self.x.0,
                self.y.0,
                self.y.0,
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

    /// Takes the fastest of the kernels, which `run` runs a few times: it gives the milliseconds. One that
    /// fails, for want of memory too, is not taken.
    pub(super) fn choose(&mut self, run: impl Fn(&Self, &Algorithm) -> Result<f32>) {
        let mut candidates = mem::take(&mut self.others);
        if candidates.is_empty() {
            return;
        }
        candidates.insert(0, self.algorithm);
        let mut times = vec![f32::INFINITY; candidates.len()];
        for _ in 0..=ROUNDS {
            for (algorithm, time) in candidates.iter().zip(&mut times) {
                *time = time.min(run(self, algorithm).unwrap_or(f32::INFINITY));
            }
        }
        let fastest = times.iter().zip(candidates);
        if let Some((_, algorithm)) = fastest.min_by(|a, b| a.0.total_cmp(b.0)) {
            self.algorithm = algorithm;
        }
    }

    /// Takes the other kernel of this number, if there are so many.
    #[cfg(test)]
    pub(super) fn take_other(&mut self, number: usize) -> bool {
        let other = self.others.get(number).copied();
        other.map(|other| self.algorithm = other).is_some()
    }

    /// Has the device multiply.
    pub(super) fn run(
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
                self.product.0,
                (&raw const one).cast(),
                (&raw const before).cast(),
                pointer(at.weight),
                self.weight.0,
                pointer(at.x),
                self.x.0,
                pointer(at.y),
                self.y.0,
                pointer(at.y),
                self.y.0,
                algorithm,
                pointer(at.workspace),
                WORKSPACE,
                gpu.stream().cu_stream().cast(),
            )
        }
        .map_err(failed)
    }

    /// Where the bias is from now on.
    pub(super) fn set_bias(&self, address: u64) -> Result<(), CublasError> {
        let what = Description::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.product.set(what, address)
    }

    /// The chosen kernel.
    pub(super) fn algorithm(&self) -> &Algorithm {
        &self.algorithm
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
