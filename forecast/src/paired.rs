//! Two forecasters on the same windows: the ratio of their scores, and how sure it is.
//!
//! What is hard in a window is hard for both, so their scores rise and fall together, and the ratio of the sums is surer than
//! either sum. With `a_w` ours and `b_w` the other's in window `w` of `n` (Cochran 1977, eq. 6.13)
//!
//! ```text
//! r = Σ a_w / Σ b_w        se(r) = √( n / (n − 1) · Σ (a_w − r b_w)² ) / Σ b_w
//! ```
//!
//! Windows do not overlap; the error takes them for independent.

use serde::{Deserialize, Serialize};

use crate::metrics::WindowSums;

/// A ratio of two scores; below 1 ours is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Ours over the other's; none where the other is perfect.
    pub ratio: Option<f64>,
    /// Its standard error; none with a single window.
    pub standard_error: Option<f64>,
}

/// Ours against another forecaster on the same windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The other one, as in [`crate::backtest::BacktestRow::model`].
    pub model: String,
    /// CRPS of the series.
    pub crps: Ratio,
    /// CRPS of the sum over series.
    pub crps_sum: Ratio,
    /// Energy score of whole paths.
    pub energy_score: Ratio,
}

impl Comparison {
    /// Ours against `model`, window by window. Magnitudes are the same for both and cancel.
    pub fn new(model: impl Into<String>, ours: &[WindowSums], other: &[WindowSums]) -> Self {
        let ratio = |part: fn(&WindowSums) -> f64| Ratio::new(ours.iter().map(part).zip(other.iter().map(part)));
        Self {
            model: model.into(),
            crps: ratio(|window| window.crps),
            crps_sum: ratio(|window| window.crps_sum),
            energy_score: ratio(|window| window.energy_score),
        }
    }
}

impl Ratio {
    /// Of pairs of scores, ours first.
    fn new(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let n = pairs.clone().count() as f64;
        let (ours, other) = pairs.clone().fold((0.0, 0.0), |sums, pair| (sums.0 + pair.0, sums.1 + pair.1));
        if other <= 0.0 {
            return Self { ratio: None, standard_error: None };
        }
        let ratio = ours / other;
        let squares: f64 = pairs.map(|(a, b)| (a - ratio * b).powi(2)).sum();
        let standard_error = (n > 1.0).then(|| (n / (n - 1.0) * squares).sqrt() / other);
        Self { ratio: Some(ratio), standard_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;

    fn window(score: f64) -> WindowSums {
        WindowSums {
            crps: score,
            magnitude: 1.0,
            crps_sum: 2.0 * score,
            magnitude_sum: 1.0,
            energy_score: 3.0 * score,
            ..WindowSums::default()
        }
    }

    #[test]
    fn the_standard_error_is_the_spread_of_the_ratio_over_many_tests() {
        let mut stream = Stream::new(5, 0);
        let found: Vec<Ratio> = (0..2000)
            .map(|_| {
                // Windows differ in difficulty; ours is 0.9 of the other, give or take a tenth.
                let pairs: Vec<(f64, f64)> = (0..40)
                    .map(|_| {
                        let difficulty = (0.5 * stream.normal()).exp();
                        (difficulty * (0.9 + 0.1 * stream.normal()), difficulty)
                    })
                    .collect();
                Ratio::new(pairs.into_iter())
            })
            .collect();
        let ratios: Vec<f64> = found.iter().filter_map(|found| found.ratio).collect();
        let mean = ratios.iter().sum::<f64>() / 2000.0;
        let spread = (ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / 1999.0).sqrt();
        let stated = found.iter().filter_map(|found| found.standard_error).sum::<f64>() / 2000.0;
        assert!((mean - 0.9).abs() < 0.002 && (stated / spread - 1.0).abs() < 0.06, "{mean} {stated} {spread}");
    }

    #[test]
    fn what_is_always_the_same_share_is_sure_of_it() {
        let other: Vec<WindowSums> = [1.0, 5.0, 2.0].map(window).to_vec();
        let ours: Vec<WindowSums> = [0.5, 2.5, 1.0].map(window).to_vec();
        let found = Comparison::new("other", &ours, &other);
        for ratio in [found.crps, found.crps_sum, found.energy_score] {
            assert_eq!(ratio, Ratio { ratio: Some(0.5), standard_error: Some(0.0) });
        }
    }

    #[test]
    fn one_window_has_no_error_and_a_perfect_one_no_ratio() {
        assert_eq!(Ratio::new([(1.0, 2.0)].into_iter()), Ratio { ratio: Some(0.5), standard_error: None });
        assert_eq!(Ratio::new([(1.0, 0.0)].into_iter()), Ratio { ratio: None, standard_error: None });
    }
}
