//! From a validated frame to stored observations, with a record of what was and was not taken.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use ingest::{Holidays, LoadConfig, Loaded};
use serde_json::Value as Json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Error, blocking,
    db::{
        self, DEFAULT_TENANT,
        load::{Load, Record, Value},
        panel::NewPanel,
        pipeline::NewWatermark,
        series::NewSeries,
    },
    scoring::{self, Scored},
};

/// Folder of rejected rows below the data folder.
const QUARANTINE: &str = "quarantine";

/// Where a load comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Name of the panel; it is made if it does not exist.
    pub panel: &'a str,
    /// What the record says of the source: a file, a pattern, `push`.
    pub source: &'a str,
    /// How long after the end of its interval a value is usually known; `None` keeps what is stored.
    pub publication_delay: Option<TimeDelta>,
    /// The public holidays that models are told of; `None` keeps what is stored.
    pub holidays: Option<Holidays>,
    /// The pipeline that runs.
    pub pipeline_id: Option<i32>,
    /// What it will have read when this load is stored.
    pub watermark: Option<&'a NewWatermark<'a>>,
    /// Folder below which rejected rows are kept.
    pub data_dir: &'a Path,
    /// When the load began: from when on corrections are known.
    pub load_time: DateTime<Utc>,
}

impl<'a> Target<'a> {
    /// A source by itself, which says no more of its panel.
    #[must_use]
    pub fn new(panel: &'a str, source: &'a str, data_dir: &'a Path, load_time: DateTime<Utc>) -> Self {
        Self {
            panel,
            source,
            publication_delay: None,
            holidays: None,
            pipeline_id: None,
            watermark: None,
            data_dir,
            load_time,
        }
    }
}

/// What was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Identifier of the record.
    pub load_id: Uuid,
    /// What became of the values.
    pub loaded: db::load::Loaded,
    /// File with the rows that were not taken, below the data folder.
    pub quarantine: Option<String>,
    /// Stored forecasts that were scored by the values; `None` when that failed, as the log says.
    pub scored: Option<Scored>,
}

/// Takes frequency and time zone from the panel, if it exists, where the request does not say them.
///
/// # Errors
/// When the database fails, or holds a panel that this version cannot read.
pub async fn follow_panel(
    pool: &PgPool,
    panel: &str,
    has_time_zone: bool,
    config: &mut LoadConfig,
) -> Result<(), Error> {
    let Some(stored) = db::panel::get(pool, DEFAULT_TENANT, panel).await? else { return Ok(()) };
    if config.frequency.is_none() {
        let frequency = stored.frequency.parse();
        config.frequency = Some(frequency.map_err(|error| Error::internal("reading a panel's frequency", error))?);
    }
    if !has_time_zone {
        let time_zone = stored.time_zone.parse();
        config.time_zone = time_zone.map_err(|_| Error::internal("reading a panel's time zone", stored.time_zone))?;
    }
    Ok(())
}

/// Stores a frame as observations of a panel, and its record: all of it or nothing, and no value twice. Rows that were
/// not taken go to a file.
///
/// `declare` says what is known of a series by its name.
///
/// # Errors
/// [`Error::UnusableData`] for what the data or a declaration say that cannot be stored; those of [`db::load::load`]; when
/// the file cannot be written. They are kept on record.
pub async fn store(
    pool: &PgPool,
    target: &Target<'_>,
    loaded: &Loaded,
    declare: impl Fn(&str) -> NewSeries,
) -> Result<Stored, Error> {
    let stored = store_all(pool, target, loaded, declare).await;
    if let Err(error) = &stored
        && let Err(second) = record_failure(pool, target, &error.to_string()).await
    {
        // The database is what failed.
        tracing::warn!(panel = target.panel, "cannot keep a failed load on record: {second}");
    }
    stored
}

async fn store_all(
    pool: &PgPool,
    target: &Target<'_>,
    loaded: &Loaded,
    declare: impl Fn(&str) -> NewSeries,
) -> Result<Stored, Error> {
    let (frequency, time_zone) = (loaded.frequency, loaded.time_zone);
    // What the data say of a series goes before what is declared of it.
    let declare = |(name, said): (&String, &BTreeMap<String, String>)| {
        let mut series = declare(name);
        series.attributes.extend(said.iter().map(|(name, text)| (name.clone(), Json::from(text.as_str()))));
        series
    };
    let series: Vec<NewSeries> = loaded.frame.series().iter().zip(&loaded.attributes).map(declare).collect();
    // Rows of one series follow one another in time: mostly the end of one interval is the start of the next.
    let mut interval = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MIN_UTC);
    let values = loaded.frame.rows().map(move |row| {
        if interval.0 != row.valid_time {
            interval = (row.valid_time, frequency.advance(row.valid_time, 1, time_zone));
        }
        Value {
            series: row.series,
            valid_time: row.valid_time,
            interval_end: interval.1,
            available_at: row.available_at,
            value: row.value,
            sd: row.sd,
        }
    });
    let holidays = target.holidays.map(|holidays| holidays.to_string());
    let panel = NewPanel {
        name: target.panel,
        frequency: &frequency.to_string(),
        time_zone: time_zone.name(),
        publication_delay: target.publication_delay,
        holidays: holidays.as_deref(),
    };
    let load = Load { panel, series: &series, values, load_time: target.load_time };
    let load_id = Uuid::now_v7();
    let quarantine = keep_rejected(target.data_dir, load_id, loaded).await?;
    let report = report(loaded)?;
    let record = Record { quarantine: quarantine.as_deref(), ..record(target, load_id, Some(&report), loaded) };
    let stored = db::load::load_on_record(pool, DEFAULT_TENANT, &load, &record, target.watermark).await;
    if let (Err(_), Some(file)) = (&stored, &quarantine) {
        // Nothing refers to it; it may stay if the disk refuses.
        let _ = std::fs::remove_file(target.data_dir.join(file));
    }
    let stored = stored.map_err(|error| refusal(error, target.panel))?;
    // The values are stored whatever becomes of the scores, which can be computed at any time.
    let scored = scoring::after_load(pool, &stored.panel, loaded, target.load_time).await;
    let scored =
        scored.inspect_err(|error| tracing::warn!(panel = target.panel, "cannot score forecasts: {error}")).ok();
    Ok(Stored { load_id, loaded: stored, quarantine, scored })
}

/// Why a load was not stored: what is wrong with the data or what is declared of them, or something else.
fn refusal(error: db::Error, panel: &str) -> Error {
    let reason = match error {
        db::Error::NoSeries { .. } => format!("panel `{panel}` does not exist yet, and the data name no series for it"),
        db::Error::NotAllowed { .. } | db::Error::ContradictoryBounds { .. } => error.to_string(),
        error => return error.into(),
    };
    Error::UnusableData { reason, errors: Vec::new() }
}

/// Keeps on record that nothing was stored of what was read, and why. Rows that were rejected go to a file all the same.
///
/// # Errors
/// When the database fails, or the file cannot be written.
pub async fn record_refusal(pool: &PgPool, target: &Target<'_>, loaded: &Loaded, failure: &str) -> Result<Uuid, Error> {
    let load_id = Uuid::now_v7();
    let quarantine = keep_rejected(target.data_dir, load_id, loaded).await?;
    let report = report(loaded)?;
    let record = Record { quarantine: quarantine.as_deref(), ..record(target, load_id, Some(&report), loaded) };
    db::load::insert_failed(pool, DEFAULT_TENANT, &record, failure).await?;
    Ok(load_id)
}

/// Keeps on record that nothing could be read, and why.
///
/// # Errors
/// When the database fails.
pub async fn record_failure(pool: &PgPool, target: &Target<'_>, failure: &str) -> Result<Uuid, Error> {
    let load_id = Uuid::now_v7();
    let record = Record {
        load_id,
        panel: target.panel,
        source: target.source,
        pipeline_id: target.pipeline_id,
        report: None,
        n_rejected: 0,
        quarantine: None,
        started_at: target.load_time,
    };
    db::load::insert_failed(pool, DEFAULT_TENANT, &record, failure).await?;
    Ok(load_id)
}

/// The report as it is stored and answered.
///
/// # Errors
/// When it cannot be written as JSON, which no report of ours does.
pub fn report(loaded: &Loaded) -> Result<Json, Error> {
    serde_json::to_value(&loaded.report).map_err(|error| Error::internal("writing a report", error))
}

fn record<'a>(target: &Target<'a>, load_id: Uuid, report: Option<&'a Json>, loaded: &Loaded) -> Record<'a> {
    Record {
        load_id,
        panel: target.panel,
        source: target.source,
        pipeline_id: target.pipeline_id,
        report,
        n_rejected: loaded.report.n_lost(),
        quarantine: None,
        started_at: target.load_time,
    }
}

/// Writes the rejected rows, if there are any, and gives the name of the file below the data folder.
async fn keep_rejected(data_dir: &Path, load_id: Uuid, loaded: &Loaded) -> Result<Option<String>, Error> {
    if loaded.quarantine.n_rows() == 0 {
        return Ok(None);
    }
    let name = format!("{QUARANTINE}/{load_id}.parquet");
    let (path, rows) = (data_dir.join(&name), loaded.quarantine.clone());
    let written = blocking::run("keeping rejected rows", move || rows.write(&path)).await?;
    written.map_err(|error| Error::internal("keeping rejected rows", error))?;
    Ok(Some(name))
}
