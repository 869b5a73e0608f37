//! How fast sources become validated frames, beside Polars collecting the same file and checking nothing.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use forecast::History;
use polars::prelude::*;

use crate::{Error, Frequency, LoadConfig, Loaded, Observation, Panel, PanelConfig, load, snapshot, whole};

/// Series of the generated data.
const N_SERIES: usize = 1_000;
/// Size of the panel whose snapshot is read: as in the measurements of the model.
const SNAPSHOT_SERIES: usize = 8;
const SNAPSHOT_HOURS: usize = 2_200;
/// Runs of which the fastest counts: other work on the machine only makes them slower.
const N_RUNS: usize = 3;

/// A rate of ours beside that of Polars alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The format.
    pub name: &'static str,
    /// Observations per second, ours.
    pub value: f64,
    /// Observations per second, Polars alone.
    pub reference_value: f64,
    /// Bytes of the file.
    pub n_bytes: u64,
}

/// Generated files with the same observations: long, hourly, sorted by series and time.
#[derive(Debug)]
pub struct Files {
    csv: PathBuf,
    parquet: PathBuf,
    n_rows: usize,
}

impl Files {
    /// Writes about `n_rows` observations of 1 000 series into a folder.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Table`] when they cannot be written.
    pub fn generate(folder: &Path, n_rows: usize) -> Result<Self, Error> {
        let n_hours = (n_rows / N_SERIES).max(1);
        let n_rows = n_hours * N_SERIES;
        let (csv, parquet) = (folder.join("observations.csv"), folder.join("observations.parquet"));
        let file_error = |source| Error::File { path: csv.clone(), source };
        let mut writer = BufWriter::new(File::create(&csv).map_err(file_error)?);
        writeln!(writer, "series,valid_time,value").map_err(file_error)?;
        for series in 0..N_SERIES {
            for hour in 0..n_hours {
                let time = time(hour).format("%FT%TZ");
                writeln!(writer, "meter_{series:04},{time},{:.3}", value(series, hour)).map_err(file_error)?;
            }
        }
        writer.flush().map_err(file_error)?;

        let cells = || (0..N_SERIES).flat_map(|series| (0..n_hours).map(move |hour| (series, hour)));
        let meters: Vec<String> = (0..N_SERIES).map(|series| format!("meter_{series:04}")).collect();
        let names: Vec<&str> = cells().map(|(series, _)| meters[series].as_str()).collect();
        let times: Vec<i64> = cells().map(|(_, hour)| time(hour).timestamp_micros()).collect();
        let values: Vec<f64> = cells().map(|(series, hour)| value(series, hour)).collect();
        let times = Int64Chunked::from_vec("valid_time".into(), times);
        let times = times.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column();
        let columns = vec![Column::new("series".into(), names), times, Column::new("value".into(), values)];
        let table_error = |source| Error::Table { path: parquet.clone(), source };
        let file = File::create(&parquet).map_err(|source| Error::File { path: parquet.clone(), source })?;
        ParquetWriter::new(file).finish(&mut DataFrame::new(n_rows, columns)?).map_err(table_error)?;
        Ok(Self { csv, parquet, n_rows })
    }

    /// Observations of each file.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The CSV file.
    pub fn csv(&self) -> &Path {
        &self.csv
    }

    /// Reads the CSV file as a load does.
    ///
    /// # Errors
    /// Those of [`load`].
    pub fn load_csv(&self) -> Result<Loaded, Error> {
        load(&self.csv, &config(self.n_rows))
    }

    /// Measures both formats.
    ///
    /// # Errors
    /// Those of [`load`], and of Polars.
    pub fn measure(&self) -> Result<[Measurement; 2], Error> {
        let csv = |path: PlRefPath| LazyCsvReader::new(path).with_glob(false).finish();
        let parquet =
            |path: PlRefPath| LazyFrame::scan_parquet(path, ScanArgsParquet { glob: false, ..Default::default() });
        Ok([self.compare("CSV", &self.csv, csv)?, self.compare("Parquet", &self.parquet, parquet)?])
    }

    /// Writes the snapshot of a panel, and reads it as training would: the history in it, and the seconds that this took.
    ///
    /// # Errors
    /// Those of [`snapshot::of`] and [`load`]; [`Error::File`].
    pub fn read_snapshot(folder: &Path) -> Result<(History, f64), Error> {
        let series: Vec<String> = (0..SNAPSHOT_SERIES).map(|series| format!("meter_{series:04}")).collect();
        let cells = (0..SNAPSHOT_SERIES).flat_map(|series| (0..SNAPSHOT_HOURS).map(move |hour| (series, hour)));
        let observations = cells.map(|(series, hour)| Observation {
            series,
            valid_time: time(hour),
            available_at: None,
            value: value(series, hour),
            sd: None,
        });
        let panel_config = || PanelConfig::new("bench", Frequency::HOUR, Tz::UTC);
        let panel = Panel::from_observations(panel_config(), series, observations)?;
        let path = folder.join("snapshot.parquet");
        whole::write(&path, &snapshot::of(&panel)?.bytes)?;
        let start = Instant::now();
        let loaded = load(&path, &config(SNAPSHOT_HOURS))?;
        let history = Panel::from_frame(panel_config(), &loaded.frame)?.history()?;
        Ok((history, start.elapsed().as_secs_f64()))
    }

    fn compare(
        &self,
        name: &'static str,
        path: &Path,
        scan: impl Fn(PlRefPath) -> PolarsResult<LazyFrame>,
    ) -> Result<Measurement, Error> {
        let config = config(self.n_rows);
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..N_RUNS {
            let start = Instant::now();
            let loaded = load(path, &config)?;
            ours = ours.min(start.elapsed().as_secs_f64());
            drop(loaded);
            let start = Instant::now();
            let table = scan(PlRefPath::try_from_path(path)?)?.collect()?;
            theirs = theirs.min(start.elapsed().as_secs_f64());
            drop(table);
        }
        let n_rows = self.n_rows as f64;
        let metadata = fs::metadata(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Measurement { name, value: n_rows / ours, reference_value: n_rows / theirs, n_bytes: metadata.len() })
    }
}

fn config(n_rows: usize) -> LoadConfig {
    let mut config = LoadConfig { frequency: Some(Frequency::HOUR), ..LoadConfig::default() };
    config.limits.n_rows_max = config.limits.n_rows_max.max(n_rows);
    config.limits.n_cells_max = config.limits.n_cells_max.max(3 * n_rows);
    config
}

fn time(hour: usize) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::hours(hour as i64)
}

/// A day's course with noise, to three decimals: repeatable, and nowhere the same, as what is measured is.
fn value(series: usize, hour: usize) -> f64 {
    // SplitMix64 (Steele, Lea and Flood 2014), of which 53 bits make a number below 1.
    let mut bits = ((series as u64) << 32 | hour as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let noise = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    let course = (hour as f64 / 24.0 * std::f64::consts::TAU).sin();
    let thousandths = (1_000.0 * (60.0 + series as f64 / 10.0 + 20.0 * course + 25.0 * noise)).round();
    thousandths / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_hold_the_same_and_both_are_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::generate(folder.path(), 3_999).expect("files");
        assert_eq!(files.n_rows(), 3_000);
        let frame = files.load_csv().expect("a frame").frame;
        assert_eq!(frame, load(&files.parquet, &config(3_000)).expect("a frame").frame);
        assert_eq!(frame.n_rows(), 3_000);
        let (history, seconds) = Files::read_snapshot(folder.path()).expect("a history");
        assert_eq!((history.values.n_steps(), history.values.n_series()), (SNAPSHOT_HOURS, SNAPSHOT_SERIES));
        assert!(seconds > 0.0 && history.values.get(7, 3) == value(3, 7));
        for measured in files.measure().expect("rates") {
            assert!(measured.value > 0.0 && measured.reference_value > 0.0 && measured.n_bytes > 10_000);
        }
    }
}
