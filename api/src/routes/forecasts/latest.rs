//! `GET /v1/panels/{panel}/forecast`: of each interval, the latest forecast that was made long enough ahead.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Error,
    db::{self, DEFAULT_TENANT, words::Role},
    forecaster::Grid,
    routes::{
        cursor,
        extract::{FromQuery, Parameters, Query, required},
        levels, panels, respond,
    },
    server::State,
};

/// Most intervals between `start` and `end`.
const N_STEPS_MAX: usize = 100_000;

/// Longest lead that can be asked for: a hundred years.
const LEAD_SECONDS_MAX: i64 = 100 * 366 * 86_400;

/// Which intervals, and how far ahead.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct LatestParameters {
    /// Earliest `valid_time`.
    start: DateTime<Utc>,
    /// `valid_time` before which the intervals lie.
    end: DateTime<Utc>,
    /// Name of a series; may be given several times. Default: all targets.
    series: Option<Vec<String>>,
    /// Take only forecasts that were made at least so many seconds before the interval. Default: 0.
    #[param(minimum = 0, example = 86400)]
    lead_seconds_min: Option<i64>,
    /// Take only forecasts that were issued at this instant or before.
    as_of: Option<DateTime<Utc>>,
    /// Most intervals that are looked at for this page. Default: the limit of the service.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct LatestQuery {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    series: Vec<String>,
    lead: TimeDelta,
    as_of: Option<DateTime<Utc>>,
    limit: usize,
    /// The last series and `valid_time` that the page before has looked at.
    cursor: Option<(i32, DateTime<Utc>)>,
}

impl FromQuery for LatestQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let lead = parameters.take_parsed("lead_seconds_min", "a number of seconds, not negative", |text| {
            text.parse().ok().filter(|seconds| (0..=LEAD_SECONDS_MAX).contains(seconds)).map(TimeDelta::seconds)
        })?;
        let query = Self {
            start: required("start", parameters.take_time("start")?)?,
            end: required("end", parameters.take_time("end")?)?,
            series: parameters.take_all("series"),
            lead: lead.unwrap_or_else(TimeDelta::zero),
            as_of: parameters.take_time("as_of")?,
            limit: parameters.take_limit(usize::MAX)?,
            cursor: cursor::take(parameters)?,
        };
        if query.end <= query.start {
            return Err(Error::invalid_parameter("end", "out-of-range", "must be after `start`"));
        }
        Ok(query)
    }
}

/// What the latest forecast says of one interval of a series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LatestBody {
    /// Name of the series.
    #[schema(example = "no2")]
    pub series: String,
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// `ok`, `degraded` or `fallback`.
    #[schema(example = "ok")]
    pub quality: String,
    /// Step of the forecast.
    pub step: i32,
    /// `valid_time - issue_time`, in seconds.
    #[schema(example = 90000)]
    pub lead_seconds: i64,
    /// Mean of the trajectories.
    pub mean: f64,
    /// The stored quantiles, by level.
    pub quantiles: BTreeMap<String, f64>,
}

/// A page of intervals, by series and time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LatestPage {
    /// The intervals of which there is a forecast.
    pub values: Vec<LatestBody>,
    /// Cursor of the next page; absent on the last one. A page can be empty and have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Read the latest forecast of each interval
///
/// Of the forecasts that were issued at least `lead_seconds_min` before an interval, and not after `as_of`, the one that was
/// issued last. Forecasts under conditions are left out.
#[utoipa::path(
    get,
    path = "/v1/panels/{panel}/forecast", operation_id = "readLatestForecast",
    tag = "forecasts",
    params(("panel" = String, Path, description = "Name of the panel"), LatestParameters),
    responses(
        (status = 200, description = "A page of intervals", body = LatestPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel or series"),
    )
)]
pub async fn read(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<LatestQuery>,
) -> Result<HttpResponse, Error> {
    let query = query.0;
    let panel = panels::find(&state.pool, &path).await?;
    let grid = Grid::of(&panel)?;
    let mut series = db::series::list(&state.pool, DEFAULT_TENANT, panel.panel_id, None, i64::MAX).await?;
    if let Some(name) = query.series.iter().find(|name| series.iter().all(|series| series.name != **name)) {
        return Err(Error::UnknownSeries { series: name.clone() });
    }
    let is_wanted = |series: &db::series::Series| {
        if query.series.is_empty() { series.role == Role::Target } else { query.series.contains(&series.name) }
    };
    series.retain(is_wanted);
    series.sort_unstable_by_key(|series| series.series_id);
    let times = valid_times(grid, query.start, query.end)?;

    let limit = query.limit.min(state.limits.page_rows_max);
    let is_after = |place: &(i32, DateTime<Utc>)| query.cursor.is_none_or(|cursor| *place > cursor);
    // Whole series that the pages before have looked at are passed over as such.
    let first = query.cursor.map_or(i32::MIN, |(series_id, _)| series_id);
    let rest = series.iter().filter(|series| series.series_id >= first);
    let places = rest.flat_map(|series| times.iter().map(|&time| (series.series_id, time))).filter(is_after);
    let (places, next) = cursor::page(places.take(limit.saturating_add(1)).collect(), limit, |place| *place)?;
    let (series_ids, valid_times): (Vec<i32>, Vec<DateTime<Utc>>) = places.into_iter().unzip();
    let found =
        db::latest::latest(&state.pool, DEFAULT_TENANT, &series_ids, &valid_times, query.lead, query.as_of).await?;
    let values = found.into_iter().filter_map(|value| {
        let series = series.iter().find(|series| series.series_id == value.series_id)?;
        Some(LatestBody {
            series: series.name.clone(),
            valid_time: value.valid_time,
            forecast_id: value.forecast_id,
            issue_time: value.issue_time,
            quality: value.quality.to_string(),
            step: value.step,
            lead_seconds: value.lead_seconds,
            mean: value.mean,
            quantiles: levels::by_level(&value.quantile_levels, value.quantiles),
        })
    });
    respond::json(StatusCode::OK, LatestPage { values: values.collect(), next }).await
}

/// The starts of the intervals from `start` on and before `end`.
fn valid_times(grid: Grid, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>, Error> {
    let mut times = vec![];
    let mut time = grid.frequency.ceil(start, grid.time_zone);
    while time < end {
        if times.len() == N_STEPS_MAX {
            let message = format!("must be at most {N_STEPS_MAX} intervals after `start`");
            return Err(Error::invalid_parameter("end", "out-of-range", message));
        }
        times.push(time);
        let next = grid.advance(time, 1);
        // Where time ends, so does the grid.
        if next <= time {
            break;
        }
        time = next;
    }
    Ok(times)
}
