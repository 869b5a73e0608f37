//! Alarms: scores of a model are not what its backtest said, or its inputs not like those of its training.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::Error;
use super::words::DriftKind;

/// A stored alarm.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct DriftEvent {
    /// Identifier.
    pub drift_event_id: i32,
    /// Name of the panel.
    pub panel: String,
    /// Version of the model.
    pub version: i32,
    /// Which of the scores, or what of the inputs.
    pub kind: DriftKind,
    /// Issue time of the forecast, or end of the season of inputs, at which the alarm was raised.
    pub issue_time: DateTime<Utc>,
    /// When it was noticed.
    pub raised_at: DateTime<Utc>,
    /// Statistic of the test.
    pub statistic: f64,
    /// What it passed: forecasts between two false alarms, on average and at least.
    pub threshold: f64,
    /// Bound of what the backtest, or the training, lets expect.
    pub expected: f64,
    /// Mean of the last forecasts or seasons.
    pub observed: f64,
    /// Forecasts, or seasons of inputs, that the test has looked at.
    pub n_forecasts: i32,
    /// All of it in words.
    pub message: String,
}

/// An alarm that has just been raised.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDriftEvent {
    /// The model.
    pub model_id: i32,
    /// Which of the scores, or what of the inputs.
    pub kind: DriftKind,
    /// Issue time of the forecast, or end of the season of inputs, at which the alarm was raised.
    pub issue_time: DateTime<Utc>,
    /// When it was noticed.
    pub raised_at: DateTime<Utc>,
    /// Statistic of the test.
    pub statistic: f64,
    /// What it passed.
    pub threshold: f64,
    /// Bound of what the backtest, or the training, lets expect.
    pub expected: f64,
    /// Mean of the last forecasts or seasons.
    pub observed: f64,
    /// Forecasts, or seasons of inputs, that the test has looked at.
    pub n_forecasts: i32,
    /// All of it in words.
    pub message: String,
}

/// Stores an alarm, unless another process has noticed it too.
pub async fn insert(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    event: &NewDriftEvent,
) -> Result<Option<DriftEvent>, Error> {
    Ok(sqlx::query_as(
        "with stored as (
             insert into drift_event (tenant_id, panel_id, model_id, kind, issue_time, raised_at, statistic, threshold,
                 expected, observed, n_forecasts, message)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             on conflict on constraint drift_event_issue_time_key do nothing
             returning tenant_id, panel_id, model_id, drift_event_id, kind, issue_time, raised_at, statistic, threshold,
                 expected, observed, n_forecasts, message
         )
         select drift_event_id, panel.name as panel, version, kind, issue_time, raised_at, statistic, threshold, expected,
             observed, n_forecasts, message
         from stored
         join panel using (tenant_id, panel_id)
         join model using (tenant_id, model_id)",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(event.model_id)
    .bind(event.kind)
    .bind(event.issue_time)
    .bind(event.raised_at)
    .bind(event.statistic)
    .bind(event.threshold)
    .bind(event.expected)
    .bind(event.observed)
    .bind(event.n_forecasts)
    .bind(&event.message)
    .fetch_optional(db)
    .await?)
}

/// Issue time of the newest alarm of some kinds of a model: the test begins anew after it.
pub async fn newest_issue_time(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    model_id: i32,
    kinds: &[DriftKind],
) -> Result<Option<DateTime<Utc>>, Error> {
    let query = "select max(issue_time) from drift_event where tenant_id = $1 and model_id = $2 and kind = any ($3)";
    Ok(sqlx::query_scalar(query)
        .bind(tenant_id)
        .bind(model_id)
        .bind(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>())
        .fetch_one(db)
        .await?)
}

/// At most `limit` alarms, of one panel or of all, the newest first, from the one before `before` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: Option<i32>,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<DriftEvent>, Error> {
    Ok(sqlx::query_as(
        "select drift_event_id, panel.name as panel, version, kind, issue_time, raised_at, statistic, threshold, expected,
             observed, n_forecasts, message
         from drift_event e
         join panel using (tenant_id, panel_id)
         join model using (tenant_id, model_id)
         where tenant_id = $1 and ($2::integer is null or e.panel_id = $2)
           and ($3::integer is null or drift_event_id < $3)
         order by drift_event_id desc
         limit $4",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Number of alarms of a panel.
pub async fn count(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("select count(*) from drift_event where tenant_id = $1 and panel_id = $2")
        .bind(tenant_id)
        .bind(panel_id)
        .fetch_one(db)
        .await?)
}
