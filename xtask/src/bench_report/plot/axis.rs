//! Where values lie on an axis.

use super::super::figures;

/// A range of values, plain from 0 on or logarithmic.
#[derive(Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    step: f64,
    logarithmic: bool,
}

/// Values that differ more than this need a logarithmic axis to be seen.
const FAR_APART: f64 = 20.0;

impl Axis {
    /// An axis for values above 0; nothing where there are none.
    pub fn new(values: &[f64], may_be_logarithmic: bool) -> Option<Self> {
        let values: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?;
        let logarithmic = may_be_logarithmic && most > FAR_APART * least;
        Some(match logarithmic {
            // The least value's bar has a length, too.
            true => Self {
                low: 10_f64.powf((0.8 * least).log10().floor()),
                high: next(most, &[1.0, 2.0, 5.0]),
                step: 1.0,
                logarithmic,
            },
            false => {
                let step = next(most / 6.0, &[1.0, 2.0, 5.0]);
                let high = step * (most / step - 1e-9).ceil();
                let low = 0.0;
                Self {
                    low,
                    high,
                    step,
                    logarithmic,
                }
            }
        })
    }

    /// From 0 to 1.
    pub fn place(&self, value: f64) -> f64 {
        let place = match self.logarithmic {
            true => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
            false => (value - self.low) / (self.high - self.low),
        };
        place.clamp(0.0, 1.0)
    }

    /// Values to be named, and their names.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self.logarithmic {
            true => {
                let decades = (self.high / self.low).log10();
                let between: &[f64] = if decades < 3.5 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let decades = (0..=decades.ceil() as i32).map(|i| self.low * 10_f64.powi(i));
                let values = decades.flat_map(|decade| between.iter().map(move |b| b * decade));
                values.filter(|v| *v <= self.high * (1.0 + 1e-9)).collect()
            }
            false => {
                let steps = (self.high / self.step).round() as i32;
                (0..=steps).map(|i| f64::from(i) * self.step).collect()
            }
        };
        values.into_iter().map(|v| (v, name(v))).collect()
    }

    /// What is said behind the axis' name.
    pub fn note(&self) -> &'static str {
        match self.logarithmic {
            true => " (logarithmic)",
            false => "",
        }
    }
}

/// The least of `factors` times a power of ten that is not below `value`.
fn next(value: f64, factors: &[f64]) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let fits = |factor: &&f64| **factor * decade >= value * (1.0 - 1e-9);
    factors
        .iter()
        .find(fits)
        .map_or(10.0 * decade, |f| f * decade)
}

/// A number without zeros at its end.
fn name(value: f64) -> String {
    let name = figures::number(value, 3);
    match name.contains('.') {
        true => name.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn near_values_lie_on_a_plain_axis_from_0() {
        let axis = Axis::new(&[0.05, 0.31], true).unwrap();
        assert_eq!(names(&axis), ["0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(axis.place(0.2), 0.5);
        assert_eq!(axis.place(9.0), 1.0);
        assert_eq!(axis.note(), "");
        let axis = Axis::new(&[100.0], false).unwrap();
        assert_eq!(names(&axis), ["0", "20", "40", "60", "80", "100"]);
    }

    #[test]
    fn far_values_lie_on_a_logarithmic_one() {
        let axis = Axis::new(&[0.02, 1.9], true).unwrap();
        assert_eq!(
            names(&axis),
            ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]
        );
        assert_eq!(axis.place(0.01), 0.0);
        assert!((axis.place(2.0) - 1.0).abs() < 1e-9);
        let axis = Axis::new(&[10.0, 90_000.0], true).unwrap();
        assert_eq!(
            names(&axis),
            ["1", "10", "100", "1,000", "10,000", "100,000"]
        );
    }

    #[test]
    fn no_values_need_no_axis() {
        assert!(Axis::new(&[], true).is_none());
        assert!(Axis::new(&[0.0], false).is_none());
    }
}
