//! Numbers as people read them: three digits that count, and a unit that fits.

use super::{
    groups::{Rate, Unit},
    results::{Measured, Time, Work},
};

/// Rounded to `digits` digits that count.
pub fn rounded(value: f64, digits: usize) -> f64 {
    let text = format!("{value:.*e}", digits - 1);
    text.parse().unwrap_or(value)
}

/// With `digits` digits that count, and commas between thousands.
pub fn number(value: f64, digits: usize) -> String {
    let value = rounded(value, digits);
    let before_point = match value == 0.0 {
        true => 1,
        false => 1 + value.abs().log10().floor() as i32,
    };
    let decimals = (digits as i32 - before_point).max(0) as usize;
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut shown = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            shown.push(',');
        }
        shown.push(c);
    }
    match rest {
        "" => shown,
        rest => format!("{shown}.{rest}"),
    }
}

/// A value's unit: the largest that leaves at least 1 before the point, or the last.
fn unit(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    let value = rounded(value, 3);
    let fits = units.iter().find(|(size, _)| value >= *size);
    fits.or(units.last()).copied().unwrap_or((1.0, ""))
}

const TIMES: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];

/// The median, and the interval in the same unit.
pub fn time(time: &Time) -> String {
    let (size, unit) = unit(time.median, &TIMES);
    let in_unit = |seconds: f64| number(seconds / size, 3);
    let (low, high) = (in_unit(time.low), in_unit(time.high));
    format!("{} {unit} ({low} to {high})", in_unit(time.median))
}

/// A rate and its unit.
pub fn rate(rate: &Rate) -> String {
    let of = |units: &[(f64, &'static str)]| {
        let (size, unit) = unit(rate.per_second, units);
        format!("{} {unit}", number(rate.per_second / size, 3))
    };
    match rate.unit {
        Unit::Bytes => of(&[(1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")]),
        Unit::Operations => of(&[(1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")]),
        Unit::Tokens => of(&[(1.0, "tokens/s")]),
        Unit::Pixels => of(&[(1e6, "Mpixel/s"), (1.0, "pixel/s")]),
        Unit::Elements => of(&[
            (1e9, "G elements/s"),
            (1e6, "M elements/s"),
            (1.0, "elements/s"),
        ]),
    }
}

/// How many times as long `slow` takes for the same work: runs of one workload may do more or less of it.
pub fn ratio(slow: &Measured, fast: &Measured) -> String {
    let amount = |measured: &Measured| match measured.work {
        Some(Work::Bytes(amount) | Work::Elements(amount)) => Some(amount),
        None => None,
    };
    let more = match (amount(slow), amount(fast)) {
        (Some(slow), Some(fast)) => slow / fast,
        _ => 1.0,
    };
    let ratio = slow.time.median / fast.time.median / more;
    format!("{} x", number(ratio, 3))
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    match 100.0 * share {
        small if small < 9.95 => format!("{} %", number(small, 2)),
        large => format!("{large:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let shown = [0.0, 0.01234, 1.0, 9.996, 99.96, 999.6, 1234.0, 7_654_321.0];
        let shown = shown.map(|value| number(value, 3));
        let wanted = [
            "0.00",
            "0.0123",
            "1.00",
            "10.0",
            "100",
            "1,000",
            "1,230",
            "7,650,000",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn a_ratio_is_of_the_same_work() {
        let measured = |median: f64, work| Measured {
            time: Time {
                median,
                low: median,
                high: median,
            },
            work,
        };
        let (tokens, bytes) = (|n| Some(Work::Elements(n)), |n| Some(Work::Bytes(n)));
        let of = |slow, fast| ratio(&slow, &fast);
        assert_eq!(of(measured(2.0, None), measured(0.5, None)), "4.00 x");
        assert_eq!(
            of(measured(2.0, tokens(8.0)), measured(5.0, tokens(200.0))),
            "10.0 x"
        );
        assert_eq!(
            of(measured(3.0, bytes(6.0)), measured(3.0, bytes(6.0))),
            "1.00 x"
        );
        assert_eq!(of(measured(3.0, bytes(6.0)), measured(1.0, None)), "3.00 x");
    }

    #[test]
    fn units_fit() {
        let shown = |median: f64| {
            time(&Time {
                median,
                low: 0.9 * median,
                high: 1.2 * median,
            })
        };
        assert_eq!(shown(2.5), "2.50 s (2.25 to 3.00)");
        assert_eq!(shown(0.99996), "1.00 s (0.900 to 1.20)");
        assert_eq!(shown(0.0306), "30.6 ms (27.5 to 36.7)");
        assert_eq!(shown(2e-5), "20.0 µs (18.0 to 24.0)");
        assert_eq!(shown(3e-10), "0.300 ns (0.270 to 0.360)");
        let shown = |unit, per_second| rate(&Rate { unit, per_second });
        assert_eq!(shown(Unit::Bytes, 2.8e12), "2,800 GB/s");
        assert_eq!(shown(Unit::Bytes, 5e7), "50.0 MB/s");
        assert_eq!(shown(Unit::Operations, 7.004e12), "7.00 TFLOP/s");
        assert_eq!(shown(Unit::Operations, 4.75e11), "475 GFLOP/s");
        assert_eq!(shown(Unit::Tokens, 12_345.0), "12,300 tokens/s");
        assert_eq!(shown(Unit::Tokens, 0.5), "0.500 tokens/s");
    }

    #[test]
    fn shares_are_in_per_cent() {
        let shown = [0.0012, 0.051, 0.0997, 0.5, 0.996, 1.234].map(percent);
        let wanted = ["0.12 %", "5.1 %", "10 %", "50 %", "100 %", "123 %"];
        assert_eq!(shown, wanted);
    }
}
