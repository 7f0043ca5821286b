//! Character error rates on scanned receipts with transcripts in the format of ICDAR 2019 SROIE:
//! `NAME.jpg`, and `NAME.csv` with `x1,y1,x2,y2,x3,y3,x4,y4,text` a line.

use agx_ocr_pipeline::{Mode, Ocr, Options, ReadOptions, Split, Task};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub struct Args {
    /// Directory of the receipts.
    receipts: PathBuf,
    /// The model's directory.
    #[arg(long, default_value = "fixtures/models/agx-ocr-mini")]
    model_path: PathBuf,
    /// Views: auto, tiny, small, base, large or gundam.
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Whether pages are cut between rows: auto, none or bands.
    #[arg(long, default_value = "auto")]
    split: String,
    /// Print what was read beside what is there.
    #[arg(long)]
    show: bool,
    /// Fail when the mean error rate is above this share, as in 0.2.
    #[arg(long)]
    at_most: Option<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let ocr = Ocr::load(&args.model_path, Options::default())?;
    let mut options = ReadOptions::default();
    options.mode = args.mode.parse::<Mode>().map_err(anyhow::Error::msg)?;
    options.split = args.split.parse::<Split>().map_err(anyhow::Error::msg)?;
    let mut rates = Vec::new();
    for image in images(&args.receipts)? {
        let truth = transcript(&image.with_extension("csv"))?;
        let bytes = fs::read(&image)?;
        let page = ocr
            .read_with(&bytes, &Task::Text, &options, |_| ControlFlow::Continue(()))
            .with_context(|| image.display().to_string())?;
        let rate = error_rate(&truth, &page.text);
        let seconds = {
            let s = page.stats;
            (s.preprocess_ms + s.vision_ms + s.prefill_ms + s.decode_ms) / 1e3
        };
        let name = image
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        println!(
            "{name}: {}x{}, {} views, {} characters, error rate {:.1} %, {seconds:.1} s, confidence {:.2}",
            page.width,
            page.height,
            page.tokens.views,
            truth.chars().count(),
            100.0 * rate,
            page.confidence,
        );
        if args.show {
            println!("--- there\n{truth}\n--- read\n{}\n", page.text);
        }
        rates.push(rate);
    }
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "mean character error rate of {} receipts: {:.1} %",
        rates.len(),
        100.0 * mean
    );
    match args.at_most {
        Some(most) if mean > most => bail!("the mean is above {:.1} %", 100.0 * most),
        _ => Ok(()),
    }
}

/// The JPEG files of a directory that have a transcript, by name.
fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jpg") && path.with_extension("csv").exists() {
            images.push(path);
        }
    }
    if images.is_empty() {
        bail!(
            "{} holds no receipts: pairs of NAME.jpg and NAME.csv are wanted",
            dir.display()
        );
    }
    images.sort();
    Ok(images)
}

/// A transcribed box.
struct Entry {
    left: f64,
    centre: f64,
    height: f64,
    text: String,
}

/// The transcript as lines: boxes at one height, from left to right.
fn transcript(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let mut entries: Vec<Entry> = String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(entry)
        .collect();
    entries.sort_by(|a, b| a.centre.total_cmp(&b.centre));
    let mut lines: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match lines.last_mut() {
            Some(line) if (entry.centre - line[0].centre).abs() < 0.5 * entry.height => {
                line.push(entry)
            }
            _ => lines.push(vec![entry]),
        }
    }
    let line = |mut line: Vec<Entry>| {
        line.sort_by(|a, b| a.left.total_cmp(&b.left));
        line.into_iter()
            .map(|entry| entry.text)
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(lines.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn entry(line: &str) -> Option<Entry> {
    let parts: Vec<&str> = line.trim_end().splitn(9, ',').collect();
    let [x1, y1, _, _, _, y3, _, _, text] = parts[..] else {
        return None;
    };
    let (left, top, bottom): (f64, f64, f64) =
        (x1.parse().ok()?, y1.parse().ok()?, y3.parse().ok()?);
    Some(Entry {
        left,
        centre: (top + bottom) / 2.0,
        height: bottom - top,
        text: text.trim().to_owned(),
    })
}

/// Edits from `truth` to `read` over the length of `truth`, upper and lower case taken as one,
/// at most 1.
fn error_rate(truth: &str, read: &str) -> f64 {
    let fold = |text: &str| text.to_uppercase().chars().collect::<Vec<char>>();
    let (truth, read) = (fold(truth), fold(read));
    let edits = edit_distance(&truth, &read) as f64;
    (edits / truth.len().max(1) as f64).min(1.0)
}

/// Levenshtein's distance.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        let distance = |a: &str, b: &str| {
            edit_distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn lines_go_by_position() {
        let dir = std::env::temp_dir().join(format!("agx-ocr-accuracy-{}", std::process::id()));
        fs::write(
            &dir,
            "90,10,0,0,120,30,0,0,right, here\n0,52,0,0,9,70,0,0,below\n0,12,0,0,9,32,0,0,left\n",
        )
        .unwrap();
        let lines = transcript(&dir).unwrap();
        fs::remove_file(&dir).unwrap();
        assert_eq!(lines, "left right, here\nbelow");
        assert_eq!(error_rate("abcd", "ABXD"), 0.25);
    }
}
