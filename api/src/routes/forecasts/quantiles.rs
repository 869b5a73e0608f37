//! `GET /v1/forecasts/{id}/quantiles`: quantiles at any level, read off the stored trajectories.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use forecast::{QuantileLevel, Trajectories};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{body::ForecastSeries, chosen::Chosen, stored::Stored};
use crate::{
    Error, blocking,
    routes::{
        extract::{FromQuery, Parameters, Query},
        levels, respond,
    },
    server::State,
};

/// Which quantiles.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct QuantilesParameters {
    /// Levels between 0 and 1, separated by commas. Default: those of the forecast.
    #[param(example = "0.05,0.5,0.95")]
    quantiles: Option<String>,
    /// Name of a series; may be given several times. Default: all.
    series: Option<Vec<String>>,
    /// An attribute that the series must have, as `site:north`; may be given several times.
    attribute: Option<Vec<String>>,
}

/// The parameters, read.
pub struct QuantilesQuery {
    levels: Option<Vec<QuantileLevel>>,
    chosen: Chosen,
}

impl FromQuery for QuantilesQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let levels = levels::take(parameters)?;
        Ok(Self { levels, chosen: Chosen::take(parameters)? })
    }
}

/// Quantiles of a forecast.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QuantilesBody {
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// The levels, ascending.
    pub quantile_levels: Vec<f64>,
    /// The values, per series.
    pub series: Vec<ForecastSeries>,
}

/// Read quantiles of a forecast at any level
///
/// They are computed from the stored trajectories, by linear interpolation between them, so they never cross.
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}/quantiles", operation_id = "readQuantiles",
    tag = "forecasts",
    params(("forecast_id" = Uuid, Path, description = "Identifier of the forecast"), QuantilesParameters),
    responses(
        (status = 200, description = "The quantiles", body = QuantilesBody),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such forecast or series"),
    )
)]
pub async fn read(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<QuantilesQuery>,
) -> Result<HttpResponse, Error> {
    let mut stored = Stored::read(&state.pool, &path).await?;
    stored.choose(&query.0.chosen)?;
    let trajectories = stored.trajectories(&state.pool).await?;
    let valid_times = stored.valid_times()?;
    let levels = match query.0.levels {
        Some(levels) => levels,
        None => levels::stored(&stored.forecast.quantile_levels)?,
    };
    let body =
        blocking::run("computing quantiles", move || body(&stored, &valid_times, &trajectories, &levels)).await?;
    respond::json(StatusCode::OK, body).await
}

fn body(
    stored: &Stored,
    valid_times: &[DateTime<Utc>],
    trajectories: &Trajectories,
    levels: &[QuantileLevel],
) -> QuantilesBody {
    let (means, quantiles) = (trajectories.mean(), trajectories.quantiles(levels));
    let quantile_levels: Vec<f64> = levels.iter().map(|level| level.value()).collect();
    let steps: Vec<i32> = (trajectories.first_step()..).take(trajectories.n_steps()).collect();
    let series = stored.series.iter().enumerate().map(|(index, series)| {
        ForecastSeries::new(series, index, valid_times, &steps, &means, &quantiles, &quantile_levels)
    });
    QuantilesBody {
        forecast_id: stored.forecast.forecast_id,
        issue_time: stored.forecast.issue_time,
        series: series.collect(),
        quantile_levels,
    }
}
