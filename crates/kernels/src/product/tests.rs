use super::*;
use crate::noise::noise;
use half::bf16;

/// One block of `rows` rows against a panel, both packed in every way, beside the definition.
struct Check {
    rows: usize,
    columns: usize,
    depth: usize,
}

impl Work for Check {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let Self {
            rows,
            columns,
            depth,
        } = self;
        // Values that bf16 holds: what is left of errors is the order of sums.
        let exact = |n, seed| -> Vec<f32> {
            let noise = noise(n, seed).into_iter();
            noise.map(|v| bf16::from_f32(v).to_f32()).collect()
        };
        let (x, w) = (exact(rows * depth, 1), exact(columns * depth, 2));
        let halves: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
        let turned: Vec<f32> = (0..depth * columns)
            .map(|i| w[i % columns * depth + i / columns])
            .collect();
        let left = Left::<M::Value>::of(m.isa(), &x, depth);
        let mut panels = [0; 3].map(|_| {
            let mut panel = Lines::<M::Value>::new(left.steps() * SIDE * SIDE);
            // What was there before must not show: all bits set is not a number.
            bytemuck::cast_slice_mut::<M::Value, u8>(&mut panel).fill(0xff);
            panel
        });
        let of = |w: &[bf16]| w.chunks(depth).map(<[bf16]>::to_vec).collect::<Vec<_>>();
        let halves = of(&halves);
        let halves: Vec<&[bf16]> = halves.iter().map(|r| &r[..]).collect();
        let singles: Vec<&[f32]> = w.chunks(depth).collect();
        let turned: Vec<&[f32]> = turned.chunks(columns).collect();
        M::Value::panel(m.isa(), &halves, &halves, &mut panels[0]);
        M::Value::panel_f32(m.isa(), &singles, &mut panels[1]);
        M::Value::panel_of_columns(m.isa(), &turned, &mut panels[2]);
        for panel in &panels {
            let mut c = vec![1.0; SIDE * (SIDE + 3)];
            let run = |c: &mut [f32], add: bool| {
                let (a, b) = (left.block(0).as_ptr(), panel.as_ptr());
                // SAFETY: packed operands of `steps` steps; SIDE rows of SIDE + 3 values.
                m.ready(|| unsafe {
                    if add {
                        m.block::<true>(a, b, left.steps(), rows, c.as_mut_ptr(), SIDE + 3);
                    } else {
                        m.block::<false>(a, b, left.steps(), rows, c.as_mut_ptr(), SIDE + 3);
                    }
                });
            };
            for times in 1..=2 {
                run(&mut c, times == 2);
                for (i, c) in c.chunks(SIDE + 3).take(rows).enumerate() {
                    for (j, &sum) in c[..SIDE].iter().enumerate() {
                        let term =
                            |t: usize| f64::from(x[i * depth + t]) * f64::from(w[j * depth + t]);
                        let truth = match j < columns {
                            true => f64::from(times) * (0..depth).map(term).sum::<f64>(),
                            false => 0.0,
                        };
                        let error = (f64::from(sum) - truth).abs();
                        assert!(error < 1e-4, "{:?} [{i}, {j}]: {sum} for {truth}", m.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_follow_the_definition_in_every_way() {
    for (rows, columns, depth) in [
        (32, 32, 64),
        (1, 1, 1),
        (16, 20, 33),
        (17, 16, 7),
        (31, 5, 100),
    ] {
        for &isa in Isa::available() {
            for activations in [Activations::F32, Activations::Bf16] {
                let check = Check {
                    rows,
                    columns,
                    depth,
                };
                with(isa, activations, check);
            }
        }
    }
}
