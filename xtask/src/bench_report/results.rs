//! Criterion's results, joined by group and workload.
//!
//! A result is named `DEVICE_GROUP/WORKLOAD`. Each device of each machine is a [`Run`], a column of
//! tables and a colour of plots.

use super::groups::{self, Limits};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// A directory of criterion's, and what its machine is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub label: Option<String>,
    pub dir: PathBuf,
}

impl FromStr for Source {
    type Err = Infallible;

    /// Reads `DIR` or `NAME=DIR`; a name has no slash.
    fn from_str(argument: &str) -> Result<Self, Infallible> {
        let named = argument.split_once('=');
        let named = named.filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\']));
        Ok(match named {
            Some((name, dir)) => Self {
                label: Some(name.to_owned()),
                dir: dir.into(),
            },
            None => Self {
                label: None,
                dir: argument.into(),
            },
        })
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    Cpu,
    Cuda,
    Metal,
}

impl Device {
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Metal];

    /// As names of groups begin: `cpu` of `cpu_gemm`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
            Self::Metal => "Metal",
        }
    }
}

/// `machine-cpu.json` and its like, which benchmarks leave beside criterion's results.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub name: Option<String>,
    pub limits: Limits,
    pub date: Option<String>,
}

/// A device of a machine.
#[derive(Debug)]
pub struct Run {
    pub device: Device,
    /// The device's name, and the machine's where several have such a device.
    pub heading: String,
    /// What the command line calls the machine.
    pub label: Option<String>,
    pub machine: Machine,
}

/// Seconds: the median, and its 95 % confidence interval.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// What one iteration works on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    Bytes(f64),
    Elements(f64),
}

#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub time: Time,
    pub work: Option<Work>,
}

/// A workload: what each run took, where it was measured.
#[derive(Debug)]
pub struct Row {
    pub workload: String,
    pub measured: Vec<Option<Measured>>,
}

#[derive(Debug)]
pub struct Group {
    pub name: String,
    pub rows: Vec<Row>,
}

/// All results.
#[derive(Debug)]
pub struct Results {
    pub runs: Vec<Run>,
    pub groups: Vec<Group>,
}

impl Results {
    /// Reads all sources.
    ///
    /// # Errors
    /// When one has no results, or a file in it cannot be understood.
    pub fn read(sources: &[Source]) -> Result<Self> {
        let mut all: Vec<(Device, &Source, Vec<Named>)> = Vec::new();
        for source in sources {
            let mut named = Vec::new();
            if source.dir.is_dir() {
                find(&source.dir, &mut named).with_context(|| source.dir.display().to_string())?;
            }
            ensure!(
                !named.is_empty(),
                "{} holds no results of benchmarks: `cargo bench -p agx-ocr-benches` makes those of \
                 the CPU, `cargo bench -p agx-ocr-benches --features cuda` those of a GPU",
                source.dir.display()
            );
            for device in Device::ALL {
                let of_device = |named: &Named| named.device == device;
                let (found, rest) = named.into_iter().partition(of_device);
                named = rest;
                all.push((device, source, found));
            }
        }
        all.retain(|(.., named)| !named.is_empty());
        all.sort_by_key(|(device, ..)| *device);

        let mut runs = Vec::new();
        let mut joined: BTreeMap<String, BTreeMap<String, Vec<Option<Measured>>>> = BTreeMap::new();
        let (count, devices) = (all.len(), all.iter().map(|(device, ..)| *device));
        let devices: Vec<Device> = devices.collect();
        for (i, (device, source, named)) in all.into_iter().enumerate() {
            runs.push(Run::read(device, source, &devices, i)?);
            for result in named {
                let group = joined.entry(result.group).or_default();
                let row = group.entry(result.workload);
                row.or_insert_with(|| vec![None; count])[i] = Some(result.measured);
            }
        }
        let mut groups: Vec<Group> = joined.into_iter().map(Group::new).collect();
        groups.sort_by_key(|group| groups::place(&group.name));
        Ok(Self { runs, groups })
    }

    pub fn has(&self, device: Device) -> bool {
        self.runs.iter().any(|run| run.device == device)
    }

    pub fn workloads(&self) -> usize {
        self.groups.iter().map(|group| group.rows.len()).sum()
    }
}

impl Run {
    /// The `i`th of all runs, which have these devices.
    fn read(device: Device, source: &Source, devices: &[Device], i: usize) -> Result<Self> {
        let path = source.dir.join(format!("machine-{}.json", device.prefix()));
        let machine = match path.is_file() {
            true => json(&path)?,
            false => Machine::default(),
        };
        let of_device = |range: &[Device]| range.iter().filter(|d| **d == device).count();
        let heading = match of_device(devices) {
            1 => device.name().to_owned(),
            _ => {
                let name = source.label.clone().or_else(|| machine.name.clone());
                let name = name.unwrap_or_else(|| (of_device(&devices[..i]) + 1).to_string());
                format!("{}, {name}", device.name())
            }
        };
        Ok(Self {
            device,
            heading,
            label: source.label.clone(),
            machine,
        })
    }
}

impl Group {
    fn new((name, rows): (String, BTreeMap<String, Vec<Option<Measured>>>)) -> Self {
        let rows = rows.into_iter();
        let mut rows: Vec<Row> = rows
            .map(|(workload, measured)| Row { workload, measured })
            .collect();
        rows.sort_by_cached_key(|row| natural(&row.workload));
        Self { name, rows }
    }
}

/// A key that puts `up_4` before `up_16`: texts, each with the number behind it.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = vec![Default::default()];
    let mut in_number = false;
    for c in name.chars() {
        if in_number && !c.is_ascii_digit() {
            parts.push(Default::default());
        }
        in_number = c.is_ascii_digit();
        if let Some((text, number)) = parts.last_mut() {
            match c.to_digit(10) {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
                None => text.push(c),
            }
        }
    }
    parts
}

/// A result and its name.
struct Named {
    device: Device,
    group: String,
    workload: String,
    measured: Measured,
}

/// Adds the results at and below `dir`.
fn find(dir: &Path, all: &mut Vec<Named>) -> Result<()> {
    let newest = dir.join("new");
    if newest.join("benchmark.json").is_file() {
        all.extend(named(&newest)?);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, all)?;
        }
    }
    Ok(())
}

/// The result in `dir`, if its name begins with a device's.
fn named(dir: &Path) -> Result<Option<Named>> {
    let benchmark: Benchmark = json(&dir.join("benchmark.json"))?;
    let of_device = |device: &Device| {
        let group = benchmark.group_id.strip_prefix(device.prefix())?;
        Some((*device, group.strip_prefix('_')?.to_owned()))
    };
    let Some((device, group)) = Device::ALL.iter().find_map(of_device) else {
        return Ok(None);
    };
    let workload = benchmark.full_id.strip_prefix(&benchmark.group_id);
    let workload = workload.unwrap_or(&benchmark.full_id);
    let work = benchmark.throughput.and_then(|of| {
        let bytes = of.bytes.or(of.bytes_decimal).map(Work::Bytes);
        bytes.or(of.elements.map(Work::Elements))
    });
    let path = dir.join("estimates.json");
    let estimates: Estimates = json(&path)?;
    let interval = &estimates.median.confidence_interval;
    ensure!(
        interval.confidence_level == 0.95,
        "{}: an interval of {} where 0.95 is wanted",
        path.display(),
        interval.confidence_level
    );
    Ok(Some(Named {
        device,
        group,
        workload: workload.trim_start_matches('/').to_owned(),
        measured: Measured {
            // They are nanoseconds.
            time: Time {
                median: 1e-9 * estimates.median.point_estimate,
                low: 1e-9 * interval.lower_bound,
                high: 1e-9 * interval.upper_bound,
            },
            work,
        },
    }))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// Criterion's `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Throughput {
    bytes: Option<f64>,
    bytes_decimal: Option<f64>,
    elements: Option<f64>,
}

/// Criterion's `estimates.json`.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    confidence_level: f64,
    lower_bound: f64,
    upper_bound: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_may_have_names() {
        let source = |text: &str| text.parse::<Source>().unwrap();
        let named = source("H100=some/where");
        assert_eq!(named.label.as_deref(), Some("H100"));
        assert_eq!(named.dir, Path::new("some/where"));
        for plain in ["target/criterion", "a/b=c", "=x"] {
            assert_eq!(source(plain).label, None);
            assert_eq!(source(plain).dir, Path::new(plain));
        }
    }

    #[test]
    fn numbers_go_by_size() {
        let mut names = ["up_16/b", "up_4", "up_16/a", "64", "8", "down"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["8", "64", "down", "up_4", "up_16/a", "up_16/b"]);
    }
}
