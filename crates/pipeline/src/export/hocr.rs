//! hOCR: XHTML whose elements say where on the page they stand.

use super::line::{clamped, is_figure, lines, share};
use super::xml::{Attributes, Xml};
use super::{SOFTWARE, VERSION};
use crate::{Page, Region};

/// What the documents may hold. The format's rule: what is not listed must not appear.
const CAPABILITIES: &str = "ocr_page ocr_carea ocr_par ocr_line ocr_photo ocrp_wconf";

/// Writes pages as hOCR 1.2, one document for all.
///
/// A page is an `ocr_page`, its ids counted from `page_1` and its `ppageno` from 0. A region is
/// an `ocr_carea` with one `ocr_par`, in which each line that is not blank is an `ocr_line`; a
/// region without text is an empty `ocr_carea`. A figure (label `image`) is an `ocr_photo`, and
/// text that belongs to it an `ocr_carea` of the same box behind it. The label of a region, where
/// it has one, is its `data-label`. Boxes are in pixels of the upright page.
///
/// `x_wconf` of a line is its region's confidence in percent: to compare, not a probability that
/// the text is right.
///
/// The model gives boxes of blocks or lines, so there are no `ocrx_word`s: a tool that needs
/// words has to divide the lines. Markup in the text, such as a table's, is text here. Pages name
/// no `image`, since the picture's file is not known.
///
/// Source: the [hOCR specification 1.2](https://kba.github.io/hocr-spec/1.2/).
pub fn hocr(pages: &[Page]) -> String {
    let mut xml = Xml::new();
    xml.doctype("html");
    let namespace = "http://www.w3.org/1999/xhtml".to_owned();
    xml.open("html", vec![("xmlns", namespace)]);
    xml.open("head", vec![]);
    xml.text("title", vec![], "OCR");
    // For readers that take the document for HTML.
    let content_type = ("http-equiv", "Content-Type".to_owned());
    let charset = ("content", "text/html; charset=utf-8".to_owned());
    xml.empty("meta", vec![content_type, charset]);
    for (name, content) in [
        ("ocr-system", format!("{SOFTWARE} {VERSION}")),
        ("ocr-capabilities", CAPABILITIES.to_owned()),
        ("ocr-number-of-pages", pages.len().to_string()),
    ] {
        xml.empty(
            "meta",
            vec![("name", name.to_owned()), ("content", content)],
        );
    }
    xml.close();
    xml.open("body", vec![]);
    for (i, page) in pages.iter().enumerate() {
        let number = i + 1;
        let title = format!("bbox 0 0 {} {}; ppageno {i}", page.width, page.height);
        xml.open("div", element("ocr_page", format!("page_{number}"), title));
        for (j, region) in page.regions.iter().enumerate() {
            write_region(&mut xml, page, region, &format!("{number}_{}", j + 1));
        }
        xml.close();
    }
    xml.finish()
}

fn write_region(xml: &mut Xml, page: &Page, region: &Region, number: &str) {
    let bbox = bbox(clamped(region.bbox, page.width, page.height));
    let label = region.label.clone().map(|label| ("data-label", label));
    let block = |class, id: &str| {
        let mut attributes = element(class, format!("{id}_{number}"), bbox.clone());
        attributes.extend(label.clone());
        attributes
    };
    let lines = lines(page, region);
    if is_figure(region) {
        xml.open("div", block("ocr_photo", "photo"));
        xml.close();
        if lines.is_empty() {
            return;
        }
    }
    xml.open("div", block("ocr_carea", "block"));
    if !lines.is_empty() {
        let paragraph = element("ocr_par", format!("par_{number}"), bbox.clone());
        xml.open("p", paragraph);
        let percent = (share(region.confidence) * 100.0).round();
        for (i, line) in lines.iter().enumerate() {
            let title = format!("{}; x_wconf {percent}", self::bbox(line.bbox));
            let id = format!("line_{number}_{}", i + 1);
            xml.text("span", element("ocr_line", id, title), line.text);
        }
        xml.close();
    }
    xml.close();
}

fn element(class: &str, id: String, title: String) -> Attributes {
    vec![("class", class.to_owned()), ("id", id), ("title", title)]
}

fn bbox([x0, y0, x1, y1]: [u32; 4]) -> String {
    format!("bbox {x0} {y0} {x1} {y1}")
}
