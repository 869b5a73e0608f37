//! Our scores must be those of GluonTS: `metrics.py` made `metrics.json` with GluonTS itself (the energy score, which
//! GluonTS lacks, with numpy).

use forecast::metrics::{Outcome, Scores, score};
use forecast::{Grid, Trajectories};
use serde::Deserialize;

/// Samples are kept as f32, whose relative rounding is 6e-8, and scores are of order 1. Another definition (the nearest
/// sample where we interpolate, a mean of ratios instead of a ratio of sums) changes them by 1e-4 or more.
const TOLERANCE: f64 = 1e-6;

/// A backtest of a few windows; matrices are row-major, gaps null.
#[derive(Deserialize)]
struct Reference {
    n_samples: usize,
    n_series: usize,
    season: usize,
    /// `[step, series]`
    before: Vec<Option<f64>>,
    /// `[window][sample, step, series]`
    samples: Vec<Vec<f32>>,
    complete: Case,
    gaps: Case,
}

#[derive(Deserialize)]
struct Case {
    /// `[window][step, series]`
    truth: Vec<Vec<Option<f64>>>,
    scores: Scores,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("metrics.json")).expect("the format of metrics.py")
}

impl Reference {
    fn grid(&self, values: &[Option<f64>]) -> Grid {
        Grid::new(self.n_series, values.iter().map(|value| value.unwrap_or(f64::NAN)).collect()).expect("whole rows")
    }

    fn check(&self, case: &Case) {
        let outcome = |(samples, truth): (&Vec<f32>, &Vec<Option<f64>>)| {
            let truth = self.grid(truth);
            let trajectories = Trajectories::new(self.n_samples, 1, truth.n_steps(), self.n_series, samples.clone());
            Outcome { trajectories: trajectories.expect("whole rows"), truth }
        };
        let outcomes: Vec<Outcome> = self.samples.iter().zip(&case.truth).map(outcome).collect();
        let ours = score(&self.grid(&self.before), self.season, &outcomes);
        let theirs = &case.scores;
        for (name, ours, theirs) in [
            ("crps_sum", ours.crps_sum, theirs.crps_sum),
            ("crps", ours.crps, theirs.crps),
            ("nd", ours.nd, theirs.nd),
            ("mase", ours.mase, theirs.mase),
            ("energy_score", ours.energy_score, theirs.energy_score),
            ("coverage_50", ours.coverage_50, theirs.coverage_50),
            ("coverage_80", ours.coverage_80, theirs.coverage_80),
            ("coverage_90", ours.coverage_90, theirs.coverage_90),
        ] {
            assert!((ours - theirs).abs() < TOLERANCE, "{name}: ours {ours}, reference {theirs}");
        }
    }
}

#[test]
fn scores_of_complete_windows_are_those_of_gluonts() {
    let reference = reference();
    reference.check(&reference.complete);
}

#[test]
fn scores_of_windows_with_gaps_are_those_of_gluonts() {
    let reference = reference();
    reference.check(&reference.gaps);
}
