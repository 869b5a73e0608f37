//! Observations as tables give them: unordered, perhaps repeated, each with the row it came from.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use forecast::Bounds;
use polars::prelude::*;

use crate::{
    Error, NumberFormat, Reason,
    frame::Row,
    layout::Roles,
    load::{Part, text},
    numbers::{self, Number},
    report::{Place, Rejections},
    times::{self, Time},
};

/// What to do when a series has different values for one time. Equal values are always taken once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Take none of them, because none is known to be right.
    #[default]
    Reject,
    /// Take the one that stands first in the file.
    KeepFirst,
    /// Take the one that stands last in the file.
    KeepLast,
}

/// What the value columns of all parts hold.
#[derive(Default)]
pub(crate) struct Observations {
    series: Vec<String>,
    index: HashMap<String, usize>,
    found: Vec<Found>,
    pub n_gaps: u64,
    pub n_unordered: u64,
}

/// An observation and the row that it stands in, counted over all parts.
#[derive(Clone, Copy)]
struct Found {
    row: usize,
    observation: Row,
}

impl Observations {
    /// Adds what a part holds.
    pub(crate) fn add(
        &mut self,
        part: &Part,
        tz: Tz,
        format: &NumberFormat,
        rejections: &mut Rejections,
    ) -> Result<(), Error> {
        match part.roles {
            Roles::Wide { ref values, .. } => self.add_wide(part, values, format, rejections),
            Roles::Long { .. } => self.add_long(part, tz, format, rejections),
        }
    }

    fn index_of(&mut self, name: &str) -> usize {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let index = self.series.len();
        self.series.push(name.to_owned());
        self.index.insert(name.to_owned(), index);
        index
    }

    /// Reads a table with a column per series.
    fn add_wide(
        &mut self,
        part: &Part,
        values: &[usize],
        format: &NumberFormat,
        rejections: &mut Rejections,
    ) -> Result<(), Error> {
        self.found.reserve(part.table.data.height() * values.len());
        for &column_index in values {
            let column = &part.table.data.columns()[column_index];
            let name = column.name().as_str();
            let series = self.index_of(name);
            for (row, number) in numbers::read(&part.path, column, format)?.into_iter().enumerate() {
                let Time::At(valid_time) = part.times.rows[row] else { continue };
                match number {
                    Number::Gap => self.n_gaps += 1,
                    Number::Value(value) => {
                        let observation = Row { series, valid_time, available_at: None, value, sd: None };
                        self.found.push(Found { row: part.first_row + row, observation });
                    }
                    Number::Bad(reason) => {
                        rejections.push(reason, true, part.place(row, column_index, Some(name)), &text(column, row));
                    }
                }
            }
        }
        let in_file_order = part.times.rows.iter().filter_map(Time::instant);
        self.n_unordered += in_file_order.clone().zip(in_file_order.skip(1)).filter(|(a, b)| b < a).count() as u64;
        Ok(())
    }

    /// Reads a table with a row per observation.
    fn add_long(
        &mut self,
        part: &Part,
        tz: Tz,
        format: &NumberFormat,
        rejections: &mut Rejections,
    ) -> Result<(), Error> {
        let Roles::Long { series, value, available_at, sd, .. } = part.roles else {
            unreachable!("the caller has matched the layout")
        };
        let columns = part.table.data.columns();
        let series_of_row = self.index_names(&columns[series])?;
        let numbers = numbers::read(&part.path, &columns[value], format)?;
        let line = |row| part.line(row);
        let available_at_times = match available_at {
            Some(index) => Some(times::read(&part.path, &columns[index], tz, line)?.rows),
            None => None,
        };
        let sd_numbers = match sd {
            Some(index) => Some(numbers::read(&part.path, &columns[index], format)?),
            None => None,
        };

        self.found.reserve(part.table.data.height());
        let mut previous: Vec<Option<DateTime<Utc>>> = vec![None; self.series.len()];
        for (row, number) in numbers.into_iter().enumerate() {
            let Time::At(valid_time) = part.times.rows[row] else { continue };
            let mut reject = |reason, column_index: usize, series: Option<usize>| {
                let series = series.map(|index| self.series[index].as_str());
                rejections.push(
                    reason,
                    true,
                    part.place(row, column_index, series),
                    &text(&columns[column_index], row),
                );
            };
            let Some(index) = series_of_row[row] else {
                reject(Reason::MissingSeries, series, None);
                continue;
            };
            self.n_unordered += u64::from(previous[index].is_some_and(|t| valid_time < t));
            previous[index] = Some(valid_time);

            let value = match number {
                Number::Value(value) => value,
                Number::Gap => {
                    self.n_gaps += 1;
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
            self.found.push(Found { row: part.first_row + row, observation });
        }
        Ok(())
    }

    /// The index of each row's series; `None` where the name is empty.
    fn index_names(&mut self, column: &Column) -> Result<Vec<Option<usize>>, Error> {
        let column = column.cast(&DataType::String)?;
        let names = column.str()?;
        let mut rows = Vec::with_capacity(names.len());
        // Most rows name the series of the row before.
        let mut last: Option<(&str, usize)> = None;
        for name in names.iter() {
            let index = match (name.filter(|name| !name.is_empty()), last) {
                (None, _) => None,
                (Some(name), Some((known, index))) if name == known => Some(index),
                (Some(name), _) => {
                    let index = self.index_of(name);
                    last = Some((name, index));
                    Some(index)
                }
            };
            rows.push(index);
        }
        Ok(rows)
    }

    /// Numbers the series by their names: the order in which a long file happens to name them says nothing.
    fn sort_series(&mut self) {
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        order.sort_by(|a, b| self.series[*a].cmp(&self.series[*b]));
        let mut new_index = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| new_index[*old] = new);
        self.series = order.iter().map(|old| std::mem::take(&mut self.series[*old])).collect();
        self.found.iter_mut().for_each(|found| found.observation.series = new_index[found.observation.series]);
    }

    /// Drops, with their rows, the values outside the declared range of their series.
    pub(crate) fn keep_within(
        &mut self,
        bounds: impl Fn(&str) -> Option<Bounds>,
        parts: &[Part],
        rejections: &mut Rejections,
    ) {
        let bounds: Vec<Option<Bounds>> = self.series.iter().map(|name| bounds(name)).collect();
        let series = &self.series;
        self.found.retain(|found| {
            let Row { series: index, value, .. } = found.observation;
            let is_inside = bounds[index].is_none_or(|bounds| bounds.clip(value) == value);
            if !is_inside {
                reject(rejections, Reason::OutOfBounds, true, parts, series, found);
            }
            is_inside
        });
    }

    /// Sorts, and takes each series and time once. Gives the names of the series and their observations.
    pub(crate) fn into_rows(
        mut self,
        duplicates: Duplicates,
        parts: &[Part],
        rejections: &mut Rejections,
    ) -> (Vec<String>, Vec<Row>) {
        if parts.iter().any(|part| matches!(part.roles, Roles::Long { .. })) {
            self.sort_series();
        }
        let order = |found: &Found| (found.observation.key(), found.row);
        if !self.found.is_sorted_by_key(order) {
            self.found.sort_unstable_by_key(order);
        }
        // What is kept moves to the front, and then in place: there are as many observations as memory has room for.
        let (mut n_kept, mut start) = (0, 0);
        while let Some(first) = self.found.get(start) {
            let is_same = |found: &&Found| found.observation.key() == first.observation.key();
            let end = start + self.found[start..].iter().take_while(is_same).count();
            let group = &self.found[start..end];
            let [first, rest @ ..] = group else { break };
            let last = rest.last().unwrap_or(first);
            let are_equal = rest.iter().all(|found| found.observation == first.observation);
            let kept = match duplicates {
                _ if are_equal => Some(first),
                Duplicates::KeepFirst => Some(first),
                Duplicates::KeepLast => Some(last),
                Duplicates::Reject => None,
            };
            for found in group.iter().filter(|found| kept.is_none_or(|kept| kept.row != found.row)) {
                let reason = if are_equal { Reason::DuplicateEqual } else { Reason::DuplicateConflict };
                reject(rejections, reason, kept.is_none(), parts, &self.series, found);
            }
            if let Some(&kept) = kept {
                self.found[n_kept] = kept;
                n_kept += 1;
            }
            start = end;
        }
        self.found.truncate(n_kept);
        (self.series, self.found.into_iter().map(|found| found.observation).collect())
    }
}

/// Notes that an observation is not taken.
fn reject(
    rejections: &mut Rejections,
    reason: Reason,
    is_lost: bool,
    parts: &[Part],
    series: &[String],
    found: &Found,
) {
    let name = series[found.observation.series].as_str();
    let part = &parts[parts.partition_point(|part| part.first_row <= found.row) - 1];
    let column_index = match part.roles {
        Roles::Wide { .. } => part.table.data.get_column_index(name).unwrap_or(0),
        Roles::Long { value, .. } => value,
    };
    let place: Place<'_> = part.place(found.row - part.first_row, column_index, Some(name));
    rejections.push(reason, is_lost, place, &found.observation.value.to_string());
}
