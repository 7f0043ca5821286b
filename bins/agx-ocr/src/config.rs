//! The arguments, checked and put in the library's terms.

use crate::{
    args::Args,
    bounds::Bounds,
    failure::Failure,
    input::Source,
    names::{AlphaName, DtypeName, FormatName, LogFormatName, ModeName, SplitName, TaskName},
    output::{Format, Output, is_stdout},
    ranges::PageRange,
};
use agx_ocr_pipeline::{
    Alpha, Limits, Mode, Options, Precision, ReadOptions, Repetition, Sampling, Split, Task,
    available_memory,
};
use anyhow::{Result, anyhow, bail, ensure};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where images and documents come from, at least one.
    pub sources: Vec<Source>,
    /// Which of their pages are read; none for all.
    pub pages: Vec<PageRange>,
    /// Where the model is, if anybody said so.
    pub model: Option<PathBuf>,
    /// What to ask of it.
    pub task: Task,
    /// How to load and read.
    pub options: Options,
    /// How many pages are read together.
    pub batch: usize,
    /// What reading may take.
    pub bounds: Bounds,
    /// How to print.
    pub output: Output,
    /// Whether progress may be shown: logs and a progress line would overwrite each other.
    pub progress: bool,
}

impl Config {
    /// Checks what the argument parser cannot.
    pub fn new(args: Args) -> Result<Self, Failure> {
        let task = task(&args).map_err(Failure::invalid)?;
        // Prompts that cannot be are found before anything is read.
        task.prompt().map_err(Failure::invalid)?;
        let output = output(&args).map_err(Failure::invalid)?;

        let time = Duration::try_from_secs_f64(args.max_seconds);
        let time = time.ok().filter(|time| !time.is_zero()).ok_or_else(|| {
            Failure::invalid(anyhow!("--max-seconds is no number of seconds above 0"))
        })?;

        let mut options = Options::default();
        options.precision = match args.dtype {
            DtypeName::Auto => Precision::Auto,
            DtypeName::Bf16 => Precision::Bf16,
            DtypeName::F16 => Precision::F16,
            DtypeName::F32 => Precision::F32,
        };
        options.device = args.device;
        options.threads = args.threads.map(|n| n as usize);
        options.check_memory = !args.no_memory_check;
        options.limits = limits(&args);
        options.read = read_options(&args).map_err(Failure::invalid)?;

        Ok(Self {
            sources: sources(args.input).map_err(Failure::invalid)?,
            pages: args.pages,
            // An empty variable is as good as none.
            model: args
                .model_path
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            task,
            options,
            batch: args.batch as usize,
            bounds: Bounds {
                time,
                memory: args.max_memory.unwrap_or_else(|| most_memory(args.batch)),
            },
            // Lines of results would run into it too.
            progress: args.verbose == 0
                && args.log_format == LogFormatName::Text
                && output.format != Format::Jsonl,
            output,
        })
    }
}

/// Bytes of memory that reading may take where nothing is said: more than a large page takes, and
/// the keys and values of further ones that are read together with it; no more than there is.
fn most_memory(batch: u32) -> u64 {
    const MOST: u64 = 4_000_000_000;
    const FURTHER: u64 = 500_000_000;
    let most = MOST + FURTHER * u64::from(batch.saturating_sub(1));
    available_memory().map_or(most, |left| left.min(most))
}

fn sources(paths: Vec<PathBuf>) -> Result<Vec<Source>> {
    let source = |path: PathBuf| match path {
        path if path == Path::new("-") => Source::Stdin,
        path => Source::File(path),
    };
    let mut sources: Vec<Source> = paths.into_iter().map(source).collect();
    if sources.is_empty() {
        sources.push(Source::Stdin);
    }
    let stdin = sources.iter().filter(|source| **source == Source::Stdin);
    ensure!(stdin.count() <= 1, "standard input cannot be read twice");
    Ok(sources)
}

fn limits(args: &Args) -> Limits {
    let mut limits = Limits::default();
    limits.bytes = args.max_input_bytes;
    limits.width = args.max_width;
    limits.height = args.max_height;
    limits.pixels = args.max_pixels;
    limits.pages = args.max_pages;
    limits
}

fn read_options(args: &Args) -> Result<ReadOptions> {
    let mut read = ReadOptions::default();
    read.mode = mode(args.mode);
    read.retry_mode = args.retry_mode.map(mode);
    read.split = match args.split {
        SplitName::Auto => Split::Auto,
        SplitName::None => Split::None,
        SplitName::Bands => Split::Bands,
    };
    read.max_tokens = args.max_tokens.map(|n| n as usize);
    read.no_repeat_ngram = repetition(args)?;
    read.ngram_whitelist = (!args.ngram_whitelist.is_empty()).then(|| args.ngram_whitelist.clone());
    read.stop_cycles = !args.keep_cycles;
    read.sampling = sampling(args);
    read.sampling.check()?;
    read.special = args.special;
    read.rendering.dpi = args.dpi as f32;
    read.rendering.alpha = match args.alpha {
        AlphaName::White => Alpha::OverWhite,
        AlphaName::Drop => Alpha::Drop,
    };
    Ok(read)
}

fn mode(name: ModeName) -> Mode {
    match name {
        ModeName::Tiny => Mode::Tiny,
        ModeName::Small => Mode::Small,
        ModeName::Base => Mode::Base,
        ModeName::Large => Mode::Large,
        ModeName::Gundam => Mode::Gundam,
        ModeName::Auto => Mode::Auto,
    }
}

fn task(args: &Args) -> Result<Task> {
    let prompt = args.prompt.as_ref().or(args.words.as_ref());
    let most = args.max_prompt_bytes;
    let own = [("--find", &args.find.as_ref()), ("the prompt", &prompt)];
    for (name, text) in own {
        let length = text.map_or(0, |text| text.len());
        ensure!(
            length <= most,
            "{name} is too long: {length} bytes, where at most {most} are allowed \
             (--max-prompt-bytes)"
        );
    }
    if let Some(prompt) = prompt {
        ensure!(args.find.is_none(), "--find goes with --task locate only");
        return Ok(Task::Prompt(prompt.clone()));
    }
    Ok(match (args.task, &args.find) {
        (TaskName::Locate, Some(find)) => Task::Locate(find.clone()),
        (TaskName::Locate, None) => bail!("--task locate needs --find TEXT: what to look for"),
        (_, Some(_)) => bail!("--find goes with --task locate only"),
        (TaskName::Text, None) => Task::Text,
        (TaskName::Markdown, None) => Task::Markdown,
        (TaskName::Ocr, None) => Task::Ocr,
        (TaskName::Figure, None) => Task::Figure,
        (TaskName::Describe, None) => Task::Describe,
    })
}

fn sampling(args: &Args) -> Sampling {
    if args.temperature == 0.0 {
        return Sampling::Greedy;
    }
    Sampling::Random {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k as usize,
        seed: args.seed,
    }
}

fn repetition(args: &Args) -> Result<Repetition> {
    let window = args.ngram_window.map(|w| w as usize);
    Ok(match args.no_repeat_ngram.map(|n| n as usize) {
        None => Repetition::Auto,
        Some(0) => {
            ensure!(
                window.is_none(),
                "--ngram-window has no use with --no-repeat-ngram 0"
            );
            Repetition::Off
        }
        Some(size) => Repetition::Ngram { size, window },
    })
}

fn output(args: &Args) -> Result<Output> {
    let format = match args.format {
        FormatName::Json => Format::Json {
            pretty: args.pretty,
        },
        FormatName::Jsonl => Format::Jsonl,
        FormatName::Text => Format::Text,
        FormatName::Markdown => Format::Markdown,
        FormatName::Hocr => Format::Hocr,
        FormatName::Alto => Format::Alto,
        #[cfg(feature = "pdf")]
        FormatName::Pdf => Format::Pdf,
    };
    let json = matches!(format, Format::Json { .. });
    for (name, given) in [("--pretty", args.pretty), ("--stats", args.stats)] {
        ensure!(!given || json, "{name} goes with --format json only");
    }
    ensure!(
        args.assets.is_none() || format == Format::Markdown,
        "--assets goes with --format markdown only"
    );
    if let Some(path) = args.overlay.as_ref().filter(|path| is_stdout(path)) {
        bail!(
            "--overlay {} is where the result goes: name another file",
            path.display()
        );
    }
    Ok(Output {
        format,
        stats: args.stats,
        most_bytes: args.max_output_bytes,
        assets: args.assets.clone(),
        overlay: args.overlay.clone(),
        dpi: args.dpi as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use agx_ocr_pipeline::DeviceChoice;
    use clap::Parser;

    fn config(line: &str) -> Result<Config, String> {
        let words = ["agx-ocr"].into_iter().chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        Config::new(args).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn the_task_is_text_unless_the_format_is_markdown() {
        assert_eq!(config("").unwrap().task, Task::Text);
        assert_eq!(config("--format text").unwrap().task, Task::Text);
        assert_eq!(config("--format markdown").unwrap().task, Task::Markdown);
        let ocr = config("--format markdown --task ocr").unwrap();
        assert_eq!((ocr.task, ocr.output.format), (Task::Ocr, Format::Markdown));
    }

    #[test]
    fn prompts_and_places() {
        let own = Task::Prompt("Read.".into());
        assert_eq!(config("--prompt Read.").unwrap().task, own);
        assert_eq!(config("Read. --format markdown").unwrap().task, own);
        let find = config("--task locate --find due").unwrap();
        assert_eq!(find.task, Task::Locate("due".into()));
        for line in [
            "--task locate",
            "--find due",
            "--find due Read.",
            "--task text Read.",
            "--task text --prompt Read.",
            "--prompt Read. Read.",
            "--task locate --find <|ref|>",
        ] {
            assert!(config(line).is_err(), "{line}");
        }
        let long = format!("--prompt {}", "a".repeat(40_000));
        assert!(config(&long).unwrap_err().contains("too long"));
    }

    #[test]
    fn options_arrive() {
        let line = "--device cpu --mode base --split bands --dtype f32 --max-tokens 5 --special --threads 2 \
            --no-repeat-ngram 20 --ngram-window 50 --temperature 0.5 --top-p 0.9 --top-k 7 \
            --seed 3 --max-input-bytes 1 --max-width 2 --max-height 3 --max-pixels 4 \
            --max-pages 5 --dpi 300 --alpha drop --retry-mode large --keep-cycles \
            --ngram-whitelist <tr> --ngram-whitelist </tr> --max-seconds 0.5 --max-memory 6 \
            --max-output-bytes 7 --no-memory-check --pages 2,4-";
        let config = config(line).unwrap();
        assert_eq!(config.bounds.time, Duration::from_millis(500));
        assert_eq!((config.bounds.memory, config.output.most_bytes), (6, 7));
        assert_eq!(config.pages.len(), 2);
        let options = config.options;
        assert!(!options.check_memory);
        assert_eq!(options.precision, Precision::F32);
        assert_eq!(options.threads, Some(2));
        assert_eq!(options.device, DeviceChoice::Cpu);
        let limits = &options.limits;
        assert_eq!((limits.bytes, limits.width), (1, 2));
        assert_eq!((limits.height, limits.pixels, limits.pages), (3, 4, 5));
        let read = &options.read;
        assert_eq!((read.mode, read.split), (Mode::Base, Split::Bands));
        assert_eq!((read.max_tokens, read.special), (Some(5), true));
        assert_eq!(read.retry_mode, Some(Mode::Large));
        assert!(!read.stop_cycles);
        let tokens = ["<tr>", "</tr>"].map(str::to_owned).to_vec();
        assert_eq!(read.ngram_whitelist, Some(tokens));
        assert_eq!(read.rendering.dpi, 300.0);
        assert_eq!(read.rendering.alpha, Alpha::Drop);
        let (size, window) = (20, Some(50));
        assert_eq!(read.no_repeat_ngram, Repetition::Ngram { size, window });
        let sampling = Sampling::Random {
            temperature: 0.5,
            top_p: 0.9,
            top_k: 7,
            seed: 3,
        };
        assert_eq!(read.sampling, sampling);
    }

    #[test]
    fn defaults_are_the_librarys() {
        let options = config("").unwrap().options;
        assert_eq!(options.limits, Limits::default());
        assert_eq!(options.read, ReadOptions::default());
        let off = config("--no-repeat-ngram 0").unwrap().options.read;
        assert_eq!(off.no_repeat_ngram, Repetition::Off);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in [
            "--max-tokens 0",
            "--device gpu",
            "--device cuda:first",
            "--threads 0",
            "--threads 9999",
            "--temperature nan",
            "--temperature=-1",
            "--temperature 1 --top-p 0",
            "--top-k 5",
            "--ngram-window 9",
            "--no-repeat-ngram 0 --ngram-window 9",
            "--no-repeat-ngram 9 --ngram-window 0",
            "--mode huge",
            "--pretty --format text",
            "--stats --format markdown",
            "--pretty --format jsonl",
            "--assets figures",
            "--max-pages 0",
            "--max-seconds 0",
            "--max-seconds -1",
            "--max-seconds nan",
            "--max-seconds 1e300",
            "--dpi 0",
            "--pages 0",
            "--pages 3-1",
            "--input - --input -",
        ] {
            assert!(config(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_dash_is_standard_input_and_so_is_nothing() {
        let sources = |line| config(line).unwrap().sources;
        assert_eq!(sources(""), [Source::Stdin]);
        assert_eq!(sources("--input -"), [Source::Stdin]);
        let both = [Source::File("a.png".into()), Source::Stdin];
        assert_eq!(sources("--input a.png --input -"), both);
    }
}
