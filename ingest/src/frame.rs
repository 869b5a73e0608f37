//! The validated long table: what every later stage may trust.

use chrono::{DateTime, Utc};

use crate::times::{NO_TIME, instant};

/// Usual name of the column that names the series.
pub const SERIES: &str = "series";
/// Usual name of the column with the values.
pub const VALUE: &str = "value";
/// Usual name of the column that says when a value became known.
pub const AVAILABLE_AT: &str = "available_at";
/// Usual name of the column with the standard deviation of a measurement.
pub const SD: &str = "sd";

/// Observations of a group of series. Sorted by series, `valid_time` and `available_at`, each
/// combination once; values finite; times UTC. A gap is the absence of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    series: Vec<String>,
    rows: Columns,
}

/// One observation of a [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Index in [`Frame::series`].
    pub series: usize,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// When the value became known; `None` when the source does not say.
    pub available_at: Option<DateTime<Utc>>,
    /// The value, in the series' unit.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
}

/// Rows of a [`Frame`], column-wise. Times are in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Columns {
    /// Where the rows of each series end, and those of the next one begin.
    ends: Vec<usize>,
    valid_time: Vec<i64>,
    /// `None` where no source has said it so far.
    available_at: Option<Vec<Option<i64>>>,
    value: Vec<f64>,
    /// `None` where no source has said it so far.
    sd: Option<Vec<Option<f64>>>,
}

impl Columns {
    pub(crate) fn reserve(&mut self, n_rows: usize) {
        self.valid_time.reserve(n_rows);
        self.value.reserve(n_rows);
    }

    /// Adds the observations of a series. Series come in their order.
    pub(crate) fn extend(&mut self, series: usize, rows: &Sorted) {
        debug_assert!(series >= self.ends.len());
        let (n_before, n) = (self.n_rows(), rows.times.len());
        self.valid_time.extend_from_slice(&rows.times);
        self.value.extend_from_slice(&rows.values);
        let known = |time: &i64| (*time != NO_TIME).then_some(*time);
        extend_optional(&mut self.available_at, n_before, n, rows.available_at.as_deref(), known);
        extend_optional(&mut self.sd, n_before, n, rows.sd.as_deref(), |sd: &f64| (!sd.is_nan()).then_some(*sd));
        self.ends.resize(series, n_before);
        self.ends.push(self.n_rows());
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.value.len()
    }
}

/// Observations of one series, sorted by time and knowledge, each once. Times are in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sorted {
    pub times: Vec<i64>,
    pub values: Vec<f64>,
    /// [`NO_TIME`] where the source does not say; `None` where it never does.
    pub available_at: Option<Vec<i64>>,
    /// NaN where the source does not say; `None` where it never does.
    pub sd: Option<Vec<f64>>,
}

/// Adds `n` cells to a column that exists once something stands in it.
fn extend_optional<T: Copy>(
    column: &mut Option<Vec<Option<T>>>,
    n_before: usize,
    n: usize,
    cells: Option<&[T]>,
    known: impl Fn(&T) -> Option<T>,
) {
    match (column, cells) {
        (Some(column), Some(cells)) => column.extend(cells.iter().map(known)),
        (Some(column), None) => column.resize(n_before + n, None),
        (column, Some(cells)) if cells.iter().any(|cell| known(cell).is_some()) => {
            *column = Some(std::iter::repeat_n(None, n_before).chain(cells.iter().map(known)).collect());
        }
        (None, _) => {}
    }
}

impl Frame {
    /// Wraps rows that are already sorted, unique and finite.
    pub(crate) fn new(series: Vec<String>, rows: Columns) -> Self {
        debug_assert!(rows.ends.len() <= series.len() && rows.value.iter().all(|value| value.is_finite()));
        Self { series, rows }
    }

    /// Names of the series: in the order of a wide file's columns, sorted for a long file. A series
    /// that is all gaps is among them.
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// Number of observations.
    pub fn n_rows(&self) -> usize {
        self.rows.n_rows()
    }

    /// The observations in their order.
    pub fn rows(&self) -> impl Iterator<Item = Row> + Clone {
        let Columns { ends, valid_time, available_at, value, sd } = &self.rows;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).enumerate().flat_map(move |(series, (start, end))| {
            (start..*end).map(move |index| Row {
                series,
                valid_time: instant(valid_time[index]),
                available_at: available_at.as_ref().and_then(|cells| cells[index]).map(instant),
                value: value[index],
                sd: sd.as_ref().and_then(|cells| cells[index]),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        let t = |text: &str| text.parse::<DateTime<Utc>>().expect("an instant");
        let row = |series, time, available_at: Option<&str>, value, sd| Row {
            series,
            valid_time: t(time),
            available_at: available_at.map(t),
            value,
            sd,
        };
        let plain = [row(0, "1969-12-31T23:00:00Z", None, -1.5, None), row(2, "2024-01-01T00:00:00Z", None, 2.0, None)];
        let full = [
            row(0, "1969-12-31T23:00:00Z", None, -1.5, Some(0.1)),
            row(1, "2024-01-01T00:00:00.000001Z", Some("2024-01-01T01:00:00Z"), 2.0, None),
        ];
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        for rows in [plain, full] {
            let mut columns = Columns::default();
            for Row { series, valid_time, available_at, value, sd } in rows {
                let rows = Sorted {
                    times: vec![valid_time.timestamp_micros()],
                    values: vec![value],
                    available_at: available_at.map(|t| vec![t.timestamp_micros()]),
                    sd: sd.map(|sd| vec![sd]),
                };
                columns.extend(series, &rows);
            }
            let frame = Frame::new(names.clone(), columns);
            assert_eq!(frame.rows().collect::<Vec<_>>(), rows);
            assert_eq!(frame.series(), names);
            assert_eq!(frame.n_rows(), 2);
        }
    }
}
