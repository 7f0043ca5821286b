//! ALTO: layout and text in the XML of libraries and archives.

use super::line::{clamped, is_figure, lines, share};
use super::xml::{Attributes, Xml};
use super::{SOFTWARE, VERSION};
use crate::{Page, Region};

/// Writes pages as ALTO 4.4, one document for all.
///
/// Coordinates are in pixels of the upright page, whose ids count from `page_1`. A region is a
/// `TextBlock`, each line of its text that is not blank a `TextLine`; a region without text is a
/// `TextBlock` without lines. A figure (label `image`) is an `Illustration`, and text that belongs
/// to it a `TextBlock` of the same box behind it. Labels are `LayoutTag`s that the blocks refer
/// to, and model and task of a page are in the `Processing` that the page refers to.
///
/// The model gives boxes of blocks or lines and none of words, so a `TextLine` has one `String`
/// with the text of the whole line, spaces too. Its `WC` is the region's confidence, and `PC` the
/// page's, from 0 to 1: to compare, not a probability that the text is right.
///
/// A document of no page at all is well-formed, but the schema asks for one page.
///
/// Source: the [ALTO 4.4 schema](https://www.loc.gov/standards/alto/v4/alto-4-4.xsd).
pub fn alto(pages: &[Page]) -> String {
    let models = distinct(pages.iter().map(|page| (page.model.as_str(), page.task)));
    let regions = pages.iter().flat_map(|page| &page.regions);
    let labels = distinct(regions.filter_map(|region| region.label.as_deref()));

    let mut xml = Xml::new();
    let namespace = "http://www.loc.gov/standards/alto/ns-v4#".to_owned();
    let version = ("SCHEMAVERSION", "4.4".to_owned());
    xml.open("alto", vec![("xmlns", namespace), version]);
    xml.open("Description", vec![]);
    xml.text("MeasurementUnit", vec![], "pixel");
    for (i, (model, task)) in models.iter().enumerate() {
        write_processing(&mut xml, i, model, task);
    }
    xml.close();
    if !labels.is_empty() {
        xml.open("Tags", vec![]);
        for (i, label) in labels.iter().enumerate() {
            let id = ("ID", format!("label_{}", i + 1));
            xml.empty("LayoutTag", vec![id, ("LABEL", (*label).to_owned())]);
        }
        xml.close();
    }
    xml.open("Layout", vec![]);
    for (i, page) in pages.iter().enumerate() {
        let number = i + 1;
        let model = (page.model.as_str(), page.task);
        let mut attributes = vec![
            ("ID", format!("page_{number}")),
            ("PHYSICAL_IMG_NR", number.to_string()),
            ("WIDTH", page.width.to_string()),
            ("HEIGHT", page.height.to_string()),
            ("PC", share(page.confidence).to_string()),
        ];
        attributes.extend(reference("PROCESSINGREFS", "processing", &models, &model));
        xml.open("Page", attributes);
        let space = [0, 0, page.width, page.height];
        xml.open("PrintSpace", placed(format!("space_{number}"), space));
        for (j, region) in page.regions.iter().enumerate() {
            let tag = region.label.as_deref();
            let tag = tag.and_then(|label| reference("TAGREFS", "label", &labels, &label));
            let number = format!("{number}_{}", j + 1);
            write_region(&mut xml, page, region, &number, tag);
        }
        xml.close();
        xml.close();
    }
    xml.finish()
}

fn write_processing(xml: &mut Xml, index: usize, model: &str, task: &str) {
    let id = ("ID", format!("processing_{}", index + 1));
    xml.open("Processing", vec![id]);
    xml.text("processingCategory", vec![], "contentGeneration");
    xml.text("processingStepSettings", vec![], &format!("task: {task}"));
    xml.open("processingSoftware", vec![]);
    xml.text("softwareName", vec![], SOFTWARE);
    xml.text("softwareVersion", vec![], VERSION);
    xml.text("applicationDescription", vec![], &format!("model: {model}"));
    xml.close();
    xml.close();
}

fn write_region(
    xml: &mut Xml,
    page: &Page,
    region: &Region,
    number: &str,
    tag: Option<(&'static str, String)>,
) {
    let bbox = clamped(region.bbox, page.width, page.height);
    let block = |id: &str| {
        let mut attributes = placed(format!("{id}_{number}"), bbox);
        attributes.extend(tag.clone());
        attributes
    };
    let lines = lines(page, region);
    if is_figure(region) {
        xml.empty("Illustration", block("illustration"));
        if lines.is_empty() {
            return;
        }
    }
    xml.open("TextBlock", block("block"));
    let confidence = share(region.confidence).to_string();
    for (i, line) in lines.iter().enumerate() {
        let number = format!("{number}_{}", i + 1);
        xml.open("TextLine", placed(format!("line_{number}"), line.bbox));
        let mut string = placed(format!("string_{number}"), line.bbox);
        string.push(("CONTENT", line.text.to_owned()));
        string.push(("WC", confidence.clone()));
        xml.empty("String", string);
        xml.close();
    }
    xml.close();
}

fn placed(id: String, [x0, y0, x1, y1]: [u32; 4]) -> Attributes {
    vec![
        ("ID", id),
        ("HPOS", x0.to_string()),
        ("VPOS", y0.to_string()),
        ("WIDTH", (x1 - x0).to_string()),
        ("HEIGHT", (y1 - y0).to_string()),
    ]
}

/// Each item once, in the order of its first appearance.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

/// An attribute that refers to the element written for `item`.
fn reference<T: PartialEq>(
    attribute: &'static str,
    id: &str,
    items: &[T],
    item: &T,
) -> Option<(&'static str, String)> {
    let index = items.iter().position(|other| other == item)?;
    Some((attribute, format!("{id}_{}", index + 1)))
}
