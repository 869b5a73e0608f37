//! Inputs of a forecast that are less than what the model has learned from: none, old, with gaps, or flat.

use chrono::{DateTime, Utc};

use super::{Grid, Warning};
use crate::{
    db::{observation::Observation, panel::Panel, series::Series, words::Role},
    drift::profile::{Profile, flat_end},
};

/// Fewest equal values in a row that count as flat.
const FLAT_LENGTH_MIN: usize = 6;

/// A series of which less than this share is there of what was there in training is incomplete.
const COMPLETE_SHARE_MIN: f64 = 0.5;

/// Codes of the warnings that make a forecast count as degraded.
const DEGRADING: [&str; 4] = [SILENT_SERIES, STALE_SERIES, INCOMPLETE_SERIES, FLAT_SERIES];
const SILENT_SERIES: &str = "silent-series";
const STALE_SERIES: &str = "stale-series";
const INCOMPLETE_SERIES: &str = "incomplete-series";
const FLAT_SERIES: &str = "flat-series";

/// Whether a warning makes a forecast count as degraded.
pub(super) fn is_degrading(warning: &Warning) -> bool {
    DEGRADING.contains(&warning.code.as_str())
}

/// The warning that nothing is known of a series where a `reader` looks.
pub(super) fn silent(series: &str, reader: &str) -> Warning {
    Warning::new(SILENT_SERIES, format!("nothing is known of series `{series}` in the {reader}'s context"))
}

/// What is known of a panel in a model's context.
pub(super) struct Inputs<'a> {
    /// The panel.
    pub panel: &'a Panel,
    /// Its grid.
    pub grid: Grid,
    /// The series of the model, in its order.
    pub series: &'a [Series],
    /// What is known.
    pub observations: &'a [Observation],
    /// What the inputs of its training were like, if that is stored.
    pub profile: Option<&'a Profile>,
    /// Steps of the context.
    pub context_length: usize,
    /// Steps that the model was trained for.
    pub trained_horizon: usize,
    /// When the forecast is made.
    pub issue_time: DateTime<Utc>,
}

impl Inputs<'_> {
    /// A warning for each thing that is less than it was in training, but for series whose values are `supplied`.
    pub(super) fn warnings(&self, is_supplied: impl Fn(&Series) -> bool) -> Vec<Warning> {
        let Self { grid, issue_time, context_length, .. } = self;
        let end = grid.frequency.ceil(*issue_time, grid.time_zone);
        let start = grid.advance(end, -(*context_length as i64));
        let times: Vec<DateTime<Utc>> = (0..*context_length as i64).map(|step| grid.advance(start, step)).collect();
        let mut values = vec![vec![f64::NAN; *context_length]; self.series.len()];
        let mut is_known = vec![false; self.series.len()];
        for observation in self.observations {
            // Positions count from 1.
            let place = observation.position.unsigned_abs() as usize - 1;
            is_known[place] = true;
            if let Ok(step) = times.binary_search(&observation.valid_time) {
                values[place][step] = observation.value;
            }
        }
        let places = (0..self.series.len()).filter(|&place| !is_supplied(&self.series[place]));
        places
            .flat_map(|place| {
                if is_known[place] {
                    self.of_series(place, &times, &values[place])
                } else {
                    vec![silent(&self.series[place].name, "model")]
                }
            })
            .collect()
    }

    fn of_series(&self, place: usize, times: &[DateTime<Utc>], values: &[f64]) -> Vec<Warning> {
        let (series, profile) = (&self.series[place], self.profile.and_then(|profile| profile.series.get(place)));
        let name = &series.name;
        let mut warnings = vec![];
        let first = values.iter().position(|value| !value.is_nan());
        let Some((first, last)) = first.zip(values.iter().rposition(|value| !value.is_nan())) else {
            // Only the future of a known covariate is there.
            return warnings;
        };
        let end = self.grid.advance(times[last], 1);
        let is_stale =
            self.grid.advance(end, self.trained_horizon as i64) + self.panel.publication_delay < self.issue_time;
        if is_stale && series.role != Role::Known {
            let message =
                format!("the newest value of series `{name}` is that until {}", end.format("%Y-%m-%dT%H:%M:%SZ"));
            warnings.push(Warning::new(STALE_SERIES, message));
        }
        // Before its first value a series may not have been measured yet; after its last one it is late, as told above.
        let within = &values[first..=last];
        let n_there = within.iter().filter(|value| !value.is_nan()).count();
        let usual = profile.map_or(1.0, |profile| 1.0 - profile.missing);
        if (n_there as f64) < COMPLETE_SHARE_MIN * usual * within.len() as f64 {
            let n = within.len();
            let message =
                format!("{n_there} of the last {n} values of series `{name}` in the model's context are known");
            warnings.push(Warning::new(INCOMPLETE_SERIES, message));
        }
        let n_equal = flat_end(values);
        let is_flat = profile.is_some_and(|profile| n_equal > profile.flat_length.max(FLAT_LENGTH_MIN));
        if is_flat {
            let message = format!(
                "the last {n_equal} values of series `{name}` are all {}, which the model has never seen so long",
                values[last]
            );
            warnings.push(Warning::new(FLAT_SERIES, message));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::db::words::Kind;
    use crate::drift::profile::SeriesProfile;

    fn hour(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    /// Codes of the warnings of a forecast at hour 48 with a context of 48 hours, in which a series has a value at some hours.
    fn codes(value: impl Fn(i64) -> Option<f64>) -> Vec<String> {
        let panel = Panel {
            panel_id: 1,
            name: "p".to_owned(),
            frequency: "1h".to_owned(),
            time_zone: "UTC".to_owned(),
            publication_delay: TimeDelta::zero(),
            holidays: None,
            created_at: hour(0),
        };
        let series = Series {
            series_id: 7,
            panel_id: 1,
            name: "a".to_owned(),
            role: Role::Target,
            kind: Kind::Mean,
            unit: None,
            lower_bound: None,
            upper_bound: None,
            is_integer: false,
            attributes: serde_json::Map::new(),
        };
        let observation = |(step, value)| Observation {
            position: 1,
            series_id: 7,
            valid_time: hour(step),
            value,
            sd: None,
            available_at: hour(step + 1),
        };
        let observations: Vec<Observation> =
            (0..48).filter_map(|step| Some((step, value(step)?))).map(observation).collect();
        let usual = SeriesProfile { level: None, deviation: None, missing: 0.0, flat_length: 8 };
        let inputs = Inputs {
            panel: &panel,
            grid: Grid::of(&panel).expect("a grid"),
            series: &[series],
            observations: &observations,
            profile: Some(&Profile { block_length: 24, series: vec![usual] }),
            context_length: 48,
            trained_horizon: 6,
            issue_time: hour(48),
        };
        inputs.warnings(|_| false).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn each_thing_that_is_less_than_usual_is_told() {
        let good = |step: i64| (step % 5) as f64;
        assert_eq!(codes(|step| Some(good(step))), [""; 0]);
        assert_eq!(codes(|_| None), [SILENT_SERIES]);
        // Late by as much as a forecast is long is usual.
        assert_eq!(codes(|step| (step < 42).then(|| good(step))), [""; 0]);
        assert_eq!(codes(|step| (step < 41).then(|| good(step))), [STALE_SERIES]);
        assert_eq!(codes(|step| (step % 3 == 0).then(|| good(step))), [INCOMPLETE_SERIES]);
        assert_eq!(codes(|step| Some(if step < 39 { good(step) } else { 3.5 })), [FLAT_SERIES]);
        assert_eq!(codes(|step| Some(if step < 40 { good(step) } else { 3.5 })), [""; 0]);
    }
}
