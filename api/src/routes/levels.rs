//! Quantile levels in requests and responses.

use std::collections::BTreeMap;

use forecast::QuantileLevel;

use super::extract::Parameters;
use crate::{Error, problem::Violation};

/// Levels of a forecast whose request names none: median and the 50, 80 and 90 % intervals.
pub const LEVELS_DEFAULT: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];

/// Most levels of one request.
pub const LEVELS_MAX: usize = 199;

/// The levels of a request that gives quantile levels, or interval levels in percent, or neither.
///
/// # Errors
/// [`Error::InvalidBody`] when both are given, none is left, or one is out of range.
pub fn from_body(quantiles: Option<&[f64]>, level: Option<&[f64]>) -> Result<Vec<QuantileLevel>, Error> {
    let (name, numbers): (&str, &[f64]) = match (quantiles, level) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid_body("/level", "contradiction", "give either `quantiles` or `level`, not both"));
        }
        (Some(quantiles), None) => ("quantiles", quantiles),
        (None, Some(level)) => ("level", level),
        (None, None) => ("quantiles", &LEVELS_DEFAULT),
    };
    if numbers.is_empty() || numbers.len() > LEVELS_MAX {
        let message = format!("must have between 1 and {LEVELS_MAX} numbers");
        return Err(Error::invalid_body(&format!("/{name}"), "out-of-range", message));
    }

    let mut errors = Vec::new();
    let mut levels = Vec::new();
    for (index, &number) in numbers.iter().enumerate() {
        let parsed = if name == "level" { interval(number) } else { quantile(number) };
        match parsed {
            Ok(parsed) => levels.extend(parsed),
            Err(message) => {
                errors.push(Violation::at(format!("/{name}/{index}"), "out-of-range", message));
            }
        }
    }
    if errors.is_empty() { Ok(sorted(levels)) } else { Err(Error::InvalidBody { errors }) }
}

/// Takes the parameter `quantiles`: levels, separated by commas.
///
/// # Errors
/// [`Error::InvalidParameter`] when one is not a number between 0 and 1.
pub fn take(parameters: &mut Parameters) -> Result<Option<Vec<QuantileLevel>>, Error> {
    parameters.take("quantiles")?.map(|text| from_parameter(&text)).transpose()
}

fn from_parameter(text: &str) -> Result<Vec<QuantileLevel>, Error> {
    let refuse = |message: String| Error::invalid_parameter("quantiles", "invalid-value", message);
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > LEVELS_MAX {
        return Err(refuse(format!("must have at most {LEVELS_MAX} numbers")));
    }
    let levels: Result<Vec<QuantileLevel>, Error> = parts
        .into_iter()
        .map(|part| {
            part.parse()
                .ok()
                .and_then(|number| QuantileLevel::new(number).ok())
                .ok_or_else(|| refuse(format!("`{part}` must be a number between 0 and 1, ends excluded")))
        })
        .collect();
    Ok(sorted(levels?))
}

/// The levels of a stored forecast.
///
/// # Errors
/// [`Error::Internal`] when one is out of range, which the database rules out.
pub fn stored(numbers: &[f64]) -> Result<Vec<QuantileLevel>, Error> {
    numbers
        .iter()
        .map(|&number| QuantileLevel::new(number).map_err(|error| Error::internal("reading quantile levels", error)))
        .collect()
}

fn quantile(number: f64) -> Result<Vec<QuantileLevel>, &'static str> {
    QuantileLevel::new(number).map(|level| vec![level]).map_err(|_| "must lie between 0 and 1, ends excluded")
}

/// Both ends of the central interval that holds `percent` of the probability.
fn interval(percent: f64) -> Result<Vec<QuantileLevel>, &'static str> {
    let message = "must lie between 0 and 100 percent, ends excluded";
    let ends = [(100.0 - percent) / 200.0, (100.0 + percent) / 200.0];
    if percent <= 0.0 {
        return Err(message);
    }
    ends.into_iter().map(|end| QuantileLevel::new(end).map_err(|_| message)).collect()
}

fn sorted(mut levels: Vec<QuantileLevel>) -> Vec<QuantileLevel> {
    levels.sort_by(|a, b| a.value().total_cmp(&b.value()));
    levels.dedup_by(|a, b| a.value() == b.value());
    levels
}

/// Values by level; the keys are the levels as shortest decimal numbers.
#[must_use]
pub fn by_level<V>(levels: &[f64], values: impl IntoIterator<Item = V>) -> BTreeMap<String, V> {
    levels.iter().map(f64::to_string).zip(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(levels: &[QuantileLevel]) -> Vec<f64> {
        levels.iter().map(|level| level.value()).collect()
    }

    /// Pointers of what is wrong with a body.
    fn wrong(quantiles: Option<&[f64]>, level: Option<&[f64]>) -> Vec<String> {
        match from_body(quantiles, level) {
            Err(Error::InvalidBody { errors }) => {
                errors.into_iter().filter_map(|violation| violation.pointer).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn levels_are_sorted_and_unique() {
        let levels = from_body(Some(&[0.9, 0.1, 0.9]), None).expect("they are valid");
        assert_eq!(numbers(&levels), [0.1, 0.9]);
    }

    #[test]
    fn a_percentage_becomes_both_ends_of_its_interval() {
        let levels = from_body(None, Some(&[80.0, 90.0])).expect("they are valid");
        assert_eq!(numbers(&levels), [0.05, 0.1, 0.9, 0.95]);
    }

    #[test]
    fn every_level_out_of_range_is_pointed_at() {
        assert_eq!(
            wrong(Some(&[0.0, 0.5, 1.0, 1.5, f64::NAN]), None),
            ["/quantiles/0", "/quantiles/2", "/quantiles/3", "/quantiles/4"]
        );
        assert_eq!(wrong(None, Some(&[0.0, 100.0, 50.0, -5.0])), ["/level/0", "/level/1", "/level/3"]);
        assert_eq!(wrong(Some(&[]), None), ["/quantiles"]);
        assert_eq!(wrong(Some(&[0.5]), Some(&[80.0])), ["/level"]);
    }

    #[test]
    fn a_parameter_is_a_list_of_numbers() {
        assert_eq!(numbers(&from_parameter("0.5, 0.25").expect("valid")), [0.25, 0.5]);
        for text in ["", "0.5,", "1", "p90", "0.5;0.9"] {
            assert!(from_parameter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_shortest_decimals_in_the_order_of_the_levels() {
        let map = by_level(&[0.05, 0.1, 0.5], [1, 2, 3]);
        assert_eq!(map.keys().collect::<Vec<_>>(), ["0.05", "0.1", "0.5"]);
    }
}
