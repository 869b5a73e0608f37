//! The grid that the times of a source lie on.

use chrono::{DateTime, Utc, Weekday};
use chrono_tz::Tz;
use polars::prelude::PlHashSet;
use rayon::prelude::*;

use super::{LoadConfig, Part};
use crate::{
    Error, Frequency,
    calendar::{Label, best_label},
    observations::Observations,
    report::Rejections,
    times::{NO_TIME, instant},
};

/// A grid, and which end of their intervals the times of a source name.
pub(super) struct TimeGrid {
    pub frequency: Frequency,
    pub label: Label,
}

/// Replaces every time by the start of its interval, and rejects those that are on none. `None` when there are no times and
/// no declared grid.
pub(super) fn snap(
    observations: &mut Observations,
    parts: &[Part<'_>],
    config: &LoadConfig,
    rejections: &mut Rejections,
) -> Result<Option<TimeGrid>, Error> {
    let tz = config.time_zone;
    // The steps of most grids have one length, and nearly all sources lie on theirs: that was seen as they were read.
    if let Some(frequency) = config.frequency.filter(|frequency| frequency.fixed(tz).is_some())
        && observations.n_off_grid() == 0
    {
        return Ok(Some(TimeGrid { frequency, label: Label::Start }));
    }
    let micros = distinct_times(observations);
    if micros.is_empty() {
        return Ok(config.frequency.map(|frequency| TimeGrid { frequency, label: Label::Start }));
    }
    let stamps: Vec<DateTime<Utc>> = micros.iter().copied().map(instant).collect();
    let frequency = config.frequency.map_or_else(|| Frequency::infer(&stamps, tz), Ok)?;
    let frequency = weeks_as_found(frequency, &stamps, tz);
    let (label, n_on_grid) = best_label(frequency, stamps.iter().copied(), tz);
    if label == Label::Start && n_on_grid == stamps.len() {
        return Ok(Some(TimeGrid { frequency, label }));
    }
    let start = |(t, micros): (&DateTime<Utc>, &i64)| match frequency.place(*t, label, tz) {
        Some(_) if label == Label::Start => *micros,
        Some(ordinal) => frequency.start(ordinal, tz).timestamp_micros(),
        None => NO_TIME,
    };
    let starts: Vec<i64> = stamps.iter().zip(&micros).map(start).collect();
    let place = |micros_read: i64| {
        // Every time that was read is among them.
        micros.binary_search(&micros_read).ok().map(|index| starts[index]).filter(|start| *start != NO_TIME)
    };
    let is_mostly_off_grid = 2 * n_on_grid < stamps.len() && !config.may_be_empty;
    if is_mostly_off_grid {
        return Err(off_grid(observations, parts, frequency, tz, &place));
    }
    let time_columns: Vec<usize> = parts.iter().map(|part| part.time_column).collect();
    observations.place(&time_columns, rejections, place);
    Ok(Some(TimeGrid { frequency, label }))
}

/// Names the first row that is off the grid, and counts them.
fn off_grid(
    observations: &Observations,
    parts: &[Part<'_>],
    frequency: Frequency,
    tz: Tz,
    place: &(impl Fn(i64) -> Option<i64> + Sync),
) -> Error {
    let of_block = |(part, times): (usize, Vec<(usize, i64)>)| {
        let off: Vec<_> = times.iter().filter(|(_, time)| place(*time).is_none()).collect();
        let first = off.iter().map(|(row, time)| (*row, *time, part)).min();
        (times.len(), off.len(), first)
    };
    let nothing = || (0, 0, None);
    let (n_rows, n_off_grid, first) = observations.times().map(of_block).reduce(nothing, |a, b| {
        let first = [a.2, b.2].into_iter().flatten().min();
        (a.0 + b.0, a.1 + b.1, first)
    });
    // Some times are off the grid, so one of them is the first.
    let (row, micros, part) = first.unwrap_or_default();
    let (path, line) = (parts[part].path.clone(), parts[part].line(row));
    Error::OffGrid { path, frequency, time_zone: tz, n_off_grid, n_rows, line, value: instant(micros) }
}

/// The times of all rows, sorted, each once.
fn distinct_times(observations: &Observations) -> Vec<i64> {
    let of_block = |(_, times): (usize, Vec<(usize, i64)>)| {
        let mut distinct: Vec<i64> = if times.is_sorted_by_key(|(_, time)| *time) {
            times.into_iter().map(|(_, time)| time).collect()
        } else {
            // A long file has each time once per series: far fewer than rows.
            times.into_iter().map(|(_, time)| time).collect::<PlHashSet<i64>>().into_iter().collect()
        };
        distinct.sort_unstable();
        distinct.dedup();
        distinct
    };
    let merged = |mut a: Vec<i64>, b: Vec<i64>| {
        if b.iter().any(|time| a.binary_search(time).is_err()) {
            a.extend(b);
            // Two sorted runs: the stable sort merges them.
            a.sort();
            a.dedup();
        }
        a
    };
    observations.times().map(of_block).reduce(Vec::new, merged)
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
