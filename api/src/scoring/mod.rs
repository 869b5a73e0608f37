//! Scoring stored forecasts as the truth arrives.
//!
//! Each value of a forecast from step 1 on is scored once it is known, and again when it is corrected; once all of them are
//! known, the forecast as a whole; where some never come, once they are late by as much again as the forecast is long, if at
//! least half of them are there. Its series are those that were targets when it was made, whatever they are by now.
//! Forecasts under conditions claim nothing of what comes, and are left out.
//! One forecast is one transaction, whose size its cost limit bounds; those of a panel store one after the other.
//! What is to be done follows from what is stored, so it may be done twice, by several at once, and be interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

use chrono::{DateTime, Utc};
use forecast::metrics::{Outcome, energy_score, pinball, score_value};
use forecast::{QuantileLevel, Trajectories};
use sqlx::PgPool;

use crate::db::forecast::{Forecast, SeriesTrajectories};
use crate::db::panel::Panel;
use crate::db::partition::{self, Partitioned};
use crate::db::score::{Due, NewScore, Truth};
use crate::db::{self, DEFAULT_TENANT};
use crate::forecaster::Grid;
use crate::{Error, blocking};

/// How long after the end of a forecast, and twice its length, corrections are looked for where nobody says since when: a load
/// scores by what it brings, however old that is.
const CORRECTED_SECONDS: f64 = 30.0 * 86_400.0;

/// Forecasts that are looked up at a time.
const N_FORECASTS_TOGETHER: i64 = 100;

/// Share of the values of a forecast that must be known for a score of the whole, once the others are late.
const SHARE_MIN: f64 = 0.5;

/// What was scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scored {
    /// Values, corrected ones included.
    pub n_values: usize,
    /// Forecasts all of whose values are known now.
    pub n_forecasts: usize,
}

/// Scores the forecasts of a panel by the values of `valid_times` (an end that is `None` is open) that are known at `now`.
///
/// `tell` is called after each forecast and ends the work early; what was scored until then is kept.
///
/// # Errors
/// [`Error::Database`]; [`Error::Internal`] when stored trajectories cannot be read.
pub async fn score(
    pool: &PgPool,
    panel: &Panel,
    valid_times: Range<Option<DateTime<Utc>>>,
    now: DateTime<Utc>,
    tell: impl FnMut(Scored) -> ControlFlow<()>,
) -> Result<Scored, Error> {
    score_which(pool, panel, &Which::Within(vec![valid_times]), now, tell).await
}

/// Scores the forecasts of a panel by what may have come lately: those that nobody has scored, and those that do not end long
/// before the newest value.
///
/// # Errors
/// Those of [`score`].
pub async fn score_new(
    pool: &PgPool,
    panel: &Panel,
    now: DateTime<Utc>,
    tell: impl FnMut(Scored) -> ControlFlow<()>,
) -> Result<Scored, Error> {
    match db::observation::newest_of_panel(pool, DEFAULT_TENANT, panel.panel_id, now).await? {
        Some(newest) => score_which(pool, panel, &Which::New { newest }, now, tell).await,
        None => Ok(Scored::default()),
    }
}

/// Which forecasts are looked at, and which of their values.
enum Which {
    /// Those that reach into one of these ranges, the earliest first; of them, the values from the first to the last.
    Within(Vec<Range<Option<DateTime<Utc>>>>),
    /// What may have come lately, up to the newest value of the panel.
    New { newest: DateTime<Utc> },
}

async fn score_which(
    pool: &PgPool,
    panel: &Panel,
    which: &Which,
    now: DateTime<Utc>,
    mut tell: impl FnMut(Scored) -> ControlFlow<()>,
) -> Result<Scored, Error> {
    let grid = Grid::of(panel)?;
    let (tenant, panel_id, limit) = (DEFAULT_TENANT, panel.panel_id, N_FORECASTS_TOGETHER);
    let mut scored = Scored::default();
    let mut after = None;
    loop {
        let (forecasts, valid_times) = match which {
            Which::Within(ranges) => {
                let found = db::forecast::list_by_valid_time(pool, tenant, panel_id, ranges, after, limit);
                let (first, last) = (ranges.first(), ranges.last());
                (found.await?, first.and_then(|range| range.start)..last.and_then(|range| range.end))
            }
            Which::New { newest } => {
                let seconds = CORRECTED_SECONDS;
                let found = db::forecast::list_unscored(pool, tenant, panel_id, *newest, seconds, after, limit);
                (found.await?, None..None)
            }
        };
        for forecast in &forecasts {
            let one = score_forecast(pool, grid, panel, forecast, &valid_times, now).await?;
            scored.n_values += one.n_values;
            scored.n_forecasts += one.n_forecasts;
            if tell(scored).is_break() {
                return Ok(scored);
            }
        }
        match forecasts.last() {
            Some(last) => after = Some(last.forecast_id),
            None => return Ok(scored),
        }
    }
}

/// Scores forecasts by what a load has brought.
///
/// # Errors
/// Those of [`score`].
pub async fn after_load(
    pool: &PgPool,
    panel: &Panel,
    loaded: &ingest::Loaded,
    now: DateTime<Utc>,
) -> Result<Scored, Error> {
    // One after the other: to collect them would hold all times at once.
    let mut times: BTreeSet<DateTime<Utc>> = BTreeSet::new();
    times.extend(loaded.frame.rows().map(|row| row.valid_time));
    // Times that follow one another are a range.
    let end = |start| loaded.frequency.advance(start, 1, loaded.time_zone);
    let mut ranges: Vec<Range<Option<DateTime<Utc>>>> = vec![];
    for time in times {
        match ranges.last_mut() {
            Some(range) if range.end == Some(time) => range.end = Some(end(time)),
            _ => ranges.push(Some(time)..Some(end(time))),
        }
    }
    if ranges.is_empty() {
        return Ok(Scored::default());
    }
    score_which(pool, panel, &Which::Within(ranges), now, |_| ControlFlow::Continue(())).await
}

async fn score_forecast(
    pool: &PgPool,
    grid: Grid,
    panel: &Panel,
    forecast: &Forecast,
    valid_times: &Range<Option<DateTime<Utc>>>,
    now: DateTime<Utc>,
) -> Result<Scored, Error> {
    let due = db::score::due(pool, DEFAULT_TENANT, forecast, valid_times, now).await?;
    // What is not there by then may never come.
    let is_late =
        grid.advance(forecast.last_valid_time, 1 + i64::from(forecast.horizon)) + panel.publication_delay <= now;
    let share = if is_late { SHARE_MIN } else { 1.0 };
    if due.is_empty() && !db::score::lacks_whole(pool, DEFAULT_TENANT, forecast, share).await? {
        return Ok(Scored::default());
    }
    let n_values = usize::try_from(db::score::n_values(pool, DEFAULT_TENANT, forecast).await?).unwrap_or(usize::MAX);
    let trajectories = db::forecast::trajectories(pool, DEFAULT_TENANT, forecast, None).await?;
    let targets: Vec<i32> = trajectories.iter().map(|trajectories| trajectories.series_id).collect();
    if targets.is_empty() || targets.len() * (forecast.horizon.unsigned_abs() as usize) < n_values {
        // They have been removed: nothing is left to score.
        return Ok(Scored::default());
    }
    let naive = naive_values(pool, grid, forecast, &due).await?;
    let levels = forecast.quantile_levels.clone();
    let first_step = forecast.first_step;
    let (scores, trajectories) = blocking::run("scoring a forecast", move || {
        let scores = scores(due, &naive, &levels, first_step, &trajectories);
        (scores, trajectories)
    })
    .await?;
    let scores = scores?;

    let times = scores.iter().map(|score| score.due.valid_time);
    partition::ensure(pool, Partitioned::Score, times).await?;
    let mut transaction = pool.begin().await?;
    db::score::lock(&mut transaction, forecast.panel_id).await?;
    db::score::upsert(&mut transaction, DEFAULT_TENANT, forecast, &scores, now).await?;
    let truths = db::score::truths(&mut *transaction, DEFAULT_TENANT, forecast).await?;
    let is_whole = truths.len() as f64 >= share * n_values as f64;
    if is_whole {
        let start = grid.advance(forecast.issue_time, -i64::from(forecast.horizon));
        let valid_times = start..forecast.issue_time;
        let before = db::observation::as_of(
            &mut *transaction,
            DEFAULT_TENANT,
            forecast.panel_version_id,
            forecast.issue_time,
            valid_times,
        )
        .await?;
        let magnitudes = magnitudes(&targets, before.iter().map(|row| (row.series_id, row.value)));
        let energy = blocking::run("scoring a forecast", move || {
            whole(&targets, first_step, &trajectories, &truths, &magnitudes)
        })
        .await??;
        db::score::upsert_whole(&mut transaction, DEFAULT_TENANT, forecast, energy, now).await?;
    }
    transaction.commit().await?;
    Ok(Scored { n_values: scores.len(), n_forecasts: usize::from(is_whole) })
}

/// The value one season before each of those that are due, or as many seasons as it takes to lie before the issue time,
/// as known then.
async fn naive_values(pool: &PgPool, grid: Grid, forecast: &Forecast, due: &[Due]) -> Result<Vec<Option<f64>>, Error> {
    let season = grid.frequency.seasons().first().map_or(1, |&season| i64::try_from(season).unwrap_or(1));
    let series_ids: Vec<i32> = due.iter().map(|due| due.series_id).collect();
    let times: Vec<DateTime<Utc>> = due
        .iter()
        .map(|due| {
            let n_seasons = i64::from(due.step).unsigned_abs().div_ceil(season.unsigned_abs());
            grid.advance(due.valid_time, -season * i64::try_from(n_seasons).unwrap_or(1))
        })
        .collect();
    Ok(db::observation::known_at(pool, DEFAULT_TENANT, &series_ids, &times, forecast.issue_time).await?)
}

/// Scores of the values that are due, in their order. `naive` has a value for each.
fn scores(
    due: Vec<Due>,
    naive: &[Option<f64>],
    levels: &[f64],
    first_step: i32,
    trajectories: &[SeriesTrajectories],
) -> Result<Vec<NewScore>, Error> {
    let internal = |error| Error::internal("scoring a forecast", error);
    let levels: Vec<QuantileLevel> =
        levels.iter().map(|&level| QuantileLevel::new(level)).collect::<Result<_, _>>().map_err(internal)?;
    let by_series: BTreeMap<i32, &SeriesTrajectories> =
        trajectories.iter().map(|trajectories| (trajectories.series_id, trajectories)).collect();
    due.into_iter()
        .zip(naive)
        .map(|(due, naive)| {
            let matrix = by_series.get(&due.series_id).map(|trajectories| &trajectories.value);
            let column = usize::try_from(due.step - first_step).unwrap_or(usize::MAX);
            let mut draws: Vec<f32> = matrix
                .filter(|matrix| column < matrix.n_columns())
                .map(|matrix| (0..matrix.n_rows()).map(|sample| matrix.row(sample)[column]).collect())
                .ok_or_else(|| Error::internal("scoring a forecast", "a value without trajectories"))?;
            draws.sort_unstable_by(f32::total_cmp);
            let quantiles = due.quantiles.iter().zip(&levels);
            Ok(NewScore {
                scores: score_value(&draws, due.value),
                pinball: quantiles.map(|(&quantile, &level)| pinball(quantile, level, due.value)).collect(),
                naive_absolute_error: naive.map(|naive| (naive - due.value).abs()),
                due,
            })
        })
        .collect()
}

/// Mean magnitude of each series; 1 where nothing is known, or only zeros.
fn magnitudes(series_ids: &[i32], values: impl Iterator<Item = (i32, f64)>) -> Vec<f64> {
    let mut sums: BTreeMap<i32, (f64, f64)> = BTreeMap::new();
    for (series_id, value) in values {
        let (sum, n) = sums.entry(series_id).or_default();
        *sum += value.abs();
        *n += 1.0;
    }
    let mean = |series_id| sums.get(series_id).map_or(0.0, |(sum, n)| sum / n);
    series_ids.iter().map(mean).map(|mean| if mean > 0.0 { mean } else { 1.0 }).collect()
}

/// Energy score of a forecast all of whose values are known; `truths` by series and step.
fn whole(
    targets: &[i32],
    first_step: i32,
    trajectories: &[SeriesTrajectories],
    truths: &[Truth],
    magnitudes: &[f64],
) -> Result<f64, Error> {
    let internal = |error| Error::internal("scoring a forecast", error);
    let nowcasts = usize::try_from(1 - first_step).unwrap_or(0);
    let (n_samples, n_steps) = trajectories
        .first()
        .map_or((0, 0), |series| (series.value.n_rows(), series.value.n_columns().saturating_sub(nowcasts)));
    let mut draws = Vec::with_capacity(n_samples * n_steps * targets.len());
    for sample in 0..n_samples {
        for step in 0..n_steps {
            draws.extend(trajectories.iter().map(|series| series.value.row(sample)[nowcasts + step]));
        }
    }
    // In the order of the trajectories, which is that of the targets.
    let known: BTreeMap<(i32, i32), f64> =
        truths.iter().map(|truth| ((truth.step, truth.series_id), truth.value)).collect();
    let steps = 1..=i32::try_from(n_steps).unwrap_or(i32::MAX);
    let truth = steps
        .flat_map(|step| targets.iter().map(move |&series_id| (step, series_id)))
        .map(|place| known.get(&place).copied().unwrap_or(f64::NAN))
        .collect();
    let outcome = Outcome {
        trajectories: Trajectories::new(n_samples, 1, n_steps, targets.len(), draws).map_err(internal)?,
        truth: forecast::Grid::new(targets.len(), truth).map_err(internal)?,
    };
    Ok(energy_score(&outcome, magnitudes))
}
