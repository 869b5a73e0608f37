//! `plumecast load`: from a file to stored observations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chrono::{TimeDelta, Utc};
use chrono_tz::Tz;
use ingest::pipeline::Watermark;
use ingest::{Duplicates, Frequency, Holidays, Layout, LoadConfig, Loaded};
use serde_json::Map;

use crate::Error;
use crate::config::{DatabaseConfig, Folders, PipelineConfig};
use crate::database::Database;
use crate::db::words::{Kind, Role};
use crate::db::{self, series::NewSeries};
use crate::loading::{self, Stored, Target};
use crate::pipelines::{self, Read};
use crate::scoring::Scored;

/// How a file is read; the same flags for `load` and `backtest`.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Spacing of the grid: 15min, 1h, 1d, B, W, MS, QS, YS or an ISO 8601 duration. Inferred, and echoed, when not given.
    #[arg(long, value_name = "FREQUENCY")]
    pub freq: Option<Frequency>,

    /// Zone of local times and of the calendar, an IANA name.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub time_zone: Tz,

    /// Country whose public holidays models are told of, an ISO 3166 code of two letters, such as ES, or none. Where nothing is said,
    /// a training finds the country whose holidays the values show.
    #[arg(long, value_name = "COUNTRY")]
    pub holidays: Option<Holidays>,

    /// The time column; by default the first one, or one with a usual name.
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,

    /// For a long file: the column with the names of the series.
    #[arg(long, value_name = "COLUMN", requires_all = ["time_column", "value_column"])]
    pub series_column: Option<String>,

    /// For a long file: the column with the values.
    #[arg(long, value_name = "COLUMN", requires_all = ["time_column", "series_column"])]
    pub value_column: Option<String>,

    /// Columns of a long file that say what its series are, the same in all rows of a series: stored with the series.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub attributes: Vec<String>,

    /// Read only rows whose COLUMN holds TEXT, where a file has several panels; more than once for several columns.
    #[arg(long, value_name = "COLUMN=TEXT", value_parser = column_and_text)]
    pub rows: Vec<(String, String)>,

    /// What to do when a series has different values for one time: reject, keep-first or keep-last.
    #[arg(long, value_enum, default_value_t = DuplicatesArg::Reject)]
    pub duplicates: DuplicatesArg,
}

fn column_and_text(argument: &str) -> Result<(String, String), String> {
    let (column, text) = argument.split_once('=').ok_or("is no COLUMN=TEXT")?;
    Ok((column.to_owned(), text.to_owned()))
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
                time: Some(time.clone()),
                value: value.clone(),
                available_at: None,
                sd: None,
            }),
            time_column: self.time_column.clone(),
            attributes: self.attributes.clone(),
            rows: self.rows.iter().cloned().collect(),
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

/// Load a file of measured series, or what a pipeline names.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV or NDJSON, plain or compressed, Parquet or Arrow; wide (a column per series) or long.
    #[arg(required_unless_present_any = ["pipeline", "check"], requires = "panel")]
    pub file: Option<PathBuf>,

    /// Panel that the series belong to; it is made if it does not exist.
    #[arg(long, value_name = "NAME")]
    pub panel: Option<String>,

    /// Run this pipeline instead: read what is new in its source since the last run.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "panel"])]
    pub pipeline: Option<String>,

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

    /// Read and report, but store nothing. With a name: of a pipeline, as its next run would.
    #[arg(long, value_name = "PIPELINE", num_args = 0..=1, default_missing_value = "")]
    pub check: Option<String>,

    /// Where pipelines are.
    #[command(flatten)]
    pub pipelines: PipelineConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// What is to be loaded.
enum What<'a> {
    File { file: &'a Path, panel: &'a str },
    Pipeline(&'a str),
}

impl Args {
    fn what(&self) -> anyhow::Result<What<'_>> {
        let checked = self.check.as_deref().filter(|name| !name.is_empty());
        // `load --check FILE --panel NAME`: the word after the flag is the file.
        let file = self.file.as_deref().or(checked.filter(|_| self.panel.is_some()).map(Path::new));
        match (file, self.panel.as_deref(), self.pipeline.as_deref().or(checked)) {
            (Some(file), Some(panel), _) => Ok(What::File { file, panel }),
            (None, None, Some(pipeline)) => Ok(What::Pipeline(pipeline)),
            _ => bail!("give a file and `--panel`, or the name of a pipeline"),
        }
    }
}

/// Loads a file or runs a pipeline, and prints what was taken and what was not.
///
/// # Errors
/// When the source as a whole cannot be used, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    match args.what()? {
        What::File { file, panel } => load_file(args, file, panel).await,
        What::Pipeline(name) => run_pipeline(args, name).await,
    }
}

/// Loads a file, a long one part by part.
async fn load_file(args: &Args, file: &Path, panel: &str) -> anyhow::Result<()> {
    let mut loading =
        FileLoading { watermark: Watermark::default(), reading: args.reading.load_config(), database: None };
    let done = loop {
        match loading.load_part(args, file, panel).await {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Some(database) = loading.database {
        database.close().await;
    }
    done
}

/// A file that is loaded.
struct FileLoading {
    /// What was read of it.
    watermark: Watermark,
    reading: LoadConfig,
    /// Opened once there is something to store.
    database: Option<Database>,
}

impl FileLoading {
    /// Loads the next part, and says whether more is left.
    async fn load_part(&mut self, args: &Args, file: &Path, panel: &str) -> anyhow::Result<bool> {
        let is_first = self.watermark == Watermark::default();
        let read = pipelines::read_part(file, std::mem::take(&mut self.watermark), &self.reading).await?;
        let more = if is_first { "" } else { " more" };
        let Read { loaded, next, has_more, .. } =
            read.with_context(|| format!("nothing{more} was loaded from {}", file.display()))?;
        self.watermark = next;
        let Some(loaded) = loaded else { return Ok(has_more) };
        print_report(&loaded);
        let series = loaded.frame.series();
        // The series of a long file need not all be in one part.
        let is_here = |name: &&String| (is_first && !has_more) || series.contains(*name);
        let named = |names: &[String]| names.iter().filter(is_here).cloned().collect::<Vec<_>>();
        let roles = super::roles(series, &named(&args.known), &named(&args.past))?;
        // What the first part has inferred holds for all.
        self.reading.frequency = Some(loaded.frequency);
        self.reading.may_be_empty = true;
        if args.check.is_some() {
            println!("nothing stored: --check was given");
            return Ok(has_more);
        }
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(super::open(&args.database).await?),
        };
        let role_of = |name: &str| {
            let position = series.iter().position(|series| series == name)?;
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
            attributes: Map::new(),
        };
        let source = file.to_string_lossy();
        let target = Target {
            publication_delay: args.publication_delay_seconds.map(|seconds| TimeDelta::seconds(i64::from(seconds))),
            holidays: args.reading.holidays,
            ..Target::new(panel, &source, &args.database.data_dir, Utc::now())
        };
        let stored = loading::store(database.pool(), &target, &loaded, declare).await;
        print_stored(&stored.with_context(|| format!("nothing{more} was stored"))?);
        Ok(has_more)
    }
}

async fn run_pipeline(args: &Args, name: &str) -> anyhow::Result<()> {
    let folders = args.pipelines.folders(&args.database);
    let is_check = args.check.is_some();
    let database = super::open(&args.database).await?;
    let done = run_parts(&database, &folders, name, is_check).await;
    database.close().await;
    done.with_context(|| format!("nothing more was loaded by pipeline `{name}`"))
}

/// Runs a pipeline until nothing is left; of a check, once.
async fn run_parts(database: &Database, folders: &Folders, name: &str, is_check: bool) -> Result<(), Error> {
    let declared = pipelines::find(database.pool(), folders, name).await?;
    loop {
        let run = pipelines::run(database.pool(), folders, &declared, is_check, Utc::now()).await?;
        match &run.loaded {
            Some(loaded) => print_report(loaded),
            None => println!("pipeline `{name}`: nothing new"),
        }
        match &run.stored {
            Some(stored) => print_stored(stored),
            None if is_check => println!("nothing stored: --check was given"),
            None => {}
        }
        if is_check && run.has_more {
            println!("this is the first part only: there is more than is read at a time");
        }
        if is_check || !run.has_more {
            return Ok(());
        }
    }
}

fn print_stored(stored: &Stored) {
    let db::load::Loaded { panel, panel_version, counts, .. } = &stored.loaded;
    println!(
        "panel `{}` version {}: {} observations new, {} corrected, {} known already",
        panel.name, panel_version.version, counts.inserted, counts.corrected, counts.unchanged
    );
    match stored.scored {
        Some(Scored { n_values: n_values @ 1.., n_forecasts }) => {
            println!("{n_values} values of stored forecasts scored; {n_forecasts} forecasts are scored completely");
        }
        Some(_) => {}
        None => println!("stored forecasts could not be scored by them; `plumecast score` tries again"),
    }
    if let Some(file) = &stored.quarantine {
        println!("rows that were not taken are in {file} in the data folder");
    }
}

/// Prints what a load found in its file.
pub(super) fn print_report(loaded: &Loaded) {
    let report = &loaded.report;
    let inferred = if report.frequency_inferred { " (inferred)" } else { "" };
    println!(
        "{}{}: {} rows, {} series, frequency {}{inferred}, time zone {}, {} values taken, {} gaps",
        report.file,
        if report.n_files > 1 { format!(" and {} more", report.n_files - 1) } else { String::new() },
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
    for (notice, n) in &report.noticed.n_findings {
        println!("  {n} × {notice}, which may be wrong");
    }
    for finding in &report.noticed.findings {
        println!("    {finding}");
    }
}
