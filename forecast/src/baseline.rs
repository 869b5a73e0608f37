//! The numbers to beat: a naive forecast plus whole error paths of its own past, drawn jointly over steps and series.

use crate::noise::Stream;
use crate::scaling::fill_from_past;
use crate::{Error, History, Trajectories};

/// Earlier origins whose errors are drawn from.
const N_ORIGINS_MAX: usize = 9000;
/// With at least this many origins at the same phase of the season, only those are drawn from.
const N_SAME_PHASE_MIN: usize = 50;

/// Repeats the last season, with the errors that this made before at the same phase.
///
/// # Errors
/// [`Error::TooShort`] when the history has no earlier origin, [`Error::Zero`] when the season is 0.
pub fn seasonal_naive(
    history: &History,
    horizon: usize,
    season: usize,
    n_samples: usize,
    seed: u64,
) -> Result<Trajectories, Error> {
    if season == 0 {
        return Err(Error::Zero { name: "season" });
    }
    naive(history, horizon, Some(season), n_samples, seed)
}

/// Repeats the last value, with the errors that this made before.
///
/// # Errors
/// [`Error::TooShort`] when the history has no earlier origin.
pub fn random_walk(history: &History, horizon: usize, n_samples: usize, seed: u64) -> Result<Trajectories, Error> {
    naive(history, horizon, None, n_samples, seed)
}

/// Whole paths of errors `[path, lead, series]`, drawn with replacement and added to a path of means `[lead, series]`;
/// `restore` brings the sum of a series into data units.
///
/// # Errors
/// [`Error::TooShort`] when there is no path to draw.
pub fn bootstrap(
    means: &[f64],
    errors: &[Vec<f64>],
    n_series: usize,
    n_samples: usize,
    seed: u64,
    restore: impl Fn(usize, f64) -> f64,
) -> Result<Trajectories, Error> {
    let n_steps = means.len() / n_series;
    if errors.is_empty() {
        return Err(Error::TooShort { n_steps: 0, horizon: n_steps, needed: n_steps });
    }
    let mut stream = Stream::new(seed, 0);
    let mut values = Vec::with_capacity(n_samples * means.len());
    for _ in 0..n_samples {
        let draws = means.iter().zip(&errors[stream.below(errors.len())]).enumerate();
        values.extend(draws.map(|(index, (mean, error))| restore(index % n_series, mean + error) as f32));
    }
    Trajectories::new(n_samples, 1, n_steps, n_series, values)
}

/// Rows behind the origin from which each lead is taken.
fn behind(horizon: usize, season: Option<usize>) -> impl Iterator<Item = usize> {
    (1..=horizon).map(move |lead| season.map_or(0, |season| lead.div_ceil(season) * season - lead))
}

/// Rows that a naive forecast needs, so that there is an earlier origin.
pub fn n_needed(horizon: usize, season: Option<usize>) -> usize {
    behind(horizon, season).max().unwrap_or(0) + horizon + 2
}

fn naive(
    history: &History,
    horizon: usize,
    season: Option<usize>,
    n_samples: usize,
    seed: u64,
) -> Result<Trajectories, Error> {
    let (n_steps, n_series) = (history.values.n_steps(), history.values.n_series());
    let behind: Vec<usize> = behind(horizon, season).collect();
    let furthest = behind.iter().copied().max().unwrap_or(0);
    let needed = n_needed(horizon, season);
    if n_steps < needed {
        return Err(Error::TooShort { n_steps, horizon, needed });
    }
    let filled = fill_from_past(history.values.values(), n_series, season);
    let last = n_steps - 1;
    let point =
        |origin: usize| behind.iter().flat_map(move |back| (origin - back) * n_series..(origin - back + 1) * n_series);
    let mut origins: Vec<usize> = (furthest..=last - horizon).rev().take(N_ORIGINS_MAX).collect();
    let same_phase: Vec<usize> = origins
        .iter()
        .copied()
        .filter(|origin| season.is_none_or(|season| (last - origin).is_multiple_of(season)))
        .collect();
    if same_phase.len() >= N_SAME_PHASE_MIN {
        origins = same_phase;
    }
    // What is before the first value of a series is filled, but no error was made there.
    let is_observed = |step: usize, series: usize| !history.values.get(step, series).is_nan();
    let begins: Vec<usize> =
        (0..n_series).map(|series| (0..n_steps).find(|&step| is_observed(step, series)).unwrap_or(n_steps)).collect();
    let errors_from = |origin: usize| -> Vec<f64> {
        let truth = &history.values.values()[(origin + 1) * n_series..];
        let error = |(index, truth): (usize, &f64)| match index / n_series < begins[index % n_series] {
            true => f64::NAN,
            false => truth - filled[index],
        };
        point(origin).zip(truth).map(error).collect()
    };
    let all: Vec<Vec<f64>> = origins.into_iter().map(errors_from).collect();
    let whole: Vec<Vec<f64>> = all.iter().filter(|path| path.iter().all(|error| !error.is_nan())).cloned().collect();
    // Where no path is whole, a gap counts as no error: better a path with holes than none.
    let zeroed = || {
        all.iter().map(|path| path.iter().map(|error| if error.is_nan() { 0.0 } else { *error }).collect()).collect()
    };
    let errors = if whole.is_empty() { zeroed() } else { whole };
    let means: Vec<f64> = point(last).map(|index| filled[index]).collect();
    bootstrap(&means, &errors, n_series, n_samples, seed, |series, value| history.bounds[series].clip(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bounds, Calendar, Grid};

    fn periodic(n_steps: usize, season: usize) -> History {
        let values = (0..n_steps).flat_map(|step| [(step % season) as f64, 10.0 + (step % season) as f64]).collect();
        History {
            values: Grid::new(2, values).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            seasons: vec![season],
            bounds: vec![Bounds::default(); 2],
            roles: vec![],
        }
    }

    #[test]
    fn a_periodic_series_is_repeated_exactly() {
        let history = periodic(30, 7);
        let forecast = seasonal_naive(&history, 10, 7, 5, 1).expect("long enough");
        for step in 0..10 {
            assert_eq!(forecast.value(3, step, 1), 10.0 + ((30 + step) % 7) as f32);
        }
    }

    #[test]
    fn the_level_of_a_series_that_begins_late_is_no_error() {
        let history = periodic(60, 7);
        let mut values = history.values.values().to_vec();
        (0..40).for_each(|step| values[2 * step + 1] = f64::NAN);
        let late = History { values: Grid::new(2, values).expect("whole rows"), ..history };
        let forecast = seasonal_naive(&late, 7, 7, 50, 1).expect("long enough");
        for sample in 0..50 {
            assert_eq!(forecast.value(sample, 2, 1), 10.0 + (62 % 7) as f32);
        }
    }

    #[test]
    fn the_last_value_is_the_centre_of_a_random_walk_and_its_errors_are_joint() {
        let forecast = random_walk(&periodic(60, 7), 3, 50, 1).expect("long enough");
        for sample in 0..50 {
            assert_eq!(forecast.value(sample, 2, 1) - forecast.value(sample, 2, 0), 10.0, "both series move together");
        }
    }

    #[test]
    fn too_short_a_history_is_refused_with_what_it_needs() {
        let error = seasonal_naive(&periodic(10, 7), 7, 7, 5, 1).expect_err("no earlier origin");
        assert!(matches!(error, Error::TooShort { n_steps: 10, horizon: 7, needed: 15 }), "{error}");
    }
}
