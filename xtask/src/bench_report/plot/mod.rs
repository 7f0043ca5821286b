//! Plots as SVG: which there are, and what they are drawn of.

mod axis;
mod bars;
mod canvas;
mod lines;

use super::{
    figures,
    groups::{self, Unit},
    results::{Group, Results, Run},
};
use bars::{Bar, Bars};
pub use canvas::MADE;
use lines::{Line, Lines};
use std::iter;

/// A file beside the page.
pub struct Plot {
    pub file: String,
    pub title: String,
    /// The group beside whose table it stands.
    pub group: Option<String>,
    pub svg: String,
}

/// The plots that belong to no group.
pub const PAGES: &str = "pages.svg";
pub const BATCH: &str = "batch.svg";

/// All plots that the results allow.
pub fn all(results: &Results) -> Vec<Plot> {
    let shares = results.groups.iter();
    let shares = shares.filter_map(|group| shares_of(group, &results.runs));
    let first = [pages(results), batch(results)];
    first.into_iter().flatten().chain(shares).collect()
}

/// The colours of runs: apart from each other for the colour-blind, too.
const COLORS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

fn color(run: usize) -> &'static str {
    COLORS[run % COLORS.len()]
}

/// Each run that has something to show, by its colour.
fn legend(runs: &[Run], shown: impl Fn(usize) -> bool) -> Vec<(String, &'static str)> {
    let runs = runs.iter().enumerate().filter(|(i, _)| shown(*i));
    runs.map(|(i, run)| (run.heading.clone(), color(i)))
        .collect()
}

/// Seconds of whole pages.
fn pages(results: &Results) -> Option<Plot> {
    let is_page = |group: &&Group| group.name.starts_with("page");
    let mut rows = Vec::new();
    for group in results.groups.iter().filter(is_page) {
        let model = group
            .name
            .trim_start_matches("page")
            .trim_start_matches('_');
        for row in &group.rows {
            let bars = row
                .measured
                .iter()
                .enumerate()
                .filter_map(|(run, measured)| {
                    let time = measured.as_ref()?.time;
                    Some(Bar {
                        run,
                        value: time.median,
                        interval: Some((time.low, time.high)),
                        text: format!("{} s", figures::number(time.median, 3)),
                    })
                });
            let label = match model {
                "" => row.workload.clone(),
                model => format!("{model}: {}", row.workload),
            };
            rows.push((label, bars.collect()));
        }
    }
    let title = "Seconds per page";
    let svg = Bars {
        title,
        axis: "seconds",
        hint: "less is better; thin lines are 95 % confidence intervals",
        mark: None,
        may_be_logarithmic: true,
        rows,
    }
    .draw(&results.runs)?;
    Some(Plot {
        file: PAGES.into(),
        title: title.into(),
        group: None,
        svg,
    })
}

/// Tokens a second by the number of pages that are decoded together.
fn batch(results: &Results) -> Option<Plot> {
    let group = results.groups.iter().find(|group| group.name == "batch")?;
    let mut lines: Vec<Line> = Vec::new();
    // A run's first line has its colour; others have what no run has.
    let mut free = results.runs.len()..;
    for (run, of_run) in results.runs.iter().enumerate() {
        let mut colors = iter::once(run).chain(free.by_ref()).map(color);
        for row in &group.rows {
            let Some((of, size)) = batch_size(&row.workload) else {
                continue;
            };
            let rate = row.measured[run].as_ref();
            let rate = rate.and_then(|m| groups::rate(&group.name, &row.workload, m));
            let Some(rate) = rate.filter(|rate| rate.unit == Unit::Tokens) else {
                continue;
            };
            let name = match of {
                "" => of_run.heading.clone(),
                of => format!("{}, {of}", of_run.heading),
            };
            let point = (size as f64, rate.per_second);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name,
                    color: colors.next().unwrap_or_default(),
                    points: vec![point],
                }),
            }
        }
    }
    let title = "Tokens a second by batch size";
    let svg = Lines {
        title,
        across: "pages decoded together",
        up: "tokens a second",
        lines,
    }
    .draw()?;
    Some(Plot {
        file: BATCH.into(),
        title: title.into(),
        group: None,
        svg,
    })
}

/// What stands before the batch size, and that: `full` and 16 of `full/16` and `full/pages_16`.
fn batch_size(workload: &str) -> Option<(&str, u64)> {
    let (of, last) = workload.rsplit_once('/').unwrap_or(("", workload));
    let number = last.strip_prefix("pages_").unwrap_or(last);
    let size = number.parse().ok().filter(|size| *size > 0)?;
    Some((of, size))
}

/// How much of the machines' limits the workloads of a group reach; nothing where there is one alone.
fn shares_of(group: &Group, runs: &[Run]) -> Option<Plot> {
    let rows = group.rows.iter().filter_map(|row| {
        let bars = runs.iter().enumerate().filter_map(|(i, run)| {
            let measured = row.measured[i].as_ref()?;
            let limits = &run.machine.limits;
            let share = groups::share(&group.name, &row.workload, measured, limits)?;
            Some(Bar {
                run: i,
                value: 100.0 * share,
                interval: None,
                text: figures::percent(share),
            })
        });
        let bars: Vec<Bar> = bars.collect();
        (!bars.is_empty()).then(|| (row.workload.clone(), bars))
    });
    let rows: Vec<(String, Vec<Bar>)> = rows.collect();
    if rows.len() < 2 {
        return None;
    }
    let title = format!("{}: share of the machine's limit", group.name);
    let svg = Bars {
        title: &title,
        axis: "per cent of the machine's limit",
        hint: "more is better",
        mark: Some(100.0),
        may_be_logarithmic: false,
        rows,
    }
    .draw(runs)?;
    let name = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = group.name.chars().map(name).collect();
    Some(Plot {
        file: format!("share_{name}.svg"),
        title,
        group: Some(group.name.clone()),
        svg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_are_numbers() {
        assert_eq!(batch_size("16"), Some(("", 16)));
        assert_eq!(batch_size("pages_16"), Some(("", 16)));
        assert_eq!(batch_size("full/pages_2"), Some(("full", 2)));
        assert_eq!(batch_size("0"), None);
        assert_eq!(batch_size("pages"), None);
    }
}
