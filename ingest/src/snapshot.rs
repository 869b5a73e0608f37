//! The exact data of a training run, kept as a Parquet file that is named by its digest.
//!
//! A model records the digest, so it can be traced to what it saw. The same data give the same file, which is then
//! written once.

use std::path::Path;

use polars::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Error, Panel};

/// Name of the time column.
const VALID_TIME: &str = "valid_time";

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The file, in the format of Parquet.
    pub bytes: Vec<u8>,
}

/// A panel as a wide table: `valid_time`, then a column per series, gaps null.
///
/// # Errors
/// [`Error::Table`] when it cannot be written.
pub fn of(panel: &Panel) -> Result<Snapshot, Error> {
    let bytes = bytes(panel).map_err(|source| Error::Table { path: Path::new("snapshot").into(), source })?;
    let digest = hex::encode(Sha256::digest(&bytes));
    Ok(Snapshot { digest, bytes })
}

fn bytes(panel: &Panel) -> PolarsResult<Vec<u8>> {
    let n_steps = panel.n_steps();
    let micros: Vec<i64> = (0..n_steps).map(|step| panel.valid_time(step).timestamp_micros()).collect();
    let times = Int64Chunked::from_vec(VALID_TIME.into(), micros);
    let mut columns = vec![times.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column()];
    columns.extend(panel.series().iter().enumerate().map(|(series, name)| {
        let values: Vec<f64> = (0..n_steps).map(|step| panel.values().get(step, series)).collect();
        let cells: Vec<Option<f64>> = values.iter().map(|value| (!value.is_nan()).then_some(*value)).collect();
        Column::new(name.as_str().into(), cells)
    }));
    let mut bytes = vec![];
    ParquetWriter::new(&mut bytes).finish(&mut DataFrame::new(n_steps, columns)?)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use chrono_tz::Tz;

    use super::*;
    use crate::{Frequency, Observation, PanelConfig};

    fn panel(last: f64) -> Panel {
        let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
        let observations = [1.0, 2.0, last].into_iter().enumerate().map(|(step, value)| Observation {
            series: 0,
            valid_time: DateTime::UNIX_EPOCH + TimeDelta::hours(2 * step as i64),
            available_at: None,
            value,
            sd: None,
        });
        Panel::from_observations(config, vec!["a".into()], observations).expect("on the grid")
    }

    #[test]
    fn the_same_data_give_the_same_file_and_others_another() {
        let first = of(&panel(3.0)).expect("written");
        assert_eq!(first, of(&panel(3.0)).expect("written"));
        assert_ne!(first.digest, of(&panel(4.0)).expect("written").digest);
    }

    #[test]
    fn gaps_are_null_in_the_file() {
        let file = std::io::Cursor::new(of(&panel(3.0)).expect("written").bytes);
        let table = ParquetReader::new(file).finish().expect("a table");
        assert_eq!((table.height(), table.column("a").expect("a column").null_count()), (5, 2));
    }
}
