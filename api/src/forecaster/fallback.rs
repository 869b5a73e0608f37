//! A baseline in the place of a model that cannot answer: each series repeats its last season, with whole paths of the errors
//! that this made before, drawn jointly over steps and series ([`forecast::baseline`]). Where too little is known for that, it
//! stays at its last value.

use chrono::{DateTime, Utc};
use forecast::{Calendar, History, Trajectories, baseline};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Forecast, Grid, Order, Warning, check_cost, covariates, inputs, issue_time, known_panel, summarise};
use crate::{
    Error, blocking,
    db::{self, DEFAULT_TENANT, model::Model, words::Role},
    registry,
};

/// Most values (paths * steps * series) of the errors that are drawn from: 160 MB.
const ERROR_VALUES_MAX: usize = 20_000_000;

/// Most values (steps * series) that are read.
const CELLS_MAX: usize = 1_000_000;

/// Seasons that are looked back: enough for the baseline to draw from errors at the same phase of the season alone.
const N_SEASONS: usize = 51;

/// Most steps that are looked back for so many seasons.
const SEASONS_STEPS_MAX: usize = 9000;

/// Paths of errors where so many seasons are too long.
const N_PATHS: usize = 200;

/// Whether a model was kept from answering by what is neither the order's fault nor about to pass.
fn is_cause(error: &Error) -> bool {
    matches!(
        error,
        Error::NoModel { .. } | Error::BrokenModel { .. } | Error::NoObservations { .. } | Error::ModelFailed { .. }
    )
}

/// The cause in words, without what is nobody's business outside.
fn reason(cause: &Error, champion: Option<&Model>) -> String {
    let version = champion.map_or_else(|| "the model".to_owned(), |model| format!("version {}", model.version));
    match cause {
        Error::NoModel { .. } => "no model serves the panel".to_owned(),
        Error::BrokenModel { .. } => format!("files of {version} are missing or damaged"),
        Error::NoObservations { .. } => format!("nothing is known in the context of {version}"),
        _ => format!("{version} failed"),
    }
}

/// Makes the forecast that the model did not make for a `cause`; `None` where that is no cause for a baseline, or where it cannot
/// answer either, since too little is known.
///
/// # Errors
/// Those of [`super::make`].
pub(super) async fn make(
    pool: &PgPool,
    order: &Order,
    cause: &Error,
    now: DateTime<Utc>,
) -> Result<Option<Forecast>, Error> {
    // A baseline knows nothing of conditions.
    if !order.fallback || order.scenario.is_some() || !is_cause(cause) {
        return Ok(None);
    }
    let panel = registry::find_panel(pool, &order.panel).await?;
    let champion = db::model::champion(pool, DEFAULT_TENANT, panel.panel_id).await?;
    let newest = db::panel_version::latest(pool, DEFAULT_TENANT, panel.panel_id).await?;
    let of_model = champion.as_ref().map(|model| model.panel_version_id);
    let Some(panel_version_id) = of_model.or(newest.map(|version| version.panel_version_id)) else { return Ok(None) };
    let series = db::panel_version::series(pool, DEFAULT_TENANT, panel_version_id).await?;
    check_cost(order, series.len())?;
    let grid = Grid::of(&panel)?;
    let trained_horizon = champion.as_ref().and_then(|model| model.config["horizon"].as_u64());
    let trained_horizon = trained_horizon.and_then(|steps| usize::try_from(steps).ok()).unwrap_or(order.horizon);
    let issue_time = match issue_time::of_order(pool, order, &panel, panel_version_id, grid, trained_horizon, now).await
    {
        Err(Error::NoObservations { .. }) => return Ok(None),
        issue_time => issue_time?,
    };
    covariates::place(&order.covariates, &series, grid, issue_time, order.horizon)?;

    let season = grid.frequency.seasons().first().copied();
    let wanted = 2 * n_steps_back(season, order.horizon, series.len());
    let n_steps = wanted.min(CELLS_MAX / series.len().max(1));
    let first_valid_time = grid.frequency.ceil(issue_time, grid.time_zone);
    let valid_times = grid.advance(first_valid_time, -(n_steps as i64))..first_valid_time;
    let observations = db::observation::as_of(pool, DEFAULT_TENANT, panel_version_id, issue_time, valid_times).await?;
    let Some(data_cutoff) = observations.iter().map(|observation| observation.available_at).max() else {
        return Ok(None);
    };

    let is_target: Vec<bool> = series.iter().map(|series| series.role == Role::Target).collect();
    let (of_panel, of_series, sampling, horizon) = (panel.clone(), series.clone(), order.sampling, order.horizon);
    let drawn = blocking::run("drawing from errors of the past", move || {
        let known = known_panel(&of_panel, grid, &of_series, &observations)?;
        let history = known.history().map_err(|error| Error::internal("laying observations on the grid", error))?;
        let n_steps = i64::try_from(history.values.n_steps()).unwrap_or(i64::MAX);
        let n_late = usize::try_from(known.issue_row(issue_time) - n_steps).unwrap_or(0);
        let draw = |season| draw(&history, &is_target, season, n_late, horizon, sampling.n_samples, sampling.seed);
        Ok::<_, Error>(season.and_then(|season| draw(Some(season))).or_else(|| draw(None)))
    });
    let Some((columns, trajectories)) = drawn.await?? else { return Ok(None) };
    let (trajectories, means, quantiles) = summarise(trajectories, &order.quantile_levels).await?;

    let reason = reason(cause, champion.as_ref());
    let message = format!("{reason}; a baseline answers, which repeats the past with the errors that this made before");
    let mut warnings = vec![Warning::new(cause.code(), message)];
    let is_left_out = |place: &usize| series[*place].role == Role::Target && !columns.contains(place);
    warnings.extend((0..series.len()).filter(is_left_out).map(|place| inputs::silent(&series[place].name, "baseline")));
    Ok(Some(Forecast {
        forecast_id: Uuid::now_v7(),
        panel,
        panel_version_id,
        model: None,
        series: columns.iter().map(|&place| series[place].clone()).collect(),
        issue_time,
        data_cutoff,
        valid_times: (0..order.horizon as i64).map(|step| grid.advance(first_valid_time, step)).collect(),
        sampling: order.sampling,
        quantile_levels: order.quantile_levels.iter().map(|level| level.value()).collect(),
        means,
        quantiles,
        trajectories,
        scenario: None,
        guidance: None,
        covariates: order.covariates.clone(),
        warnings,
    }))
}

/// How many steps the errors are taken from, for paths of so many steps and series.
fn n_steps_back(season: Option<usize>, n_steps: usize, n_series: usize) -> usize {
    let n_paths = (ERROR_VALUES_MAX / (n_steps * n_series).max(1)).clamp(1, N_PATHS);
    let of_seasons =
        season.map(|season| season * N_SEASONS).filter(|&n| n <= SEASONS_STEPS_MAX && n_paths >= N_SEASONS);
    of_seasons.unwrap_or(n_paths) + season.map_or(0, |season| season - 1) + n_steps
}

/// Trajectories of the targets of which enough is known, with their columns, from the issue time on; the history ends `n_late`
/// steps before it.
fn draw(
    history: &History,
    is_target: &[bool],
    season: Option<usize>,
    n_late: usize,
    horizon: usize,
    n_samples: usize,
    seed: u64,
) -> Option<(Vec<usize>, Trajectories)> {
    let n_steps = n_late + horizon;
    // A season before the first origin, and one path of errors behind it.
    let least = season.map_or(0, |season| season - 1) + n_steps + 2;
    let end = history.values.n_steps();
    let latest_start = end.checked_sub(least)?;
    let n_targets = is_target.iter().filter(|is_target| **is_target).count();
    let earliest_start = end.saturating_sub(n_steps_back(season, n_steps, n_targets)).min(latest_start);
    // What lies before the first value of a series would count as zeros.
    let first_value =
        |column: usize| (earliest_start..=latest_start).find(|&step| !history.values.row(step)[column].is_nan());
    let targets = (0..is_target.len()).filter(|&column| is_target[column]);
    let (columns, first): (Vec<usize>, Vec<usize>) =
        targets.filter_map(|column| Some((column, first_value(column)?))).unzip();
    let start = first.into_iter().max()?;

    let values = (start..end).flat_map(|step| columns.iter().map(move |&column| history.values.row(step)[column]));
    let of_targets = History {
        values: forecast::Grid::new(columns.len(), values.collect()).ok()?,
        calendar: Calendar::new(0, vec![]).ok()?,
        seasons: vec![],
        bounds: columns.iter().map(|&column| history.bounds[column]).collect(),
        roles: vec![],
    };
    let all = match season {
        Some(season) => baseline::seasonal_naive(&of_targets, n_steps, season, n_samples, seed),
        None => baseline::random_walk(&of_targets, n_steps, n_samples, seed),
    };
    let all = all.ok()?;
    let first_step = 1 - i32::try_from(n_late).ok()?;
    let placed = Trajectories::new(n_samples, first_step, n_steps, columns.len(), all.values().to_vec()).ok()?;
    Some((columns, placed.without_nowcasts()))
}

#[cfg(test)]
mod tests {
    use forecast::Bounds;

    use super::*;

    /// Series with a value at some steps.
    fn history(n_steps: usize, series: &[fn(usize) -> Option<f64>]) -> History {
        let values = (0..n_steps).flat_map(|step| series.iter().map(move |value| value(step).unwrap_or(f64::NAN)));
        History {
            values: forecast::Grid::new(series.len(), values.collect()).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            seasons: vec![7],
            bounds: vec![Bounds::default(); series.len()],
            roles: vec![],
        }
    }

    #[test]
    fn a_periodic_series_goes_on_from_the_issue_time_although_its_newest_values_are_late() {
        let history = history(40, &[|step| Some((step % 7) as f64)]);
        let (columns, drawn) = draw(&history, &[true], Some(7), 3, 5, 4, 1).expect("enough is known");
        assert_eq!((columns.as_slice(), drawn.first_step(), drawn.n_steps()), ([0].as_slice(), 1, 5));
        for step in 0..5 {
            assert_eq!(drawn.value(2, step, 0), ((40 + 3 + step) % 7) as f32);
        }
    }

    #[test]
    fn a_series_that_began_too_late_is_left_out_and_one_that_began_later_shortens_the_rest() {
        let all: [fn(usize) -> Option<f64>; 4] = [
            |step| Some(step as f64),
            |_| None,
            |step| (step >= 38).then_some(1.0),
            |step| (step >= 20).then_some(5.0),
        ];
        let history = history(40, &all);
        let (columns, drawn) = draw(&history, &[true; 4], Some(7), 0, 3, 50, 1).expect("enough is known");
        assert_eq!(columns, [0, 3]);
        // Zeros before its beginning would have been errors of 5.
        assert!((0..50).all(|sample| drawn.value(sample, 2, 1) == 5.0));
        assert!(draw(&history, &[false, true, true, false], Some(7), 0, 3, 50, 1).is_none());
    }

    #[test]
    fn with_too_little_for_a_season_the_last_value_stays() {
        let history = history(9, &[|_| Some(2.0)]);
        assert!(draw(&history, &[true], Some(7), 0, 3, 2, 1).is_none());
        let (_, drawn) = draw(&history, &[true], None, 0, 3, 2, 1).expect("enough is known");
        assert_eq!(drawn.values(), [2.0; 6]);
    }

    #[test]
    fn errors_stay_within_their_limit() {
        for (season, n_steps, n_series) in
            [(Some(24), 24, 10), (Some(1440), 60, 3), (None, 10_000, 370), (Some(7), 1, 1)]
        {
            let back = n_steps_back(season, n_steps, n_series);
            let n_origins = back - season.map_or(0, |season| season - 1) - n_steps;
            let at_same_phase = season.filter(|season| n_origins / season >= 50).map_or(n_origins, |_| N_SEASONS);
            assert!(n_steps * n_series * at_same_phase <= ERROR_VALUES_MAX, "{season:?} {n_steps} {n_series}");
        }
    }
}
