//! Forecasts of the last windows of a panel, each from what was known at its issue time.

use std::time::Instant;

use chrono::{DateTime, Utc};
use forecast::backtest::BacktestRow;
use forecast::baseline::seasonal_naive;
use forecast::metrics::{Outcome, score_each};
use forecast::{History, Model, SampleConfig, Trajectories};
use ingest::Panel;

use super::comparison::WindowScore;

/// Windows that follow each other without overlap and end with the last row.
pub struct Windows {
    /// Steps of a window.
    pub horizon: usize,
    /// Row at which the first window begins.
    pub first_row: usize,
    /// Number of windows.
    pub n_windows: usize,
}

impl Windows {
    /// The last windows of a panel.
    ///
    /// # Errors
    /// [`forecast::Error::TooShort`] when no row is left before them.
    pub fn last(panel: &Panel, horizon: usize, n_windows: usize) -> Result<Self, forecast::Error> {
        let (n_steps, tested) = (panel.n_steps(), horizon.saturating_mul(n_windows));
        match n_steps.checked_sub(tested) {
            Some(first_row) if first_row > 0 => Ok(Self { horizon, first_row, n_windows }),
            _ => Err(forecast::Error::TooShort { n_steps, horizon, needed: tested.saturating_add(1) }),
        }
    }

    /// The row of step 1 of a window.
    fn row(&self, window: usize) -> usize {
        self.first_row + window * self.horizon
    }

    /// When the forecast of a window is made: at the start of its first interval.
    pub fn issue_time(&self, panel: &Panel, window: usize) -> DateTime<Utc> {
        panel.valid_time(self.row(window))
    }
}

/// What forecasts the windows.
pub enum Forecaster<'a> {
    /// A trained model, from what was known of the series that it models.
    Model {
        /// The model.
        model: &'a Model,
        /// The panel of its series.
        panel: &'a Panel,
    },
    /// The last season with its earlier errors.
    SeasonalNaive,
}

/// Which series are scored.
#[derive(Clone, Copy)]
pub struct Scored<'a> {
    /// Their columns in the forecasts.
    pub drawn: &'a [usize],
    /// Their columns in the panel that says what came.
    pub truth: &'a [usize],
}

/// Forecasts of all windows by one forecaster.
pub struct Tested {
    /// The score of each window; `None` where nothing could be forecast or nothing came.
    pub scores: Vec<Option<WindowScore>>,
    /// All windows together.
    pub overall: Option<BacktestRow>,
}

/// Forecasts every window and scores it by what `known` says came. `tell` is called before each window with its number,
/// and ends the test early, with `None`.
///
/// A window whose context holds nothing has no score.
///
/// # Errors
/// When the panel is not the model's.
pub fn test(
    name: &str,
    forecaster: &Forecaster<'_>,
    known: &Panel,
    scored: Scored<'_>,
    windows: &Windows,
    sample: &SampleConfig,
    tell: &mut dyn FnMut(usize) -> bool,
) -> anyhow::Result<Option<Tested>> {
    let started = Instant::now();
    let season = known.frequency().seasons().first().copied().unwrap_or(1);
    let before = known.values().rows(0..windows.first_row).columns(scored.truth);
    let (mut outcomes, mut scores) = (vec![], vec![None; windows.n_windows]);
    let mut scored_windows = vec![];
    for window in 0..windows.n_windows {
        if !tell(window) {
            return Ok(None);
        }
        let sample = SampleConfig { seed: sample.seed.wrapping_add(window as u64), ..*sample };
        let issue_time = windows.issue_time(known, window);
        let drawn = match draw(forecaster, known, issue_time, windows.horizon, &sample) {
            Ok(drawn) => drawn,
            Err(error) => match error.downcast_ref() {
                Some(forecast::Error::NothingObserved | forecast::Error::TooShort { .. }) => continue,
                _ => return Err(error),
            },
        };
        let first = windows.row(window);
        let truth = known.values().rows(first..first + windows.horizon).columns(scored.truth);
        // A CRPS is relative to the magnitude of what came.
        if truth.values().iter().any(|value| !value.is_nan() && *value != 0.0) {
            outcomes.push(Outcome { trajectories: drawn.columns(scored.drawn), truth });
            scored_windows.push(window);
        }
    }
    let (all, each) = score_each(&before, season, &outcomes);
    for (window, sums) in scored_windows.into_iter().zip(each) {
        let coverage_80 = sums.n_inside[1] as f64 / sums.n_values as f64;
        scores[window] = Some(WindowScore { crps: sums.crps / sums.magnitude, coverage_80 });
    }
    let overall = (!outcomes.is_empty()).then(|| BacktestRow {
        model: name.to_owned(),
        scores: all,
        train_seconds: 0.0,
        sample_seconds: started.elapsed().as_secs_f64(),
    });
    Ok(Some(Tested { scores, overall }))
}

/// Trajectories from what was known at an issue time, from step 1 on.
fn draw(
    forecaster: &Forecaster<'_>,
    known: &Panel,
    issue_time: DateTime<Utc>,
    horizon: usize,
    sample: &SampleConfig,
) -> anyhow::Result<Trajectories> {
    Ok(match forecaster {
        Forecaster::Model { model, panel } => {
            let window = panel.window(issue_time, model.context_length(), horizon)?;
            model.forecast(&window, sample)?.without_nowcasts()
        }
        Forecaster::SeasonalNaive => {
            let seasons = known.frequency().seasons();
            let season = seasons.first().copied().unwrap_or(1);
            let window = known.window(issue_time, known.n_steps(), horizon)?;
            let targets = known.targets();
            let history = History {
                values: window.context.columns(&targets),
                calendar: window.calendar,
                seasons,
                bounds: targets.iter().map(|&series| window.bounds[series]).collect(),
                roles: vec![],
            };
            seasonal_naive(&history, horizon, season, sample.n_samples, sample.seed)?
        }
    })
}
