//! Observations as a table gives them: unordered, perhaps repeated, each with the row it came from.

use std::{collections::HashMap, path::Path};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use polars::prelude::*;

use crate::{
    Error, Frame, Reason,
    frame::Row,
    layout::Roles,
    load::text,
    numbers::{self, Number},
    report::{Place, Rejections},
    times::{self, Time, Times},
};

/// What to do when a series has different values for one time. Equal values are always taken once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Take none of them, because none is known to be right.
    #[default]
    Reject,
    /// Take the one that stands first in the file.
    KeepFirst,
    /// Take the one that stands last in the file.
    KeepLast,
}

/// What was read from the value columns of a table.
pub(crate) struct Observations {
    series: Vec<String>,
    /// The column from which each series was read, by index and name.
    columns: Vec<(usize, String)>,
    found: Vec<Found>,
    pub n_gaps: u64,
    pub n_unordered: u64,
}

/// An observation and the row of the table that it stands in.
#[derive(Clone, Copy)]
struct Found {
    row: usize,
    observation: Row,
}

impl Observations {
    /// Reads a table with a column per series.
    pub(crate) fn from_wide(
        path: &Path,
        table: &DataFrame,
        times: &Times,
        values: &[usize],
        line: impl Fn(usize) -> u64,
        rejections: &mut Rejections,
    ) -> Result<Self, Error> {
        let mut found = Vec::with_capacity(table.height() * values.len());
        let mut n_gaps = 0;
        for (series, &column_index) in values.iter().enumerate() {
            let column = &table.columns()[column_index];
            let name = column.name().as_str();
            for (row, number) in numbers::read(path, column)?.into_iter().enumerate() {
                let Time::At(valid_time) = times.rows[row] else { continue };
                match number {
                    Number::Gap => n_gaps += 1,
                    Number::Value(value) => {
                        let observation = Row { series, valid_time, available_at: None, value, sd: None };
                        found.push(Found { row, observation });
                    }
                    Number::Bad(reason) => {
                        let place = Place { line: line(row), column_index, column: name, series: Some(name) };
                        rejections.push(reason, place, &text(column, row));
                    }
                }
            }
        }
        let in_file_order = times.rows.iter().filter_map(Time::instant);
        let n_unordered = in_file_order.clone().zip(in_file_order.skip(1)).filter(|(a, b)| b < a).count() as u64;
        let series: Vec<String> = values.iter().map(|&index| table.columns()[index].name().to_string()).collect();
        let columns = values.iter().copied().zip(series.iter().cloned()).collect();
        Ok(Self { series, columns, found, n_gaps, n_unordered })
    }

    /// Reads a table with a row per observation. Series are sorted by name.
    pub(crate) fn from_long(
        path: &Path,
        table: &DataFrame,
        times: &Times,
        roles: &Roles,
        tz: Tz,
        line: impl Fn(usize) -> u64 + Copy,
        rejections: &mut Rejections,
    ) -> Result<Self, Error> {
        let &Roles::Long { series, value, available_at, sd, .. } = roles else {
            unreachable!("the caller has matched the layout")
        };
        let columns = table.columns();
        let (names, series_of_row) = index_names(&columns[series])?;
        let numbers = numbers::read(path, &columns[value])?;
        let available_at_times = match available_at {
            Some(index) => Some(times::read(path, &columns[index], tz, line)?.rows),
            None => None,
        };
        let sd_numbers = match sd {
            Some(index) => Some(numbers::read(path, &columns[index])?),
            None => None,
        };

        let mut found = Vec::with_capacity(table.height());
        let (mut n_gaps, mut n_unordered) = (0, 0);
        let mut previous: Vec<Option<DateTime<Utc>>> = vec![None; names.len()];
        for (row, number) in numbers.into_iter().enumerate() {
            let Time::At(valid_time) = times.rows[row] else { continue };
            let mut reject = |reason, column_index: usize, series: Option<usize>| {
                let column = &columns[column_index];
                let series = series.map(|index| names[index].as_str());
                let place = Place { line: line(row), column_index, column: column.name(), series };
                rejections.push(reason, place, &text(column, row));
            };
            let Some(index) = series_of_row[row] else {
                reject(Reason::MissingSeries, series, None);
                continue;
            };
            n_unordered += u64::from(previous[index].is_some_and(|t| valid_time < t));
            previous[index] = Some(valid_time);

            let value = match number {
                Number::Value(value) => value,
                Number::Gap => {
                    n_gaps += 1;
                    continue;
                }
                Number::Bad(reason) => {
                    reject(reason, value, Some(index));
                    continue;
                }
            };
            let known = available_at.zip(available_at_times.as_ref().map(|times| times[row]));
            let available_at = match known {
                Some((_, Time::At(t))) => Some(t),
                Some((column, Time::Bad(reason))) => {
                    reject(reason, column, Some(index));
                    continue;
                }
                Some((_, Time::Empty)) | None => None,
            };
            let sd = match sd.zip(sd_numbers.as_ref().map(|numbers| numbers[row])) {
                Some((_, Number::Value(sd))) if sd >= 0.0 => Some(sd),
                Some((_, Number::Gap)) | None => None,
                Some((column, _)) => {
                    reject(Reason::InvalidSd, column, Some(index));
                    continue;
                }
            };
            let observation = Row { series: index, valid_time, available_at, value, sd };
            found.push(Found { row, observation });
        }
        let value_column = (value, columns[value].name().to_string());
        let columns = vec![value_column; names.len()];
        Ok(Self { series: names, columns, found, n_gaps, n_unordered })
    }

    /// Sorts, and takes each series and time once.
    pub(crate) fn into_frame(
        mut self,
        duplicates: Duplicates,
        line: impl Fn(usize) -> u64,
        rejections: &mut Rejections,
    ) -> Result<Frame, Error> {
        let order = |found: &Found| (found.observation.key(), found.row);
        if !self.found.is_sorted_by_key(order) {
            self.found.sort_unstable_by_key(order);
        }
        let mut reject = |reason, found: &Found| {
            let series = found.observation.series;
            let (column_index, column) = &self.columns[series];
            let place = Place {
                line: line(found.row),
                column_index: *column_index,
                column,
                series: Some(&self.series[series]),
            };
            rejections.push(reason, place, &found.observation.value.to_string());
        };
        let mut rows = Vec::with_capacity(self.found.len());
        for group in self.found.chunk_by(|a, b| a.observation.key() == b.observation.key()) {
            let [first, rest @ ..] = group else { continue };
            let last = rest.last().unwrap_or(first);
            let are_equal = rest.iter().all(|found| found.observation == first.observation);
            let kept = match duplicates {
                _ if are_equal => Some(first),
                Duplicates::KeepFirst => Some(first),
                Duplicates::KeepLast => Some(last),
                Duplicates::Reject => None,
            };
            for found in group.iter().filter(|found| kept.is_none_or(|kept| kept.row != found.row)) {
                reject(if are_equal { Reason::DuplicateEqual } else { Reason::DuplicateConflict }, found);
            }
            rows.extend(kept.map(|kept| kept.observation));
        }
        Frame::new(self.series, rows.into_iter())
    }
}

/// The distinct names of a column, sorted, and the index of each row's name; `None` where it is empty.
fn index_names(column: &Column) -> Result<(Vec<String>, Vec<Option<usize>>), Error> {
    let column = column.cast(&DataType::String)?;
    let texts = || column.str().map(|texts| texts.iter().map(|text| text.filter(|text| !text.is_empty())));
    let mut names: Vec<&str> = texts()?.flatten().collect();
    names.sort_unstable();
    names.dedup();
    let index: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
    let rows = texts()?.map(|text| index.get(text?).copied()).collect();
    Ok((names.into_iter().map(str::to_owned).collect(), rows))
}
