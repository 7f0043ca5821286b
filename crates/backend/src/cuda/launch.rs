//! A kernel by its name, with its arguments.

use super::Gpu;
use crate::Result;
use candle_core::{
    DType,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            DeviceRepr, LaunchConfig, PushKernelArg,
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        },
    },
};

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    /// An address on the device.
    Pointer(u64),
    /// `int`.
    Int(i32),
    /// `size_t` or `int64_t`.
    Long(i64),
    /// `float`.
    Float(f32),
    /// The struct of the kernel `copy`.
    Dims(Dims),
}

/// Sizes of up to five dimensions, and what lies between two values of each, in values.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Dims {
    pub size: [i32; 5],
    pub from: [i64; 5],
    pub to: [i64; 5],
}

// SAFETY: plain numbers in the order and alignment of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

impl Arg {
    /// No address.
    pub(super) const NULL: Self = Self::Pointer(0);

    /// A size as the `int` that kernels take. Sizes that large do not come up: they are of a
    /// dimension, not of a tensor.
    pub(super) fn int(size: usize) -> Self {
        Self::Int(i32::try_from(size).unwrap_or(i32::MAX))
    }

    /// A number of values.
    pub(super) fn long(size: usize) -> Self {
        Self::Long(size as i64)
    }
}

/// Bytes of shared memory that a block may have without asking.
const FREE_SHARED: u32 = 48 << 10;
/// Threads of a block of kernels that take a value each.
const BLOCK: u32 = 256;
/// Rows of a block of kernels that take a row a warp.
const ROWS: u32 = 8;

/// How many threads run a kernel.
pub(super) fn grid(blocks: [usize; 3], threads: (u32, u32), shared: usize) -> LaunchConfig {
    let [x, y, z] = blocks.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (threads.0, threads.1, 1),
        shared_mem_bytes: u32::try_from(shared).unwrap_or(u32::MAX),
    }
}

/// A thread for each of `count` values.
pub(super) fn values(count: usize) -> LaunchConfig {
    grid([count.div_ceil(BLOCK as usize), 1, 1], (BLOCK, 1), 0)
}

/// A warp for each of `count` rows.
pub(super) fn rows(count: usize) -> LaunchConfig {
    grid([count.div_ceil(ROWS as usize), 1, 1], (32, ROWS), 0)
}

/// An element type as kernels' names have it.
pub(super) fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    }
}

impl Gpu {
    /// The name of a kernel for the device's element type.
    pub(super) fn named(&self, kernel: &str) -> String {
        format!("{kernel}_{}", name(self.dtype()))
    }

    /// Runs a kernel behind all work that is under way.
    pub(super) fn launch(&self, kernel: &str, config: LaunchConfig, args: &[Arg]) -> Result<()> {
        if config.grid_dim.0 == 0 {
            return Ok(());
        }
        let function = self.function(kernel)?;
        if config.shared_mem_bytes > FREE_SHARED {
            let bytes = i32::try_from(config.shared_mem_bytes).unwrap_or(i32::MAX);
            function
                .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
                .w()?;
        }
        let mut builder = self.stream().launch_builder(&function);
        for arg in args {
            match arg {
                Arg::Pointer(value) => builder.arg(value),
                Arg::Int(value) => builder.arg(value),
                Arg::Long(value) => builder.arg(value),
                Arg::Float(value) => builder.arg(value),
                Arg::Dims(value) => builder.arg(value),
            };
        }
        // SAFETY: the callers in this room give each kernel the arguments of its source, with
        // tensors that live until the work is on the stream; memory is freed behind it.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}
