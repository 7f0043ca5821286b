//! ALTO, read back as XML.

use std::collections::HashSet;

use agx_ocr_pipeline::{Page, export};
use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::*;

const NAMESPACE: &str = "http://www.loc.gov/standards/alto/ns-v4#";

#[track_caller]
fn parse(text: &str) -> Document<'_> {
    Document::parse(text).unwrap()
}

fn named<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Vec<Node<'a, 'd>> {
    let nodes = node.descendants();
    nodes
        .filter(|node| node.has_tag_name((NAMESPACE, name)))
        .collect()
}

fn children<'a>(node: Node<'a, '_>) -> Vec<&'a str> {
    let nodes = node.children().filter(Node::is_element);
    nodes.map(|node| node.tag_name().name()).collect()
}

/// Left, top, right and bottom.
fn bbox(node: Node) -> [u32; 4] {
    let side = |name| node.attribute(name).unwrap().parse::<u32>().unwrap();
    let (left, top) = (side("HPOS"), side("VPOS"));
    [left, top, left + side("WIDTH"), top + side("HEIGHT")]
}

#[test]
fn elements_come_in_the_order_of_the_schema() {
    let regions = vec![
        labelled("title", "Alto & co", [10, 20, 110, 40]),
        labelled("image", "", [10, 50, 60, 90]),
        region("one\n\ntwo", [10, 100, 200, 160]),
        labelled("image", "a figure's text", [70, 50, 90, 90]),
        labelled("title", "", [1, 2, 3, 4]),
    ];
    let second = page(30, 40, vec![]);
    let text = export::alto(&[page(300, 200, regions), second]);
    let document = parse(&text);
    let alto = document.root_element();
    assert_eq!(alto.tag_name(), (NAMESPACE, "alto").into());
    assert_eq!(alto.attribute("SCHEMAVERSION"), Some("4.4"));
    assert_eq!(children(alto), ["Description", "Tags", "Layout"]);
    let description = named(alto, "Description")[0];
    assert_eq!(children(description), ["MeasurementUnit", "Processing"]);
    assert_eq!(named(alto, "MeasurementUnit")[0].text(), Some("pixel"));
    let processing = named(alto, "Processing")[0];
    let steps = [
        "processingCategory",
        "processingStepSettings",
        "processingSoftware",
    ];
    assert_eq!(children(processing), steps);
    let software = ["softwareName", "softwareVersion", "applicationDescription"];
    assert_eq!(children(named(alto, "processingSoftware")[0]), software);

    let pages = named(alto, "Page");
    for (i, (page, [width, height])) in pages.iter().zip([["300", "200"], ["30", "40"]]).enumerate()
    {
        assert_eq!(page.attribute("ID").unwrap(), format!("page_{}", i + 1));
        assert_eq!(
            page.attribute("PHYSICAL_IMG_NR").unwrap(),
            (i + 1).to_string()
        );
        assert_eq!(page.attribute("WIDTH"), Some(width));
        assert_eq!(page.attribute("HEIGHT"), Some(height));
        assert_eq!(page.attribute("PROCESSINGREFS"), processing.attribute("ID"));
        assert_eq!(children(*page), ["PrintSpace"]);
    }
    assert_eq!(children(named(pages[1], "PrintSpace")[0]), [""; 0]);
    let space = named(pages[0], "PrintSpace")[0];
    assert_eq!(bbox(space), [0, 0, 300, 200]);
    let blocks = [
        "TextBlock",
        "Illustration",
        "TextBlock",
        "Illustration",
        "TextBlock",
        "TextBlock",
    ];
    assert_eq!(children(space), blocks);

    let label = |node: Node| {
        let id = node.attribute("TAGREFS")?;
        let mut tags = named(alto, "LayoutTag").into_iter();
        Some(
            tags.find(|tag| tag.attribute("ID") == Some(id))?
                .attribute("LABEL")?
                .to_owned(),
        )
    };
    let found: Vec<_> = space.children().filter(Node::is_element).collect();
    let labels: Vec<_> = found.iter().map(|block| label(*block)).collect();
    let labels: Vec<_> = labels.iter().map(Option::as_deref).collect();
    let image = Some("image");
    assert_eq!(
        labels,
        [Some("title"), image, None, image, image, Some("title")]
    );
    assert_eq!(named(alto, "LayoutTag").len(), 2);
    assert_eq!(bbox(found[1]), [10, 50, 60, 90]);
    assert_eq!(bbox(found[5]), [1, 2, 3, 4]);

    let strings = named(alto, "String").into_iter().map(|string| {
        assert_eq!(bbox(string), bbox(string.parent_element().unwrap()));
        assert_eq!(children(string.parent_element().unwrap()), ["String"]);
        let value = |name| string.attribute(name).unwrap();
        (value("CONTENT"), bbox(string), value("WC"))
    });
    assert_eq!(
        strings.collect::<Vec<_>>(),
        [
            ("Alto & co", [10, 20, 110, 40], "0.5"),
            ("one", [10, 100, 200, 130], "0.5"),
            ("two", [10, 130, 200, 160], "0.5"),
            ("a figure's text", [70, 50, 90, 90], "0.5"),
        ]
    );
}

#[test]
fn pages_of_two_models_refer_to_theirs() {
    let mut pages = [page(1, 1, vec![]), page(1, 1, vec![]), page(1, 1, vec![])];
    pages[1].model = "another".into();
    let text = export::alto(&pages);
    let document = parse(&text);
    let processings = named(document.root(), "Processing");
    assert_eq!(processings.len(), 2);
    let models = named(document.root(), "Page").into_iter().map(|page| {
        let id = page.attribute("PROCESSINGREFS");
        let processing = processings
            .iter()
            .find(|step| step.attribute("ID") == id)
            .unwrap();
        named(*processing, "applicationDescription")[0]
            .text()
            .unwrap()
    });
    assert_eq!(
        models.collect::<Vec<_>>(),
        ["model: a model", "model: another", "model: a model"]
    );
    assert!(named(document.root(), "Tags").is_empty());
}

#[test]
fn hostile_text_stays_text() {
    let mut page = page(9, 9, vec![labelled(HOSTILE, HOSTILE, [0, 0, 5, 5])]);
    page.model = HOSTILE.into();
    let text = export::alto(&[page]);
    let document = parse(&text);
    let value = |element, name| named(document.root(), element)[0].attribute(name);
    assert_eq!(value("String", "CONTENT").unwrap(), in_xml(HOSTILE));
    assert_eq!(value("LayoutTag", "LABEL").unwrap(), in_xml(HOSTILE));
    let description = named(document.root(), "applicationDescription")[0];
    assert_eq!(
        description.text().unwrap(),
        format!("model: {}", in_xml(HOSTILE))
    );
}

/// Everything that holds of any document.
fn check(pages: &[Page]) {
    let text = export::alto(pages);
    let document = parse(&text);
    let ids = document
        .descendants()
        .filter_map(|node| node.attribute("ID"));
    let ids: Vec<_> = ids.collect();
    let unique: HashSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    for name in ["TAGREFS", "PROCESSINGREFS"] {
        for id in document
            .descendants()
            .filter_map(|node| node.attribute(name))
        {
            assert!(unique.contains(id));
        }
    }

    let found = named(document.root(), "Page");
    assert_eq!(found.len(), pages.len());
    for (found, page) in found.into_iter().zip(pages) {
        let wanted = page.regions.iter().flat_map(|region| lines(&region.text));
        let strings = named(found, "String");
        let texts = strings
            .iter()
            .map(|string| string.attribute("CONTENT").unwrap());
        assert_eq!(texts.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        for string in strings {
            let [left, top, right, bottom] = bbox(string);
            let block = bbox(string.ancestors().nth(2).unwrap());
            assert_eq!([left, right], [block[0], block[2]]);
            assert!(block[1] <= top && bottom <= block[3]);
            let confidence: f32 = string.attribute("WC").unwrap().parse().unwrap();
            assert!((0.0..=1.0).contains(&confidence));
        }
        let figure = |region: &&Region| region.label.as_deref() == Some("image");
        let figures = page.regions.iter().filter(figure);
        let figures = figures.map(|region| box_inside(region.bbox, page.width, page.height));
        let illustrations = named(found, "Illustration").into_iter().map(bbox);
        assert_eq!(
            illustrations.collect::<Vec<_>>(),
            figures.collect::<Vec<_>>()
        );
    }
}

proptest! {
    #[test]
    fn any_pages_are_well_formed(pages in any_pages()) {
        check(&pages);
    }
}
