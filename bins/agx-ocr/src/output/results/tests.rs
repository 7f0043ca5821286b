use super::*;
use crate::pages::Place;
use agx_ocr_pipeline::Region;
use std::{fs, path::Path};

#[test]
fn confidences_have_four_decimals() {
    let printed = |confidence: f32| {
        let mut page = Page::default();
        page.confidence = confidence;
        round(&mut page);
        serde_json::to_string(&page.confidence).unwrap()
    };
    assert_eq!(printed(0.987_654_3), "0.9877");
    assert_eq!(printed(1.0 / 3.0), "0.3333");
    assert_eq!(printed(0.999_99), "1.0");
}
/// A page with two figures, and between them one without area.
fn illustrated() -> PageRead {
    let region = |label: &str, bbox| {
        let mut region = Region::new("", bbox);
        region.label = Some(label.into());
        region
    };
    let mut page = Page::default();
    page.regions = vec![
        region("image", [3, 2, 7, 5]),
        region("text", [0, 0, 9, 9]),
        region("image", [6, 6, 6, 9]),
        region("image", [8, 0, 4000, 1]),
    ];
    page.text = "Top\n<!-- figure -->\n<!-- figure -->\n\n<!-- figure -->\nEnd".into();
    PageRead {
        place: Place {
            input: None,
            page: 1,
        },
        paged: true,
        page: Ok(page),
        picture: Some(picture()),
    }
}

/// Every pixel is another.
fn picture() -> RgbImage {
    RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8, y as u8, 7]))
}

fn output(format: Format, dir: &Path) -> Output {
    Output {
        format,
        stats: false,
        most_bytes: 10_000,
        assets: Some(dir.join("made here")),
        overlay: Some(dir.join("boxes.png")),
        dpi: 144.0,
    }
}

/// The names of a directory's files.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.metadata().unwrap().is_file());
    let mut names: Vec<String> = files
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn figures_are_cut_out_and_linked() {
    let dir = tempfile::tempdir().unwrap();
    let output = output(Format::Markdown, dir.path());
    let figures = dir.path().join("made here");
    let mut results = Results::new(&output);
    for _ in 0..2 {
        assert!(results.add(illustrated()).unwrap().is_continue());
    }
    let name = |page: u32, figure: u32| format!("figure-{page}-{figure}.png");
    let all = [name(1, 1), name(1, 3), name(2, 1), name(2, 3)];
    assert_eq!(names(&figures), all);
    for (name, [left, top, width, height]) in [
        (name(1, 1), [3, 2, 4, 3]),
        (name(2, 1), [3, 2, 4, 3]),
        // What is beyond the page is none of it.
        (name(1, 3), [8, 0, 12, 1]),
    ] {
        let cut = image::open(figures.join(&name)).unwrap().into_rgb8();
        let place = image::imageops::crop_imm(&picture(), left, top, width, height).to_image();
        assert_eq!(cut, place, "{name}");
    }
    let text = String::from_utf8(results.fitting(None).unwrap()).unwrap();
    let page = |page: u32| {
        let link = |figure| {
            let path = figures.join(name(page, figure));
            path.to_str().unwrap().replace(' ', "%20")
        };
        let (first, last) = (link(1), link(3));
        format!("Top\n![]({first})\n<!-- figure -->\n\n![]({last})\nEnd\n")
    };
    assert_eq!(text, page(1) + "\n<!-- Page 1 -->\n\n" + &page(2));
}

#[test]
fn a_page_that_has_no_room_leaves_no_file() {
    let alone = |figures: &Path| {
        let mut page = illustrated();
        files::link_figures(page.page.as_mut().unwrap(), &picture(), 1, figures);
        render(Format::Markdown, &[page], &[], None).unwrap().len()
    };
    // Found out before its files are written, or when what stands between the pages is counted.
    for (of, seems_to_have_room) in [(3, false), (4, true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut output = output(Format::Markdown, dir.path());
        let figures = dir.path().join("made here");
        output.most_bytes = alone(&figures) * of / 2;

        let mut results = Results::new(&output);
        let room = [(); 2].map(|()| results.add(illustrated()).unwrap().is_continue());
        assert_eq!(room, [true, seems_to_have_room]);
        results.fitting(None).unwrap();
        assert_eq!(results.pages.len(), 1);
        assert!(results.warnings[0].contains("left out"));
        assert_eq!(names(&figures), ["figure-1-1.png", "figure-1-3.png"]);
        assert_eq!(names(dir.path()), ["boxes.png"]);
    }
}

#[test]
fn a_page_whose_files_cannot_all_be_written_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let output = output(Format::Markdown, dir.path());
    fs::create_dir(dir.path().join("boxes.png")).unwrap();
    let mut results = Results::new(&output);
    assert!(results.add(illustrated()).unwrap().is_continue());
    assert!(results.pages[0].page.is_err());
    assert!(names(&dir.path().join("made here")).is_empty());
}
