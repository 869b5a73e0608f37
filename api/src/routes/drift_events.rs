//! Alarms: forecasts are not what the backtest of their model promised, or inputs not like those of its training.

use actix_web::web;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::Query,
    panels::{self, OfPanelQuery},
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT, drift_event::DriftEvent},
    server::State,
};

/// Which alarms.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct DriftEventsParameters {
    /// Name of the panel. Default: all panels.
    panel: Option<String>,
    /// Most alarms of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// An alarm.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DriftEventBody {
    /// Identifier.
    pub drift_event_id: i32,
    /// Name of the panel.
    pub panel: String,
    /// Version of the model.
    pub version: i32,
    /// Of scores: `crps-high`, `coverage-low` or `coverage-high`. Of inputs: `input-level`, `input-variance` or
    /// `input-missing`.
    #[schema(example = "crps-high")]
    pub kind: String,
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

impl From<DriftEvent> for DriftEventBody {
    fn from(event: DriftEvent) -> Self {
        Self {
            drift_event_id: event.drift_event_id,
            panel: event.panel,
            version: event.version,
            kind: event.kind.to_string(),
            issue_time: event.issue_time,
            raised_at: event.raised_at,
            statistic: event.statistic,
            threshold: event.threshold,
            expected: event.expected,
            observed: event.observed,
            n_forecasts: event.n_forecasts,
            message: event.message,
        }
    }
}

/// A page of alarms, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DriftEventPage {
    /// The alarms.
    pub drift_events: Vec<DriftEventBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List alarms
#[utoipa::path(
    get,
    path = "/v1/drift-events", operation_id = "listDriftEvents",
    tag = "scores",
    params(DriftEventsParameters),
    responses(
        (status = 200, description = "A page of alarms", body = DriftEventPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(
    state: web::Data<State>,
    query: Query<OfPanelQuery<i32>>,
) -> Result<web::Json<DriftEventPage>, Error> {
    let OfPanelQuery { panel, limit, cursor } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let rows =
        db::drift_event::list(&state.pool, DEFAULT_TENANT, panel_id, cursor, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |event| event.drift_event_id)?;
    Ok(web::Json(DriftEventPage { drift_events: rows.into_iter().map(DriftEventBody::from).collect(), next }))
}
