use super::{cached::causal_attention_with, *};
use crate::{
    noise::noise,
    product::Activations::{self, F32},
};

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// One output row by the definition, in f64.
fn row(scores: &[f64], values: &[&[f32]]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|v| (v - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mix = |c: usize| {
        weights
            .iter()
            .zip(values)
            .map(|(w, v)| w * f64::from(v[c]))
            .sum::<f64>()
    };
    (0..values[0].len()).map(|c| mix(c) / total).collect()
}

/// Arithmetic and how far it may be off: inputs lie in -1..1, so do the outputs.
const WAYS: [(Activations, f64); 2] = [(F32, 2e-5), (Activations::Bf16, 2e-2)];

fn close(out: &[f32], truth: &[f64], bound: f64, what: &str) {
    for (i, (o, t)) in out.iter().zip(truth).enumerate() {
        assert!(
            (f64::from(*o) - t).abs() < bound,
            "{what} [{i}]: {o} for {t}"
        );
    }
}

/// The rows of q, k or v of one head in `[n, 3, heads, dim]`.
fn part(qkv: &[f32], heads: Heads, n: usize, part: usize, head: usize) -> Vec<&[f32]> {
    let at = |i: usize| ((i * 3 + part) * heads.count + head) * heads.dim;
    (0..n).map(|i| &qkv[at(i)..at(i) + heads.dim]).collect()
}

fn bias(q: &[f32], r: &RelativePositions<'_>, query: usize, key: usize) -> f64 {
    let of = |table: &[f32], distance: usize| {
        dot(q, &table[distance * q.len()..(distance + 1) * q.len()])
    };
    of(r.height, query / r.grid + r.grid - 1 - key / r.grid)
        + of(r.width, query % r.grid + r.grid - 1 - key % r.grid)
}

#[test]
fn attention_follows_the_definition_on_every_set() {
    for (n, dim, grid) in [
        (1, 64, None),
        (37, 16, None),
        (300, 8, None),
        (401, 24, None),
        (49, 16, Some(7)),
        (400, 64, Some(20)),
    ] {
        let heads = Heads::new(2, dim);
        let qkv = noise(n * 3 * heads.width(), n as u64);
        let tables = noise(4 * n * dim, 5);
        let relative = grid.map(|grid| {
            let table = (2 * grid - 1) * dim;
            RelativePositions {
                height: &tables[..table],
                width: &tables[table..2 * table],
                grid,
            }
        });
        let ways = || WAYS.into_iter();
        for (&isa, (way, bound)) in Isa::available()
            .iter()
            .flat_map(|isa| ways().map(move |w| (isa, w)))
        {
            let mut out = vec![f32::NAN; n * heads.width()];
            attention_with(isa, &qkv, n, heads, relative, &mut out, way);
            for head in 0..heads.count {
                let [q, k, v] = [0, 1, 2].map(|p| part(&qkv, heads, n, p, head));
                for i in 0..n {
                    let score = |j: usize| {
                        dot(q[i], k[j]) * f64::from(heads.scale)
                            + relative.map_or(0.0, |r| bias(q[i], &r, i, j))
                    };
                    let scores: Vec<f64> = (0..n).map(score).collect();
                    let at = (i * heads.count + head) * dim;
                    close(
                        &out[at..at + dim],
                        &row(&scores, &v),
                        bound,
                        &format!("{isa:?} {way:?} n {n} dim {dim} query {i}"),
                    );
                }
            }
        }
    }
}

#[test]
fn windows_reach_over_the_edge_with_their_padding() {
    let (window, heads, (height, width)) = (3, Heads::new(2, 8), (4, 5));
    let (row_len, batch) = (heads.width(), 2);
    let qkv = noise(batch * height * width * 3 * row_len, 3);
    let padding = noise(3 * row_len, 4);
    let table = (2 * window - 1) * heads.dim;
    let tables = noise(2 * table, 5);
    let relative = RelativePositions {
        height: &tables[..table],
        width: &tables[table..],
        grid: window,
    };
    let mut out = vec![f32::NAN; batch * height * width * row_len];
    window_attention(
        &qkv,
        (height, width),
        window,
        &padding,
        heads,
        relative,
        &mut out,
        F32,
    );
    // The same by plain attention on windows laid out by hand.
    for page in 0..batch {
        for (wy, wx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let position = |i: usize| {
                let (y, x) = (wy * window + i / window, wx * window + i % window);
                (y < height && x < width).then_some((page * height + y) * width + x)
            };
            let rows = (0..window * window).map(|i| match position(i) {
                Some(p) => &qkv[p * 3 * row_len..(p + 1) * 3 * row_len],
                None => &padding[..],
            });
            let laid: Vec<f32> = rows.flatten().copied().collect();
            let mut truth = vec![0.0; window * window * row_len];
            attention(
                &laid,
                window * window,
                heads,
                Some(relative),
                &mut truth,
                F32,
            );
            for i in 0..window * window {
                if let Some(p) = position(i) {
                    let expected = &truth[i * row_len..(i + 1) * row_len];
                    assert_eq!(&out[p * row_len..(p + 1) * row_len], expected);
                }
            }
        }
    }
}

#[test]
fn causal_attention_sees_the_past_only_on_every_set() {
    for (first, n, dim, kv) in [
        (0, 300, 16, 2),
        (5, 1, 128, 4),
        (700, 130, 8, 1),
        (0, 1, 8, 4),
    ] {
        let (heads, capacity) = (Heads::new(4, dim), first + n + 3);
        let q = noise(n * heads.width(), 1);
        let mut keys = noise(kv * capacity * dim, 2);
        let values = noise(kv * capacity * dim, 3);
        // What lies beyond the last position must not be read as a number.
        for head in keys.chunks_mut(capacity * dim) {
            head[(first + n) * dim..].fill(f32::NAN);
        }
        let cache = Cache {
            keys: &keys,
            values: &values,
            heads: kv,
            capacity,
        };
        let ways = || WAYS.into_iter();
        for (&isa, (way, bound)) in Isa::available()
            .iter()
            .flat_map(|isa| ways().map(move |w| (isa, w)))
        {
            let mut out = vec![f32::NAN; q.len()];
            causal_attention_with(isa, &q, cache, first, heads, &mut out, way);
            for head in 0..heads.count {
                let base = head / (heads.count / kv) * capacity * dim;
                for i in 0..n {
                    let at = (i * heads.count + head) * dim;
                    let seen = first + i + 1;
                    let key = |j: usize| &keys[base + j * dim..base + (j + 1) * dim];
                    let scores: Vec<f64> = (0..seen)
                        .map(|j| dot(&q[at..at + dim], key(j)) * f64::from(heads.scale))
                        .collect();
                    let v: Vec<&[f32]> = (0..seen)
                        .map(|j| &values[base + j * dim..base + (j + 1) * dim])
                        .collect();
                    close(
                        &out[at..at + dim],
                        &row(&scores, &v),
                        bound,
                        &format!("{isa:?} {way:?} first {first} query {i}"),
                    );
                }
            }
        }
    }
}
