//! Every stage of the model against the reference's dumps, from pixels to tokens.
//!
//! `cargo test -p agx-ocr-pipeline --test parity -- --nocapture` prints the table. The full-size
//! cases run where `AGX_OCR_FULL_MODEL` names the full-size random checkpoint and
//! `AGX_OCR_FULL_DUMPS` its dumps.

mod case;
mod compare;
mod decoding;
#[path = "../device/mod.rs"]
mod device;
mod dump;
mod near_ties;

use agx_ocr_backend::Activations;
use case::{Case, Model};
use compare::Table;
use dump::Drift;
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/parity")
}

const TINY: [&str; 15] = [
    "receipt_tiny",
    "receipt_small",
    "receipt_base",
    "receipt_large",
    "receipt_gundam",
    "wide_tiny",
    "wide_small",
    "wide_base",
    "wide_large",
    "wide_gundam",
    "small_tiny",
    "small_small",
    "small_base",
    "small_large",
    "small_gundam",
];
const FULL: [&str; 7] = [
    "receipt_tiny",
    "receipt_small",
    "receipt_base",
    "small_base",
    "wide_base",
    "wide_gundam",
    "receipt_large",
];

/// Unrounded arithmetic: SPEC's bound for differences in the order of sums alone.
const F32_BOUND: f64 = 1e-4;

/// Unrounded arithmetic: every stage, router and token; `also` checks more of each case.
fn exact(
    title: &'static str,
    model: &Path,
    dumps: &Path,
    (cases, drift): (&[&'static str], &Drift),
    also: impl Fn(&mut Table, &Case),
) {
    let model = Model::load(model, Activations::F32);
    let mut table = Table::new(title);
    for name in cases {
        let case = Case::run(&model, dumps, name);
        table.stages(&case, |_| F32_BOUND, |stage| drift.of(name, stage));
        table.routers(&case, Some(1e-5));
        table.tokens(&case, 1e-3);
        also(&mut table, &case);
    }
    table.finish();
}

/// Rounded activations: every stage, inside the drift of bf16.
fn rounded(
    title: &'static str,
    model: &Path,
    dumps: &Path,
    (cases, drift): (&[&'static str], &Drift),
) {
    let model = Model::load(model, Activations::Bf16);
    let mut table = Table::drift(title);
    for name in cases {
        let case = Case::run(&model, dumps, name);
        let bound = |stage: &str| drift.of(name, stage);
        table.stages(&case, bound, bound);
        table.routers(&case, None);
        table.decoding(&case, bound("logits.last"));
    }
    table.finish();
}

#[test]
fn tiny_f32_equals_the_reference() {
    let (model, dumps) = (fixtures().join("tiny"), fixtures().join("dumps"));
    let drift = Drift::tiny(&dumps.join("manifest.json"));
    let title = "tiny checkpoint, f32";
    exact(title, &model, &dumps, (&TINY, &drift), Table::guards);
}

#[test]
fn tiny_bf16_stays_inside_the_drift_of_bf16() {
    let (model, dumps) = (fixtures().join("tiny"), fixtures().join("dumps"));
    let drift = Drift::tiny(&dumps.join("manifest.json"));
    let title = "tiny checkpoint, activations of large products rounded to bf16";
    rounded(title, &model, &dumps, (&TINY, &drift));
}

#[test]
fn mini_reads_as_the_reference_but_for_near_ties() {
    let model = fixtures().join("../models/agx-ocr-mini");
    let exact = Model::load(&model, Activations::F32);
    let rounded = Model::load(&model, Activations::Bf16);
    near_ties::compare(&exact, &rounded, &fixtures().join("../pages"));
}

#[test]
fn full_size_equals_the_reference() {
    let (Some(model), Some(dumps)) = (
        variable("AGX_OCR_FULL_MODEL"),
        variable("AGX_OCR_FULL_DUMPS"),
    ) else {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: full-size parity, because AGX_OCR_FULL_MODEL and AGX_OCR_FULL_DUMPS are not set"
        );
        return;
    };
    let drift = Drift::full(&dumps.join("manifest_bf16.json"));
    let title = "full-size random checkpoint, f32";
    exact(title, &model, &dumps, (&FULL, &drift), |_, _| ());
    let title = "full-size random checkpoint, activations rounded to bf16";
    rounded(title, &model, &dumps, (&FULL, &drift));
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}
