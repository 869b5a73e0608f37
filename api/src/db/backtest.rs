//! Backtests of registered models.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;

/// A stored backtest. The lists have an element for each window, in the order of their issue times.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Backtest {
    /// Identifier, a version 7 UUID.
    pub backtest_id: Uuid,
    /// The panel.
    pub panel_id: i32,
    /// The model.
    pub model_id: i32,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// What was known by then was used.
    pub as_of: DateTime<Utc>,
    /// Steps of a window.
    pub horizon: i32,
    /// Trajectories of a window.
    pub num_samples: i32,
    /// Seed of the first window; each has the next one.
    pub seed: i64,
    /// When the forecasts were made.
    pub issue_times: Vec<DateTime<Utc>>,
    /// Whether the model had learned from nothing that came later.
    pub is_fair: Vec<bool>,
    /// CRPS of the model; `None` where nothing could be forecast, or nothing came.
    pub crps: Vec<Option<f64>>,
    /// Share of the truth inside its central 80 % intervals.
    pub coverage_80: Vec<Option<f64>>,
    /// CRPS of the seasonal naive forecast.
    pub naive_crps: Vec<Option<f64>>,
    /// Share of the truth inside its intervals.
    pub naive_coverage_80: Vec<Option<f64>>,
    /// All windows together, a row for each forecaster.
    pub scores: Value,
}

/// A backtest with the names that people know.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct NamedBacktest {
    /// The backtest.
    #[sqlx(flatten)]
    pub backtest: Backtest,
    /// Name of the panel.
    pub panel: String,
    /// Version of the model.
    pub version: i32,
}

/// The columns of [`NamedBacktest`].
macro_rules! columns {
    () => {
        "b.backtest_id, b.panel_id, b.model_id, b.made_at, b.as_of, b.horizon, b.num_samples, b.seed, b.issue_times, b.is_fair,
         b.crps, b.coverage_80, b.naive_crps, b.naive_coverage_80, b.scores, p.name as panel, m.version
         from backtest b
         join panel p using (tenant_id, panel_id)
         join model m using (tenant_id, model_id)"
    };
}

/// Stores a backtest.
///
/// # Errors
/// [`Error::UnknownReference`] when the model has been deleted meanwhile.
pub async fn insert(db: impl PgExecutor<'_>, tenant_id: i32, backtest: &Backtest) -> Result<(), Error> {
    sqlx::query(
        "insert into backtest (tenant_id, backtest_id, panel_id, model_id, made_at, as_of, horizon, num_samples, seed,
             issue_times, is_fair, crps, coverage_80, naive_crps, naive_coverage_80, scores)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(tenant_id)
    .bind(backtest.backtest_id)
    .bind(backtest.panel_id)
    .bind(backtest.model_id)
    .bind(backtest.made_at)
    .bind(backtest.as_of)
    .bind(backtest.horizon)
    .bind(backtest.num_samples)
    .bind(backtest.seed)
    .bind(&backtest.issue_times)
    .bind(&backtest.is_fair)
    .bind(&backtest.crps)
    .bind(&backtest.coverage_80)
    .bind(&backtest.naive_crps)
    .bind(&backtest.naive_coverage_80)
    .bind(&backtest.scores)
    .execute(db)
    .await?;
    Ok(())
}

/// One backtest.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, backtest_id: Uuid) -> Result<Option<NamedBacktest>, Error> {
    Ok(sqlx::query_as(concat!("select ", columns!(), " where b.tenant_id = $1 and b.backtest_id = $2"))
        .bind(tenant_id)
        .bind(backtest_id)
        .fetch_optional(db)
        .await?)
}

/// At most `limit` backtests, of one panel or of all, the newest first, from the one before `before` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: Option<i32>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<NamedBacktest>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " where b.tenant_id = $1 and ($2::integer is null or b.panel_id = $2) and ($3::uuid is null or b.backtest_id < $3)
         order by b.backtest_id desc
         limit $4"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
