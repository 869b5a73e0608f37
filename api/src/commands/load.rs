//! `plumecast load`: from a file to stored observations.

use std::path::PathBuf;

use anyhow::Context;
use chrono::{TimeDelta, Utc};
use chrono_tz::Tz;
use ingest::{Duplicates, Frequency, Layout, LoadConfig, Loaded};

use crate::config::DatabaseConfig;
use crate::db::series::NewSeries;
use crate::db::words::{Kind, Role};
use crate::loading;
use crate::scoring::{self, Scored};

/// How a file is read; the same flags for `load` and `backtest`.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Spacing of the grid: 15min, 1h, 1d, B, W, MS, QS, YS or an ISO 8601 duration. Inferred, and echoed, when not given.
    #[arg(long, value_name = "FREQUENCY")]
    pub freq: Option<Frequency>,

    /// Zone of local times and of the calendar, an IANA name.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub time_zone: Tz,

    /// The time column; by default the first one, or one with a usual name.
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,

    /// For a long file: the column with the names of the series.
    #[arg(long, value_name = "COLUMN", requires_all = ["time_column", "value_column"])]
    pub series_column: Option<String>,

    /// For a long file: the column with the values.
    #[arg(long, value_name = "COLUMN", requires_all = ["time_column", "series_column"])]
    pub value_column: Option<String>,

    /// What to do when a series has different values for one time: reject, keep-first or keep-last.
    #[arg(long, value_enum, default_value_t = DuplicatesArg::Reject)]
    pub duplicates: DuplicatesArg,
}

/// What to do with different values for one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DuplicatesArg {
    /// Take none of them.
    Reject,
    /// Take the first in the file.
    KeepFirst,
    /// Take the last in the file.
    KeepLast,
}

impl FileArgs {
    /// The configuration of the reader.
    pub fn load_config(&self) -> LoadConfig {
        let long = self.time_column.as_ref().zip(self.series_column.as_ref()).zip(self.value_column.as_ref());
        LoadConfig {
            layout: long.map(|((time, series), value)| Layout::Long {
                series: series.clone(),
                time: time.clone(),
                value: value.clone(),
            }),
            time_column: self.time_column.clone(),
            time_zone: self.time_zone,
            frequency: self.freq,
            duplicates: match self.duplicates {
                DuplicatesArg::Reject => Duplicates::Reject,
                DuplicatesArg::KeepFirst => Duplicates::KeepFirst,
                DuplicatesArg::KeepLast => Duplicates::KeepLast,
            },
            ..LoadConfig::default()
        }
    }
}

/// Load a file of measured series.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV, gzipped CSV or Parquet; wide (a column per series) or long.
    pub file: PathBuf,

    /// Panel that the series belong to; it is made if it does not exist.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// How the file is read.
    #[command(flatten)]
    pub reading: FileArgs,

    /// What a value means over its interval: mean, sum or point.
    #[arg(long)]
    pub kind: Option<Kind>,

    /// Role of all series: target, known or past.
    #[arg(long)]
    pub role: Option<Role>,

    /// Series that are covariates whose future is supplied.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "role")]
    pub known: Vec<String>,

    /// Series that are covariates of which only the past helps.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "role")]
    pub past: Vec<String>,

    /// Unit of the series.
    #[arg(long)]
    pub unit: Option<String>,

    /// No value of any series is below this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub lower_bound: Option<f64>,

    /// No value of any series is above this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub upper_bound: Option<f64>,

    /// Seconds after the end of its interval at which a value is usually known.
    #[arg(long, value_name = "SECONDS")]
    pub publication_delay_seconds: Option<u32>,

    /// Read and report, but store nothing.
    #[arg(long)]
    pub check: bool,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Loads the file and prints what was taken and what was not.
///
/// # Errors
/// When the file as a whole cannot be used, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let (path, reading) = (args.file.clone(), args.reading.load_config());
    let loaded = tokio::task::spawn_blocking(move || ingest::load(&path, &reading))
        .await
        .context("reading the file")?
        .with_context(|| format!("nothing was loaded from {}", args.file.display()))?;
    print_report(&loaded);
    let roles = super::roles(loaded.frame.series(), &args.known, &args.past)?;
    if args.check {
        println!("nothing stored: --check was given");
        return Ok(());
    }
    let database = super::open(&args.database).await?;
    let role_of = |name: &str| {
        let position = loaded.frame.series().iter().position(|series| series == name)?;
        roles.get(position).map(|&role| role.into())
    };
    let declare = |name: &str| NewSeries {
        name: name.to_owned(),
        role: role_of(name).or(args.role),
        kind: args.kind,
        unit: args.unit.clone(),
        lower_bound: args.lower_bound,
        upper_bound: args.upper_bound,
        is_integer: None,
    };
    let delay = args.publication_delay_seconds.map(|seconds| TimeDelta::seconds(i64::from(seconds)));
    let now = Utc::now();
    let stored = loading::store(database.pool(), &args.panel, delay, &loaded, declare, now).await;
    let scored = match &stored {
        Ok(stored) => Some(scoring::after_load(database.pool(), &stored.panel, &loaded, now).await),
        Err(_) => None,
    };
    database.close().await;
    let stored = stored.context("nothing was stored")?;
    let counts = &stored.counts;
    println!(
        "panel `{}` version {}: {} observations new, {} corrected, {} known already",
        stored.panel.name, stored.panel_version.version, counts.inserted, counts.corrected, counts.unchanged
    );
    let scored =
        scored.transpose().context("the observations are stored, but forecasts could not be scored by them")?;
    if let Some(Scored { n_values: n_values @ 1.., n_forecasts }) = scored {
        println!("{n_values} values of stored forecasts scored; {n_forecasts} forecasts are scored completely");
    }
    Ok(())
}

/// Prints what a load found in its file.
pub(super) fn print_report(loaded: &Loaded) {
    let report = &loaded.report;
    let inferred = if report.frequency_inferred { " (inferred)" } else { "" };
    println!(
        "{}: {} rows, {} series, frequency {}{inferred}, time zone {}, {} values taken, {} gaps",
        report.file,
        report.rows_read,
        report.n_series,
        report.frequency,
        report.time_zone,
        report.accepted,
        report.n_gaps
    );
    if report.n_unordered > 0 {
        println!("  {} rows were out of order and have been sorted", report.n_unordered);
    }
    if report.last_days_moved {
        println!("  times are last days of their periods and stand for the start of them");
    }
    for (reason, n) in &report.n_rejected {
        println!("  {n} × {reason}");
    }
    for rejection in &report.rejected {
        println!("    {rejection}");
    }
}
