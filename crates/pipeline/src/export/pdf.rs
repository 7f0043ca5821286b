//! Searchable PDFs: the picture of each page, and its text, invisible, above it.

mod font;
mod order;
mod place;
mod row;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use pdf_writer::types::TextRenderingMode;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Settings, Str, TextStr};

use self::font::Fonts;
use self::place::placed;
use super::{SOFTWARE, VERSION};
use crate::Page;

/// Of the pictures' JPEG encoding, of 100.
const QUALITY: u8 = 85;
/// The longest side of a page in points (PDF 32000-1, annex C.2).
const LONGEST_SIDE: f32 = 14_400.0;
/// Bytes of a page's entries in the page tree and the table of objects, about.
const PAGE_ENTRIES: usize = 70;
/// Bytes of what every document ends with, about.
const TRAILER: usize = 320;

const PICTURE: Name<'static> = Name(b"I");
const COMPACT: Settings = Settings { pretty: false };

/// Why a page cannot be added to a [`SearchablePdf`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PdfError {
    /// The picture has no pixels, or more than a JPEG may have.
    #[error("a picture of {width} x {height} pixels cannot be a JPEG: sides are 1 to 65535")]
    PictureSize {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// The page would be larger than PDF readers take, or has no size.
    #[error(
        "a page of {width} x {height} pixels at {dpi} dpi cannot be a PDF page: sides are more than 0 and at most 14400/72 inches"
    )]
    PageSize {
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// The document's dots per inch.
        dpi: f32,
    },
    /// The picture cannot be encoded.
    #[error("the picture of a page cannot be encoded")]
    Encode(#[from] image::ImageError),
}

/// A PDF that looks like the scanned pages, and in which their text can be searched, selected and
/// copied.
///
/// Each page is its picture, as a JPEG, under its text, which is invisible (text rendering mode 3,
/// PDF 32000-1, 9.3.6). Each line of a region that is not blank lies on an even share of the
/// region's box, and the lines are scaled horizontally so that the longest fills the width. A line
/// too long for that, such as a paragraph that the model wrote without line breaks, is first
/// broken into the rows that letters of usual proportions would need. So words are near their
/// places, not at them. Text from right to left is laid out so, and begins at the right edge.
///
/// Any character can be found: those of the document share Type 3 fonts (9.6.5) of up to 256
/// codes each, whose glyphs are empty, since mode 3 does not hide those of Type 3, and whose
/// `ToUnicode` maps say which characters are meant. No font file is needed. Control characters are left out, a tab is a space. Markup in the text
/// is written as it is. A page without regions is its picture alone.
///
/// Pages are written as they are added: what is held in memory is the document so far, most of it
/// JPEGs. The same pages give the same bytes; there is neither date nor random number in them.
///
/// ```
/// # use agx_ocr_pipeline::{Page, export::{PdfError, SearchablePdf}};
/// # use image::RgbImage;
/// # fn save(pages: &[(Page, RgbImage)]) -> Result<Vec<u8>, PdfError> {
/// let mut pdf = SearchablePdf::new(300.0);
/// for (page, picture) in pages {
///     pdf.add_page(page, picture)?;
///     if pdf.size() > 100 << 20 {
///         break;
///     }
/// }
/// Ok(pdf.finish())
/// # }
/// ```
pub struct SearchablePdf {
    dpi: f32,
    pdf: Pdf,
    fonts: Fonts,
    pages: Vec<Ref>,
    tree: Ref,
    next: Ref,
}

impl SearchablePdf {
    /// A document without pages, for pages of `dpi` pixels per inch: a page is `pixels * 72 / dpi`
    /// points wide and high.
    pub fn new(dpi: f32) -> Self {
        let mut next = Ref::new(1);
        Self {
            dpi,
            pdf: Pdf::with_settings(COMPACT),
            tree: next.bump(),
            fonts: Fonts::new(next.bump()),
            pages: Vec::new(),
            next,
        }
    }

    /// Adds a page with its picture.
    ///
    /// `page` says how large the page is and where its regions lie. `image` is the upright page;
    /// it may have fewer or more pixels than the page that was read, and fills the page anyway.
    ///
    /// # Errors
    ///
    /// [`PdfError::PictureSize`] for a picture that cannot be a JPEG, [`PdfError::PageSize`] for a
    /// page of more than 14,400 points a side, or of none, as with a `dpi` that is no positive
    /// number. The document then stays as it was.
    pub fn add_page(&mut self, page: &Page, image: &RgbImage) -> Result<(), PdfError> {
        let (width, height) = (page.width as f32, page.height as f32);
        let (width, height) = (self.points(width), self.points(height));
        let fits = |side: f32| side > 0.0 && side <= LONGEST_SIDE;
        if !fits(width) || !fits(height) {
            return Err(PdfError::PageSize {
                width: page.width,
                height: page.height,
                dpi: self.dpi,
            });
        }
        let picture = self.add_picture(image)?;

        let mut content = Content::with_settings(COMPACT);
        content.save_state();
        content.transform([width, 0.0, 0.0, height, 0.0, 0.0]);
        content.x_object(PICTURE).restore_state();
        let fonts = self.add_text(&mut content, page);
        let (content, content_id) = (content.finish(), self.next.bump());
        self.pdf.stream(content_id, &content);

        let id = self.next.bump();
        let mut dict = self.pdf.page(id);
        dict.parent(self.tree);
        dict.media_box(Rect::new(0.0, 0.0, width, height));
        dict.contents(content_id);
        let mut resources = dict.resources();
        resources.x_objects().pair(PICTURE, picture);
        if !fonts.is_empty() {
            let mut dict = resources.fonts();
            for font in fonts {
                dict.pair(Name(&self.fonts.name(font)), self.fonts.id(font));
            }
        }
        resources.finish();
        dict.finish();
        self.pages.push(id);
        Ok(())
    }

    /// The pages added so far.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Bytes that the document would have now, within a few per cent.
    pub fn size(&self) -> usize {
        self.pdf.len() + self.fonts.size() + self.pages.len() * PAGE_ENTRIES + TRAILER
    }

    /// The document. PDF asks for at least one page, so add one before.
    pub fn finish(mut self) -> Vec<u8> {
        self.fonts.write(&mut self.pdf, &mut self.next);
        let mut tree = self.pdf.pages(self.tree);
        tree.count(i32::try_from(self.pages.len()).unwrap_or(i32::MAX));
        tree.kids(self.pages);
        tree.finish();
        self.pdf.catalog(self.next.bump()).pages(self.tree);
        let producer = format!("{SOFTWARE} {VERSION}");
        let mut info = self.pdf.document_info(self.next.bump());
        info.producer(TextStr(&producer));
        info.finish();
        self.pdf.finish()
    }

    fn add_picture(&mut self, image: &RgbImage) -> Result<Ref, PdfError> {
        let (width, height) = image.dimensions();
        let possible = 1..=u32::from(u16::MAX);
        if !possible.contains(&width) || !possible.contains(&height) {
            return Err(PdfError::PictureSize { width, height });
        }
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode(
            image.as_raw(),
            width,
            height,
            ExtendedColorType::Rgb8,
        )?;
        let id = self.next.bump();
        let mut picture = self.pdf.image_xobject(id, &jpeg);
        picture.filter(Filter::DctDecode);
        // At most 65,535.
        picture.width(width as i32).height(height as i32);
        picture.color_space().device_rgb();
        picture.bits_per_component(8);
        Ok(id)
    }

    /// Writes the text of a page, and gives the fonts that it needs.
    fn add_text(&mut self, content: &mut Content, page: &Page) -> Vec<usize> {
        let placed = page.regions.iter().flat_map(|region| placed(page, region));
        let mut used = Vec::new();
        let mut begun = false;
        for row in placed {
            if !begun {
                begun = true;
                content.begin_text();
                content.set_text_rendering_mode(TextRenderingMode::Invisible);
            }
            let size = self.points(row.height);
            let (x, y) = (self.points(row.left), self.points(row.baseline));
            content.set_horizontal_scaling(100.0 * row.em / row.height);
            content.set_text_matrix([1.0, 0.0, 0.0, 1.0, x, y]);
            for (font, codes) in self.fonts.encode(&row.text, &mut self.next) {
                if !used.contains(&font) {
                    used.push(font);
                }
                content.set_font(Name(&self.fonts.name(font)), size);
                content.show(Str(&codes));
            }
        }
        if begun {
            content.end_text();
        }
        used
    }

    fn points(&self, pixels: f32) -> f32 {
        pixels * 72.0 / self.dpi
    }
}
