//! What a load took from its file, and what it rejected, by line.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::TimeFormat;

/// Rejections kept per reason. The counts stay exact.
const KEPT_PER_REASON: usize = 20;
/// Characters of a rejected value that are kept.
const VALUE_LENGTH_MAX: usize = 100;

/// Why a row or a cell was not taken. The codes are stable: they appear in JSON and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The time is not ISO 8601, or missing.
    UnparsableTime,
    /// The wall time occurs twice, when clocks go back.
    AmbiguousLocalTime,
    /// The wall time does not occur, when clocks go forward.
    NonexistentLocalTime,
    /// The time does not begin (or, for months and longer, end) an interval of the grid.
    OffGrid,
    /// A row of a long file names no series.
    MissingSeries,
    /// The value is not a number.
    UnparsableValue,
    /// The value is NaN or infinite.
    NotFinite,
    /// The value is an integer beyond 2^53, which `double precision` cannot hold.
    IntegerTooLarge,
    /// The standard deviation is not a finite number of at least 0.
    InvalidSd,
    /// Another value was given for the same series and time.
    DuplicateConflict,
    /// The same value was given before for the same series and time; nothing is lost.
    DuplicateEqual,
}

impl Reason {
    /// The stable code, for example `unparsable_value`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::UnparsableTime => "unparsable_time",
            Reason::AmbiguousLocalTime => "ambiguous_local_time",
            Reason::NonexistentLocalTime => "nonexistent_local_time",
            Reason::OffGrid => "off_grid",
            Reason::MissingSeries => "missing_series",
            Reason::UnparsableValue => "unparsable_value",
            Reason::NotFinite => "not_finite",
            Reason::IntegerTooLarge => "integer_too_large",
            Reason::InvalidSd => "invalid_sd",
            Reason::DuplicateConflict => "duplicate_conflict",
            Reason::DuplicateEqual => "duplicate_equal",
        }
    }
}

/// The code.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A row or a cell that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Name of the file.
    pub file: String,
    /// Line in the file, the header being line 1; in a Parquet file the row, from 1.
    pub line: u64,
    /// Name of the column.
    pub column: String,
    /// The series, when a cell was rejected and not a whole row.
    pub series: Option<String>,
    /// What stands there, at most 100 characters of it.
    pub value: String,
    /// Why it was not taken.
    pub reason: Reason,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejection { file, line, column, value, reason, .. } = self;
        write!(f, "{reason} in {file}, line {line}, column `{column}`: `{value}`")
    }
}

/// What a load did with its file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the file.
    pub file: String,
    /// How times are written.
    pub time_format: TimeFormat,
    /// Zone in which wall times were read and whose calendar the grid follows.
    pub time_zone: String,
    /// Canonical name of the grid's frequency.
    pub frequency: String,
    /// Whether the frequency was inferred rather than declared.
    pub frequency_inferred: bool,
    /// Whether times were last days of months, quarters or years, and moved to the start of theirs.
    pub last_days_moved: bool,
    /// Series found.
    pub n_series: usize,
    /// Rows of the file, without the header and blank lines.
    pub rows_read: u64,
    /// Observations taken.
    pub accepted: u64,
    /// Empty cells: gaps, not errors.
    pub n_gaps: u64,
    /// Rows that are earlier than the row before them (of the same series). They were sorted.
    pub n_unordered: u64,
    /// How many were rejected (or, for `duplicate_equal`, dropped), by reason.
    pub n_rejected: BTreeMap<Reason, u64>,
    /// The first 20 rejections of each reason, by line.
    pub rejected: Vec<Rejection>,
}

impl Report {
    /// Rows and cells that were given but not taken. Equal duplicates do not count: nothing is lost.
    pub fn n_lost(&self) -> u64 {
        self.n_rejected.iter().filter(|(reason, _)| **reason != Reason::DuplicateEqual).map(|(_, n)| n).sum()
    }

    /// How many were rejected for one reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.n_rejected.get(&reason).copied().unwrap_or(0)
    }
}

/// Collects rejections in any order, and keeps the first of each reason.
#[derive(Default)]
pub(crate) struct Rejections {
    file: String,
    counts: BTreeMap<Reason, u64>,
    kept: BTreeMap<Reason, BTreeMap<(u64, usize), Rejection>>,
}

/// Where a rejected value stands: line, and column by number and by name.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub line: u64,
    pub column_index: usize,
    pub column: &'a str,
    pub series: Option<&'a str>,
}

impl Rejections {
    pub(crate) fn new(file: String) -> Self {
        Self { file, ..Self::default() }
    }

    pub(crate) fn push(&mut self, reason: Reason, place: Place<'_>, value: &str) {
        *self.counts.entry(reason).or_default() += 1;
        let kept = self.kept.entry(reason).or_default();
        let key = (place.line, place.column_index);
        if kept.len() == KEPT_PER_REASON && kept.last_key_value().is_some_and(|(last, _)| *last < key) {
            return;
        }
        let rejection = Rejection {
            file: self.file.clone(),
            line: place.line,
            column: place.column.to_owned(),
            series: place.series.map(str::to_owned),
            value: value.chars().take(VALUE_LENGTH_MAX).collect(),
            reason,
        };
        kept.insert(key, rejection);
        if kept.len() > KEPT_PER_REASON {
            kept.pop_last();
        }
    }

    /// The exact counts, and what was kept, sorted by line.
    pub(crate) fn finish(self) -> (BTreeMap<Reason, u64>, Vec<Rejection>) {
        let mut kept: Vec<_> = self.kept.into_values().flatten().collect();
        kept.sort_by_key(|((line, column), rejection)| (*line, *column, rejection.reason));
        (self.counts, kept.into_iter().map(|(_, rejection)| rejection).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_twenty_by_line_are_kept_and_all_are_counted() {
        let mut rejections = Rejections::new("a.csv".to_owned());
        for line in (2..102).rev() {
            let place = Place { line, column_index: 1, column: "x", series: Some("x") };
            rejections.push(Reason::UnparsableValue, place, "n/a");
        }
        let (counts, kept) = rejections.finish();
        assert_eq!(counts[&Reason::UnparsableValue], 100);
        assert_eq!(kept.iter().map(|r| r.line).collect::<Vec<_>>(), (2..22).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut rejections = Rejections::new("a.csv".to_owned());
        let place = Place { line: 2, column_index: 0, column: "t", series: None };
        rejections.push(Reason::UnparsableTime, place, &"é".repeat(1_000));
        let (_, kept) = rejections.finish();
        assert_eq!(kept[0].value.chars().count(), 100);
        assert!(kept[0].to_string().starts_with("unparsable_time in a.csv, line 2, column `t`: `é"));
    }
}
