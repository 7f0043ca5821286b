//! What fuzzing found: files that end in a tokenizer or an error.

mod common;

use agx_ocr_text::{Error, Special, Tokenizer};
use std::fs;

#[test]
fn found_tokenizers_end_well() {
    let found = common::fixture("../fuzz/regressions/tokenizer");
    for file in fs::read_dir(found).unwrap() {
        let path = file.unwrap().path();
        let Ok(tokenizer) = Tokenizer::from_bytes(&fs::read(&path).unwrap()) else {
            continue;
        };
        for text in ["", "ab 12 <image>\n", "é\u{3042}🙂 A\u{301}  "] {
            match tokenizer.encode(text) {
                Ok(ids) => drop(tokenizer.decode(&ids, Special::Keep)),
                Err(error) => assert!(matches!(error, Error::Encode { .. }), "{path:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_panic_of_the_library_is_an_error() {
    // A normaliser of no type that is taken for one that the file's own check refuses.
    let name = "../fuzz/regressions/tokenizer/precompiled-without-its-name.json";
    let tokenizer = Tokenizer::from_file(&common::fixture(name)).unwrap();
    assert!(matches!(
        tokenizer.encode("A\u{301}"),
        Err(Error::Encode { .. })
    ));
    // It goes on well.
    let ids = tokenizer.encode("é").unwrap();
    assert_eq!(tokenizer.decode(&ids, Special::Keep), "é");
}
