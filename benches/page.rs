//! Whole pages with the mini model, from the image's bytes to text.

#![expect(missing_docs, reason = "criterion's macros write functions")]

use agx_ocr_benches::{cpu, fixture};
use agx_ocr_pipeline::{Ocr, Options, Task};
use criterion::{Criterion, criterion_group, criterion_main};

fn pages(c: &mut Criterion) {
    let Ok(ocr) = Ocr::load(fixture("models/agx-ocr-mini"), Options::default()) else {
        eprintln!("skipped: pages, because the mini model cannot be loaded");
        return;
    };
    let mut group = c.benchmark_group(cpu("page_mini"));
    group.sample_size(10);
    for name in ["line-total", "receipt-cafe"] {
        let bytes = std::fs::read(fixture(&format!("pages/{name}.png"))).unwrap_or_default();
        group.bench_function(name, |b| b.iter(|| ocr.read(&bytes, &Task::Text)));
    }
}

criterion_group!(page, pages);
criterion_main!(page);
