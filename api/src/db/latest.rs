//! The latest forecast of each interval that was made long enough ahead.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;
use super::words::Quality;

/// What the latest forecast says of one interval of a series.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct LatestValue {
    /// The series.
    pub series_id: i32,
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// How far the forecast can be trusted.
    pub quality: Quality,
    /// Step of the forecast.
    pub step: i32,
    /// `valid_time - issue_time`, in seconds.
    pub lead_seconds: i64,
    /// Mean of the trajectories.
    pub mean: f64,
    /// Levels of the stored quantiles.
    pub quantile_levels: Vec<f64>,
    /// The quantiles, aligned with the levels.
    pub quantiles: Vec<f64>,
}

/// The query, so that its plan can be looked at: tenant, series, valid times, lead, issue time at most.
///
/// Each interval is one probe of the index by series, `valid_time` and `issue_time`, in the partition of its time,
/// however many forecasts of it are stored; what is skipped are scenarios.
pub const QUERY: &str =
    "select place.series_id, place.valid_time, v.forecast_id, v.issue_time, v.quality, v.step, v.lead_seconds, v.mean,
         v.quantile_levels, v.quantiles
     from unnest($2::integer[], $3::timestamptz[]) with ordinality as place (series_id, valid_time, number)
     cross join lateral (
         select v.forecast_id, v.issue_time, v.step, v.lead_seconds, v.mean, v.quantiles, f.quantile_levels, f.quality
         from forecast_value v
         join forecast f on f.tenant_id = v.tenant_id and f.forecast_id = v.forecast_id
         where v.tenant_id = $1 and v.series_id = place.series_id and v.valid_time = place.valid_time
           and v.issue_time <= least(place.valid_time - $4::interval, $5::timestamptz)
           and f.scenario is null
         order by v.issue_time desc, v.forecast_id desc
         limit 1
     ) as v
     order by place.number";

/// For each of the given intervals, in their order, what the plain forecast says that was issued last, but not later than
/// `lead` before it nor after `as_of` (`None`: whenever); of several of one issue time, the one that was made last.
/// Intervals of which there is none are left out.
///
/// # Panics
/// When there is not one `valid_time` for each series.
pub async fn latest(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    series_ids: &[i32],
    valid_times: &[DateTime<Utc>],
    lead: TimeDelta,
    as_of: Option<DateTime<Utc>>,
) -> Result<Vec<LatestValue>, Error> {
    assert_eq!(series_ids.len(), valid_times.len(), "an interval is a series and a time");
    Ok(sqlx::query_as(QUERY)
        .bind(tenant_id)
        .bind(series_ids)
        .bind(valid_times)
        .bind(lead)
        .bind(as_of)
        .fetch_all(db)
        .await?)
}
