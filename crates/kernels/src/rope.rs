//! Rotary position embedding (Su et al., 2021), in the rotate-half (NeoX) form.

use rayon::prelude::*;

/// Cosines and sines for positions 0.., ready to rotate heads of one size.
#[derive(Clone, Debug)]
pub struct Rope {
    half: usize,
    /// For each position `half` cosines, then `half` sines.
    table: Vec<f32>,
}

impl Rope {
    /// Tables for `positions` positions and heads of `head_dim` values, with frequencies
    /// `base^(-2i / head_dim)`.
    pub fn new(positions: usize, head_dim: usize, base: f32) -> Self {
        let half = head_dim / 2;
        assert_eq!(2 * half, head_dim, "an even head dimension");
        let inverse = |i: usize| 1.0 / base.powf((2 * i) as f32 / head_dim as f32);
        let mut table = Vec::with_capacity(positions * head_dim);
        for position in 0..positions {
            let angle = |i: usize| position as f32 * inverse(i);
            table.extend((0..half).map(|i| angle(i).cos()));
            table.extend((0..half).map(|i| angle(i).sin()));
        }
        Self { half, table }
    }

    /// The number of positions in the tables.
    pub fn positions(&self) -> usize {
        self.table.len() / (2 * self.half)
    }

    /// All cosines, and all sines, `[positions, head_dim / 2]` each.
    pub fn halves(&self) -> [Vec<f32>; 2] {
        let row = 2 * self.half;
        let half = |start: usize| {
            let rows = self.table.chunks_exact(row);
            rows.flat_map(|row| row[start..start + self.half].iter().copied())
                .collect()
        };
        [half(0), half(self.half)]
    }

    /// Rotates `x` of shape `[n, heads, head_dim]` in place; row `i` is at position `first + i`.
    pub fn rotate(&self, x: &mut [f32], heads: usize, first: usize) {
        let row = heads * 2 * self.half;
        assert_eq!(x.len() % row, 0, "rows of {row}");
        assert!(
            first + x.len() / row <= self.positions(),
            "positions beyond the tables"
        );
        x.par_chunks_exact_mut(row).enumerate().for_each(|(i, x)| {
            let at = (first + i) * 2 * self.half;
            let (cos, sin) = self.table[at..at + 2 * self.half].split_at(self.half);
            for head in x.chunks_exact_mut(2 * self.half) {
                let (a, b) = head.split_at_mut(self.half);
                for i in 0..self.half {
                    (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_pairs_by_position_times_frequency() {
        let rope = Rope::new(4, 4, 100.0);
        let mut x = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        rope.rotate(&mut x, 1, 2);
        for (row, position) in [(0, 2.0_f32), (1, 3.0)] {
            for (i, frequency) in [1.0_f32, 0.1].into_iter().enumerate() {
                let (sin, cos) = (position * frequency).sin_cos();
                let (a, b) = ((i + 1) as f32, (i + 3) as f32);
                assert!((x[4 * row + i] - (a * cos - b * sin)).abs() < 1e-5);
                assert!((x[4 * row + i + 2] - (b * cos + a * sin)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn position_zero_stays() {
        let mut x = [1.0, 2.0, 3.0, 4.0];
        Rope::new(1, 2, 10_000.0).rotate(&mut x, 2, 0);
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0]);
    }
}
