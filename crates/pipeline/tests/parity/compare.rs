//! Comparing a run with the dump, and the table of what was found.

use crate::case::Case;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The figures of one test, printed at its end; it fails then if one was out of bounds.
pub struct Table {
    title: &'static str,
    /// For each stage (layers put together) the worst error, its bound and its case.
    stages: BTreeMap<String, (f64, f64, &'static str)>,
    lines: Vec<String>,
    failures: Vec<String>,
    /// Errors and drifts of the last position's logits, where these are taken together.
    last: Option<Vec<(f64, f64)>>,
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

    /// Compares every stage that the dump has; `bound` gives the largest relative L2 error.
    pub fn stages(&mut self, case: &Case, bound: impl Fn(&str) -> f64) {
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
            let (error, limit) = (relative(&found, truth), bound(stage));
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

    /// Compares the sets of experts; with a gap, sets may differ only where the last chosen and
    /// the first other expert are closer than it.
    pub fn routers(&mut self, case: &Case, gap: Option<f64>) {
        for name in case
            .dump
            .names()
            .filter(|name| name.ends_with("router.idx"))
        {
            let (shape, truth) = case.dump.get(name).unwrap();
            let found = case.stages[name]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let weights = case.stages[&name.replace(".idx", ".weight")]
                .flatten_all()
                .unwrap();
            let weights = weights.to_vec1::<f32>().unwrap();
            let (_, true_weights) = case.dump.get(&name.replace(".idx", ".weight")).unwrap();
            let k = shape[1];
            let mut same = 0;
            for row in 0..shape[0] {
                let at = row * k..(row + 1) * k;
                let set = |ids: &mut dyn Iterator<Item = u32>| {
                    let mut ids: Vec<u32> = ids.collect();
                    ids.sort_unstable();
                    ids
                };
                let ours = set(&mut found[at.clone()].iter().map(|v| *v as u32));
                if ours == set(&mut truth[at.clone()].iter().map(|v| *v as u32)) {
                    same += 1;
                    continue;
                }
                // Where near-equals changed places, so did their weights by no more than the gap.
                let (a, b) = (f64::from(weights[at.end - 1]), true_weights[at.end - 1]);
                if gap.is_some_and(|gap| (a - b).abs() > gap) {
                    self.failures.push(format!(
                        "{} {name} row {row}: another set of experts",
                        case.name
                    ));
                }
            }
            self.lines.push(format!(
                "{} {name}: {same} of {} sets equal",
                case.name, shape[0]
            ));
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
        if same < certain {
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

    pub fn finish(mut self) {
        println!(
            "\n## {}\n\n| stage | largest relative L2 | bound | case |\n|---|---|---|---|",
            self.title
        );
        for (stage, (error, bound, case)) in &self.stages {
            println!("| {stage} | {error:.2e} | {bound:.2e} | {case} |");
        }
        println!();
        if let Some(last) = &self.last {
            let mean = |of: fn(&(f64, f64)) -> f64| {
                let sum: f64 = last.iter().map(|pair| of(pair).powi(2)).sum();
                (sum / last.len() as f64).sqrt()
            };
            let (error, drift) = (mean(|pair| pair.0), mean(|pair| pair.1));
            let line = format!("logits.last over all cases: {error:.2e}, drift {drift:.2e}");
            if error.is_nan() || error > drift {
                self.failures.push(line.clone());
            }
            self.lines.push(line);
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
