//! Products on AMX tiles (`tdpbf16ps`): 16 x 16 sums of 32 products each, an instruction.
//!
//! `Wᵀ` would have to be repacked for a right operand, so the product is turned around: a weight's
//! rows as they lie are the left operand, the rounded activations are packed once into the right
//! one, and blocks of `yᵀ` are transposed on their way out.

use super::{Product, Tile, TileOut};
use half::bf16;
use rayon::prelude::*;
use std::arch::{asm, x86_64::*};

/// Rows of a tile, and f32 values in one of its rows.
const SIDE: usize = 16;
/// bf16 values in a row of a tile.
const DEPTH: usize = 32;
/// Rows, and outputs, of a register block: two tiles.
const BLOCK: usize = 2 * SIDE;

/// Whether a product's shape fills whole tiles.
pub(super) fn fits(product: &Product<'_>) -> bool {
    product.weight.cols.is_multiple_of(DEPTH) && product.weight.rows.is_multiple_of(BLOCK)
}

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

/// Activations rounded to bf16 in the layout of right operands: for each 16 rows and each 32
/// columns a tile whose row `p` holds columns `2p` and `2p + 1` of all 16 rows. Rows beyond the
/// last are zero, up to a multiple of [`BLOCK`].
pub(super) struct Packed {
    data: Vec<[bf16; 2]>,
    cols: usize,
}

impl Packed {
    pub(super) fn new(x: &[f32], rows: usize, cols: usize) -> Self {
        let mut data = vec![[bf16::ZERO; 2]; rows.next_multiple_of(BLOCK) * cols / 2];
        let tiles = data.par_chunks_exact_mut(SIDE * cols / 2);
        tiles.zip(x.par_chunks(SIDE * cols)).for_each(|(to, x)| {
            // SAFETY: the caller chose this path because `available` said so.
            unsafe { pack(x, cols, to) }
        });
        Self { data, cols }
    }

    /// The tiles of the 16 rows from `row` on.
    fn rows(&self, row: usize) -> &[[bf16; 2]] {
        let start = row * self.cols / 2;
        &self.data[start..start + SIDE * self.cols / 2]
    }
}

pub(super) fn tile(x: &Packed, product: &Product<'_>, tile: Tile, y: &TileOut<'_>) {
    // SAFETY: the caller chose this path because `available` said so.
    unsafe {
        configure();
        run(x, product, tile, y);
        // Without tiles in use the system has less to save when it switches threads.
        asm!("tilerelease", options(nomem, nostack));
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
    config.rows[..8].fill(SIDE as u8);
    // SAFETY: the instruction reads the 64 bytes of `config`.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(readonly, nostack)) }
}

#[target_feature(enable = "avx512f")]
fn run(x: &Packed, product: &Product<'_>, tile: Tile, y: &TileOut<'_>) {
    let weight = &product.weight;
    let mut sums = [[0.0; SIDE * SIDE]; 4];
    for out in tile.outs.clone().step_by(BLOCK) {
        // Slicing checks that all rows lie inside.
        let w = &weight.data[out * weight.cols..(out + BLOCK) * weight.cols];
        for row in tile.rows.clone().step_by(BLOCK) {
            let xs = [x.rows(row), x.rows(row + SIDE)];
            // SAFETY: `w` holds BLOCK rows and each of `xs` whole tiles; `cols` is a multiple of
            // DEPTH; `tile` has configured the registers.
            unsafe { block(w.as_ptr(), weight.cols, xs.map(<[_]>::as_ptr), &mut sums) };
            for (i, sums) in sums.iter().enumerate() {
                let (out, row) = (out + i / 2 * SIDE, row + i % 2 * SIDE);
                let live = tile.rows.end.saturating_sub(row).min(SIDE);
                let rows = std::array::from_fn(|i| {
                    // SAFETY: `sums` holds SIDE rows of SIDE values.
                    unsafe { _mm512_loadu_ps(sums[i * SIDE..][..SIDE].as_ptr()) }
                });
                for (j, column) in transpose(rows)[..live].iter().enumerate() {
                    let mut values = [0.0; SIDE];
                    // SAFETY: `values` holds a register.
                    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), *column) };
                    y.write(row + j, out, values, product);
                }
            }
        }
    }
}

/// `sums[2i + j]` of outputs `16 i ..` and rows `16 j ..`, output by output.
///
/// # Safety
/// `w` must hold BLOCK rows of `cols` values, each of `x` packed tiles of `cols` columns; tiles
/// must be configured.
unsafe fn block(
    w: *const bf16,
    cols: usize,
    x: [*const [bf16; 2]; 2],
    sums: &mut [[f32; SIDE * SIDE]; 4],
) {
    // SAFETY: the caller's promise; loads step through both operands `cols / DEPTH` times, stores
    // fill the four tiles of `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{w0} + {stride}]",
            "tileloadd tmm6, [{x0} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{x1} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{w1} + {stride}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {w0}, 64",
            "add {w1}, 64",
            "add {x0}, 1024",
            "add {x1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            w0 = inout(reg) w => _,
            w1 = inout(reg) w.add(SIDE * cols) => _,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            steps = inout(reg) cols / DEPTH => _,
            stride = in(reg) cols * size_of::<bf16>(),
            line = in(reg) 64_usize,
            sums = in(reg) sums.as_mut_ptr(),
            options(nostack),
        );
    }
}

/// Up to 16 rows `x` of `cols` values as tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack(x: &[f32], cols: usize, to: &mut [[bf16; 2]]) {
    for (at, tile) in (0..cols)
        .step_by(DEPTH)
        .zip(to.chunks_exact_mut(SIDE * SIDE))
    {
        let mut pairs = [_mm512_setzero_ps(); SIDE];
        for (pairs, row) in pairs.iter_mut().zip(x.chunks_exact(cols)) {
            let values = row[at..at + DEPTH].as_ptr();
            // SAFETY: DEPTH values, two registers; the cast keeps 512 bits.
            *pairs = unsafe {
                let (low, high) = (_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(SIDE)));
                std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
            };
        }
        for (to, column) in tile.chunks_exact_mut(SIDE).zip(transpose(pairs)) {
            // SAFETY: SIDE pairs of 4 bytes.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr().cast(), column) };
        }
    }
}

/// A 16 x 16 block of 32-bit values with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512; SIDE]) -> [__m512; SIDE] {
    // Pairs of rows, pairs of pairs, then quarters of registers.
    let mut pairs = rows;
    for i in (0..SIDE).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = rows;
    for i in (0..SIDE).step_by(4) {
        let pd = |j: usize| _mm512_castps_pd(pairs[i + j]);
        fours[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
        fours[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
        fours[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
        fours[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
    }
    let mut out = rows;
    for i in 0..4 {
        let low = |a, b| _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let high = |a, b| _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        let (a, b) = (fours[i], fours[4 + i]);
        let (c, d) = (fours[8 + i], fours[12 + i]);
        out[i] = low(low(a, b), low(c, d));
        out[4 + i] = low(high(a, b), high(c, d));
        out[8 + i] = high(low(a, b), low(c, d));
        out[12 + i] = high(high(a, b), high(c, d));
    }
    out
}
