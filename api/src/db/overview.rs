//! All panels at a glance.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;

use super::Error;
use super::words::Quality;

/// A panel with what is newest of it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct PanelOverview {
    /// Identifier.
    pub panel_id: i32,
    /// Name.
    pub name: String,
    /// Canonical word of the frequency.
    pub frequency: String,
    /// IANA name of the time zone.
    pub time_zone: String,
    /// Its series, those that are no longer part of its newest version included.
    pub n_series: i64,
    /// Start of the newest observed interval; what is supplied ahead of known covariates is no observation.
    pub newest_valid_time: Option<DateTime<Utc>>,
    /// The model that serves it.
    pub champion_model_id: Option<i32>,
    /// Its version.
    pub champion: Option<i32>,
    /// The champion's scores on test windows, a row for each forecaster.
    pub backtest: Option<Value>,
    /// Issue time of the newest plain forecast.
    pub issue_time: Option<DateTime<Utc>>,
    /// How far that forecast can be trusted.
    pub quality: Option<Quality>,
}

/// At most `limit` panels in order of their names, as known now.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<PanelOverview>, Error> {
    // The newest value and the newest forecast are an index probe each: per series, and per panel version.
    Ok(sqlx::query_as(
        "select p.panel_id, p.name, frequency, time_zone, of_series.n_series, of_series.newest_valid_time,
             champion.model_id as champion_model_id, champion.version as champion,
             champion.metrics -> 'backtest' as backtest, issue_time, quality
         from panel p
         cross join lateral (
             select count(*) as n_series, max(newest.valid_time) filter (where role <> 'known') as newest_valid_time
             from series s
             left join lateral (
                 select valid_time
                 from observation o
                 where o.tenant_id = s.tenant_id and o.series_id = s.series_id and available_at <= $2
                 order by valid_time desc
                 limit 1
             ) as newest on true
             where s.tenant_id = p.tenant_id and s.panel_id = p.panel_id
         ) as of_series
         left join model champion
             on champion.tenant_id = p.tenant_id and champion.panel_id = p.panel_id and champion.stage = 'champion'
         left join lateral (
             select newest.issue_time, newest.quality
             from panel_version v
             cross join lateral (
                 select f.issue_time, f.forecast_id, f.quality
                 from forecast f
                 where f.tenant_id = v.tenant_id and f.panel_version_id = v.panel_version_id
                   and f.status = 'succeeded' and f.scenario is null
                 order by f.issue_time desc, f.forecast_id desc
                 limit 1
             ) as newest
             where v.tenant_id = p.tenant_id and v.panel_id = p.panel_id
             order by newest.issue_time desc, newest.forecast_id desc
             limit 1
         ) as newest_forecast on true
         where p.tenant_id = $1
         order by p.name
         limit $3",
    )
    .bind(tenant_id)
    .bind(now)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
