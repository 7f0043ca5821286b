//! The pages of a PDF leave nothing behind.
#![cfg(all(feature = "pdf", target_os = "linux"))]

use agx_ocr_pipeline::{Document, Limits, Rendering};
use pdf_writer::{Filter, Finish, Pdf, Rect, Ref};
use std::fs;

const PAGES: usize = 24;
/// Bytes of a page's contents, which take a sixty-fourth of that in the file.
const CONTENTS: usize = 8 << 20;

/// A page each with contents of its own: much white space, and a drawing of nothing.
fn file() -> Vec<u8> {
    // Runs of 128 spaces, then literally `q Q`, then the end of the data.
    let mut contents = [129, b' '].repeat(CONTENTS / 128);
    contents.extend([2, b'q', b' ', b'Q', 128]);
    let mut next = Ref::new(1);
    let (catalog, tree) = (next.bump(), next.bump());
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    let mut pages = Vec::new();
    for _ in 0..PAGES {
        let (number, stream) = (next.bump(), next.bump());
        let mut page = pdf.page(number);
        page.parent(tree).contents(stream);
        page.media_box(Rect::new(0.0, 0.0, 20.0, 20.0));
        page.finish();
        let mut stream = pdf.stream(stream, &contents);
        stream.filter(Filter::RunLengthDecode);
        pages.push(number);
    }
    pdf.pages(tree).count(PAGES as i32).kids(pages);
    pdf.finish()
}

/// Bytes of memory that are the process's own.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let own = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = own.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() * 1024
}

#[test]
fn contents_are_not_kept() {
    let document = Document::open(file(), &Limits::default()).unwrap();
    assert_eq!(document.pages(), PAGES);
    let mut first = 0;
    for number in 1..=PAGES {
        let page = document.page(number, &Rendering::default()).unwrap();
        assert_eq!(page.image.dimensions(), (40, 40));
        if number == 4 {
            first = memory();
        }
    }
    let last = memory();
    assert!(
        last < first + 4 * CONTENTS,
        "{first} bytes after 4 pages, {last} after {PAGES}"
    );
}
