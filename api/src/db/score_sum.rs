//! Sums of scores: what is said of months of them without reading each one. Triggers keep them (`0023_score_sum.sql`).

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::Error;
use super::score::Group;

/// The newest value of a panel that any forecast was scored by.
pub async fn newest(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<DateTime<Utc>>, Error> {
    // A probe of the index for each series.
    Ok(sqlx::query_scalar(
        "select max(newest)
         from series s
         cross join lateral (
             select max(valid_time) as newest from score_sum
             where tenant_id = s.tenant_id and panel_id = s.panel_id and series_id = s.series_id
         ) as of_series
         where s.tenant_id = $1 and s.panel_id = $2",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_one(db)
    .await?)
}

/// Scores by series (the key of a group is its identifier) of a panel's values from `start` on; at most `limit`.
pub async fn by_series(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    start: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Group>, Error> {
    Ok(sqlx::query_as(
        "select n.series_id::bigint as key, sum(s.n_values)::bigint as n_values, sum(s.magnitude)::float8 as magnitude,
             nullif(sum(s.naive_absolute_error), 0)::float8 as naive_error,
             (sum(s.crps) / nullif(sum(s.magnitude), 0))::float8 as crps,
             (sum(s.n_inside_50) / sum(s.n_values))::float8 as coverage_50,
             (sum(s.n_inside_80) / sum(s.n_values))::float8 as coverage_80,
             (sum(s.n_inside_90) / sum(s.n_values))::float8 as coverage_90,
             (sum(s.pit) / sum(s.n_values))::float8 as pit,
             array[
                 sum(s.pit_counts[1]), sum(s.pit_counts[2]), sum(s.pit_counts[3]), sum(s.pit_counts[4]),
                 sum(s.pit_counts[5]), sum(s.pit_counts[6]), sum(s.pit_counts[7]), sum(s.pit_counts[8]),
                 sum(s.pit_counts[9]), sum(s.pit_counts[10])
             ]::bigint[] as pit_counts,
             (1 - sum(s.absolute_error) / nullif(sum(s.naive_absolute_error), 0))::float8 as skill
         from series n
         join score_sum s using (tenant_id, panel_id, series_id)
         where n.tenant_id = $1 and n.panel_id = $2 and s.valid_time >= $3
         group by n.series_id
         order by n.series_id
         limit $4",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(start)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Where forecasts leaned at one time of the day, one quarter of the horizon ahead.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Lean {
    /// Hour of the clock at which the interval of a value begins.
    pub hour: i32,
    /// Quarter of the horizon, from 1.
    pub quarter: i32,
    /// Number of values.
    pub n_values: i64,
    /// Mean of the probability integral transform; 0.5 is unbiased.
    pub pit: f64,
}

/// Where forecasts of the values from `start` on leaned, by hour of the clock of `time_zone` and quarter of the horizon.
pub async fn leans(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    time_zone: &str,
    start: DateTime<Utc>,
) -> Result<Vec<Lean>, Error> {
    Ok(sqlx::query_as(
        "select extract(hour from s.valid_time at time zone $3)::integer as hour, s.quarter::integer as quarter,
             sum(s.n_values)::bigint as n_values, (sum(s.pit) / sum(s.n_values))::float8 as pit
         from series n
         join score_sum s using (tenant_id, panel_id, series_id)
         where n.tenant_id = $1 and n.panel_id = $2 and s.valid_time >= $4
         group by 1, 2
         order by 1, 2",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(time_zone)
    .bind(start)
    .fetch_all(db)
    .await?)
}
