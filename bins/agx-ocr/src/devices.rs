//! `agx-ocr devices`: what there is to compute on.

use crate::{failure::Failure, output};
use agx_ocr_pipeline::{GpuInfo, NoGpu, gpus};
use anyhow::anyhow;
use serde::Serialize;
use std::{ffi::OsString, fmt::Write, thread};

/// The argument, the first one, that asks for it.
pub const COMMAND: &str = "devices";

/// What there is, for programs.
#[derive(Serialize)]
struct Devices {
    /// What `--device auto` chooses.
    auto: String,
    /// Threads that the CPU runs at the same time.
    cpu_threads: usize,
    gpus: Vec<Gpu>,
    /// Why no GPU can be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_gpu: Option<String>,
}

#[derive(Serialize)]
struct Gpu {
    #[serde(flatten)]
    info: GpuInfo,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Devices {
    fn new(seen: Result<Vec<GpuInfo>, NoGpu>) -> Self {
        let (gpus, no_gpu) = match seen {
            Ok(gpus) => (gpus, None),
            Err(why) => (Vec::new(), Some(why.to_string())),
        };
        let gpus: Vec<Gpu> = gpus
            .into_iter()
            .map(|info| {
                let reason = info.check().err().map(|why| why.to_string());
                let usable = reason.is_none();
                Gpu {
                    info,
                    usable,
                    reason,
                }
            })
            .collect();
        let first = gpus.first().filter(|gpu| gpu.usable);
        Self {
            auto: first.map_or("cpu".into(), |gpu| format!("cuda:{}", gpu.info.number)),
            cpu_threads: thread::available_parallelism().map_or(1, Into::into),
            gpus,
            no_gpu,
        }
    }

    /// For people.
    fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |device: &str, what: &str| {
            let mark = if device == self.auto { " (auto)" } else { "" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{device}{mark}: {what}");
        };
        for gpu in &self.gpus {
            let info = &gpu.info;
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            let kind = if info.unified {
                ", shared with the CPU"
            } else {
                ""
            };
            let code = info.code.map_or("no code".into(), |code| code.to_string());
            let verdict = gpu.reason.as_deref().unwrap_or("usable");
            line(
                &format!("cuda:{}", info.number),
                &format!(
                    "{}, compute capability {}, {} multiprocessors, {:.1} GB of memory{kind}, {:.1} GB \
                     free; driver for CUDA {}; {code}; {verdict}",
                    info.name,
                    info.capability,
                    info.multiprocessors,
                    gigabytes(info.memory),
                    gigabytes(info.available),
                    info.driver,
                ),
            );
        }
        line("cpu", &format!("{} threads", self.cpu_threads));
        if let Some(why) = &self.no_gpu {
            let _ = writeln!(text, "no GPU: {why}");
        }
        text
    }
}

/// Prints the devices; `args` are those behind the command's name.
pub fn run(args: &[OsString]) -> Result<(), Failure> {
    let json = match args {
        [] => false,
        [only] if only == "--json" => true,
        _ => {
            let message = "agx-ocr devices takes --json, --log-format and nothing else; to ask the \
                           model about devices, use --prompt";
            return Err(Failure::invalid(anyhow!(message)));
        }
    };
    let devices = Devices::new(gpus());
    match json {
        true => output::print_json(&devices, false),
        false => output::print(devices.table().as_bytes()).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_is_the_cpu_and_the_reason() {
        let devices = Devices::new(Err(NoGpu::NoDevice));
        assert_eq!(devices.auto, "cpu");
        let table = devices.table();
        assert!(table.starts_with("cpu (auto): "), "{table}");
        assert!(table.contains("no GPU: there is no NVIDIA GPU"), "{table}");
    }
}
