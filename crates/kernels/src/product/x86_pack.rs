//! Packing with AVX-512: blocks of 16 x 16 values of 32 bits are turned in registers.

use super::{SIDE, Value, pack::Ahead};
use crate::{Isa, simd::Simd};
use half::bf16;
use std::arch::x86_64::*;

const LANES: usize = 16;

impl Value for bf16 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, step: *mut bf16, row: usize, column: usize, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { s.store_bf16(step.add(row * SIDE + column), v) };
    }

    fn panel(isa: Isa, rows: &[&[bf16]], next: &[&[bf16]], to: &mut [bf16]) {
        assert!(isa.has_avx512());
        // SAFETY: such a set only comes from detection.
        unsafe { bf16_panel_of_bf16(rows, next, to) }
    }

    fn panel_f32(isa: Isa, rows: &[&[f32]], to: &mut [bf16]) {
        assert!(isa.has_avx512());
        // SAFETY: as above.
        unsafe { bf16_panel_of_f32(rows, to) }
    }

    fn panel_of_columns(isa: Isa, rows: &[&[f32]], to: &mut [bf16]) {
        assert!(isa.has_avx512());
        // SAFETY: as above.
        unsafe { bf16_panel_of_columns(rows, to) }
    }
}

/// The mask of the first `n` lanes, at most 32.
#[inline(always)]
fn mask32(n: usize) -> __mmask32 {
    if n >= 32 { !0 } else { (1 << n) - 1 }
}

/// The mask of the first `n` lanes, at most 16.
#[inline(always)]
fn mask16(n: usize) -> __mmask16 {
    mask32(n.min(LANES)) as __mmask16
}

/// `n` values, at most 32, rounded, to nearest, ties to even, and zeros.
///
/// # Safety
/// `from` must be valid for reading `n` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rounded(from: *const f32, n: usize) -> __m512 {
    // SAFETY: masked to `n` values; the cast keeps 512 bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask16(n), from);
        let high = mask16(n.saturating_sub(LANES));
        let high = _mm512_maskz_loadu_ps(high, from.wrapping_add(LANES));
        std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// A panel of bf16 pairs: for both halves of its columns, rows of pairs are turned to columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16_panel_of_bf16(rows: &[&[bf16]], next: &[&[bf16]], to: &mut [bf16]) {
    turn::<_, SIDE>(rows, next, bytemuck::cast_slice_mut(to), |from, n| {
        // SAFETY: masked to the values that `turn` promises.
        unsafe { _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask32(n), from.cast())) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16_panel_of_f32(rows: &[&[f32]], to: &mut [bf16]) {
    turn::<_, SIDE>(rows, &[], bytemuck::cast_slice_mut(to), |from, n| {
        // SAFETY: `turn` promises `n` values.
        unsafe { rounded(from, n) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn f32_panel_of_bf16(rows: &[&[bf16]], next: &[&[bf16]], to: &mut [f32]) {
    turn::<_, LANES>(rows, next, to, |from, n| {
        // SAFETY: masked to the values that `turn` promises.
        unsafe {
            let bits = _mm256_maskz_loadu_epi16(mask16(n), from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn f32_panel_of_f32(rows: &[&[f32]], to: &mut [f32]) {
    turn::<_, LANES>(rows, &[], to, |from, n| {
        // SAFETY: masked to the values that `turn` promises.
        unsafe { _mm512_maskz_loadu_ps(mask16(n), from) }
    });
}

/// Fills lines of SIDE values of 32 bits: each of 16 such values that `load` makes of VALUES
/// values of a row becomes one of 16 lines. `load` gets a place with as many values as it is told.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn turn<T, const VALUES: usize>(
    rows: &[&[T]],
    next: &[&[bf16]],
    to: &mut [f32],
    load: impl Fn(*const T, usize) -> __m512,
) {
    let mut ahead = Ahead::new(next);
    // Steps for which all columns are there, whole.
    let shortest = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let whole = if rows.len() == SIDE {
        shortest / VALUES
    } else {
        0
    };
    for (i, lines) in to.chunks_exact_mut(LANES * SIDE).enumerate() {
        for half in 0..2 {
            let rows = rows.get(half * LANES..).unwrap_or(&[]);
            let mut block = [_mm512_setzero_ps(); LANES];
            if i < whole {
                for (to, row) in block.iter_mut().zip(rows) {
                    *to = load(row.as_ptr().wrapping_add(i * VALUES), VALUES);
                    ahead.fetch();
                }
            } else {
                for (to, row) in block.iter_mut().zip(rows) {
                    let part = &row[row.len().min(i * VALUES)..row.len().min((i + 1) * VALUES)];
                    *to = load(part.as_ptr(), part.len());
                }
            }
            for (line, column) in transpose(block).into_iter().enumerate() {
                let to = lines[line * SIDE + half * LANES..][..LANES].as_mut_ptr();
                // SAFETY: the slice holds a register.
                unsafe { _mm512_storeu_ps(to, column) };
            }
        }
    }
}

/// Pairs of neighbouring rows, value by value.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16_panel_of_columns(rows: &[&[f32]], to: &mut [bf16]) {
    let row = |i: usize| rows.get(i).copied().unwrap_or(&[]);
    for (i, line) in to.chunks_exact_mut(2 * SIDE).enumerate() {
        for half in 0..2 {
            let part = |i: usize| {
                let values = row(i).get(half * LANES..).unwrap_or(&[]);
                // SAFETY: masked to the values of the row; the cast keeps 256 bits.
                unsafe {
                    let v = _mm512_maskz_loadu_ps(mask16(values.len()), values.as_ptr());
                    let v = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                    _mm512_cvtepu16_epi32(v)
                }
            };
            let pairs = _mm512_or_si512(part(2 * i), _mm512_slli_epi32::<16>(part(2 * i + 1)));
            let to = line[half * SIDE..][..SIDE].as_mut_ptr();
            // SAFETY: SIDE values of two bytes fill a register.
            unsafe { _mm512_storeu_si512(to.cast(), pairs) };
        }
    }
}

/// A 16 x 16 block of 32-bit values with rows and columns exchanged.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512; LANES]) -> [__m512; LANES] {
    // Pairs of rows, pairs of pairs, then quarters of registers.
    let mut pairs = rows;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = rows;
    for i in (0..LANES).step_by(4) {
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
