//! What the targets share.

pub mod document;
pub mod json;
pub mod pages;

use std::{
    ffi::OsString,
    panic,
    path::Path,
    sync::{LazyLock, Once},
};

/// Lets panics pass that our code catches, those of its dependencies; one in our own code still
/// aborts.
pub fn only_own_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = |place: &panic::Location<'_>| {
                let file = place.file();
                file.starts_with("targets/") || of_the_workspace(file)
            };
            if info.location().is_none_or(ours) {
                abort(info);
            }
        }));
    });
}

fn of_the_workspace(file: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.is_some_and(|root| Path::new(file).starts_with(root))
}

/// What a target makes of its input; with AGX_OCR_FUZZ_WRITE it is written to that file, to be
/// looked at.
pub fn made(bytes: Vec<u8>) -> Vec<u8> {
    static PATH: LazyLock<Option<OsString>> =
        LazyLock::new(|| std::env::var_os("AGX_OCR_FUZZ_WRITE"));
    if let Some(path) = &*PATH {
        std::fs::write(path, &bytes).expect("AGX_OCR_FUZZ_WRITE is a file");
    }
    bytes
}
