//! A page as JSON or text, on standard output.

use crate::{
    config::{Format, Output},
    failure::{Failure, say},
};
use agx_ocr_pipeline::{Machine, Page, Stages, Stats};
use anyhow::Context;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The JSON document.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    page: Page,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Costs>,
}

/// What the page cost, and what share of the machine's limits that was.
#[derive(Serialize)]
struct Costs {
    load_ms: f64,
    /// Of the process so far, the mapped weights that it touched among it.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_gb: Option<f64>,
    #[serde(flatten)]
    page: Stats,
    machine: Machine,
    stages: Stages,
    goal: Goal,
}

/// What is measured beside the page.
pub struct Measured {
    pub load_ms: f64,
    pub machine: Machine,
    pub weight_bytes: usize,
}

/// What the page's costs are meant to reach.
#[derive(Serialize)]
struct Goal {
    /// At most.
    load_ms: f64,
    /// At most: the weights and 1 GB.
    peak_memory_gb: f64,
    /// `bf16_share` of `vision`, where the machine has such products.
    #[serde(skip_serializing_if = "Option::is_none")]
    vision_bf16_share: Option<f64>,
    /// `bf16_share` of `prefill`, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_bf16_share: Option<f64>,
    /// `share` of `decode`: reading the weights takes no more than 1.2 times as long as it must.
    decode_share: f64,
}

impl Costs {
    fn new(page: Stats, measured: Measured) -> Self {
        let Measured {
            load_ms,
            machine,
            weight_bytes,
        } = measured;
        let bf16 = machine.gflops.bf16;
        Self {
            load_ms,
            peak_memory_gb: peak_memory_gb(),
            page,
            stages: page.stages(&machine),
            goal: Goal {
                load_ms: 500.0,
                peak_memory_gb: (weight_bytes as f64 / 1e7).round() / 100.0 + 1.0,
                vision_bf16_share: bf16.map(|_| 0.65),
                prefill_bf16_share: bf16.map(|_| 0.60),
                decode_share: 0.83,
            },
            machine,
        }
    }
}

/// The most memory that this process has had resident, in 10⁹ bytes; where the system says so.
fn peak_memory_gb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some((kib * 1024.0 / 1e7).round() / 100.0)
}

/// Prints a page as it was asked for; with what was measured beside it, also what it cost.
pub fn print_page(
    mut page: Page,
    measured: Option<Measured>,
    output: &Output,
) -> Result<(), Failure> {
    if output.format == Format::Text {
        // The JSON document has them; here they would be lost.
        for warning in &page.warnings {
            say(&format!("Warning: {warning}"));
        }
        page.text.push('\n');
        return print(page.text.as_bytes());
    }
    page.confidence = rounded(page.confidence);
    for region in &mut page.regions {
        region.confidence = rounded(region.confidence);
    }
    let stats = measured.map(|measured| Costs::new(page.stats, measured));
    let document = Document { page, stats };
    print_json(&document, output.pretty)
}

/// Prints one JSON document: in lines on a terminal or where asked for, else compact.
pub fn print_json(document: &impl Serialize, pretty: bool) -> Result<(), Failure> {
    let json = if pretty || io::stdout().is_terminal() {
        serde_json::to_vec_pretty(document)
    } else {
        serde_json::to_vec(document)
    };
    let mut json = json
        .context("cannot write the page as JSON")
        .map_err(Failure::failed)?;
    json.push(b'\n');
    print(&json)
}

/// Writes to standard output. A reader who has seen enough is no error.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            Err(Failure::failed(error))
        }
        _ => Ok(()),
    }
}

/// To four decimals: more would only say how the machine adds.
fn rounded(confidence: f32) -> f32 {
    (confidence * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidences_have_four_decimals() {
        let printed = |c: f32| serde_json::to_string(&rounded(c)).unwrap();
        assert_eq!(printed(0.987_654_3), "0.9877");
        assert_eq!(printed(1.0 / 3.0), "0.3333");
        assert_eq!(printed(0.999_99), "1.0");
    }
}
