//! A group of series on one regular grid, and what was known of it at any time.

use std::ops::Range;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use forecast::{Bounds, Calendar, Grid, History, Role, Window, is_value};

use crate::{Error, FoundHolidays, Frame, Frequency, Holidays, calendar, holiday_search};

/// Cells (steps times series) of the largest panel: 1.6 GB of values.
const N_CELLS_MAX: usize = 200_000_000;

/// What a panel is, apart from its values.
#[derive(Clone, Debug, PartialEq)]
pub struct PanelConfig {
    /// Name of the panel.
    pub name: String,
    /// Its grid.
    pub frequency: Frequency,
    /// Zone whose calendar the grid follows.
    pub time_zone: Tz,
    /// How long after the end of its interval a value becomes known, where the source does not say.
    pub publication_delay: TimeDelta,
    /// Declared range of each series; empty when none is declared.
    pub bounds: Vec<Bounds>,
    /// What each series is to a model; empty when all are targets.
    pub roles: Vec<Role>,
    /// The public holidays that its days are told by; where none are declared they may be [found](Panel::find_holidays).
    pub holidays: Option<Holidays>,
}

impl PanelConfig {
    /// A panel of targets whose values are known as soon as their interval ends, without declared ranges.
    pub fn new(name: impl Into<String>, frequency: Frequency, time_zone: Tz) -> Self {
        let (publication_delay, bounds, roles) = (TimeDelta::zero(), Vec::new(), Vec::new());
        Self { name: name.into(), frequency, time_zone, publication_delay, bounds, roles, holidays: None }
    }

    fn is_known(&self, series: usize) -> bool {
        self.roles.get(series) == Some(&Role::Known)
    }
}

/// One value of one series of a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Index of the series in the panel.
    pub series: usize,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// When the value became known; `None` stands for the end of its interval and the publication delay.
    pub available_at: Option<DateTime<Utc>>,
    /// The value, in the series' unit.
    pub value: f64,
    /// Standard deviation of the measurement, in the same unit; `None` counts as exact.
    pub sd: Option<f64>,
}

/// A group of series on one regular grid, from the first to the last observation of any of them.
#[derive(Clone, Debug)]
pub struct Panel {
    config: PanelConfig,
    series: Vec<String>,
    /// Number of the first interval.
    first: i64,
    /// Latest values `[time, series]`, NaN where there are none, with the errors of their measurements.
    values: Grid,
    /// Every version of the cells that have a recorded `available_at`, sorted by step, series and `available_at`.
    revisions: Vec<Revision>,
}

/// A version of a cell.
#[derive(Clone, Copy, Debug)]
struct Revision {
    step: usize,
    series: usize,
    available_at: DateTime<Utc>,
    value: f64,
    /// 0 when the value is exact.
    sd: f64,
}

impl Panel {
    /// Lays a frame on the grid.
    ///
    /// # Errors
    /// As [`Panel::from_observations`].
    pub fn from_frame(config: PanelConfig, frame: &Frame) -> Result<Self, Error> {
        let observations = frame.rows().map(|row| Observation {
            series: row.series,
            valid_time: row.valid_time,
            available_at: row.available_at,
            value: row.value,
            sd: row.sd,
        });
        Self::from_observations(config, frame.series().to_vec(), observations)
    }

    /// Lays observations, in any order, on the grid. Several of one cell are its versions: the one
    /// that became known last counts, or, for a window, the last one known at its issue time.
    ///
    /// # Errors
    /// - [`Error::NoObservations`] when there are no series or no observations
    /// - [`Error::BoundsCount`] when bounds are declared, but not one per series
    /// - [`Error::Forecast`] when roles are declared, but not one per series
    /// - [`Error::UnknownSeries`] when an index is beyond the series
    /// - [`Error::ObservationNotFinite`] for NaN, and above 1e30 in magnitude: a gap is no observation
    /// - [`Error::Forecast`] when a standard deviation is negative or not finite
    /// - [`Error::ObservationOffGrid`] when a `valid_time` begins no interval
    /// - [`Error::PanelTooLarge`] when the grid would have more than 200 million cells
    pub fn from_observations(
        mut config: PanelConfig,
        series: Vec<String>,
        observations: impl IntoIterator<Item = Observation>,
    ) -> Result<Self, Error> {
        if config.bounds.is_empty() {
            config.bounds = vec![Bounds::default(); series.len()];
        }
        if config.bounds.len() != series.len() {
            let (n_series, n_bounds) = (series.len(), config.bounds.len());
            return Err(Error::BoundsCount { panel: config.name, n_series, n_bounds });
        }
        if !config.roles.is_empty() && config.roles.len() != series.len() {
            let (given, expected) = (config.roles.len(), series.len());
            return Err(forecast::Error::SeriesCount { given, expected }.into());
        }
        let placed: Vec<(i64, Observation)> = observations
            .into_iter()
            .map(|observation| Ok((place(&config, series.len(), &observation)?, observation)))
            .collect::<Result<_, Error>>()?;
        let ordinals = placed.iter().map(|(ordinal, _)| *ordinal);
        let (Some(first), Some(last)) = (ordinals.clone().min(), ordinals.max()) else {
            return Err(Error::NoObservations { panel: config.name });
        };

        let n_steps = last.abs_diff(first) + 1;
        let n_series = series.len();
        let n_cells = usize::try_from(n_steps).ok().and_then(|n_steps| n_steps.checked_mul(n_series));
        let Some(n_cells) = n_cells.filter(|n_cells| *n_cells <= N_CELLS_MAX) else {
            return Err(Error::PanelTooLarge { panel: config.name, n_steps, n_series, limit: N_CELLS_MAX });
        };
        let (values, revisions) = lay_out(&config, first, n_series, n_cells, &placed)?;
        Ok(Self { values, config, series, first, revisions })
    }

    /// What the panel is, apart from its values.
    pub fn config(&self) -> &PanelConfig {
        &self.config
    }

    /// Name of the panel.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Names of the series, in the order of the columns.
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// The grid.
    pub fn frequency(&self) -> Frequency {
        self.config.frequency
    }

    /// Zone whose calendar the grid follows.
    pub fn time_zone(&self) -> Tz {
        self.config.time_zone
    }

    /// What each series is to a model; empty when all are targets.
    pub fn roles(&self) -> &[Role] {
        &self.config.roles
    }

    /// Columns of the series that are forecast.
    pub fn targets(&self) -> Vec<usize> {
        let is_target = |series: &usize| self.config.roles.get(*series).is_none_or(|role| *role == Role::Target);
        (0..self.series.len()).filter(is_target).collect()
    }

    /// Tells its days by other holidays.
    pub fn set_holidays(&mut self, holidays: Option<Holidays>) {
        self.config.holidays = holidays;
    }

    /// Where no holidays are declared, tells its days by those of the country whose holidays are the days on which its targets are unlike
    /// the same days of the weeks around; by none where that may be chance, or steps are longer than a day. Only the first `n_rows` are
    /// looked at.
    pub fn find_holidays(&mut self, n_rows: usize) -> Option<FoundHolidays> {
        if self.config.holidays.is_some() {
            return None;
        }
        let found = self.search_holidays(n_rows);
        self.config.holidays = Some(found.map_or(Holidays::NONE, |found| found.holidays));
        found
    }

    fn search_holidays(&self, n_rows: usize) -> Option<FoundHolidays> {
        let PanelConfig { frequency, time_zone, .. } = self.config;
        if !frequency.is_within_days() {
            return None;
        }
        let date = |row| calendar::local(self.valid_time(row), time_zone).date();
        let dates: Vec<NaiveDate> = (0..n_rows.min(self.n_steps())).map(date).collect();
        holiday_search::find(&self.values, &self.targets(), &dates)
    }

    /// Declared range of each series.
    pub fn bounds(&self) -> &[Bounds] {
        &self.config.bounds
    }

    /// The latest values `[time, series]` in data units; NaN for a gap.
    pub fn values(&self) -> &Grid {
        &self.values
    }

    /// Number of intervals from the first to the last one observed.
    pub fn n_steps(&self) -> usize {
        self.values.n_steps()
    }

    /// Start of the first interval.
    pub fn start(&self) -> DateTime<Utc> {
        self.valid_time(0)
    }

    /// End of the last interval: the earliest issue time at which every step is past.
    pub fn end(&self) -> DateTime<Utc> {
        self.valid_time(self.n_steps())
    }

    /// When the last of its values became known, corrections included; `None` where no source said when.
    pub fn known_since(&self) -> Option<DateTime<Utc>> {
        self.revisions.iter().map(|revision| revision.available_at).max()
    }

    /// Start of the interval of a row; rows may be beyond the last one.
    pub fn valid_time(&self, row: usize) -> DateTime<Utc> {
        let row = i64::try_from(row).unwrap_or(i64::MAX);
        self.config.frequency.start(self.first.saturating_add(row), self.config.time_zone)
    }

    /// The row of step 1 of a forecast issued at `issue_time`: the first interval that starts at or
    /// after it. Negative before the panel's start.
    pub fn issue_row(&self, issue_time: DateTime<Utc>) -> i64 {
        let Self { config: PanelConfig { frequency, time_zone, .. }, first, .. } = self;
        frequency.ordinal(frequency.ceil(issue_time, *time_zone), *time_zone) - first
    }

    /// Calendar features of a range of rows, which may go beyond the last one.
    ///
    /// Pairs of sine and cosine of the local wall time's place in the day, the week and the year, as
    /// far as the frequency distinguishes them; none for years. Then, of steps within a day, whether that day, the one before and the
    /// one after are holidays.
    ///
    /// # Shapes
    /// - output: `[rows.len(), feature]`
    ///
    /// # Errors
    /// [`Error::Forecast`] when the features do not make whole rows, which would be our mistake.
    pub fn calendar(&self, rows: Range<usize>) -> Result<Calendar, Error> {
        let PanelConfig { frequency, time_zone, holidays, .. } = self.config;
        let n_features = calendar::n_features(frequency, holidays);
        let mut features = Vec::with_capacity(n_features * rows.len());
        for row in rows {
            calendar::push_features(frequency, self.valid_time(row), time_zone, holidays, &mut features);
        }
        Ok(Calendar::new(n_features, features)?)
    }

    /// Rows up to the last one in which there is more than the supplied future of known covariates.
    pub fn n_history_steps(&self) -> usize {
        let is_observed = |&row: &usize| {
            let values = self.values.row(row).iter().enumerate();
            values.into_iter().any(|(series, value)| !value.is_nan() && !self.config.is_known(series))
        };
        (0..self.n_steps()).rev().find(is_observed).map_or(self.n_steps(), |last| last + 1)
    }

    /// Rows of the [history](Panel::history) before so many windows of a test at its end.
    pub fn n_rows_before(&self, n_windows: usize, horizon: usize) -> usize {
        self.n_history_steps().saturating_sub(n_windows.saturating_mul(horizon))
    }

    /// All that a model may learn from: the latest values of all rows, up to the last one in which there is more than the
    /// supplied future of known covariates.
    ///
    /// # Errors
    /// As [`Panel::calendar`].
    pub fn history(&self) -> Result<History, Error> {
        let rows = 0..self.n_history_steps();
        Ok(History {
            values: self.values.rows(rows.clone()),
            calendar: self.calendar(rows)?,
            seasons: self.config.frequency.seasons(),
            bounds: self.config.bounds.clone(),
            roles: self.config.roles.clone(),
        })
    }

    /// What a forecast issued at `issue_time` may see: values with `available_at <= issue_time`, the
    /// rest NaN, and the calendar of context and horizon.
    ///
    /// Of known covariates it sees the future, too, as far as it was known at `issue_time`. A value of theirs whose source does
    /// not say when it became known counts as known in advance.
    ///
    /// The context ends with the last interval that starts before `issue_time`, whether or not
    /// anything is observed there. It has fewer than `context_length` rows near the panel's start.
    ///
    /// # Errors
    /// [`Error::IssueTimeTooEarly`] when no interval starts before `issue_time`.
    pub fn window(&self, issue_time: DateTime<Utc>, context_length: usize, horizon: usize) -> Result<Window, Error> {
        let issue_row = usize::try_from(self.issue_row(issue_time)).unwrap_or(0);
        if issue_row == 0 {
            return Err(Error::IssueTimeTooEarly { panel: self.config.name.clone(), start: self.start(), issue_time });
        }
        let rows = issue_row.saturating_sub(context_length)..issue_row;
        let future =
            self.config.roles.contains(&Role::Known).then(|| self.known_future(issue_time, issue_row, horizon));
        Ok(Window {
            context: self.known_at(issue_time, rows.clone())?,
            calendar: self.calendar(rows.start..rows.end.saturating_add(horizon))?,
            horizon,
            bounds: self.config.bounds.clone(),
            future: future.transpose()?,
        })
    }

    /// Values `[horizon, series]` of known covariates from a row on, as known at `issue_time`; NaN for all other series.
    fn known_future(&self, issue_time: DateTime<Utc>, row: usize, horizon: usize) -> Result<Grid, Error> {
        let rows = self.known_at(issue_time, row..row.saturating_add(horizon))?;
        let n_series = self.series.len();
        let known = |(index, &value): (usize, &f64)| {
            if self.config.is_known(index % n_series) { value } else { f64::NAN }
        };
        Ok(Grid::new(n_series, rows.values().iter().enumerate().map(known).collect())?)
    }

    /// The panel cut to a range of rows, for backtests. Rows beyond the last one are left out.
    ///
    /// # Panics
    /// When the range ends before it starts.
    pub fn rows(&self, rows: Range<usize>) -> Panel {
        let rows = rows.start.min(self.n_steps())..rows.end.min(self.n_steps());
        let revisions = self.revisions_of(&rows).iter();
        Panel {
            config: self.config.clone(),
            series: self.series.clone(),
            first: self.first.saturating_add(i64::try_from(rows.start).unwrap_or(i64::MAX)),
            revisions: revisions.map(|revision| Revision { step: revision.step - rows.start, ..*revision }).collect(),
            values: self.values.rows(rows),
        }
    }

    /// Values `[rows, series]` as known at `issue_time`. Rows may be beyond the last one.
    fn known_at(&self, issue_time: DateTime<Utc>, rows: Range<usize>) -> Result<Grid, Error> {
        let n_series = self.series.len();
        let mut values = vec![f64::NAN; rows.len() * n_series];
        let mut sd = vec![0.0; if self.values.is_exact() { 0 } else { values.len() }];
        for (index, row) in rows.clone().enumerate() {
            let end_of_interval = self.valid_time(row + 1);
            if row >= self.n_steps() {
                break;
            }
            let is_past = assumed_available_at(&self.config, end_of_interval) <= issue_time;
            for series in (0..n_series).filter(|&series| is_past || self.config.is_known(series)) {
                values[index * n_series + series] = self.values.get(row, series);
                if let Some(sd) = sd.get_mut(index * n_series + series) {
                    *sd = self.values.sd(row, series);
                }
            }
        }
        let revisions = self.revisions_of(&rows);
        for cell in revisions.chunk_by(|a, b| (a.step, a.series) == (b.step, b.series)) {
            let known = cell.iter().take_while(|revision| revision.available_at <= issue_time).last();
            let index = (cell[0].step - rows.start) * n_series + cell[0].series;
            values[index] = known.map_or(f64::NAN, |revision| revision.value);
            if let Some(sd) = sd.get_mut(index) {
                *sd = known.map_or(0.0, |revision| revision.sd);
            }
        }
        grid(n_series, values, sd)
    }

    fn revisions_of(&self, rows: &Range<usize>) -> &[Revision] {
        let first = self.revisions.partition_point(|revision| revision.step < rows.start);
        let last = self.revisions.partition_point(|revision| revision.step < rows.end);
        &self.revisions[first..last]
    }
}

/// When a value becomes known whose source does not say.
fn assumed_available_at(config: &PanelConfig, end_of_interval: DateTime<Utc>) -> DateTime<Utc> {
    end_of_interval.checked_add_signed(config.publication_delay).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Checks an observation and finds the number of its interval.
fn place(config: &PanelConfig, n_series: usize, observation: &Observation) -> Result<i64, Error> {
    let PanelConfig { name, frequency, time_zone, .. } = config;
    let &Observation { series, valid_time, value, .. } = observation;
    if series >= n_series {
        return Err(Error::UnknownSeries { panel: name.clone(), series, n_series });
    }
    if !is_value(value) {
        return Err(Error::ObservationNotFinite { panel: name.clone(), series, valid_time });
    }
    frequency.place(valid_time, calendar::Label::Start, *time_zone).ok_or_else(|| Error::ObservationOffGrid {
        panel: name.clone(),
        valid_time,
        frequency: *frequency,
    })
}

/// A grid of values with the errors of their measurements; without any, all are exact.
fn grid(n_series: usize, values: Vec<f64>, sd: Vec<f64>) -> Result<Grid, Error> {
    let values = Grid::new(n_series, values)?;
    Ok(if sd.is_empty() { values } else { values.with_sd(sd)? })
}

/// The latest values, and the versions of the cells that have a recorded `available_at`.
fn lay_out(
    config: &PanelConfig,
    first: i64,
    n_series: usize,
    n_cells: usize,
    placed: &[(i64, Observation)],
) -> Result<(Grid, Vec<Revision>), Error> {
    let mut values = vec![f64::NAN; n_cells];
    // Most sources state no errors: then there is no second grid.
    let is_exact = placed.iter().all(|(_, observation)| observation.sd.is_none());
    let mut sds = vec![0.0; if is_exact { 0 } else { n_cells }];
    let mut revisions = Vec::new();
    for &(ordinal, Observation { series, available_at, value, sd, .. }) in placed {
        let step = ordinal.abs_diff(first) as usize;
        let index = step * n_series + series;
        let sd = sd.unwrap_or(0.0);
        match available_at {
            Some(available_at) => revisions.push(Revision { step, series, available_at, value, sd }),
            None => {
                values[index] = value;
                sds.get_mut(index).into_iter().for_each(|cell| *cell = sd);
            }
        }
    }
    let order = |revision: &Revision| (revision.step, revision.series, revision.available_at);

    // A value without a record that was corrected later is the first version of its cell.
    revisions.sort_by_key(order);
    let mut corrected = Vec::new();
    for cell in revisions.chunk_by(|a, b| (a.step, a.series) == (b.step, b.series)) {
        let Revision { step, series, .. } = cell[0];
        let index = step * n_series + series;
        let (value, sd) = (values[index], sds.get(index).copied().unwrap_or(0.0));
        if !value.is_nan() {
            let end_of_interval = config.frequency.start(first + step as i64 + 1, config.time_zone);
            let available_at = match config.is_known(series) {
                true => DateTime::<Utc>::MIN_UTC,
                false => assumed_available_at(config, end_of_interval),
            };
            corrected.push(Revision { step, series, available_at, value, sd });
        }
    }
    revisions.extend(corrected);
    revisions.sort_by_key(order);
    for revision in &revisions {
        let index = revision.step * n_series + revision.series;
        values[index] = revision.value;
        sds.get_mut(index).into_iter().for_each(|cell| *cell = revision.sd);
    }
    Ok((grid(n_series, values, sds)?, revisions))
}

#[cfg(test)]
mod tests;
