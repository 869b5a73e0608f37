//! Values of a panel on its regular grid, and the calendar that goes with them.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::role::{Role, Roles};

/// Largest magnitude of a value, data units: squares and sums of such values are finite, and single precision, in which
/// trajectories are kept, holds them.
pub const VALUE_MAX: f64 = 1e30;

/// Whether a number can be a value: at most [`VALUE_MAX`] in magnitude, and no NaN.
pub fn is_value(number: f64) -> bool {
    number.abs() <= VALUE_MAX
}

/// Values `[time, series]` in data units, `NaN` where nothing was observed, and how exactly they were measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    n_series: usize,
    values: Vec<f64>,
    /// Standard deviations of the measurements; empty when all are exact.
    sd: Vec<f64>,
}

impl Grid {
    /// Wraps a row-major buffer `[time, series]`.
    ///
    /// # Errors
    /// - [`Error::Zero`] when `n_series` is 0
    /// - [`Error::RaggedRows`] when the buffer does not hold whole rows
    /// - [`Error::NotFinite`] when a value is infinite or above [`VALUE_MAX`] in magnitude
    pub fn new(n_series: usize, values: Vec<f64>) -> Result<Self, Error> {
        if n_series == 0 {
            return Err(Error::Zero { name: "n_series" });
        }
        if !values.len().is_multiple_of(n_series) {
            return Err(Error::RaggedRows { n_values: values.len(), n_columns: n_series });
        }
        if let Some(index) = values.iter().position(|value| value.abs() > VALUE_MAX) {
            return Err(Error::NotFinite { step: index / n_series, series: index % n_series });
        }
        Ok(Self { n_series, values, sd: vec![] })
    }

    /// States the standard deviation of each measurement, row-major `[time, series]`, data units. `NaN` stands for none
    /// stated, which counts as exact.
    ///
    /// # Errors
    /// - [`Error::RaggedRows`] when there are not as many as values
    /// - [`Error::MeasurementError`] when one is negative or infinite
    pub fn with_sd(self, mut sd: Vec<f64>) -> Result<Self, Error> {
        if sd.len() != self.values.len() {
            return Err(Error::RaggedRows { n_values: sd.len(), n_columns: self.values.len() });
        }
        if let Some(index) = sd.iter().position(|sd| *sd < 0.0 || sd.is_infinite()) {
            return Err(Error::MeasurementError { step: index / self.n_series, series: index % self.n_series });
        }
        sd.iter_mut().filter(|sd| sd.is_nan()).for_each(|sd| *sd = 0.0);
        if sd.iter().all(|sd| *sd == 0.0) {
            sd.clear();
        }
        Ok(Self { sd, ..self })
    }

    /// States standard deviations that are known to be finite and not negative.
    pub(crate) fn with_known_sd(self, sd: Vec<f64>) -> Self {
        let is_exact = sd.iter().all(|sd| *sd == 0.0);
        Self { sd: if is_exact { vec![] } else { sd }, ..self }
    }

    /// Wraps whole rows of numbers that are finite or gaps.
    pub(crate) fn from_rows(n_series: usize, values: Vec<f64>) -> Self {
        Self { n_series, values, sd: vec![] }
    }

    /// Number of rows.
    pub fn n_steps(&self) -> usize {
        self.values.len() / self.n_series
    }

    /// Number of columns.
    pub fn n_series(&self) -> usize {
        self.n_series
    }

    /// The value of one series at one step; `NaN` for a gap.
    pub fn get(&self, step: usize, series: usize) -> f64 {
        self.values[step * self.n_series + series]
    }

    /// The standard deviation of the measurement of one series at one step; 0 when it is exact.
    pub fn sd(&self, step: usize, series: usize) -> f64 {
        self.sd.get(step * self.n_series + series).copied().unwrap_or(0.0)
    }

    /// Whether every measurement is exact.
    pub fn is_exact(&self) -> bool {
        self.sd.is_empty()
    }

    /// All series at one step.
    pub fn row(&self, step: usize) -> &[f64] {
        &self.values[step * self.n_series..(step + 1) * self.n_series]
    }

    /// The rows of a range of steps.
    pub fn rows(&self, steps: std::ops::Range<usize>) -> Grid {
        let elements = steps.start * self.n_series..steps.end * self.n_series;
        let sd = self.sd.get(elements.clone()).unwrap_or_default().to_vec();
        Grid { n_series: self.n_series, values: self.values[elements].to_vec(), sd }
    }

    /// Adds rows at the end.
    ///
    /// # Errors
    /// [`Error::SeriesCount`] when they have another number of series.
    pub fn extend(&mut self, rows: &Grid) -> Result<(), Error> {
        if rows.n_series != self.n_series {
            return Err(Error::SeriesCount { given: rows.n_series, expected: self.n_series });
        }
        if !(self.is_exact() && rows.is_exact()) {
            self.sd.resize(self.values.len(), 0.0);
            self.sd.extend_from_slice(&rows.sd);
            self.sd.resize(self.values.len() + rows.values.len(), 0.0);
        }
        self.values.extend_from_slice(&rows.values);
        Ok(())
    }

    /// The buffer, row-major `[time, series]`.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The last step at which the series is observed.
    pub fn last_observed(&self, series: usize) -> Option<usize> {
        (0..self.n_steps()).rev().find(|&step| !self.get(step, series).is_nan())
    }
}

/// Periodic features of each step `[time, feature]`, known for the past and the future alike.
///
/// The base forecaster sees the features of the issue time only, so they should come in sine and
/// cosine pairs: their value at any lead is then a linear function of their value at the issue time.
///
/// Inside the library, features of the known covariates stand beside them, see [`crate::covariates`].
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    n_features: usize,
    values: Vec<f64>,
    n_covariate_features: usize,
    /// `[time, covariate feature]`
    covariates: Vec<f64>,
}

impl Calendar {
    /// Wraps a row-major buffer `[time, feature]`.
    ///
    /// # Errors
    /// [`Error::RaggedRows`] when the buffer does not hold whole rows.
    pub fn new(n_features: usize, values: Vec<f64>) -> Result<Self, Error> {
        if n_features == 0 && values.is_empty() || n_features > 0 && values.len().is_multiple_of(n_features) {
            return Ok(Self { n_features, values, n_covariate_features: 0, covariates: vec![] });
        }
        Err(Error::RaggedRows { n_values: values.len(), n_columns: n_features })
    }

    /// The calendar with its first features alone.
    pub(crate) fn first_features(&self, n_features: usize) -> Calendar {
        let values = self.values.chunks_exact(self.n_features.max(1)).flat_map(|row| &row[..n_features]);
        Calendar { n_features, values: values.copied().collect(), ..self.clone() }
    }

    /// Puts features of known covariates beside those of the calendar, for its first steps or all of them.
    pub(crate) fn with_covariates(self, n_covariate_features: usize, covariates: Vec<f64>) -> Self {
        Self { n_covariate_features, covariates, ..self }
    }

    /// Number of features of a step.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Number of rows; `None` when there are no features and any step is covered.
    pub fn n_steps(&self) -> Option<usize> {
        let of = |values: &[f64], width: usize| (width > 0).then(|| values.len() / width);
        let steps = [of(&self.values, self.n_features), of(&self.covariates, self.n_covariate_features)];
        steps.into_iter().flatten().min()
    }

    /// The features of one step.
    pub fn row(&self, step: usize) -> &[f64] {
        &self.values[step * self.n_features..(step + 1) * self.n_features]
    }

    /// The features of the known covariates at one step; none when there are no covariates.
    pub(crate) fn covariates(&self, step: usize) -> &[f64] {
        &self.covariates[step * self.n_covariate_features..(step + 1) * self.n_covariate_features]
    }

    /// The calendar with its last row repeated up to a number of rows.
    pub fn extended(&self, n_steps: usize) -> Calendar {
        let extended = |values: &[f64], width: usize| {
            let mut values = values.to_vec();
            let row = values[values.len().saturating_sub(width)..].to_vec();
            while !row.is_empty() && values.len() < n_steps * width {
                values.extend_from_slice(&row);
            }
            values
        };
        Calendar {
            values: extended(&self.values, self.n_features),
            covariates: extended(&self.covariates, self.n_covariate_features),
            ..*self
        }
    }

    /// The rows of a range of steps.
    pub fn rows(&self, steps: std::ops::Range<usize>) -> Calendar {
        let rows = |values: &[f64], width: usize| values[steps.start * width..steps.end * width].to_vec();
        Calendar {
            values: rows(&self.values, self.n_features),
            covariates: rows(&self.covariates, self.n_covariate_features),
            ..*self
        }
    }
}

/// The declared range of a series, in data units. Trajectories stay inside: they approach a bound that training values never reached
/// ([`crate::scaling::Edge`]), and are clipped to any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Smallest possible value.
    pub lower: Option<f64>,
    /// Largest possible value.
    pub upper: Option<f64>,
}

impl Bounds {
    /// The nearest value inside the bounds, and at most [`VALUE_MAX`] in magnitude.
    pub fn clip(&self, value: f64) -> f64 {
        let value = self.lower.map_or(value, |lower| value.max(lower));
        self.upper.map_or(value, |upper| value.min(upper)).clamp(-VALUE_MAX, VALUE_MAX)
    }
}

/// What a model learns from: a panel up to some instant.
#[derive(Clone, Debug)]
pub struct History {
    /// Values `[time, series]`.
    pub values: Grid,
    /// Features of the same steps.
    pub calendar: Calendar,
    /// Season lengths in steps, shortest first; empty when there is none.
    pub seasons: Vec<usize>,
    /// Declared range of each series.
    pub bounds: Vec<Bounds>,
    /// What each series is to the model; empty when all are targets.
    pub roles: Vec<Role>,
}

impl History {
    /// Refuses a history from which nothing can be learned.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarLength`] when its parts disagree
    /// - [`Error::NoTarget`], [`Error::TooManyCovariates`] when the roles are not those of a model
    /// - [`Error::NothingObserved`] when no value is known
    pub(crate) fn check(&self) -> Result<(), Error> {
        let (given, expected) = (self.bounds.len(), self.values.n_series());
        if given != expected {
            return Err(Error::SeriesCount { given, expected });
        }
        Roles::new(&self.roles, expected)?;
        let expected = self.values.n_steps();
        if let Some(given) = self.calendar.n_steps().filter(|&given| given != expected) {
            return Err(Error::CalendarLength { given, expected });
        }
        if self.values.values().iter().all(|value| value.is_nan()) {
            return Err(Error::NothingObserved);
        }
        Ok(())
    }

    /// The steps of a range, with everything that belongs to them.
    pub fn rows(&self, steps: std::ops::Range<usize>) -> History {
        History {
            values: self.values.rows(steps.clone()),
            calendar: self.calendar.rows(steps),
            seasons: self.seasons.clone(),
            bounds: self.bounds.clone(),
            roles: self.roles.clone(),
        }
    }

    /// The targets alone, with everything that belongs to them.
    ///
    /// # Errors
    /// Those of [`History::check`] about roles.
    pub(crate) fn targets(&self) -> Result<History, Error> {
        Ok(self.columns(&Roles::new(&self.roles, self.values.n_series())?.target_columns()))
    }

    /// Some of the series, all of them targets.
    pub(crate) fn columns(&self, columns: &[usize]) -> History {
        History {
            values: self.values.columns(columns),
            calendar: self.calendar.clone(),
            seasons: self.seasons.clone(),
            bounds: columns.iter().map(|&series| self.bounds[series]).collect(),
            roles: vec![],
        }
    }

    /// The window of a forecast issued after `issue_row` rows: sees the rows before it, the calendar of the horizon, and what
    /// became of the known covariates in it.
    pub fn window(&self, issue_row: usize, context_length: usize, horizon: usize) -> Window {
        let start = issue_row.saturating_sub(context_length);
        let known: Vec<bool> = self.roles.iter().map(|role| *role == Role::Known).collect();
        let end = self.values.n_steps().min(issue_row + horizon);
        let future = known.contains(&true).then(|| {
            let rows = self.values.rows(issue_row..end.max(issue_row));
            let supplied = |(index, &value): (usize, &f64)| if known[index % known.len()] { value } else { f64::NAN };
            Grid::from_rows(known.len(), rows.values().iter().enumerate().map(supplied).collect())
        });
        Window {
            context: self.values.rows(start..issue_row),
            calendar: self.calendar.rows(start..issue_row + horizon),
            horizon,
            bounds: self.bounds.clone(),
            future,
        }
    }
}

/// What a forecast starts from: all that is known at its issue time.
#[derive(Clone, Debug)]
pub struct Window {
    /// Values `[context_length, series]`. The last row is the last interval that starts before the
    /// issue time (step 0); what is not known at the issue time is `NaN`.
    pub context: Grid,
    /// Features of the context and of the horizon, `[context_length + horizon, feature]`.
    pub calendar: Calendar,
    /// Steps to forecast after the context.
    pub horizon: usize,
    /// Declared range of each series.
    pub bounds: Vec<Bounds>,
    /// Values after the context that are known or supposed, from step 1 on, `[step, series]` with at most `horizon` rows;
    /// `NaN` where nothing is. Trajectories have these values, and elsewhere follow the law under that condition. For a known
    /// covariate this is its supplied future; what is not supplied is drawn.
    pub future: Option<Grid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(values: &[f64]) -> Grid {
        Grid::new(2, values.to_vec()).expect("whole rows")
    }

    #[test]
    fn rows_keep_the_errors_of_their_values() {
        let measured = grid(&[1.0, 2.0, 3.0, 4.0]).with_sd(vec![0.0, f64::NAN, 0.5, 0.0]).expect("as many as values");
        let mut both = grid(&[9.0, 9.0]);
        both.extend(&measured.rows(1..2)).expect("two series");
        both.extend(&grid(&[7.0, 7.0])).expect("two series");
        let sd: Vec<f64> = (0..3).flat_map(|step| [both.sd(step, 0), both.sd(step, 1)]).collect();
        assert_eq!(sd, [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
        assert!(measured.rows(0..1).sd(0, 1) == 0.0 && grid(&[1.0, 2.0]).is_exact());
    }

    #[test]
    fn errors_that_are_none_are_refused() {
        for bad in [-1.0, f64::INFINITY] {
            let refused = grid(&[1.0, 2.0]).with_sd(vec![0.0, bad]);
            assert!(matches!(refused, Err(Error::MeasurementError { step: 0, series: 1 })));
        }
        assert!(matches!(grid(&[1.0, 2.0]).with_sd(vec![0.0]), Err(Error::RaggedRows { .. })));
        assert!(matches!(grid(&[1.0, 2.0]).extend(&Grid { n_series: 1, ..grid(&[]) }), Err(Error::SeriesCount { .. })));
    }
}
