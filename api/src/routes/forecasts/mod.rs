//! Forecasts: making them, listing them, reading them.

pub mod aggregate;
pub mod body;
pub mod chosen;
pub mod events;
pub mod latest;
pub mod plot;
pub mod quantiles;
pub mod request;
pub mod stored;
pub mod trajectories;

use std::collections::{HashMap, hash_map::Entry};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use self::{
    body::{ForecastBody, ForecastSummary, stored_guidance, stored_warnings},
    request::ForecastRequest,
    stored::{Stored, references},
};
use super::{
    cursor,
    extract::{Body, FromQuery, Parameters, Query},
    idempotency,
    jobs::{self, JobBody},
    panels::{self, OfPanelQuery},
    respond,
};
use crate::{
    Error, blocking,
    db::{self, DEFAULT_TENANT, forecast::Issued},
    forecaster::{self, RequestKey},
    jobs::Work,
    server::State,
};

/// Make a forecast
///
/// Draws trajectories of all series of a panel together, and stores them with their quantiles. The request is answered
/// when the forecast is made. One that is too large for that becomes a job, and so does one with the header
/// `Prefer: respond-async`; one that is too large for a job is refused with `too-costly`.
///
/// A request with the header `Idempotency-Key` can be repeated without harm: the same key and request give the forecast
/// that was made the first time, the same key with another request is refused.
#[utoipa::path(
    post,
    path = "/v1/forecasts", operation_id = "makeForecast",
    tag = "forecasts",
    request_body = ForecastRequest,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it can be repeated"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: make the forecast as a job"),
    ),
    responses(
        (status = 201, description = "The forecast", body = ForecastBody,
            headers(("Location" = String, description = "Where the stored forecast is"))),
        (status = 200, description = "The forecast, which was not to be stored", body = ForecastBody),
        (status = 202, description = "The job that makes the forecast", body = JobBody,
            headers(("Location" = String, description = "Where the job is"))),
        (status = 400, description = "The body is not JSON, or a header is wrong"),
        (status = 404, description = "No such panel"),
        (status = 409, description = "No model or no observations yet, or the key belongs to another request"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body is not `application/json`"),
        (status = 422, description = "Something in the body is out of range"),
        (status = 503, description = "The model is busy or broken, or the database cannot be reached"),
        (status = 504, description = "The forecast took too long"),
    )
)]
pub async fn create(
    http_request: HttpRequest,
    state: web::Data<State>,
    body: Body<ForecastRequest>,
) -> Result<HttpResponse, Error> {
    let request = body.0;
    let order = request.order(&state.limits)?;
    let request_key = request_key(&http_request, &request)?;
    if let Some(key) = &request_key {
        if let Some(earlier) = find_earlier(&state, key).await? {
            return created(earlier).await;
        }
        if let Some(earlier) = jobs::find_earlier(&state, key).await? {
            return jobs::accepted(earlier).await;
        }
    }

    if request.store && prefers_async(&http_request) {
        return jobs::accept(&state, &Work::Forecast(request), request_key.as_ref()).await;
    }
    let made = forecaster::make(&state.pool, &state.predictor, &state.metrics, &order, Utc::now()).await;
    let forecast = match made {
        Err(Error::TooCostly { cost, .. }) if request.store => {
            let limit = state.limits.job_cost_max;
            if cost > limit {
                return Err(Error::TooCostly { cost, limit });
            }
            return jobs::accept(&state, &Work::Forecast(request), request_key.as_ref()).await;
        }
        made => made?,
    };
    if !request.store {
        return respond::json(StatusCode::OK, ForecastBody::of_made(&forecast, false)).await;
    }
    match forecaster::store(&state.pool, &state.metrics, &forecast, request_key.as_ref()).await {
        Ok(()) => created(ForecastBody::of_made(&forecast, true)).await,
        Err(db::Error::IdempotencyKeyInUse) => {
            // The same request came twice at once; the other one was stored first.
            let key = request_key.ok_or(Error::IdempotencyConflict)?;
            created(find_earlier(&state, &key).await?.ok_or(Error::IdempotencyConflict)?).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn created(body: ForecastBody) -> Result<HttpResponse, Error> {
    match body.summary.forecast_id {
        Some(forecast_id) => respond::json_at(StatusCode::CREATED, &format!("/v1/forecasts/{forecast_id}"), body).await,
        None => respond::json(StatusCode::CREATED, body).await,
    }
}

/// The key of a request, if it has one.
fn request_key(http_request: &HttpRequest, request: &ForecastRequest) -> Result<Option<RequestKey>, Error> {
    let key = idempotency::request_key(http_request, request)?;
    if key.is_some() && !request.store {
        return Err(idempotency::refuse_key("needs a forecast that is stored"));
    }
    Ok(key)
}

/// Whether the client does not want to wait (RFC 7240).
fn prefers_async(http_request: &HttpRequest) -> bool {
    let preferences = http_request.headers().get_all("prefer").filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split([',', ';'])).any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
}

/// The forecast that an earlier request with this key made.
async fn find_earlier(state: &State, request: &RequestKey) -> Result<Option<ForecastBody>, Error> {
    match db::forecast::find_by_key(&state.pool, DEFAULT_TENANT, &request.key).await? {
        None => Ok(None),
        Some((_, digest)) if digest != request.digest => Err(Error::IdempotencyConflict),
        Some((forecast_id, _)) => read_stored(state, &forecast_id.to_string()).await.map(Some),
    }
}

/// Read a forecast
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}", operation_id = "readForecast",
    tag = "forecasts",
    params(("forecast_id" = Uuid, Path, description = "Identifier of the forecast")),
    responses(
        (status = 200, description = "The forecast", body = ForecastBody),
        (status = 404, description = "No such forecast"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<HttpResponse, Error> {
    respond::json(StatusCode::OK, read_stored(&state, &path).await?).await
}

async fn read_stored(state: &State, identifier: &str) -> Result<ForecastBody, Error> {
    let stored = Stored::read(&state.pool, identifier).await?;
    let values = db::forecast::values(&state.pool, DEFAULT_TENANT, &stored.forecast, None).await?;
    let summary = ForecastSummary::of_stored(&stored.forecast, &stored.panel, stored.model.as_ref());
    let (guidance, warnings) = (stored_guidance(&stored.forecast)?, stored_warnings(&stored.forecast)?);
    blocking::run("arranging a forecast", move || {
        ForecastBody::of_stored(summary, &stored.series, &values, guidance, warnings)
    })
    .await
}

/// Which forecasts.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct ListParameters {
    /// Name of the panel. Default: all panels.
    panel: Option<String>,
    /// Only forecasts of this issue time. Default: of all.
    issue_time: Option<DateTime<Utc>>,
    /// Only forecasts that were issued at this time or earlier. Default: all.
    as_of: Option<DateTime<Utc>>,
    /// Most forecasts of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The query of the list.
pub struct ListQuery {
    issued: Issued,
    of_panel: OfPanelQuery<Uuid>,
}

impl FromQuery for ListQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let (issue_time, as_of) = (parameters.take_time("issue_time")?, parameters.take_time("as_of")?);
        let until = issue_time.into_iter().chain(as_of).min();
        Ok(Self { issued: Issued { from: issue_time, until }, of_panel: OfPanelQuery::from_query(parameters)? })
    }
}

/// A page of forecasts, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ForecastPage {
    /// The forecasts.
    pub forecasts: Vec<ForecastSummary>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List forecasts, the newest first
#[utoipa::path(
    get,
    path = "/v1/forecasts", operation_id = "listForecasts",
    tag = "forecasts",
    params(ListParameters),
    responses(
        (status = 200, description = "A page of forecasts", body = ForecastPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<ListQuery>) -> Result<web::Json<ForecastPage>, Error> {
    let ListQuery { issued, of_panel: OfPanelQuery { panel, limit, cursor } } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let n_rows = cursor::limit_plus_one(limit);
    let rows = db::forecast::list(&state.pool, DEFAULT_TENANT, panel_id, issued, cursor, n_rows).await?;
    let (rows, next) = cursor::page(rows, limit, |forecast| forecast.forecast_id)?;

    // A page has few panels and models, so each is read once.
    let mut known = HashMap::new();
    let mut forecasts = Vec::with_capacity(rows.len());
    for forecast in &rows {
        let (panel, model) = match known.entry((forecast.panel_id, forecast.model_id)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(references(&state.pool, forecast).await?),
        };
        forecasts.push(ForecastSummary::of_stored(forecast, panel, model.as_ref()));
    }
    Ok(web::Json(ForecastPage { forecasts, next }))
}
