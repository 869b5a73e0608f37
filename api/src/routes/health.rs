//! Whether the service lives, is ready, and how it fares.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::GaugeVec;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::{
    Error, database,
    db::{self, DEFAULT_TENANT, words::Quality},
    forecaster::Grid,
    metrics::Metrics,
    problem::Violation,
    registry::TestScores,
    server::State,
};

/// How long a check may wait for the database before it counts as away.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long something may be due before it counts as standing still.
pub const STILL_AFTER: TimeDelta = TimeDelta::minutes(2);

/// Most panels that have metrics of their own.
const PANELS_MEASURED: i64 = 100;

/// How far before the newest scored value the recent scores begin.
const RECENT_SECONDS: f64 = 7.0 * 86_400.0;

/// A service that does what it should.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// A service that answers, perhaps not with everything around it as it should be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ok`, or `degraded`: requests are answered, but something else does not go on.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What does not go on.
    pub reasons: Vec<Violation>,
}

/// What runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Version {
    /// Name of the program.
    #[schema(example = "plumecast")]
    pub name: &'static str,
    /// Its version.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
}

/// Tell whether the process lives
///
/// Restart it when this fails.
#[utoipa::path(get, path = "/livez", operation_id = "tellAlive", tag = "service", responses((status = 200, description = "It does", body = Health)))]
pub async fn live() -> web::Json<Health> {
    web::Json(Health { status: "ok" })
}

/// Tell whether requests will be answered
///
/// Send no requests while this fails: the database is away, or its schema is not up to date. A service whose schedules or
/// jobs stand still is ready, but `degraded`.
#[utoipa::path(
    get,
    path = "/readyz", operation_id = "tellReady",
    tag = "service",
    responses(
        (status = 200, description = "They will; perhaps schedules do not run, or jobs are not done", body = Readiness),
        (status = 503, description = "What is missing"),
    )
)]
pub async fn ready(state: web::Data<State>) -> Result<web::Json<Readiness>, Error> {
    let missing = |code, message: String| Err(Error::NotReady { errors: vec![reason(code, message)] });
    let away = || missing("database", "the database cannot be reached".to_owned());
    match tokio::time::timeout(CHECK_TIMEOUT, database::n_pending_migrations(&state.pool)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(n_pending)) => {
            return missing("migrations", format!("{n_pending} migrations are missing; run `plumecast migrate`"));
        }
        Ok(Err(_)) | Err(_) => return away(),
    }
    match tokio::time::timeout(CHECK_TIMEOUT, standing_still(&state.pool, Utc::now())).await {
        Ok(Ok(reasons)) => {
            let status = if reasons.is_empty() { "ok" } else { "degraded" };
            Ok(web::Json(Readiness { status, reasons }))
        }
        Ok(Err(_)) | Err(_) => away(),
    }
}

fn reason(code: &str, message: String) -> Violation {
    Violation { pointer: None, parameter: None, code: code.to_owned(), message }
}

/// What of schedules and jobs should go on and does not.
async fn standing_still(pool: &PgPool, now: DateTime<Utc>) -> Result<Vec<Violation>, db::Error> {
    let mut reasons = Vec::new();
    if let Some((name, next_run)) = db::schedule::longest_due(pool, DEFAULT_TENANT, now - STILL_AFTER).await? {
        let message = format!("schedule `{name}` has been due since {next_run}, and no scheduler has made its job");
        reasons.push(reason("scheduler", message));
    }
    if let Some(since) = db::job::oldest_due(pool, DEFAULT_TENANT, now - STILL_AFTER).await? {
        let workers = db::worker::list(pool, DEFAULT_TENANT).await?;
        if workers.iter().all(|worker| worker.seen_at < now - STILL_AFTER) {
            reasons.push(reason("worker", format!("a job has waited since {since}, and no worker is there")));
        }
    }
    Ok(reasons)
}

/// Tell which version runs
#[utoipa::path(get, path = "/version", operation_id = "tellVersion", tag = "service", responses((status = 200, description = "The version", body = Version)))]
pub async fn version() -> web::Json<Version> {
    web::Json(Version { name: "plumecast", version: env!("CARGO_PKG_VERSION") })
}

/// Read the metrics, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics", operation_id = "readMetrics",
    tag = "service",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain; version=0.0.4"))
)]
pub async fn metrics(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let n_open = i64::from(state.pool.size());
    let n_idle = i64::try_from(state.pool.num_idle()).unwrap_or(i64::MAX);
    let connections = &state.metrics.database_connections;
    connections.with_label_values(&["idle"]).set(n_idle);
    connections.with_label_values(&["in_use"]).set((n_open - n_idle).max(0));

    match tokio::time::timeout(CHECK_TIMEOUT, measure_jobs(&state)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("cannot count jobs: {error}"),
        Err(_) => tracing::warn!("cannot count jobs: the database is slow"),
    }
    // Metrics of the process are worth having when the database is away, so this failure is not one of the answer.
    match tokio::time::timeout(CHECK_TIMEOUT, measure_panels(&state)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("cannot measure the age of forecasts: {error}"),
        Err(_) => tracing::warn!("cannot measure the age of forecasts: the database is slow"),
    }
    let text = state.metrics.render().map_err(|error| Error::internal("writing metrics", error))?;
    Ok(HttpResponse::Ok().content_type(Metrics::CONTENT_TYPE).body(text))
}

/// Sets the metrics that say how many jobs there are, and whether somebody does them.
async fn measure_jobs(state: &State) -> Result<(), Error> {
    let metrics = &state.metrics;
    metrics.jobs.reset();
    for (job_state, kind, count) in db::job::counts(&state.pool, DEFAULT_TENANT).await? {
        metrics.jobs.with_label_values(&[job_state.as_str(), &kind]).set(count);
    }
    let now = Utc::now();
    let workers = db::worker::list(&state.pool, DEFAULT_TENANT).await?;
    let measure = |gauge: &GaugeVec, newest: Option<DateTime<Utc>>| {
        gauge.reset();
        if let Some(time) = newest {
            gauge.with_label_values::<&str>(&[]).set((now - time).as_seconds_f64().max(0.0));
        }
    };
    measure(&metrics.worker_heartbeat_age, workers.iter().map(|worker| worker.seen_at).max());
    measure(&metrics.scheduler_age, workers.iter().filter_map(|worker| worker.scheduled_at).max());
    Ok(())
}

/// Sets the metrics that say how fresh each panel's data and forecasts are, and which model serves it.
async fn measure_panels(state: &State) -> Result<(), Error> {
    let (pool, metrics, now) = (&state.pool, &state.metrics, Utc::now());
    let seconds_since = |time: DateTime<Utc>| (now - time).as_seconds_f64();
    let panels = db::overview::list(pool, DEFAULT_TENANT, now, PANELS_MEASURED).await?;
    metrics.model_info.reset();
    // A champion without scores has none, instead of those of the one before.
    metrics.coverage_80.reset();
    metrics.crps_ratio.reset();
    for panel in panels {
        let labels = [panel.name.as_str()];
        if let Some(issue_time) = panel.issue_time {
            metrics.forecast_age.with_label_values(&labels).set(seconds_since(issue_time));
            let is_fallback = panel.quality == Some(Quality::Fallback);
            metrics.fallback.with_label_values(&labels).set(i64::from(is_fallback));
        }
        if let Some(valid_time) = panel.newest_valid_time {
            let end = Grid::parse(&panel.frequency, &panel.time_zone)?.advance(valid_time, 1);
            metrics.observation_lag.with_label_values(&labels).set(seconds_since(end));
        }
        if let (Some(model_id), Some(version)) = (panel.champion_model_id, panel.champion) {
            metrics.model_info.with_label_values(&[&panel.name, &version.to_string()]).set(1);
            let recent = db::score_sum::recent(pool, DEFAULT_TENANT, panel.panel_id, model_id, RECENT_SECONDS).await?;
            if let Some(coverage) = recent.coverage_80 {
                metrics.coverage_80.with_label_values(&labels).set(coverage);
            }
            let tested = panel.backtest.as_ref().and_then(TestScores::of).filter(|tested| tested.crps > 0.0);
            if let (Some(crps), Some(tested)) = (recent.crps, tested) {
                metrics.crps_ratio.with_label_values(&labels).set(crps / tested.crps);
            }
        }
        let n_events = db::drift_event::count(pool, DEFAULT_TENANT, panel.panel_id).await?;
        metrics.drift_events.with_label_values(&labels).set(n_events);
    }
    Ok(())
}
