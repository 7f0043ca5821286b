//! The arguments, checked and put in the library's terms.

use crate::{
    args::{Args, DtypeName, FormatName, ModeName, SplitName, TaskName},
    failure::Failure,
    input::Source,
};
use agx_ocr_pipeline::{
    Limits, Mode, Options, Precision, ReadOptions, Repetition, Sampling, Split, Task,
};
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};

/// Bytes of a prompt: as much text as the model has positions for, amply.
const MAX_PROMPT: usize = 32 << 10;

/// What to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the image comes from.
    pub source: Source,
    /// Where the model is, if anybody said so.
    pub model: Option<PathBuf>,
    /// What to ask of it.
    pub task: Task,
    /// How to load and read.
    pub options: Options,
    /// How to print.
    pub output: Output,
    /// Whether progress may be shown: logs and a progress line would overwrite each other.
    pub progress: bool,
}

/// How to print a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What to print.
    pub format: Format,
    /// JSON in lines.
    pub pretty: bool,
    /// With times, and the machine's limits.
    pub stats: bool,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// The text alone.
    Text,
}

impl Config {
    /// Checks what the argument parser cannot.
    pub fn new(args: Args) -> Result<Self, Failure> {
        let task = task(&args).map_err(Failure::invalid)?;
        // Prompts that cannot be are found before anything is read.
        task.prompt().map_err(Failure::invalid)?;
        let sampling = sampling(&args);
        sampling.check().map_err(Failure::invalid)?;
        let repetition = repetition(&args).map_err(Failure::invalid)?;
        let output = output(&args).map_err(Failure::invalid)?;

        let mut limits = Limits::default();
        limits.bytes = args.max_input_bytes;
        limits.width = args.max_width;
        limits.height = args.max_height;
        limits.pixels = args.max_pixels;

        let mut read = ReadOptions::default();
        read.mode = match args.mode {
            ModeName::Tiny => Mode::Tiny,
            ModeName::Small => Mode::Small,
            ModeName::Base => Mode::Base,
            ModeName::Large => Mode::Large,
            ModeName::Gundam => Mode::Gundam,
            ModeName::Auto => Mode::Auto,
        };
        read.split = match args.split {
            SplitName::Auto => Split::Auto,
            SplitName::None => Split::None,
            SplitName::Bands => Split::Bands,
        };
        read.max_tokens = args.max_tokens.map(|n| n as usize);
        read.no_repeat_ngram = repetition;
        read.sampling = sampling;
        read.special = args.special;

        let mut options = Options::default();
        options.precision = match args.dtype {
            DtypeName::Auto => Precision::Auto,
            DtypeName::F32 => Precision::F32,
        };
        options.threads = args.threads.map(|n| n as usize);
        options.limits = limits;
        options.read = read;

        Ok(Self {
            source: match args.input {
                Some(path) if path != Path::new("-") => Source::File(path),
                _ => Source::Stdin,
            },
            // An empty variable is as good as none.
            model: args
                .model_path
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            task,
            options,
            output,
            progress: args.verbose == 0,
        })
    }
}

fn task(args: &Args) -> Result<Task> {
    let prompt = args.prompt.as_ref().or(args.words.as_ref());
    let own = [("--find", &args.find.as_ref()), ("the prompt", &prompt)];
    for (name, text) in own {
        let length = text.map_or(0, |text| text.len());
        ensure!(
            length <= MAX_PROMPT,
            "{name} is too long: {length} bytes, where at most {MAX_PROMPT} are allowed"
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
        FormatName::Json => Format::Json,
        FormatName::Text | FormatName::Markdown => Format::Text,
    };
    for (name, given) in [("--pretty", args.pretty), ("--stats", args.stats)] {
        ensure!(
            !given || format == Format::Json,
            "{name} goes with --format json only"
        );
    }
    Ok(Output {
        format,
        pretty: args.pretty,
        stats: args.stats,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!((ocr.task, ocr.output.format), (Task::Ocr, Format::Text));
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
        let long = format!("--prompt {}", "a".repeat(MAX_PROMPT + 1));
        assert!(config(&long).unwrap_err().contains("too long"));
    }

    #[test]
    fn options_arrive() {
        let line = "--mode base --split bands --dtype f32 --max-tokens 5 --special --threads 2 \
            --no-repeat-ngram 20 --ngram-window 50 --temperature 0.5 --top-p 0.9 --top-k 7 \
            --seed 3 --max-input-bytes 1 --max-width 2 --max-height 3 --max-pixels 4";
        let options = config(line).unwrap().options;
        assert_eq!(options.precision, Precision::F32);
        assert_eq!(options.threads, Some(2));
        let limits = &options.limits;
        assert_eq!((limits.bytes, limits.width), (1, 2));
        assert_eq!((limits.height, limits.pixels), (3, 4));
        let read = &options.read;
        assert_eq!((read.mode, read.split), (Mode::Base, Split::Bands));
        assert_eq!((read.max_tokens, read.special), (Some(5), true));
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
        ] {
            assert!(config(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!(config("--input -").unwrap().source, Source::Stdin);
        let file = config("--input a.png").unwrap().source;
        assert_eq!(file, Source::File("a.png".into()));
    }
}
