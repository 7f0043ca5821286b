//! Figures cut out, and links to them.

use agx_ocr_pipeline::export;

use super::*;

fn with_text(text: &str) -> Page {
    let mut page = page(10, 10, vec![]);
    page.text = text.to_owned();
    page
}

#[test]
fn figures_are_cut_out_in_order() {
    let regions = vec![
        labelled("text", "no figure", [0, 0, 10, 10]),
        labelled("image", "", [300, 20, 320, 50]),
        labelled("image_caption", "no figure", [0, 0, 10, 10]),
        labelled("Image", "no figure", [0, 0, 10, 10]),
        region("no figure", [0, 0, 10, 10]),
        labelled("image", "text", [0, 0, 1, 1]),
    ];
    let (picture, page) = (picture(400, 100), page(400, 100, regions));
    let figures: Vec<_> = export::figures(&page, &picture).collect();
    let indices: Vec<_> = figures.iter().map(|(index, _)| *index).collect();
    assert_eq!(indices, [0, 1]);
    let first = RgbImage::from_fn(20, 30, |x, y| *picture.get_pixel(300 + x, 20 + y));
    assert_eq!(figures[0].1, first);
    assert_eq!(figures[1].1.dimensions(), (1, 1));
}

#[test]
fn figures_of_nothing_keep_their_numbers() {
    let boxes = [
        [5, 5, 5, 9],
        [9, 9, 2, 3],
        [90, 0, 99, 9],
        [15, 5, u32::MAX, u32::MAX],
        [u32::MAX; 4],
        [0, 0, 20, 10],
    ];
    let regions = boxes.map(|bbox| labelled("image", "", bbox));
    let (picture, page) = (picture(20, 10), page(20, 10, regions.into()));
    let sizes =
        export::figures(&page, &picture).map(|(index, figure)| (index, figure.dimensions()));
    assert_eq!(
        sizes.collect::<Vec<_>>(),
        [(1, (7, 6)), (3, (5, 5)), (5, (20, 10))]
    );
}

#[test]
fn marks_become_links() {
    let page = with_text(
        "# A\n\n<!-- figure -->\n<!-- figure -->\nB\n\nC<!-- figure -->\n<!-- figure -->",
    );
    let link = |index| (index != 1).then(|| format!("{index}.png"));
    assert_eq!(
        export::markdown(&page, link),
        "# A\n\n![](0.png)\n<!-- figure -->\nB\n\nC![](2.png)\n![](3.png)"
    );
    assert_eq!(export::markdown(&page, |_| None), page.text);
}

#[test]
fn text_about_marks_stays() {
    let page = with_text("`<!-- figure -->` is a mark\n<!-- figure --> too\n<!--figure-->\n");
    let link = |_| -> Option<String> { panic!("no figure") };
    assert_eq!(export::markdown(&page, link), page.text);
    assert_eq!(export::markdown(&with_text(""), link), "");
}

#[test]
fn links_cannot_end_early() {
    let page = with_text("<!-- figure -->");
    for (link, wanted) in [
        ("a b.png", "a%20b.png"),
        ("a(1).png", "a%281%29.png"),
        ("<a>\n", "%3Ca%3E%0A"),
        ("a\\`b", "a%5C%60b"),
        ("图%20[1]_é.png", "图%20[1]_é.png"),
        ("https://host/p?q=1&r=2#f", "https://host/p?q=1&r=2#f"),
        ("", ""),
    ] {
        let text = export::markdown(&page, |_| Some(link.to_owned()));
        assert_eq!(text, format!("![]({wanted})"));
    }
}

#[test]
fn numbers_of_links_and_figures_agree() {
    let regions = vec![
        labelled("image", "", [0, 0, 5, 5]),
        labelled("image", "", [5, 5, 5, 5]),
        labelled("image", "", [5, 5, 9, 9]),
    ];
    let mut page = page(10, 10, regions);
    page.text = "<!-- figure -->\n".repeat(3);
    let picture = picture(10, 10);
    let saved: Vec<_> = export::figures(&page, &picture)
        .map(|(index, _)| index)
        .collect();
    let link = |index| saved.contains(&index).then(|| index.to_string());
    assert_eq!(
        export::markdown(&page, link),
        "![](0)\n<!-- figure -->\n![](2)\n"
    );
}
