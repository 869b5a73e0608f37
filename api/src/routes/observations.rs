//! `GET /v1/panels/{panel}/observations`: what was measured, as known now or at an earlier time.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query},
    panels, respond,
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT},
    server::State,
};

/// Which observations.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct ObservationsParameters {
    /// Name of a series; may be given several times. Default: all.
    series: Option<Vec<String>>,
    /// Earliest `valid_time`.
    start: Option<DateTime<Utc>>,
    /// `valid_time` before which the observations lie.
    end: Option<DateTime<Utc>>,
    /// Return what was known at this instant. Default: what is known now.
    as_of: Option<DateTime<Utc>>,
    /// Most observations of the page. Default: the limit of the service.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct ObservationsQuery {
    series: Vec<String>,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    as_of: Option<DateTime<Utc>>,
    limit: usize,
    /// Series and `valid_time` of the last observation of the page before.
    cursor: Option<(i32, DateTime<Utc>)>,
}

impl FromQuery for ObservationsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let query = Self {
            series: parameters.take_all("series"),
            start: parameters.take_time("start")?,
            end: parameters.take_time("end")?,
            as_of: parameters.take_time("as_of")?,
            limit: parameters.take_limit(usize::MAX)?,
            cursor: cursor::take(parameters)?,
        };
        match (query.start, query.end) {
            (Some(start), Some(end)) if end <= start => {
                Err(Error::invalid_parameter("end", "out-of-range", "must be after `start`"))
            }
            _ => Ok(query),
        }
    }
}

/// One value of one series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ObservationBody {
    /// Name of the series.
    #[schema(example = "no2")]
    pub series: String,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// The value, in the unit of its series.
    #[schema(example = 21.5)]
    pub value: f64,
    /// Standard deviation of the measurement, where the source states one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    /// When it became known.
    pub available_at: DateTime<Utc>,
}

/// A page of observations, by series and time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ObservationPage {
    /// The observations.
    pub observations: Vec<ObservationBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Read observations
///
/// A gap is not listed. Where a value was corrected, the one known at `as_of` is given.
#[utoipa::path(
    get,
    path = "/v1/panels/{panel}/observations", operation_id = "listObservations",
    tag = "panels",
    params(("panel" = String, Path, description = "Name of the panel"), ObservationsParameters),
    responses(
        (status = 200, description = "A page of observations", body = ObservationPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel or series"),
    )
)]
pub async fn list(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<ObservationsQuery>,
) -> Result<HttpResponse, Error> {
    let query = query.0;
    let panel = panels::find(&state.pool, &path).await?;
    let mut series = db::series::list(&state.pool, DEFAULT_TENANT, panel.panel_id, None, i64::MAX).await?;
    if let Some(name) = query.series.iter().find(|name| series.iter().all(|series| series.name != **name)) {
        return Err(Error::UnknownSeries { series: name.clone() });
    }
    if !query.series.is_empty() {
        series.retain(|series| query.series.contains(&series.name));
    }
    let limit = query.limit.min(state.limits.page_rows_max);
    let rows = db::observation::page(
        &state.pool,
        DEFAULT_TENANT,
        &series.iter().map(|series| series.series_id).collect::<Vec<_>>(),
        query.as_of,
        query.start..query.end,
        query.cursor,
        cursor::limit_plus_one(limit),
    )
    .await?;
    let (rows, next) = cursor::page(rows, limit, |row| (row.series_id, row.valid_time))?;
    let observations = rows.into_iter().filter_map(|row| {
        let series = series.iter().find(|series| series.series_id == row.series_id)?;
        Some(ObservationBody {
            series: series.name.clone(),
            valid_time: row.valid_time,
            value: row.value,
            sd: row.sd,
            available_at: row.available_at,
        })
    });
    respond::json(StatusCode::OK, ObservationPage { observations: observations.collect(), next }).await
}
