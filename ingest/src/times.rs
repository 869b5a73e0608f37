//! The time column: one format, one zone, instants or reasons.

use std::path::Path;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use polars::prelude::*;

use crate::{
    Error, Reason, TimeFormat,
    stamp::{self, Stamp, Usual},
};

/// Stands in place of a time where there is none.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// The times of a column, row by row.
#[derive(Default)]
pub(crate) struct Times {
    /// Microseconds of UTC since 1970; [`NO_TIME`] where none is written, or none that can be used.
    pub micros: Vec<i64>,
    /// Rows that hold something that cannot be used, in order.
    pub bad: Vec<(usize, Reason)>,
    /// How times are written, if there are any.
    pub format: Option<TimeFormat>,
    /// The first time that is text.
    pub first: Option<Written>,
    /// The first one that is written in another format.
    pub other: Option<Written>,
}

/// A time as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub row: usize,
    pub format: TimeFormat,
    pub text: String,
}

/// What becomes of times that are finer than a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finer {
    /// They are on no grid.
    OffGrid,
    /// They are read to the microsecond.
    Cut,
}

/// The instant of a time.
pub(crate) fn instant(micros: i64) -> DateTime<Utc> {
    // What is read comes from a time that can be represented.
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MIN_UTC)
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

/// Reads a column of times, with wall times in `tz`.
///
/// # Errors
/// [`Error::ColumnType`].
pub(crate) fn read(path: &Path, column: &Column, tz: Tz, finer: Finer) -> Result<Times, Error> {
    let mut times = Times { micros: Vec::with_capacity(column.len()), ..Times::default() };
    let column = &column.rechunk();
    match column.dtype() {
        DataType::String => read_text(column.str()?, tz, finer, &mut times),
        DataType::Date => {
            const UNIX_EPOCH_DAYS: i32 = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date").to_epoch_days();
            times.format = Some(TimeFormat::Date);
            let stamp = |day: i32| NaiveDate::from_epoch_days(day + UNIX_EPOCH_DAYS).map(Stamp::Date);
            for day in column.date()?.physical().iter() {
                times.push(day.map(|day| resolve(stamp(day), tz, finer)));
            }
        }
        DataType::Datetime(unit, zone) => {
            let is_local = zone.is_none();
            times.format = Some(if is_local { TimeFormat::Local } else { TimeFormat::Offset });
            let values = column.datetime()?.physical();
            match values.cont_slice() {
                // As they are.
                Ok(micros) if (!is_local || tz == Tz::UTC) && *unit == TimeUnit::Microseconds && are_plain(micros) => {
                    times.micros.extend_from_slice(micros);
                }
                _ => {
                    let instant = |value: i64| match unit {
                        TimeUnit::Milliseconds => DateTime::from_timestamp_millis(value),
                        TimeUnit::Microseconds => DateTime::from_timestamp_micros(value),
                        TimeUnit::Nanoseconds => Some(DateTime::from_timestamp_nanos(value)),
                    };
                    let stamp =
                        |t: DateTime<Utc>| if is_local { Stamp::Local(t.naive_utc()) } else { Stamp::Instant(t) };
                    for value in values.iter() {
                        times.push(value.map(|value| resolve(instant(value).map(stamp), tz, finer)));
                    }
                }
            }
        }
        dtype => {
            return Err(Error::ColumnType {
                path: path.to_owned(),
                column: column.name().to_string(),
                dtype: dtype.to_string(),
                expected: "times or text",
            });
        }
    }
    Ok(times)
}

/// Whether all of them lie in years that can be represented.
fn are_plain(micros: &[i64]) -> bool {
    const RANGE: std::ops::RangeInclusive<i64> =
        DateTime::<Utc>::MIN_UTC.timestamp_micros()..=DateTime::<Utc>::MAX_UTC.timestamp_micros();
    micros.iter().fold(true, |all, micros| all & RANGE.contains(micros))
}

impl Times {
    /// Adds a row.
    fn push(&mut self, time: Option<Result<i64, Reason>>) {
        self.micros.push(match time {
            Some(Ok(micros)) => micros,
            Some(Err(reason)) => {
                self.bad.push((self.micros.len(), reason));
                NO_TIME
            }
            None => NO_TIME,
        });
    }
}

fn resolve(stamp: Option<Stamp>, tz: Tz, finer: Finer) -> Result<i64, Reason> {
    let t = stamp.ok_or(Reason::UnparsableTime)?.resolve(tz)?;
    match finer {
        Finer::OffGrid if t.timestamp_subsec_nanos() % 1_000 != 0 => Err(Reason::OffGrid),
        Finer::OffGrid | Finer::Cut => Ok(t.timestamp_micros()),
    }
}

fn read_text(texts: &StringChunked, tz: Tz, finer: Finer, times: &mut Times) {
    let mut usual = Usual::default();
    let mut known = Known::default();
    let mut known_locals = Known::default();
    for (row, text) in texts.iter().enumerate() {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            times.push(None);
            continue;
        };
        if let Some((format, seconds)) = usual.parse(text) {
            times.note(row, format, text);
            let wall_time = || DateTime::from_timestamp(seconds, 0).map(|t| Stamp::Local(t.naive_utc()));
            times.push(Some(match format {
                TimeFormat::Local if tz != Tz::UTC => known_locals.get(seconds, || resolve(wall_time(), tz, finer)),
                _ => Ok(seconds * 1_000_000),
            }));
            continue;
        }
        if text.trim().is_empty() {
            times.push(None);
            continue;
        }
        let mut format = None;
        let time = known.get(text, || {
            let Some((found, stamp)) = stamp::parse(text) else { return Err(Reason::UnparsableTime) };
            format = Some(found);
            resolve(stamp, tz, finer)
        });
        if let Some(format) = format {
            times.note(row, format, text);
        }
        times.push(Some(time));
    }
}

impl Times {
    /// Notes in which format a time is written.
    fn note(&mut self, row: usize, format: TimeFormat, text: &str) {
        match &self.first {
            Some(first) if first.format == format => {}
            None => {
                self.format = Some(format);
                self.first = Some(Written { row, format, text: text.to_owned() });
            }
            Some(_) if self.other.is_none() => self.other = Some(Written { row, format, text: text.to_owned() }),
            Some(_) => {}
        }
    }
}

/// What was read before: in a long file, each time is written once per series.
struct Known<K> {
    times: PlHashMap<K, Result<i64, Reason>>,
    n_found: usize,
    is_given_up: bool,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { times: PlHashMap::default(), n_found: 0, is_given_up: false }
    }
}

impl<K: Eq + std::hash::Hash> Known<K> {
    /// Times that are remembered: hours of seven years.
    const N_MAX: usize = 1 << 16;

    fn get(&mut self, key: K, read: impl FnOnce() -> Result<i64, Reason>) -> Result<i64, Reason> {
        if self.is_given_up {
            return read();
        }
        if let Some(time) = self.times.get(&key) {
            self.n_found += 1;
            return *time;
        }
        let time = read();
        if self.times.len() < Self::N_MAX {
            self.times.insert(key, time);
        } else if self.n_found < Self::N_MAX {
            // Nearly all are new: to look for them costs more than it saves.
            self.is_given_up = true;
        }
        time
    }
}
