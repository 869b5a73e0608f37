//! Backtests of registered models: forecasts of the last windows of a panel, each from what was known at its issue time, beside
//! those of seasonal naive. `plumecast backtest` does the same for a file and a model that it trains itself.

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::backtest::BacktestRow;
use forecast::{Device, SampleConfig};
use sqlx::PgPool;
use uuid::Uuid;

use crate::artefacts::Artefacts;
use crate::db::model::Model;
use crate::db::panel::Panel;
use crate::db::{self, DEFAULT_TENANT};
use crate::registry;
use crate::retraining::windows::{self, Forecaster, Scored, Tested, Windows};
use crate::retraining::{Report, Stopped, WindowScore, trained_horizon};
use crate::training::{self, TrainingData};
use crate::{Error, blocking};

/// Most windows of a backtest.
pub const WINDOWS_MAX: usize = 1000;

/// Which model is tested, and on what.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the panel.
    pub panel: String,
    /// Version of the model; `None`: the champion.
    pub version: Option<i32>,
    /// Steps of a window; `None`: those that the model learned.
    pub horizon: Option<usize>,
    /// Windows at the end of what is known, which follow each other without overlap.
    pub windows: usize,
    /// Trajectories of a window.
    pub num_samples: usize,
    /// Seed of the first window; each has the next one.
    pub seed: u64,
    /// Nothing that became known later is used.
    pub as_of: DateTime<Utc>,
    /// Most values (trajectories * steps * series) of one window.
    pub cost_max: u64,
}

/// What a backtest found.
#[derive(Clone, Debug)]
pub struct Backtested {
    /// The panel.
    pub panel: Panel,
    /// The model.
    pub model: Model,
    order: Order,
    horizon: usize,
    /// When each window was forecast.
    pub issue_times: Vec<DateTime<Utc>>,
    /// Scores of the model, and of seasonal naive.
    pub scores: [Vec<Option<WindowScore>>; 2],
    /// All windows together, a row for each forecaster.
    pub rows: Vec<BacktestRow>,
}

/// Tests a model; stores nothing.
///
/// # Errors
/// - [`Error::UnknownPanel`], [`Error::UnknownModel`], [`Error::NoModel`], [`Error::BrokenModel`], [`Error::TooCostly`]
/// - [`Stopped`]; [`forecast::Error::TooShort`] when the panel is shorter than the windows
/// - when the database fails
pub async fn backtest(
    pool: &PgPool,
    artefacts: &Artefacts,
    device: &Device,
    order: &Order,
    report: impl Report,
) -> anyhow::Result<Backtested> {
    let (panel, row) = find(pool, order).await?;
    let horizon = order.horizon.map_or_else(|| trained_horizon(&row), Ok)?;
    let version = db::panel_version::get(pool, DEFAULT_TENANT, row.panel_version_id).await?;
    let version = version.context("the model's panel version is gone")?;
    let known = training::read_version(pool, &row.as_learned(&panel), &version, order.as_of).await?;
    let n_series = known.values.series().len();
    let cost = [horizon, order.num_samples, n_series].into_iter().fold(1, |cost: u64, n| cost.saturating_mul(n as u64));
    if cost > order.cost_max {
        return Err(Error::TooCostly { cost, limit: order.cost_max }.into());
    }
    let windows = Windows::last(&known.values, horizon, order.windows)
        .with_context(|| format!("panel `{}` is too short for {} windows", panel.name, order.windows))?;
    let model = artefacts.load(&row, device).await?;
    let issue_times = (0..order.windows).map(|window| windows.issue_time(&known.values, window)).collect();
    let sample = SampleConfig { n_samples: order.num_samples, seed: order.seed, ..SampleConfig::default() };
    let tested = blocking::run("testing a model", move || test(&model, &known, &windows, &sample, report)).await??;
    let rows = tested.iter().filter_map(|tested| tested.overall.clone()).collect();
    let scores = tested.map(|tested| tested.scores);
    Ok(Backtested { panel, model: row, order: order.clone(), horizon, issue_times, scores, rows })
}

/// The panel and the model of an order.
async fn find(pool: &PgPool, order: &Order) -> Result<(Panel, Model), Error> {
    if let Some(version) = order.version {
        return registry::find(pool, &order.panel, &version.to_string()).await;
    }
    let panel = registry::find_panel(pool, &order.panel).await?;
    let champion = registry::champion(pool, &panel).await?;
    Ok((panel, champion))
}

/// The model and seasonal naive on the same windows.
fn test(
    model: &forecast::Model,
    known: &TrainingData,
    windows: &Windows,
    sample: &SampleConfig,
    mut report: impl Report,
) -> anyhow::Result<[Tested; 2]> {
    // The model's forecasts have its targets alone, in their order; those of seasonal naive have what are targets by now.
    let of_model = model.targets();
    let now = known.values.targets();
    let drawn: Vec<usize> = (0..of_model.len()).collect();
    let ours = Scored { drawn: &drawn, truth: &of_model };
    let places: Option<Vec<usize>> = of_model.iter().map(|one| now.iter().position(|other| other == one)).collect();
    let places = places.context("a target of the model is a covariate by now")?;
    let theirs = Scored { drawn: &places, truth: &of_model };
    let mut run = |name: &str, place: usize, forecaster: &Forecaster<'_>, scored: Scored<'_>| {
        let mut tell = |window: usize| {
            let done = (place * windows.n_windows + window) as f64 / (2 * windows.n_windows) as f64;
            report(done, &format!("testing {name}")).is_continue()
        };
        windows::test(name, forecaster, &known.values, scored, windows, sample, &mut tell)?.context(Stopped)
    };
    let by_model = run("plumecast", 0, &Forecaster::Model { model, panel: &known.values }, ours)?;
    let naive = run("seasonal_naive", 1, &Forecaster::SeasonalNaive, theirs)?;
    Ok([by_model, naive])
}

impl Backtested {
    /// Whether the model had learned from nothing that came after the issue time of a window.
    #[must_use]
    pub fn is_fair(&self, window: usize) -> bool {
        self.issue_times[window] >= self.model.data_cutoff
    }

    /// The row that is stored.
    ///
    /// # Errors
    /// When the scores cannot be written as JSON.
    pub fn row(&self, backtest_id: Uuid, made_at: DateTime<Utc>) -> serde_json::Result<db::backtest::Backtest> {
        let [ours, naive] = &self.scores;
        let crps = |scores: &[Option<WindowScore>]| scores.iter().map(|score| Some(score.as_ref()?.crps)).collect();
        let coverage =
            |scores: &[Option<WindowScore>]| scores.iter().map(|score| Some(score.as_ref()?.coverage_80)).collect();
        Ok(db::backtest::Backtest {
            backtest_id,
            panel_id: self.panel.panel_id,
            model_id: self.model.model_id,
            made_at,
            as_of: self.order.as_of,
            horizon: i32::try_from(self.horizon).unwrap_or(i32::MAX),
            num_samples: i32::try_from(self.order.num_samples).unwrap_or(i32::MAX),
            seed: i64::try_from(self.order.seed).unwrap_or(i64::MAX),
            issue_times: self.issue_times.clone(),
            is_fair: (0..self.issue_times.len()).map(|window| self.is_fair(window)).collect(),
            crps: crps(ours),
            coverage_80: coverage(ours),
            naive_crps: crps(naive),
            naive_coverage_80: coverage(naive),
            scores: serde_json::to_value(&self.rows)?,
        })
    }
}
