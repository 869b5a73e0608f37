//! Backtests of registered models, which jobs make.

use actix_web::web;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    cursor,
    extract::Query,
    panels::{self, OfPanelQuery},
};
use crate::{
    Error,
    db::{
        self, DEFAULT_TENANT,
        backtest::{Backtest, NamedBacktest},
    },
    server::State,
};

/// Which backtests.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct BacktestsParameters {
    /// Name of the panel. Default: all panels.
    panel: Option<String>,
    /// Most backtests of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A model on past windows of its panel.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BacktestBody {
    /// Identifier; that of the job that made it, if one did.
    pub backtest_id: Uuid,
    /// Name of the panel.
    pub panel: String,
    /// Version of the model.
    pub version: i32,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// Nothing that became known later was used.
    pub as_of: DateTime<Utc>,
    /// Steps of a window.
    pub horizon: i32,
    /// Trajectories of a window.
    pub num_samples: i32,
    /// Seed of the first window; each has the next one.
    pub seed: i64,
    /// Each window with its scores.
    pub windows: Vec<BacktestWindow>,
    /// All windows together: a row for `plumecast` and one for `seasonal_naive`.
    #[schema(value_type = Vec<Object>)]
    pub scores: Value,
}

/// A window that was forecast.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BacktestWindow {
    /// When the forecast was made.
    pub issue_time: DateTime<Utc>,
    /// Whether the model had learned from nothing that came later.
    pub is_fair: bool,
    /// CRPS of the model; null where nothing was known to forecast from, or nothing came.
    pub crps: Option<f64>,
    /// Share of the truth inside its central 80 % intervals.
    pub coverage_80: Option<f64>,
    /// CRPS of the seasonal naive forecast.
    pub naive_crps: Option<f64>,
    /// Share of the truth inside its intervals.
    pub naive_coverage_80: Option<f64>,
}

impl From<NamedBacktest> for BacktestBody {
    fn from(NamedBacktest { backtest, panel, version }: NamedBacktest) -> Self {
        let window = |(index, &issue_time): (usize, &DateTime<Utc>)| BacktestWindow {
            issue_time,
            is_fair: backtest.is_fair[index],
            crps: backtest.crps[index],
            coverage_80: backtest.coverage_80[index],
            naive_crps: backtest.naive_crps[index],
            naive_coverage_80: backtest.naive_coverage_80[index],
        };
        let windows = backtest.issue_times.iter().enumerate().map(window).collect();
        let Backtest { backtest_id, made_at, as_of, horizon, num_samples, seed, scores, .. } = backtest;
        Self { backtest_id, panel, version, made_at, as_of, horizon, num_samples, seed, windows, scores }
    }
}

/// A page of backtests, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BacktestPage {
    /// The backtests.
    pub backtests: Vec<BacktestBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List backtests, the newest first
#[utoipa::path(
    get,
    path = "/v1/backtests", operation_id = "listBacktests",
    tag = "models",
    params(BacktestsParameters),
    responses(
        (status = 200, description = "A page of backtests", body = BacktestPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<OfPanelQuery<Uuid>>) -> Result<web::Json<BacktestPage>, Error> {
    let OfPanelQuery { panel, limit, cursor } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let rows = db::backtest::list(&state.pool, DEFAULT_TENANT, panel_id, cursor, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |row| row.backtest.backtest_id)?;
    Ok(web::Json(BacktestPage { backtests: rows.into_iter().map(BacktestBody::from).collect(), next }))
}

/// Read a backtest
#[utoipa::path(
    get,
    path = "/v1/backtests/{backtest_id}", operation_id = "readBacktest",
    tag = "models",
    params(("backtest_id" = Uuid, Path, description = "Identifier of the backtest")),
    responses(
        (status = 200, description = "The backtest", body = BacktestBody),
        (status = 404, description = "No such backtest"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<BacktestBody>, Error> {
    let unknown = || Error::UnknownBacktest { backtest: path.to_string() };
    let backtest_id = Uuid::try_parse(&path).map_err(|_| unknown())?;
    let found = db::backtest::get(&state.pool, DEFAULT_TENANT, backtest_id).await?.ok_or_else(unknown)?;
    Ok(web::Json(found.into()))
}
