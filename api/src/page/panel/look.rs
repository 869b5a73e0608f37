//! Which forecast of a panel is shown, and how its fan is drawn.

use uuid::Uuid;

use crate::{
    Error,
    page::chart::Drawn,
    routes::extract::{FromQuery, Parameters},
};

/// Most intervals of a fan.
const INTERVALS_MAX: usize = 5;

/// Most trajectories that are drawn.
pub const PATHS_MAX: usize = 1_000;

/// Most earlier forecasts that are laid over it, and how many are unless the address says.
pub const N_EARLIER_MAX: usize = 10;
const N_EARLIER_DEFAULT: usize = 2;

/// What is looked at, as far as the address says.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The forecast; the latest one where none is named.
    pub forecast: Option<Uuid>,
    /// How it is drawn.
    pub drawn: Drawn,
    /// Earlier forecasts that are laid over it.
    pub n_earlier: usize,
}

impl FromQuery for Look {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let expected = format!("a number from 0 to {N_EARLIER_MAX}");
        let n_earlier = parameters
            .take_parsed("earlier", &expected, |text| text.parse().ok().filter(|&n: &usize| n <= N_EARLIER_MAX))?;
        Ok(Self {
            forecast: parameters
                .take_parsed("forecast", "the identifier of a forecast", |text| match text {
                    "" => Some(None),
                    identifier => Uuid::try_parse(identifier).ok().map(Some),
                })?
                .flatten(),
            drawn: take_drawn(parameters, "intervals", "paths", "path")?,
            n_earlier: n_earlier.unwrap_or(N_EARLIER_DEFAULT),
        })
    }
}

/// How a fan is drawn, by the parameters that are called so.
///
/// # Errors
/// [`Error::InvalidParameter`].
pub fn take_drawn(
    parameters: &mut Parameters,
    of_intervals: &'static str,
    of_paths: &'static str,
    of_highlighted: &'static str,
) -> Result<Drawn, Error> {
    let default = Drawn::default();
    let expected = format!("at most {INTERVALS_MAX} percentages between 1 and 99, separated by commas");
    let intervals = parameters.take_parsed(of_intervals, &expected, intervals)?;
    let n_paths = parameters.take_parsed(of_paths, &format!("a number from 0 to {PATHS_MAX}"), |text| {
        text.parse().ok().filter(|&n: &usize| n <= PATHS_MAX)
    })?;
    let highlighted =
        parameters.take_parsed(of_highlighted, "the number of a trajectory, from 1 on", |text| match text.trim() {
            "" => Some(None),
            number => number.parse().ok().filter(|&number: &usize| number > 0).map(Some),
        })?;
    Ok(Drawn {
        intervals: intervals.unwrap_or(default.intervals),
        n_paths: n_paths.unwrap_or(default.n_paths),
        highlighted: highlighted.flatten(),
    })
}

/// Reads percentages, and puts the widest first.
fn intervals(text: &str) -> Option<Vec<u32>> {
    let numbers = text.split(',').map(|part| part.trim().parse().ok().filter(|percent| (1..=99).contains(percent)));
    let mut intervals: Vec<u32> = numbers.collect::<Option<_>>()?;
    intervals.sort_unstable_by(|a, b| b.cmp(a));
    intervals.dedup();
    (intervals.len() <= INTERVALS_MAX).then_some(intervals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_percentages_and_the_widest_comes_first() {
        assert_eq!(intervals("50, 95,50"), Some(vec![95, 50]));
        for wrong in ["", "0", "100", "50;80", "1,2,3,4,5,6", "x"] {
            assert_eq!(intervals(wrong), None, "{wrong}");
        }
    }
}
