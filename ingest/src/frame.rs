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

impl Row {
    /// What a frame is sorted by, and what is unique in it.
    pub(crate) fn key(&self) -> (usize, DateTime<Utc>, Option<DateTime<Utc>>) {
        (self.series, self.valid_time, self.available_at)
    }
}

impl Frame {
    /// Wraps rows that are already sorted, unique and finite.
    pub(crate) fn new(series: Vec<String>, rows: &[Row]) -> Result<Self, Error> {
        debug_assert!(rows.iter().all(|row| row.series < series.len() && row.value.is_finite()));
        let time =
            |micros: Int64Chunked| micros.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column();
        // A frame has at most 2^32 series: their number is limited where files are read.
        let series_index: Vec<u32> = rows.iter().map(|row| row.series as u32).collect();
        let valid_time = rows.iter().map(|row| row.valid_time.timestamp_micros()).collect();
        let available_at = rows.iter().map(|row| Some(row.available_at?.timestamp_micros()));
        let value: Vec<f64> = rows.iter().map(|row| row.value).collect();
        let sd = rows.iter().map(|row| row.sd);
        let columns = vec![
            Column::new(SERIES.into(), series_index),
            time(Int64Chunked::from_vec(VALID_TIME.into(), valid_time)),
            time(Int64Chunked::from_iter_options(AVAILABLE_AT.into(), available_at)),
            Column::new(VALUE.into(), value),
            Float64Chunked::from_iter_options(SD.into(), sd).into_column(),
        ];
        let data = DataFrame::new(rows.len(), columns)?;
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
        let rows = [
            Row { series: 0, valid_time: t("1969-12-31T23:00:00Z"), available_at: None, value: -1.5, sd: Some(0.1) },
            Row {
                series: 2,
                valid_time: t("2024-01-01T00:00:00.000001Z"),
                available_at: Some(t("2024-01-01T01:00:00Z")),
                value: 2.0,
                sd: None,
            },
        ];
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let frame = Frame::new(names.clone(), &rows).expect("a frame");
        assert_eq!(frame.rows().collect::<Vec<_>>(), rows);
        assert_eq!(frame.series(), names);
        assert_eq!(frame.n_rows(), 2);
    }
}
