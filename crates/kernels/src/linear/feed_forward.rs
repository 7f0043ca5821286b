//! Feed-forward layers: two products with something between, which is packed for the second as
//! soon as the first has it, and never lies in memory as f32.

use super::{
    Activations, Affine, FEW_ROWS, Matrix, Write,
    blocks::{self, Job, Right},
    linear, linear_normed,
    sinks::{Between, Inner, Store},
    stream,
};
use crate::{
    Isa,
    activation::{Function, silu_mul},
    norm::LayerNorm,
    parallel::Shared,
    product::{self, Left, Lines, Multiply, SIDE, Value, Work},
    simd::{Kernel, Simd, dispatch},
};
use rayon::prelude::*;
use std::ops::Range;

/// Adds `second(function(first(norm(x))))` to `x` `[n, size]`.
pub fn add_mlp(
    x: &mut [f32],
    norm: LayerNorm<'_>,
    [first, second]: [Affine<'_>; 2],
    function: Function,
    activations: Activations,
) {
    let n = first.rows_of(x);
    second.check_outputs(n, x);
    assert_eq!(norm.weight.len(), first.weight.cols, "a norm of the inputs");
    assert_eq!(first.weight.rows, second.weight.cols, "layers that follow");
    if n <= FEW_ROWS {
        let mut inner = vec![0.0; n * first.weight.rows];
        linear_normed(x, norm, first, &mut inner, activations);
        function.apply(&mut inner);
        return linear(&inner, second, x, Write::Add, activations);
    }
    let work = Mlp {
        x,
        norm,
        first,
        function,
        second,
    };
    product::with(Isa::detect(), activations, work);
}

struct Mlp<'a> {
    x: &'a mut [f32],
    norm: LayerNorm<'a>,
    first: Affine<'a>,
    function: Function,
    second: Affine<'a>,
}

impl Work for Mlp<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let left = Left::<M::Value>::normed(m.isa(), self.x, &self.norm);
        let width = self.first.weight.rows;
        let mut inner = Left::<M::Value>::new(left.rows(), width);
        let between = Between::Function(self.function, self.first.bias);
        let sink = Inner::new(&mut inner, width, between);
        blocks::run(m, &[Job::new(&left, Right::Rows(self.first.weight), &sink)]);
        drop(left);
        let sink = Store::new(self.x, &self.second, true);
        blocks::run(
            m,
            &[Job::new(&inner, Right::Rows(self.second.weight), &sink)],
        );
    }
}

/// The weights of `down(silu(gate(x)) * up(x))` (Shazeer, 2020).
#[derive(Clone, Copy)]
pub struct Expert<'a> {
    /// `[inner, size]`
    pub gate: Matrix<'a>,
    /// `[inner, size]`
    pub up: Matrix<'a>,
    /// `[size, inner]`
    pub down: Matrix<'a>,
}

impl Expert<'_> {
    fn inner(&self) -> usize {
        self.gate.rows
    }

    fn check(&self, size: usize) {
        let inner = self.inner();
        let shape = |m: &Matrix<'_>| (m.rows, m.cols);
        assert_eq!(shape(&self.gate), (inner, size), "gate");
        assert_eq!(shape(&self.up), (inner, size), "up");
        assert_eq!(shape(&self.down), (size, inner), "down");
    }
}

/// `down(silu(gate(x)) * up(x))`: `x` and `y` are `[n, size]`.
pub fn swiglu(x: &[f32], weights: Expert<'_>, y: &mut [f32], activations: Activations) {
    experts(x, &[], Some(weights), &[], &[], y, activations);
}

/// For each row of `x` `[n, size]` the sum of its chosen experts' outputs, each times its weight,
/// and of the output of `shared`, into `y` `[n, size]`.
///
/// `chosen` and `weights` are `[n, k]`; the numbers of experts are below `of.len()`. An expert runs
/// once, on all its rows together.
pub fn experts(
    x: &[f32],
    of: &[Expert<'_>],
    shared: Option<Expert<'_>>,
    chosen: &[u32],
    weights: &[f32],
    y: &mut [f32],
    activations: Activations,
) {
    let Some(size) = shared.iter().chain(of).next().map(|e| e.gate.cols) else {
        return y.fill(0.0);
    };
    shared
        .iter()
        .chain(of)
        .for_each(|expert| expert.check(size));
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    assert_eq!(chosen.len(), weights.len(), "one weight an expert");
    let n = x.len() / size;
    assert_eq!(x.len(), n * size, "rows of {size}");
    if n == 0 {
        return;
    }
    assert_eq!(chosen.len() % n, 0, "as many experts for every row");
    let isa = Isa::detect();
    let k = chosen.len() / n;
    if n == 1 {
        let routed = chosen
            .iter()
            .zip(weights)
            .map(|(e, w)| (of[*e as usize], *w));
        let parts: Vec<(Expert<'_>, f32)> = routed.chain(shared.map(|e| (e, 1.0))).collect();
        one(isa, x, &parts, y);
        return;
    }
    let work = Experts {
        x,
        n,
        k,
        of,
        shared,
        chosen,
        weights,
        y,
    };
    product::with(isa, activations, work);
}

/// One row through some experts: a parallel region for gates and ups, one for downs.
fn one(isa: Isa, x: &[f32], parts: &[(Expert<'_>, f32)], y: &mut [f32]) {
    let sizes: Vec<(usize, usize)> = parts
        .iter()
        .map(|(expert, _)| (expert.inner(), 4 * expert.gate.cols))
        .collect();
    let mut starts = vec![0];
    for (inner, _) in &sizes {
        starts.push(starts[starts.len() - 1] + inner);
    }
    let mut inner = vec![0.0; starts[parts.len()]];
    let to = Shared::new(&mut inner);
    stream::rows(&sizes, |part, rows| {
        // SAFETY: every task has values of its own.
        let to = unsafe { to.part(starts[part] + rows.start, rows.len()) };
        let expert = &parts[part].0;
        dispatch(
            isa,
            GateUp {
                x,
                expert,
                rows,
                to,
            },
        );
    });
    let size = x.len();
    let mut outs = vec![0.0; parts.len() * size];
    let places = starts.windows(2).zip(outs.chunks_exact_mut(size));
    let downs: Vec<stream::Part<'_>> = parts
        .iter()
        .zip(places)
        .map(|((e, _), (at, y))| stream::Part::new(&inner[at[0]..at[1]], e.down.into(), y))
        .collect();
    stream::run(isa, &downs, 1, Write::Set);
    y.fill(0.0);
    for (out, (_, weight)) in outs.chunks_exact(size).zip(parts) {
        y.iter_mut().zip(out).for_each(|(y, v)| *y += weight * v);
    }
}

struct GateUp<'a> {
    x: &'a [f32],
    expert: &'a Expert<'a>,
    rows: Range<usize>,
    to: &'a mut [f32],
}

impl Kernel for GateUp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // All gates, then all ups: two streams at a time would halve the prefetcher's.
        let Expert { gate, up, .. } = self.expert;
        for (to, row) in self.to.iter_mut().zip(self.rows.clone()) {
            *to = stream::row_dot(s, self.x, gate, row);
        }
        for (to, row) in self.to.iter_mut().zip(self.rows) {
            let up = stream::row_dot(s, self.x, up, row);
            let mut value = [0.0; 1];
            s.store_part(&mut value, silu_mul(s, s.splat(*to), s.splat(up)));
            *to = value[0];
        }
    }
}

struct Experts<'a> {
    x: &'a [f32],
    n: usize,
    k: usize,
    of: &'a [Expert<'a>],
    shared: Option<Expert<'a>>,
    chosen: &'a [u32],
    weights: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Experts<'_> {
    type Output = ();

    fn run<M: Multiply>(self, m: M) {
        let (x, n, k) = (self.x, self.n, self.k);
        let size = x.len() / n;
        let row = |i: usize| &x[i * size..(i + 1) * size];
        // For each expert its slots, places in `chosen`; each begins a block of its own.
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); self.of.len()];
        for (slot, &expert) in self.chosen.iter().enumerate() {
            slots[expert as usize].push(slot);
        }
        let mut members = Vec::new();
        let mut slot_at = Vec::new();
        for (expert, slots) in self.of.iter().zip(&slots).filter(|(_, s)| !s.is_empty()) {
            let start = slot_at.len();
            slot_at.extend(slots.iter().map(|slot| Some(*slot)));
            members.push((*expert, start..slot_at.len()));
            slot_at.resize(slot_at.len().next_multiple_of(SIDE), None);
        }
        let routed = Group::new(members, || {
            Left::pack(m.isa(), slot_at.len(), size, |i, put| {
                if let Some(slot) = slot_at[i] {
                    put(row(slot / k));
                }
            })
        });
        let shared = self.shared.map(|expert| {
            let members = vec![(expert, 0..n)];
            Group::new(members, || Left::of(m.isa(), x, size))
        });
        let mut groups: Vec<_> = routed.into_iter().chain(shared.flatten()).collect();
        Group::run(m, &mut groups);

        let mut place = vec![0; n * k];
        for (at, slot) in slot_at.iter().enumerate() {
            if let Some(slot) = slot {
                place[*slot] = at;
            }
        }
        let shared = self.shared.and(groups.last());
        self.y
            .par_chunks_exact_mut(size)
            .enumerate()
            .for_each(|(i, y)| {
                match shared {
                    Some(shared) => y.copy_from_slice(&shared.out[i * size..(i + 1) * size]),
                    None => y.fill(0.0),
                }
                // In the order of the choice, so that the sum does not depend on the other rows.
                for slot in i * k..(i + 1) * k {
                    let of = &groups[0].out[place[slot] * size..][..size];
                    let weight = self.weights[slot];
                    y.iter_mut().zip(of).for_each(|(y, v)| *y += weight * v);
                }
            });
    }
}

/// Experts of one shape with their rows, which lie in one operand.
struct Group<'a, E> {
    /// Each with its rows; the first of them begins a block.
    members: Vec<(Expert<'a>, Range<usize>)>,
    left: Left<E>,
    inner: Left<E>,
    out: Lines<f32>,
}

impl<'a, E: Value> Group<'a, E> {
    /// `None` without members.
    fn new(
        members: Vec<(Expert<'a>, Range<usize>)>,
        pack: impl FnOnce() -> Left<E>,
    ) -> Option<Self> {
        let (expert, _) = members.first()?;
        let left = pack();
        Some(Self {
            inner: Left::new(left.rows(), expert.inner()),
            out: Lines::new(left.rows() * expert.gate.cols),
            left,
            members,
        })
    }

    /// All gates and ups in one parallel region, then all downs.
    fn run<M: Multiply<Value = E>>(m: M, groups: &mut [Self]) {
        let mut sinks = Vec::new();
        for group in &mut *groups {
            let width = group.members[0].0.inner();
            let sink = Inner::new(&mut group.inner, width, Between::SwiGlu);
            sinks.push((&group.members, &group.left, sink));
        }
        let mut jobs = Vec::new();
        for (members, left, sink) in &sinks {
            jobs.extend(members.iter().map(|(expert, rows)| Job {
                left,
                rows: rows.clone(),
                right: Right::Halves(expert.gate, expert.up),
                sink,
            }));
        }
        blocks::run(m, &jobs);
        drop(jobs);

        let mut sinks = Vec::new();
        for group in groups {
            let down = group.members[0].0.down;
            let sink = Store::new(&mut group.out, &down.into(), false);
            sinks.push((&group.members, &group.inner, sink));
        }
        let mut jobs = Vec::new();
        for (members, inner, sink) in &sinks {
            jobs.extend(members.iter().map(|(expert, rows)| Job {
                left: inner,
                rows: rows.clone(),
                right: Right::Rows(expert.down),
                sink,
            }));
        }
        blocks::run(m, &jobs);
    }
}
