//! What is known around an anchor, the last step that counts as past: the values up to it, and the values after it.

use crate::outlook::Outlook;
use crate::pins::{Pin, Pins};
use crate::scaling::fill_from_past;
use crate::{Calendar, Error, Grid, Model, Window};

/// A measurement whose error is smaller than this share of what the series itself varies in a step counts as exact where an
/// anchor is chosen: it decides all but 1 % of the variance.
const DOUBT_MIN: f64 = 0.1;

/// Values up to an anchor, `[time, series]`, standard units, without the effects of known covariates.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    /// As measured, gaps `NaN`.
    pub standard: Vec<f64>,
    /// As the base reads them: gaps filled, doubtful values moved towards what was expected of them.
    pub filled: Vec<f64>,
    /// Standard deviations of the measurements; what is beyond its end is exact.
    pub sd: Vec<f64>,
}

/// A value after an anchor that is observed, or supposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    /// Steps from the anchor; 1 is the next one.
    pub step: usize,
    pub series: usize,
    /// Data units.
    pub value: f64,
    /// Standard units.
    pub standard: f64,
    /// Standard deviation of the measurement, standard units.
    pub sd: f64,
}

impl Past {
    pub fn n_steps(&self, n_series: usize) -> usize {
        self.standard.len() / n_series
    }
}

impl Observed {
    /// Index of the element in a path from the anchor on.
    pub fn element(&self, n_series: usize) -> usize {
        (self.step - 1) * n_series + self.series
    }
}

impl Model {
    /// The values of a grid up to an anchor.
    ///
    /// The base must not take a doubtful value at its word. It reads the mean of what it expected of the value and of what
    /// was measured, weighted by the precision of both: a Kalman filter whose prediction always has the error of one step.
    pub(crate) fn past(&self, context: &Grid, calendar: &Calendar, anchor: usize) -> Past {
        let n_series = self.n_series();
        let context = context.rows(0..anchor + 1);
        let season = self.seasons.first().copied();
        let standard = self.standard(&context, calendar);
        let mut filled = fill_from_past(&standard, n_series, season);
        if context.is_exact() {
            return Past { standard, filled, sd: vec![] };
        }
        let sd: Vec<f64> = (0..standard.len())
            .map(|index| {
                let (step, series) = (index / n_series, index % n_series);
                self.scaling.standardise_sd(series, context.get(step, series), context.sd(step, series))
            })
            .collect();
        let (mut believed, mut features) = (standard.clone(), vec![]);
        for index in (n_series..standard.len()).filter(|&index| sd[index] > 0.0) {
            let (step, series) = (index / n_series, index % n_series);
            let expected = self.base.linear.one_step(self.input(&filled, calendar), step - 1, series, &mut features);
            let variance = self.innovation.deviation[series].powi(2);
            let gain = variance / (variance + sd[index].powi(2));
            believed[index] = expected + gain * (standard[index] - expected);
            filled[index] = believed[index];
        }
        // Gaps that were filled with a value as it was measured get it as it is believed.
        Past { filled: fill_from_past(&believed, n_series, season), standard, sd }
    }

    /// The last step at which every live target is observed, with no error that matters; at most `reach` steps before the
    /// last one.
    ///
    /// A series that has been silent for longer does not hold it back, and one that never was exact in
    /// that time counts as exact: errors of that size were then in the training data, too.
    pub(crate) fn anchor(&self, context: &Grid, reach: usize) -> Result<usize, Error> {
        let targets = self.roles.targets.iter().copied();
        let earliest = context.n_steps().saturating_sub(1 + reach);
        let newest = (0..self.n_series()).filter_map(|series| context.last_observed(series)).max();
        let newest = newest.ok_or(Error::NothingObserved)?;
        let is_sure = |step: usize, series: usize| {
            let (value, sd) = (context.get(step, series), context.sd(step, series));
            let sd = self.scaling.standardise_sd(series, value, sd);
            !value.is_nan() && sd <= DOUBT_MIN * self.innovation.deviation[series]
        };
        let held_at = |series: usize| {
            let observed = context.last_observed(series).filter(|&last| last >= earliest)?;
            Some((earliest..observed + 1).rev().find(|&step| is_sure(step, series)).unwrap_or(observed))
        };
        // A panel that is wholly late must not pull the anchor back without end.
        Ok(targets.filter_map(held_at).min().unwrap_or(newest.max(earliest)))
    }

    /// The values of some rows of a grid, the first of which is `step` steps from the anchor.
    pub(crate) fn observed(&self, grid: &Grid, rows: std::ops::Range<usize>, step: usize) -> Vec<Observed> {
        let first = rows.start;
        rows.flat_map(|row| (0..self.n_series()).map(move |series| (row, series)))
            .filter(|&(row, series)| !grid.get(row, series).is_nan())
            .map(|(row, series)| {
                let value = grid.get(row, series);
                Observed {
                    step: step + row - first,
                    series,
                    value,
                    standard: self.scaling.standardise(series, value),
                    sd: self.scaling.standardise_sd(series, value, grid.sd(row, series)),
                }
            })
            .collect()
    }

    /// All values of a window after an anchor, those of its future included.
    ///
    /// # Errors
    /// [`Error::BeyondHorizon`] when one lies beyond the trained horizon.
    pub(crate) fn observed_after(&self, window: &Window, anchor: usize) -> Result<Vec<Observed>, Error> {
        let n_after = window.context.n_steps() - 1 - anchor;
        let mut observed = self.observed(&window.context, anchor + 1..window.context.n_steps(), 1);
        if let Some(future) = &window.future {
            observed.extend(self.observed(future, 0..future.n_steps(), n_after + 1));
        }
        let step = |from_anchor: usize| from_anchor as i32 - n_after as i32;
        match observed.iter().find(|observed| observed.step > self.horizon()) {
            Some(&Observed { step: beyond, series, .. }) => {
                Err(Error::BeyondHorizon { series, step: step(beyond), last: step(self.horizon()) })
            }
            None => Ok(observed),
        }
    }

    /// The update that meets values after an anchor, leaving the first `n_known` tokens as they are, and the tokens up to
    /// the last such value.
    ///
    /// One outlook serves all samples, or each has its own; the errors of measurements are then weighed as on average.
    pub(crate) fn pins(
        &self,
        observed: &[Observed],
        n_known: usize,
        outlooks: &[Outlook],
    ) -> Result<Option<(Pins, usize)>, Error> {
        let Some(last) = observed.iter().map(|observed| observed.step).max() else { return Ok(None) };
        let n_tokens = last.div_ceil(self.layout.patch);
        let pin = |observed: &Observed| {
            let element = observed.element(self.n_series());
            let sd = |outlook: &Outlook| {
                let relative = self.relative_error(observed, outlook);
                self.innovation.score_sd(element, relative, observed.sd / outlook.slope(element, relative))
            };
            let sum: f64 = if observed.sd == 0.0 { 0.0 } else { outlooks.iter().map(sd).sum() };
            Pin { element, sd: sum / outlooks.len() as f64 }
        };
        let pins: Vec<Pin> = observed.iter().map(pin).collect();
        let n_elements = self.layout.n_elements();
        Ok(Some((Pins::new(&self.innovation, &pins, n_known * n_elements..n_tokens * n_elements)?, n_tokens)))
    }

    /// Relative error of the base at an observed value after an anchor, see [`Outlook`].
    pub(crate) fn relative_error(&self, observed: &Observed, outlook: &Outlook) -> f64 {
        outlook.relative(observed.element(self.n_series()), observed.standard)
    }

    /// Scores of the errors of the base at some observed values after an anchor.
    pub(crate) fn scores(&self, observed: &[Observed], outlook: &Outlook) -> Vec<f64> {
        let score = |observed| {
            self.innovation.score(Observed::element(observed, self.n_series()), self.relative_error(observed, outlook))
        };
        observed.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bounds, NoiseLevel, SampleConfig, Trajectories};

    const GAP: f64 = f64::NAN;

    fn window(values: Vec<f64>, sd: Vec<f64>) -> Window {
        Window {
            context: Grid::new(1, values).expect("whole rows").with_sd(sd).expect("as many as values"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            horizon: 2,
            bounds: vec![Bounds::default()],
            future: None,
        }
    }

    fn forecast(window: &Window) -> Trajectories {
        let config = SampleConfig { n_samples: 4000, seed: 1, passes: 1, ..SampleConfig::default() };
        Model::random_walk(&[1.0], 1, 4).forecast(window, &config).expect("a window of the model")
    }

    #[test]
    fn a_doubtful_last_value_moves_the_forecast_by_the_share_that_it_deserves() {
        let without = forecast(&window(vec![1.0, 1.0, GAP], vec![0.0; 3]));
        assert_eq!(without.first_step(), 0);
        let mut distance = f64::INFINITY;
        for sd in [0.2, 0.5, 1.0, 2.0, 5.0, 100.0] {
            let doubtful = forecast(&window(vec![1.0, 1.0, 4.0], vec![0.0, 0.0, sd]));
            assert_eq!((doubtful.first_step(), doubtful.n_steps()), (0, 3));
            let gain = 1.0 / (1.0 + sd * sd);
            let mean = doubtful.mean();
            assert!((mean[1] - (1.0 + 3.0 * gain)).abs() < 0.06, "{sd}: {}", mean[1]);
            let variance: f64 =
                (0..4000).map(|k| (f64::from(doubtful.value(k, 1, 0)) - mean[1]).powi(2)).sum::<f64>() / 4000.0;
            assert!((variance - (2.0 - gain)).abs() < 0.12, "{sd}: {variance}");
            let now = (mean[1] - without.mean()[1]).abs();
            assert!(now < distance, "{sd}: {now} after {distance}");
            distance = now;
        }
        assert!(distance < 1e-2);
    }

    #[test]
    fn a_tiny_error_changes_no_anchor_and_errors_everywhere_hold_nothing_back() {
        let model = Model::random_walk(&[1.0], 1, 4);
        let anchor = |sd: Vec<f64>| model.anchor(&window(vec![0.0; 8], sd).context, 4).expect("observed");
        assert_eq!(anchor(vec![0.0; 8]), 7);
        assert_eq!(anchor(vec![0.09; 8]), 7);
        assert_eq!(anchor(vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), 5);
        assert_eq!(anchor(vec![1.0; 8]), 7);
        assert_eq!(anchor(vec![0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 7, "further than a horizon");
    }

    #[test]
    fn a_doubtful_value_of_the_past_enters_at_its_level_and_the_base_believes_its_share() {
        let model = Model::random_walk(&[2.0], 1, 4);
        let context = window(vec![1.0, 1.0, 4.0, 3.0], vec![0.0, 0.0, 2.0, 0.0]);
        let past = model.past(&context.context, &context.calendar, 3);
        assert_eq!(past.filled, [1.0, 1.0, 2.5, 3.0], "as large an error as a step: half of it");
        let (view, _) = model.condition(&past, &context.calendar);
        let half = NoiseLevel::of_measurement(1.0);
        assert!((half.value() - 0.5).abs() < 1e-12);
        assert_eq!(view.context_levels, [half, NoiseLevel::CLEAN]);
        // (4 − 1) / 2 of one deviation was measured; what follows is seen from what is believed.
        assert!((f64::from(view.context[0]) - 1.5 * half.signal()).abs() < 1e-6, "{:?}", view.context);
        assert_eq!(view.context[1], 0.25);
        assert_eq!(view.context_standard, [2.5, 3.0]);
    }

    #[test]
    fn a_supposed_future_is_kept_and_bridged() {
        let mut scenario = window(vec![1.0; 4], vec![0.0; 4]);
        scenario.horizon = 6;
        scenario.future = Some(Grid::new(1, vec![GAP, GAP, GAP, 5.0]).expect("whole rows"));
        let drawn = forecast(&scenario);
        assert!((0..4000).all(|k| drawn.value(k, 3, 0) == 5.0));
        let mean = drawn.mean();
        // A bridge from 1 to 5 in four steps, and the walk goes on from there, beyond the trained horizon.
        for (step, expected) in [2.0, 3.0, 4.0, 5.0, 5.0, 5.0].into_iter().enumerate() {
            assert!((mean[step] - expected).abs() < 0.07, "{mean:?}");
        }
        let variance: f64 =
            (0..4000).map(|k| (f64::from(drawn.value(k, 1, 0)) - mean[1]).powi(2)).sum::<f64>() / 4000.0;
        assert!((variance - 1.0).abs() < 0.1, "{variance}");
    }

    #[test]
    fn a_supposition_that_cannot_be_met_is_refused() {
        let model = Model::random_walk(&[1.0], 1, 4);
        let refused = |future: Vec<f64>, last: f64| {
            let mut window = window(vec![1.0, 1.0, last], vec![0.0; 3]);
            window.horizon = 6;
            window.future = Some(Grid::new(1, future).expect("whole rows"));
            model.forecast(&window, &SampleConfig::default()).expect_err("refused")
        };
        let error = refused(vec![GAP, GAP, GAP, GAP, 2.0], 1.0);
        assert!(matches!(error, Error::BeyondHorizon { series: 0, step: 5, last: 4 }), "{error}");
        let error = refused(vec![GAP, GAP, GAP, 2.0], GAP);
        assert!(matches!(error, Error::BeyondHorizon { series: 0, step: 4, last: 3 }), "{error}");
        let error = refused(vec![GAP; 7], 1.0);
        assert!(matches!(error, Error::FutureLength { given: 7, horizon: 6 }), "{error}");
    }
}
