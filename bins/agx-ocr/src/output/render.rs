//! Pages as bytes, in a format.

use super::{
    Format, Measured,
    costs::Costs,
    json,
    report::{Content, FailedPage, PageEntry, PlacedRegion, Report, Several, Single},
};
use crate::{failure::Failure, pages::PageRead};
use agx_ocr_pipeline::{Page, Stats, export};

/// The pages in a format that is one document.
pub fn render(
    format: Format,
    reads: &[PageRead],
    warnings: &[String],
    measured: Option<&Measured>,
) -> Result<Vec<u8>, Failure> {
    let pages = || reads.iter().filter_map(|read| read.page.as_ref().ok());
    let owned = || pages().cloned().collect::<Vec<Page>>();
    let text = match format {
        Format::Json { pretty } => return json(&report(reads, warnings, measured), pretty),
        Format::Text => {
            let texts: Vec<&str> = pages().map(|page| &page.text[..]).collect();
            texts.join("\n\u{c}") + "\n"
        }
        Format::Markdown => {
            let read = reads.iter().filter(|read| read.page.is_ok());
            let mut text = String::new();
            for (i, (page, read)) in pages().zip(read).enumerate() {
                if i > 0 {
                    let name = read.place.name().replace("--", "- -");
                    text.push_str(&format!("\n<!-- {name} -->\n\n"));
                }
                text.push_str(&page.text);
                text.push('\n');
            }
            text
        }
        Format::Hocr => export::hocr(&owned()),
        Format::Alto => export::alto(&owned()),
        _ => String::new(),
    };
    Ok(text.into_bytes())
}

fn report<'a>(
    reads: &'a [PageRead],
    warnings: &'a [String],
    measured: Option<&Measured>,
) -> Report<'a> {
    let read = || {
        reads
            .iter()
            .filter_map(|read| Some((&read.place, read.page.as_ref().ok()?)))
    };
    let stats: Stats = read().map(|(_, page)| page.stats).sum();
    let stats = measured.map(|measured| Costs::new(stats, measured));
    if let [
        PageRead {
            page: Ok(page),
            paged: false,
            ..
        },
    ] = reads
    {
        return Report::Page(Single { page, stats });
    }
    let texts: Vec<&str> = read().map(|(_, page)| &page.text[..]).collect();
    let region = |(place, page): (&'a _, &'a Page)| {
        let regions = page.regions.iter();
        regions.map(move |region| PlacedRegion { place, region })
    };
    let first = read().next().map(|(_, page)| page);
    Report::Pages(Several {
        text: texts.join("\n\n"),
        regions: read().flat_map(region).collect(),
        pages: reads.iter().map(entry).collect(),
        model: first.map_or("", |page| &page.model),
        task: first.map_or("", |page| page.task),
        warnings,
        stats,
    })
}

fn entry(read: &PageRead) -> PageEntry<'_> {
    PageEntry {
        place: &read.place,
        content: match &read.page {
            Ok(page) => Content::Read(page),
            Err(failure) => Content::Failed(FailedPage::new(failure.to_string())),
        },
    }
}

/// A page as a line of JSON.
pub fn line(read: &PageRead) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(&entry(read)).map_err(Failure::failed)?;
    line.push(b'\n');
    Ok(line)
}
