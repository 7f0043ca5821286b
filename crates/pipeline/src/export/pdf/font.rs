//! Fonts without a shape: codes that say which characters are meant.

use std::collections::HashMap;

use pdf_writer::types::{FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Name, Pdf, Rect, Ref, Str};

use super::COMPACT;

/// Codes of a font.
const CODES: usize = 256;
/// How far below the baseline letters reach, as a share of the font's size; they reach the rest
/// above it.
pub(super) const DESCENT: f32 = 0.2;
/// Units of glyph space that make up the font's size.
const EM: f32 = 1000.0;
/// The widths that characters may have, as shares of the font's size, and names of glyphs of
/// them. Names of letters would not do: readers guess sizes by them.
const GLYPHS: [(f32, Name<'static>); 3] = [
    (0.3, Name(b"space")),
    (0.5, Name(b"half")),
    (1.0, Name(b"full")),
];
/// Bytes of what fonts share, of each font without its characters, and of each character, about.
const SHARED_BYTES: usize = 330;
const FONT_BYTES: usize = 1070;
const CHARACTER_BYTES: usize = 22;

/// The Type 3 fonts of a document (PDF 32000-1, 9.6.5). Characters get codes as they appear.
pub(super) struct Fonts {
    codes: HashMap<char, usize>,
    fonts: Vec<Font>,
    descriptor: Ref,
}

struct Font {
    id: Ref,
    characters: Vec<char>,
}

impl Fonts {
    /// No fonts yet. Where there come to be any, they share the object `descriptor`.
    pub fn new(descriptor: Ref) -> Self {
        Self {
            codes: HashMap::new(),
            fonts: Vec::new(),
            descriptor,
        }
    }

    /// The resource name of a font.
    pub fn name(&self, font: usize) -> Vec<u8> {
        format!("F{font}").into_bytes()
    }

    /// The object of a font.
    pub fn id(&self, font: usize) -> Ref {
        self.fonts[font].id
    }

    /// The runs of a text that share a font, as codes.
    pub fn encode(&mut self, text: &[char], next: &mut Ref) -> Vec<(usize, Vec<u8>)> {
        let mut runs: Vec<(usize, Vec<u8>)> = Vec::new();
        for &character in text {
            let (font, code) = self.code(character, next);
            match runs.last_mut() {
                Some((last, codes)) if *last == font => codes.push(code),
                _ => runs.push((font, vec![code])),
            }
        }
        runs
    }

    fn code(&mut self, character: char, next: &mut Ref) -> (usize, u8) {
        let new = self.codes.len();
        let index = *self.codes.entry(character).or_insert(new);
        let font = index / CODES;
        if index == new {
            if font == self.fonts.len() {
                let (id, characters) = (next.bump(), Vec::new());
                self.fonts.push(Font { id, characters });
            }
            self.fonts[font].characters.push(character);
        }
        (font, (index % CODES) as u8)
    }

    /// Bytes that [`Fonts::write`] will write, about.
    pub fn size(&self) -> usize {
        if self.fonts.is_empty() {
            return 0;
        }
        let fonts = self.fonts.len() * FONT_BYTES;
        SHARED_BYTES + fonts + self.codes.len() * CHARACTER_BYTES
    }

    /// Writes all fonts.
    pub fn write(&self, pdf: &mut Pdf, next: &mut Ref) {
        if self.fonts.is_empty() {
            return;
        }
        let glyphs = GLYPHS.map(|(width, name)| {
            let id = next.bump();
            let mut glyph = Content::with_settings(COMPACT);
            // Nothing is drawn in the box, but some readers take text without boxes at the same
            // place for the same text.
            let [low, high] = [-DESCENT * EM, (1.0 - DESCENT) * EM];
            glyph.start_shape_glyph(width * EM, 0.0, low, width * EM, high);
            pdf.stream(id, &glyph.finish());
            (name, id)
        });
        let bbox = Rect::new(0.0, -DESCENT * EM, EM, (1.0 - DESCENT) * EM);
        // Without it readers guess how high the letters are.
        pdf.font_descriptor(self.descriptor)
            .name(Name(b"Invisible"))
            .flags(FontFlags::SYMBOLIC)
            .bbox(bbox)
            .italic_angle(0.0)
            .ascent((1.0 - DESCENT) * EM)
            .descent(-DESCENT * EM)
            .cap_height((1.0 - DESCENT) * EM)
            .stem_v(0.0);
        for font in &self.fonts {
            let to_unicode = next.bump();
            let last = (font.characters.len() - 1) as u8;
            let mut dict = pdf.type3_font(font.id);
            dict.bbox(bbox);
            dict.matrix([1.0 / EM, 0.0, 0.0, 1.0 / EM, 0.0, 0.0]);
            dict.char_procs().pairs(glyphs);
            dict.encoding_custom()
                .differences()
                .consecutive(0, font.characters.iter().map(|c| glyph(*c).1));
            dict.first_char(0).last_char(last);
            dict.widths(font.characters.iter().map(|c| width(*c) * EM));
            dict.font_descriptor(self.descriptor);
            dict.to_unicode(to_unicode);
            drop(dict);
            pdf.cmap(to_unicode, &to_unicode_map(&font.characters));
        }
    }
}

fn to_unicode_map(characters: &[char]) -> Vec<u8> {
    let info = SystemInfo {
        registry: Str(b"Adobe"),
        ordering: Str(b"UCS"),
        supplement: 0,
    };
    let mut map = UnicodeCmap::<u8>::new(Name(b"Adobe-Identity-UCS"), info);
    for (code, character) in (0..=u8::MAX).zip(characters) {
        map.pair(code, *character);
    }
    map.finish().into_vec()
}

/// The width of a character as a share of the font's size.
pub(super) fn width(character: char) -> f32 {
    glyph(character).0
}

/// The glyph of a character, by its width: full for those of East Asia and for
/// emoji, half for others, and less for a space. Readers see words apart where the gap is wider
/// than about 0.1, and columns where it is wider than about 1.5, after scaling.
fn glyph(character: char) -> (f32, Name<'static>) {
    let [space, half, full] = GLYPHS;
    match character {
        ' ' => space,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => full,
        _ => half,
    }
}
