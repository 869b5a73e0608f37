//! Sampled futures as a Parquet file, for other programs to score.

use std::{fs::File, path::Path};

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
    fn names_must_match() {
        let folder = tempfile::tempdir().expect("a folder");
        let trajectories = Trajectories::new(1, 1, 1, 2, vec![0.0, 1.0]).expect("whole rows");
        let result = write_parquet(&folder.path().join("t.parquet"), [(0, &trajectories)], &["a".to_owned()]);
        assert!(matches!(result, Err(Error::NamesCount { n_names: 1, n_series: 2 })));
    }
}
