//! What may be wrong with values that can all be read: gaps, flat lines, jumps, other units, shifted clocks.
//!
//! Nothing is changed here. Every rule is a rule of thumb whose thresholds are documented, so that a finding says
//! "look here", not "this is wrong".

mod series;

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use forecast::Bounds;
use serde::{Deserialize, Serialize};

use crate::{Frequency, Reason, report::KEPT_PER_CODE, times::instant};
pub(crate) use series::Values;

/// Something that was noticed. The codes are stable: they appear in JSON and in `fail_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Steps between values of a series without any.
    Gap,
    /// Many equal values in a row, in a series that otherwise moves.
    FlatLine,
    /// A value outside the declared range of its series.
    OutOfBounds,
    /// A step much larger than nearly all others of its series.
    Jump,
    /// From some time on all values are many times larger or smaller.
    UnitChange,
    /// From some time on the daily pattern comes earlier or later.
    ClockShift,
    /// A series ends before the others do.
    Stopped,
    /// A file has a column that it did not have before.
    ColumnAdded,
    /// A file has lost a column.
    ColumnRemoved,
    /// A column has another name than before at the same place.
    ColumnRenamed,
    /// A column has another type than before.
    ColumnTypeChanged,
    /// A file that was read before is gone.
    FileRemoved,
    /// What was read before of a growing file has changed; all of it was read again.
    Rewritten,
    /// The last line has no end and the file is young: it may still be being written and is left for the next run.
    UnterminatedLine,
    /// Rows of a query have a watermark that nothing can be larger than: it is passed over.
    UnboundedWatermark,
    /// Rows of one series say different things of it: what the last one says counts.
    AttributeChanged,
}

impl Notice {
    /// All of them.
    pub const ALL: [Notice; 16] = [
        Notice::Gap,
        Notice::FlatLine,
        Notice::OutOfBounds,
        Notice::Jump,
        Notice::UnitChange,
        Notice::ClockShift,
        Notice::Stopped,
        Notice::ColumnAdded,
        Notice::ColumnRemoved,
        Notice::ColumnRenamed,
        Notice::ColumnTypeChanged,
        Notice::FileRemoved,
        Notice::Rewritten,
        Notice::UnterminatedLine,
        Notice::UnboundedWatermark,
        Notice::AttributeChanged,
    ];

    /// The stable code, for example `flat_line`.
    pub fn code(self) -> &'static str {
        match self {
            Notice::Gap => "gap",
            Notice::FlatLine => "flat_line",
            Notice::OutOfBounds => "out_of_bounds",
            Notice::Jump => "jump",
            Notice::UnitChange => "unit_change",
            Notice::ClockShift => "clock_shift",
            Notice::Stopped => "stopped",
            Notice::ColumnAdded => "column_added",
            Notice::ColumnRemoved => "column_removed",
            Notice::ColumnRenamed => "column_renamed",
            Notice::ColumnTypeChanged => "column_type_changed",
            Notice::FileRemoved => "file_removed",
            Notice::Rewritten => "rewritten",
            Notice::UnterminatedLine => "unterminated_line",
            Notice::UnboundedWatermark => "unbounded_watermark",
            Notice::AttributeChanged => "attribute_changed",
        }
    }
}

/// The code.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The code of a reason or of a notice, as `fail_on` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(&'static str);

impl Code {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    fn all() -> impl Iterator<Item = &'static str> {
        Reason::ALL.into_iter().map(Reason::code).chain(Notice::ALL.into_iter().map(Notice::code))
    }
}

/// A word that is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is none of the codes of a report, such as unparsable_value, gap, flat_line")]
pub struct UnknownCode {
    /// The word.
    pub word: String,
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::all().find(|code| *code == word).map(Code).ok_or_else(|| UnknownCode { word: word.to_owned() })
    }
}

/// One thing that was noticed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Notice,
    /// In which series; nothing when it is about a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Start of the first interval that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<DateTime<Utc>>,
    /// Start of the last interval that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<DateTime<Utc>>,
    /// The figures, for people.
    pub message: String,
}

impl Finding {
    /// Something about a file.
    pub fn of_file(code: Notice, message: String) -> Self {
        Self { code, series: None, start: None, end: None, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(series) = &self.series {
            write!(f, " in `{series}`")?;
        }
        if let Some(start) = self.start {
            write!(f, " at {}", start.format("%FT%RZ"))?;
        }
        write!(f, ": {}", self.message)
    }
}

/// From when on things are noticed. `None` follows the frequency.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Shortest run of missing steps that is a gap. Default 1.
    pub gap_steps: u32,
    /// Shortest run of equal values that is a flat line. Default twice the shortest season, at least 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flat_steps: Option<u32>,
    /// Steps by which a series that has stopped ends before the others. Default a season, at least 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_steps: Option<u32>,
    /// A jump is so many times the change that 99 % of the steps keep below. Default 10.
    pub jump_factor: f64,
}

impl Default for Checks {
    fn default() -> Self {
        Self { gap_steps: 1, flat_steps: None, stopped_steps: None, jump_factor: 10.0 }
    }
}

/// Findings by code, and the first ones of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// How often each thing was noticed.
    pub n_findings: BTreeMap<Notice, u64>,
    /// The first 20 of each.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// Counts a finding, and keeps it if it is among the first of its code.
    pub(crate) fn push(&mut self, code: Notice, finding: impl FnOnce() -> Finding) {
        let count = self.n_findings.entry(code).or_default();
        *count += 1;
        if *count <= KEPT_PER_CODE as u64 {
            self.findings.push(finding());
        }
    }

    /// Adds those of another part of the data, which come after these.
    pub(crate) fn append(&mut self, later: Findings) {
        for (code, n) in later.n_findings {
            let kept = later.findings.iter().filter(|finding| finding.code == code);
            let n_before = self.n_findings.get(&code).copied().unwrap_or(0);
            let n_free = (KEPT_PER_CODE as u64).saturating_sub(n_before) as usize;
            self.findings.extend(kept.take(n_free).cloned());
            *self.n_findings.entry(code).or_default() += n;
        }
    }
}

/// Looks at the values of one series after the other.
pub(crate) struct Inspector<'a> {
    frequency: Frequency,
    tz: Tz,
    checks: &'a Checks,
    season: usize,
    flat_steps: usize,
    stopped_steps: i64,
}

impl<'a> Inspector<'a> {
    pub(crate) fn new(frequency: Frequency, tz: Tz, checks: &'a Checks) -> Self {
        /// Shortest runs that say anything.
        const STEPS_MIN: u32 = 10;
        let season = frequency.seasons().first().copied().and_then(|season| u32::try_from(season).ok()).unwrap_or(1);
        let flat_steps = checks.flat_steps.unwrap_or((2 * season).max(STEPS_MIN)) as usize;
        let stopped_steps = i64::from(checks.stopped_steps.unwrap_or(season.max(STEPS_MIN)));
        Self { frequency, tz, checks, season: season as usize, flat_steps, stopped_steps }
    }

    /// What is odd about the values of a series.
    pub(crate) fn look(&self, name: &str, values: &Values<'_>, bounds: Option<Bounds>) -> Findings {
        let mut findings = Findings::default();
        let mut note = |code, first: usize, last: usize, message: &dyn Fn() -> String| {
            let at = |index: usize| Some(instant(values.times[index]));
            findings.push(code, || Finding {
                code,
                series: Some(name.to_owned()),
                start: at(first),
                end: at(last),
                message: message(),
            });
        };
        for (index, n_missing) in values.gaps(self.checks.gap_steps) {
            note(Notice::Gap, index, index + 1, &|| format!("{n_missing} steps are missing between these"));
        }
        for run in values.flat_lines(self.flat_steps) {
            let message = || format!("{} times {} in a row", run.len(), values.values[run.start]);
            note(Notice::FlatLine, run.start, run.end - 1, &message);
        }
        if let Some(bounds) = bounds {
            for (index, value) in values.values.iter().enumerate().filter(|(_, value)| bounds.clip(**value) != **value)
            {
                note(Notice::OutOfBounds, index, index, &|| format!("{value} is outside of the declared range"));
            }
        }
        for (index, usual) in values.jumps(self.checks.jump_factor) {
            let (from, to) = (values.values[index - 1], values.values[index]);
            note(Notice::Jump, index, index, &|| {
                format!("from {from} to {to}; 99 % of the steps are below {usual:.3}")
            });
        }
        for (index, ratio) in values.unit_changes(self.season) {
            note(Notice::UnitChange, index, index, &|| {
                format!("from here on values are {ratio:.3} times those before")
            });
        }
        for (index, shift) in values.clock_shifts(self.frequency, self.tz) {
            let message = || format!("the daily pattern comes {shift} minutes later than in the two weeks before");
            note(Notice::ClockShift, index, index, &message);
        }
        findings
    }

    /// Notes the series that end long before the last one: for each its name, its last time and the number of its last
    /// interval.
    pub(crate) fn note_stopped<'s>(
        &self,
        findings: &mut Findings,
        series: impl Iterator<Item = (&'s str, i64, i64)> + Clone,
    ) {
        let Some(end) = series.clone().map(|(_, _, ordinal)| ordinal).max() else { return };
        for (name, time, ordinal) in series.filter(|(_, _, ordinal)| end - ordinal >= self.stopped_steps) {
            let (code, at) = (Notice::Stopped, Some(instant(time)));
            let message = format!("its last value is {} steps before the end of the others", end - ordinal);
            findings.push(code, || Finding { code, series: Some(name.to_owned()), start: at, end: at, message });
        }
    }
}

#[cfg(test)]
mod tests;
