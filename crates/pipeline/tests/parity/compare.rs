//! Comparing a run with the dump, and the table of what was found.

use crate::{case::Case, decoding::Decoding};
use candle_core::Tensor;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// The figures of one test, printed at its end; it fails then if one was out of bounds.
pub struct Table {
    title: &'static str,
    /// For each stage (layers put together) the worst error, its bound and its case.
    stages: BTreeMap<String, (f64, f64, &'static str)>,
    lines: Vec<String>,
    failures: Vec<String>,
    /// Errors and drifts of the last position's logits, where these are taken together.
    last: Option<Vec<(f64, f64)>>,
    /// Differences of log-probabilities between decoding and the prompt's way, and their drifts.
    decoded: Vec<(f64, f64)>,
}

impl Table {
    /// Each stage of each case has its own bound.
    pub fn new(title: &'static str) -> Self {
        Self {
            title,
            stages: BTreeMap::new(),
            lines: Vec::new(),
            failures: Vec::new(),
            last: None,
            decoded: Vec::new(),
        }
    }

    /// Bounds are drifts of the reference. The last position's logits are one row, and one expert
    /// chosen otherwise moves it whole: there all cases are compared together, error against
    /// drift, root mean squares.
    pub fn drift(title: &'static str) -> Self {
        Self {
            last: Some(Vec::new()),
            ..Self::new(title)
        }
    }

    /// Compares every stage that the dump has; `bound` gives the largest relative L2 error. From
    /// the first layer on where nearly equal experts changed places, one row computes something
    /// else, and others attend to it: there `drift` is the bound.
    pub fn stages(
        &mut self,
        case: &Case,
        bound: impl Fn(&str) -> f64,
        drift: impl Fn(&str) -> f64,
    ) {
        let tied = first_other_set(case);
        let mut compared = 0;
        for name in case.dump.names() {
            let Some((stage, part)) = stage(name) else {
                continue;
            };
            let Some(value) = case.stages.get(stage) else {
                panic!("{}: nothing was recorded for {name}", case.name);
            };
            let (shape, truth) = case.dump.get(name).unwrap();
            let rows = case
                .dump
                .get("rows")
                .map(|(_, rows)| rows.clone())
                .unwrap_or_default();
            let value = part.of(value, &rows);
            assert_eq!(
                value.elem_count(),
                truth.len(),
                "{} {name}: {:?} for {shape:?}",
                case.name,
                value.dims()
            );
            let found = value.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let behind = tied.is_some_and(|tied| layer(stage).is_some_and(|layer| layer >= tied));
            let limit = if behind { drift(stage) } else { bound(stage) };
            let error = relative(&found, truth);
            // A stage's errors count relative to its bound: bounds differ by case.
            let entry = self
                .stages
                .entry(name.to_owned())
                .or_insert((0.0, limit, case.name));
            if error / limit >= entry.0 / entry.1 {
                *entry = (error, limit, case.name);
            }
            if let (Some(last), "logits.last") = (&mut self.last, name) {
                last.push((error, limit));
            } else if error.is_nan() || error > limit {
                self.failures.push(format!(
                    "{} {name}: {error:.2e} is above {limit:.2e}",
                    case.name
                ));
            }
            compared += 1;
        }
        assert!(
            compared >= 8,
            "{}: only {compared} stages compared",
            case.name
        );
        if let Some((_, truth)) = case.dump.get("logits.argmax_all") {
            let found = case.stages["logits.all"]
                .argmax(1)
                .unwrap()
                .to_vec1::<u32>()
                .unwrap();
            let same = found
                .iter()
                .zip(truth)
                .filter(|(a, b)| **a == **b as u32)
                .count();
            self.lines.push(format!(
                "{}: {same} of {} positions have the same best token",
                case.name,
                truth.len()
            ));
        }
    }

    /// Compares the sets of experts; with a gap, the first layer where sets differ may do so only
    /// where the last chosen and the first other expert are closer than it.
    pub fn routers(&mut self, case: &Case, gap: Option<f64>) {
        let tied = first_other_set(case);
        for (layer, name) in routers(case) {
            let sets = Sets::of(case, &name);
            let others = sets.others();
            self.lines.push(format!(
                "{} {name}: {} of {} sets equal",
                case.name,
                sets.rows - others.len(),
                sets.rows
            ));
            let (Some(gap), true) = (gap, tied == Some(layer)) else {
                continue;
            };
            for row in others {
                // Where near-equals changed places, so did their weights by no more than the gap.
                if sets.last_weights(row) > gap {
                    let failure = format!("{} {name} row {row}: another set", case.name);
                    self.failures.push(failure);
                }
            }
        }
    }

    /// Compares greedy tokens up to the first step where the two best logits are closer than
    /// `gap`.
    pub fn tokens(&mut self, case: &Case, gap: f64) {
        let (Some(truth), Some((_, top))) = (
            case.dump.ids("gen.tokens"),
            case.dump.get("gen.top5_logits"),
        ) else {
            return;
        };
        let certain = top
            .chunks(5)
            .take_while(|top| top[0] - top[1] > gap)
            .count();
        let same = truth
            .iter()
            .zip(&case.tokens)
            .take_while(|(a, b)| a == b)
            .count();
        self.lines.push(format!(
            "{}: {same} of {} tokens equal, {certain} certain",
            case.name,
            truth.len()
        ));
        // A row that computed something else may choose another token.
        if same < certain && first_other_set(case).is_none() {
            self.failures
                .push(format!("{}: token {same} differs", case.name));
        }
    }

    /// Compares greedy tokens under the reference's guards.
    pub fn guards(&mut self, case: &Case) {
        assert_eq!(case.guarded.len(), 3, "{}", case.name);
        for (name, tokens) in &case.guarded {
            if case.dump.ids(name).as_ref() != Some(tokens) {
                self.failures.push(format!("{}: {name} differs", case.name));
            }
        }
    }

    /// Takes in how far decoding is from the prompt's way, which both are off by `drift` of the
    /// logits' size: their difference by the square root of two times that, over all cases.
    pub fn decoding(&mut self, case: &Case, drift: f64) {
        let Decoding { differences, size } = &case.decoding;
        let drift = 2_f64.sqrt() * drift * size;
        let differences = differences.iter().map(|difference| (*difference, drift));
        self.decoded.extend(differences);
    }

    /// Fails where the root mean square of errors is above that of their drifts.
    fn together(&mut self, what: &str, errors: &[(f64, f64)]) {
        let mean = |of: fn(&(f64, f64)) -> f64| {
            let sum: f64 = errors.iter().map(|pair| of(pair).powi(2)).sum();
            (sum / errors.len() as f64).sqrt()
        };
        let (error, drift) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let line = format!("{what} over all cases: {error:.2e}, drift {drift:.2e}");
        if error.is_nan() || error > drift {
            self.failures.push(line.clone());
        }
        self.lines.push(line);
    }

    pub fn finish(mut self) {
        println!(
            "\n## {}\n\n| stage | largest relative L2 | bound | case |\n|---|---|---|---|",
            self.title
        );
        for (stage, (error, bound, case)) in &self.stages {
            println!("| {stage} | {error:.2e} | {bound:.2e} | {case} |");
        }
        println!();
        if let Some(last) = self.last.take() {
            self.together("logits.last", &last);
        }
        let decoded = mem::take(&mut self.decoded);
        if !decoded.is_empty() {
            let what = format!("log-probabilities of {} decoded tokens", decoded.len());
            self.together(&what, &decoded);
        }
        self.lines.iter().for_each(|line| println!("{line}"));
        assert!(
            self.failures.is_empty(),
            "{}:\n{}",
            self.title,
            self.failures.join("\n")
        );
    }
}

/// The routers of a case with their layers, from the first on.
fn routers(case: &Case) -> Vec<(usize, String)> {
    let names = case
        .dump
        .names()
        .filter(|name| name.ends_with("router.idx"));
    let mut routers: Vec<_> = names
        .map(|name| (layer(name).unwrap(), name.to_owned()))
        .collect();
    routers.sort();
    routers
}

/// The first layer where a row has other experts than in the dump.
fn first_other_set(case: &Case) -> Option<usize> {
    let other = |(_, name): &(usize, String)| !Sets::of(case, name).others().is_empty();
    routers(case)
        .into_iter()
        .find(other)
        .map(|(layer, _)| layer)
}

/// The layer that a stage of the decoder belongs to; what follows the layers is behind all.
fn layer(stage: &str) -> Option<usize> {
    match stage.strip_prefix("lm.layer") {
        Some(rest) => rest.split('.').next()?.parse().ok(),
        None => ["lm.norm", "logits"]
            .iter()
            .any(|start| stage.starts_with(start))
            .then_some(usize::MAX),
    }
}

/// The experts of all rows in one layer, ours and the dump's.
struct Sets {
    rows: usize,
    chosen: usize,
    ids: [Vec<f64>; 2],
    weights: [Vec<f64>; 2],
}

impl Sets {
    fn of(case: &Case, name: &str) -> Self {
        let both = |name: &str| {
            let ours = case.stages[name].flatten_all().unwrap();
            let ours = ours.to_vec1::<f32>().unwrap();
            let (_, truth) = case.dump.get(name).unwrap();
            [ours.into_iter().map(f64::from).collect(), truth.clone()]
        };
        let (shape, _) = case.dump.get(name).unwrap();
        Self {
            rows: shape[0],
            chosen: shape[1],
            ids: both(name),
            weights: both(&name.replace(".idx", ".weight")),
        }
    }

    /// The rows whose sets differ.
    fn others(&self) -> Vec<usize> {
        let set = |ids: &[f64], row: usize| {
            let ids = &ids[row * self.chosen..(row + 1) * self.chosen];
            ids.iter().map(|id| *id as u32).collect::<BTreeSet<_>>()
        };
        let differ = |row: &usize| set(&self.ids[0], *row) != set(&self.ids[1], *row);
        (0..self.rows).filter(differ).collect()
    }

    /// How far apart the weights of a row's last experts are.
    fn last_weights(&self, row: usize) -> f64 {
        let [ours, truth] = &self.weights;
        let last = (row + 1) * self.chosen - 1;
        (ours[last] - truth[last]).abs()
    }
}

/// Which part of a stage a dump holds.
enum Part {
    Whole,
    /// The rows that the dump lists.
    Rows,
    /// Every n-th row of the last but one dimension.
    Every(usize),
    /// The first channels of a channels-first map.
    Channels(usize),
    /// Norms of rows.
    RowNorm,
    /// Norms of channels.
    ChannelNorm,
}

impl Part {
    fn of(&self, x: &Tensor, rows: &[f64]) -> Tensor {
        let norm = |x: Tensor| x.sqr().unwrap().sum(x.rank() - 1).unwrap().sqrt().unwrap();
        let select = |x: &Tensor, indices: Vec<u32>| {
            let indices = Tensor::new(indices, x.device()).unwrap();
            x.contiguous()
                .unwrap()
                .index_select(&indices, x.rank() - 2)
                .unwrap()
        };
        match self {
            Self::Whole => x.clone(),
            Self::Rows => select(x, rows.iter().map(|row| *row as u32).collect()),
            Self::Every(n) => {
                let count = x.dim(x.rank() - 2).unwrap() as u32;
                select(x, (0..count).step_by(*n).collect())
            }
            Self::Channels(n) => x.narrow(1, 0, *n).unwrap(),
            Self::RowNorm => norm(x.clone()),
            Self::ChannelNorm => norm(x.flatten_from(2).unwrap()),
        }
    }
}

/// The stage that a dump's tensor belongs to, and which part of it; `None` for tensors that are
/// no stage.
fn stage(name: &str) -> Option<(&str, Part)> {
    let known = ["vis.", "lm.", "logits.last"]
        .iter()
        .any(|start| name.starts_with(start));
    if !known || name.contains("router") {
        return None;
    }
    let (stage, last) = name.rsplit_once('.')?;
    Some(match last {
        "rows" => (stage, Part::Rows),
        "row_norm" => (stage, Part::RowNorm),
        "ch_norm" => (stage, Part::ChannelNorm),
        "c0_16" => (stage, Part::Channels(16)),
        _ => match last.strip_prefix("every").and_then(|n| n.parse().ok()) {
            Some(n) => (stage, Part::Every(n)),
            None => (name, Part::Whole),
        },
    })
}

fn relative(found: &[f32], truth: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let error: f64 = found
        .iter()
        .zip(truth)
        .map(|(a, b)| square(f64::from(*a) - b))
        .sum();
    let size: f64 = truth.iter().map(|b| square(*b)).sum();
    (error / size).sqrt()
}
