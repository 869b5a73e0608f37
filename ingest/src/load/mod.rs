//! From a file to a validated frame, with a report of what was not taken.

use std::path::Path;

use chrono::{DateTime, Utc, Weekday};
use chrono_tz::Tz;
use polars::prelude::{Column, DataFrame};

use crate::{
    Error, Format, Frame, Frequency, Layout, Limits, Reason, Report,
    calendar::{Label, best_label},
    layout::{self, Roles},
    observations::{Duplicates, Observations},
    report::{Place, Rejections},
    source::Source,
    times::{self, Time, Times},
};

/// How to read a file. The default finds out what it can and reports it.
#[derive(Clone, Debug, Default)]
pub struct LoadConfig {
    /// What the file is; recognised from its first bytes by default.
    pub format: Option<Format>,
    /// How it is laid out; found from the names of its columns by default.
    pub layout: Option<Layout>,
    /// The time column; by default the first one, or one with a usual name.
    pub time_column: Option<String>,
    /// Zone in which wall times are read and whose calendar the grid follows. Default UTC.
    pub time_zone: Tz,
    /// The grid; inferred by default. Weeks from Monday stand for weeks from the day that the file has.
    pub frequency: Option<Frequency>,
    /// What to do when a series has several values for one time.
    pub duplicates: Duplicates,
    /// What the file may hold at most.
    pub limits: Limits,
}

/// What came out of a file.
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
}

/// Loads a file. Rows that are wrong one by one are rejected and reported with their line; gaps,
/// which are empty cells, are neither rows nor errors; rows may come in any order.
///
/// A quoted field must not hold a line break: lines are counted by rows.
///
/// # Errors
/// When the file as a whole cannot be used: see the variants of [`Error`] that carry a path, and
/// [`Error::FrequencyNotClear`].
pub fn load(path: &Path, config: &LoadConfig) -> Result<Loaded, Error> {
    let tz = config.time_zone;
    let source = Source::open(path, config.format, &config.limits)?;
    let table = source.collect()?;
    let line = |row| source.line(row);
    let roles = layout::roles(path, &table, config.layout.as_ref(), config.time_column.as_deref(), line)?;
    let time_column = &table.columns()[roles.time()];

    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut rejections = Rejections::new(file.clone());
    let mut times = times::read(path, time_column, tz, line)?;
    let n_blank = reject_empty_times(&table, &mut times);
    let rows_read = (table.height() - n_blank) as u64;
    let grid = match snap_to_grid(path, &mut times, config.frequency, tz, line) {
        Some(grid) => Some(grid?),
        None => None,
    };
    for (row, time) in times.rows.iter().enumerate() {
        if let Time::Bad(reason) = *time {
            let (column, column_index) = (time_column.name().as_str(), roles.time());
            let place = Place { line: line(row), column_index, column, series: None };
            rejections.push(reason, place, &text(time_column, row));
        }
    }

    let observations = match roles {
        Roles::Wide { ref values, .. } => Observations::from_wide(path, &table, &times, values, line, &mut rejections)?,
        Roles::Long { .. } => Observations::from_long(path, &table, &times, &roles, tz, line, &mut rejections)?,
    };
    let (n_gaps, n_unordered) = (observations.n_gaps, observations.n_unordered);
    let frame = observations.into_frame(config.duplicates, line, &mut rejections)?;
    let (n_rejected, rejected) = rejections.finish();
    let (Some(grid), true) = (grid, frame.n_rows() > 0) else {
        let first = rejected.into_iter().next().map(Box::new);
        return Err(Error::NoValidRows { path: path.to_owned(), n_rows: rows_read, first });
    };

    let report = Report {
        file,
        time_format: times.format,
        time_zone: tz.name().to_owned(),
        frequency: grid.frequency.to_string(),
        frequency_inferred: config.frequency.is_none(),
        last_days_moved: grid.label == Label::LastDay,
        n_series: frame.series().len(),
        rows_read,
        accepted: frame.n_rows() as u64,
        n_gaps,
        n_unordered,
        n_rejected,
        rejected,
    };
    let frequency_inferred = config.frequency.is_none();
    Ok(Loaded { frame, frequency: grid.frequency, frequency_inferred, time_zone: tz, report })
}

/// What stands in a cell; nothing when it is empty.
pub(crate) fn text(column: &Column, row: usize) -> String {
    let value = column.get(row).ok().filter(|value| !value.is_null());
    value.map(|value| value.str_value().into_owned()).unwrap_or_default()
}

/// A row without a time is rejected, unless it holds nothing at all. Returns how many are blank.
fn reject_empty_times(table: &DataFrame, times: &mut Times) -> usize {
    let mut n_blank = 0;
    for (row, time) in times.rows.iter_mut().enumerate().filter(|(_, time)| **time == Time::Empty) {
        let is_blank = table.columns().iter().all(|column| column.get(row).is_ok_and(|value| value.is_null()));
        if is_blank {
            n_blank += 1;
        } else {
            *time = Time::Bad(Reason::UnparsableTime);
        }
    }
    n_blank
}

/// The grid that a file's times lie on.
struct TimeGrid {
    frequency: Frequency,
    label: Label,
}

/// Replaces every time by the start of its interval. `None` when there are no times.
fn snap_to_grid(
    path: &Path,
    times: &mut Times,
    declared: Option<Frequency>,
    tz: Tz,
    line: impl Fn(usize) -> u64,
) -> Option<Result<TimeGrid, Error>> {
    let mut stamps: Vec<_> = times.rows.iter().filter_map(Time::instant).collect();
    stamps.sort_unstable();
    stamps.dedup();
    if stamps.is_empty() {
        return None;
    }
    let frequency = match declared.map_or_else(|| Frequency::infer(&stamps, tz), Ok) {
        Ok(frequency) => weeks_as_found(frequency, &stamps, tz),
        Err(error) => return Some(Err(error)),
    };
    let (label, n_on_grid) = best_label(frequency, stamps.iter().copied(), tz);
    let is_mostly_off_grid = 2 * n_on_grid < stamps.len();

    let n_rows = times.rows.iter().filter_map(Time::instant).count();
    let mut n_off_grid = 0;
    let mut first_off_grid = None;
    for (row, time) in times.rows.iter_mut().enumerate() {
        let Time::At(t) = *time else { continue };
        *time = frequency.place(t, label, tz).map_or(Time::Bad(Reason::OffGrid), |ordinal| {
            Time::At(if label == Label::Start { t } else { frequency.start(ordinal, tz) })
        });
        if matches!(time, Time::Bad(_)) {
            n_off_grid += 1;
            first_off_grid.get_or_insert((row, t));
        }
    }
    match first_off_grid {
        Some((row, value)) if is_mostly_off_grid => Some(Err(Error::OffGrid {
            path: path.to_owned(),
            frequency,
            time_zone: tz,
            n_off_grid,
            n_rows,
            line: line(row),
            value,
        })),
        _ => Some(Ok(TimeGrid { frequency, label })),
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
