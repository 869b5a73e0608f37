//! Sums of scores: what is said of months of them without reading each one. Triggers keep them (`0023_score_sum.sql` by value,
//! `0028_score_step_sum.sql` by step and model).

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

use super::Error;
use super::score::{Group, Selection};

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

/// Scores by lead, series or model, as [`super::score::groups`] has them.
pub(super) async fn groups(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    selection: &Selection<'_>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Group>, Error> {
    Ok(sqlx::query_as(
        "select key, sum(n_values)::bigint as n_values, sum(magnitude) as magnitude,
             nullif(sum(naive_absolute_error), 0) as naive_error,
             sum(crps) / nullif(sum(magnitude), 0) as crps,
             (sum(n_inside_50) / sum(n_values))::float8 as coverage_50,
             (sum(n_inside_80) / sum(n_values))::float8 as coverage_80,
             (sum(n_inside_90) / sum(n_values))::float8 as coverage_90,
             sum(pit) / sum(n_values)::float8 as pit,
             array[
                 sum(pit_counts[1]), sum(pit_counts[2]), sum(pit_counts[3]), sum(pit_counts[4]), sum(pit_counts[5]),
                 sum(pit_counts[6]), sum(pit_counts[7]), sum(pit_counts[8]), sum(pit_counts[9]), sum(pit_counts[10])
             ]::bigint[] as pit_counts,
             1 - sum(absolute_error) / nullif(sum(naive_absolute_error), 0) as skill
         from score_part(
             $1, $2, array(select series_id from series where tenant_id = $1 and panel_id = $2),
             coalesce($4, '-infinity'), coalesce($5 - interval '1 microsecond', 'infinity')
         ) as part
         join model m on m.tenant_id = $1 and m.model_id = part.model_id
         cross join lateral (
             select case $3 when 'lead' then step when 'series' then series_id when 'model' then m.version end::bigint as key
         ) as place
         where ($6::integer is null or m.version = $6) and ($7::bigint is null or key > $7)
         group by key
         order by key
         limit $8",
    )
    .bind(tenant_id)
    .bind(selection.panel_id)
    .bind(selection.by)
    .bind(selection.start)
    .bind(selection.end)
    .bind(selection.version)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// CRPS and coverage of a model's forecasts of the last seconds that were scored.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Recent {
    /// Sum of CRPS over sum of magnitudes.
    pub crps: Option<f64>,
    /// Share inside the central 80 % intervals.
    pub coverage_80: Option<f64>,
}

/// Scores of a model's forecasts from `seconds` before the newest scored value on.
pub async fn recent(
    pool: &PgPool,
    tenant_id: i32,
    panel_id: i32,
    model_id: i32,
    seconds: f64,
) -> Result<Recent, Error> {
    let newest = newest(pool, tenant_id, panel_id).await?;
    Ok(sqlx::query_as(
        "select sum(crps) / nullif(sum(magnitude), 0) as crps, (sum(n_inside_80) / sum(n_values))::float8 as coverage_80
         from score_part(
             $1, $2, array(select series_id from series where tenant_id = $1 and panel_id = $2),
             $4 - make_interval(secs => $5) + interval '1 microsecond', 'infinity'
         )
         where model_id = $3",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(model_id)
    .bind(newest)
    .bind(seconds)
    .fetch_one(pool)
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
