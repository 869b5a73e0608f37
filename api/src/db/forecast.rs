//! Forecasts: the request, its quantiles and its trajectories.

use std::ops::Range;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::matrix::Matrix;
use super::partition::Partitioned;
use super::series::Series;
use super::words::{Quality, Status};
use super::{Error, copy, partition};

/// A stored forecast.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Forecast {
    /// Identifier, a version 7 UUID.
    pub forecast_id: Uuid,
    /// The panel.
    pub panel_id: i32,
    /// The list of series that it covers.
    pub panel_version_id: i32,
    /// The model that made it; `None` for a fallback, made by a baseline.
    pub model_id: Option<i32>,
    /// Only what was known at this instant was used.
    pub issue_time: DateTime<Utc>,
    /// `available_at` of the newest observation that was used.
    pub data_cutoff: DateTime<Utc>,
    /// The first stored step; 1, or less when there are nowcast steps.
    pub first_step: i32,
    /// The last stored step.
    pub horizon: i32,
    /// `valid_time` of the first step.
    pub first_valid_time: DateTime<Utc>,
    /// `valid_time` of the last step.
    pub last_valid_time: DateTime<Utc>,
    /// Number of trajectories.
    pub num_samples: i32,
    /// Seed of the noise.
    pub seed: i64,
    /// Name of the schedule.
    pub schedule: String,
    /// Passes per token.
    pub passes: i32,
    /// Levels of the stored quantiles, in their order.
    pub quantile_levels: Vec<f64>,
    /// The request as it was understood.
    pub params: Value,
    /// How far it has come.
    pub status: Status,
    /// How far it can be trusted.
    pub quality: Quality,
    /// What it supposes; `None` for a plain forecast.
    pub scenario: Option<Value>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

/// The columns of [`Forecast`], of the tables under the names `f` and, for its panel version, `v`.
macro_rules! columns {
    () => {
        "f.forecast_id, v.panel_id, f.panel_version_id, f.model_id, f.issue_time, f.data_cutoff, f.first_step, f.horizon,
         f.first_valid_time, f.last_valid_time, f.num_samples, f.seed, f.schedule, f.passes, f.quantile_levels, f.params,
         f.status, f.quality, f.scenario, f.created_at"
    };
}

/// A forecast that has just been made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewForecast<'a> {
    /// Identifier, a version 7 UUID.
    pub forecast_id: Uuid,
    /// The list of series that it covers; that of its model.
    pub panel_version_id: i32,
    /// The model that made it; `None` for a fallback, made by a baseline.
    pub model_id: Option<i32>,
    /// Only what was known at this instant was used.
    pub issue_time: DateTime<Utc>,
    /// `available_at` of the newest observation that was used.
    pub data_cutoff: DateTime<Utc>,
    /// The first step; at most 1.
    pub first_step: i32,
    /// Number of trajectories.
    pub num_samples: usize,
    /// Seed of the noise, not negative.
    pub seed: i64,
    /// Name of the schedule.
    pub schedule: &'a str,
    /// Passes per token.
    pub passes: i32,
    /// Levels of the quantiles, in their order.
    pub quantile_levels: &'a [f64],
    /// The request as it was understood.
    pub params: &'a Value,
    /// How far it can be trusted.
    pub quality: Quality,
    /// What it supposes; `None` for a plain forecast.
    pub scenario: Option<&'a Value>,
    /// The request's key, if it had one.
    pub idempotency: Option<Idempotency<'a>>,
}

/// The key with which a client names a request, so that repeating it does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency<'a> {
    /// Unique within the tenant.
    pub key: &'a str,
    /// SHA-256 of the request's body, in hexadecimal.
    pub request_digest: &'a str,
}

/// The numbers of a forecast, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewValues<'a> {
    /// The series, `[series]`.
    pub series_ids: &'a [i32],
    /// `valid_time` of each step from the first on, `[step]`.
    pub valid_times: &'a [DateTime<Utc>],
    /// `[step, series]`.
    pub means: &'a [f64],
    /// `[step, series, level]`.
    pub quantiles: &'a [f64],
    /// `[sample, step, series]`.
    pub trajectories: &'a [f32],
}

/// Stores a forecast with its quantiles and trajectories, all of it or nothing.
///
/// # Errors
/// - [`Error::IdempotencyKeyInUse`] when another request with the same key was faster.
/// - [`Error::UnknownReference`] when the model, its panel version or a series does not exist.
/// - [`Error::NotAllowed`] for a mean that is not finite, a level outside of (0, 1), or a `data_cutoff` after the
///   issue time.
///
/// # Panics
/// When the lengths disagree, or there is no step.
pub async fn insert(
    pool: &PgPool,
    tenant_id: i32,
    forecast: &NewForecast<'_>,
    values: &NewValues<'_>,
) -> Result<(), Error> {
    Ok(insert_uncommitted(pool, tenant_id, forecast, values).await?.commit().await?)
}

/// Like [`insert`], in a transaction that is left to the caller to commit, so that more can go with it.
///
/// # Errors
/// Those of [`insert`].
///
/// # Panics
/// When the lengths disagree, or there is no step.
pub async fn insert_uncommitted(
    pool: &PgPool,
    tenant_id: i32,
    forecast: &NewForecast<'_>,
    values: &NewValues<'_>,
) -> Result<Transaction<'static, Postgres>, Error> {
    let (n_series, n_steps) = (values.series_ids.len(), values.valid_times.len());
    assert_eq!(values.means.len(), n_steps * n_series, "a mean per step and series");
    assert_eq!(
        values.quantiles.len(),
        n_steps * n_series * forecast.quantile_levels.len(),
        "a quantile per step, series and level"
    );
    assert_eq!(
        values.trajectories.len(),
        forecast.num_samples * n_steps * n_series,
        "a value per sample, step and series"
    );

    partition::ensure(pool, Partitioned::ForecastValue, values.valid_times.iter().copied()).await?;
    partition::ensure(pool, Partitioned::Trajectory, [forecast.issue_time]).await?;

    let mut transaction = pool.begin().await?;
    insert_forecast(&mut transaction, tenant_id, forecast, values.valid_times).await?;
    insert_values(&mut transaction, tenant_id, forecast, values).await?;
    insert_trajectories(&mut transaction, tenant_id, forecast, values).await?;
    Ok(transaction)
}

async fn insert_forecast(
    conn: &mut PgConnection,
    tenant_id: i32,
    forecast: &NewForecast<'_>,
    valid_times: &[DateTime<Utc>],
) -> Result<(), Error> {
    let last_step = i32::try_from(valid_times.len()).expect("limits on the horizon are far below 2^31") - 1;

    sqlx::query(
        "insert into forecast (tenant_id, forecast_id, panel_version_id, model_id, issue_time, data_cutoff, first_step,
             horizon, first_valid_time, last_valid_time, num_samples, seed, schedule, passes, quantile_levels, params,
             quality, idempotency_key, request_digest, scenario)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.panel_version_id)
    .bind(forecast.model_id)
    .bind(forecast.issue_time)
    .bind(forecast.data_cutoff)
    .bind(forecast.first_step)
    .bind(forecast.first_step + last_step)
    .bind(valid_times[0])
    .bind(valid_times[valid_times.len() - 1])
    .bind(i32::try_from(forecast.num_samples).expect("limits on the samples are far below 2^31"))
    .bind(forecast.seed)
    .bind(forecast.schedule)
    .bind(forecast.passes)
    .bind(forecast.quantile_levels)
    .bind(forecast.params)
    .bind(forecast.quality)
    .bind(forecast.idempotency.map(|i| i.key))
    .bind(forecast.idempotency.map(|i| i.request_digest))
    .bind(forecast.scenario)
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_values(
    conn: &mut PgConnection,
    tenant_id: i32,
    forecast: &NewForecast<'_>,
    values: &NewValues<'_>,
) -> Result<(), Error> {
    let (n_series, n_levels) = (values.series_ids.len(), forecast.quantile_levels.len());
    let statement =
        "copy forecast_value (tenant_id, forecast_id, series_id, valid_time, issue_time, step, lead_seconds,
                         mean, quantiles)
                     from stdin (format binary)";
    // By step and then by series, as the numbers are.
    copy::copy(conn, statement, 0..values.means.len(), |copy, number| {
        let (step, series) = (number / n_series, number % n_series);
        let valid_time = values.valid_times[step];
        // As the database counts: of whole microseconds.
        let lead_seconds =
            (valid_time.timestamp_micros() - forecast.issue_time.timestamp_micros()).div_euclid(1_000_000);
        copy.row(9).integer(tenant_id).uuid(forecast.forecast_id).integer(values.series_ids[series]).time(valid_time);
        copy.time(forecast.issue_time).integer(forecast.first_step + step as i32).long(lead_seconds);
        copy.double(values.means[number]).doubles(&values.quantiles[number * n_levels..][..n_levels]);
    })
    .await
}

async fn insert_trajectories(
    conn: &mut PgConnection,
    tenant_id: i32,
    forecast: &NewForecast<'_>,
    values: &NewValues<'_>,
) -> Result<(), Error> {
    let (n_series, n_steps) = (values.series_ids.len(), values.valid_times.len());
    let statement = "copy trajectory (tenant_id, forecast_id, series_id, issue_time, value) from stdin (format binary)";
    copy::copy(conn, statement, values.series_ids.iter().enumerate(), |copy, (series, &series_id)| {
        let of_series = values.trajectories.iter().skip(series).step_by(n_series).copied().collect();
        let matrix = Matrix::new(forecast.num_samples, n_steps, of_series);
        copy.row(5).integer(tenant_id).uuid(forecast.forecast_id).integer(series_id).time(forecast.issue_time);
        copy.matrix(&matrix);
    })
    .await
}

/// One forecast.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, forecast_id: Uuid) -> Result<Option<Forecast>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from forecast f
         join panel_version v using (tenant_id, panel_version_id)
         where tenant_id = $1 and forecast_id = $2"
    ))
    .bind(tenant_id)
    .bind(forecast_id)
    .fetch_optional(db)
    .await?)
}

/// The forecast that a request with this key made, and the digest of that request.
pub async fn find_by_key(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    idempotency_key: &str,
) -> Result<Option<(Uuid, String)>, Error> {
    Ok(sqlx::query_as(
        "select forecast_id, request_digest
         from forecast
         where tenant_id = $1 and idempotency_key = $2",
    )
    .bind(tenant_id)
    .bind(idempotency_key)
    .fetch_optional(db)
    .await?)
}

/// When forecasts were issued; an end that is `None` is open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Issued {
    /// At this time or later.
    pub from: Option<DateTime<Utc>>,
    /// At this time or earlier.
    pub until: Option<DateTime<Utc>>,
}

/// At most `limit` forecasts, of one panel or of all, the newest first, from the one before `before` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: Option<i32>,
    issued: Issued,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Forecast>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from forecast f
         join panel_version v using (tenant_id, panel_version_id)
         where tenant_id = $1 and ($2::integer is null or panel_id = $2) and ($3::uuid is null or forecast_id < $3)
           and ($5::timestamptz is null or issue_time >= $5) and ($6::timestamptz is null or issue_time <= $6)
         order by forecast_id desc
         limit $4"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(before)
    .bind(limit)
    .bind(issued.from)
    .bind(issued.until)
    .fetch_all(db)
    .await?)
}

/// At most `limit` finished forecasts of a panel that can be scored, in order of their identifiers, from the one after `$3` on:
/// plain ones, by models that had not seen what came.
macro_rules! scorable {
    ($condition:literal) => {
        concat!(
            "select ",
            columns!(),
            " from forecast f
             join panel_version v using (tenant_id, panel_version_id)
             where tenant_id = $1 and panel_id = $2 and status = 'succeeded' and scenario is null and model_id is not null
               and not params @> '{\"warnings\": [{\"code\": \"seen-in-training\"}]}'
               and ($3::uuid is null or forecast_id > $3) and ",
            $condition,
            " order by forecast_id
             limit $4"
        )
    };
}

/// At most `limit` forecasts of a panel that can be scored and reach into one of the ranges of `valid_time` (the
/// earliest first; an end that is `None` is open), in order of their identifiers, from the one after `after` on.
pub async fn list_by_valid_time(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    valid_times: &[Range<Option<DateTime<Utc>>>],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Forecast>, Error> {
    // The first condition is one of the index.
    let query = scorable!(
        "last_valid_time >= coalesce(($5::timestamptz[])[1], '-infinity')
         and tstzrange(first_valid_time, last_valid_time, '[]') && (
             select range_agg(tstzrange(start, past))
             from unnest($5::timestamptz[], $6::timestamptz[]) as given (start, past)
         )"
    );
    Ok(sqlx::query_as(query)
        .bind(tenant_id)
        .bind(panel_id)
        .bind(after)
        .bind(limit)
        .bind(valid_times.iter().map(|range| range.start).collect::<Vec<_>>())
        .bind(valid_times.iter().map(|range| range.end).collect::<Vec<_>>())
        .fetch_all(db)
        .await?)
}

/// The same of those to which something may have come lately, given the newest `valid_time` of the panel: they end at most twice
/// their length and `seconds` before it, or nothing of them has ever been scored.
pub async fn list_unscored(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    newest: DateTime<Utc>,
    seconds: f64,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Forecast>, Error> {
    let query = scorable!(
        "first_valid_time <= $5
         and (
             last_valid_time + 2 * (last_valid_time - first_valid_time) + make_interval(secs => $6) >= $5
             or not exists (select from score s where s.tenant_id = f.tenant_id and s.forecast_id = f.forecast_id)
         )"
    );
    Ok(sqlx::query_as(query)
        .bind(tenant_id)
        .bind(panel_id)
        .bind(after)
        .bind(limit)
        .bind(newest)
        .bind(seconds)
        .fetch_all(db)
        .await?)
}

/// Issue times within a range of the finished plain forecasts that a model has made with a horizon and so many trajectories.
pub async fn issue_times(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
    model_id: i32,
    horizon: i32,
    num_samples: i32,
    range: Range<DateTime<Utc>>,
) -> Result<Vec<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "select distinct issue_time
         from forecast
         where tenant_id = $1 and panel_version_id = $2 and issue_time >= $6 and issue_time < $7
           and model_id = $3 and horizon = $4 and num_samples = $5 and status = 'succeeded' and scenario is null",
    )
    .bind(tenant_id)
    .bind(panel_version_id)
    .bind(model_id)
    .bind(horizon)
    .bind(num_samples)
    .bind(range.start)
    .bind(range.end)
    .fetch_all(db)
    .await?)
}

/// Waits until nobody else is about to commit a plain forecast of the kind that this transaction has stored (by the same model, for
/// the same issue time, of the same horizon and number of trajectories), and tells whether another one has been committed. From
/// here to its end, the transaction keeps others waiting at this place.
pub async fn is_doubled(connection: &mut PgConnection, tenant_id: i32, forecast_id: Uuid) -> Result<bool, Error> {
    sqlx::query(
        "select pg_advisory_xact_lock(hashtextextended(
             concat_ws(' ', 'plumecast.forecast', tenant_id, model_id, horizon, num_samples, extract(epoch from issue_time)), 0))
         from forecast
         where tenant_id = $1 and forecast_id = $2",
    )
    .bind(tenant_id)
    .bind(forecast_id)
    .execute(&mut *connection)
    .await?;
    // A statement of its own: it sees what was committed while the one before waited.
    Ok(sqlx::query_scalar(
        "select exists (
             select
             from forecast other
             join forecast own using (tenant_id, panel_version_id, issue_time, model_id, horizon, num_samples)
             where tenant_id = $1 and own.forecast_id = $2 and other.forecast_id <> $2
               and other.status = 'succeeded' and other.scenario is null
         )",
    )
    .bind(tenant_id)
    .bind(forecast_id)
    .fetch_one(connection)
    .await?)
}

/// The plain forecast of a panel with the latest issue time; of several, the one that was made last.
pub async fn latest(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<Forecast>, Error> {
    // The newest of each panel version is an index probe, however many forecasts are stored.
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from panel_version v
         cross join lateral (
             select *
             from forecast
             where forecast.tenant_id = v.tenant_id and forecast.panel_version_id = v.panel_version_id
               and status = 'succeeded' and scenario is null
             order by issue_time desc, forecast_id desc
             limit 1
         ) as f
         where v.tenant_id = $1 and panel_id = $2
         order by issue_time desc, forecast_id desc
         limit 1"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_optional(db)
    .await?)
}

/// The series that a forecast has values of, in order of their position: covariates are not forecast.
pub async fn series(db: impl PgExecutor<'_>, tenant_id: i32, forecast: &Forecast) -> Result<Vec<Series>, Error> {
    Ok(sqlx::query_as(
        "select series_id, s.panel_id, name, role, kind, unit, lower_bound, upper_bound, is_integer, attributes
         from panel_version_series v
         join series s using (tenant_id, series_id)
         where tenant_id = $1 and panel_version_id = $2
           and exists (
               select
               from forecast_value
               where forecast_value.tenant_id = $1 and forecast_id = $3 and forecast_value.series_id = s.series_id
                 and valid_time = $4
           )
         order by position",
    )
    .bind(tenant_id)
    .bind(forecast.panel_version_id)
    .bind(forecast.forecast_id)
    .bind(forecast.first_valid_time)
    .fetch_all(db)
    .await?)
}

/// Mean and quantiles of one series at one step.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ForecastValue {
    /// The series.
    pub series_id: i32,
    /// Start of the interval that the values refer to.
    pub valid_time: DateTime<Utc>,
    /// Number of the step.
    pub step: i32,
    /// `valid_time - issue_time`, in seconds.
    pub lead_seconds: i64,
    /// Mean of the trajectories.
    pub mean: f64,
    /// Aligned with [`Forecast::quantile_levels`].
    pub quantiles: Vec<f64>,
}

/// The values of a forecast, for some series or (`None`) for all, in order of their position and step.
pub async fn values(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    forecast: &Forecast,
    series_ids: Option<&[i32]>,
) -> Result<Vec<ForecastValue>, Error> {
    Ok(sqlx::query_as(
        "select s.series_id, valid_time, step, lead_seconds, mean, quantiles
         from panel_version_series s
         cross join lateral (
             select valid_time, step, lead_seconds, mean, quantiles
             from forecast_value v
             where v.tenant_id = $1 and v.forecast_id = $2 and v.series_id = s.series_id
               and valid_time >= $4 and valid_time <= $5
             -- One index scan per series, also before the table's statistics know of the forecast.
             offset 0
         ) as v
         where s.tenant_id = $1 and s.panel_version_id = $3 and ($6::integer[] is null or s.series_id = any ($6))
         order by position, step",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.panel_version_id)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .bind(series_ids)
    .fetch_all(db)
    .await?)
}

/// The trajectories of one series.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SeriesTrajectories {
    /// The series.
    pub series_id: i32,
    /// `[sample, step]`; sample `k` is the same draw in every series of a forecast.
    pub value: Matrix,
}

/// The trajectories of a forecast, for some series or (`None`) for all, in order of their position.
pub async fn trajectories(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    forecast: &Forecast,
    series_ids: Option<&[i32]>,
) -> Result<Vec<SeriesTrajectories>, Error> {
    Ok(sqlx::query_as(
        "select s.series_id, value
         from panel_version_series s
         cross join lateral (
             select value
             from trajectory t
             where t.tenant_id = $1 and t.forecast_id = $2 and t.series_id = s.series_id and issue_time = $4
             -- As above.
             offset 0
         ) as t
         where s.tenant_id = $1 and s.panel_version_id = $3 and ($5::integer[] is null or s.series_id = any ($5))
         order by position",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.panel_version_id)
    .bind(forecast.issue_time)
    .bind(series_ids)
    .fetch_all(db)
    .await?)
}
