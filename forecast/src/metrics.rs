//! Scores of trajectories against what came, as GluonTS defines them.
//!
//! ```text
//! wQL(q)   = 2 Σ |(Q_q − y) (1{y ≤ Q_q} − q)| / Σ |y|        sums over windows, steps and series
//! CRPS     = mean of wQL over q = 0.05, 0.10 … 0.95          one ratio over all windows (`mean_wQuantileLoss`)
//! CRPS_sum = the same after summing samples and truth over series (`m_sum_mean_wQuantileLoss`)
//! energy   = E|X − y| − ½ E|X − X'|                          per window, each series divided by its mean magnitude before the test
//! ```
//!
//! Quantiles are interpolated linearly between the draws, where GluonTS takes the nearest one: with 100 samples this
//! moves a CRPS by less than a hundredth of itself. What was not observed is not scored, and a step with a gap has no
//! sum. The scale of MASE and of the energy score comes from the rows before the first window, for all windows.

use serde::{Deserialize, Serialize};

use crate::reliability::rank;
use crate::trajectories::quantile_of_sorted;
use crate::{Grid, QuantileLevel, Trajectories};

/// Number of quantile levels of the CRPS: 0.05, 0.10 … 0.95.
const N_LEVELS: usize = 19;

/// Scores over all windows of a test. Lower is better, but for coverage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// CRPS of the sum over series.
    pub crps_sum: f64,
    /// CRPS of the series.
    pub crps: f64,
    /// Normalised deviation of the median.
    pub nd: f64,
    /// Mean absolute scaled error of the median.
    pub mase: f64,
    /// Energy score of the joint trajectories, mean over windows.
    pub energy_score: f64,
    /// Share of the truth inside the central 50 % interval.
    pub coverage_50: f64,
    /// Share of the truth inside the central 80 % interval.
    pub coverage_80: f64,
    /// Share of the truth inside the central 90 % interval.
    pub coverage_90: f64,
}

/// A forecast and what came.
pub struct Outcome {
    /// The forecast, without nowcasts.
    pub trajectories: Trajectories,
    /// Observed values `[horizon, series]`, gaps `NaN`.
    pub truth: Grid,
}

fn level(index: usize) -> QuantileLevel {
    // 0.05 … 0.95 are valid levels.
    QuantileLevel::new((index + 1) as f64 / (N_LEVELS + 1) as f64)
        .unwrap_or_else(|_| unreachable!("a level of the fixed grid"))
}

/// Sums of CRPS and magnitudes, whose ratio is a weighted quantile loss.
#[derive(Default)]
struct PinballSums {
    crps: f64,
    magnitude: f64,
}

impl PinballSums {
    fn add(&mut self, crps: f64, truth: f64) {
        self.crps += crps;
        self.magnitude += truth.abs();
    }
}

/// Pinball loss of a quantile, not doubled.
pub fn pinball(quantile: f64, level: QuantileLevel, truth: f64) -> f64 {
    let indicator = if truth <= quantile { 1.0 } else { 0.0 };
    ((quantile - truth) * (indicator - level.value())).abs()
}

/// CRPS of ascending draws, in the unit of the truth: the mean over the levels of twice the pinball loss.
fn crps(sorted: &[f32], truth: f64) -> f64 {
    let losses =
        (0..N_LEVELS).map(|index| 2.0 * pinball(quantile_of_sorted(sorted, level(index)), level(index), truth));
    losses.sum::<f64>() / N_LEVELS as f64
}

/// Whether the truth lies inside the central 50, 80 and 90 % interval of ascending draws.
fn inside(sorted: &[f32], truth: f64) -> [bool; 3] {
    [(4, 14), (1, 17), (0, 18)].map(|(low, high)| {
        (quantile_of_sorted(sorted, level(low))..=quantile_of_sorted(sorted, level(high))).contains(&truth)
    })
}

/// Scores of one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueScore {
    /// CRPS in the unit of the value: its sum over many values, divided by the sum of their magnitudes, is
    /// [`Scores::crps`].
    pub crps: f64,
    /// Error of the median.
    pub absolute_error: f64,
    /// Whether the value lies inside the central 50 % interval.
    pub inside_50: bool,
    /// Whether it lies inside the central 80 % interval.
    pub inside_80: bool,
    /// Whether it lies inside the central 90 % interval.
    pub inside_90: bool,
    /// Share of the draws below the value, those that equal it counting half.
    pub pit: f64,
}

/// Scores the draws of one element, ascending, against what came.
///
/// # Panics
/// When there are no draws.
pub fn score_value(sorted: &[f32], truth: f64) -> ValueScore {
    let [inside_50, inside_80, inside_90] = inside(sorted, truth);
    ValueScore {
        crps: crps(sorted, truth),
        absolute_error: (quantile_of_sorted(sorted, level(9)) - truth).abs(),
        inside_50,
        inside_80,
        inside_90,
        pit: rank(sorted, truth),
    }
}

/// Sums of one window, from which the scores of many are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowSums {
    /// CRPS of the observed values, summed over them, in their unit.
    pub crps: f64,
    /// Magnitude of the observed values, summed.
    pub magnitude: f64,
    /// CRPS of the sums over series, summed over the steps that have no gap.
    pub crps_sum: f64,
    /// Magnitude of these sums, summed.
    pub magnitude_sum: f64,
    /// Energy score of the whole path.
    pub energy_score: f64,
    /// How many values were observed.
    pub n_values: usize,
    /// How many of these lie inside the central 50, 80 and 90 % interval.
    pub n_inside: [usize; 3],
}

/// Scores the forecasts of several windows together. `before` holds the rows before the first of them.
pub fn score(before: &Grid, season: usize, outcomes: &[Outcome]) -> Scores {
    score_each(before, season, outcomes).0
}

/// As [`score`], and with the sums of each window.
pub fn score_each(before: &Grid, season: usize, outcomes: &[Outcome]) -> (Scores, Vec<WindowSums>) {
    let n_series = before.n_series();
    let magnitudes = mean_magnitudes(before);
    let mut deviation = 0.0;
    let mut series_error = vec![(0.0, 0.0); n_series];
    let mut windows = vec![];
    for outcome in outcomes {
        let Outcome { trajectories, truth } = outcome;
        let (mut each, mut sums) = (PinballSums::default(), PinballSums::default());
        let (mut n_values, mut n_inside) = (0, [0; 3]);
        for step in 0..trajectories.n_steps() {
            for (series, error_sum) in series_error.iter_mut().enumerate() {
                let observed = truth.get(step, series);
                if observed.is_nan() {
                    continue;
                }
                let value = score_value(&trajectories.sorted(step, series), observed);
                each.add(value.crps, observed);
                deviation += value.absolute_error;
                n_values += 1;
                error_sum.0 += value.absolute_error;
                error_sum.1 += 1.0;
                for (count, is_inside) in n_inside.iter_mut().zip([value.inside_50, value.inside_80, value.inside_90]) {
                    *count += usize::from(is_inside);
                }
            }
            let total: f64 = truth.row(step).iter().sum();
            if !total.is_nan() {
                let mut draws: Vec<f32> = (0..trajectories.n_samples())
                    .map(|sample| {
                        (0..n_series).map(|series| f64::from(trajectories.value(sample, step, series))).sum::<f64>()
                            as f32
                    })
                    .collect();
                draws.sort_unstable_by(f32::total_cmp);
                sums.add(crps(&draws, total), total);
            }
        }
        windows.push(WindowSums {
            crps: each.crps,
            magnitude: each.magnitude,
            crps_sum: sums.crps,
            magnitude_sum: sums.magnitude,
            energy_score: energy_score(outcome, &magnitudes),
            n_values,
            n_inside,
        });
    }
    let seasonal = seasonal_errors(before, season);
    let scaled: Vec<f64> = series_error
        .iter()
        .zip(&seasonal)
        .filter(|((_, n), seasonal)| *n > 0.0 && **seasonal > 0.0)
        .map(|((sum, n), seasonal)| sum / n / seasonal)
        .collect();
    let sum = |part: fn(&WindowSums) -> f64| windows.iter().map(part).sum::<f64>();
    let n_values: usize = windows.iter().map(|window| window.n_values).sum();
    let [coverage_50, coverage_80, coverage_90] = [0, 1, 2]
        .map(|interval| windows.iter().map(|window| window.n_inside[interval]).sum::<usize>() as f64 / n_values as f64);
    let scores = Scores {
        crps_sum: sum(|window| window.crps_sum) / sum(|window| window.magnitude_sum),
        crps: sum(|window| window.crps) / sum(|window| window.magnitude),
        nd: deviation / sum(|window| window.magnitude),
        mase: scaled.iter().sum::<f64>() / scaled.len() as f64,
        energy_score: sum(|window| window.energy_score) / windows.len() as f64,
        coverage_50,
        coverage_80,
        coverage_90,
    };
    (scores, windows)
}

/// Mean absolute difference to the value one season earlier, per series.
fn seasonal_errors(before: &Grid, season: usize) -> Vec<f64> {
    let differences = |series: usize| {
        (season..before.n_steps())
            .map(move |step| (before.get(step, series) - before.get(step - season, series)).abs())
            .filter(|difference| !difference.is_nan())
    };
    (0..before.n_series())
        .map(|series| differences(series).sum::<f64>() / (differences(series).count() as f64).max(1.0))
        .collect()
}

/// Mean absolute value per series; 1 where that is 0.
fn mean_magnitudes(before: &Grid) -> Vec<f64> {
    let observed =
        |series: usize| (0..before.n_steps()).map(move |step| before.get(step, series)).filter(|value| !value.is_nan());
    (0..before.n_series())
        .map(|series| observed(series).map(f64::abs).sum::<f64>() / (observed(series).count() as f64).max(1.0))
        .map(|mean| if mean == 0.0 { 1.0 } else { mean })
        .collect()
}

/// Energy score of one forecast over all observed steps and series together (Gneiting and Raftery 2007, eq. 22), each series divided
/// by its magnitude.
pub fn energy_score(outcome: &Outcome, magnitudes: &[f64]) -> f64 {
    let (trajectories, n_series) = (&outcome.trajectories, magnitudes.len());
    let observed: Vec<usize> = outcome
        .truth
        .values()
        .iter()
        .enumerate()
        .filter(|(_, value)| !value.is_nan())
        .map(|(index, _)| index)
        .collect();
    let scaled = |value: f64, index: usize| value / magnitudes[index % n_series];
    let truth: Vec<f64> = observed.iter().map(|&index| scaled(outcome.truth.values()[index], index)).collect();
    let row = trajectories.n_steps() * n_series;
    let draws: Vec<Vec<f64>> = trajectories
        .values()
        .chunks_exact(row)
        .map(|draw| observed.iter().map(|&index| scaled(f64::from(draw[index]), index)).collect())
        .collect();
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let n = draws.len() as f64;
    let to_truth = draws.iter().map(|draw| distance(draw, &truth)).sum::<f64>() / n;
    let pairs = draws.iter().enumerate().map(|(k, a)| draws[..k].iter().map(|b| distance(a, b)).sum::<f64>());
    to_truth - pairs.sum::<f64>() / (n * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;

    fn random_outcomes(n_windows: usize, factor: f64) -> Vec<Outcome> {
        let mut stream = Stream::new(3, 0);
        (0..n_windows)
            .map(|_| {
                let values = (0..40 * 5 * 2).map(|_| (factor * (5.0 + stream.normal())) as f32).collect();
                let truth = (0..5 * 2).map(|_| factor * (5.0 + stream.normal())).collect();
                Outcome {
                    trajectories: Trajectories::new(40, 1, 5, 2, values).expect("whole rows"),
                    truth: Grid::new(2, truth).expect("whole rows"),
                }
            })
            .collect()
    }

    fn history(factor: f64) -> Grid {
        Grid::new(2, (0..40).map(|index| factor * f64::from(index * index % 11)).collect()).expect("whole rows")
    }

    #[test]
    fn a_deterministic_forecast_has_its_normalised_deviation_as_crps() {
        let truth = Grid::new(2, vec![1.0, 2.0, 3.0, 4.0]).expect("whole rows");
        let values = [1.5_f32, 2.5, 2.0, 5.0].repeat(10);
        let outcome = Outcome { trajectories: Trajectories::new(10, 1, 2, 2, values).expect("whole rows"), truth };
        let scores = score(&history(1.0), 1, &[outcome]);
        assert!((scores.crps - 0.3).abs() < 1e-9 && (scores.nd - 0.3).abs() < 1e-9);
        assert!((scores.crps_sum - 0.1).abs() < 1e-9);
    }

    #[test]
    fn scores_of_single_values_add_up_to_those_of_all() {
        let outcomes = random_outcomes(3, 1.0);
        let (all, windows) = score_each(&history(1.0), 7, &outcomes);
        let (mut crps, mut magnitude, mut inside, mut n) = (0.0, 0.0, 0.0, 0.0);
        for Outcome { trajectories, truth } in &outcomes {
            for (step, series) in (0..5).flat_map(|step| [(step, 0), (step, 1)]) {
                let found = score_value(&trajectories.sorted(step, series), truth.get(step, series));
                crps += found.crps;
                magnitude += truth.get(step, series).abs();
                inside += f64::from(u8::from(found.inside_80));
                n += 1.0;
            }
        }
        let of_windows: f64 = windows.iter().map(|window| window.crps).sum();
        assert!(windows.len() == 3 && (of_windows - crps).abs() < 1e-9);
        assert!((crps / magnitude - all.crps).abs() < 1e-12 && (inside / n - all.coverage_80).abs() < 1e-12);
    }

    #[test]
    fn a_value_is_scored_by_its_place_among_the_draws() {
        let draws: Vec<f32> = (0..=100).map(|draw| draw as f32).collect();
        let found = score_value(&draws, 90.0);
        assert_eq!((found.inside_50, found.inside_80, found.inside_90), (false, true, true));
        assert!((found.pit - 90.5 / 101.0).abs() < 1e-12 && (found.absolute_error - 40.0).abs() < 1e-12);
        // The CRPS of a uniform law at x is x² − x + 1/3 in its own unit: an integral over levels, which at 0 and 1 is next to
        // nothing, so that the mean over the 19 inner ones of 20 intervals is 20/19 of it.
        let expected = 20.0 / 19.0 * (0.81 - 0.9 + 1.0 / 3.0);
        assert!((found.crps / 100.0 - expected).abs() < 0.002, "{}", found.crps);
    }

    #[test]
    fn scores_do_not_depend_on_the_unit() {
        let [a, b] = [1.0, 8.0].map(|unit| score(&history(unit), 7, &random_outcomes(3, unit)));
        assert!((a.crps - b.crps).abs() < 1e-6 && (a.crps_sum - b.crps_sum).abs() < 1e-6);
        assert!((a.mase - b.mase).abs() < 1e-6 && (a.energy_score - b.energy_score).abs() < 1e-6);
    }

    #[test]
    fn what_was_not_observed_is_not_scored() {
        let outcomes = random_outcomes(1, 1.0);
        let whole = score(&history(1.0), 7, &outcomes);
        let mut values = outcomes[0].truth.values().to_vec();
        values.extend([f64::NAN; 2]);
        let mut longer = outcomes[0].trajectories.values().to_vec();
        longer = longer.chunks_exact(10).flat_map(|draw| draw.iter().copied().chain([1e6, -1e6])).collect();
        let padded = Outcome {
            trajectories: Trajectories::new(40, 1, 6, 2, longer).expect("whole rows"),
            truth: Grid::new(2, values).expect("whole rows"),
        };
        assert_eq!(whole, score(&history(1.0), 7, &[padded]));
    }
}
