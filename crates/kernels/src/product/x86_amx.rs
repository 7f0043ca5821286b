//! Blocks of bf16 products on AMX tiles (`tdpbf16ps`): 16 x 16 sums of 32 products each, an
//! instruction.

use super::Multiply;
use crate::Isa;
use half::bf16;
use std::arch::{asm, x86_64::__cpuid_count};

/// Rows of a tile.
const TILE: usize = 16;

/// Asks the system for the right to use tiles, which a process must do once; whether the machine
/// and the system have them.
pub(crate) fn available() -> bool {
    const TILE_DATA: u64 = 18;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const SYS_ARCH_PRCTL: u64 = 158;
    // AMX-BF16 and AMX-TILE.
    const FEATURES: u32 = 1 << 22 | 1 << 24;
    if !cfg!(target_os = "linux") || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
        return false;
    }
    let mut result = SYS_ARCH_PRCTL;
    // SAFETY: the call changes which registers this process may use and nothing else; the kernel
    // overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
        );
    }
    result == 0
}

/// Proof that the machine has tiles.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    pub(super) fn new() -> Self {
        assert!(Isa::available().contains(&Isa::Amx));
        Self(())
    }
}

impl Multiply for Amx {
    type Value = bf16;

    fn isa(self) -> Isa {
        Isa::Amx
    }

    fn ready<R>(self, work: impl FnOnce() -> R) -> R {
        /// Without tiles in use the system has less to save when it switches threads.
        struct Release;
        impl Drop for Release {
            fn drop(&mut self) {
                // SAFETY: only an `Amx` makes a `Release`, so the machine has tiles.
                unsafe { asm!("tilerelease", options(nomem, nostack)) }
            }
        }
        let _release = Release;
        // SAFETY: an `Amx` proves the machine.
        unsafe { configure() }
        work()
    }

    unsafe fn block<const ADD: bool>(
        self,
        a: *const bf16,
        b: *const bf16,
        steps: usize,
        rows: usize,
        c: *mut f32,
        stride: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if rows > TILE {
                two::<ADD>(a, b, steps, c, stride);
            } else {
                one::<ADD>(a, b, steps, c, stride);
            }
        }
    }

    fn peak(self, rounds: usize) -> usize {
        let ones = [bf16::ONE; 2 * TILE * TILE];
        let mut sums = [[0.0_f32; TILE * TILE]; 4];
        // SAFETY: the tiles are set up; `ones` and each of `sums` hold one of 1 KiB.
        self.ready(|| unsafe { sums_of_ones(ones.as_ptr(), rounds, sums.as_mut_ptr()) });
        sums.iter().flatten().map(|sum| *sum as usize).sum()
    }
}

/// Sets all tiles of this thread to 16 rows of 64 bytes.
///
/// # Safety
/// The machine must have AMX.
unsafe fn configure() {
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    let mut config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    config.row_bytes[..8].fill(64);
    config.rows[..8].fill(TILE as u8);
    // SAFETY: the instruction reads the 64 bytes of `config`.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(readonly, nostack)) }
}

/// Loads or clears the sums of two tiles in a row of `c`.
macro_rules! begin {
    ($add:expr, $first:literal, $second:literal, $c:expr, $bytes:expr) => {
        if $add {
            asm!(
                concat!("tileloadd ", $first, ", [{c} + {stride}]"),
                concat!("tileloadd ", $second, ", [{c} + {stride} + 64]"),
                c = in(reg) $c,
                stride = in(reg) $bytes,
                options(readonly, nostack),
            );
        } else {
            asm!(
                concat!("tilezero ", $first),
                concat!("tilezero ", $second),
                options(nomem, nostack),
            );
        }
    };
}

/// All rows of a block: two tiles down, two across.
///
/// # Safety
/// As for [`Multiply::block`].
unsafe fn two<const ADD: bool>(
    a: *const bf16,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    stride: usize,
) {
    let bytes = stride * size_of::<f32>();
    // SAFETY: the caller's promise; a step is 2 KiB on both sides, rows of `a` 64 bytes, of `b`
    // 128. No code of the compiler's own uses tiles in between.
    unsafe {
        let low = c.add(TILE * stride);
        begin!(ADD, "tmm0", "tmm1", c, bytes);
        begin!(ADD, "tmm2", "tmm3", low, bytes);
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + 2 * {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + 2 * {line} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {bytes}], tmm0",
            "tilestored [{c} + {bytes} + 64], tmm1",
            "tilestored [{low} + {bytes}], tmm2",
            "tilestored [{low} + {bytes} + 64], tmm3",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            line = in(reg) 64_usize,
            c = in(reg) c,
            low = in(reg) low,
            bytes = in(reg) bytes,
            options(nostack),
        );
    }
}

/// The upper half of a block: one tile down, two across.
///
/// # Safety
/// As for [`Multiply::block`].
unsafe fn one<const ADD: bool>(
    a: *const bf16,
    b: *const bf16,
    steps: usize,
    c: *mut f32,
    stride: usize,
) {
    let bytes = stride * size_of::<f32>();
    // SAFETY: as in `two`.
    unsafe {
        begin!(ADD, "tmm0", "tmm1", c, bytes);
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + 2 * {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + 2 * {line} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {bytes}], tmm0",
            "tilestored [{c} + {bytes} + 64], tmm1",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            line = in(reg) 64_usize,
            c = in(reg) c,
            bytes = in(reg) bytes,
            options(nostack),
        );
    }
}

/// What [`Multiply::peak`] does, with tiles as in [`two`].
///
/// # Safety
/// `ones` must hold a tile and `sums` four. Only inside [`Multiply::ready`].
unsafe fn sums_of_ones(ones: *const bf16, rounds: usize, sums: *mut [f32; TILE * TILE]) {
    // SAFETY: the caller's promise; no code of the compiler's own uses tiles in between.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{ones} + {line}]",
            "tileloadd tmm5, [{ones} + {line}]",
            "tileloadd tmm6, [{ones} + {line}]",
            "tileloadd tmm7, [{ones} + {line}]",
            ones = in(reg) ones,
            line = in(reg) 64_usize,
            options(readonly, nostack),
        );
        for _ in 0..rounds {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                options(nomem, nostack),
            );
        }
        asm!(
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            sums = in(reg) sums,
            line = in(reg) 64_usize,
            options(nostack),
        );
    }
}
