//! `GET /v1/forecasts/{id}/aggregate`: distributions of totals, extremes and means.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use forecast::{Aggregate, Over, QuantileLevel, Trajectories};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{chosen::Chosen, events, stored::Stored};
use crate::{
    Error, blocking,
    db::{series::Series, words::Kind},
    forecaster::{Warning, scenario},
    routes::{
        extract::{FromQuery, Parameters, Query, required},
        levels, respond,
    },
    server::State,
};

/// What to combine, and how.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct AggregateParameters {
    /// How values are combined: `sum`, `max`, `min` or `mean`.
    #[param(example = "sum")]
    r#fn: String,
    /// What is combined: `horizon` gives a distribution per series, `series` one per step, `horizon,series` a single
    /// one. Nowcast steps are not part of the horizon.
    #[param(example = "horizon")]
    over: String,
    /// Levels between 0 and 1, separated by commas. Default: those of the forecast.
    #[param(example = "0.05,0.5,0.95")]
    quantiles: Option<String>,
    /// Name of a series; may be given several times. Default: all.
    series: Option<Vec<String>>,
    /// An attribute that the series must have, as `site:north`; may be given several times.
    attribute: Option<Vec<String>>,
    /// The first step that is combined. Default: the first of the horizon.
    start: Option<DateTime<Utc>>,
    /// Where combining ends: the step that begins then is left out. Default: the end of the horizon.
    end: Option<DateTime<Utc>>,
}

/// The parameters, read.
#[derive(Debug)]
pub struct AggregateQuery {
    function: Aggregate,
    over: Over,
    levels: Option<Vec<QuantileLevel>>,
    chosen: Chosen,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
}

impl FromQuery for AggregateQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let function = parameters.take_parsed("fn", "`sum`, `max`, `min` or `mean`", parse_function)?;
        let over = parameters.take_parsed("over", "`horizon`, `series` or `horizon,series`", parse_over)?;
        Ok(Self {
            function: required("fn", function)?,
            over: required("over", over)?,
            levels: levels::take(parameters)?,
            chosen: Chosen::take(parameters)?,
            start: parameters.take_time("start")?,
            end: parameters.take_time("end")?,
        })
    }
}

/// Reads the name of a function.
pub fn parse_function(text: &str) -> Option<Aggregate> {
    match text {
        "sum" => Some(Aggregate::Sum),
        "max" => Some(Aggregate::Max),
        "min" => Some(Aggregate::Min),
        "mean" => Some(Aggregate::Mean),
        _ => None,
    }
}

fn parse_over(text: &str) -> Option<Over> {
    match text {
        "horizon" => Some(Over::Horizon),
        "series" => Some(Over::Series),
        "horizon,series" | "series,horizon" => Some(Over::HorizonAndSeries),
        _ => None,
    }
}

/// Distributions of what each trajectory gives when its values are combined.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AggregateBody {
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// The levels, ascending.
    pub quantile_levels: Vec<f64>,
    /// One distribution per series, per step, or in all.
    pub distributions: Vec<Distribution>,
    /// What the reader should know.
    pub warnings: Vec<Warning>,
}

/// The distribution of one combined number.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Distribution {
    /// Name of the series, where series are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Number of the step, where steps are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Start of the step's interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_time: Option<DateTime<Utc>>,
    /// Unit of the number, where all its series have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Mean over the trajectories.
    pub mean: f64,
    /// Quantiles over the trajectories, by level as shortest decimal number.
    #[schema(example = json!({"0.05": 512.5, "0.5": 640.0, "0.95": 801.25}))]
    pub quantiles: BTreeMap<String, f64>,
}

/// Read the distribution of a total, a maximum, a minimum or a mean
///
/// Each trajectory is combined first, then quantiles are taken: dependence between steps and series is kept. Adding up
/// quantiles would not give this.
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}/aggregate", operation_id = "readAggregate",
    tag = "forecasts",
    params(("forecast_id" = Uuid, Path, description = "Identifier of the forecast"), AggregateParameters),
    responses(
        (status = 200, description = "The distributions", body = AggregateBody),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such forecast or series"),
    )
)]
pub async fn read(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<AggregateQuery>,
) -> Result<HttpResponse, Error> {
    let AggregateQuery { function, over, levels, chosen, start, end } = query.0;
    let mut stored = Stored::read(&state.pool, &path).await?;
    stored.choose(&chosen)?;
    let boundaries = stored.boundaries()?;
    let steps = scenario::steps(&boundaries, start, end).map_err(events::wrong)?;
    let trajectories = stored.trajectories(&state.pool).await?;
    let levels = match levels {
        Some(levels) => levels,
        None => levels::stored(&stored.forecast.quantile_levels)?,
    };
    let body = blocking::run("combining trajectories", move || {
        let combined = trajectories.steps(steps.clone()).aggregate(function, over);
        AggregateBody {
            forecast_id: stored.forecast.forecast_id,
            issue_time: stored.forecast.issue_time,
            quantile_levels: levels.iter().map(|level| level.value()).collect(),
            distributions: distributions(&combined, over, &stored.series, &boundaries, *steps.start(), &levels),
            warnings: warnings(function, over, &stored.series),
        }
    });
    respond::json(StatusCode::OK, body.await?).await
}

fn distributions(
    combined: &Trajectories,
    over: Over,
    series: &[Series],
    boundaries: &[DateTime<Utc>],
    first_step: usize,
    levels: &[QuantileLevel],
) -> Vec<Distribution> {
    let numbers: Vec<f64> = levels.iter().map(|level| level.value()).collect();
    let (means, quantiles) = (combined.mean(), combined.quantiles(levels));
    let shared_unit = shared_unit(series);
    let elements = means.into_iter().zip(quantiles.chunks_exact(levels.len())).enumerate();
    elements
        .map(|(index, (mean, quantiles))| {
            let series = (over == Over::Horizon).then(|| &series[index]);
            let step = (over == Over::Series).then_some(first_step + index);
            Distribution {
                series: series.map(|series| series.name.clone()),
                step: step.and_then(|step| i32::try_from(step).ok()),
                valid_time: step.and_then(|step| boundaries.get(step - 1).copied()),
                unit: series.map_or(shared_unit.clone(), |series| series.unit.clone()),
                mean,
                quantiles: levels::by_level(&numbers, quantiles.iter().copied()),
            }
        })
        .collect()
}

/// The unit that all series have.
pub fn shared_unit(series: &[Series]) -> Option<String> {
    let first = series.first()?;
    series.iter().all(|series| series.unit == first.unit).then(|| first.unit.clone()).flatten()
}

/// What is odd about the combination that was asked for; it is computed all the same.
pub fn warnings(function: Aggregate, over: Over, series: &[Series]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mixes_units = series.iter().any(|one| one.unit != series[0].unit);
    if over != Over::Horizon && mixes_units {
        warnings.push(Warning::new("mixed-units", "series of different units are combined".to_owned()));
    }
    let averaged: Vec<&str> =
        series.iter().filter(|series| series.kind != Kind::Sum).map(|series| series.name.as_str()).collect();
    if function == Aggregate::Sum && over != Over::Series && !averaged.is_empty() {
        let message = format!(
            "values of {} are no totals of their intervals; their sum over time is a number of steps times their mean",
            averaged.join(", ")
        );
        warnings.push(Warning::new("sum-of-averages", message));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::words::Role;

    fn series(name: &str, kind: Kind, unit: Option<&str>) -> Series {
        Series {
            series_id: 0,
            panel_id: 0,
            name: name.to_owned(),
            role: Role::Target,
            kind,
            unit: unit.map(str::to_owned),
            lower_bound: None,
            upper_bound: None,
            is_integer: false,
            attributes: serde_json::Map::new(),
        }
    }

    fn combined(over: Over) -> Vec<Distribution> {
        let values = vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
        let trajectories = Trajectories::new(2, 1, 2, 2, values).expect("the shape is right");
        let series = [series("a", Kind::Sum, Some("kWh")), series("b", Kind::Sum, Some("kWh"))];
        let times = [DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1)];
        let median = [QuantileLevel::new(0.5).expect("in (0, 1)")];
        distributions(&trajectories.aggregate(Aggregate::Sum, over), over, &series, &times, 1, &median)
    }

    #[test]
    fn over_the_horizon_there_is_a_distribution_per_series() {
        let distributions = combined(Over::Horizon);
        assert_eq!(distributions.len(), 2);
        assert_eq!(distributions[1].series.as_deref(), Some("b"));
        assert_eq!(distributions[1].step, None);
        assert_eq!(distributions[1].quantiles["0.5"], 50.0);
        assert_eq!(distributions[1].unit.as_deref(), Some("kWh"));
    }

    #[test]
    fn over_series_there_is_a_distribution_per_step() {
        let distributions = combined(Over::Series);
        assert_eq!(distributions.len(), 2);
        assert_eq!(distributions[1].step, Some(2));
        assert_eq!(distributions[1].valid_time, Some(DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1)));
        assert_eq!(distributions[1].mean, 33.0);
    }

    #[test]
    fn over_both_there_is_one_distribution() {
        let distributions = combined(Over::HorizonAndSeries);
        assert_eq!(distributions.len(), 1);
        assert_eq!((distributions[0].series.as_deref(), distributions[0].step), (None, None));
        assert_eq!(distributions[0].mean, 55.0);
    }

    #[test]
    fn what_has_no_meaning_is_said() {
        let codes = |function, over, series: &[Series]| -> Vec<String> {
            warnings(function, over, series).into_iter().map(|warning| warning.code).collect()
        };
        let mixed = [series("no2", Kind::Mean, Some("µg/m³")), series("visits", Kind::Sum, None)];
        assert_eq!(codes(Aggregate::Sum, Over::HorizonAndSeries, &mixed), ["mixed-units", "sum-of-averages"]);
        assert_eq!(codes(Aggregate::Max, Over::Series, &mixed), ["mixed-units"]);
        assert!(codes(Aggregate::Mean, Over::Horizon, &mixed).is_empty());
        assert!(codes(Aggregate::Sum, Over::Horizon, &mixed[1..]).is_empty());
    }
}
