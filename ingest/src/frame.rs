//! The validated long table: what every later stage may trust.

use chrono::{DateTime, TimeDelta, Utc};
use polars::prelude::*;

use crate::Error;

/// Index of the series in [`Frame::series`], `u32`.
pub const SERIES: &str = "series";
/// Start of the interval that the value refers to, UTC in microseconds.
pub const VALID_TIME: &str = "valid_time";
/// When the value became known; null when the source does not say.
pub const AVAILABLE_AT: &str = "available_at";
/// The value, in the series' unit.
pub const VALUE: &str = "value";
/// Standard deviation of the measurement; null when the source does not say.
pub const SD: &str = "sd";

/// Observations of a group of series. Sorted by series, `valid_time` and `available_at`, each
/// combination once; values finite; times UTC. A gap is the absence of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    series: Vec<String>,
    data: DataFrame,
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

/// Rows of a [`Frame`], column-wise.
#[derive(Default)]
pub(crate) struct Columns {
    series: Vec<u32>,
    valid_time: Vec<i64>,
    /// `None` where no source has said it so far.
    available_at: Option<Vec<Option<i64>>>,
    value: Vec<f64>,
    /// `None` where no source has said it so far.
    sd: Option<Vec<Option<f64>>>,
}

impl Columns {
    pub(crate) fn reserve(&mut self, n_rows: usize) {
        self.series.reserve(n_rows);
        self.valid_time.reserve(n_rows);
        self.value.reserve(n_rows);
    }

    /// Adds observations of a series; their times are in microseconds since 1970.
    pub(crate) fn extend(&mut self, series: usize, observations: impl Iterator<Item = Observed> + Clone) {
        let n_before = self.series.len();
        self.valid_time.extend(observations.clone().map(|observed| observed.valid_time));
        self.value.extend(observations.clone().map(|observed| observed.value));
        // A frame has at most 2^32 series: their number is limited where files are read.
        self.series.resize(self.value.len(), series as u32);
        extend_optional(&mut self.available_at, n_before, observations.clone().map(|observed| observed.available_at));
        extend_optional(&mut self.sd, n_before, observations.map(|observed| observed.sd));
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.series.len()
    }
}

/// A row of [`Columns`] without its series.
#[derive(Clone, Copy)]
pub(crate) struct Observed {
    pub valid_time: i64,
    pub available_at: Option<i64>,
    pub value: f64,
    pub sd: Option<f64>,
}

/// Adds cells to a column that exists once something stands in it.
fn extend_optional<T: Clone>(
    column: &mut Option<Vec<Option<T>>>,
    n_before: usize,
    cells: impl Iterator<Item = Option<T>> + Clone,
) {
    match column {
        Some(column) => column.extend(cells),
        None if cells.clone().any(|cell| cell.is_some()) => {
            *column = Some(std::iter::repeat_n(None, n_before).chain(cells).collect());
        }
        None => {}
    }
}

impl Frame {
    /// Wraps rows that are already sorted, unique and finite.
    pub(crate) fn new(series: Vec<String>, rows: Columns) -> Result<Self, Error> {
        let time =
            |micros: Int64Chunked| micros.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column();
        let n_rows = rows.n_rows();
        let available_at = match rows.available_at {
            Some(cells) => Int64Chunked::from_iter_options(AVAILABLE_AT.into(), cells.into_iter()),
            None => Int64Chunked::full_null(AVAILABLE_AT.into(), n_rows),
        };
        let sd = match rows.sd {
            Some(cells) => Float64Chunked::from_iter_options(SD.into(), cells.into_iter()),
            None => Float64Chunked::full_null(SD.into(), n_rows),
        };
        let columns = vec![
            UInt32Chunked::from_vec(SERIES.into(), rows.series).into_column(),
            time(Int64Chunked::from_vec(VALID_TIME.into(), rows.valid_time)),
            time(available_at),
            Float64Chunked::from_vec(VALUE.into(), rows.value).into_column(),
            sd.into_column(),
        ];
        let data = DataFrame::new(n_rows, columns)?;
        Ok(Self { series, data })
    }

    /// Names of the series: in the order of a wide file's columns, sorted for a long file. A series
    /// that is all gaps is among them.
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// Number of observations.
    pub fn n_rows(&self) -> usize {
        self.data.height()
    }

    /// The table, with the columns [`SERIES`], [`VALID_TIME`], [`AVAILABLE_AT`], [`VALUE`], [`SD`].
    pub fn data(&self) -> &DataFrame {
        &self.data
    }

    /// The observations in their order.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        const SHAPE: &str = "the constructor builds the columns with these types";
        let instant = |micros: i64| DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros);
        let [series, valid_time, available_at, value, sd] = self.data.columns() else { unreachable!("{SHAPE}") };
        let series = series.u32().expect(SHAPE).iter();
        let valid_time = valid_time.datetime().expect(SHAPE).physical().iter();
        let available_at = available_at.datetime().expect(SHAPE).physical().iter();
        let value = value.f64().expect(SHAPE).iter();
        let sd = sd.f64().expect(SHAPE).iter();
        series.zip(valid_time).zip(available_at).zip(value).zip(sd).filter_map(
            move |((((series, valid_time), available_at), value), sd)| {
                Some(Row {
                    series: series? as usize,
                    valid_time: instant(valid_time?),
                    available_at: available_at.map(instant),
                    value: value?,
                    sd,
                })
            },
        )
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
                let available_at = available_at.map(|t| t.timestamp_micros());
                let valid_time = valid_time.timestamp_micros();
                columns.extend(series, [Observed { valid_time, available_at, value, sd }].into_iter());
            }
            let frame = Frame::new(names.clone(), columns).expect("a frame");
            assert_eq!(frame.rows().collect::<Vec<_>>(), rows);
            assert_eq!(frame.series(), names);
            assert_eq!(frame.n_rows(), 2);
        }
    }
}
