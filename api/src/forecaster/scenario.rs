//! What a forecast supposes: values of the future, and conditions on the path.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use forecast::{Aggregate, Bounds, Condition, ConditionProblem, Demand, N_CONDITIONS_MAX, Reading, TILT_MAX, is_value};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Error,
    db::series::Series,
    instant::{rfc3339, rfc3339_option},
    problem::Violation,
};

/// What a forecast supposes. Every trajectory has it; the rest follows the joint law under that condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Values that are supposed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<SupposedValue>,
    /// Conditions on the path, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PathCondition>,
}

/// A value of one series that is supposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SupposedValue {
    /// Name of the series.
    #[schema(example = "no2")]
    pub series: String,
    /// Start of the interval; a step of the forecast.
    #[serde(deserialize_with = "rfc3339")]
    pub valid_time: DateTime<Utc>,
    /// The value, in the unit of the series.
    pub value: f64,
}

/// A demand on one number that is read off the path. Exactly one of `equal`, `tilt`, or `at_least` and/or `at_most`, is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"fn": "sum", "series": ["no2"], "start": "2024-01-01T00:00:00Z", "at_least": 900.0}))]
pub struct PathCondition {
    /// How the number is read.
    pub r#fn: Function,
    /// Names of the series. Default: all. `value` needs one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<String>,
    /// The one step that is read; `value` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339_option")]
    pub valid_time: Option<DateTime<Utc>>,
    /// The first step that is read. Default: the first of the forecast.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339_option")]
    pub start: Option<DateTime<Utc>>,
    /// Where reading ends: the step that begins then is not read. Default: the end of the forecast.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339_option")]
    pub end: Option<DateTime<Utc>>,
    /// What the number must be; of a value, a sum or a mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal: Option<f64>,
    /// What the number must not be below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// What the number must not be above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// By how much trajectories are favoured: each becomes `exp(tilt)` times as likely for each standard deviation of the plain
    /// forecast by which its number is higher. From -4 to 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tilt: Option<f64>,
}

/// How a number is read off a part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// The value of one series at one step.
    Value,
    /// The total over steps and series.
    Sum,
    /// The mean over steps and series.
    Mean,
    /// The largest value.
    Max,
    /// The smallest value.
    Min,
    /// The largest change of a series from one of the steps to the next, up or down.
    Ramp,
}

/// What conditions did to a forecast. The plain forecast that they are compared with has the supposed values, but not the
/// conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Guidance {
    /// What is told of each condition, in their order.
    pub conditions: Vec<ConditionGuidance>,
    /// Number of independent trajectories that would say as much as these.
    pub effective_sample_size: f64,
    /// How likely all limits together are in the plain forecast; absent when there are only prescribed numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_rate: Option<BaseRate>,
    /// Trajectories that were drawn in all.
    pub num_drawn: usize,
}

/// What is told of one condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionGuidance {
    /// Share of the trajectories that meet it; a tilt is always met.
    pub satisfaction: f64,
    /// Share of plain trajectories that meet it: of a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_rate: Option<f64>,
    /// Share of plain trajectories whose number is lower than the one that is prescribed, or than the mean that a tilt leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile_level: Option<f64>,
}

/// How likely limits are in the plain forecast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BaseRate {
    /// The probability.
    pub probability: f64,
    /// Its Monte Carlo error, one standard deviation.
    pub standard_error: f64,
    /// Plain trajectories that meet all limits.
    pub num_met: usize,
    /// Plain trajectories that were drawn for this.
    pub num_candidates: usize,
}

/// A scenario in the terms of a window.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Supposed values.
    pub future: Option<forecast::Grid>,
    /// Conditions on the path.
    pub conditions: Vec<Condition>,
}

impl From<&forecast::Guidance> for Guidance {
    fn from(guidance: &forecast::Guidance) -> Self {
        let condition = |report: &forecast::ConditionReport| ConditionGuidance {
            satisfaction: report.satisfaction,
            base_rate: report.base_rate,
            quantile_level: report.quantile_level,
        };
        Self {
            conditions: guidance.conditions.iter().map(condition).collect(),
            effective_sample_size: guidance.effective_sample_size,
            base_rate: guidance.base_rate.map(|rate| BaseRate {
                probability: rate.probability,
                standard_error: rate.standard_error,
                num_met: rate.n_met,
                num_candidates: rate.n_candidates,
            }),
            num_drawn: guidance.n_drawn,
        }
    }
}

impl PathCondition {
    /// What the number must be.
    fn demand(&self) -> Option<Demand> {
        match (self.equal, self.tilt, self.at_least, self.at_most) {
            (Some(number), None, None, None) => Some(Demand::Equal(number)),
            (None, Some(tilt), None, None) => Some(Demand::Tilt(tilt)),
            (None, None, None, None) | (Some(_), ..) | (_, Some(_), ..) => None,
            (None, None, lower, upper) => Some(Demand::Within(Bounds { lower, upper })),
        }
    }

    /// The condition on these series and steps, of which there are the starts and the end of the last one.
    ///
    /// # Errors
    /// Every series that is unknown and every time that is no step, by pointers into the condition.
    pub fn resolve(&self, series: &[Series], boundaries: &[DateTime<Utc>]) -> Result<Condition, Vec<Violation>> {
        let mut place = Place { series, boundaries, errors: vec![] };
        place.condition("", self).ok_or(place.errors)
    }

    /// What is wrong with it by itself, by pointers below one.
    pub fn violations(&self, pointer: &str) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut refuse = |name: &str, code: &str, message: &str| {
            violations.push(Violation::at(format!("{pointer}{name}"), code, message));
        };
        if self.demand().is_none() {
            refuse("", "needs-limit", "needs `equal`, `tilt`, or `at_least` and/or `at_most`");
        }
        for (name, number) in [("/equal", self.equal), ("/at_least", self.at_least), ("/at_most", self.at_most)] {
            if number.is_some_and(|number| !number.is_finite()) {
                refuse(name, "out-of-range", "must be finite");
            }
        }
        if self.tilt.is_some_and(|tilt| !(-TILT_MAX..=TILT_MAX).contains(&tilt)) {
            refuse("/tilt", "out-of-range", &format!("must be from -{TILT_MAX} to {TILT_MAX}"));
        }
        if let (Some(lower), Some(upper)) = (self.at_least, self.at_most)
            && lower > upper
        {
            refuse("/at_most", "contradictory-limits", "must not be below `at_least`");
        }
        if self.series.iter().enumerate().any(|(index, name)| self.series[..index].contains(name)) {
            refuse("/series", "duplicate", "must name each series once");
        }
        if self.valid_time.is_some() && (self.start.is_some() || self.end.is_some()) {
            refuse("/valid_time", "conflicting-field", "cannot be given together with `start` or `end`");
        }
        match self.r#fn {
            Function::Value if self.valid_time.is_none() || self.series.len() != 1 => {
                refuse("", "missing-field", "a value needs one `series` and its `valid_time`");
            }
            Function::Max | Function::Min | Function::Ramp if self.equal.is_some() => {
                refuse("/equal", "not-linear", "only a value, a sum or a mean can be equal to a number");
            }
            Function::Ramp if self.valid_time.is_some() => {
                refuse("/valid_time", "conflicting-field", "a ramp needs at least two steps");
            }
            _ => {}
        }
        violations
    }

    fn reading(&self) -> Reading {
        match self.r#fn {
            Function::Value | Function::Sum => Reading::Aggregate(Aggregate::Sum),
            Function::Mean => Reading::Aggregate(Aggregate::Mean),
            Function::Max => Reading::Aggregate(Aggregate::Max),
            Function::Min => Reading::Aggregate(Aggregate::Min),
            Function::Ramp => Reading::Ramp,
        }
    }
}

impl Scenario {
    /// Whether nothing is supposed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.conditions.is_empty()
    }

    /// What is wrong with it by itself, by pointers below `/scenario`.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        if self.is_empty() {
            return vec![Violation::at("/scenario", "missing-field", "needs `pins` or `conditions`")];
        }
        let mut violations = Vec::new();
        for (index, pin) in self.pins.iter().enumerate() {
            if !is_value(pin.value) {
                violations.push(Violation::at(
                    format!("/scenario/pins/{index}/value"),
                    "out-of-range",
                    "must be at most 1e30 in magnitude",
                ));
            }
        }
        if self.conditions.len() > N_CONDITIONS_MAX {
            let message = format!("must be at most {N_CONDITIONS_MAX}");
            violations.push(Violation::at("/scenario/conditions", "too-many", message));
        }
        let conditions = self.conditions.iter().enumerate();
        violations.extend(
            conditions.flat_map(|(index, condition)| condition.violations(&format!("/scenario/conditions/{index}"))),
        );
        violations
    }

    /// The scenario for these series and steps; `boundaries` are the starts of the steps from the first on, and the end of the
    /// last one.
    ///
    /// # Errors
    /// [`Error::InvalidBody`] with every series that is unknown and every time that is no step of the forecast.
    pub fn resolve(&self, series: &[Series], boundaries: &[DateTime<Utc>]) -> Result<Resolved, Error> {
        let mut place = Place { series, boundaries, errors: vec![] };
        let n_series = series.len();
        let mut future = vec![f64::NAN; if self.pins.is_empty() { 0 } else { place.horizon() * n_series }];
        let mut taken = HashSet::new();
        for (index, pin) in self.pins.iter().enumerate() {
            let pointer = format!("/scenario/pins/{index}");
            let column = place.column(&format!("{pointer}/series"), &pin.series);
            let step = place.step(&format!("{pointer}/valid_time"), pin.valid_time);
            if let (Some(column), Some(step)) = (column, step) {
                if !taken.insert((step, column)) {
                    place.errors.push(Violation::at(pointer, "duplicate", "the same value is given twice"));
                }
                future[(step - 1) * n_series + column] = pin.value;
            }
        }
        let conditions = self.conditions.iter().enumerate();
        let conditions: Vec<Condition> = conditions
            .filter_map(|(index, condition)| place.condition(&format!("/scenario/conditions/{index}"), condition))
            .collect();
        if !place.errors.is_empty() {
            return Err(Error::InvalidBody { errors: place.errors });
        }
        let future = (!self.pins.is_empty())
            .then(|| forecast::Grid::new(n_series, future))
            .transpose()
            .map_err(|error| Error::internal("laying supposed values on the grid", error))?;
        Ok(Resolved { future, conditions })
    }

    /// What the model refuses of it, as a problem with the body; `None` when something else went wrong.
    pub fn refused(&self, error: &forecast::Error, series: &[Series], boundaries: &[DateTime<Utc>]) -> Option<Error> {
        let of_pins = |code| Some(Error::invalid_body("/scenario/pins", code, error.to_string()));
        match error {
            forecast::Error::Condition { condition, problem } => {
                let code = match problem {
                    ConditionProblem::OutOfBounds { .. } => "out-of-bounds",
                    ConditionProblem::BeyondHorizon { .. } => "beyond-trained-horizon",
                    ConditionProblem::Decided => "already-decided",
                    ConditionProblem::NotMet { .. } => "not-met",
                    _ => "out-of-range",
                };
                let pointer = format!("/scenario/conditions/{condition}");
                Some(Error::invalid_body(&pointer, code, problem.to_string()))
            }
            forecast::Error::BeyondHorizon { series: column, step, last } => {
                let time = usize::try_from(*step - 1).ok().and_then(|index| boundaries.get(index));
                let is_that = |pin: &SupposedValue| pin.series == series[*column].name && Some(&pin.valid_time) == time;
                let index = self.pins.iter().position(is_that)?;
                let message = format!("lies beyond the trained horizon, which ends at step {last}");
                Some(Error::invalid_body(&format!("/scenario/pins/{index}"), "beyond-trained-horizon", message))
            }
            forecast::Error::TooManyPins { .. } => of_pins("too-many"),
            forecast::Error::Covariance if !self.pins.is_empty() => of_pins("already-decided"),
            _ => None,
        }
    }
}

/// The steps from `start` on (all, unless it is given) that begin before `end`, counted from 1; `boundaries` as for
/// [`PathCondition::resolve`].
///
/// # Errors
/// Every time that is no step, by its name.
pub fn steps(
    boundaries: &[DateTime<Utc>],
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
) -> Result<RangeInclusive<usize>, Vec<Violation>> {
    let mut place = Place { series: &[], boundaries, errors: vec![] };
    place.period("", start, end, 1).ok_or(place.errors)
}

/// Series and steps by which a scenario is read, and what was not found.
struct Place<'a> {
    series: &'a [Series],
    boundaries: &'a [DateTime<Utc>],
    errors: Vec<Violation>,
}

impl Place<'_> {
    fn horizon(&self) -> usize {
        self.boundaries.len() - 1
    }

    fn column(&mut self, pointer: &str, name: &str) -> Option<usize> {
        let column = self.series.iter().position(|series| series.name == name);
        if column.is_none() {
            self.errors.push(Violation::at(pointer, "unknown-series", format!("there is no series `{name}` here")));
        }
        column
    }

    /// Number of the step that begins at a time.
    fn step(&mut self, pointer: &str, time: DateTime<Utc>) -> Option<usize> {
        self.boundary(pointer, time, self.horizon()).map(|index| index + 1)
    }

    /// Index of a time among the first so many boundaries.
    fn boundary(&mut self, pointer: &str, time: DateTime<Utc>, n: usize) -> Option<usize> {
        let index = self.boundaries[..n].binary_search(&time).ok();
        if index.is_none() {
            let (first, last) = (self.boundaries[0].to_rfc3339(), self.boundaries[n - 1].to_rfc3339());
            let message = format!("is no step of the forecast, which has them from {first} to {last}");
            self.errors.push(Violation::at(pointer, "no-step", message));
        }
        index
    }

    fn condition(&mut self, pointer: &str, condition: &PathCondition) -> Option<Condition> {
        let columns: Option<Vec<usize>> = if condition.series.is_empty() {
            Some((0..self.series.len()).collect())
        } else {
            let names = condition.series.iter().enumerate();
            let columns: Vec<Option<usize>> =
                names.map(|(index, name)| self.column(&format!("{pointer}/series/{index}"), name)).collect();
            columns.into_iter().collect()
        };
        let steps = self.steps(pointer, condition);
        Some(Condition { reading: condition.reading(), series: columns?, steps: steps?, demand: condition.demand()? })
    }

    fn steps(&mut self, pointer: &str, condition: &PathCondition) -> Option<RangeInclusive<usize>> {
        if let Some(time) = condition.valid_time {
            return self.step(&format!("{pointer}/valid_time"), time).map(|step| step..=step);
        }
        let n_needed = if condition.r#fn == Function::Ramp { 2 } else { 1 };
        self.period(pointer, condition.start, condition.end, n_needed)
    }

    fn period(
        &mut self,
        pointer: &str,
        start: Option<DateTime<Utc>>,
        end: Option<DateTime<Utc>>,
        n_needed: usize,
    ) -> Option<RangeInclusive<usize>> {
        let horizon = self.horizon();
        let first = match start {
            Some(start) => self.step(&format!("{pointer}/start"), start),
            None => Some(1),
        };
        let last = match end {
            Some(end) => self.boundary(&format!("{pointer}/end"), end, horizon + 1),
            None => Some(horizon),
        };
        let (first, last) = (first?, last?);
        if last + 1 < first + n_needed {
            let message = format!("must lie at least {n_needed} steps after `start`");
            self.errors.push(Violation::at(format!("{pointer}/end"), "out-of-range", message));
            return None;
        }
        Some(first..=last)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::{Value, json};

    use super::*;
    use crate::db::words::{Kind, Role};

    fn series() -> Vec<Series> {
        let series = |name: &str| Series {
            series_id: 0,
            panel_id: 0,
            name: name.to_owned(),
            role: Role::Target,
            kind: Kind::Mean,
            unit: None,
            lower_bound: None,
            upper_bound: None,
            is_integer: false,
            attributes: serde_json::Map::new(),
        };
        vec![series("a"), series("b")]
    }

    /// Four hours from 1970 on.
    fn boundaries() -> Vec<DateTime<Utc>> {
        (0..=4).map(|hour| DateTime::UNIX_EPOCH + TimeDelta::hours(hour)).collect()
    }

    fn scenario(body: Value) -> Scenario {
        serde_json::from_value(body).expect("a scenario")
    }

    /// Pointers and codes of what is wrong with a scenario.
    fn wrong(body: Value) -> Vec<(String, String)> {
        let scenario = scenario(body);
        let mut violations = scenario.violations();
        if violations.is_empty() {
            match scenario.resolve(&series(), &boundaries()) {
                Err(Error::InvalidBody { errors }) => violations = errors,
                other => panic!("{other:?}"),
            }
        }
        violations.into_iter().map(|error| (error.pointer.unwrap_or_default(), error.code)).collect()
    }

    fn only(pointer: &str, code: &str) -> Vec<(String, String)> {
        vec![(pointer.to_owned(), code.to_owned())]
    }

    #[test]
    fn values_and_conditions_are_laid_on_steps_and_columns() {
        let resolved = scenario(json!({
            "pins": [{"series": "b", "valid_time": "1970-01-01T03:00:00+02:00", "value": 7.5}],
            "conditions": [
                {"fn": "value", "series": ["a"], "valid_time": "1970-01-01T03:00:00Z", "equal": 2.0},
                {"fn": "ramp", "start": "1970-01-01T01:00:00Z", "at_most": 1.0},
                {"fn": "sum", "series": ["b"], "end": "1970-01-01T02:00:00Z", "at_least": 1.0, "at_most": 3.0},
                {"fn": "max", "series": ["a"], "tilt": -1.5},
            ],
        }))
        .resolve(&series(), &boundaries())
        .expect("all of it is known");
        let future = resolved.future.expect("a value is supposed");
        assert_eq!((future.n_steps(), future.get(1, 1)), (4, 7.5));
        assert_eq!(future.values().iter().filter(|value| !value.is_nan()).count(), 1);
        let sum = Reading::Aggregate(Aggregate::Sum);
        let within = |lower, upper| Demand::Within(Bounds { lower, upper });
        let expected = [
            (sum, vec![0], 4..=4, Demand::Equal(2.0)),
            (Reading::Ramp, vec![0, 1], 2..=4, within(None, Some(1.0))),
            (sum, vec![1], 1..=2, within(Some(1.0), Some(3.0))),
            (Reading::Aggregate(Aggregate::Max), vec![0], 1..=4, Demand::Tilt(-1.5)),
        ]
        .map(|(reading, series, steps, demand)| Condition { reading, series, steps, demand });
        assert_eq!(resolved.conditions, expected);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_pointer() {
        let condition = |body: Value| json!({ "conditions": [body] });
        assert_eq!(wrong(json!({})), only("/scenario", "missing-field"));
        assert_eq!(wrong(condition(json!({"fn": "sum"}))), only("/scenario/conditions/0", "needs-limit"));
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "equal": 1.0, "at_least": 0.0}))),
            only("/scenario/conditions/0", "needs-limit")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "at_least": 2.0, "at_most": 1.0}))),
            only("/scenario/conditions/0/at_most", "contradictory-limits")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "tilt": 1.0, "at_least": 0.0}))),
            only("/scenario/conditions/0", "needs-limit")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "tilt": 4.5}))),
            only("/scenario/conditions/0/tilt", "out-of-range")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "max", "equal": 2.0}))),
            only("/scenario/conditions/0/equal", "not-linear")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "value", "series": ["a"], "equal": 2.0}))),
            only("/scenario/conditions/0", "missing-field")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "series": ["a", "c"], "equal": 2.0}))),
            only("/scenario/conditions/0/series/1", "unknown-series")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "sum", "start": "1970-01-01T00:30:00Z", "equal": 2.0}))),
            only("/scenario/conditions/0/start", "no-step")
        );
        assert_eq!(
            wrong(condition(json!({"fn": "ramp", "end": "1970-01-01T01:00:00Z", "at_most": 2.0}))),
            only("/scenario/conditions/0/end", "out-of-range")
        );
        let pin = |time: &str| json!({"series": "a", "valid_time": time, "value": 1.0});
        assert_eq!(
            wrong(json!({"pins": [pin("1970-01-01T04:00:00Z")]})),
            only("/scenario/pins/0/valid_time", "no-step")
        );
        assert_eq!(
            wrong(json!({"pins": [pin("1970-01-01T00:00:00Z"), pin("1970-01-01T00:00:00Z")]})),
            only("/scenario/pins/1", "duplicate")
        );
        assert_eq!(wrong(json!({"conditions": vec![json!({"fn": "sum", "equal": 1.0}); 17]})).len(), 1);
    }
}
