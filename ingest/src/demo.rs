//! The two real data sets that `plumecast demo` shows, with their licences in `ingest/data/README.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chrono_tz::{Australia, Europe, Tz};
use forecast::Bounds;

use crate::{Error, Frequency, LoadConfig};

/// What a value of a series means over its interval; decides how it aggregates over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The mean over the interval.
    Mean,
    /// The total of the interval.
    Sum,
    /// The value at the start of the interval.
    Point,
}

impl Kind {
    /// `mean`, `sum` or `point`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mean => "mean",
            Kind::Sum => "sum",
            Kind::Point => "point",
        }
    }
}

/// A data set inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct Dataset {
    /// Name of the panel.
    pub name: &'static str,
    /// Name of the file.
    pub file_name: &'static str,
    /// The file: gzipped wide CSV.
    pub bytes: &'static [u8],
    /// What it is, in a sentence.
    pub description: &'static str,
    /// Licence of the data, as an SPDX identifier.
    pub license: &'static str,
    /// The grid.
    pub frequency: Frequency,
    /// Zone whose calendar the grid follows.
    pub time_zone: Tz,
    /// What a value means over its interval.
    pub kind: Kind,
    /// The series, in the order of the file's columns.
    pub series: &'static [Series],
}

/// A series of a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Name of the column.
    pub name: &'static str,
    /// Unit of its values.
    pub unit: &'static str,
    /// Declared range.
    pub bounds: Bounds,
}

impl Dataset {
    /// How its file is read.
    pub fn load_config(&self) -> LoadConfig {
        LoadConfig { time_zone: self.time_zone, frequency: Some(self.frequency), ..LoadConfig::default() }
    }

    /// Writes its file into a folder, unless it is there already, and returns its path.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be read or written.
    pub fn write_to(&self, folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join(self.file_name);
        if fs::read(&path).is_ok_and(|bytes| bytes == self.bytes) {
            return Ok(path);
        }
        fs::write(&path, self.bytes).map_err(|source| Error::File { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Both data sets.
pub const ALL: [&Dataset; 2] = [&AIR_QUALITY, &TOURISM];

/// Air quality and wind at a station in Valencia (Spain), hourly, July 2021 to December 2023, with the gaps of the source.
pub const AIR_QUALITY: Dataset = Dataset {
    name: "air_quality",
    file_name: "air_quality_valencia.csv.gz",
    bytes: include_bytes!("../data/air_quality_valencia.csv.gz"),
    description: "Air pollutants and wind at a station in Valencia, Spain: hourly means",
    license: "BSD-3-Clause",
    frequency: Frequency::HOUR,
    time_zone: Europe::Madrid,
    kind: Kind::Mean,
    series: &[
        series("so2", "µg/m³", 0.0, None),
        series("co", "mg/m³", 0.0, None),
        series("no", "µg/m³", 0.0, None),
        series("no2", "µg/m³", 0.0, None),
        series("pm10", "µg/m³", 0.0, None),
        series("nox", "µg/m³", 0.0, None),
        series("o3", "µg/m³", 0.0, None),
        series("wind_speed", "m/s", 0.0, None),
        series("wind_direction", "°", 0.0, Some(360.0)),
        series("pm2.5", "µg/m³", 0.0, None),
    ],
};

/// Nights that Australians spent away from home, by state and purpose, monthly, 1998 to 2016. The
/// 28 series add up to the country's total.
pub const TOURISM: Dataset = Dataset {
    name: "tourism",
    file_name: "australia_tourism.csv.gz",
    bytes: include_bytes!("../data/australia_tourism.csv.gz"),
    description: "Nights spent by domestic visitors in Australia, by state and purpose of travel: monthly sums",
    license: "Apache-2.0",
    frequency: Frequency::Month,
    time_zone: Australia::Sydney,
    kind: Kind::Sum,
    series: &[
        nights("nsw_holiday"),
        nights("nsw_visiting"),
        nights("nsw_business"),
        nights("nsw_other"),
        nights("vic_holiday"),
        nights("vic_visiting"),
        nights("vic_business"),
        nights("vic_other"),
        nights("qld_holiday"),
        nights("qld_visiting"),
        nights("qld_business"),
        nights("qld_other"),
        nights("sa_holiday"),
        nights("sa_visiting"),
        nights("sa_business"),
        nights("sa_other"),
        nights("wa_holiday"),
        nights("wa_visiting"),
        nights("wa_business"),
        nights("wa_other"),
        nights("tas_holiday"),
        nights("tas_visiting"),
        nights("tas_business"),
        nights("tas_other"),
        nights("nt_holiday"),
        nights("nt_visiting"),
        nights("nt_business"),
        nights("nt_other"),
    ],
};

const fn series(name: &'static str, unit: &'static str, lower: f64, upper: Option<f64>) -> Series {
    Series { name, unit, bounds: Bounds { lower: Some(lower), upper } }
}

const fn nights(name: &'static str) -> Series {
    series(name, "thousand nights", 0.0, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Panel, PanelConfig, load};

    fn check(dataset: &Dataset, n_steps: usize, n_gaps: u64) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = dataset.write_to(folder.path()).expect("a file");
        let loaded = load(&path, &dataset.load_config()).expect("a frame");
        let inferred = load(&path, &LoadConfig { frequency: None, ..dataset.load_config() }).expect("a frame");
        assert_eq!(inferred.frequency, dataset.frequency);
        assert_eq!(loaded.report.n_lost(), 0);
        assert_eq!(loaded.report.n_gaps, n_gaps);
        assert!(dataset.series.iter().map(|series| series.name).eq(loaded.frame.series()));

        let config = PanelConfig::new(dataset.name, loaded.frequency, loaded.time_zone);
        let panel = Panel::from_frame(config, &loaded.frame).expect("a panel");
        assert_eq!(panel.n_steps(), n_steps);
        for row in loaded.frame.rows() {
            assert_eq!(dataset.series[row.series].bounds.clip(row.value), row.value);
        }
    }

    #[test]
    fn air_quality_loads_with_its_gaps() {
        check(&AIR_QUALITY, 21_936, 7_182);
    }

    #[test]
    fn tourism_loads_without_gaps() {
        check(&TOURISM, 228, 0);
    }

    #[test]
    fn both_are_small_enough_to_ship() {
        assert!(ALL.iter().map(|dataset| dataset.bytes.len()).sum::<usize>() <= 500_000);
    }
}
