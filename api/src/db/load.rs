//! A load: everything that one file or request brings, in one transaction, and the record of it.

use std::borrow::Borrow;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::copy::take_time;
use super::observation::{Counts, NewObservation};
use super::panel::{NewPanel, Panel};
use super::panel_version::PanelVersion;
use super::partition::Partitioned;
use super::series::NewSeries;
use super::words::Role;
use super::{Error, observation, panel, panel_version, partition, pipeline, series};

/// How long before its interval a value of a known covariate counts as known where the source does not say: far longer than
/// any horizon.
const KNOWN_AHEAD: TimeDelta = TimeDelta::days(3653);

/// One value of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Index of its series in [`Load::series`].
    pub series: usize,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// End of that interval, by the panel's frequency and time zone.
    pub interval_end: DateTime<Utc>,
    /// When the value became known, if the source says so.
    pub available_at: Option<DateTime<Utc>>,
    /// The value, in the unit of its series.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
}

/// What to load.
#[derive(Debug, Clone, PartialEq)]
pub struct Load<'a, V = &'a [Value]> {
    /// The panel; it is made if it does not exist.
    pub panel: NewPanel<'a>,
    /// The series that the values belong to; those that do not exist are made.
    pub series: &'a [NewSeries],
    /// The values, in any order; they are gone through some at a time, and more than once.
    pub values: V,
    /// From when corrections are known: now.
    pub load_time: DateTime<Utc>,
}

/// What a load has done.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The panel.
    pub panel: Panel,
    /// The version that lists all series of the panel. It is a new one if the load brought a new series.
    pub panel_version: PanelVersion,
    /// Identifiers of [`Load::series`].
    pub series_ids: Vec<i32>,
    /// What became of the values.
    pub counts: Counts,
}

/// What is kept on record of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// A version 7 UUID.
    pub load_id: Uuid,
    /// Name of the panel.
    pub panel: &'a str,
    /// The file, the pattern, or `push`.
    pub source: &'a str,
    /// The pipeline that ran.
    pub pipeline_id: Option<i32>,
    /// What was taken and what was not; `None` when nothing could be read.
    pub report: Option<&'a serde_json::Value>,
    /// Rows and cells that were not taken.
    pub n_rejected: u64,
    /// File with the rows that were not taken, below the data folder.
    pub quarantine: Option<&'a str>,
    /// When it began.
    pub started_at: DateTime<Utc>,
}

/// Stores all of it, or nothing. A second load of the same changes nothing.
///
/// A plan, a price or a holiday is known ahead: the first value of a known covariate whose source does not say when it became
/// known counts as known ten years before its interval.
///
/// # Errors
/// Those of [`panel::ensure`], [`series::ensure`] and [`observation::insert`].
///
/// # Panics
/// When a value refers to a series that is not listed.
pub async fn load<V>(pool: &PgPool, tenant_id: i32, load: &Load<'_, V>) -> Result<Loaded, Error>
where
    V: IntoIterator<Item: Borrow<Value>, IntoIter: Send> + Clone + Send + Sync,
{
    partition::ensure(pool, Partitioned::Observation, valid_times(load)).await?;
    let mut transaction = pool.begin().await?;
    let loaded = write(&mut transaction, tenant_id, load).await?;
    transaction.commit().await?;
    Ok(loaded)
}

/// As [`load`], together with its record and, for a run of a pipeline, what it has read.
///
/// # Errors
/// Those of [`load`].
pub async fn load_on_record<V>(
    pool: &PgPool,
    tenant_id: i32,
    load: &Load<'_, V>,
    record: &Record<'_>,
    watermark: Option<&pipeline::NewWatermark<'_>>,
) -> Result<Loaded, Error>
where
    V: IntoIterator<Item: Borrow<Value>, IntoIter: Send> + Clone + Send + Sync,
{
    partition::ensure(pool, Partitioned::Observation, valid_times(load)).await?;
    let mut transaction = pool.begin().await?;
    let loaded = write(&mut transaction, tenant_id, load).await?;
    insert(&mut *transaction, tenant_id, record, loaded.counts, None).await?;
    if let Some(watermark) = watermark {
        pipeline::set_watermark(&mut *transaction, tenant_id, watermark).await?;
    }
    transaction.commit().await?;
    Ok(loaded)
}

/// Keeps a load on record that stored nothing, and why.
///
/// # Errors
/// When the database fails.
pub async fn insert_failed(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    record: &Record<'_>,
    failure: &str,
) -> Result<(), Error> {
    insert(db, tenant_id, record, Counts::default(), Some(failure)).await
}

async fn insert(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    record: &Record<'_>,
    counts: Counts,
    failure: Option<&str>,
) -> Result<(), Error> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "insert into load (tenant_id, load_id, panel, pipeline_id, source, status, failure,
             n_inserted, n_corrected, n_unchanged, n_rejected, report, quarantine, started_at)
         values ($1, $2, $3, $4, $5, case when $6::text is null then 'succeeded' else 'failed' end, $6,
             $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(tenant_id)
    .bind(record.load_id)
    .bind(record.panel)
    .bind(record.pipeline_id)
    .bind(record.source)
    .bind(failure)
    .bind(count(counts.inserted))
    .bind(count(counts.corrected))
    .bind(count(counts.unchanged))
    .bind(count(record.n_rejected))
    .bind(record.report)
    .bind(record.quarantine)
    .bind(record.started_at)
    .execute(db)
    .await?;
    Ok(())
}

/// A load on record.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Recorded {
    /// Identifier; sorts by time.
    pub load_id: Uuid,
    /// Name of the panel.
    pub panel: String,
    /// Name of the pipeline that ran.
    pub pipeline: Option<String>,
    /// The file, the pattern, or `push`.
    pub source: String,
    /// `succeeded` or `failed`.
    pub status: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// First values of their series and time.
    pub n_inserted: i64,
    /// Values that replaced another.
    pub n_corrected: i64,
    /// Values that were known already.
    pub n_unchanged: i64,
    /// Rows and cells that were not taken.
    pub n_rejected: i64,
    /// The report; `None` in lists, and when nothing could be read.
    pub report: Option<serde_json::Value>,
    /// File with the rows that were not taken, below the data folder.
    pub quarantine: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
}

/// One load with its report.
///
/// # Errors
/// When the database fails.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, load_id: Uuid) -> Result<Option<Recorded>, Error> {
    Ok(sqlx::query_as(
        "select load_id, panel, pipeline.name as pipeline, source, status, failure,
             n_inserted, n_corrected, n_unchanged, n_rejected, report, quarantine, started_at, finished_at
         from load
         left join pipeline using (tenant_id, pipeline_id)
         where tenant_id = $1 and load_id = $2",
    )
    .bind(tenant_id)
    .bind(load_id)
    .fetch_optional(db)
    .await?)
}

/// At most `limit` loads without their reports, the newest first, from the one after `after` on.
///
/// # Errors
/// When the database fails.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel: Option<&str>,
    pipeline: Option<&str>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Recorded>, Error> {
    Ok(sqlx::query_as(
        "select load_id, panel, pipeline.name as pipeline, source, status, failure,
             n_inserted, n_corrected, n_unchanged, n_rejected, null::jsonb as report, quarantine, started_at, finished_at
         from load
         left join pipeline using (tenant_id, pipeline_id)
         where tenant_id = $1
           and ($2::text is null or panel = $2)
           and ($3::text is null or pipeline.name = $3)
           and ($4::uuid is null or load_id < $4)
         order by load_id desc
         limit $5",
    )
    .bind(tenant_id)
    .bind(panel)
    .bind(pipeline)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

fn valid_times<V>(load: &Load<'_, V>) -> impl Iterator<Item = DateTime<Utc>> + use<V>
where
    V: IntoIterator<Item: Borrow<Value>> + Clone,
{
    load.values.clone().into_iter().map(|value| value.borrow().valid_time)
}

async fn write<V>(transaction: &mut PgConnection, tenant_id: i32, load: &Load<'_, V>) -> Result<Loaded, Error>
where
    V: IntoIterator<Item: Borrow<Value>, IntoIter: Send> + Clone + Send + Sync,
{
    take_time(transaction).await?;
    let panel = panel::ensure(transaction, tenant_id, &load.panel).await?;
    let series_ids = series::ensure(transaction, tenant_id, panel.panel_id, load.series).await?;
    let all_series = series::list_ids(&mut *transaction, tenant_id, panel.panel_id).await?;
    let panel_version = panel_version::ensure(transaction, tenant_id, panel.panel_id, &all_series).await?;

    let known = series::with_role(&mut *transaction, tenant_id, panel.panel_id, Role::Known).await?;
    let observations = load.values.clone().into_iter().map(|value| {
        let v: &Value = value.borrow();
        NewObservation {
            series_id: series_ids[v.series],
            valid_time: v.valid_time,
            known_since: if known.contains(&series_ids[v.series]) {
                v.valid_time.checked_sub_signed(KNOWN_AHEAD).unwrap_or(v.valid_time)
            } else {
                v.interval_end
            },
            available_at: v.available_at,
            value: v.value,
            sd: v.sd,
        }
    });
    let counts = observation::insert(transaction, tenant_id, &panel, load.load_time, &series_ids, observations).await?;
    Ok(Loaded { panel, panel_version, series_ids, counts })
}
