//! Conditions on a path: a number that is read off it, and what that number must be.

use std::ops::RangeInclusive;

use crate::{Aggregate, Bounds, Error, Trajectories};

/// Conditions that one forecast can have.
pub const N_CONDITIONS_MAX: usize = 16;

/// Largest tilt, up or down.
pub const TILT_MAX: f64 = 4.0;

/// How one number is read off a part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All values together.
    Aggregate(Aggregate),
    /// The largest change of a series from one step to the next, up or down. The change from the last observation to
    /// step 1 is not one of them.
    Ramp,
}

/// What a number must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// This number.
    Equal(f64),
    /// A number that is not outside.
    Within(Bounds),
    /// Nothing, but paths are favoured by their number: a path becomes `exp(tilt)` times as likely for each standard deviation of the
    /// plain forecast by which its number is higher. A normal number moves by as many standard deviations and keeps its spread.
    Tilt(f64),
}

/// A demand on a number that is read off some series at some steps of a path, in data units.
///
/// A value at a step is the sum over one series and one step, a terminal value that at the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// How the number is read.
    pub reading: Reading,
    /// Columns of the series, each once.
    pub series: Vec<usize>,
    /// Steps of the horizon, of which 1 is the first.
    pub steps: RangeInclusive<usize>,
    /// What the number must be.
    pub demand: Demand,
}

/// What is wrong with a condition.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionProblem {
    /// No series, or one that the panel does not have, or one twice.
    #[error("needs series of the panel, each once")]
    Series,
    /// No step, or one that the forecast does not have.
    #[error("needs steps between 1 and {horizon}, the first not after the last; a ramp needs two")]
    Steps {
        /// Steps of the forecast.
        horizon: usize,
    },
    /// Limits that no number meets, or every number.
    #[error("needs a limit; limits must be finite, and the lower one must not be above the upper one")]
    Limits,
    /// Too large, or no number.
    #[error("a tilt must be between -{TILT_MAX} and {TILT_MAX}")]
    Tilt,
    /// A number that is no linear function of the path cannot be prescribed.
    #[error("only a value, a sum or a mean can be equal to a number")]
    NotLinear,
    /// The declared bounds of the series exclude it.
    #[error("the bounds of the series allow numbers from {lowest} to {highest} alone")]
    OutOfBounds {
        /// Lowest possible number.
        lowest: f64,
        /// Highest possible number.
        highest: f64,
    },
    /// A number can only be prescribed where the joint law is modelled.
    #[error("a number can be prescribed up to step {last} alone, where the trained horizon ends")]
    BeyondHorizon {
        /// Last step that it may read.
        last: usize,
    },
    /// Nothing is left open: what is known, or conditions before it, decide the number.
    #[error("what is known, and the conditions before it, already decide the number")]
    Decided,
    /// No trajectory could be brought to meet it.
    #[error("no trajectory meets it, of {n_drawn} that were drawn; the nearest has {nearest}")]
    NotMet {
        /// Trajectories that were drawn.
        n_drawn: usize,
        /// The number of the one that comes nearest.
        nearest: f64,
    },
}

impl Condition {
    /// The number of a path, `[step, series]` from step 1 on.
    pub fn read(&self, path: &[f32], n_series: usize) -> f64 {
        let value = |step: usize, series: usize| f64::from(path[(step - 1) * n_series + series]);
        let of_series = |series: usize| self.steps.clone().map(move |step| value(step, series));
        match self.reading {
            Reading::Aggregate(function) => function.of(self.series.iter().flat_map(|&series| of_series(series))),
            Reading::Ramp => {
                let changes = |&series: &usize| {
                    of_series(series).zip(of_series(series).skip(1)).map(|(before, after)| (after - before).abs())
                };
                self.series.iter().flat_map(changes).fold(0.0, f64::max)
            }
        }
    }

    /// The numbers of all samples.
    ///
    /// # Errors
    /// [`Error::Condition`] when the trajectories do not have the series or the steps.
    pub fn read_all(&self, trajectories: &Trajectories) -> Result<Vec<f64>, Error> {
        let n_series = trajectories.n_series();
        self.check_place(trajectories.horizon(), n_series)
            .map_err(|problem| Error::Condition { condition: 0, problem })?;
        Ok(trajectories.paths().map(|path| self.read(path, n_series)).collect())
    }

    /// How far a number is from what it must be; 0 when it is that, or need be nothing. A number that must be equal may differ by the tolerance.
    pub fn excess(&self, number: f64, tolerance: f64) -> f64 {
        let (lower, upper) = match self.demand {
            Demand::Equal(value) => (value - tolerance, value + tolerance),
            Demand::Within(Bounds { lower, upper }) => {
                (lower.unwrap_or(f64::NEG_INFINITY), upper.unwrap_or(f64::INFINITY))
            }
            Demand::Tilt(_) => return 0.0,
        };
        (lower - number).max(number - upper).max(0.0)
    }

    /// Refuses a condition that a forecast with these series and steps cannot have.
    pub(crate) fn check(&self, horizon: usize, bounds: &[Bounds]) -> Result<(), ConditionProblem> {
        self.check_place(horizon, bounds.len())?;
        let (lower, upper) = match self.demand {
            Demand::Equal(value) => (Some(value), Some(value)),
            Demand::Within(Bounds { lower, upper }) => (lower, upper),
            Demand::Tilt(tilt) if tilt.abs() <= TILT_MAX => return Ok(()),
            Demand::Tilt(_) => return Err(ConditionProblem::Tilt),
        };
        let is_finite = [lower, upper].into_iter().flatten().all(f64::is_finite);
        if !is_finite || lower.or(upper).is_none() || lower > upper.or(lower) {
            return Err(ConditionProblem::Limits);
        }
        if matches!(self.demand, Demand::Equal(_)) && self.coefficient().is_none() {
            return Err(ConditionProblem::NotLinear);
        }
        let (lowest, highest) = self.reach(bounds);
        if lower.is_some_and(|lower| lower > highest) || upper.is_some_and(|upper| upper < lowest) {
            return Err(ConditionProblem::OutOfBounds { lowest, highest });
        }
        Ok(())
    }

    fn check_place(&self, horizon: usize, n_series: usize) -> Result<(), ConditionProblem> {
        let is_repeated = |(index, series): (usize, &usize)| self.series[..index].contains(series);
        if self.series.is_empty()
            || self.series.iter().any(|&series| series >= n_series)
            || self.series.iter().enumerate().any(is_repeated)
        {
            return Err(ConditionProblem::Series);
        }
        let (first, last) = (*self.steps.start(), *self.steps.end());
        let n_needed = if self.reading == Reading::Ramp { 2 } else { 1 };
        if first < 1 || last > horizon || last + 1 < first + n_needed {
            return Err(ConditionProblem::Steps { horizon });
        }
        Ok(())
    }

    /// By how much each value counts in the number; `None` when the number is no linear function of the path.
    pub(crate) fn coefficient(&self) -> Option<f64> {
        match self.reading {
            Reading::Aggregate(Aggregate::Sum) => Some(1.0),
            Reading::Aggregate(Aggregate::Mean) => Some(1.0 / (self.series.len() * self.steps.clone().count()) as f64),
            Reading::Aggregate(_) if self.series.len() == 1 && self.steps.start() == self.steps.end() => Some(1.0),
            Reading::Aggregate(_) | Reading::Ramp => None,
        }
    }

    /// The lowest and the highest number that values inside the bounds can have.
    fn reach(&self, bounds: &[Bounds]) -> (f64, f64) {
        let lower = |series: &usize| bounds[*series].lower.unwrap_or(f64::NEG_INFINITY);
        let upper = |series: &usize| bounds[*series].upper.unwrap_or(f64::INFINITY);
        match self.reading {
            Reading::Ramp => {
                let width = self.series.iter().map(|series| upper(series) - lower(series)).fold(0.0, f64::max);
                (0.0, width)
            }
            Reading::Aggregate(function) => {
                let n_steps = self.steps.clone().count();
                let of =
                    |values: Vec<f64>| function.of(values.into_iter().flat_map(|x| std::iter::repeat_n(x, n_steps)));
                (of(self.series.iter().map(lower).collect()), of(self.series.iter().map(upper).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(lower: Option<f64>, upper: Option<f64>) -> Demand {
        Demand::Within(Bounds { lower, upper })
    }

    fn condition(reading: Reading, series: &[usize], steps: RangeInclusive<usize>, demand: Demand) -> Condition {
        Condition { reading, series: series.to_vec(), steps, demand }
    }

    const SUM: Reading = Reading::Aggregate(Aggregate::Sum);
    const MAX: Reading = Reading::Aggregate(Aggregate::Max);

    #[test]
    fn numbers_are_read_off_the_steps_of_the_horizon() {
        // One nowcast step, then three steps of two series.
        let values = vec![9.0, 9.0, 1.0, 10.0, 4.0, 20.0, 2.0, 15.0];
        let trajectories = Trajectories::new(1, 0, 4, 2, values).expect("whole rows");
        let read = |reading, series: &[usize], steps| {
            condition(reading, series, steps, within(Some(0.0), None)).read_all(&trajectories).expect("in range")[0]
        };
        assert_eq!(read(SUM, &[0, 1], 1..=2), 35.0);
        assert_eq!(read(SUM, &[1], 3..=3), 15.0);
        assert_eq!(read(Reading::Aggregate(Aggregate::Mean), &[0], 2..=3), 3.0);
        assert_eq!(read(Reading::Aggregate(Aggregate::Min), &[0, 1], 1..=3), 1.0);
        assert_eq!(read(MAX, &[0], 1..=3), 4.0);
        assert_eq!(read(Reading::Ramp, &[0, 1], 1..=3), 10.0);
        assert_eq!(read(Reading::Ramp, &[1], 2..=3), 5.0);
    }

    #[test]
    fn a_number_is_as_far_off_as_it_is_outside() {
        let between = condition(SUM, &[0], 1..=1, within(Some(1.0), Some(2.0)));
        assert_eq!([0.5, 1.0, 1.5, 4.0].map(|number| between.excess(number, 0.0)), [0.5, 0.0, 0.0, 2.0]);
        let equal = condition(SUM, &[0], 1..=1, Demand::Equal(1.0));
        assert_eq!([0.5, 1.25].map(|number| equal.excess(number, 0.25)), [0.25, 0.0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bounds = [Bounds { lower: Some(0.0), upper: Some(10.0) }, Bounds::default()];
        let check = |reading, series: &[usize], steps, demand| {
            condition(reading, series, steps, demand).check(4, &bounds).expect_err("refused")
        };
        let above = |limit| within(Some(limit), None);
        assert_eq!(check(SUM, &[], 1..=4, above(1.0)), ConditionProblem::Series);
        assert_eq!(check(SUM, &[2], 1..=4, above(1.0)), ConditionProblem::Series);
        assert_eq!(check(SUM, &[0, 0], 1..=4, above(1.0)), ConditionProblem::Series);
        for steps in [0..=3, 1..=5, RangeInclusive::new(3, 2)] {
            assert_eq!(check(SUM, &[0], steps, above(1.0)), ConditionProblem::Steps { horizon: 4 });
        }
        assert_eq!(check(Reading::Ramp, &[0], 2..=2, above(1.0)), ConditionProblem::Steps { horizon: 4 });
        for demand in [within(None, None), within(Some(2.0), Some(1.0)), above(f64::NAN), Demand::Equal(f64::INFINITY)]
        {
            assert_eq!(check(SUM, &[0], 1..=4, demand), ConditionProblem::Limits);
        }
        for tilt in [4.1, -5.0, f64::NAN] {
            assert_eq!(check(MAX, &[0], 1..=4, Demand::Tilt(tilt)), ConditionProblem::Tilt);
        }
        assert_eq!(check(MAX, &[0], 1..=4, Demand::Equal(1.0)), ConditionProblem::NotLinear);
        assert_eq!(condition(MAX, &[0], 4..=4, Demand::Equal(1.0)).check(4, &bounds), Ok(()), "a terminal value");
        let reach = |lowest, highest| ConditionProblem::OutOfBounds { lowest, highest };
        assert_eq!(check(SUM, &[0], 1..=4, above(40.5)), reach(0.0, 40.0));
        assert_eq!(condition(SUM, &[0, 1], 1..=4, above(1e300)).check(4, &bounds), Ok(()), "one has no upper bound");
    }
}
