//! What a load took from its file, and what it rejected, by line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

use crate::{Code, Finding, Findings, TimeFormat};

/// Rejections kept per reason, and findings per notice. The counts stay exact.
pub(crate) const KEPT_PER_CODE: usize = 20;
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
    /// The line or element is no JSON object.
    MalformedLine,
    /// A row of a long file names no series, or one with NUL in its name.
    MissingSeries,
    /// The value is not a number.
    UnparsableValue,
    /// The value is NaN, infinite, or above 1e30 in magnitude.
    NotFinite,
    /// The value is an integer beyond 2^53, which `double precision` cannot hold.
    IntegerTooLarge,
    /// The standard deviation is not a finite number of at least 0.
    InvalidSd,
    /// The value is outside the declared range of its series.
    OutOfBounds,
    /// Another value was given for the same series and time.
    DuplicateConflict,
    /// The same value was given before for the same series and time; nothing is lost.
    DuplicateEqual,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 13] = [
        Reason::UnparsableTime,
        Reason::AmbiguousLocalTime,
        Reason::NonexistentLocalTime,
        Reason::OffGrid,
        Reason::MalformedLine,
        Reason::MissingSeries,
        Reason::UnparsableValue,
        Reason::NotFinite,
        Reason::IntegerTooLarge,
        Reason::InvalidSd,
        Reason::OutOfBounds,
        Reason::DuplicateConflict,
        Reason::DuplicateEqual,
    ];

    /// The stable code, for example `unparsable_value`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::UnparsableTime => "unparsable_time",
            Reason::AmbiguousLocalTime => "ambiguous_local_time",
            Reason::NonexistentLocalTime => "nonexistent_local_time",
            Reason::OffGrid => "off_grid",
            Reason::MalformedLine => "malformed_line",
            Reason::MissingSeries => "missing_series",
            Reason::UnparsableValue => "unparsable_value",
            Reason::NotFinite => "not_finite",
            Reason::IntegerTooLarge => "integer_too_large",
            Reason::InvalidSd => "invalid_sd",
            Reason::OutOfBounds => "out_of_bounds",
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
    /// Line in the file, the header being line 1; without a header the row, from 1.
    pub line: u64,
    /// Where it stands in a JSON body, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of the column.
    pub column: String,
    /// The series, when a cell was rejected and not a whole row.
    pub series: Option<String>,
    /// What stands there, at most 100 characters of it, without NUL.
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

/// A text of a source as it is quoted: U+FFFD stands for NUL, with which no text can be stored.
pub fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// What a load did with its file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the file, or of the first one.
    pub file: String,
    /// Files read.
    pub n_files: usize,
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
    /// Observations that were combined with others of their interval, as `resample` declares.
    pub n_combined: u64,
    /// How many were rejected (or, for `duplicate_equal`, dropped), by reason.
    pub n_rejected: BTreeMap<Reason, u64>,
    /// The first 20 rejections of each reason, by line.
    pub rejected: Vec<Rejection>,
    /// What was noticed that may be wrong, though all values are taken.
    #[serde(flatten)]
    pub noticed: Findings,
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

    /// Adds findings that are about a file.
    pub fn add_findings(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.noticed.push(finding.code, || finding));
    }

    /// The codes among `fail_on` that this report has.
    pub fn failures(&self, fail_on: &[Code]) -> Vec<Code> {
        let is_met = |code: &Code| {
            self.n_rejected.keys().any(|reason| reason.code() == code.as_str())
                || self.noticed.n_findings.keys().any(|notice| notice.code() == code.as_str())
        };
        fail_on.iter().copied().filter(is_met).collect()
    }
}

/// Collects rejections in any order, and keeps the first of each reason. What they look like is looked up later, when it
/// is known which are kept.
#[derive(Default)]
pub(crate) struct Rejections {
    counts: BTreeMap<Reason, u64>,
    kept: BTreeMap<Reason, BTreeMap<Cell, Kept>>,
    lost: Vec<(usize, Reason)>,
}

/// A cell of what was read: its row, counted over all inputs, and its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub row: usize,
    /// `None` for a row that has no columns.
    pub column: Option<usize>,
}

/// What is known of a rejection that is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kept {
    series: Option<usize>,
    /// What to show in place of what is written there.
    value: Option<f64>,
}

impl Rejections {
    /// Notes that what is written in a cell is not taken.
    pub(crate) fn push(&mut self, reason: Reason, cell: Cell, series: Option<usize>) {
        self.lost.push((cell.row, reason));
        self.keep(reason, cell, Kept { series, value: None });
    }

    /// Notes that a value is not taken. `is_lost` says that nothing else stands for it.
    pub(crate) fn push_value(&mut self, reason: Reason, is_lost: bool, cell: Cell, series: usize, value: f64) {
        if is_lost {
            self.lost.push((cell.row, reason));
        }
        self.keep(reason, cell, Kept { series: Some(series), value: Some(value) });
    }

    fn keep(&mut self, reason: Reason, cell: Cell, rejection: Kept) {
        *self.counts.entry(reason).or_default() += 1;
        let kept = self.kept.entry(reason).or_default();
        if kept.len() == KEPT_PER_CODE && kept.last_key_value().is_some_and(|(last, _)| *last < cell) {
            return;
        }
        kept.insert(cell, rejection);
        if kept.len() > KEPT_PER_CODE {
            kept.pop_last();
        }
    }

    /// The rows that hold something lost, in order, each once for each reason.
    pub(crate) fn lost_rows(&mut self) -> Vec<(usize, Reason)> {
        let mut rows = std::mem::take(&mut self.lost);
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// The cells that are to be looked up. Their rows are among the lost ones.
    pub(crate) fn cells(&self) -> BTreeSet<Cell> {
        let kept = self.kept.values().flatten();
        kept.filter(|(_, rejection)| rejection.value.is_none()).map(|(cell, _)| *cell).collect()
    }

    /// The exact counts, and what was kept, sorted by row. `place` says where a cell stands.
    pub(crate) fn finish<'a>(
        self,
        series: &[String],
        texts: &BTreeMap<Cell, String>,
        place: impl Fn(Cell) -> Place<'a>,
    ) -> (BTreeMap<Reason, u64>, Vec<Rejection>) {
        let mut kept: Vec<_> = self
            .kept
            .into_iter()
            .flat_map(|(reason, kept)| kept.into_iter().map(move |(cell, kept)| (cell, reason, kept)))
            .collect();
        kept.sort_unstable_by_key(|(cell, reason, _)| (*cell, *reason));
        let rejection = |(cell, reason, kept): (Cell, Reason, Kept)| {
            let Place { file, line, element, column } = place(cell);
            let text = texts.get(&cell).map(String::as_str).unwrap_or_default();
            let value = kept.value.map_or_else(|| text.to_owned(), |value| value.to_string());
            Rejection {
                file: file.to_owned(),
                line,
                pointer: element.map(|element| pointer(element, column)),
                column: column.to_owned(),
                series: kept.series.map(|index| series[index].clone()),
                value: without_nul(&value).chars().take(VALUE_LENGTH_MAX).collect(),
                reason,
            }
        };
        let rejected = kept.into_iter().map(rejection).collect();
        (self.counts, rejected)
    }
}

/// Where a cell stands.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub file: &'a str,
    pub line: u64,
    /// Prefix and number of the element in a JSON body.
    pub element: Option<(&'static str, usize)>,
    pub column: &'a str,
}

fn pointer((prefix, index): (&str, usize), column: &str) -> String {
    let column = column.replace('~', "~0").replace('/', "~1");
    format!("{prefix}/{index}{}{column}", if column.is_empty() { "" } else { "/" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frequency, Input, LoadConfig, Notice, read};

    fn cell(row: usize) -> Cell {
        Cell { row, column: Some(1) }
    }

    fn finish(
        rejections: Rejections,
        texts: &[(Cell, String)],
        is_body: bool,
    ) -> (BTreeMap<Reason, u64>, Vec<Rejection>) {
        let place = |cell: Cell| Place {
            file: "a.csv",
            line: cell.row as u64 + 2,
            element: is_body.then_some(("/observations", cell.row)),
            column: "x",
        };
        rejections.finish(&["s".to_owned()], &texts.iter().cloned().collect(), place)
    }

    #[test]
    fn an_element_of_a_body_has_a_pointer() {
        let mut rejections = Rejections::default();
        rejections.push(Reason::NotFinite, cell(3), Some(0));
        let (_, kept) = finish(rejections, &[(cell(3), "NaN".to_owned())], true);
        assert_eq!(kept[0].pointer.as_deref(), Some("/observations/3/x"));
        assert_eq!((kept[0].series.as_deref(), kept[0].value.as_str()), (Some("s"), "NaN"));
        assert_eq!(pointer(("/observations", 1), "a/b~c"), "/observations/1/a~1b~0c");
        assert_eq!(pointer(("/observations", 1), ""), "/observations/1");
    }

    #[test]
    fn the_first_twenty_by_line_are_kept_and_all_are_counted() {
        let mut rejections = Rejections::default();
        for row in (0..100).rev() {
            rejections.push(Reason::UnparsableValue, cell(row), None);
            rejections.push_value(Reason::DuplicateEqual, false, cell(row), 0, 1.5);
        }
        assert_eq!((rejections.lost_rows().len(), rejections.cells().len()), (100, 20));
        let (counts, kept) = finish(rejections, &[], false);
        assert_eq!((counts[&Reason::UnparsableValue], counts[&Reason::DuplicateEqual]), (100, 100));
        let lines: Vec<_> = kept.iter().map(|r| r.line).collect();
        assert_eq!(lines, (2..22).flat_map(|line| [line, line]).collect::<Vec<_>>());
        assert_eq!((kept[1].reason, kept[1].value.as_str()), (Reason::DuplicateEqual, "1.5"));
    }

    #[test]
    fn the_first_twenty_files_of_a_kind_are_named_and_all_are_counted() {
        let input = Input::bytes("a.csv", &b"time,a\n2024-01-01T00:00Z,1\n"[..]);
        let config = LoadConfig { frequency: Some(Frequency::HOUR), ..LoadConfig::default() };
        let mut report = read(&[input], &config).expect("a frame").report;
        let gone = |index: u64| Finding::of_file(Notice::FileRemoved, index.to_string());
        report.add_findings((0..25).map(gone).chain([Finding::of_file(Notice::Rewritten, "b".to_owned())]));
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["n_findings"], serde_json::json!({"file_removed": 25, "rewritten": 1}));
        let kept: Vec<&str> = report.noticed.findings.iter().map(|finding| finding.message.as_str()).collect();
        let expected: Vec<String> = (0..20).map(|index| index.to_string()).chain(["b".to_owned()]).collect();
        assert_eq!(kept, expected);
        assert_eq!(json["findings"].as_array().map(Vec::len), Some(21));
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut rejections = Rejections::default();
        rejections.push(Reason::UnparsableTime, cell(0), None);
        let (_, kept) = finish(rejections, &[(cell(0), "é".repeat(1_000))], false);
        assert_eq!(kept[0].value.chars().count(), 100);
        assert!(kept[0].to_string().starts_with("unparsable_time in a.csv, line 2, column `x`: `é"));
    }
}
