//! Finds values that a model did not expect: trains on the first rows of a history, and scores the others one step ahead.
//!
//! A row is scored by what lies before it and nothing else. The rows before the first scored one are parted: the model
//! learns from the earlier ones and is then used as it is; the later ones calibrate, since scores of rows that were learned
//! from are too small.

use std::ops::ControlFlow;

use crate::calibration::Calibration;
use crate::surprise::{Surprise, SurpriseConfig, TokenSurprise};
use crate::{Budget, Device, Error, History, Progress, TrainConfig, TrainReport, fit};

/// Which rows are learned from, and which calibrate.
#[derive(Clone, Copy, Debug)]
pub struct AnomalyConfig {
    /// Rows that the model learns from.
    pub n_learn: usize,
    /// Rows after these that calibrate. All later rows are scored.
    pub n_calibrate: usize,
    /// What the scores are compared with.
    pub comparison: Comparison,
    /// How long the network may train.
    pub budget: Budget,
    /// Seed of training and of the noise of the scores.
    pub seed: u64,
}

/// Which scores a score is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Those of the rows that calibrate, always: what was odd once stays odd.
    Fixed,
    /// Those of all rows before it that were not learned from: what goes on for long becomes normal.
    Running,
}

/// The surprise of every row after those that calibrate.
pub struct Anomalies {
    /// Row of the history that `rows` begins with.
    pub first_row: usize,
    /// The scored rows, in order.
    pub rows: Vec<AnomalyRow>,
    /// Record of the training.
    pub report: TrainReport,
}

/// One scored row.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyRow {
    /// Each series; `None` for a gap.
    pub elements: Vec<Option<Anomaly>>,
    /// All series together; also finds what is odd about their combination alone. `None` where nothing was observed.
    pub joint: Option<JointAnomaly>,
}

/// How odd one value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anomaly {
    /// The median that was expected, data units.
    pub expected: f64,
    /// Surprise, nats: [`crate::surprise::ElementSurprise::score`].
    pub score: f64,
    /// Probability of a score at least as high in a row like those that calibrate.
    pub p_value: f64,
    /// Bound on the log-likelihood, given the rows before and the earlier series of the row; nats per data unit.
    pub log_likelihood: f64,
    /// Mean squared error of the velocity; 1 is what white noise has on average.
    pub denoising_error: f64,
}

/// How odd a whole row is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointAnomaly {
    /// Surprise, nats: the sum of [`crate::surprise::ElementSurprise::joint_score`].
    pub score: f64,
    /// Probability of a score at least as high in a row like those that calibrate.
    pub p_value: f64,
    /// Bound on the log-likelihood of the row, given those before; nats per data units.
    pub log_likelihood: f64,
    /// Mean of those of its values.
    pub denoising_error: f64,
}

/// Trains on the first rows and scores those after the calibration, each one step ahead.
///
/// # Errors
/// - [`Error::Zero`] when nothing calibrates
/// - [`Error::RowRange`] when nothing is left to score
/// - those of [`fit`] and [`crate::Model::surprise`]
pub fn anomalies(
    history: &History,
    config: &AnomalyConfig,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Anomalies, Error> {
    let AnomalyConfig { n_learn, n_calibrate, comparison, budget, seed } = *config;
    let (first_row, n_steps) = (n_learn.saturating_add(n_calibrate), history.values.n_steps());
    if n_calibrate == 0 {
        return Err(Error::Zero { name: "n_calibrate" });
    }
    if first_row >= n_steps {
        return Err(Error::RowRange { first: first_row, end: n_steps, n_steps });
    }
    // With a horizon of one step a token is one step: its score can know nothing of later ones.
    let fitted = fit(&history.rows(0..n_learn), &TrainConfig::new(1, budget, seed), device, progress)?;
    let surprise = fitted.model.surprise(history, n_learn..n_steps, &SurpriseConfig { seed, ..Default::default() })?;

    let calibration =
        |score: &dyn Fn(usize) -> Option<f64>| Calibration::from_scores((0..n_calibrate).filter_map(score));
    let mut of_series: Vec<Calibration> = (0..fitted.model.n_series())
        .map(|series| calibration(&|row| surprise.row(row)[series].map(|element| element.score())))
        .collect();
    let mut of_rows = calibration(&|row| joint(&surprise, row).map(|joint| joint.score));
    let p_value = |calibration: &mut Calibration, score| {
        let p_value = calibration.p_value(score);
        if comparison == Comparison::Running {
            calibration.add(score);
        }
        p_value
    };
    let mut rows = Vec::with_capacity(surprise.n_rows() - n_calibrate);
    for row in n_calibrate..surprise.n_rows() {
        let elements = surprise.row(row).iter().zip(&mut of_series).map(|(element, calibration)| {
            element.map(|element| {
                let score = element.score();
                Anomaly {
                    expected: element.expected,
                    score,
                    p_value: p_value(calibration, score),
                    log_likelihood: element.log_likelihood(),
                    denoising_error: element.denoising_error,
                }
            })
        });
        let elements = elements.collect();
        let joint = joint(&surprise, row).map(|joint| JointAnomaly {
            score: joint.score,
            p_value: p_value(&mut of_rows, joint.score),
            log_likelihood: joint.log_likelihood,
            denoising_error: joint.denoising_error,
        });
        rows.push(AnomalyRow { elements, joint });
    }
    Ok(Anomalies { first_row, rows, report: fitted.report })
}

/// The surprise of a whole row; none where nothing was observed.
fn joint(surprise: &Surprise, row: usize) -> Option<TokenSurprise> {
    Some(TokenSurprise::of(surprise.row(row))).filter(|token| token.n_observed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;
    use crate::{Bounds, Calendar, Grid};

    /// White noise of two series, the second following the first, that becomes four times as loud at row 400.
    fn louder() -> History {
        let mut stream = Stream::new(8, 0);
        let mut values = vec![];
        for row in 0..1000 {
            let loudness = if row < 400 { 1.0 } else { 4.0 };
            let value = loudness * stream.normal();
            values.extend([value, value + 0.1 * loudness * stream.normal()]);
        }
        History {
            values: Grid::new(2, values).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            seasons: vec![],
            bounds: vec![Bounds::default(); 2],
            roles: vec![],
        }
    }

    fn scored(history: &History, comparison: Comparison) -> Anomalies {
        let config = AnomalyConfig { n_learn: 200, n_calibrate: 150, comparison, budget: Budget::Steps(0), seed: 1 };
        anomalies(history, &config, &crate::cpu(), &mut |_| ControlFlow::Continue(())).expect("long enough")
    }

    /// Share of the p-values of the first series below 0.01, from a row on.
    fn flagged(anomalies: &Anomalies, from: usize) -> f64 {
        let rows = &anomalies.rows[from - anomalies.first_row..];
        let is_flagged = |row: &&AnomalyRow| row.elements[0].is_some_and(|anomaly| anomaly.p_value < 0.01);
        rows.iter().filter(is_flagged).count() as f64 / rows.len() as f64
    }

    #[test]
    fn what_goes_on_for_long_becomes_normal_only_to_the_running_comparison() {
        let history = louder();
        let (fixed, running) = (scored(&history, Comparison::Fixed), scored(&history, Comparison::Running));
        assert_eq!((fixed.first_row, fixed.rows.len()), (350, 650));
        assert!(flagged(&fixed, 700) > 0.3, "{}", flagged(&fixed, 700));
        assert!(flagged(&running, 700) < 0.03, "{}", flagged(&running, 700));
        let quiet = fixed.rows[..50].iter().filter(|row| row.elements[0].is_some_and(|a| a.p_value < 0.01)).count();
        assert!(quiet <= 3, "{quiet} of 50 rows like those that calibrate");
    }

    #[test]
    fn the_joint_score_sees_a_combination_that_is_odd_though_no_value_is() {
        let mut history = louder();
        let mut values = history.values.values().to_vec();
        (values[2 * 380], values[2 * 380 + 1]) = (1.0, -1.0);
        history.values = Grid::new(2, values).expect("whole rows");
        let row = &scored(&history, Comparison::Fixed).rows[30];
        assert!(row.elements.iter().flatten().all(|anomaly| anomaly.p_value > 0.1), "{row:?}");
        assert!(row.joint.is_some_and(|joint| joint.p_value < 1e-3), "{row:?}");
    }

    #[test]
    fn a_split_that_leaves_nothing_is_refused() {
        let history = louder();
        let refused = |n_learn, n_calibrate| {
            let comparison = Comparison::Fixed;
            let config = AnomalyConfig { n_learn, n_calibrate, comparison, budget: Budget::Steps(0), seed: 1 };
            anomalies(&history, &config, &crate::cpu(), &mut |_| ControlFlow::Continue(())).err().expect("refused")
        };
        assert!(matches!(refused(200, 0), Error::Zero { name: "n_calibrate" }));
        assert!(matches!(refused(900, 100), Error::RowRange { first: 1000, .. }));
        assert!(matches!(refused(3, 50), Error::TooShort { .. }));
    }
}
