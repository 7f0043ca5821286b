//! The page of benchmarks: what criterion measured on one or several machines, as tables and plots.

mod figures;
mod groups;
mod plot;
mod results;
mod table;

use anyhow::{Context, Result};
use plot::Plot;
use results::{Results, Source};
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub struct Args {
    /// Criterion's directory, or several of several machines, which NAME tells apart. Results of
    /// benchmarks that are gone stay in it: remove it before benchmarks for the page are run.
    #[arg(long, value_name = "[NAME=]DIR", default_value = "target/criterion")]
    from: Vec<Source>,
    /// The page; its plots come into a directory of the same name beside it.
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    to: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let results = Results::read(&args.from)?;
    let plots = plot::all(&results);
    write(&results, &plots, &args.to)?;
    println!(
        "{}: {} workloads in {} groups, {} plots",
        args.to.display(),
        results.workloads(),
        results.groups.len(),
        plots.len()
    );
    Ok(())
}

/// Writes the page and its plots, and removes plots of earlier runs that there are no more.
fn write(results: &Results, plots: &[Plot], to: &Path) -> Result<()> {
    let directory = to.with_extension("");
    let name = directory.file_name().context("the page has no name")?;
    let page = table::page(results, plots, &name.to_string_lossy());
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let made = fs::read_to_string(&path).is_ok_and(|text| text.starts_with(plot::MADE));
        if made && !plots.iter().any(|plot| path.ends_with(&plot.file)) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    for plot in plots {
        let path = directory.join(&plot.file);
        fs::write(&path, &plot.svg).with_context(|| path.display().to_string())?;
    }
    fs::write(to, page).with_context(|| to.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    /// A criterion directory with results of `(name, milliseconds, throughput)`.
    fn criterion(results: &[(&str, f64, Value)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, ms, throughput) in results {
            let new = dir.path().join(name).join("new");
            fs::create_dir_all(&new).unwrap();
            let (group, _) = name.split_once('/').unwrap();
            let benchmark = json!({
                "group_id": group, "full_id": name, "throughput": throughput, "unknown": 1,
            });
            let estimate = |ns: f64| {
                json!({
                    "point_estimate": ns, "standard_error": 0.0,
                    "confidence_interval": {
                        "confidence_level": 0.95, "lower_bound": 0.9 * ns, "upper_bound": 1.1 * ns,
                    },
                })
            };
            let estimates = json!({ "mean": estimate(1.0), "median": estimate(1e6 * ms) });
            for (file, value) in [("benchmark", benchmark), ("estimates", estimates)] {
                let path = new.join(file).with_extension("json");
                fs::write(path, value.to_string()).unwrap();
            }
        }
        dir
    }

    fn cpu() -> TempDir {
        let dir = criterion(&[
            ("cpu_gemm/up_16/Bf16", 2.0, json!({ "Elements": 1e9 })),
            ("cpu_gemm/up_4/Bf16", 1.0, json!({ "Elements": 25e7 })),
            ("cpu_gemm/up_4/F32", 1.0, json!({ "Elements": 1e8 })),
            ("cpu_gemv/head", 20.0, json!({ "Bytes": 400_000_000 })),
            ("cpu_page_mini/receipt", 300.0, Value::Null),
            ("cpu_preprocess/base", 4.0, json!({ "Elements": 2_000_000 })),
            ("cpu_fork_join/awake/empty", 0.01, Value::Null),
            ("somebody_else/of_theirs", 1.0, Value::Null),
        ]);
        let machine = json!({
            "device": "cpu", "name": "A <CPU>", "date": "2026-11-23", "unknown": {},
            "limits": { "read_gb_s": 25.0, "bf16_tflop_s": 4.0, "f32_tflop_s": 0.5 },
        });
        fs::write(dir.path().join("machine-cpu.json"), machine.to_string()).unwrap();
        dir
    }

    fn cuda() -> TempDir {
        criterion(&[
            ("cuda_gemm/up_16/Bf16", 0.02, json!({ "Elements": 1e9 })),
            ("cuda_page_mini/receipt", 3.0, Value::Null),
            ("cuda_batch/pages_16", 10.0, json!({ "Elements": 160 })),
            ("cuda_batch/pages_2", 8.0, json!({ "Elements": 20 })),
            ("cuda_batch/pages_1", 8.0, json!({ "Elements": 10 })),
        ])
    }

    fn source(label: Option<&str>, dir: &TempDir) -> Source {
        Source {
            label: label.map(str::to_owned),
            dir: dir.path().into(),
        }
    }

    /// The page, and the files beside it by name.
    fn report(from: Vec<Source>, to: &TempDir) -> (String, Vec<(String, String)>) {
        let to = to.path().join("benchmarks.md");
        run(&Args {
            from,
            to: to.clone(),
        })
        .unwrap();
        let files = fs::read_dir(to.with_extension("")).unwrap();
        let mut files: Vec<(String, String)> = files
            .map(|file| {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                (name, fs::read_to_string(file.path()).unwrap())
            })
            .collect();
        files.sort();
        (fs::read_to_string(to).unwrap(), files)
    }

    #[test]
    fn two_machines_stand_beside_each_other() {
        let (cpu, cuda, to) = (cpu(), cuda(), tempfile::tempdir().unwrap());
        let from = || vec![source(None, &cpu), source(Some("H100"), &cuda)];
        let (page, files) = report(from(), &to);
        for line in [
            "| CPU | A <CPU> | 25.0 GB/s | 4.00 TFLOP/s | 0.500 TFLOP/s | 2026-11-23 |",
            "| CUDA | H100 |  |  |  |  |",
            "* No limits of CUDA, so no shares: no `machine-cuda.json` tells them.",
            "| workload | CPU time | CUDA time | CPU / CUDA | CPU rate | CUDA rate | CPU share |",
            "| `up_4/F32` | 1.00 ms (0.900 to 1.10) |  |  | 200 GFLOP/s |  | 40 % |",
            "| `up_16/Bf16` | 2.00 ms (1.80 to 2.20) | 20.0 µs (18.0 to 22.0) | 100 x | 1.00 TFLOP/s \
             | 100 TFLOP/s | 25 % |",
            "| `head` | 20.0 ms (18.0 to 22.0) | 20.0 GB/s | 80 % |",
            "| `pages_16` | 10.0 ms (9.00 to 11.0) | 16,000 tokens/s |",
            "| `base` | 4.00 ms (3.60 to 4.40) | 500 Mpixel/s |",
            "![Seconds per page](benchmarks/pages.svg)",
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
        assert!(!page.contains("theirs"));
        let at = |text: &str| page.find(text).unwrap();
        assert!(at("`up_4/Bf16`") < at("`up_16/Bf16`"));
        assert!(at("## `batch`") < at("## `gemm`"));

        let names: Vec<&str> = files.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["batch.svg", "pages.svg", "share_gemm.svg"]);
        assert!(files[1].1.contains("logarithmic"), "100 times as fast");
        // A run has its colour in every plot, here the second.
        let line = files[0].1.lines().find(|l| l.starts_with("<polyline"));
        assert!(line.unwrap().contains("#d55e00"));
        for (name, wanted) in [(0, "16,000"), (1, "0.300 s"), (2, "25 %")] {
            let svg = roxmltree::Document::parse(&files[name].1).unwrap();
            let mut texts = svg.descendants().filter_map(|node| node.text());
            assert!(texts.any(|text| text == wanted), "{wanted}");
        }

        // Again, on what is there.
        assert_eq!(report(from(), &to), (page, files));
    }

    #[test]
    fn what_is_missing_is_said() {
        let (cpu, cuda, to) = (cpu(), cuda(), tempfile::tempdir().unwrap());
        report(vec![source(None, &cpu), source(None, &cuda)], &to);
        let of_others = to.path().join("benchmarks/other.svg");
        fs::write(&of_others, "<svg/>").unwrap();
        let (page, files) = report(vec![source(None, &cpu)], &to);
        assert!(page.contains("\n* No results of CUDA: `cargo bench"));
        assert!(page.contains("\n* No results of pages decoded together"));
        assert!(!page.contains("No limits"));
        let names: Vec<&str> = files.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["other.svg", "pages.svg", "share_gemm.svg"]);
    }

    #[test]
    fn machines_with_the_same_device_are_told_apart() {
        let (a, b, to) = (cpu(), cpu(), tempfile::tempdir().unwrap());
        let from = vec![source(Some("desk"), &a), source(None, &b)];
        let (page, files) = report(from, &to);
        assert!(page.contains("| workload | CPU, desk time | CPU, A <CPU> time |"));
        for (_, svg) in files {
            roxmltree::Document::parse(&svg).unwrap();
        }
    }

    #[test]
    fn no_results_are_an_error_that_says_how_to_make_them() {
        let empty = tempfile::tempdir().unwrap();
        let gone = empty.path().join("gone");
        let read = |dir: &Path| {
            let (label, dir) = (None, dir.to_owned());
            let error = Results::read(&[Source { label, dir }]).unwrap_err();
            format!("{error:#}")
        };
        let text = read(empty.path());
        assert!(text.contains("cargo bench -p agx-ocr-benches --features cuda"));
        assert!(read(&gone).contains("cargo bench"));
    }
}
