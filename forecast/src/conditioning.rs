//! From standard values and a base forecaster to what the network is told about one window.

use serde::{Deserialize, Serialize};

use crate::innovation::Innovation;
use crate::linear::{BaseInput, Linear};
use crate::{Calendar, NoiseLevel};

/// Innovations beyond this many standard deviations are clipped before the network sees them.
pub const INNOVATION_MAX: f64 = 8.0;

/// How time and series are cut into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLayout {
    /// Number of series.
    pub n_series: usize,
    /// Calendar features of a step.
    pub n_calendar: usize,
    /// Steps in a token; divides the trained horizon.
    pub patch: usize,
    /// Tokens of context.
    pub n_context_tokens: usize,
    /// Tokens of the trained horizon.
    pub n_horizon_tokens: usize,
    /// Known covariates, of which a token has the values of all its steps.
    #[serde(default)]
    pub n_known: usize,
}

impl TokenLayout {
    /// Features of a token beside its elements: the calendar of its first step and the covariates of each.
    pub fn n_features(&self) -> usize {
        self.n_calendar + self.patch * self.n_known
    }

    /// Elements of a token.
    pub fn n_elements(&self) -> usize {
        self.patch * self.n_series
    }

    /// Steps of context.
    pub fn context_length(&self) -> usize {
        self.patch * self.n_context_tokens
    }

    /// Steps of the trained horizon.
    pub fn horizon(&self) -> usize {
        self.patch * self.n_horizon_tokens
    }
}

/// What the base forecaster expected of each step from the one before it, and by how much it was wrong.
pub struct OneStep {
    /// Expected standard values `[time, series]`.
    pub expected: Vec<f64>,
    /// Errors divided by their standard deviation `[time, series]`; `NaN` for a gap.
    pub errors: Vec<f64>,
    /// Noise levels of the errors `[time, series]`; empty when all are exact.
    pub levels: Vec<NoiseLevel>,
}

impl OneStep {
    /// Expectations for the steps of a range; `base_for(origin)` gives the linear forecaster of an origin.
    ///
    /// Rows before the range, and the first row of all, are gaps that expect nothing.
    pub fn new<'b>(
        standard: &[f64],
        input: BaseInput<'_>,
        innovation: &Innovation,
        steps: std::ops::Range<usize>,
        base_for: impl Fn(usize) -> &'b Linear,
    ) -> Self {
        let n_series = input.n_series;
        let mut expected = vec![0.0; steps.end * n_series];
        let mut errors = vec![f64::NAN; steps.end * n_series];
        let deviations: Vec<f64> = (0..n_series).map(|series| innovation.deviation[series]).collect();
        let mut features = vec![];
        for step in steps.start.max(1)..steps.end {
            let base = base_for(step - 1);
            for (series, deviation) in deviations.iter().enumerate() {
                let index = step * n_series + series;
                expected[index] = base.one_step(input, step - 1, series, &mut features);
                errors[index] = (standard[index] - expected[index]) / deviation;
            }
        }
        Self { expected, errors, levels: vec![] }
    }

    /// Brings errors of doubtful values to the noise level that matches the standard deviation of their measurement,
    /// `[time, series]`, standard units; elements beyond its end are exact.
    pub fn doubt(&mut self, innovation: &Innovation, n_series: usize, sd: &[f64]) {
        self.levels = vec![NoiseLevel::CLEAN; self.errors.len()];
        for (index, &sd) in sd.iter().enumerate().filter(|(_, sd)| **sd > 0.0) {
            let level = NoiseLevel::of_measurement(sd / innovation.deviation[index % n_series]);
            self.levels[index] = level;
            self.errors[index] *= level.signal();
        }
    }
}

/// The network's view of one window, before any noise. Rows are `[step, series]` or `[token, feature]`.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Scaled one-step errors of the context, `NaN` for a gap, `[context_length, series]`.
    pub context: Vec<f32>,
    /// Noise levels of these errors; empty when all are clean.
    pub context_levels: Vec<NoiseLevel>,
    /// Standard values of the context; what the base expected where there is a gap.
    pub context_standard: Vec<f32>,
    /// What the base expected of the context from one step before.
    pub context_expected: Vec<f32>,
    /// What the base expects of the horizon, `[horizon, series]`.
    pub horizon_standard: Vec<f32>,
    /// Calendar of the first step of each token and known covariates of all its steps, context then horizon,
    /// `[token, feature]`.
    pub calendar: Vec<f32>,
}

fn clipped(value: f64) -> f32 {
    value.clamp(-INNOVATION_MAX, INNOVATION_MAX) as f32
}

impl Conditioning {
    /// The view from an anchor, the last step that counts as past. `path` is what the base expects after it, `[horizon, series]`.
    ///
    /// Context steps before the data begin are gaps.
    pub fn new(
        layout: &TokenLayout,
        standard: &[f64],
        one_step: &OneStep,
        calendar: &Calendar,
        anchor: usize,
        path: &[f64],
    ) -> Self {
        let n_series = layout.n_series;
        let mut view = Self::default();
        for back in (0..layout.context_length()).rev() {
            let Some(step) = anchor.checked_sub(back) else {
                view.context.extend(std::iter::repeat_n(f32::NAN, n_series));
                view.context_standard.extend(std::iter::repeat_n(0.0, n_series));
                view.context_expected.extend(std::iter::repeat_n(0.0, n_series));
                if !one_step.levels.is_empty() {
                    view.context_levels.extend(std::iter::repeat_n(NoiseLevel::CLEAN, n_series));
                }
                continue;
            };
            let row = step * n_series..(step + 1) * n_series;
            view.context_levels.extend(one_step.levels.get(row.clone()).unwrap_or_default());
            let errors = one_step.errors[row.clone()].iter();
            for ((&error, &expected), &observed) in errors.zip(&one_step.expected[row.clone()]).zip(&standard[row]) {
                view.context.push(if error.is_nan() { f32::NAN } else { clipped(error) });
                view.context_standard.push(clipped(if error.is_nan() { expected } else { observed }));
                view.context_expected.push(clipped(expected));
            }
        }
        view.horizon_standard = path.iter().map(|&value| clipped(value)).collect();
        let n_before = layout.n_context_tokens as isize;
        for token in -n_before..layout.n_horizon_tokens as isize {
            let step = anchor as isize + 1 + token * layout.patch as isize;
            view.calendar.extend(calendar.row(step.max(0) as usize).iter().map(|&feature| feature as f32));
            if layout.n_known > 0 {
                let covariates = |step: isize| {
                    calendar.covariates(step.max(0) as usize)[..layout.n_known].iter().map(|&value| value as f32)
                };
                view.calendar.extend((step..step + layout.patch as isize).flat_map(covariates));
            }
        }
        view
    }

    /// Shows the errors of the newest `n_newest` elements of the context as if these had been measured with an error, but for `exact`
    /// ones, which were not drawn; they are counted from the first of the newest.
    pub fn stabilise(&mut self, n_newest: usize, exact: &[usize], level: NoiseLevel) {
        if level == NoiseLevel::CLEAN {
            return;
        }
        let n = self.context.len();
        self.context_levels.resize(n, NoiseLevel::CLEAN);
        for element in (0..n_newest).filter(|element| !exact.contains(element)) {
            if let Some(index) = (n + element).checked_sub(n_newest) {
                self.context_levels[index] = level;
                self.context[index] *= level.signal() as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_drawn_is_shown_as_if_it_had_an_error() {
        let view = Conditioning { context: vec![1.0; 6], ..Conditioning::default() };
        let shown = |level: NoiseLevel| {
            let mut view = view.clone();
            // The newest two rows of two series, of which one value was observed.
            view.stabilise(4, &[1], level);
            view
        };
        let half = NoiseLevel::new(0.5);
        let (drawn, [clean, seen]) = (half.signal() as f32, [NoiseLevel::CLEAN, half]);
        assert_eq!(shown(half).context, [1.0, 1.0, drawn, 1.0, drawn, drawn]);
        assert_eq!(shown(half).context_levels, [clean, clean, seen, clean, seen, seen]);
        assert_eq!(format!("{:?}", shown(clean)), format!("{view:?}"));
        let mut short = Conditioning { context: vec![1.0; 2], ..Conditioning::default() };
        short.stabilise(4, &[1], half);
        assert_eq!(short.context_levels, [seen, seen], "more was drawn than is looked at");
    }

    #[test]
    fn a_number_beside_a_gap_is_not_seen() {
        let layout =
            TokenLayout { n_series: 2, n_calendar: 0, patch: 2, n_context_tokens: 2, n_horizon_tokens: 1, n_known: 0 };
        let calendar = Calendar::new(0, vec![]).expect("no features");
        // The first series is observed at all four steps, the second one is a gap at all of them.
        let one_step = OneStep { expected: vec![0.5; 8], errors: [1.0, f64::NAN].repeat(4), levels: vec![] };
        let view = |first: f64, second: f64| {
            let standard = [first, second].repeat(4);
            Conditioning::new(&layout, &standard, &one_step, &calendar, 3, &[0.0; 4])
        };
        // A gap is not equal to itself.
        let told = |view: &Conditioning| format!("{view:?}");
        let gap = view(2.0, f64::NAN);
        assert_eq!(gap.context_standard, [2.0, 0.5].repeat(4), "observed, or expected");
        assert_eq!(told(&gap), told(&view(2.0, 1e3)));
        assert_ne!(told(&gap), told(&view(3.0, f64::NAN)));
    }
}
