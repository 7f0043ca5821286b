use super::*;
use crate::{activation::Function, noise::noise, norm::layer_norm};
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
            linear_with(isa, &x, &mut [(layer, &mut y)], Write::Set, activations);
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

/// `run` in pools of 1, 2 and 3 threads.
fn in_pools<T: Send>(run: impl Fn() -> T + Sync) -> [T; 3] {
    [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(&run)
    })
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (n, outs, k) = (70, 130, 300);
    let x: Vec<f32> = noise(n * k, 1);
    let w = weights(outs * k, 2);
    let run = || {
        let mut y = vec![0.0; n * outs];
        let w = Matrix::new(&w, outs, k);
        linear(&x, w.into(), &mut y, Write::Set, Activations::Bf16);
        y
    };
    let [one, two, three] = in_pools(run);
    assert!(one == two && one == three);
}

fn weights(n: usize, seed: u64) -> Vec<bf16> {
    noise(n, seed).into_iter().map(bf16::from_f32).collect()
}

/// The largest distance of two vectors, relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = |v: &mut dyn Iterator<Item = f32>| v.fold(0.0, |most, v| v.abs().max(most));
    largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
}

#[test]
fn layers_behind_a_norm_are_their_parts() {
    for (n, inner) in [(3, 40), (50, 40), (33, 64)] {
        let size = 24;
        let x = noise(n * size, 1);
        let (first, second) = (weights(inner * size, 2), weights(size * inner, 3));
        let (b1, b2) = (weights(inner, 4), weights(size, 5));
        let first = Affine::new(Matrix::new(&first, inner, size), Some(&b1));
        let second = Affine::new(Matrix::new(&second, size, inner), Some(&b2));
        let (weight, bias) = (weights(size, 6), weights(size, 7));
        let norm = LayerNorm {
            weight: &weight,
            bias: &bias,
            eps: 1e-6,
        };
        let mut normed = vec![0.0; x.len()];
        layer_norm(&x, norm, &mut normed);
        let mut hidden = vec![0.0; n * inner];
        linear(&normed, first, &mut hidden, Write::Set, Activations::F32);
        for (activations, bound) in [(Activations::F32, 1e-5), (Activations::Bf16, 2e-2)] {
            let mut y = vec![f32::NAN; n * inner];
            linear_normed(&x, norm, first, &mut y, activations);
            assert!(distance(&y, &hidden) < bound, "{n} {inner} {activations:?}");
        }
        Function::Gelu.apply(&mut hidden);
        let mut truth = x.clone();
        linear(&hidden, second, &mut truth, Write::Add, Activations::F32);
        for (activations, bound) in [(Activations::F32, 1e-5), (Activations::Bf16, 2e-2)] {
            let mut y = x.clone();
            add_mlp(&mut y, norm, [first, second], Function::Gelu, activations);
            assert!(distance(&y, &truth) < bound, "{n} {inner} {activations:?}");
        }
    }
}

#[test]
fn experts_add_up_to_their_parts() {
    // Inner sizes that do and do not fill a step; rows that some experts never see.
    let (size, k) = (40, 2);
    for (inner, shared_inner) in [(24, 56), (32, 64), (20, 7)] {
        let made: Vec<[Vec<bf16>; 3]> = (0..5)
            .map(|i| {
                let n = if i == 4 { shared_inner } else { inner } * size;
                [0, 1, 2].map(|part| weights(n, 10 * i + part))
            })
            .collect();
        let expert = |i: usize| {
            let [gate, up, down] = &made[i];
            let inner = gate.len() / size;
            Expert {
                gate: Matrix::new(gate, inner, size),
                up: Matrix::new(up, inner, size),
                down: Matrix::new(down, size, inner),
            }
        };
        let of: Vec<Expert<'_>> = (0..4).map(expert).collect();
        for n in [1, 2, 70] {
            let x = noise(n * size, 7);
            let chosen: Vec<u32> = (0..n * k).map(|i| [0, 3, 3, 1][i % 4]).collect();
            let share: Vec<f32> = (0..n * k).map(|i| 0.1 + (i % 5) as f32 / 5.0).collect();
            let alone = |e: Expert<'_>, x: &[f32]| -> Vec<f32> {
                let through = |w: Matrix<'_>, x: &[f32]| {
                    let mut y = vec![0.0; w.rows()];
                    linear(x, w.into(), &mut y, Write::Set, Activations::F32);
                    y
                };
                let (gate, up) = (through(e.gate, x), through(e.up, x));
                let silu = |(g, u): (&f32, &f32)| g / (1.0 + (-g).exp()) * u;
                through(
                    e.down,
                    &gate.iter().zip(&up).map(silu).collect::<Vec<f32>>(),
                )
            };
            let mut truth = Vec::new();
            for (i, x) in x.chunks(size).enumerate() {
                let mut sum = alone(expert(4), x);
                for slot in i * k..(i + 1) * k {
                    let y = alone(of[chosen[slot] as usize], x);
                    sum.iter_mut()
                        .zip(y)
                        .for_each(|(s, y)| *s += share[slot] * y);
                }
                truth.extend(sum);
            }
            for (activations, bound) in [(Activations::F32, 1e-5), (Activations::Bf16, 2e-2)] {
                let run = || {
                    let mut y = vec![f32::NAN; n * size];
                    experts(
                        &x,
                        &of,
                        Some(expert(4)),
                        &chosen,
                        &share,
                        &mut y,
                        activations,
                    );
                    y
                };
                let [one, two, three] = in_pools(run);
                assert!(one == two && one == three, "the number of threads");
                assert!(
                    distance(&one, &truth) < bound,
                    "{inner} {n} {activations:?}"
                );
            }
        }
    }
}
