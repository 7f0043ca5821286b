//! The arguments as they are typed, and the help.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "comments are the help's text, which names tokens as they are typed"
)]

use agx_ocr_pipeline::Limits;
use clap::{Parser, ValueEnum, value_parser};
use std::{ffi::OsString, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  Read a page; MODEL_PATH names the model's directory:
    export MODEL_PATH=models/deepseek-ocr
    agx-ocr < page.png

  Write a document as markdown:
    agx-ocr --input page.jpg --format markdown > page.md

  Lines with their places, as JSON for people:
    agx-ocr --input receipt.png --task ocr --pretty

  Find a text on the page:
    agx-ocr --input invoice.png --task locate --find \"Total due\"

  In a loop that reads standard input itself, keep it from agx-ocr:
    agx-ocr --input \"$page\" < /dev/null

Exit codes:
  0  The page was read, perhaps in part: see \"warnings\" in the result
  1  Processing failed: memory, the machine, writing the result
  2  Invalid arguments, input or model

On failure nothing is printed to standard output, and standard error says why.";

/// Read the text of an image with DeepSeek-OCR.
///
/// Takes the bytes of one image on standard input: PNG, JPEG, WebP, TIFF, BMP, GIF or PNM, also
/// as base64 text or a data: URI. Prints one JSON document: the text, its regions with their
/// places in pixels and a confidence, and warnings. The same input gives the same output.
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

    /// Read the image in PATH instead of standard input
    #[arg(long, value_name = "PATH", help_heading = "Input")]
    pub input: Option<PathBuf>,

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

    /// Keep special tokens and the markup of places in the text
    #[arg(long, help_heading = "Reading")]
    pub special: bool,

    /// Threads to compute with [default: one on every core that is fast enough to help]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024), help_heading = "Reading")]
    pub threads: Option<u32>,

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

    /// Most bytes of the input
    #[arg(long, value_name = "N", default_value_t = Limits::default().bytes, help_heading = "Limits")]
    pub max_input_bytes: u64,

    /// Widest image, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().width, help_heading = "Limits")]
    pub max_width: u32,

    /// Highest image, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().height, help_heading = "Limits")]
    pub max_height: u32,

    /// Most pixels in all
    #[arg(long, value_name = "N", default_value_t = Limits::default().pixels, help_heading = "Limits")]
    pub max_pixels: u64,

    /// What to print
    #[arg(long, value_enum, default_value_t = FormatName::Json, help_heading = "Output")]
    pub format: FormatName,

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

    /// Print this program's description as JSON, whatever else is given
    #[arg(long)]
    pub describe: bool,
}

/// What to ask of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// The plain text
    Text,
    /// The document as markdown, with the place of each block
    Markdown,
    /// The text piece by piece, with the place of each
    Ocr,
    /// The content of a chart, a drawing or a formula
    Figure,
    /// A description of the picture
    Describe,
    /// The place of what --find names
    Locate,
}

/// The views of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// 512 x 512 pixels, stretched
    Tiny,
    /// 640 x 640, stretched
    Small,
    /// 1024 x 1024, padded
    Base,
    /// 1280 x 1280, padded
    Large,
    /// 1024 x 1024, padded, and up to nine tiles of 640 x 640
    Gundam,
    /// The model's own default, else gundam
    Auto,
}

/// Whether a tall page is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// As the model's default says; never with another --mode
    Auto,
    /// Never
    None,
    /// Where the text would be too small in one view
    Bands,
}

/// The arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    /// bf16 for large products where the machine is faster with it, sums in f32
    Auto,
    /// f32 throughout: slower, for comparisons
    F32,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// One JSON document
    Json,
    /// The text alone, warnings on standard error
    Text,
    /// The same, and the task is markdown unless another is given
    Markdown,
}
