//! The time column: one format, one zone, instants or reasons.

use std::path::Path;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use polars::prelude::*;

use crate::{
    Error, Reason, TimeFormat,
    stamp::{self, Stamp},
};

/// The times of a column, row by row.
pub(crate) struct Times {
    pub format: TimeFormat,
    pub rows: Vec<Time>,
}

/// The time of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Time {
    /// Nothing is written.
    Empty,
    /// The instant meant.
    At(DateTime<Utc>),
    /// Not usable.
    Bad(Reason),
}

impl Time {
    /// The instant, when there is one.
    pub(crate) fn instant(&self) -> Option<DateTime<Utc>> {
        match *self {
            Time::At(t) => Some(t),
            Time::Empty | Time::Bad(_) => None,
        }
    }
}

/// Whether any of the values is a time in a format that we know, refused ones but bare numbers included.
pub(crate) fn looks_like_time(column: &Column) -> Result<bool, Error> {
    Ok(match column.dtype() {
        DataType::String => {
            let known = |text: &str| stamp::parse(text).is_some_and(|(format, _)| format != TimeFormat::Number);
            column.str()?.iter().flatten().any(known)
        }
        DataType::Datetime(..) | DataType::Date => true,
        _ => false,
    })
}

/// Reads the time column, with wall times in `tz`.
///
/// # Errors
/// [`Error::MixedTimeFormats`], [`Error::UnsupportedTimeFormat`], [`Error::ColumnType`].
pub(crate) fn read(path: &Path, column: &Column, tz: Tz, line: impl Fn(usize) -> u64) -> Result<Times, Error> {
    match column.dtype() {
        DataType::String => read_text(path, column, tz, line),
        DataType::Date => {
            const UNIX_EPOCH_DAYS: i32 = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date").to_epoch_days();
            let days = column.date()?.physical().iter();
            let stamp = |day: i32| NaiveDate::from_epoch_days(day + UNIX_EPOCH_DAYS).map(Stamp::Date);
            let rows = days.map(|day| day.map_or(Time::Empty, |day| resolve(stamp(day), tz))).collect();
            Ok(Times { format: TimeFormat::Date, rows })
        }
        DataType::Datetime(unit, zone) => {
            let instant = |value: i64| match unit {
                TimeUnit::Milliseconds => DateTime::from_timestamp_millis(value),
                TimeUnit::Microseconds => DateTime::from_timestamp_micros(value),
                TimeUnit::Nanoseconds => Some(DateTime::from_timestamp_nanos(value)),
            };
            let is_local = zone.is_none();
            let stamp = |t: DateTime<Utc>| if is_local { Stamp::Local(t.naive_utc()) } else { Stamp::Instant(t) };
            let values = column.datetime()?.physical().iter();
            let rows =
                values.map(|value| value.map_or(Time::Empty, |value| resolve(instant(value).map(stamp), tz))).collect();
            Ok(Times { format: if is_local { TimeFormat::Local } else { TimeFormat::Offset }, rows })
        }
        dtype => Err(Error::ColumnType {
            path: path.to_owned(),
            column: column.name().to_string(),
            dtype: dtype.to_string(),
            expected: "times or text",
        }),
    }
}

fn resolve(stamp: Option<Stamp>, tz: Tz) -> Time {
    match stamp.ok_or(Reason::UnparsableTime).and_then(|stamp| stamp.resolve(tz)) {
        Ok(t) => Time::At(t),
        Err(reason) => Time::Bad(reason),
    }
}

fn read_text(path: &Path, column: &Column, tz: Tz, line: impl Fn(usize) -> u64) -> Result<Times, Error> {
    let mut first: Option<(usize, TimeFormat, &str)> = None;
    let mut rows = Vec::with_capacity(column.len());
    let mut known = Known::default();
    for (row, text) in column.str()?.iter().enumerate() {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            rows.push(Time::Empty);
            continue;
        };
        if let Some(time) = known.get(text) {
            rows.push(time);
            continue;
        }
        let Some((format, stamp)) = stamp::parse(text) else {
            rows.push(Time::Bad(Reason::UnparsableTime));
            continue;
        };
        let (first_row, first_format, first_text) = *first.get_or_insert((row, format, text));
        if format != first_format {
            return Err(Error::MixedTimeFormats {
                path: path.to_owned(),
                column: column.name().to_string(),
                first_line: line(first_row),
                first_format,
                first_value: first_text.to_owned(),
                line: line(row),
                format,
                value: text.to_owned(),
            });
        }
        let time = resolve(stamp, tz);
        known.insert(text, time);
        rows.push(time);
    }
    match first {
        Some((row, format @ (TimeFormat::Slashed | TimeFormat::Number), text)) => Err(Error::UnsupportedTimeFormat {
            path: path.to_owned(),
            column: column.name().to_string(),
            line: line(row),
            value: text.to_owned(),
            format,
        }),
        Some((_, format, _)) => Ok(Times { format, rows }),
        None => Ok(Times { format: TimeFormat::Local, rows }),
    }
}

/// Times that were read before: in a long file, each is written once per series.
#[derive(Default)]
struct Known<'a> {
    times: PlHashMap<&'a str, Time>,
    n_found: usize,
    is_given_up: bool,
}

impl<'a> Known<'a> {
    /// Texts that are remembered: hours of seven years.
    const N_MAX: usize = 1 << 16;

    fn get(&mut self, text: &str) -> Option<Time> {
        if self.is_given_up {
            return None;
        }
        let time = self.times.get(text).copied();
        self.n_found += usize::from(time.is_some());
        time
    }

    fn insert(&mut self, text: &'a str, time: Time) {
        if self.times.len() < Self::N_MAX && !self.is_given_up {
            self.times.insert(text, time);
        } else if self.n_found < Self::N_MAX {
            // Nearly all are new: to look for them costs more than it saves.
            self.is_given_up = true;
        }
    }
}
