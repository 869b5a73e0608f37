//! `GET /v1/forecasts/{id}/events`: how likely something is, read off the stored trajectories; no model runs.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, NaiveDate, Utc};
use forecast::{Aggregate, Bounds, Condition, Demand, QuantileLevel, Reading, Trajectories, quantile_of_sorted};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{body::ForecastSeries, stored::Stored};
use crate::{
    Error, blocking,
    forecaster::{Grid, scenario::PathCondition},
    problem::Violation,
    routes::{
        extract::{FromQuery, Parameters, Query, required},
        levels, respond,
    },
    server::State,
};

/// What is to happen.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct EventsParameters {
    /// How a number is read off a trajectory: `value`, `sum`, `mean`, `max`, `min`, or `ramp`, the largest change from one
    /// step to the next.
    #[param(example = "max")]
    r#fn: String,
    /// Name of a series; may be given several times. Default: all. `value` needs one.
    series: Option<Vec<String>>,
    /// The number is at least this.
    #[param(example = 40.0)]
    at_least: Option<f64>,
    /// The number is at most this.
    at_most: Option<f64>,
    /// The one step that is read; `value` needs it.
    valid_time: Option<DateTime<Utc>>,
    /// The first step that is read. Default: the first of the horizon.
    start: Option<DateTime<Utc>>,
    /// Where reading ends: the step that begins then is not read. Default: the end of the horizon.
    end: Option<DateTime<Utc>>,
    /// `day` asks for each calendar day in the panel's time zone, instead of for all steps together.
    per: Option<String>,
    /// Levels between 0 and 1, separated by commas: also return quantiles of all series over the trajectories in which it
    /// happens.
    #[param(example = "0.05,0.5,0.95")]
    quantiles: Option<String>,
}

/// The parameters, read.
#[derive(Debug)]
pub struct EventsQuery {
    condition: PathCondition,
    is_per_day: bool,
    levels: Option<Vec<QuantileLevel>>,
}

impl FromQuery for EventsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
        let function = parameters.take_parsed("fn", "`value`, `sum`, `mean`, `max`, `min` or `ramp`", |text| {
            serde_json::from_value(text.into()).ok()
        })?;
        let condition = PathCondition {
            r#fn: required("fn", function)?,
            series: parameters.take_all("series"),
            valid_time: parameters.take_time("valid_time")?,
            start: parameters.take_time("start")?,
            end: parameters.take_time("end")?,
            equal: None,
            at_least: parameters.take_parsed("at_least", "a number", number)?,
            at_most: parameters.take_parsed("at_most", "a number", number)?,
            tilt: None,
        };
        if condition.at_least.or(condition.at_most).is_none() {
            return Err(Error::invalid_parameter("at_least", "missing-parameter", "or `at_most` is required"));
        }
        let violations = condition.violations("");
        if !violations.is_empty() {
            return Err(wrong(violations));
        }
        let per = parameters.take_parsed("per", "`day`", |text| (text == "day").then_some(()))?;
        let levels = levels::take(parameters)?;
        if per.is_some() && levels.is_some() {
            return Err(Error::invalid_parameter("quantiles", "contradiction", "cannot be given together with `per`"));
        }
        Ok(Self { condition, is_per_day: per.is_some(), levels })
    }
}

/// What is wrong in a condition, as a problem with parameters.
pub fn wrong(errors: Vec<Violation>) -> Error {
    Error::InvalidParameter { errors: errors.into_iter().map(of_parameter).collect() }
}

/// What is wrong at a pointer into a condition, as what is wrong with the parameter of that name.
fn of_parameter(violation: Violation) -> Violation {
    let pointer = violation.pointer.unwrap_or_default();
    let name = pointer.split('/').nth(1).unwrap_or("fn").to_owned();
    Violation { pointer: None, parameter: Some(name), ..violation }
}

/// How likely something is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventsBody {
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Trajectories that were looked at.
    pub num_samples: usize,
    /// One period, or each calendar day.
    pub periods: Vec<EventPeriod>,
    /// Numbers of the trajectories in which it happens, from 1 on; without `per`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<usize>>,
    /// When a limit on single values is first passed, and for how long; of `max` with `at_least` and of `min` with `at_most`,
    /// without `per`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage: Option<Passage>,
    /// Mean and quantiles of all series over the trajectories in which it happens; where `quantiles` was given and it happens in
    /// one at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Vec<ForecastSeries>>,
}

/// How likely it is in some steps.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct EventPeriod {
    /// The calendar day in the panel's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<NaiveDate>,
    /// Start of the first step.
    pub start: DateTime<Utc>,
    /// Start of the step after the last one.
    pub end: DateTime<Utc>,
    /// Share of the trajectories in which it happens.
    pub probability: f64,
    /// Its Monte Carlo error, one standard deviation.
    pub standard_error: f64,
    /// Trajectories in which it happens.
    pub num_met: usize,
}

/// When a limit is first passed, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Passage {
    /// Start of each step.
    pub valid_time: Vec<DateTime<Utc>>,
    /// Share of the trajectories that pass the limit at this step for the first time.
    pub first: Vec<f64>,
    /// Share of the trajectories that have passed it by then.
    pub by: Vec<f64>,
    /// Share of the trajectories that are beyond it at this step.
    pub beyond: Vec<f64>,
    /// Mean number of steps beyond the limit, over all trajectories.
    pub mean_steps: f64,
    /// Quantiles of that number, by level.
    #[schema(example = json!({"0.5": 2.0, "0.9": 7.0}))]
    pub steps: BTreeMap<String, f64>,
}

/// Read how likely something is
///
/// Each trajectory either has it or not. With `quantiles`, the forecast is also told under the condition that it happens; the
/// numbers in `samples` say which trajectories those are. A probability from `n` trajectories is known to its
/// `standard_error` alone: what happens in none of 100 may still have a probability of 3 %.
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}/events", operation_id = "readEvents",
    tag = "forecasts",
    params(("forecast_id" = Uuid, Path, description = "Identifier of the forecast"), EventsParameters),
    responses(
        (status = 200, description = "The probabilities", body = EventsBody),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such forecast"),
    )
)]
pub async fn read(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<EventsQuery>,
) -> Result<HttpResponse, Error> {
    let query = query.0;
    let mut stored = Stored::read(&state.pool, &path).await?;
    let boundaries = stored.boundaries()?;
    let resolve = |stored: &Stored| query.condition.resolve(&stored.series, &boundaries).map_err(wrong);
    let mut condition = resolve(&stored)?;
    if query.levels.is_none() {
        // Nothing is told of other series, so they need not be read.
        stored.select(&query.condition.series)?;
        condition = resolve(&stored)?;
    }
    let trajectories = stored.trajectories(&state.pool).await?;
    let zone = Grid::of(&stored.panel)?.time_zone;
    let body = blocking::run("looking for events", move || {
        let date = |time: &DateTime<Utc>| time.with_timezone(&zone).date_naive();
        let mut body = EventsBody {
            forecast_id: stored.forecast.forecast_id,
            issue_time: stored.forecast.issue_time,
            num_samples: trajectories.n_samples(),
            periods: vec![],
            samples: None,
            passage: None,
            given: None,
        };
        if query.is_per_day {
            let days = days(&condition, &boundaries, date).into_iter();
            let of_day = |(date, part)| period(date, &part, &boundaries, &met(&part, &trajectories));
            return EventsBody { periods: days.map(of_day).collect(), ..body };
        }
        let happens = met(&condition, &trajectories);
        body.periods = vec![period(None, &condition, &boundaries, &happens)];
        body.passage = passage(&condition, &boundaries, &trajectories);
        body.given = query.levels.and_then(|levels| given(&stored, &boundaries, &trajectories, &happens, &levels));
        body.samples = Some((1..).zip(happens).filter_map(|(k, happens)| happens.then_some(k)).collect());
        body
    })
    .await?;
    respond::json(StatusCode::OK, body).await
}

/// The condition on each calendar day; a ramp needs two steps of it.
pub fn days(
    condition: &Condition,
    boundaries: &[DateTime<Utc>],
    date: impl Fn(&DateTime<Utc>) -> NaiveDate,
) -> Vec<(Option<NaiveDate>, Condition)> {
    let steps: Vec<usize> = condition.steps.clone().collect();
    let n_needed = if condition.reading == Reading::Ramp { 2 } else { 1 };
    steps
        .chunk_by(|a, b| date(&boundaries[a - 1]) == date(&boundaries[b - 1]))
        .filter(|day| day.len() >= n_needed)
        .map(|day| {
            let part = Condition { steps: day[0]..=day[day.len() - 1], ..condition.clone() };
            (Some(date(&boundaries[day[0] - 1])), part)
        })
        .collect()
}

/// Whether each trajectory meets a condition.
pub fn met(condition: &Condition, trajectories: &Trajectories) -> Vec<bool> {
    let numbers = condition.read_all(trajectories).expect("a condition that was resolved fits its forecast");
    numbers.into_iter().map(|number| condition.excess(number, 0.0) == 0.0).collect()
}

/// How many trajectories meet a condition, in its steps.
pub fn period(
    date: Option<NaiveDate>,
    condition: &Condition,
    boundaries: &[DateTime<Utc>],
    happens: &[bool],
) -> EventPeriod {
    let num_met = happens.iter().filter(|happens| **happens).count();
    let n_samples = happens.len() as f64;
    let probability = num_met as f64 / n_samples;
    EventPeriod {
        date,
        start: boundaries[condition.steps.start() - 1],
        end: boundaries[*condition.steps.end()],
        probability,
        standard_error: (probability * (1.0 - probability) / n_samples).sqrt(),
        num_met,
    }
}

/// When a limit on single values is passed, by any of the series.
pub fn passage(condition: &Condition, boundaries: &[DateTime<Utc>], trajectories: &Trajectories) -> Option<Passage> {
    let is_threshold = matches!(
        (condition.reading, condition.demand),
        (Reading::Aggregate(Aggregate::Max), Demand::Within(Bounds { lower: Some(_), upper: None }))
            | (Reading::Aggregate(Aggregate::Min), Demand::Within(Bounds { lower: None, upper: Some(_) }))
    );
    if !is_threshold {
        return None;
    }
    let (n_samples, n_steps) = (trajectories.n_samples(), condition.steps.clone().count());
    // Each step by itself, `[step][sample]`.
    let of_step = |step: usize| met(&Condition { steps: step..=step, ..condition.clone() }, trajectories);
    let is_beyond: Vec<Vec<bool>> = condition.steps.clone().map(of_step).collect();
    let share = |count: usize| count as f64 / n_samples as f64;
    let (mut first, mut by) = (vec![0; n_steps], vec![0; n_steps]);
    let mut durations = Vec::with_capacity(n_samples);
    let steps_beyond = |sample: usize| (0..n_steps).filter(|&step| is_beyond[step][sample]).collect();
    for beyond in (0..n_samples).map(steps_beyond).collect::<Vec<Vec<usize>>>() {
        if let Some(&passed) = beyond.first() {
            first[passed] += 1;
            by[passed..].iter_mut().for_each(|count| *count += 1);
        }
        durations.push(beyond.len() as f32);
    }
    durations.sort_unstable_by(f32::total_cmp);
    let level = |level: f64| QuantileLevel::new(level).expect("between 0 and 1");
    Some(Passage {
        valid_time: condition.steps.clone().map(|step| boundaries[step - 1]).collect(),
        first: first.into_iter().map(share).collect(),
        by: by.into_iter().map(share).collect(),
        beyond: is_beyond.iter().map(|step| share(step.iter().filter(|beyond| **beyond).count())).collect(),
        mean_steps: durations.iter().map(|steps| f64::from(*steps)).sum::<f64>() / n_samples as f64,
        steps: levels::by_level(
            &levels::LEVELS_DEFAULT,
            levels::LEVELS_DEFAULT.iter().map(|&number| quantile_of_sorted(&durations, level(number))),
        ),
    })
}

/// The forecast over the trajectories in which it happens.
fn given(
    stored: &Stored,
    boundaries: &[DateTime<Utc>],
    trajectories: &Trajectories,
    happens: &[bool],
    levels: &[QuantileLevel],
) -> Option<Vec<ForecastSeries>> {
    let horizon = trajectories.without_nowcasts();
    let (n_steps, n_series) = (horizon.n_steps(), horizon.n_series());
    let paths = horizon.values().chunks_exact(n_steps * n_series).zip(happens).filter(|(_, happens)| **happens);
    let kept: Vec<f32> = paths.flat_map(|(path, _)| path.iter().copied()).collect();
    let n_kept = kept.len() / (n_steps * n_series);
    if n_kept == 0 {
        return None;
    }
    let kept = Trajectories::new(n_kept, 1, n_steps, n_series, kept).expect("whole paths");
    let (means, quantiles) = (kept.mean(), kept.quantiles(levels));
    let numbers: Vec<f64> = levels.iter().map(|level| level.value()).collect();
    let steps: Vec<i32> = (1..).take(n_steps).collect();
    let of_series = |(index, series)| {
        ForecastSeries::new(series, index, &boundaries[..n_steps], &steps, &means, &quantiles, &numbers)
    };
    Some(stored.series.iter().enumerate().map(of_series).collect())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{forecaster::scenario::Function, routes::extract::parse_query};

    fn times() -> Vec<DateTime<Utc>> {
        (0..=3).map(|step| DateTime::UNIX_EPOCH + TimeDelta::hours(10 * step)).collect()
    }

    /// Four trajectories of one series over three steps.
    fn trajectories() -> Trajectories {
        let values = vec![1.0, 5.0, 6.0, 7.0, 1.0, 9.0, 1.0, 1.0, 8.0, 1.0, 2.0, 3.0];
        Trajectories::new(4, 1, 3, 1, values).expect("whole rows")
    }

    fn condition(reading: Reading, lower: Option<f64>, upper: Option<f64>) -> Condition {
        Condition { reading, series: vec![0], steps: 1..=3, demand: Demand::Within(Bounds { lower, upper }) }
    }

    #[test]
    fn a_limit_is_passed_first_and_for_so_long() {
        let over = condition(Reading::Aggregate(Aggregate::Max), Some(5.0), None);
        let passage = passage(&over, &times(), &trajectories()).expect("a threshold");
        assert_eq!(passage.first, [0.25, 0.25, 0.25]);
        assert_eq!(passage.by, [0.25, 0.5, 0.75]);
        assert_eq!(passage.beyond, [0.25, 0.25, 0.75]);
        assert_eq!((passage.mean_steps, passage.steps["0.5"]), (1.25, 1.5));
        let under = condition(Reading::Aggregate(Aggregate::Min), None, Some(1.0));
        assert_eq!(super::passage(&under, &times(), &trajectories()).expect("a threshold").by, [0.75, 1.0, 1.0]);
        let sum = condition(Reading::Aggregate(Aggregate::Sum), Some(5.0), None);
        assert_eq!(super::passage(&sum, &times(), &trajectories()), None);
    }

    #[test]
    fn days_are_those_of_the_panel() {
        let sum = condition(Reading::Aggregate(Aggregate::Sum), Some(6.0), Some(8.0));
        let date = |time: &DateTime<Utc>| time.date_naive();
        let days: Vec<EventPeriod> = days(&sum, &times(), date)
            .iter()
            .map(|(date, part)| period(*date, part, &times(), &met(part, &trajectories())))
            .collect();
        assert_eq!(days.len(), 1, "0, 10 and 20 hours are one day");
        assert_eq!((days[0].num_met, days[0].end), (1, times()[3]));
        // Five hours further west the first of the steps is of the day before.
        let west = |time: &DateTime<Utc>| (*time - TimeDelta::hours(5)).date_naive();
        let west: Vec<(Option<NaiveDate>, Condition)> = super::days(&sum, &times(), west);
        assert_eq!(west.iter().map(|(_, part)| part.steps.clone()).collect::<Vec<_>>(), [1..=1, 2..=3]);
        let ramp = condition(Reading::Ramp, Some(6.0), None);
        assert_eq!(super::days(&ramp, &times(), |time| (*time - TimeDelta::hours(5)).date_naive()).len(), 1);
    }

    #[test]
    fn a_query_is_one_condition() {
        let read = parse_query::<EventsQuery>;
        let query = read("fn=max&series=a&at_least=3&per=day").expect("it is valid");
        assert_eq!((query.condition.r#fn, query.is_per_day), (Function::Max, true));
        let refused = |query: &str| match read(query) {
            Err(Error::InvalidParameter { errors }) => errors[0].parameter.clone().unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused("at_least=3"), "fn");
        assert_eq!(refused("fn=max"), "at_least");
        assert_eq!(refused("fn=max&at_least=x"), "at_least");
        assert_eq!(refused("fn=sum&at_least=3&at_most=2"), "at_most");
        assert_eq!(refused("fn=value&at_least=3&series=a"), "fn");
        assert_eq!(refused("fn=sum&at_least=3&per=week"), "per");
        assert_eq!(refused("fn=sum&at_least=3&per=day&quantiles=0.5"), "quantiles");
    }
}
