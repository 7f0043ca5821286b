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

impl Dims {
    /// Those of a copy between strides, as few as do; `None` where that is too many.
    pub(super) fn new(sizes: &[usize], from: &[usize], to: &[usize]) -> Option<Self> {
        let mut dims = Self {
            size: [1; 5],
            ..Self::default()
        };
        let mut rank = 0_usize;
        for ((&size, &from), &to) in sizes.iter().zip(from).zip(to) {
            if size == 1 {
                continue;
            }
            let (from, to) = (from as i64, to as i64);
            let size = i32::try_from(size).ok()?;
            if let Some(outer) = rank.checked_sub(1) {
                let ends = (dims.from[outer], dims.to[outer]);
                let together = ends == (i64::from(size) * from, i64::from(size) * to);
                if let (true, Some(all)) = (together, dims.size[outer].checked_mul(size)) {
                    (dims.size[outer], dims.from[outer], dims.to[outer]) = (all, from, to);
                    continue;
                }
            }
            (*dims.size.get_mut(rank)?, dims.from[rank], dims.to[rank]) = (size, from, to);
            rank += 1;
        }
        Some(dims)
    }

    /// The same in units of so many values, where those lie together.
    pub(super) fn in_units(mut self, values: usize) -> Option<Self> {
        let last = self.size.iter().rposition(|&size| size != 1)?;
        let values = values as i64;
        let size = i64::from(self.size[last]);
        let mut whole = (self.from[last], self.to[last]) == (1, 1) && size % values == 0;
        for stride in self.from[..last].iter_mut().chain(&mut self.to[..last]) {
            whole &= *stride % values == 0;
            *stride /= values;
        }
        self.size[last] = i32::try_from(size / values).ok()?;
        whole.then_some(self)
    }
}

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

    /// Whether accesses of 16 bytes may begin there.
    pub(super) fn aligned(&self) -> bool {
        matches!(self, Self::Pointer(address) if address.is_multiple_of(16))
    }
}

/// Bytes of shared memory that a block may have without asking.
const FREE_SHARED: u32 = 48 << 10;
/// Threads of a block of kernels that take a value each.
const BLOCK: u32 = 256;
/// Values that a thread has under way in kernels which take what comes.
const UNDER_WAY: usize = 16;
/// Blocks of those that are enough for any device.
const ENOUGH: usize = 512;
/// Values of a row that a thread holds, and threads for a row at most.
const HELD: usize = 16;
const ROW_THREADS: usize = 512;

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
#[cfg(feature = "flash-attn")]
pub(super) fn values(count: usize) -> LaunchConfig {
    grid([count.div_ceil(BLOCK as usize), 1, 1], (BLOCK, 1), 0)
}

/// Threads that share `count` values, in kernels that take what comes: with fewer each where there
/// are few.
pub(super) fn several(count: usize) -> LaunchConfig {
    let blocks = |each: usize| count.div_ceil(each * BLOCK as usize);
    let blocks = blocks(UNDER_WAY).max(blocks(4).min(ENOUGH));
    grid([blocks, 1, 1], (BLOCK, 1), 0)
}

/// A block for each of `count` rows of `size` values.
pub(super) fn rows(count: usize, size: usize) -> LaunchConfig {
    let threads = size.div_ceil(HELD).next_multiple_of(32);
    let threads = threads.clamp(32, ROW_THREADS);
    grid([count, 1, 1], (threads as u32, 1), 0)
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

    /// Threads of a block, of a kernel that was compiled for one number of them.
    pub(super) fn block_of(&self, kernel: &str) -> Result<u32> {
        let most = self.function(kernel)?.max_threads_per_block().w()?;
        Ok(u32::try_from(most).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_that_lie_together_are_one() {
        let all = Dims::new(&[1, 7, 4, 3], &[0, 12, 3, 1], &[84, 12, 3, 1]).unwrap();
        assert_eq!((all.size, all.from[0], all.to[0]), ([84, 1, 1, 1, 1], 1, 1));
        // A part of longer rows.
        let part = Dims::new(&[2, 4, 8], &[32, 8, 1], &[64, 16, 1]).unwrap();
        assert_eq!(part.size, [8, 8, 1, 1, 1]);
        assert_eq!(part.from[..2], [8, 1]);
        assert_eq!(part.to[..2], [16, 1]);
        let six = [32, 16, 8, 4, 2, 1];
        assert!(Dims::new(&[2; 6], &six, &six).is_some());
        assert!(Dims::new(&[2; 6], &[1, 2, 4, 8, 16, 32], &six).is_none());
    }

    #[test]
    fn units_are_of_values_that_lie_together() {
        let part = Dims::new(&[2, 4, 8], &[64, 16, 1], &[40, 8, 1]).unwrap();
        let units = part.in_units(4).unwrap();
        assert_eq!(units.size, [2, 4, 2, 1, 1]);
        assert_eq!(units.from[..3], [16, 4, 1]);
        assert_eq!(units.to[..3], [10, 2, 1]);
        assert_eq!(part.in_units(3), None);
        assert_eq!(part.in_units(16), None);
        let columns = Dims::new(&[4, 8], &[1, 4], &[8, 1]).unwrap();
        assert_eq!(columns.in_units(4), None);
        let odd = Dims::new(&[4, 8], &[9, 1], &[8, 1]).unwrap();
        assert_eq!(odd.in_units(4), None);
        // A row again and again.
        let again = Dims::new(&[4, 8], &[0, 1], &[8, 1]).unwrap();
        assert_eq!(again.in_units(8).unwrap().size, [4, 1, 1, 1, 1]);
    }

    #[test]
    fn a_row_has_as_many_threads_as_hold_it() {
        let threads = |size| rows(1, size).block_dim.0;
        assert_eq!(
            [64, 768, 1024, 1280, 2048].map(threads),
            [32, 64, 64, 96, 128]
        );
        assert_eq!(threads(1 << 20), 512);
        assert_eq!(several(0).grid_dim.0, 0);
        assert_eq!(several(257 * 1024).grid_dim.0, 257);
        assert_eq!(several(4096 * 768).grid_dim.0, 768);
    }
}
