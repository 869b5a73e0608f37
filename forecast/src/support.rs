//! Which values a series can take at all, as its history shows: counts are whole numbers, and never below zero.
//!
//! The law of the errors is continuous and knows neither. What is drawn is therefore brought into the support at the very end, in
//! data units: first values below zero become zero (the law is censored there, as by declared bounds), then paths become whole.
//! A path `x` becomes
//!
//! ```text
//! y(t) = ⌊X(t) + u⌋ − ⌊X(t − 1) + u⌋        X(t) = x(1) + … + x(t)        u uniform in (0, 1), one of each path and series
//! ```
//!
//! which is systematic rounding (Madow 1949): `y(t)` is one of the two whole numbers next to `x(t)`, the upper one as often as `x(t)` is
//! near it, so that its expectation is `x(t)`; and totals over any consecutive steps differ by less than 1 from what they were. Rounding
//! to the nearest number would make nothing at all of a demand of 0.3 a day.

use serde::{Deserialize, Serialize};

use crate::noise::NoiseSource;
use crate::{Bounds, Grid};

/// Observed values without which nothing is said about a series.
const N_OBSERVED_MIN: usize = 20;
/// Share of the values that are zero, from which on it counts as the end of what is possible.
const ZERO_SHARE_MIN: f64 = 0.01;

/// What all values of a series have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// They are whole numbers.
    pub integer: bool,
    /// None is below zero, where nothing else was declared, and zero is among them or they are whole numbers: a price or a temperature
    /// that happens to be above zero may fall below.
    pub non_negative: bool,
}

impl Support {
    /// Looks at the observed values of each series.
    pub fn of_each(values: &Grid, bounds: &[Bounds]) -> Vec<Support> {
        let of_series = |(series, bounds): (usize, &Bounds)| {
            let values = (0..values.n_steps()).map(|step| values.get(step, series)).filter(|value| !value.is_nan());
            Self::of(&values.collect::<Vec<_>>(), bounds)
        };
        bounds.iter().enumerate().map(of_series).collect()
    }

    fn of(values: &[f64], bounds: &Bounds) -> Self {
        if values.len() < N_OBSERVED_MIN {
            return Self::default();
        }
        let integer = values.iter().all(|value| value.fract() == 0.0);
        let n_zero = values.iter().filter(|value| **value == 0.0).count();
        let ends_at_zero = integer || n_zero as f64 >= ZERO_SHARE_MIN * values.len() as f64;
        let non_negative = bounds.lower.is_none() && ends_at_zero && values.iter().all(|value| *value >= 0.0);
        Self { integer, non_negative }
    }

    /// The nearest value that is not below what is possible, and inside declared bounds.
    pub fn clip(self, value: f64, bounds: &Bounds) -> f64 {
        bounds.clip(if self.non_negative { value.max(0.0) } else { value })
    }
}

/// Makes the path of a sample, `[step, series]`, data units, one of whole numbers where a series is one. Declared bounds hold, whole or not.
pub fn make_whole(supports: &[Support], bounds: &[Bounds], noise: NoiseSource<'_>, sample: usize, path: &mut [f32]) {
    for (series, _) in supports.iter().enumerate().filter(|(_, support)| support.integer) {
        let mut total = noise.rounding(sample, series);
        for value in path.iter_mut().skip(series).step_by(supports.len()) {
            let before = total.floor();
            total += f64::from(*value);
            *value = bounds[series].clip(total.floor() - before) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Support = Support { integer: true, non_negative: true };

    fn support(values: impl Iterator<Item = f64>, bounds: Bounds) -> Support {
        let values: Vec<f64> = values.collect();
        Support::of_each(&Grid::new(1, values).expect("one column"), &[bounds])[0]
    }

    #[test]
    fn counts_are_told_from_measurements() {
        let steps = || (0..100).map(f64::from);
        let free = Bounds::default();
        assert_eq!(support(steps().map(|x| x % 3.0), free), COUNT);
        assert_eq!(
            support(steps().map(|x| if x == 50.0 { f64::NAN } else { x + 7.0 }), free),
            COUNT,
            "gaps, and no zero"
        );
        assert_eq!(support(steps().map(|x| x - 50.0), free), Support { integer: true, non_negative: false });
        assert_eq!(
            support(steps().map(|x| 0.5 * (x % 3.0)), free),
            Support { integer: false, non_negative: true },
            "power by night"
        );
        assert_eq!(support(steps().map(|x| 0.5 + x), free), Support::default(), "a price");
        assert_eq!(support(steps().map(|x| x % 3.0).take(19), free), Support::default(), "too few to tell");
        let declared = Bounds { lower: Some(-5.0), upper: None };
        assert_eq!(support(steps().map(|x| x % 3.0), declared), Support { integer: true, non_negative: false });
    }

    #[test]
    fn whole_paths_keep_totals_and_expectations() {
        let (supports, bounds) = ([COUNT, Support::default()], [Bounds::default(); 2]);
        let slow = [0.3_f32, 0.0, 1.7, 0.45, 12.0, 0.3, 0.3, 0.3];
        let path: Vec<f32> = slow.iter().flat_map(|&x| [x, x]).collect();
        let n_samples = 4000;
        let mut sums = [0.0_f64; 8];
        for sample in 0..n_samples {
            let mut whole = path.clone();
            make_whole(&supports, &bounds, NoiseSource::Seed(5), sample, &mut whole);
            let (mut total, mut exact) = (0.0, 0.0);
            for (step, pair) in whole.chunks_exact(2).enumerate() {
                assert_eq!(pair[1], slow[step], "the other series is not one of whole numbers");
                assert!(pair[0].fract() == 0.0 && (pair[0] - slow[step]).abs() < 1.0);
                total += f64::from(pair[0]);
                exact += f64::from(slow[step]);
                assert!((total - exact).abs() < 1.0 + 1e-6, "{total} {exact}");
                sums[step] += f64::from(pair[0]);
            }
        }
        for (sum, value) in sums.iter().zip(slow) {
            let mean = sum / n_samples as f64;
            assert!((mean - f64::from(value)).abs() < 4.0 * 0.5 / (n_samples as f64).sqrt(), "{mean} {value}");
        }
    }

    #[test]
    fn the_first_steps_do_not_depend_on_those_after_them() {
        let (supports, bounds) = ([COUNT], [Bounds::default()]);
        let mut long: Vec<f32> = (0..50).map(|step| 0.37 * (step % 7) as f32).collect();
        let mut short = long[..20].to_vec();
        make_whole(&supports, &bounds, NoiseSource::Seed(1), 3, &mut long);
        make_whole(&supports, &bounds, NoiseSource::Seed(1), 3, &mut short);
        assert_eq!(short, long[..20]);
    }

    #[test]
    fn declared_bounds_hold_for_whole_paths() {
        let bounds = [Bounds { lower: Some(0.5), upper: Some(2.5) }];
        let mut path = vec![0.5_f32, 2.5, 0.7, 2.4, 0.5, 2.5];
        make_whole(&[COUNT], &bounds, NoiseSource::Seed(1), 0, &mut path);
        assert!(path.iter().all(|value| (0.5..=2.5).contains(value)), "{path:?}");
    }
}
