//! Figures: cut out of the page, linked from its text.

use image::{RgbImage, imageops};

use super::line::{clamped, is_figure};
use crate::Page;

/// What the text of a page holds in place of a figure, at the end of a line.
pub(crate) const MARK: &str = "<!-- figure -->";

/// Cuts the figures out of the picture of a page.
///
/// A figure is a region whose label is exactly `image`. Each comes with its number, from 0, in
/// the order of the page, which is the number that [`markdown`] asks a link for. A box is clamped
/// to the picture; a figure of which nothing is left is passed over and keeps its number. `image`
/// is the upright page, in whose pixels the boxes are.
///
/// The figures are cut as the iterator is asked for them, so only one need be held at a time.
pub fn figures<'a>(
    page: &'a Page,
    image: &'a RgbImage,
) -> impl Iterator<Item = (usize, RgbImage)> + 'a {
    let regions = page.regions.iter().filter(|region| is_figure(region));
    regions.enumerate().filter_map(|(index, region)| {
        let [x0, y0, x1, y1] = clamped(region.bbox, image.width(), image.height());
        let (width, height) = (x1 - x0, y1 - y0);
        (width > 0 && height > 0).then(|| {
            let figure = imageops::crop_imm(image, x0, y0, width, height);
            (index, figure.to_image())
        })
    })
}

/// The text of a page with links to its figures.
///
/// Where a figure stood, the text of a page has the comment `<!-- figure -->` at the end of a
/// line. `link` is asked for each by number, from 0, and the comment becomes `![](LINK)` where it
/// gives one; otherwise the comment stays. A link is a path or URL as it is to be followed:
/// characters that would end it early, such as spaces and parentheses, are percent-encoded, and
/// `%` is not, so that encoded URLs stay as they are.
///
/// Should the page itself show such a comment as text, it counts as a figure too.
pub fn markdown(page: &Page, mut link: impl FnMut(usize) -> Option<String>) -> String {
    let mut out = String::with_capacity(page.text.len());
    let mut index = 0;
    for line in page.text.split_inclusive('\n') {
        let (text, end) = match line.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (line, ""),
        };
        match text.strip_suffix(MARK) {
            Some(before) => {
                out.push_str(before);
                match link(index) {
                    Some(link) => out.push_str(&format!("![]({})", encoded(&link))),
                    None => out.push_str(MARK),
                }
                index += 1;
            }
            None => out.push_str(text),
        }
        out.push_str(end);
    }
    out
}

/// A link with percent codes for what CommonMark (0.31, section 6.3) would not read as part of
/// it.
fn encoded(link: &str) -> String {
    let mut out = String::with_capacity(link.len());
    for c in link.chars() {
        // A backslash escapes what follows, and back-quotes bind tighter than links.
        if c.is_ascii_control() || " ()<>\\`".contains(c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}
