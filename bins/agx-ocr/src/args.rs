//! The arguments as they are typed, and the help.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "comments are the help's text, which names tokens as they are typed"
)]

use crate::{
    names::{AlphaName, DtypeName, FormatName, LogFormatName, ModeName, SplitName, TaskName},
    ranges::PageRange,
};
use agx_ocr_pipeline::{DeviceChoice, Limits, Rendering};
use clap::{Parser, value_parser};
use std::{ffi::OsString, path::PathBuf};

/// Bytes of a prompt: as much text as the model has positions for, amply.
const MAX_PROMPT: usize = 32 << 10;
/// Bytes of a result.
const MAX_OUTPUT: usize = 10_000_000;
/// Seconds that reading may take.
const MAX_SECONDS: f64 = 300.0;

const EXAMPLES: &str = "\
Examples:
  Read a page; MODEL_PATH names the model's directory:
    export MODEL_PATH=models/deepseek-ocr
    agx-ocr < page.png

  Write a document as markdown:
    agx-ocr --input page.jpg --format markdown > page.md

  Lines with their places, as JSON for people:
    agx-ocr --input receipt.png --task ocr --pretty

  A PDF's first pages, each a line of JSON as soon as it is read:
    agx-ocr --input contract.pdf --pages 1-3 --format jsonl

  Make scans searchable:
    agx-ocr --input 1.jpg --input 2.jpg --task ocr --format pdf > scans.pdf

  Find a text on the page:
    agx-ocr --input invoice.png --task locate --find \"Total due\"

  See what there is to compute on:
    agx-ocr devices

  In a loop that reads standard input itself, keep it from agx-ocr:
    agx-ocr --input \"$page\" < /dev/null

Exit codes:
  0              Pages were read, perhaps in part: see \"warnings\" in the result
  1              Processing failed: memory, time, the machine, writing the result
  2              Invalid arguments, input or model
  129, 130, 143  Ended by SIGHUP, SIGINT, SIGTERM

On failure nothing is printed to standard output, but for lines of jsonl that are out already, and
standard error says why.";

/// Read the text of images and documents with DeepSeek-OCR.
///
/// Takes the bytes of an image or a document on standard input: PNG, JPEG, WebP, TIFF, BMP, GIF,
/// PNM or PDF, also as base64 text or a data: URI. Prints one JSON document: the text, its regions
/// with their places in pixels and a confidence, and warnings; for a document also each of its
/// pages. The same input gives the same output.
#[derive(Debug, Parser)]
#[command(
    name = "agx-ocr",
    version,
    max_term_width = 100,
    after_help = "See --help for all about each option, examples and exit codes.",
    after_long_help = EXAMPLES
)]
pub struct Args {
    /// A prompt of your own, as with --prompt
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "task"])]
    pub words: Option<String>,

    /// Read the image or document in PATH instead of standard input; may be given many times
    #[arg(long, value_name = "PATH", help_heading = "Input")]
    pub input: Vec<PathBuf>,

    /// The pages of a document to read, such as 1-3,7 or 5- [default: all]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Input"
    )]
    pub pages: Vec<PageRange>,

    /// Dots an inch at which the pages of a PDF are drawn
    #[arg(
        long,
        value_name = "N",
        default_value_t = Rendering::default().dpi as u32,
        value_parser = value_parser!(u32).range(18..=1200),
        help_heading = "Input"
    )]
    pub dpi: u32,

    /// What becomes of an image's transparency
    ///
    /// The reference drops it, which turns black text on nothing into black on black.
    #[arg(long, value_enum, default_value_t = AlphaName::White, help_heading = "Input")]
    pub alpha: AlphaName,

    /// The model: its directory, or its .safetensors file with the other files beside it
    ///
    /// There is no default, and nothing is ever downloaded.
    #[arg(
        long,
        value_name = "PATH",
        env = "MODEL_PATH",
        hide_env_values = true,
        help_heading = "Input"
    )]
    pub model_path: Option<OsString>,

    /// What to ask of the model
    ///
    /// With --format markdown the default is markdown.
    #[arg(
        long,
        value_enum,
        default_value_t = TaskName::Text,
        default_value_if("format", "markdown", "markdown"),
        help_heading = "Task"
    )]
    pub task: TaskName,

    /// What --task locate looks for
    #[arg(long, value_name = "TEXT", help_heading = "Task")]
    pub find: Option<String>,

    /// A prompt of your own instead of a task
    ///
    /// The model is sensitive to its wording. It may hold special tokens such as <|grounding|>,
    /// and one <image>; without it the image comes first.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "task",
        help_heading = "Task"
    )]
    pub prompt: Option<String>,

    /// The views of the page that the model sees
    #[arg(long, value_enum, default_value_t = ModeName::Auto, help_heading = "Reading")]
    pub mode: ModeName,

    /// Whether a tall page is cut between its text rows into bands that are read one by one
    #[arg(long, value_enum, default_value_t = SplitName::Auto, help_heading = "Reading")]
    pub split: SplitName,

    /// The arithmetic
    #[arg(long, value_enum, default_value_t = DtypeName::Auto, help_heading = "Reading")]
    pub dtype: DtypeName,

    /// The device to compute on: auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t = DeviceChoice::Auto, help_heading = "Reading")]
    pub device: DeviceChoice,

    /// Cut the answer for a page or band after N tokens [default: the model's own setting]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), help_heading = "Reading")]
    pub max_tokens: Option<u32>,

    /// Let no run of N tokens come twice; 0 for no such guard [default: the model's own setting]
    ///
    /// The guard keeps the model from repeating itself without end. A model without a setting
    /// gets 30 tokens in a window of 90.
    #[arg(long, value_name = "N", help_heading = "Reading")]
    pub no_repeat_ngram: Option<u32>,

    /// Let the guard look at the last W tokens only [default: the prompt and the whole answer]
    #[arg(
        long,
        value_name = "W",
        requires = "no_repeat_ngram",
        value_parser = value_parser!(u32).range(1..),
        help_heading = "Reading"
    )]
    pub ngram_window: Option<u32>,

    /// A token that the guard allows at any time in its window; may be given many times [default:
    /// <td> and </td>]
    #[arg(long, value_name = "TOKEN", help_heading = "Reading")]
    pub ngram_whitelist: Vec<String>,

    /// Let an answer go round in circles until it is as long as it may be
    ///
    /// Otherwise it ends, cut behind the first round, when 1 to 128 tokens come three times in a
    /// row and 48 tokens long. Rows and cells of tables that are all empty may go on for 768 tokens.
    #[arg(long, help_heading = "Reading")]
    pub keep_cycles: bool,

    /// Read a page once more with these views where its answer went round in circles
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Reading")]
    pub retry_mode: Option<ModeName>,

    /// Keep special tokens and the markup of places in the text
    #[arg(long, help_heading = "Reading")]
    pub special: bool,

    /// Threads to compute with [default: one on every core that is fast enough to help]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024), help_heading = "Reading")]
    pub threads: Option<u32>,

    /// Read N pages together, which takes less time for all of them, and more for each
    ///
    /// The weights are read once for all; most is to be gained on a GPU. Pages are printed in the
    /// document's order all the same.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=256),
        help_heading = "Reading"
    )]
    pub batch: u32,

    /// Choose tokens at random; below 1 the probable ones more often, 0 always the most probable
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        help_heading = "Sampling"
    )]
    pub temperature: f64,

    /// Choose among the most probable tokens that together have probability P
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        requires = "temperature",
        help_heading = "Sampling"
    )]
    pub top_p: f64,

    /// Choose among the K most probable tokens; 0 for all
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0,
        requires = "temperature",
        help_heading = "Sampling"
    )]
    pub top_k: u32,

    /// The same seed gives the same choices
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        requires = "temperature",
        help_heading = "Sampling"
    )]
    pub seed: u64,

    /// Most bytes of an input
    #[arg(long, value_name = "N", default_value_t = Limits::default().bytes, help_heading = "Limits")]
    pub max_input_bytes: u64,

    /// Widest page, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().width, help_heading = "Limits")]
    pub max_width: u32,

    /// Highest page, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().height, help_heading = "Limits")]
    pub max_height: u32,

    /// Most pixels of a page
    #[arg(long, value_name = "N", default_value_t = Limits::default().pixels, help_heading = "Limits")]
    pub max_pixels: u64,

    /// Most pages in all
    #[arg(
        long,
        value_name = "N",
        default_value_t = Limits::default().pages,
        value_parser = counts(),
        help_heading = "Limits"
    )]
    pub max_pages: usize,

    /// Most bytes of a prompt, or of what --find looks for
    #[arg(
        long,
        value_name = "N",
        default_value_t = MAX_PROMPT,
        value_parser = counts(),
        help_heading = "Limits"
    )]
    pub max_prompt_bytes: usize,

    /// Most bytes of the result; pages that would make it larger are left out
    #[arg(
        long,
        value_name = "N",
        default_value_t = MAX_OUTPUT,
        value_parser = counts(),
        help_heading = "Limits"
    )]
    pub max_output_bytes: usize,

    /// Most seconds for reading; what was read by then is the result
    #[arg(long, value_name = "S", default_value_t = MAX_SECONDS, help_heading = "Limits")]
    pub max_seconds: f64,

    /// Most bytes of memory beside the mapped model; an input that takes more is given up
    /// [default: 4 billion, or what the machine has left if that is less]
    ///
    /// With --batch the default is half a billion more for each further page.
    ///
    /// It is looked at fifty times a second, where Linux says how much is taken.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_memory: Option<u64>,

    /// Load the model even if memory seems to be too small for it
    #[arg(long, help_heading = "Limits")]
    pub no_memory_check: bool,

    /// What to print
    #[arg(long, value_enum, default_value_t = FormatName::Json, help_heading = "Output")]
    pub format: FormatName,

    /// Cut figures out of the page into DIR, which is made, and link them from --format markdown
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub assets: Option<PathBuf>,

    /// Write the page with its regions drawn over it to FILE, a PNG; of further pages to FILE-2 and
    /// so on
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub overlay: Option<PathBuf>,

    /// Print JSON in lines, as on a terminal
    #[arg(long, help_heading = "Output")]
    pub pretty: bool,

    /// Add times to the JSON document, as "stats", and what share of the machine's limits they reach
    ///
    /// For vision, prefill and decode: the time, the operations or bytes that the work needs, their
    /// rate, and its share of what this machine reaches at most with the same threads: products of
    /// its fastest instruction, or reading the decoder's weights. After the page is read, these
    /// limits are measured, which takes about 0.3 seconds.
    #[arg(long, help_heading = "Output")]
    pub stats: bool,

    /// Say on standard error what is done; twice for more
    ///
    /// Prompts, text and pixels are never logged.
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,

    /// How errors, warnings and what is done are told on standard error
    #[arg(long, value_enum, default_value_t = LogFormatName::Text, help_heading = "Output")]
    pub log_format: LogFormatName,

    /// Print this program's description as JSON, whatever else is given
    #[arg(long)]
    pub describe: bool,
}

/// A count of at least one.
fn counts() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser;
    value_parser!(u64)
        .range(1..)
        .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}
