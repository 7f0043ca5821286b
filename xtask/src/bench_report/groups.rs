//! What the groups of benchmarks are about, and what their rates are shares of.

use super::results::{Measured, Work};
use serde::Deserialize;

/// What a machine reaches at most.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub read_gb_s: Option<f64>,
    pub bf16_tflop_s: Option<f64>,
    pub f32_tflop_s: Option<f64>,
}

impl Limits {
    pub fn any(&self) -> bool {
        let all = [self.read_gb_s, self.bf16_tflop_s, self.f32_tflop_s];
        all.iter().any(Option::is_some)
    }
}

/// What criterion's elements count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements {
    MultiplyAdds,
    Tokens,
    Pixels,
    Unknown,
}

/// Name, elements, and what is measured, in the page's order. Others come behind them.
const GROUPS: [(&str, Elements, &str); 14] = [
    (
        "page_full",
        Elements::Tokens,
        "A whole page with the full-size model, from the image's bytes to text.",
    ),
    (
        "page_mini",
        Elements::Tokens,
        "A whole page with the mini model, from the image's bytes to text.",
    ),
    (
        "batch",
        Elements::Tokens,
        "Pages that are decoded together, by their number.",
    ),
    (
        "decode",
        Elements::Tokens,
        "One answer's tokens, by the weights that they read.",
    ),
    (
        "preprocess",
        Elements::Pixels,
        "What happens to a page before the model.",
    ),
    (
        "vision_full",
        Elements::MultiplyAdds,
        "The full-size model's image encoders.",
    ),
    (
        "sam_block",
        Elements::MultiplyAdds,
        "A block of the first encoder.",
    ),
    (
        "clip_block",
        Elements::MultiplyAdds,
        "A block of the second encoder.",
    ),
    (
        "decoder_layer",
        Elements::MultiplyAdds,
        "A layer of the decoder.",
    ),
    (
        "attention",
        Elements::MultiplyAdds,
        "Attention without the products around it.",
    ),
    (
        "gemm",
        Elements::MultiplyAdds,
        "Products of many rows, and of few rows whose weights lie in a cache.",
    ),
    (
        "gemv",
        Elements::MultiplyAdds,
        "Products of one row, whose weights come from memory.",
    ),
    ("read", Elements::Unknown, "Weights that are only read."),
    (
        "fork_join",
        Elements::Unknown,
        "A parallel region of two small tasks.",
    ),
];

/// A key that puts groups into the page's order.
pub fn place(group: &str) -> usize {
    let place = GROUPS.iter().position(|(name, ..)| *name == group);
    place.unwrap_or(GROUPS.len())
}

/// What a group measures, if it is known.
pub fn about(group: &str) -> Option<&'static str> {
    let (.., about) = GROUPS.iter().find(|(name, ..)| *name == group)?;
    Some(about)
}

fn elements(group: &str, workload: &str) -> Elements {
    if workload.ends_with("_tokens") {
        return Elements::Tokens;
    }
    let known = GROUPS.iter().find(|(name, ..)| *name == group);
    known.map_or(Elements::Unknown, |(_, elements, _)| *elements)
}

/// What is counted a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Bytes,
    /// Two for each multiply-add.
    Operations,
    Tokens,
    Pixels,
    Elements,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub unit: Unit,
    pub per_second: f64,
}

/// How fast a workload is done, if criterion knows how much it is.
pub fn rate(group: &str, workload: &str, measured: &Measured) -> Option<Rate> {
    let (unit, amount) = match measured.work? {
        Work::Bytes(bytes) => (Unit::Bytes, bytes),
        Work::Elements(n) => match elements(group, workload) {
            Elements::MultiplyAdds => (Unit::Operations, 2.0 * n),
            Elements::Tokens => (Unit::Tokens, n),
            Elements::Pixels => (Unit::Pixels, n),
            Elements::Unknown => (Unit::Elements, n),
        },
    };
    Some(Rate {
        unit,
        per_second: amount / measured.time.median,
    })
}

/// The share of a machine's limit, if the rate has one and it is known.
pub fn share(group: &str, workload: &str, measured: &Measured, limits: &Limits) -> Option<f64> {
    let rate = rate(group, workload, measured)?;
    let limit = match rate.unit {
        Unit::Bytes => 1e9 * limits.read_gb_s?,
        // As `BenchmarkId` shows the activations.
        Unit::Operations if workload.split('/').any(|part| part == "F32") => {
            1e12 * limits.f32_tflop_s?
        }
        Unit::Operations => 1e12 * limits.bf16_tflop_s?,
        _ => return None,
    };
    Some(rate.per_second / limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_report::results::Time;

    const LIMITS: Limits = Limits {
        read_gb_s: Some(2000.0),
        bf16_tflop_s: Some(800.0),
        f32_tflop_s: Some(50.0),
    };

    fn measured(work: Work) -> Measured {
        let (median, low, high) = (2e-3, 1e-3, 3e-3);
        Measured {
            time: Time { median, low, high },
            work: Some(work),
        }
    }

    #[test]
    fn rates_go_by_what_elements_are() {
        let of = |group, workload, work| {
            let rate = rate(group, workload, &measured(work)).unwrap();
            (rate.unit, rate.per_second)
        };
        let elements = Work::Elements(1e9);
        assert_eq!(of("gemm", "a/Bf16", elements), (Unit::Operations, 1e12));
        assert_eq!(of("batch", "16", elements), (Unit::Tokens, 5e11));
        assert_eq!(of("new", "32_tokens", elements), (Unit::Tokens, 5e11));
        assert_eq!(of("preprocess", "base", elements), (Unit::Pixels, 5e11));
        assert_eq!(of("new", "other", elements), (Unit::Elements, 5e11));
        assert_eq!(of("gemm", "a", Work::Bytes(4e6)), (Unit::Bytes, 2e9));
    }

    #[test]
    fn shares_are_of_the_limit_that_binds() {
        let of = |group, workload, work| share(group, workload, &measured(work), &LIMITS);
        assert_eq!(of("gemv", "head", Work::Bytes(3e9)), Some(0.75));
        assert_eq!(of("gemm", "a/Bf16", Work::Elements(4e11)), Some(0.5));
        assert_eq!(of("gemm", "a/F32", Work::Elements(1e10)), Some(0.2));
        assert_eq!(of("decode", "one", Work::Elements(4e11)), None);
        assert_eq!(of("preprocess", "base", Work::Elements(4e11)), None);
        assert_eq!(of("new", "other", Work::Elements(4e11)), None);
        let none = Limits::default();
        let bytes = measured(Work::Bytes(1.0));
        assert_eq!(share("gemv", "head", &bytes, &none), None);
    }
}
