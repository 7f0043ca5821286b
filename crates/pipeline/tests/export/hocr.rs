//! hOCR, read back as XML.

use std::collections::HashSet;

use agx_ocr_pipeline::{Page, export};
use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};

use super::*;

const XHTML: &str = "http://www.w3.org/1999/xhtml";

#[track_caller]
fn parse(text: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    Document::parse_with_options(text, options).unwrap()
}

fn of_class<'a, 'd>(node: Node<'a, 'd>, class: &str) -> Vec<Node<'a, 'd>> {
    let nodes = node.descendants();
    nodes
        .filter(|node| node.attribute("class") == Some(class))
        .collect()
}

/// A property of an element's title.
fn property(node: Node, name: &str) -> Option<Vec<f64>> {
    let properties = node.attribute("title")?.split("; ");
    let values = properties
        .filter_map(|property| property.strip_prefix(name))
        .next()?;
    Some(
        values
            .split_whitespace()
            .map(|value| value.parse().unwrap())
            .collect(),
    )
}

fn bbox(node: Node) -> [u32; 4] {
    let values = property(node, "bbox ").unwrap();
    let values: Vec<u32> = values.iter().map(|value| *value as u32).collect();
    values.try_into().unwrap()
}

#[test]
fn a_page_has_areas_paragraphs_and_lines() {
    let mut title = labelled("title", "Hocr & co", [10, 20, 110, 40]);
    title.confidence = 0.876;
    let regions = vec![
        title,
        labelled("image", "", [10, 50, 60, 90]),
        region("one\n\ntwo\r\nthree", [10, 100, 200, 160]),
        labelled("image", "a figure's text", [70, 50, 90, 90]),
        labelled("table", "", [1, 2, 3, 4]),
    ];
    let second = page(30, 40, vec![]);
    let text = export::hocr(&[page(300, 200, regions), second]);
    let document = parse(&text);

    let html = document.root_element();
    assert_eq!(html.tag_name(), (XHTML, "html").into());
    let pages = of_class(html, "ocr_page");
    let ids: Vec<_> = pages
        .iter()
        .map(|page| page.attribute("id").unwrap())
        .collect();
    assert_eq!(ids, ["page_1", "page_2"]);
    assert_eq!(
        pages[0].attribute("title"),
        Some("bbox 0 0 300 200; ppageno 0")
    );
    assert_eq!(
        pages[1].attribute("title"),
        Some("bbox 0 0 30 40; ppageno 1")
    );
    assert_eq!(pages[1].children().filter(Node::is_element).count(), 0);

    let blocks: Vec<_> = pages[0].children().filter(Node::is_element).collect();
    let blocks = blocks.iter().map(|block| {
        let name = |name| block.attribute(name);
        let lines = of_class(*block, "ocr_line").len();
        (
            name("class").unwrap(),
            name("data-label"),
            bbox(*block),
            lines,
        )
    });
    assert_eq!(
        blocks.collect::<Vec<_>>(),
        [
            ("ocr_carea", Some("title"), [10, 20, 110, 40], 1),
            ("ocr_photo", Some("image"), [10, 50, 60, 90], 0),
            ("ocr_carea", None, [10, 100, 200, 160], 3),
            ("ocr_photo", Some("image"), [70, 50, 90, 90], 0),
            ("ocr_carea", Some("image"), [70, 50, 90, 90], 1),
            ("ocr_carea", Some("table"), [1, 2, 3, 4], 0),
        ]
    );
    for paragraph in of_class(html, "ocr_par") {
        assert!(paragraph.has_tag_name((XHTML, "p")));
        assert_eq!(bbox(paragraph), bbox(paragraph.parent_element().unwrap()));
    }
    let lines = of_class(html, "ocr_line").into_iter().map(|line| {
        let confidence = property(line, "x_wconf ").unwrap();
        (line.text().unwrap(), bbox(line), confidence[0])
    });
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            ("Hocr & co", [10, 20, 110, 40], 88.0),
            ("one", [10, 100, 200, 120], 50.0),
            ("two", [10, 120, 200, 140], 50.0),
            ("three", [10, 140, 200, 160], 50.0),
            ("a figure's text", [70, 50, 90, 90], 50.0),
        ]
    );
}

#[test]
fn classes_are_announced_and_words_are_not_made_up() {
    let regions = vec![
        region("two words", [0, 0, 9, 9]),
        labelled("image", "", [0, 0, 9, 9]),
    ];
    let text = export::hocr(&[page(9, 9, regions)]);
    let document = parse(&text);
    let metas = document
        .descendants()
        .filter(|node| node.has_tag_name((XHTML, "meta")));
    let meta = |name: &str| {
        let mut metas = metas.clone();
        let meta = metas.find(|meta| meta.attribute("name") == Some(name));
        meta.unwrap().attribute("content").unwrap()
    };
    assert_eq!(
        meta("ocr-system"),
        format!("agx-ocr {}", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(meta("ocr-number-of-pages"), "1");
    let capabilities: HashSet<_> = meta("ocr-capabilities").split(' ').collect();
    assert!(!capabilities.contains("ocrx_word"));
    let classes = document
        .descendants()
        .filter_map(|node| node.attribute("class"));
    let mut used: HashSet<_> = classes.collect();
    used.insert("ocrp_wconf");
    assert_eq!(used, capabilities);
}

#[test]
fn hostile_text_stays_text() {
    let regions = vec![labelled(HOSTILE, HOSTILE, [0, 0, 5, 5])];
    let text = export::hocr(&[page(9, 9, regions)]);
    let document = parse(&text);
    let lines = of_class(document.root(), "ocr_line");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].text().unwrap(), in_xml(HOSTILE));
    let block = of_class(document.root(), "ocr_carea")[0];
    assert_eq!(block.attribute("data-label").unwrap(), in_xml(HOSTILE));
    assert!(text.contains(']') && !text.contains("]]>"));
}

#[test]
fn no_pages_are_a_document_too() {
    let text = export::hocr(&[]);
    let document = parse(&text);
    assert!(of_class(document.root(), "ocr_page").is_empty());
    let names = document.root_element().children().filter(Node::is_element);
    let names: Vec<_> = names.map(|node| node.tag_name().name()).collect();
    assert_eq!(names, ["head", "body"]);
}

#[test]
fn what_the_model_read_is_in_it() {
    let text = export::hocr(&[read()]);
    let document = parse(&text);
    let lines = of_class(document.root(), "ocr_line");
    let lines: Vec<_> = lines.into_iter().map(|line| line.text().unwrap()).collect();
    assert_eq!(lines, ["Invoice total: $1,284.50"]);
}

/// Everything that holds of any document.
fn check(pages: &[Page]) {
    let text = export::hocr(pages);
    let document = parse(&text);
    let ids: Vec<_> = document
        .descendants()
        .filter_map(|node| node.attribute("id"))
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());

    let found = of_class(document.root(), "ocr_page");
    assert_eq!(found.len(), pages.len());
    for (found, page) in found.into_iter().zip(pages) {
        let wanted = page.regions.iter().flat_map(|region| lines(&region.text));
        let lines = of_class(found, "ocr_line");
        let texts: Vec<_> = lines
            .iter()
            .map(|line| line.text().unwrap_or_default())
            .collect();
        assert_eq!(texts, wanted.collect::<Vec<_>>());
        for line in lines {
            let [left, top, right, bottom] = bbox(line);
            let area = bbox(line.ancestors().nth(2).unwrap());
            assert_eq!([left, right], [area[0], area[2]]);
            assert!(area[1] <= top && top <= bottom && bottom <= area[3]);
            assert!((0.0..=100.0).contains(&property(line, "x_wconf ").unwrap()[0]));
        }
        let figure = |region: &&Region| region.label.as_deref() == Some("image");
        let figures = page.regions.iter().filter(figure);
        let figures = figures.map(|region| box_inside(region.bbox, page.width, page.height));
        let photos = of_class(found, "ocr_photo").into_iter().map(bbox);
        assert_eq!(photos.collect::<Vec<_>>(), figures.collect::<Vec<_>>());
    }
}

proptest! {
    #[test]
    fn any_pages_are_well_formed(pages in any_pages()) {
        check(&pages);
    }
}
