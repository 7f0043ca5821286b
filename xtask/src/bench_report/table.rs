//! The page's text: machines, what is missing, and a table for each group.

use super::{
    figures,
    groups::{self, Limits},
    plot::{BATCH, PAGES, Plot},
    results::{Device, Group, Measured, Results, Row, Run},
};
use std::fmt::Write;

/// What the page says of itself.
const HEAD: &str = "\
# Benchmarks

Made by `cargo xtask bench-report` from what `cargo bench -p agx-ocr-benches` and, with a GPU,
`cargo bench -p agx-ocr-benches --features cuda` leave in `target/criterion`. Changes by hand are
lost.

";

/// The page in Markdown. Plots lie in the directory `plots`, from the page on.
pub fn page(results: &Results, plots: &[Plot], directory: &str) -> String {
    let mut page = HEAD.to_owned();
    page += &machines(&results.runs);
    page += &notes(results);
    page += &missing(results, plots);
    let link = |plot: &Plot| format!("\n![{}]({directory}/{})\n", plot.title, plot.file);
    let (of_groups, others): (Vec<&Plot>, _) = plots.iter().partition(|p| p.group.is_some());
    for plot in others {
        let _ = write!(page, "\n## {}\n{}", plot.title, link(plot));
    }
    for group in &results.groups {
        let _ = writeln!(page, "\n## `{}`\n", group.name);
        if let Some(about) = groups::about(&group.name) {
            let _ = writeln!(page, "{about}\n");
        }
        page += &table(group, &results.runs);
        for plot in &of_groups {
            if plot.group.as_ref() == Some(&group.name) {
                page += &link(plot);
            }
        }
    }
    page
}

fn machines(runs: &[Run]) -> String {
    let rows = runs.iter().map(|run| {
        let (label, name) = (run.label.clone(), run.machine.name.clone());
        let machine = match (label, name) {
            (Some(label), Some(name)) => format!("{label}: {name}"),
            (label, name) => label.or(name).unwrap_or_else(|| "not recorded".into()),
        };
        let Limits {
            read_gb_s,
            bf16_tflop_s,
            f32_tflop_s,
        } = run.machine.limits;
        let shown = |limit: Option<f64>, unit| match limit {
            Some(limit) => format!("{} {unit}", figures::number(limit, 3)),
            None => String::new(),
        };
        vec![
            run.heading.clone(),
            machine,
            shown(read_gb_s, "GB/s"),
            shown(bf16_tflop_s, "TFLOP/s"),
            shown(f32_tflop_s, "TFLOP/s"),
            run.machine.date.clone().unwrap_or_default(),
        ]
    });
    let heads = [
        "results",
        "machine",
        "limit of reading",
        "of bf16 products",
        "of f32 products",
        "measured",
    ];
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = heads.iter().enumerate().map(|(i, head)| Column {
        head: (*head).to_owned(),
        numbers: (2..5).contains(&i),
        cells: rows.iter().map(|row| row[i].clone()).collect(),
    });
    markdown(columns.collect())
}

/// How to read the tables.
fn notes(results: &Results) -> String {
    let mut notes = "
* Times are medians, with their 95 % confidence intervals.
* A multiply-add is two operations.
"
    .to_owned();
    let others = |run: &Run| run.device != Device::Cpu;
    if results.has(Device::Cpu) && results.runs.iter().any(others) {
        notes += "* A ratio says how many times as long the first takes for the same work.\n";
    }
    if results.runs.iter().any(|run| run.machine.limits.any()) {
        notes += "\
* A share is of a limit of the machine: of reading where bytes are counted; where operations are, of
  bf16 products, or of f32 products if the workload's name says F32. One row and few rows reach
  little of the latter: memory binds them. Above 100 %, caches helped, or the machine was slower
  while its limit was measured.
";
    }
    notes
}

/// A line for each thing that is not there.
fn missing(results: &Results, plots: &[Plot]) -> String {
    let mut lines = Vec::new();
    for (device, command) in [
        (Device::Cpu, "cargo bench -p agx-ocr-benches"),
        (
            Device::Cuda,
            "cargo bench -p agx-ocr-benches --features cuda",
        ),
    ] {
        if !results.has(device) {
            let name = device.name();
            lines.push(format!("No results of {name}: `{command}` makes them."));
        }
    }
    for run in results.runs.iter().filter(|r| !r.machine.limits.any()) {
        let (heading, prefix) = (&run.heading, run.device.prefix());
        lines.push(format!(
            "No limits of {heading}, so no shares: no `machine-{prefix}.json` tells them."
        ));
    }
    for (plot, what) in [
        (PAGES, "whole pages, groups `page_…`"),
        (BATCH, "pages decoded together, group `batch`"),
    ] {
        if plots.iter().all(|there| there.file != plot) {
            lines.push(format!("No results of {what}."));
        }
    }
    let lines = lines.iter().map(|line| format!("* {line}\n"));
    match lines.len() {
        0 => String::new(),
        _ => format!("\nMissing:\n\n{}", lines.collect::<String>()),
    }
}

/// A group's table: times, ratios, rates, shares.
fn table(group: &Group, runs: &[Run]) -> String {
    let workloads = group.rows.iter().map(|row| format!("`{}`", row.workload));
    let mut columns = vec![Column {
        head: "workload".into(),
        numbers: false,
        cells: workloads.collect(),
    }];
    let mut column = |head: String, cell: &dyn Fn(&Row) -> Option<String>| {
        let cells = group.rows.iter().map(|row| cell(row).unwrap_or_default());
        columns.push(Column {
            head,
            numbers: true,
            cells: cells.collect(),
        });
    };
    for (i, run) in runs.iter().enumerate() {
        let time = |row: &Row| Some(figures::time(&row.measured[i]?.time));
        column(format!("{} time", run.heading), &time);
    }
    let of_cpu = |run: &Run| run.device == Device::Cpu;
    if let Some(cpu) = runs.iter().position(of_cpu) {
        for (i, run) in runs.iter().enumerate().filter(|(_, run)| !of_cpu(run)) {
            let ratio = |row: &Row| {
                let (cpu, other) = (row.measured[cpu]?, row.measured[i]?);
                Some(figures::ratio(&cpu, &other))
            };
            column(format!("{} / {}", runs[cpu].heading, run.heading), &ratio);
        }
    }
    for (i, run) in runs.iter().enumerate() {
        let rate = |row: &Row| {
            let measured: Measured = row.measured[i]?;
            let rate = groups::rate(&group.name, &row.workload, &measured)?;
            Some(figures::rate(&rate))
        };
        column(format!("{} rate", run.heading), &rate);
    }
    for (i, run) in runs.iter().enumerate() {
        let share = |row: &Row| {
            let measured: Measured = row.measured[i]?;
            let limits = &run.machine.limits;
            let share = groups::share(&group.name, &row.workload, &measured, limits)?;
            Some(figures::percent(share))
        };
        column(format!("{} share", run.heading), &share);
    }
    markdown(columns)
}

struct Column {
    head: String,
    numbers: bool,
    cells: Vec<String>,
}

/// A table of the columns that are not empty.
fn markdown(mut columns: Vec<Column>) -> String {
    columns.retain(|column| column.cells.iter().any(|cell| !cell.is_empty()));
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let escaped = |cell: &str| cell.replace('|', "\\|");
    let mut table = line(columns.iter().map(|c| escaped(&c.head)).collect());
    let rule = |column: &Column| if column.numbers { "---:" } else { "---" }.to_owned();
    table += &line(columns.iter().map(rule).collect());
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for i in 0..rows {
        table += &line(columns.iter().map(|c| escaped(&c.cells[i])).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_columns_are_left_out() {
        let column = |head: &str, cells: [&str; 2]| Column {
            head: head.into(),
            numbers: head != "name",
            cells: cells.map(str::to_owned).into(),
        };
        let table = markdown(vec![
            column("name", ["a|b", "c"]),
            column("none", ["", ""]),
            column("some", ["", "1"]),
        ]);
        let wanted = "| name | some |\n| --- | ---: |\n| a\\|b |  |\n| c | 1 |\n";
        assert_eq!(table, wanted);
    }
}
