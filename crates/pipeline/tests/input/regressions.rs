//! What fuzzing found: inputs that end in an image or an error, soon and in little memory.

use std::{fs, path::PathBuf};

use agx_ocr_pipeline::input::{Document, Limits, Rendering};

/// The inputs that were found for a target of the fuzzer. What was found for `pdf` ends the process,
/// and is tested where the command draws PDFs in a process apart.
fn found(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let all = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions");
    let files = fs::read_dir(all.join(target)).unwrap().map(|file| {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let files: Vec<_> = files.collect();
    assert!(!files.is_empty(), "{target}");
    files
}

#[test]
fn found_inputs_end_well() {
    for (path, bytes) in found("input") {
        let Ok(document) = Document::open(bytes, &Limits::default()) else {
            continue;
        };
        for number in 1..=document.pages().min(20) {
            let page = document.page(number, &Rendering::default());
            assert!(
                page.map_or_else(
                    |error| !error.to_string().is_empty(),
                    |page| page.image.width() > 0
                ),
                "{path:?}"
            );
        }
    }
}

#[test]
fn a_webp_whose_exif_block_is_not_there_is_read() {
    let (_, bytes) = found("input")
        .into_iter()
        .find(|(path, _)| path.ends_with("exif-of-4-gb.webp"))
        .unwrap();
    assert_eq!(crate::read(&bytes).unwrap().image.dimensions(), (24, 16));
}

#[test]
fn tiff_directories_that_lie_in_each_other_take_no_time() {
    const DIRECTORIES: u64 = 1 << 16;
    const ENTRIES: u64 = 200_000;
    // A BigTIFF: each directory 8 bytes behind the one before, and so their ends.
    let mut file = b"II+\0\x08\0\0\0".to_vec();
    file.extend(16_u64.to_le_bytes());
    file.extend(ENTRIES.to_le_bytes().repeat(DIRECTORIES as usize));
    file.resize(24 + 20 * ENTRIES as usize, 0);
    for number in 1..=DIRECTORIES {
        file.extend((16 + 8 * number).to_le_bytes());
    }
    let document = Document::open(file, &Limits::default()).unwrap();
    assert!(document.pages() < 10, "{}", document.pages());
}
