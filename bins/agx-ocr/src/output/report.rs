//! The JSON document that is printed: one page, or many.

use super::costs::Costs;
use crate::pages::Place;
use agx_ocr_pipeline::{Page, Region};
use serde::Serialize;

/// The result of reading: a page for an image, all pages for a document or for several inputs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Report<'a> {
    Page(Single<'a>),
    Pages(Several<'a>),
}

/// The page of an image.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Single<'a> {
    #[serde(flatten)]
    pub page: &'a Page,
    /// With --stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Costs>,
}

/// The pages of a document, or of several inputs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Several<'a> {
    /// The texts of all pages, with a blank line between them.
    pub text: String,
    /// The regions of all pages.
    pub regions: Vec<PlacedRegion<'a>>,
    /// The pages in their order, those that could not be read among them.
    pub pages: Vec<PageEntry<'a>>,
    /// The model's name.
    pub model: &'a str,
    /// The task's name.
    pub task: &'a str,
    /// What a reader should know beyond the pages' own warnings.
    pub warnings: &'a [String],
    /// With --stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<Costs>,
}

/// A region of one of several pages.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlacedRegion<'a> {
    #[serde(flatten)]
    pub place: &'a Place,
    #[serde(flatten)]
    pub region: &'a Region,
}

/// One of several pages: also a line of --format jsonl.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PageEntry<'a> {
    #[serde(flatten)]
    pub place: &'a Place,
    #[serde(flatten)]
    pub content: Content<'a>,
}

/// A page, or why it could not be read.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Content<'a> {
    Read(&'a Page),
    Failed(FailedPage),
}

/// A page that could not be read.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailedPage {
    /// Empty.
    pub text: &'static str,
    /// Empty.
    pub regions: [Region; 0],
    /// What was wrong.
    pub error: String,
    /// Empty.
    pub warnings: [String; 0],
}

impl FailedPage {
    pub fn new(error: String) -> Self {
        Self {
            text: "",
            regions: [],
            error,
            warnings: [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, path::Path};

    /// docs/output.schema.json is made from the types: with AGX_OCR_BLESS=1 this test writes it.
    #[test]
    fn the_schema_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/output.schema.json");
        let mut schema = schemars::schema_for!(Report<'static>);
        schema.insert("title".into(), "Result of agx-ocr".into());
        let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var_os("AGX_OCR_BLESS").is_some() {
            fs::write(&path, &schema).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == schema,
            "docs/output.schema.json is not that of the types: AGX_OCR_BLESS=1 cargo test -p agx-ocr writes it"
        );
    }
}
