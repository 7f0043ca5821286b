//! Packing with AVX-512: blocks of 16 x 16 values of 32 bits are turned in registers.

use super::SIDE;
use half::bf16;
use std::arch::x86_64::*;

const LANES: usize = 16;

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

/// 32 values from `at` on, rounded, to nearest, ties to even; zero beyond the end of `row`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(row: &[f32], at: usize) -> __m512 {
    let left = row.len().saturating_sub(at);
    let from = row.as_ptr().wrapping_add(at);
    // SAFETY: masked to the values of the row; the cast keeps 512 bits.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask16(left), from);
        let high =
            _mm512_maskz_loadu_ps(mask16(left.saturating_sub(LANES)), from.wrapping_add(LANES));
        std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn bf16_row(from: &[f32], to: &mut [bf16], row: usize) {
    for (i, step) in to.chunks_exact_mut(SIDE * SIDE).enumerate() {
        let to = step[row * SIDE..(row + 1) * SIDE].as_mut_ptr();
        // SAFETY: SIDE values of two bytes fill a register.
        unsafe { _mm512_storeu_ps(to.cast(), rounded(from, i * SIDE)) };
    }
}

/// A panel of bf16 pairs: for both halves of its columns, rows of pairs are turned to columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn bf16_panel_of_bf16(rows: &[&[bf16]], next: &[&[bf16]], to: &mut [bf16]) {
    turn(rows, next, bytemuck::cast_slice_mut(to), SIDE, |row, at| {
        let left = row.len().saturating_sub(at);
        // SAFETY: masked to the values of the row.
        unsafe {
            let from = row.as_ptr().wrapping_add(at).cast();
            _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask32(left), from))
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn bf16_panel_of_f32(rows: &[&[f32]], to: &mut [bf16]) {
    turn(rows, &[], bytemuck::cast_slice_mut(to), SIDE, |row, at| {
        rounded(row, at)
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn f32_panel_of_bf16(rows: &[&[bf16]], next: &[&[bf16]], to: &mut [f32]) {
    turn(rows, next, to, LANES, |row, at| {
        let left = row.len().saturating_sub(at);
        // SAFETY: masked to the values of the row.
        unsafe {
            let from = row.as_ptr().wrapping_add(at).cast();
            let bits = _mm256_maskz_loadu_epi16(mask16(left), from);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn f32_panel_of_f32(rows: &[&[f32]], to: &mut [f32]) {
    turn(rows, &[], to, LANES, |row, at| {
        let left = row.len().saturating_sub(at);
        // SAFETY: masked to the values of the row.
        unsafe { _mm512_maskz_loadu_ps(mask16(left), row.as_ptr().wrapping_add(at)) }
    });
}

/// Walks the cache lines of some rows, in order.
struct Ahead<'a> {
    rows: std::slice::Iter<'a, &'a [bf16]>,
    row: &'a [bf16],
}

impl Ahead<'_> {
    /// Asks for the next line.
    #[inline(always)]
    fn fetch(&mut self) {
        if self.row.is_empty() {
            match self.rows.next() {
                Some(row) => self.row = row,
                None => return,
            }
        }
        // SAFETY: a hint, which reads nothing that the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.row.as_ptr().cast()) };
        self.row = &self.row[self.row.len().min(SIDE)..];
    }
}

/// Fills lines of SIDE values of 32 bits: `load` gives 16 of these, made of `values` values of a
/// row, and each becomes a value in 16 lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn turn<T>(
    rows: &[&[T]],
    next: &[&[bf16]],
    to: &mut [f32],
    values: usize,
    load: impl Fn(&[T], usize) -> __m512,
) {
    let mut ahead = Ahead {
        rows: next.iter(),
        row: &[],
    };
    for (i, lines) in to.chunks_exact_mut(LANES * SIDE).enumerate() {
        for half in 0..2 {
            let mut block = [_mm512_setzero_ps(); LANES];
            let rows = rows.iter().skip(half * LANES);
            for (to, row) in block.iter_mut().zip(rows) {
                *to = load(row, i * values);
                ahead.fetch();
            }
            for (line, column) in lines.chunks_exact_mut(SIDE).zip(transpose(block)) {
                // SAFETY: the slice holds a register.
                unsafe { _mm512_storeu_ps(line[half * LANES..][..LANES].as_mut_ptr(), column) };
            }
        }
    }
}

/// Pairs of neighbouring rows, value by value.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn bf16_panel_of_columns(rows: &[&[f32]], to: &mut [bf16]) {
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
