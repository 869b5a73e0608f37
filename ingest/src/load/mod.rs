//! From sources to a validated frame, with a report of what was not taken.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc, Weekday};
use chrono_tz::Tz;
use forecast::Bounds;
use polars::prelude::{Column, DataFrame, PlHashSet};

use crate::{
    Checks, Error, Format, Frame, Frequency, Input, Layout, Limits, NumberFormat, Quarantine, Reason, Report, Resample,
    calendar::{Label, best_label},
    layout::{self, Roles},
    observations::{Duplicates, Observations},
    quality, quarantine,
    report::{Place, Rejections},
    resample::resample,
    source::{self, Table},
    times::{self, Time, Times},
};

/// How to read a source. The default finds out what it can and reports it.
#[derive(Clone, Debug, Default)]
pub struct LoadConfig {
    /// What the source is; recognised from its first bytes by default.
    pub format: Option<Format>,
    /// What stands between the fields of separated text; a comma by default.
    pub separator: Option<u8>,
    /// How it is laid out; found from the names of its columns by default.
    pub layout: Option<Layout>,
    /// The time column; by default the first one, or one with a usual name.
    pub time_column: Option<String>,
    /// Zone in which wall times are read and whose calendar the grid follows. Default UTC.
    pub time_zone: Tz,
    /// The grid; inferred by default. Weeks from Monday stand for weeks from the day that the file has.
    pub frequency: Option<Frequency>,
    /// How numbers are written.
    pub numbers: NumberFormat,
    /// What to do when a series has several values for one time.
    pub duplicates: Duplicates,
    /// How irregular times are brought on the grid; off it, they are rejected by default.
    pub resample: Option<Resample>,
    /// Declared ranges of series by name; `*` is for those not named. A value outside is taken, and noticed.
    pub bounds: BTreeMap<String, Bounds>,
    /// Whether a value outside the declared range is rejected.
    pub reject_out_of_bounds: bool,
    /// When something is noticed that may be wrong.
    pub checks: Checks,
    /// Whether a source of a declared frequency may be without any valid value.
    pub may_be_empty: bool,
    /// What each input may hold at most.
    pub limits: Limits,
}

impl LoadConfig {
    /// The separator of fields.
    const SEPARATOR: u8 = b',';

    fn bounds(&self, series: &str) -> Option<Bounds> {
        self.bounds.get(series).or_else(|| self.bounds.get("*")).copied()
    }
}

/// What came out of a source.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The observations.
    pub frame: Frame,
    /// Their grid.
    pub frequency: Frequency,
    /// Whether the frequency was inferred rather than declared.
    pub frequency_inferred: bool,
    /// The zone whose calendar the grid follows.
    pub time_zone: Tz,
    /// What was taken and what was not.
    pub report: Report,
    /// The rows that hold something that was not taken.
    pub quarantine: Quarantine,
    /// Names and types of the columns of each input, in their order.
    pub schemas: Vec<Vec<(String, String)>>,
}

/// An input that has been read, its columns found and its times parsed.
pub(crate) struct Part {
    pub name: String,
    pub path: PathBuf,
    pub table: Table,
    pub roles: Roles,
    pub times: Times,
    /// Number of its first row among those of all parts.
    pub first_row: usize,
    n_blank: usize,
}

impl Part {
    fn read(input: &Input, first_row: usize, config: &LoadConfig) -> Result<Self, Error> {
        let path = input.path();
        let separator = config.separator.unwrap_or(LoadConfig::SEPARATOR);
        let table = source::read(input, config.format, separator, config.may_be_empty, &config.limits)?;
        let line = |row: usize| table.first_line + row as u64;
        let n_rows = table.data.height();
        if n_rows == table.malformed.len() {
            // Nothing to find columns by.
            let times = Times { format: crate::TimeFormat::Local, rows: vec![Time::Empty; n_rows] };
            let roles = Roles::Wide { time: 0, values: Vec::new() };
            return Ok(Self { name: input.name.clone(), path, table, roles, times, first_row, n_blank: 0 });
        }
        let roles = layout::roles(&path, &table.data, config.layout.as_ref(), config.time_column.as_deref(), line)?;
        let mut times = times::read(&path, &table.data.columns()[roles.time()], config.time_zone, line)?;
        let n_blank = reject_empty_times(&table, &mut times);
        Ok(Self { name: input.name.clone(), path, table, roles, times, first_row, n_blank })
    }

    pub(crate) fn line(&self, row: usize) -> u64 {
        self.table.first_line + row as u64
    }

    /// Where a cell of this part stands.
    pub(crate) fn place<'a>(&'a self, row: usize, column_index: usize, series: Option<&'a str>) -> Place<'a> {
        Place {
            row: self.first_row + row,
            file: &self.name,
            line: self.line(row),
            element: self.table.pointer.map(|prefix| (prefix, row)),
            column_index,
            column: self.table.data.columns().get(column_index).map_or("", |column| column.name().as_str()),
            series,
        }
    }

    fn reject_rows(&self, rejections: &mut Rejections) {
        for (row, text) in &self.table.malformed {
            let place = Place { column: "", ..self.place(*row, 0, None) };
            rejections.push(Reason::MalformedLine, true, place, text);
        }
        let time_column = self.roles.time();
        for (row, time) in self.times.rows.iter().enumerate() {
            if let Time::Bad(reason) = *time {
                let value = text(&self.table.data.columns()[time_column], row);
                rejections.push(reason, true, self.place(row, time_column, None), &value);
            }
        }
    }

    fn schema(&self) -> Vec<(String, String)> {
        let columns = self.table.data.columns().iter();
        columns.map(|column| (column.name().to_string(), column.dtype().to_string())).collect()
    }
}

/// Loads a file. Rows that are wrong one by one are rejected and reported with their line; gaps,
/// which are empty cells, are neither rows nor errors; rows may come in any order.
///
/// A quoted field must not hold a line break: lines are counted by rows.
///
/// # Errors
/// Those of [`read`].
pub fn load(path: &Path, config: &LoadConfig) -> Result<Loaded, Error> {
    read(&[Input::file(path)], config)
}

/// Reads several inputs as one source. Their order makes no difference, unless a declared policy says so.
///
/// # Errors
/// When an input as a whole cannot be used: see the variants of [`Error`] that carry a path, and
/// [`Error::FrequencyNotClear`].
pub fn read(inputs: &[Input], config: &LoadConfig) -> Result<Loaded, Error> {
    let tz = config.time_zone;
    let mut parts: Vec<Part> = Vec::with_capacity(inputs.len());
    let (mut n_rows, mut n_cells) = (0, 0);
    for input in inputs {
        let part = Part::read(input, n_rows, config)?;
        n_rows += part.table.data.height();
        n_cells += part.table.data.height() * part.table.data.width();
        if n_rows > config.limits.n_rows_max {
            return Err(Error::TooManyRows { path: part.path, limit: config.limits.n_rows_max });
        }
        if n_cells > config.limits.n_cells_max {
            return Err(Error::TooManyCells { path: part.path, limit: config.limits.n_cells_max });
        }
        parts.push(part);
    }
    let schemas = parts.iter().map(Part::schema).collect();
    let name = parts.first().map_or_else(String::new, |part| part.name.clone());
    let path = parts.first().map_or_else(PathBuf::new, |part| part.path.clone());
    let n_files = parts.len();
    let time_format = parts.first().map_or(crate::TimeFormat::Local, |part| part.times.format);
    let n_blank: usize = parts.iter().map(|part| part.n_blank).sum();
    let rows_read = (n_rows - n_blank) as u64;

    let mut rejections = Rejections::default();
    let grid = match config.resample {
        Some(_) => {
            let frequency = config.frequency.ok_or(Error::ResampleNeedsFrequency)?;
            Some(TimeGrid { frequency, label: Label::Start })
        }
        None => snap_to_grid(&mut parts, config)?,
    };
    let mut observations = Observations::default();
    for part in &mut parts {
        part.reject_rows(&mut rejections);
        observations.add(part, tz, &config.numbers, &mut rejections)?;
        // They stand in the observations now.
        part.times.rows = Vec::new();
    }
    if config.reject_out_of_bounds {
        observations.keep_within(|series| config.bounds(series), &parts, &mut rejections);
    }
    let (n_gaps, n_unordered) = (observations.n_gaps, observations.n_unordered);
    let (series, mut rows) = observations.into_rows(config.duplicates, &parts, &mut rejections);
    let mut n_combined = 0;
    if let (Some(rule), Some(grid)) = (config.resample, &grid) {
        let n_given = rows.len();
        rows = resample(&rows, rule, grid.frequency, tz)?;
        n_combined = (n_given - rows.len()) as u64;
    }
    let lost = rejections.lost_rows();
    let quarantine = quarantine::gather(&parts, &lost)?;
    drop(parts);
    let (n_rejected, rejected) = rejections.finish();
    let Some(grid) = grid.filter(|_| !rows.is_empty() || (config.may_be_empty && config.frequency.is_some())) else {
        return Err(Error::NoValidRows { path, n_rows: rows_read, rejected });
    };

    let frequency = grid.frequency;
    let noticed = quality::inspect(&series, &rows, frequency, tz, &config.checks, |series| config.bounds(series));
    let report = Report {
        file: name,
        n_files,
        time_format,
        time_zone: tz.name().to_owned(),
        frequency: frequency.to_string(),
        frequency_inferred: config.frequency.is_none(),
        last_days_moved: grid.label == Label::LastDay,
        n_series: series.len(),
        rows_read,
        accepted: rows.len() as u64,
        n_gaps,
        n_unordered,
        n_combined,
        n_rejected,
        rejected,
        noticed,
    };
    let frequency_inferred = config.frequency.is_none();
    let frame = Frame::new(series, &rows)?;
    Ok(Loaded { frame, frequency, frequency_inferred, time_zone: tz, report, quarantine, schemas })
}

/// What stands in a cell; nothing when it is empty.
pub(crate) fn text(column: &Column, row: usize) -> String {
    let value = column.get(row).ok().filter(|value| !value.is_null());
    value.map(|value| value.str_value().into_owned()).unwrap_or_default()
}

/// A row without a time is rejected, unless it holds nothing at all. Returns how many are blank.
fn reject_empty_times(table: &Table, times: &mut Times) -> usize {
    let is_blank =
        |data: &DataFrame, row| data.columns().iter().all(|column| column.get(row).is_ok_and(|v| v.is_null()));
    let mut n_blank = 0;
    for (row, time) in times.rows.iter_mut().enumerate().filter(|(_, time)| **time == Time::Empty) {
        if !is_blank(&table.data, row) {
            *time = Time::Bad(Reason::UnparsableTime);
        } else if table.malformed.binary_search_by_key(&row, |(row, _)| *row).is_err() {
            n_blank += 1;
        }
    }
    n_blank
}

/// The grid that a source's times lie on.
struct TimeGrid {
    frequency: Frequency,
    label: Label,
}

/// Replaces every time by the start of its interval. `None` when there are no times and no declared grid.
fn snap_to_grid(parts: &mut [Part], config: &LoadConfig) -> Result<Option<TimeGrid>, Error> {
    let tz = config.time_zone;
    let stamps = distinct_stamps(parts);
    if stamps.is_empty() {
        return Ok(config.frequency.map(|frequency| TimeGrid { frequency, label: Label::Start }));
    }
    let frequency = config.frequency.map_or_else(|| Frequency::infer(&stamps, tz), Ok)?;
    let frequency = weeks_as_found(frequency, &stamps, tz);
    let (label, n_on_grid) = best_label(frequency, stamps.iter().copied(), tz);
    let is_mostly_off_grid = 2 * n_on_grid < stamps.len() && !config.may_be_empty;

    let place = |&t: &DateTime<Utc>| {
        frequency.place(t, label, tz).map_or(Time::Bad(Reason::OffGrid), |ordinal| {
            Time::At(if label == Label::Start { t } else { frequency.start(ordinal, tz) })
        })
    };
    let placed: Vec<Time> = stamps.iter().map(place).collect();
    let mut cursor = Cursor { stamps: &stamps, index: 0 };
    let (mut n_rows, mut n_off_grid) = (0, 0);
    let mut first_off_grid = None;
    for (index, part) in parts.iter_mut().enumerate() {
        for (row, time) in part.times.rows.iter_mut().enumerate() {
            let Time::At(t) = *time else { continue };
            *time = placed[cursor.find(t)];
            n_rows += 1;
            if matches!(time, Time::Bad(_)) {
                n_off_grid += 1;
                first_off_grid.get_or_insert((index, row, t));
            }
        }
    }
    match first_off_grid {
        Some((index, row, value)) if is_mostly_off_grid => Err(Error::OffGrid {
            path: parts[index].path.clone(),
            frequency,
            time_zone: tz,
            n_off_grid,
            n_rows,
            line: parts[index].line(row),
            value,
        }),
        _ => Ok(Some(TimeGrid { frequency, label })),
    }
}

/// The times of all rows, sorted, each once.
fn distinct_stamps(parts: &[Part]) -> Vec<DateTime<Utc>> {
    let stamps = || parts.iter().flat_map(|part| part.times.rows.iter().filter_map(Time::instant));
    if stamps().is_sorted() {
        let mut stamps: Vec<_> = stamps().collect();
        stamps.dedup();
        return stamps;
    }
    // A long file has each time once per series: far fewer than rows.
    let distinct: PlHashSet<DateTime<Utc>> = stamps().collect();
    let mut stamps: Vec<_> = distinct.into_iter().collect();
    stamps.sort_unstable();
    stamps
}

/// Where a time stands among sorted ones. That of the next row mostly stands at the same place or at the next one.
struct Cursor<'a> {
    stamps: &'a [DateTime<Utc>],
    index: usize,
}

impl Cursor<'_> {
    /// The place of a time that is among them.
    fn find(&mut self, t: DateTime<Utc>) -> usize {
        let next = self.index + 1;
        if self.stamps.get(next) == Some(&t) {
            self.index = next;
        } else if self.stamps[self.index] != t {
            self.index = self.stamps.partition_point(|stamp| *stamp < t);
        }
        self.index
    }
}

/// Weeks declared without a day are weeks from the day on which most stamps fall.
fn weeks_as_found(frequency: Frequency, stamps: &[DateTime<Utc>], tz: Tz) -> Frequency {
    if frequency != Frequency::WEEK {
        return frequency;
    }
    let n_on_grid = |start: &Weekday| best_label(Frequency::Week { start: *start }, stamps.iter().copied(), tz).1;
    let weekdays = [Weekday::Sun, Weekday::Sat, Weekday::Fri, Weekday::Thu, Weekday::Wed, Weekday::Tue, Weekday::Mon];
    // Of equal counts the last one is taken: Monday.
    weekdays.into_iter().max_by_key(n_on_grid).map_or(frequency, |start| Frequency::Week { start })
}

#[cfg(test)]
mod tests;
