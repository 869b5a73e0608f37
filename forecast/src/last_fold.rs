//! What trajectories score on the last fold, on which nothing was fitted.

use crate::metrics::{Scores, WindowSums};

/// Scores of some windows of the last fold.
pub struct LastFold {
    /// Over all windows.
    pub scores: Scores,
    /// Sums of each window.
    pub windows: Vec<WindowSums>,
}

impl LastFold {
    /// Sum of the logarithms of CRPS, CRPS_sum and energy score. Where all that came is 0 nothing is relative to it, and the energy score
    /// alone counts.
    pub fn loss(&self) -> f64 {
        let Scores { crps, crps_sum, energy_score, .. } = self.scores;
        let magnitude = |of: fn(&WindowSums) -> f64| self.windows.iter().map(of).sum::<f64>();
        let relative =
            [(crps, magnitude(|window| window.magnitude)), (crps_sum, magnitude(|window| window.magnitude_sum))];
        let relative =
            relative.into_iter().filter(|(_, magnitude)| *magnitude > 0.0).map(|(score, _)| log_score(score));
        relative.sum::<f64>() + log_score(energy_score)
    }

    /// Standard error of the difference of two losses of the same windows, in each of which both have what is hard about it in
    /// common: that of a sum of logarithms of ratios, to the first order (see [`crate::paired`]). None with a single window.
    pub fn standard_error(&self, other: &Self) -> Option<f64> {
        let parts: [fn(&WindowSums) -> f64; 3] =
            [|window| window.crps, |window| window.crps_sum, |window| window.energy_score];
        let mut influences = vec![0.0; self.windows.len()];
        for part in parts {
            let sum = |fold: &Self| fold.windows.iter().map(part).sum::<f64>();
            let (ours, theirs) = (sum(self), sum(other));
            if ours <= 0.0 || theirs <= 0.0 {
                continue;
            }
            for ((influence, a), b) in influences.iter_mut().zip(&self.windows).zip(&other.windows) {
                *influence += part(a) / ours - part(b) / theirs;
            }
        }
        let n = influences.len() as f64;
        let squares: f64 = influences.iter().map(|influence| influence * influence).sum();
        (n > 1.0).then(|| (n / (n - 1.0) * squares).sqrt())
    }
}

/// Scores below this are perfect.
const SCORE_MIN: f64 = 1e-12;

/// Nothing is worse than a score that is no number.
fn log_score(score: f64) -> f64 {
    if score.is_nan() { f64::INFINITY } else { libm::log(score.max(SCORE_MIN)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::Comparison;

    #[test]
    fn a_perfect_forecast_is_best_and_one_that_is_no_number_worst() {
        let loss = |score: f64| {
            let mut fold = fold(&[1.0]);
            fold.windows[0].magnitude = 1.0;
            (fold.scores.crps, fold.scores.energy_score) = (score, 1.0);
            fold.loss()
        };
        let losses = [0.0, 1e-3, 1.0, 5.0, f64::NAN].map(loss);
        assert!(losses.is_sorted_by(|a, b| a < b), "{losses:?}");
    }

    #[test]
    fn where_nothing_but_zeros_came_the_energy_score_decides() {
        let loss = |energy_score: f64| {
            let mut fold = fold(&[1.0]);
            (fold.scores.crps, fold.scores.crps_sum) = (f64::INFINITY, f64::NAN);
            fold.scores.energy_score = energy_score;
            fold.loss()
        };
        assert!(loss(0.1) < loss(0.2));
    }

    fn fold(crps: &[f64]) -> LastFold {
        let nothing = Scores {
            crps_sum: 0.0,
            crps: 0.0,
            nd: 0.0,
            mase: 0.0,
            energy_score: 0.0,
            coverage_50: 0.0,
            coverage_80: 0.0,
            coverage_90: 0.0,
        };
        let window =
            |&crps: &f64| WindowSums { crps, crps_sum: 2.0 * crps, energy_score: 3.0 * crps, ..WindowSums::default() };
        LastFold { scores: nothing, windows: crps.iter().map(window).collect() }
    }

    #[test]
    fn the_error_is_that_of_the_ratios() {
        let (ours, other) = (fold(&[1.0, 4.0, 2.5]), fold(&[1.5, 4.0, 2.0]));
        let ratio = Comparison::new("other", &ours.windows, &other.windows).crps;
        let (ratio, error) = (ratio.ratio.expect("not perfect"), ratio.standard_error.expect("three windows"));
        // All three scores move together.
        let found = ours.standard_error(&other).expect("three windows");
        assert!((found - 3.0 * error / ratio).abs() < 1e-12, "{found}");
    }

    #[test]
    fn a_constant_share_is_sure_and_one_window_says_nothing() {
        let same = fold(&[2.0, 6.0]).standard_error(&fold(&[1.0, 3.0]));
        assert!(same.is_some_and(|error| error < 1e-12), "{same:?}");
        assert_eq!(fold(&[2.0]).standard_error(&fold(&[1.0])), None);
    }
}
