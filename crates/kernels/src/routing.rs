//! Choosing experts, and probabilities over rows.

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
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|v| (v - most).exp()).sum();
    logits[index] - most - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_masks() {
        let mut row = [1.0, f32::NEG_INFINITY, 2.0, 1.0];
        softmax(&mut row);
        assert_eq!(row[1], 0.0);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((row[2] / row[0] - std::f32::consts::E).abs() < 1e-5);
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
        let logits = [0.3, -2.0, 5.0, 1.0];
        let mut p = logits;
        softmax(&mut p);
        assert!((log_probability(&logits, 3) - p[3].ln()).abs() < 1e-5);
    }
}
