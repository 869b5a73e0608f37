//! Scores of stored forecasts.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::forecast::Forecast;
use super::words::GroupBy;
use super::{Error, score_sum};

/// Key of the advisory locks on scores, beside that of their panel: an arbitrary number that nothing else here uses.
const LOCK_CLASS: i32 = 0x0073_636f;

/// A value that a forecast is to be scored against.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Due {
    /// The series.
    pub series_id: i32,
    /// Start of its interval.
    pub valid_time: DateTime<Utc>,
    /// Step of the forecast.
    pub step: i32,
    /// Stored quantiles of the forecast there.
    pub quantiles: Vec<f64>,
    /// What came.
    pub value: f64,
}

/// Values of a forecast that were known at `as_of`, lie in `valid_times` and by which a forecast has not been scored
/// yet, from step 1 on; values that were corrected since are among them. By series and step.
pub async fn due(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    forecast: &Forecast,
    valid_times: &Range<Option<DateTime<Utc>>>,
    as_of: DateTime<Utc>,
) -> Result<Vec<Due>, Error> {
    Ok(sqlx::query_as(
        "select v.series_id, v.valid_time, v.step, v.quantiles, known.value
         from forecast_value v
         cross join lateral (
             select value
             from observation o
             where o.tenant_id = $1 and o.series_id = v.series_id and o.valid_time = v.valid_time
               and o.available_at <= $6
             order by o.available_at desc
             limit 1
         ) as known
         left join score sc on sc.tenant_id = $1 and sc.panel_id = $3 and sc.series_id = v.series_id
             and sc.step = v.step and sc.valid_time = v.valid_time and sc.forecast_id = v.forecast_id
         where v.tenant_id = $1 and v.forecast_id = $2 and v.step >= 1
           and v.valid_time >= greatest($4, $7) and v.valid_time <= $8 and v.valid_time < coalesce($5, 'infinity')
           and sc.value is distinct from known.value
         order by v.series_id, v.step",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.panel_id)
    .bind(valid_times.start)
    .bind(valid_times.end)
    .bind(as_of)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .fetch_all(db)
    .await?)
}

/// The score of one value.
#[derive(Debug, Clone, PartialEq)]
pub struct NewScore {
    /// What it was scored against.
    pub due: Due,
    /// Scores of the trajectories.
    pub scores: forecast::metrics::ValueScore,
    /// Pinball loss of each stored quantile.
    pub pinball: Vec<f64>,
    /// Error of the value one season earlier.
    pub naive_absolute_error: Option<f64>,
}

/// Keeps others from storing scores of a panel until the transaction ends; waits for one that is at it. The sums of
/// scores are locked by one trigger after the other, so that two at once might wait in a circle.
///
/// # Errors
/// [`Error::StatementTimeout`] when the other one takes long.
pub async fn lock(conn: &mut PgConnection, panel_id: i32) -> Result<(), Error> {
    sqlx::query("select pg_advisory_xact_lock($1, $2)").bind(LOCK_CLASS).bind(panel_id).execute(conn).await?;
    Ok(())
}

/// Stores scores of one forecast; those by another value are replaced, and kept as what was known until then. The partitions
/// exist ([`super::partition::ensure`]).
///
/// # Errors
/// [`Error::UnknownReference`] when the forecast has been deleted meanwhile.
pub async fn upsert(
    conn: &mut PgConnection,
    tenant_id: i32,
    forecast: &Forecast,
    scores: &[NewScore],
    scored_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "insert into score (tenant_id, panel_id, series_id, step, valid_time, forecast_id, model_id, issue_time, value,
             crps, pinball, absolute_error, naive_absolute_error, inside_50, inside_80, inside_90, pit, scored_at)
         select $1, $2, series_id, step, valid_time, $3, $4, $5, value, crps,
             ($6::float8[])[(number - 1) * $7 + 1 : number * $7], absolute_error, naive_absolute_error,
             inside_50, inside_80, inside_90, pit, $8
         from unnest($9::integer[], $10::integer[], $11::timestamptz[], $12::float8[], $13::float8[], $14::float8[],
                 $15::float8[], $16::boolean[], $17::boolean[], $18::boolean[], $19::float8[])
             with ordinality
             as given (series_id, step, valid_time, value, crps, absolute_error, naive_absolute_error, inside_50,
                 inside_80, inside_90, pit, number)
         -- In the order of the key, so that nobody waits in a circle.
         order by series_id, step
         on conflict on constraint score_pkey do update
         set value = excluded.value, crps = excluded.crps, pinball = excluded.pinball,
             absolute_error = excluded.absolute_error, naive_absolute_error = excluded.naive_absolute_error,
             inside_50 = excluded.inside_50, inside_80 = excluded.inside_80, inside_90 = excluded.inside_90,
             pit = excluded.pit, scored_at = excluded.scored_at
         where score.value is distinct from excluded.value",
    )
    .bind(tenant_id)
    .bind(forecast.panel_id)
    .bind(forecast.forecast_id)
    .bind(forecast.model_id)
    .bind(forecast.issue_time)
    .bind(scores.iter().flat_map(|score| score.pinball.iter().copied()).collect::<Vec<f64>>())
    .bind(i64::try_from(forecast.quantile_levels.len()).expect("a list of levels is short"))
    .bind(scored_at)
    .bind(scores.iter().map(|score| score.due.series_id).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.due.step).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.due.valid_time).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.due.value).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.crps).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.absolute_error).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.naive_absolute_error).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.inside_50).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.inside_80).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.inside_90).collect::<Vec<_>>())
    .bind(scores.iter().map(|score| score.scores.pit).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// What came where a forecast has been scored.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Truth {
    /// The series.
    pub series_id: i32,
    /// Step of the forecast.
    pub step: i32,
    /// The value.
    pub value: f64,
}

/// What a forecast has been scored against, by series and step.
pub async fn truths(db: impl PgExecutor<'_>, tenant_id: i32, forecast: &Forecast) -> Result<Vec<Truth>, Error> {
    Ok(sqlx::query_as(
        "select series_id, step, value
         from score
         where tenant_id = $1 and forecast_id = $2 and valid_time >= $3 and valid_time <= $4
         order by series_id, step",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .fetch_all(db)
    .await?)
}

/// How many values of a forecast there are to score: its series, from step 1 on.
pub async fn n_values(db: impl PgExecutor<'_>, tenant_id: i32, forecast: &Forecast) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "select count(*)
         from forecast_value
         where tenant_id = $1 and forecast_id = $2 and step >= 1 and valid_time >= $3 and valid_time <= $4",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .fetch_one(db)
    .await?)
}

/// Whether at least a share of the values of a forecast have been scored, but not the forecast as a whole: by two processes at
/// once, neither of which saw what the other did, or because the rest has become late since.
pub async fn lacks_whole(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    forecast: &Forecast,
    share: f64,
) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "select coalesce(not exists (select from forecast_score where tenant_id = $1 and forecast_id = $2)
             and (
                 select $5 * nullif(count(*), 0)
                 from forecast_value
                 where tenant_id = $1 and forecast_id = $2 and step >= 1 and valid_time >= $3 and valid_time <= $4
             ) <= (
                 select nullif(count(*), 0)
                 from score
                 where tenant_id = $1 and forecast_id = $2 and valid_time >= $3 and valid_time <= $4
             ), false)",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .bind(share)
    .fetch_one(db)
    .await?)
}

/// Stores the score of a whole forecast, of those of its values that have been scored.
pub async fn upsert_whole(
    conn: &mut PgConnection,
    tenant_id: i32,
    forecast: &Forecast,
    energy_score: f64,
    scored_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "insert into forecast_score (tenant_id, forecast_id, panel_id, model_id, issue_time, last_valid_time, n_values,
             crps, coverage_80, energy_score, scored_at)
         select $1, $2, $3, $4, $5, $7, count(*), sum(crps) / nullif(sum(abs(value)), 0), avg(inside_80::integer), $8, $9
         from score
         where tenant_id = $1 and forecast_id = $2 and valid_time >= $6 and valid_time <= $7
         on conflict on constraint forecast_score_pkey do update
         set n_values = excluded.n_values, crps = excluded.crps, coverage_80 = excluded.coverage_80,
             energy_score = excluded.energy_score, scored_at = excluded.scored_at",
    )
    .bind(tenant_id)
    .bind(forecast.forecast_id)
    .bind(forecast.panel_id)
    .bind(forecast.model_id)
    .bind(forecast.issue_time)
    .bind(forecast.first_valid_time)
    .bind(forecast.last_valid_time)
    .bind(energy_score)
    .bind(scored_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// Scores of a group of values.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Group {
    /// What the group has in common, as a number: the step, the series, the version of the model, the day since 1970, or
    /// four times the hour and the quarter of the horizon, from 0.
    pub key: i64,
    /// Number of values.
    pub n_values: i64,
    /// Sum of their magnitudes.
    pub magnitude: f64,
    /// Sum of the errors of the values one season earlier, where these are known.
    pub naive_error: Option<f64>,
    /// Sum of CRPS over sum of magnitudes; none where all values are 0.
    pub crps: Option<f64>,
    /// Share inside the central 50 % intervals.
    pub coverage_50: f64,
    /// Share inside the central 80 % intervals.
    pub coverage_80: f64,
    /// Share inside the central 90 % intervals.
    pub coverage_90: f64,
    /// Mean of the probability integral transform.
    pub pit: f64,
    /// How many values fell into each tenth of what was forecast, from the lowest on.
    pub pit_counts: Vec<i64>,
    /// 1 - error of the medians over that of the values one season earlier, where these are known.
    pub skill: Option<f64>,
}

/// Which scores are put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection<'a> {
    /// The panel.
    pub panel_id: i32,
    /// Its time zone, by which days begin.
    pub time_zone: &'a str,
    /// What the values of a group have in common.
    pub by: GroupBy,
    /// `valid_time` from here on.
    pub start: Option<DateTime<Utc>>,
    /// `valid_time` before this.
    pub end: Option<DateTime<Utc>>,
    /// Only forecasts of this version.
    pub version: Option<i32>,
    /// Scores as they stood then, instead of now.
    pub as_of: Option<DateTime<Utc>>,
}

/// At most `limit` groups in the order of their keys, from the one after `after` on.
pub async fn groups(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    selection: &Selection<'_>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Group>, Error> {
    // The sums are those of now.
    if selection.as_of.is_none() && matches!(selection.by, GroupBy::Lead | GroupBy::Series | GroupBy::Model) {
        return score_sum::groups(db, tenant_id, selection, after, limit).await;
    }
    Ok(sqlx::query_as(
        "select key, count(*) as n_values, sum(abs(value)) as magnitude, sum(naive_absolute_error) as naive_error,
             sum(crps) / nullif(sum(abs(value)), 0) as crps,
             avg(inside_50::integer)::float8 as coverage_50, avg(inside_80::integer)::float8 as coverage_80,
             avg(inside_90::integer)::float8 as coverage_90, avg(pit) as pit,
             array[
                 count(*) filter (where pit < 0.1), count(*) filter (where pit >= 0.1 and pit < 0.2),
                 count(*) filter (where pit >= 0.2 and pit < 0.3), count(*) filter (where pit >= 0.3 and pit < 0.4),
                 count(*) filter (where pit >= 0.4 and pit < 0.5), count(*) filter (where pit >= 0.5 and pit < 0.6),
                 count(*) filter (where pit >= 0.6 and pit < 0.7), count(*) filter (where pit >= 0.7 and pit < 0.8),
                 count(*) filter (where pit >= 0.8 and pit < 0.9), count(*) filter (where pit >= 0.9)
             ] as pit_counts,
             1 - sum(absolute_error) filter (where naive_absolute_error is not null)
                 / nullif(sum(naive_absolute_error), 0) as skill
         from score_as_of($1, $2, coalesce($10, 'infinity')) sc
         join model m using (tenant_id, model_id)
         join forecast f on f.tenant_id = sc.tenant_id and f.forecast_id = sc.forecast_id
         cross join lateral (
             select case $3
                 when 'lead' then step
                 when 'series' then series_id
                 when 'model' then m.version
                 when 'day' then (valid_time at time zone $4)::date - date '1970-01-01'
                 when 'hour' then 4 * extract(hour from valid_time at time zone $4) + ceil(4.0 * step / f.horizon) - 1
             end::bigint as key
         ) as place
         where valid_time >= coalesce($5, '-infinity') and valid_time < coalesce($6, 'infinity')
           and ($7::integer is null or m.version = $7) and ($8::bigint is null or key > $8)
         group by key
         order by key
         limit $9",
    )
    .bind(tenant_id)
    .bind(selection.panel_id)
    .bind(selection.by)
    .bind(selection.time_zone)
    .bind(selection.start)
    .bind(selection.end)
    .bind(selection.version)
    .bind(after)
    .bind(limit)
    .bind(selection.as_of)
    .fetch_all(db)
    .await?)
}

/// Scores of a forecast all of whose values are known.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct WholeForecast {
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Start of its last interval.
    pub last_valid_time: DateTime<Utc>,
    /// Sum of CRPS over sum of magnitudes; none where all values are 0.
    pub crps: Option<f64>,
    /// Share inside the central 80 % intervals.
    pub coverage_80: f64,
}

/// At most `limit` forecasts of a horizon by a model that are scored completely, in order of their issue times, from the
/// one after `after` on.
pub async fn whole_forecasts(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    model_id: i32,
    horizon: i32,
    after: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<WholeForecast>, Error> {
    Ok(sqlx::query_as(
        "select s.issue_time, s.last_valid_time, s.crps, s.coverage_80
         from forecast_score s
         join forecast f using (tenant_id, forecast_id)
         where s.tenant_id = $1 and s.panel_id = $2 and s.model_id = $3 and f.horizon = $4 and f.quality <> 'fallback'
           and s.issue_time > coalesce($5, '-infinity')
         order by s.issue_time, s.forecast_id
         limit $6",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(model_id)
    .bind(horizon)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
