//! Rolling-origin test of a model against the numbers to beat, on the last rows of a history.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::baseline::{bootstrap, random_walk, seasonal_naive};
use crate::metrics::{Outcome, Scores, score};
use crate::noise::Stream;
use crate::{Device, Error, Fitted, History, Progress, SampleConfig, TrainConfig, TrainReport, Trajectories, fit};

/// Which windows are tested.
#[derive(Clone, Copy, Debug)]
pub struct BacktestConfig {
    /// Steps of each window; windows follow each other without overlap and end with the history.
    pub horizon: usize,
    /// Number of windows.
    pub n_windows: usize,
    /// How forecasts are sampled.
    pub sample: SampleConfig,
}

impl BacktestConfig {
    /// Rows before the first tested one, all that training, scaling and selection may see.
    ///
    /// # Errors
    /// [`Error::TooShort`] when nothing is left, [`Error::Zero`] when windows or horizon are 0.
    pub fn n_train(&self, history: &History) -> Result<usize, Error> {
        for (name, value) in [("windows", self.n_windows), ("horizon", self.horizon)] {
            if value == 0 {
                return Err(Error::Zero { name });
            }
        }
        let (n_steps, tested) = (history.values.n_steps(), self.n_windows * self.horizon);
        n_steps.checked_sub(tested).filter(|&n_train| n_train > 0).ok_or(Error::TooShort {
            n_steps,
            horizon: self.horizon,
            needed: tested + 1,
        })
    }
}

/// Scores of one forecaster, with the time it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BacktestRow {
    /// `plumecast`, `base_only`, `shuffled`, `seasonal_naive` or `random_walk`.
    pub model: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Seconds of sampling all windows.
    pub sample_seconds: f64,
}

/// What a backtest found.
pub struct Backtest {
    /// A row for each forecaster, ours first.
    pub rows: Vec<BacktestRow>,
    /// Our trajectories, one per window.
    pub trajectories: Vec<Trajectories>,
    /// Record of the training.
    pub report: TrainReport,
}

/// Trains on the rows before the test and scores the forecasts of all windows.
///
/// # Errors
/// Those of [`fit`], [`crate::Model::forecast`] and [`BacktestConfig::n_train`].
pub fn backtest(
    history: &History,
    config: &BacktestConfig,
    train: &TrainConfig,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Backtest, Error> {
    let n_train = config.n_train(history)?;
    let fitted = fit(&history.rows(0..n_train), train, device, progress)?;
    score_windows(history, config, &fitted)
}

/// Scores an already trained model, which must have seen no row of the test, against the numbers to beat.
///
/// # Errors
/// Those of [`crate::Model::forecast`] and [`BacktestConfig::n_train`].
pub fn score_windows(history: &History, config: &BacktestConfig, fitted: &Fitted) -> Result<Backtest, Error> {
    let n_train = config.n_train(history)?;
    let BacktestConfig { horizon, n_windows, sample } = *config;
    let season = history.seasons.first().copied().unwrap_or(1);
    let mut forecasts: BTreeMap<&str, (Vec<Trajectories>, f64)> = BTreeMap::new();
    let mut timed = |model: &'static str, forecast: &mut dyn FnMut() -> Result<Trajectories, Error>| {
        let started = Instant::now();
        let forecast = forecast()?;
        let entry = forecasts.entry(model).or_default();
        entry.0.push(forecast);
        entry.1 += started.elapsed().as_secs_f64();
        Ok::<(), Error>(())
    };
    for window in 0..n_windows {
        let issue_row = n_train + window * horizon;
        let known = history.rows(0..issue_row);
        let seed = sample.seed.wrapping_add(window as u64);
        let sample = SampleConfig { seed, ..sample };
        let input = history.window(issue_row, fitted.model.context_length(), horizon);
        let ours = fitted.model.forecast(&input, &sample)?.without_nowcasts();
        timed("shuffled", &mut || shuffled(&ours, seed))?;
        timed("plumecast", &mut || Ok(fitted.model.forecast(&input, &sample)?.without_nowcasts()))?;
        timed("base_only", &mut || fitted.base_forecast(&input, &sample))?;
        timed("seasonal_naive", &mut || seasonal_naive(&known, horizon, season, sample.n_samples, seed))?;
        timed("random_walk", &mut || random_walk(&known, horizon, sample.n_samples, seed))?;
    }
    let before = history.values.rows(0..n_train);
    let mut rows = vec![];
    let mut ours = vec![];
    for model in ["plumecast", "base_only", "shuffled", "seasonal_naive", "random_walk"] {
        let Some((trajectories, sample_seconds)) = forecasts.remove(model) else { continue };
        if model == "plumecast" {
            ours = trajectories.clone();
        }
        let outcomes: Vec<Outcome> = trajectories
            .into_iter()
            .enumerate()
            .map(|(window, trajectories)| {
                let start = n_train + window * horizon;
                Outcome { trajectories, truth: history.values.rows(start..start + horizon) }
            })
            .collect();
        let train_seconds = if matches!(model, "plumecast" | "shuffled") { fitted.report.seconds } else { 0.0 };
        rows.push(BacktestRow {
            model: model.into(),
            scores: score(&before, season, &outcomes),
            train_seconds,
            sample_seconds,
        });
    }
    Ok(Backtest { rows, trajectories: ours, report: fitted.report.clone() })
}

/// The same draws with the samples of every series and step permuted: right margins, no dependence.
fn shuffled(trajectories: &Trajectories, seed: u64) -> Result<Trajectories, Error> {
    let mut stream = Stream::new(seed, 7);
    let (n_samples, row) = (trajectories.n_samples(), trajectories.n_steps() * trajectories.n_series());
    let mut values = trajectories.values().to_vec();
    for element in 0..row {
        for sample in (1..n_samples).rev() {
            values.swap(sample * row + element, stream.below(sample + 1) * row + element);
        }
    }
    Trajectories::new(n_samples, trajectories.first_step(), trajectories.n_steps(), trajectories.n_series(), values)
}

impl Fitted {
    /// The base forecaster alone: its path plus whole paths of its out-of-fold errors.
    ///
    /// # Errors
    /// Those of [`bootstrap`].
    fn base_forecast(&self, window: &crate::Window, sample: &SampleConfig) -> Result<Trajectories, Error> {
        let means = self.model.base_path(window);
        let restore = |series, value| self.model.restore(series, value, &window.bounds);
        bootstrap(&means, &self.base_errors, self.model.n_series(), sample.n_samples, sample.seed, restore)
    }
}
