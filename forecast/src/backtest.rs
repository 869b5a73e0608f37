//! Rolling-origin test of a model against the numbers to beat, on the last rows of a history.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::baseline::{bootstrap, n_needed, random_walk, seasonal_naive};
use crate::metrics::{Outcome, Scores, WindowSums, score_each};
use crate::noise::{NoiseSource, Stream};
use crate::paired::Comparison;
use crate::reliability::{Reliability, reliability};
use crate::support::make_whole;
use crate::{
    Device, Error, Fitted, History, Means, Model, Progress, SampleConfig, TrainConfig, TrainReport, Trajectories,
    Window, fit_with,
};

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
    /// [`Error::TooShort`] when nothing is left, [`Error::Zero`] and [`Error::Share`] when windows, horizon or a number of the
    /// sampling are out of range, which is better known before a training.
    pub fn n_train(&self, history: &History) -> Result<usize, Error> {
        self.sample.check()?;
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
    /// `plumecast`, `no_network`, `base_only`, `shuffled`, `seasonal_naive` or `random_walk`.
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
pub struct Backtest<R = TrainReport> {
    /// A row for each forecaster, ours first.
    pub rows: Vec<BacktestRow>,
    /// Sums of each window for each of the rows, in their order.
    pub windows: Vec<Vec<WindowSums>>,
    /// How reliable our intervals are, by lead and for totals.
    pub reliability: Reliability,
    /// Our trajectories, one per window.
    pub trajectories: Vec<Trajectories>,
    /// Record of the training.
    pub report: R,
}

impl<R> Backtest<R> {
    /// Ours against each of the others, with paired standard errors over windows.
    pub fn comparisons(&self) -> Vec<Comparison> {
        let mut each = self.rows.iter().zip(&self.windows);
        let ours = each.next();
        each.filter_map(|(row, other)| Some(Comparison::new(&row.model, ours?.1, other))).collect()
    }
}

/// A trained model, as the test sees it.
pub trait Forecaster {
    /// Record of its training.
    type Report: Clone;

    /// Rows of context that a forecast uses.
    fn context_length(&self) -> usize;

    /// Joint trajectories from the end of the window on.
    ///
    /// # Errors
    /// When the window is not the model's.
    fn forecast(&self, window: &Window, sample: &SampleConfig) -> Result<Trajectories, Error>;

    /// What the base of the model forecasts with whole paths of its errors, where it can.
    ///
    /// # Errors
    /// As [`Self::forecast`].
    fn forecast_of_base(&self, _window: &Window, _sample: &SampleConfig) -> Option<Result<Trajectories, Error>> {
        None
    }

    /// The same model without its network, where it believes any of it: the joint law of the errors of its base.
    fn without_network(&self) -> Option<Model> {
        None
    }

    /// Record of the training.
    fn report(&self) -> &Self::Report;

    /// Seconds that training took.
    fn train_seconds(&self) -> f64;
}

impl Forecaster for Fitted {
    type Report = TrainReport;

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn forecast(&self, window: &Window, sample: &SampleConfig) -> Result<Trajectories, Error> {
        self.model.forecast(window, sample)
    }

    /// The path of the base plus whole paths of its out-of-fold errors, which end with the trained horizon. Where every path has a gap
    /// there is none.
    fn forecast_of_base(&self, window: &Window, sample: &SampleConfig) -> Option<Result<Trajectories, Error>> {
        (window.horizon <= self.model.horizon() && !self.base_errors.is_empty()).then(|| {
            let window = self.model.modelled(window)?;
            let means = self.model.base_path(&window);
            let restore = |series, value| self.model.restore(series, value, &window.bounds);
            let n_series = self.model.n_series();
            let mut drawn = bootstrap(&means, &self.base_errors, n_series, sample.n_samples, sample.seed, restore)?;
            for (index, path) in drawn.samples_mut().enumerate() {
                make_whole(&self.model.supports, &window.bounds, NoiseSource::Seed(sample.seed), index, path);
            }
            Ok(self.model.roles.targets_of(drawn))
        })
    }

    fn without_network(&self) -> Option<Model> {
        (self.model.velocity_share > 0.0).then(|| Model { velocity_share: 0.0, ..self.model.clone() })
    }

    fn report(&self) -> &TrainReport {
        &self.report
    }

    fn train_seconds(&self) -> f64 {
        self.report.seconds
    }
}

/// Trains on the rows before the test and scores the forecasts of all windows.
///
/// # Errors
/// Those of [`fit_with`], [`crate::Model::forecast`] and [`BacktestConfig::n_train`].
pub fn backtest(
    history: &History,
    config: &BacktestConfig,
    train: &TrainConfig,
    means: Means<'_>,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Backtest, Error> {
    let n_train = config.n_train(history)?;
    let fitted = fit_with(&history.rows(0..n_train), train, means, device, progress)?;
    score_windows(history, config, &fitted)
}

/// Scores an already trained model, which must have seen no row of the test, against the numbers to beat.
///
/// # Errors
/// Those of [`Forecaster::forecast`] and [`BacktestConfig::n_train`].
pub fn score_windows<F: Forecaster>(
    history: &History,
    config: &BacktestConfig,
    fitted: &F,
) -> Result<Backtest<F::Report>, Error> {
    let n_train = config.n_train(history)?;
    let BacktestConfig { horizon, n_windows, sample } = *config;
    let season = history.seasons.first().copied().unwrap_or(1);
    let targets = history.targets()?;
    let without_network = fitted.without_network();
    let mut forecasts: BTreeMap<&str, (Vec<Trajectories>, f64)> = BTreeMap::new();
    // The clock is read before the forecast, the next argument, is made.
    let mut record = |model: &'static str, started: Instant, drawn: Trajectories| {
        let entry = forecasts.entry(model).or_default();
        entry.0.push(drawn);
        entry.1 += started.elapsed().as_secs_f64();
    };
    let now = Instant::now;
    for window in 0..n_windows {
        let issue_row = n_train + window * horizon;
        let known = targets.rows(0..issue_row);
        let seed = sample.seed.wrapping_add(window as u64);
        let sample = SampleConfig { seed, ..sample };
        let input = history.window(issue_row, fitted.context_length(), horizon);
        let (started, ours) = (now(), fitted.forecast(&input, &sample)?.without_nowcasts());
        record("plumecast", started, ours.clone());
        record("shuffled", now(), shuffled(&ours, seed)?);
        if let Some(model) = &without_network {
            record("no_network", now(), model.forecast(&input, &sample)?.without_nowcasts());
        }
        if let (started, Some(base)) = (now(), fitted.forecast_of_base(&input, &sample)) {
            record("base_only", started, base?);
        }
        // All rows are of the same windows: what the history is too short for at first has none.
        if n_train >= n_needed(horizon, Some(season)) {
            record("seasonal_naive", now(), seasonal_naive(&known, horizon, season, sample.n_samples, seed)?);
        }
        record("random_walk", now(), random_walk(&known, horizon, sample.n_samples, seed)?);
    }
    let before = targets.values.rows(0..n_train);
    let (mut rows, mut windows) = (vec![], vec![]);
    let (mut ours, mut found) = (vec![], None);
    for model in ["plumecast", "no_network", "base_only", "shuffled", "seasonal_naive", "random_walk"] {
        let Some((trajectories, sample_seconds)) = forecasts.remove(model) else { continue };
        if model == "plumecast" {
            ours = trajectories.clone();
        }
        let outcomes: Vec<Outcome> = trajectories
            .into_iter()
            .enumerate()
            .map(|(window, trajectories)| {
                let start = n_train + window * horizon;
                Outcome { trajectories, truth: targets.values.rows(start..start + horizon) }
            })
            .collect();
        if model == "plumecast" {
            found = Some(reliability(&outcomes)?);
        }
        let train_seconds = if matches!(model, "plumecast" | "shuffled") { fitted.train_seconds() } else { 0.0 };
        let (scores, of_windows) = score_each(&before, season, &outcomes);
        rows.push(BacktestRow { model: model.into(), scores, train_seconds, sample_seconds });
        windows.push(of_windows);
    }
    let reliability = found.ok_or(Error::Zero { name: "windows" })?;
    Ok(Backtest { rows, windows, reliability, trajectories: ours, report: fitted.report().clone() })
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
