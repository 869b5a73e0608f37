//! Sampled futures as tables, for other programs: a Parquet file of several windows, or one forecast as CSV or Parquet.

use std::{fs::File, path::Path};

use chrono::{DateTime, Utc};
use forecast::Trajectories;
use polars::prelude::*;

use crate::Error;

/// Number of the window that a trajectory belongs to, from 0 by convention, `i32`.
pub const WINDOW: &str = "window";
/// Number of the draw, from 0, `i32`. The same number is the same draw in every series.
pub const SAMPLE: &str = "sample";
/// Step of the forecast, `i32`: 1 is the first interval at or after the issue time, 0 and below are nowcasts.
pub const STEP: &str = "step";
/// Name of the series.
pub const SERIES: &str = "series";
/// Start of the interval, an instant.
pub const VALID_TIME: &str = "valid_time";
/// The value, in the series' unit, `f64`.
pub const VALUE: &str = "value";

/// Writes the trajectories of several windows, one row per value, ordered by window, sample, step
/// and series. An existing file is replaced.
///
/// # Errors
/// - [`Error::NamesCount`] when there is not one name per series
/// - [`Error::File`], [`Error::Table`] when the file cannot be written
pub fn write_parquet<'a>(
    path: &Path,
    windows: impl IntoIterator<Item = (i32, &'a Trajectories)>,
    series: &[String],
) -> Result<(), Error> {
    let table_error = |source| Error::Table { path: path.to_owned(), source };
    let file = File::create(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let mut writer = ParquetWriter::new(file).batched(&schema()).map_err(table_error)?;
    for (window, trajectories) in windows {
        let table = table(window, trajectories, series)?;
        writer.write_batch(&table).map_err(table_error)?;
    }
    writer.finish().map_err(table_error)?;
    Ok(())
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Comma-separated values, with a header; instants as in RFC 3339.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// The first `n_samples` trajectories of a forecast as a table: `sample` (from 1), `step`, `valid_time`, `series` and
/// `value`, a row per value, by series, sample and step.
///
/// # Errors
/// - [`Error::NamesCount`] when there is not one name per series
/// - [`Error::Columns`] when it cannot be written
pub fn encode(
    trajectories: &Trajectories,
    n_samples: usize,
    valid_times: &[DateTime<Utc>],
    series: &[String],
    encoding: Encoding,
) -> Result<Vec<u8>, Error> {
    let (n_steps, n_series, first_step) = (trajectories.n_steps(), trajectories.n_series(), trajectories.first_step());
    if series.len() != n_series {
        return Err(Error::NamesCount { n_names: series.len(), n_series });
    }
    let n_samples = n_samples.min(trajectories.n_samples());
    let places = || {
        (0..n_series).flat_map(|series| {
            (0..n_samples).flat_map(move |sample| (0..n_steps).map(move |step| (series, sample, step)))
        })
    };
    let times =
        places().map(|(_, _, step)| valid_times.get(step).map(DateTime::timestamp_micros)).collect::<Int64Chunked>();
    let times = times.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
    let n_rows = n_samples * n_steps * n_series;
    let mut table = DataFrame::new(
        n_rows,
        vec![
            Int32Chunked::from_vec(SAMPLE.into(), places().map(|(_, sample, _)| sample as i32 + 1).collect())
                .into_column(),
            Int32Chunked::from_vec(STEP.into(), places().map(|(_, _, step)| first_step + step as i32).collect())
                .into_column(),
            times.into_column().with_name(VALID_TIME.into()),
            StringChunked::from_iter_values(SERIES.into(), places().map(|(index, _, _)| series[index].as_str()))
                .into_column(),
            Float32Chunked::from_vec(
                VALUE.into(),
                places().map(|(series, sample, step)| trajectories.value(sample, step, series)).collect(),
            )
            .into_column(),
        ],
    )?;
    let mut bytes = vec![];
    match encoding {
        Encoding::Csv => {
            CsvWriter::new(&mut bytes).with_datetime_format(Some("%Y-%m-%dT%H:%M:%SZ".into())).finish(&mut table)?
        }
        Encoding::Parquet => {
            ParquetWriter::new(&mut bytes).finish(&mut table)?;
        }
    }
    Ok(bytes)
}

fn schema() -> Schema {
    Schema::from_iter([
        Field::new(WINDOW.into(), DataType::Int32),
        Field::new(SAMPLE.into(), DataType::Int32),
        Field::new(STEP.into(), DataType::Int32),
        Field::new(SERIES.into(), DataType::String),
        Field::new(VALUE.into(), DataType::Float64),
    ])
}

fn table(window: i32, trajectories: &Trajectories, series: &[String]) -> Result<DataFrame, Error> {
    let n_series = trajectories.n_series();
    if series.len() != n_series {
        return Err(Error::NamesCount { n_names: series.len(), n_series });
    }
    let (n_steps, first_step) = (trajectories.n_steps(), trajectories.first_step());
    let n_rows = trajectories.values().len();
    let sample = (0..n_rows).map(|index| (index / (n_steps * n_series)) as i32);
    let step = (0..n_rows).map(|index| first_step + (index / n_series % n_steps) as i32);
    let name = (0..n_rows).map(|index| series[index % n_series].as_str());
    let value = trajectories.values().iter().map(|&value| f64::from(value));
    Ok(DataFrame::new(
        n_rows,
        vec![
            Int32Chunked::from_vec(WINDOW.into(), vec![window; n_rows]).into_column(),
            Int32Chunked::from_vec(SAMPLE.into(), sample.collect()).into_column(),
            Int32Chunked::from_vec(STEP.into(), step.collect()).into_column(),
            StringChunked::from_iter_values(SERIES.into(), name).into_column(),
            Float64Chunked::from_vec(VALUE.into(), value.collect()).into_column(),
        ],
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_under_their_window_sample_step_and_series() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trajectories.parquet");
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let trajectories = Trajectories::new(2, 0, 3, 2, values).expect("whole rows");
        let names = ["a", "b"].map(str::to_owned);
        write_parquet(&path, [(0, &trajectories), (1, &trajectories)], &names).expect("a file");

        let file = File::open(&path).expect("the file");
        let table = ParquetReader::new(file).finish().expect("a table");
        assert_eq!(table.get_column_names(), [WINDOW, SAMPLE, STEP, SERIES, VALUE]);
        assert_eq!(table.height(), 24);
        let row = table.get_row(19).expect("a row").0;
        let expected: [AnyValue; 5] = [1.into(), 1.into(), 0.into(), AnyValue::String("b"), 7.0.into()];
        assert_eq!(row, expected);
    }

    #[test]
    fn a_forecast_is_a_table_by_series_sample_and_step() {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let trajectories = Trajectories::new(2, 0, 3, 2, values).expect("whole rows");
        let times: Vec<_> = (0..3).map(|hour| DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hour)).collect();
        let names = ["a,b", "c"].map(str::to_owned);
        let csv = encode(&trajectories, 1, &times, &names, Encoding::Csv).expect("a table");
        let expected = "sample,step,valid_time,series,value\n\
                        1,0,1970-01-01T00:00:00Z,\"a,b\",0.0\n1,1,1970-01-01T01:00:00Z,\"a,b\",2.0\n\
                        1,2,1970-01-01T02:00:00Z,\"a,b\",4.0\n1,0,1970-01-01T00:00:00Z,c,1.0\n\
                        1,1,1970-01-01T01:00:00Z,c,3.0\n1,2,1970-01-01T02:00:00Z,c,5.0\n";
        assert_eq!(String::from_utf8(csv).expect("text"), expected);
        let parquet = encode(&trajectories, 9, &times, &names, Encoding::Parquet).expect("a table");
        let table = ParquetReader::new(std::io::Cursor::new(parquet)).finish().expect("a table");
        assert_eq!((table.height(), table.get_column_names_owned().len()), (12, 5));
    }

    #[test]
    fn names_must_match() {
        let folder = tempfile::tempdir().expect("a folder");
        let trajectories = Trajectories::new(1, 1, 1, 2, vec![0.0, 1.0]).expect("whole rows");
        let result = write_parquet(&folder.path().join("t.parquet"), [(0, &trajectories)], &["a".to_owned()]);
        assert!(matches!(result, Err(Error::NamesCount { n_names: 1, n_series: 2 })));
    }
}
