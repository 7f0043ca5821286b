//! Choosing experts, and probabilities over rows.

use crate::{
    Isa,
    linear::{Matrix, small_linear},
    product::Lines,
    simd::{Kernel, Simd, dispatch, math},
};

/// The experts chosen for some rows, in memory that is used again and again.
pub struct Choice {
    experts: Lines<u32>,
    weights: Lines<f32>,
}

impl Choice {
    /// For each row of `x` `[n, size]` the `k` experts to which softmax of `x Wᵀ` gives most, with
    /// `weight` `[experts, size]`. All arithmetic is f32: a rounded score may choose another expert.
    pub fn new(x: &[f32], weight: Matrix<'_>, k: usize) -> Self {
        let count = weight.rows();
        let n = x.len() / weight.cols();
        let mut scores = Lines::new(n * count);
        small_linear(x, weight, &mut scores);
        let (mut experts, mut weights) = (Lines::new(n * k), Lines::new(n * k));
        let chosen = experts.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
        for (scores, (experts, weights)) in scores.chunks_exact_mut(count).zip(chosen) {
            softmax(scores);
            top_k(scores, k, experts, weights);
        }
        Self { experts, weights }
    }

    /// Numbers of the experts, `[n, k]`, most probable first.
    pub fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// Their probabilities as they are, `[n, k]`.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }
}

/// Softmax of one row in place; `-inf` becomes 0.
pub fn softmax(row: &mut [f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - most).exp();
        sum += *v;
    }
    row.iter_mut().for_each(|v| *v /= sum);
}

/// The `k` largest values of `row` with their indices, largest first; of equals the lower index.
pub fn top_k(row: &[f32], k: usize, indices: &mut [u32], values: &mut [f32]) {
    assert!(
        k <= row.len() && indices.len() == k && values.len() == k,
        "top {k} of {}",
        row.len()
    );
    let mut found = 0;
    for (i, &v) in row.iter().enumerate() {
        let place = values[..found].partition_point(|other| *other >= v);
        if place >= k {
            continue;
        }
        found = (found + 1).min(k);
        values[place..found].rotate_right(1);
        indices[place..found].rotate_right(1);
        (values[place], indices[place]) = (v, i as u32);
    }
}

/// The natural logarithm of the probability that softmax of `logits` gives to `index`.
pub fn log_probability(logits: &[f32], index: usize) -> f32 {
    let (most, sum) = dispatch(Isa::detect(), Exponentials { logits });
    logits[index] - most - sum.ln()
}

/// The largest value, and the sum of `exp(value - largest)`.
struct Exponentials<'a> {
    logits: &'a [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let whole = self.logits.chunks_exact(S::LANES);
        let rest = whole.remainder();
        let mut top = s.splat(f32::NEG_INFINITY);
        for part in whole.clone() {
            top = s.max(top, s.load_part(part));
        }
        let most = rest.iter().copied().fold(s.largest(top), f32::max);
        let (base, mut sum) = (s.splat(most), s.splat(0.0));
        for part in whole {
            sum = s.add(sum, math::exp(s, s.sub(s.load_part(part), base)));
        }
        let rest: f32 = rest.iter().map(|v| (v - most).exp()).sum();
        (most, s.sum(sum) + rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;
    use half::bf16;

    #[test]
    fn softmax_sums_to_one_and_masks() {
        let mut row = [1.0, f32::NEG_INFINITY, 2.0, 1.0];
        softmax(&mut row);
        assert_eq!(row[1], 0.0);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((row[2] / row[0] - std::f32::consts::E).abs() < 1e-5);
    }

    #[test]
    fn a_choice_follows_the_scores() {
        let weight: Vec<bf16> = [1.0, 0.0, 0.0, 1.0, -1.0, 0.5].map(bf16::from_f32).to_vec();
        for n in [1, 20] {
            let x: Vec<f32> = (0..n).flat_map(|i| [1.0, i as f32]).collect();
            let choice = Choice::new(&x, Matrix::new(&weight, 3, 2), 2);
            for i in 0..n {
                let mut p = [1.0, i as f32, i as f32 / 2.0 - 1.0];
                softmax(&mut p);
                let first = if i <= 1 {
                    [0, 1]
                } else if i <= 4 {
                    [1, 0]
                } else {
                    [1, 2]
                };
                assert_eq!(choice.experts()[2 * i..2 * i + 2], first, "{i}");
                for (w, e) in choice.weights()[2 * i..2 * i + 2].iter().zip(first) {
                    assert!((w - p[e as usize]).abs() < 1e-5, "{i}");
                }
            }
        }
    }

    #[test]
    fn top_k_is_sorted_and_stable() {
        let (mut indices, mut values) = ([0; 3], [0.0; 3]);
        top_k(&[0.1, 0.5, 0.2, 0.5, 0.4], 3, &mut indices, &mut values);
        assert_eq!(indices, [1, 3, 4]);
        assert_eq!(values, [0.5, 0.5, 0.4]);
    }

    #[test]
    fn log_probability_is_the_log_of_softmax() {
        for n in [1, 4, 16, 37, 1000] {
            let logits: Vec<f32> = noise(n, 3).into_iter().map(|v| 9.0 * v).collect();
            let mut p = logits.clone();
            softmax(&mut p);
            let error = log_probability(&logits, n / 2) - p[n / 2].ln();
            assert!(error.abs() < 1e-4, "{error} of {n}");
        }
    }
}
