//! Futures of known covariates that come with an order, and those that nobody supplied.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use forecast::{UnknownCovariate, Window, is_value};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Grid, Warning};
use crate::{
    Error,
    db::{series::Series, words::Role},
    problem::Violation,
};

/// One value of a known covariate.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuppliedValue {
    /// Start of the interval that the value refers to: a step of the forecast.
    pub valid_time: DateTime<Utc>,
    /// The value, in the unit of its series.
    pub value: f64,
}

/// The future of a known covariate as an order supplies it. Where it has no value, the stored one counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuppliedFuture {
    /// Name of the series.
    pub series: String,
    /// Its values, in any order.
    pub values: Vec<SuppliedValue>,
}

/// A supplied value at its place in the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placed {
    /// Row of the window's future: 0 is step 1.
    row: usize,
    /// Column of the panel.
    series: usize,
    value: f64,
}

/// Finds the place of every supplied value.
///
/// # Errors
/// [`Error::InvalidBody`] with everything that has no place, by JSON pointers below `/covariates`.
pub(super) fn place(
    futures: &[SuppliedFuture],
    series: &[Series],
    grid: Grid,
    issue_time: DateTime<Utc>,
    horizon: usize,
) -> Result<Vec<Placed>, Error> {
    if futures.is_empty() {
        return Ok(Vec::new());
    }
    let first = grid.frequency.ceil(issue_time, grid.time_zone);
    let rows: HashMap<DateTime<Utc>, usize> = (0..horizon).map(|row| (grid.advance(first, row as i64), row)).collect();
    let (mut placed, mut errors) = (Vec::new(), Vec::new());
    for future in futures {
        let pointer = pointer(&future.series);
        let Some(column) = series.iter().position(|series| series.name == future.series) else {
            errors.push(Violation::at(&pointer, "unknown-series", "the model has no such series".to_owned()));
            continue;
        };
        if series[column].role != Role::Known {
            let message = format!("must be a `known` covariate; this series is `{}`", series[column].role);
            errors.push(Violation::at(&pointer, "not-a-known-covariate", message));
            continue;
        }
        let mut taken = vec![false; horizon];
        for (index, supplied) in future.values.iter().enumerate() {
            let of = |field: &str| format!("{pointer}/{index}/{field}");
            match rows.get(&supplied.valid_time) {
                None => {
                    let last = grid.advance(first, horizon as i64 - 1);
                    let message = format!(
                        "must be the start of a step of the forecast, from {} to {}",
                        first.to_rfc3339(),
                        last.to_rfc3339()
                    );
                    errors.push(Violation::at(of("valid_time"), "no-step", message));
                }
                Some(&row) if std::mem::replace(&mut taken[row], true) => {
                    errors.push(Violation::at(of("valid_time"), "duplicate", "has a value already"));
                }
                Some(_) if !is_value(supplied.value) => {
                    errors.push(Violation::at(of("value"), "out-of-range", "must be at most 1e30 in magnitude"));
                }
                Some(&row) => placed.push(Placed { row, series: column, value: supplied.value }),
            }
        }
    }
    if errors.is_empty() { Ok(placed) } else { Err(Error::InvalidBody { errors }) }
}

/// Puts supplied values into the future of a window.
///
/// # Errors
/// [`Error::Internal`] when the window is not the one that they were placed for.
pub(super) fn supply(window: &mut Window, placed: &[Placed]) -> Result<(), Error> {
    let n_series = window.context.n_series();
    let values = placed.iter().map(|&Placed { row, series, value }| (row * n_series + series, value));
    put(window, values)
}

/// Puts what is supposed, `[step, series]` with gaps, over the future of a window.
///
/// # Errors
/// [`Error::Internal`] when it is longer than the window's horizon.
pub(super) fn suppose(window: &mut Window, future: &forecast::Grid) -> Result<(), Error> {
    let values = future.values().iter().copied().enumerate().filter(|(_, value)| !value.is_nan());
    put(window, values)
}

/// Puts values into the future of a window, by index in `[step, series]`.
fn put(window: &mut Window, values: impl Iterator<Item = (usize, f64)>) -> Result<(), Error> {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let wrong = |problem: &str| Error::internal("supplying a future", problem.to_owned());
    let n_series = window.context.n_series();
    let mut all = window.future.as_ref().map_or_else(Vec::new, |future| future.values().to_vec());
    all.resize(window.horizon * n_series, f64::NAN);
    for (index, value) in values {
        *all.get_mut(index).ok_or_else(|| wrong("it is longer than the horizon"))? = value;
    }
    window.future = Some(forecast::Grid::new(n_series, all).map_err(|error| wrong(&error.to_string()))?);
    Ok(())
}

/// A warning for each known covariate whose future is not known to the end.
pub(super) fn warnings(
    unknown: &[UnknownCovariate],
    series: &[Series],
    grid: Grid,
    issue_time: DateTime<Utc>,
) -> Vec<Warning> {
    let first = grid.frequency.ceil(issue_time, grid.time_zone);
    unknown
        .iter()
        .map(|&UnknownCovariate { series: column, step }| {
            let valid_time = grid.advance(first, i64::from(step) - 1).to_rfc3339();
            let name = &series[column].name;
            let message = format!("covariate `{name}` is not known from step {step} on ({valid_time}); it was drawn");
            Warning::new("unknown-covariate", message)
        })
        .collect()
}

/// JSON pointer to the future of a covariate in a request.
fn pointer(name: &str) -> String {
    format!("/covariates/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::db::words::Kind;

    const HORIZON: usize = 3;

    fn hour(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn series(name: &str, role: Role) -> Series {
        Series {
            series_id: 1,
            panel_id: 1,
            name: name.to_owned(),
            role,
            kind: Kind::Mean,
            unit: None,
            lower_bound: None,
            upper_bound: None,
            is_integer: false,
            attributes: serde_json::Map::new(),
        }
    }

    fn placed(name: &str, values: &[(DateTime<Utc>, f64)]) -> Result<Vec<Placed>, Error> {
        let values = values.iter().map(|&(valid_time, value)| SuppliedValue { valid_time, value }).collect();
        let all = [series("demand", Role::Target), series("wind/m/s", Role::Known)];
        let grid = Grid { frequency: "1h".parse().expect("a frequency"), time_zone: chrono_tz::UTC };
        place(&[SuppliedFuture { series: name.to_owned(), values }], &all, grid, hour(10), HORIZON)
    }

    #[test]
    fn supplied_values_find_their_steps() {
        let found = placed("wind/m/s", &[(hour(12), 7.0), (hour(10), 5.0)]).expect("steps of the forecast");
        assert_eq!(found, [Placed { row: 2, series: 1, value: 7.0 }, Placed { row: 0, series: 1, value: 5.0 }]);
    }

    #[test]
    fn what_has_no_place_is_named_by_a_pointer() {
        let wrong = |name: &str, values: &[(DateTime<Utc>, f64)]| match placed(name, values) {
            Err(Error::InvalidBody { errors }) => {
                errors.into_iter().map(|error| (error.pointer.unwrap_or_default(), error.code)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let at = |pointer: &str, code: &str| (pointer.to_owned(), code.to_owned());
        let half_past = hour(10) + TimeDelta::minutes(30);
        assert_eq!(
            wrong("wind/m/s", &[(hour(9), 1.0), (half_past, 1.0), (hour(10), 1.0), (hour(10), 2.0), (hour(13), 1.0)]),
            [
                at("/covariates/wind~1m~1s/0/valid_time", "no-step"),
                at("/covariates/wind~1m~1s/1/valid_time", "no-step"),
                at("/covariates/wind~1m~1s/3/valid_time", "duplicate"),
                at("/covariates/wind~1m~1s/4/valid_time", "no-step"),
            ]
        );
        assert_eq!(wrong("demand", &[]), [at("/covariates/demand", "not-a-known-covariate")]);
        assert_eq!(wrong("rain", &[]), [at("/covariates/rain", "unknown-series")]);
    }
}
