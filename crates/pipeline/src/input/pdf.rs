//! PDF: pages drawn as images.

use super::{DecodedImage, Format, InputError, Limits};
use hayro::{
    RenderCache, RenderSettings,
    hayro_interpret::{InterpreterSettings, InterpreterWarning},
    hayro_syntax::{
        self, DecryptionError, LoadPdfError, content::ops::TypedInstruction, object::Stream,
        page::Page,
    },
    render,
    vello_cpu::color::palette::css::WHITE,
};
use image::RgbImage;
use std::sync::{Arc, Mutex, PoisonError};

/// Points an inch: the unit of a PDF's pages.
const POINTS: f32 = 72.0;

/// Bytes that nothing takes at most, compressed and encrypted.
const EMPTY: usize = 64;

/// The most pixels of a side: the renderer counts them in 16 bits.
const LONGEST_SIDE: u32 = u16::MAX as u32;

/// A PDF that can be opened. It is opened anew for each page: an opened one keeps the contents of
/// every page that was drawn, which may be a thousand times as long as the file.
pub(super) struct Pdf {
    bytes: Arc<Vec<u8>>,
    pages: usize,
}

impl Pdf {
    pub(super) fn open(bytes: Vec<u8>) -> Result<Self, InputError> {
        let bytes = Arc::new(bytes);
        let pages = open(&bytes)?.pages().len();
        if pages == 0 {
            return Err(corrupt("it has no pages"));
        }
        Ok(Self { bytes, pages })
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Draws a page, counted from 0, on white.
    pub(super) fn page(
        &self,
        index: usize,
        dpi: f32,
        limits: &Limits,
    ) -> Result<DecodedImage, InputError> {
        if !dpi.is_finite() || dpi < 1.0 {
            return Err(InputError::Resolution { dpi });
        }
        let limits = Limits {
            width: limits.width.min(LONGEST_SIDE),
            height: limits.height.min(LONGEST_SIDE),
            ..limits.clone()
        };
        let pdf = open(&self.bytes)?;
        let page = pdf.pages().get(index);
        let page = page.ok_or_else(|| corrupt("a page cannot be found"))?;
        let scale = dpi / POINTS;
        let (width, height) = page.render_dimensions();
        let pixels = |points: f32| (points * scale) as u32;
        limits.check(Format::Pdf, pixels(width), pixels(height))?;
        check_contents(page)?;

        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let interpreter = InterpreterSettings {
            warning_sink: Arc::new(move |warning| {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(warning);
            }),
            ..InterpreterSettings::default()
        };
        let settings = hayro::PixmapSettings {
            x_scale: scale,
            y_scale: scale,
            bg_color: WHITE,
        };
        let pixmap = render(
            page,
            &RenderCache::new(),
            &interpreter,
            &RenderSettings::default(),
            &settings,
        );
        let (width, height) = (u32::from(pixmap.width()), u32::from(pixmap.height()));
        // On white, nothing is transparent any more.
        let rgb = pixmap.data_as_u8_slice().chunks_exact(4);
        let rgb = rgb.flat_map(|rgba| [rgba[0], rgba[1], rgba[2]]).collect();
        let image = RgbImage::from_raw(width, height, rgb);
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(DecodedImage {
            image: image.ok_or_else(|| corrupt("a page was not drawn whole"))?,
            format: Format::Pdf,
            warnings: warnings(&seen),
            decode_ms: 0.0,
        })
    }
}

fn open(bytes: &Arc<Vec<u8>>) -> Result<hayro_syntax::Pdf, InputError> {
    hayro_syntax::Pdf::new(bytes.clone()).map_err(|error| match error {
        LoadPdfError::Decryption(error) => InputError::Encrypted {
            format: Format::Pdf,
            reason: match error {
                DecryptionError::PasswordProtected => "it asks for a password",
                _ => "in a way that cannot be read",
            },
        },
        LoadPdfError::Invalid => corrupt("its structure cannot be made out"),
    })
}

/// A page without contents is white; one whose contents are no drawing is an error. The renderer
/// is lenient, and would give a white page for it.
fn check_contents(page: &Page<'_>) -> Result<(), InputError> {
    let known = |op: TypedInstruction<'_, '_>| !matches!(op, TypedInstruction::Fallback(_));
    let mut operations = page.typed_operations();
    while let Some(operation) = operations.next() {
        if known(operation) {
            return Ok(());
        }
    }
    let contents = page.page_stream().unwrap_or_default();
    let stored = page.raw().get::<Stream<'_>>(&b"Contents"[..]);
    let stored = stored.map_or(0, |stream| stream.raw_data().len());
    if contents.trim_ascii().is_empty() && stored <= EMPTY {
        return Ok(());
    }
    Err(corrupt("the page's contents cannot be decoded"))
}

fn warnings(seen: &[InterpreterWarning]) -> Vec<String> {
    let of = |warning: &InterpreterWarning| match warning {
        InterpreterWarning::ImageDecodeFailure => "An image on the page could not be decoded.",
        InterpreterWarning::UnsupportedFont => {
            "A font of the page could not be used: text may be missing."
        }
        _ => "A note on the page could not be drawn.",
    };
    let mut warnings: Vec<String> = seen.iter().map(of).map(str::to_owned).collect();
    warnings.sort();
    warnings.dedup();
    warnings
}

fn corrupt(reason: &str) -> InputError {
    InputError::Corrupt {
        format: Format::Pdf,
        reason: reason.into(),
    }
}
