use super::*;
use crate::noise::noise;
use proptest::prelude::*;

/// The definition in f64, and beside each sum the sum of its terms' magnitudes.
fn expected(x: &[f32], w: &Matrix<'_>, bias: Option<&[bf16]>) -> Vec<(f64, f64)> {
    let dot = |x: &[f32], out: usize| {
        let bias = bias.map_or(0.0, |b| b[out].to_f64());
        let terms = w
            .row(out)
            .iter()
            .zip(x)
            .map(|(w, x)| w.to_f64() * f64::from(*x));
        terms.fold((bias, bias.abs()), |(sum, size), t| {
            (sum + t, size + t.abs())
        })
    };
    x.chunks(w.cols)
        .flat_map(|x| (0..w.rows).map(move |out| dot(x, out)))
        .collect()
}

fn check(n: usize, outs: usize, k: usize, with_bias: bool, seed: u64) {
    let x: Vec<f32> = noise(n * k, seed);
    let w: Vec<bf16> = noise(outs * k, seed + 1)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let bias: Vec<bf16> = noise(outs, seed + 2)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let bias = with_bias.then_some(&bias[..]);
    let w = Matrix::new(&w, outs, k);
    let truth = expected(&x, &w, bias);
    for &isa in Isa::available() {
        for activations in [Activations::F32, Activations::Bf16] {
            let mut y = vec![f32::NAN; n * outs];
            let layer = Affine::new(w, bias);
            linear_with(isa, &x, &mut [(layer, &mut y)], Into::Fresh, activations);
            // Rounding a factor to bf16 moves a product by at most 2^-8 of itself.
            let rounded = activations == Activations::Bf16 && isa.multiplies_bf16() && n > FEW_ROWS;
            let unit = if rounded { 2.0_f64.powi(-8) } else { 1e-6 };
            for (i, (y, (truth, size))) in y.iter().zip(&truth).enumerate() {
                let error = (f64::from(*y) - truth).abs();
                let bound = unit * size + 1e-6;
                assert!(
                    error <= bound,
                    "{isa:?} {activations:?} [{i}]: {y} for {truth}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_set_agrees_with_the_definition(
        n in 1..40_usize, outs in 1..110_usize, k in 1..200_usize, bias: bool, seed in 0..1000_u64,
    ) {
        check(n, outs, k, bias, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    // Shapes that fill whole AMX tiles, with any number of rows.
    #[test]
    fn whole_tiles_agree_with_the_definition(
        n in 9..100_usize, outs in 1..8_usize, k in 1..12_usize, bias: bool, seed in 0..1000_u64,
    ) {
        check(n, 32 * outs, 32 * k, bias, seed);
    }
}

#[test]
fn large_shapes_take_several_tiles() {
    check(300, 100, 1280, true, 7);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (n, outs, k) = (70, 130, 300);
    let x: Vec<f32> = noise(n * k, 1);
    let w: Vec<bf16> = noise(outs * k, 2).into_iter().map(bf16::from_f32).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut y = vec![0.0; n * outs];
        pool.install(|| {
            let w = Matrix::new(&w, outs, k);
            linear(&x, w.into(), &mut y, Into::Fresh, Activations::Bf16);
        });
        y
    };
    assert_eq!(run(1), run(3));
}
