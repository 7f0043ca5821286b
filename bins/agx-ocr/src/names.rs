//! The values that arguments may take, by name.

use clap::ValueEnum;

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
    /// The same
    Bf16,
    /// f16 for large products, on a GPU
    F16,
    /// f32 throughout: slower, for comparisons
    F32,
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlphaName {
    /// The image is laid over white paper
    White,
    /// Colours are taken as they are, seen or not, as the reference does
    Drop,
}

/// How standard error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormatName {
    /// Lines for people
    Text,
    /// A JSON object a line: level and message, causes of an error, fields of a step
    Json,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// One JSON document
    Json,
    /// One JSON document a page, each on a line of its own as soon as the page is read
    Jsonl,
    /// The text alone, warnings on standard error; a form feed between pages
    Text,
    /// The text as markdown; the task is markdown unless another is given
    Markdown,
    /// hOCR: HTML with the places of blocks and lines
    Hocr,
    /// ALTO: XML with the places of blocks and lines
    Alto,
    /// A PDF of the pages' images with the text, invisible, over its places
    #[cfg(feature = "pdf")]
    Pdf,
}
