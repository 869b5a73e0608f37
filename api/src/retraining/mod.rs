//! Retraining: a candidate has to beat the champion on windows that neither has learned from.
//!
//! 1. The last windows of the panel are set aside; the candidate is trained on what was known when the first begins.
//! 2. Candidate and champion forecast each window from what was known at its issue time, with the same seeds.
//! 3. [`judge`] compares them: the candidate is promoted, rejected or left as it is. [`Judged::store`] stores all of it.
//!
//! **Fair windows.** The champion has seen nothing that became known after its data cutoff, so a window is fair to both
//! when its issue time is not before it. Others make the champion look better than it is, and do not count.
//!
//! **What is promoted is what was tested.** The candidate is not trained again on all rows: what serves would then never
//! have been tested, and would have seen the very windows on which the next candidate has to be compared with it. The
//! price is that the last windows are known to a model as context only, until the next retraining.

mod comparison;
mod policy;
pub(crate) mod windows;

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use chrono::{DateTime, Days, Utc};
use forecast::backtest::BacktestRow;
use forecast::{Device, Fitted, NetworkConfig, SampleConfig, TrainConfig};
use ingest::{Holidays, Panel};
use sqlx::{PgConnection, PgPool};

pub use self::comparison::{Difference, Reference, Verdict, WindowPair, WindowScore, judge};
pub use self::policy::{Policy, PolicyError};
use self::windows::{Forecaster, Scored, Windows};
use crate::artefacts::Artefacts;
use crate::companions::Companions;
use crate::db::comparison::Comparison;
use crate::db::model::Model;
use crate::db::words::ReferenceKind;
use crate::db::{self, DEFAULT_TENANT};
use crate::registry;
use crate::training::{self, Sources, TestWindows, Trained, TrainingData};
use crate::warm_start::WarmStart;
use crate::{Error, blocking};

/// What is to be retrained.
#[derive(Clone, Debug)]
pub struct Retraining {
    /// Name of the panel.
    pub panel: String,
    /// Steps to learn and to test; `None`: those that the champion learned.
    pub horizon: Option<usize>,
    /// Nothing that became known later is used.
    pub as_of: DateTime<Utc>,
    /// How.
    pub policy: Policy,
}

/// A candidate that is trained and compared, and not stored yet.
pub struct Judged {
    order: Retraining,
    /// What served when retraining began.
    champion_model_id: Option<i32>,
    seen: TrainingData,
    config: TrainConfig,
    trained: Trained,
    results: Results,
}

/// A candidate, and what became of it.
#[derive(Clone, Debug)]
pub struct Retrained {
    /// The candidate, at the stage that was decided.
    pub model: Model,
    /// How it compared.
    pub comparison: Comparison,
}

/// Is told how far retraining has come, from 0 to 1, and what it does; [`ControlFlow::Break`] ends it, with nothing
/// stored.
pub trait Report: FnMut(f64, &str) -> ControlFlow<()> + Send + 'static {}

impl<F: FnMut(f64, &str) -> ControlFlow<()> + Send + 'static> Report for F {}

/// Retraining was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("retraining was stopped")]
pub struct Stopped;

/// Trains a candidate, compares it, and decides by the policy; stores nothing. Takes as long as the policy's budget says, on threads for
/// such work.
///
/// # Errors
/// - [`PolicyError`], [`Stopped`]
/// - [`Error::UnknownPanel`]; [`Error::NoModel`] when no horizon is given and there is no champion
/// - [`forecast::Error::TooShort`] when the panel has too few rows for training and windows
/// - when the database fails
pub async fn retrain(
    pool: &PgPool,
    artefacts: &Artefacts,
    device: &Device,
    order: &Retraining,
    report: impl Report,
) -> anyhow::Result<Judged> {
    let Retraining { policy, as_of, .. } = order;
    policy.check()?;
    let panel = registry::find_panel(pool, &order.panel).await?;
    let champion = db::model::champion(pool, DEFAULT_TENANT, panel.panel_id).await?;
    let champion_model_id = champion.as_ref().map(|model| model.model_id);
    let horizon = match (order.horizon, &champion) {
        (Some(horizon), _) => horizon,
        (None, Some(champion)) => trained_horizon(champion)?,
        (None, None) => bail!(Error::NoModel { panel: panel.name }),
    };
    let mut known = training::read(pool, &order.panel, *as_of).await?;
    let windows = Windows::last(&known.values, horizon, policy.windows)
        .with_context(|| format!("panel `{}` is too short for {} windows", panel.name, policy.windows))?;
    let cutoff = windows.issue_time(&known.values, 0);
    let seen = training::read_version(pool, &panel, &known.panel_version, cutoff).await?;
    // A source that states values ahead of their time must not lengthen the history.
    let n_past = usize::try_from(seen.values.issue_row(cutoff)).unwrap_or(0);
    let mut seen = seen.find_holidays(n_past).await?;
    known.values.set_holidays(seen.values.config().holidays);
    let start = policy.history_days.and_then(|days| cutoff.checked_sub_days(Days::new(u64::from(days))));
    let first = start.map_or(0, |start| usize::try_from(seen.values.issue_row(start)).unwrap_or(0));
    seen.values = seen.values.rows(first.min(n_past)..n_past);

    let network = champion.as_ref().map_or_else(NetworkConfig::default, trained_network);
    let budget = training::budget(policy.train_steps, policy.train_minutes);
    let config = TrainConfig { network, ..TrainConfig::new(horizon, budget, policy.seed) };
    let companions = match &champion {
        Some(champion) => Companions::again(pool, champion, &seen, seen.values.n_history_steps()).await?,
        None => Companions::default(),
    };
    let opponent = opponent(pool, artefacts, device, &known, champion).await?;
    let from = match &opponent {
        Opponent::Champion(champion) if policy.warm_start => {
            Some(WarmStart::new(&panel.name, &champion.row, champion.model.clone(), &seen))
        }
        _ => None,
    };
    let (trained, report) = train(&seen, &config, Sources { from, companions }, artefacts, device, report).await?;
    let tests = Tests { windows, policy: policy.clone(), known, opponent };
    let (trained, results) = blocking::run("testing models", move || {
        let results = tests.run(&trained.fitted, report);
        (trained, results)
    })
    .await?;
    let mut results = results?;
    let scores = std::mem::take(&mut results.rows);
    // A history ends before rows that hold futures of covariates alone, which the snapshot has all the same.
    let trained = Trained { scores, n_train: seen.values.n_steps(), ..trained };
    Ok(Judged { order: order.clone(), champion_model_id, seen, config, trained, results })
}

impl Judged {
    /// What is to be said of how training began, a line for each.
    #[must_use]
    pub fn beginning_told(&self) -> Vec<String> {
        let holidays = self.seen.found_holidays.iter().map(ToString::to_string);
        holidays.chain(self.trained.beginning_told()).collect()
    }

    /// Stores the candidate with its files, how it compared, and what follows from it, in a transaction of the caller's.
    ///
    /// # Errors
    /// When files cannot be written or the database fails.
    pub async fn store(
        &self,
        transaction: &mut PgConnection,
        pool: &PgPool,
        artefacts: &Artefacts,
    ) -> anyhow::Result<Retrained> {
        let Self { order, champion_model_id, seen, config, trained, results } = self;
        let model = training::register(&mut *transaction, pool, artefacts, seen, config, trained).await?;
        let comparison = row(&model, order, config.horizon, results)?;
        let comparison =
            db::comparison::decide(&mut *transaction, DEFAULT_TENANT, *champion_model_id, comparison).await?;
        let model = db::model::get(transaction, DEFAULT_TENANT, model.model_id).await?;
        Ok(Retrained { model: model.context("the model was deleted meanwhile")?, comparison })
    }
}

/// The horizon that a model was trained for.
pub(crate) fn trained_horizon(model: &Model) -> anyhow::Result<usize> {
    let horizon = model.config["horizon"].as_u64().and_then(|horizon| usize::try_from(horizon).ok());
    horizon.with_context(|| format!("model {} does not say which horizon it learned", model.model_id))
}

/// How the network of a model was trained, for its successor; a model that does not say has the defaults.
fn trained_network(model: &Model) -> NetworkConfig {
    serde_json::from_value(model.config["network"].clone()).unwrap_or_default()
}

/// Share of the work that is done when training ends.
const TRAINED: f64 = 0.8;

async fn train<R: Report>(
    seen: &TrainingData,
    config: &TrainConfig,
    sources: Sources,
    artefacts: &Artefacts,
    device: &Device,
    mut report: R,
) -> anyhow::Result<(Trained, R)> {
    let (history, config) = (seen.values.history()?, config.clone());
    let (artefacts, device) = (artefacts.clone(), device.clone());
    // The windows of the comparison are not in the history, and both models are tested on them.
    let test = TestWindows { n_windows: 0, sample: SampleConfig::default() };
    blocking::run("training", move || {
        let mut is_stopped = false;
        let trained = training::train(&history, &config, &sources, &test, &artefacts, &device, &mut |progress| {
            let told = report(TRAINED * progress.share_done(), &format!("training: {}", progress.stage));
            is_stopped |= told.is_break();
            told
        });
        // A training that is stopped late gives what it has learned so far; that is not what was asked for.
        if is_stopped {
            bail!(Stopped);
        }
        Ok((trained.context("training the candidate")?, report))
    })
    .await?
}

/// What the candidate is compared with, ready to forecast.
enum Opponent {
    Champion(Box<Champion>),
    None { why: String },
}

/// A champion, ready to forecast.
struct Champion {
    row: Model,
    model: forecast::Model,
    /// What is known of the series that it models, where these or the holidays that it is told of are not those of the candidate.
    known: Option<Panel>,
}

async fn opponent(
    pool: &PgPool,
    artefacts: &Artefacts,
    device: &Device,
    known: &TrainingData,
    champion: Option<Model>,
) -> anyhow::Result<Opponent> {
    let Some(row) = champion else {
        return Ok(Opponent::None { why: "the panel had no champion".to_owned() });
    };
    let model = match artefacts.load(&row, device).await {
        Ok(model) => model,
        Err(Error::BrokenModel { source, .. }) => {
            let why = format!("the champion, version {}, cannot be used ({source})", row.version);
            return Ok(Opponent::None { why });
        }
        Err(error) => return Err(error.into()),
    };
    let (learned, told) = (row.holidays(), known.values.config().holidays);
    let known = if known.panel_version.panel_version_id != row.panel_version_id {
        // A panel that has gained series since the champion was trained has a version of its own for each.
        let version = db::panel_version::get(pool, DEFAULT_TENANT, row.panel_version_id).await?;
        let version = version.context("the champion's panel version is gone")?;
        Some(training::read_version(pool, &row.as_learned(&known.panel), &version, known.as_of).await?.values)
    } else if [None, Some(Holidays::NONE), told].contains(&learned) {
        // What has learned from no holidays reads none.
        None
    } else {
        let mut values = known.values.clone();
        values.set_holidays(learned);
        Some(values)
    };
    Ok(Opponent::Champion(Box::new(Champion { row, model, known })))
}

/// Everything that the comparison needs, away from the database.
struct Tests {
    windows: Windows,
    policy: Policy,
    known: TrainingData,
    opponent: Opponent,
}

/// What the comparison found.
struct Results {
    pairs: Vec<WindowPair>,
    reference: Reference,
    verdict: Verdict,
    rows: Vec<BacktestRow>,
}

impl Tests {
    fn run(self, candidate: &Fitted, mut report: impl Report) -> anyhow::Result<Results> {
        let Self { windows, policy, known, opponent } = self;
        let sample = SampleConfig { n_samples: policy.num_samples, seed: policy.seed, ..SampleConfig::default() };
        let names = known.values.series();
        let mut place = 0;
        let mut run = |name: &str, forecaster: &Forecaster<'_>, scored: Scored<'_>| {
            let mut tell = |window: usize| {
                let done = (place * windows.n_windows + window) as f64 / (N_TESTS_MAX * windows.n_windows) as f64;
                report(TRAINED + (1.0 - TRAINED) * done, &format!("testing {name}")).is_continue()
            };
            let tested = windows::test(name, forecaster, &known.values, scored, &windows, &sample, &mut tell)?;
            place += 1;
            tested.context(Stopped)
        };
        // Forecasts have the targets alone, in their order.
        let targets = known.values.targets();
        let places: Vec<usize> = (0..targets.len()).collect();
        let all = Scored { drawn: &places, truth: &targets };
        let candidate = Forecaster::Model { model: &candidate.model, panel: &known.values };
        let ours = run("plumecast", &candidate, all)?;
        let naive = run("seasonal_naive", &Forecaster::SeasonalNaive, all)?;
        let mut rows: Vec<BacktestRow> = [&ours, &naive].into_iter().filter_map(|t| t.overall.clone()).collect();
        let (reference, ours, theirs, cutoff) = match &opponent {
            Opponent::Champion(champion) => {
                let Champion { row, model, known: own } = champion.as_ref();
                let panel = own.as_ref().unwrap_or(&known.values);
                // The series that both forecast: a panel may have gained some, or changed their roles.
                let theirs = model.targets();
                let column = |name: &String| theirs.iter().position(|&series| panel.series()[series] == *name);
                let shared = (0..targets.len()).filter_map(|ours| Some((ours, column(&names[targets[ours]])?)));
                let (drawn, theirs): (Vec<usize>, Vec<usize>) = shared.unzip();
                if drawn.is_empty() {
                    let version = row.version;
                    bail!(
                        "the champion, version {version}, forecasts none of the panel's targets; `plumecast train` \
                         replaces it without a comparison"
                    );
                }
                let truth: Vec<usize> = drawn.iter().map(|&ours| targets[ours]).collect();
                let ours = if drawn.len() < targets.len() {
                    run("candidate", &candidate, Scored { drawn: &drawn, truth: &truth })?
                } else {
                    ours
                };
                let scored = Scored { drawn: &theirs, truth: &truth };
                let tested = run("champion", &Forecaster::Model { model, panel }, scored)?;
                rows.extend(tested.overall);
                let reference = Reference::Champion { model_id: row.model_id, version: row.version };
                (reference, ours.scores, tested.scores, Some(row.data_cutoff))
            }
            Opponent::None { why } => (Reference::SeasonalNaive { why: why.clone() }, ours.scores, naive.scores, None),
        };
        let pair = |(window, (candidate, reference)): (usize, (&Option<WindowScore>, &Option<WindowScore>))| {
            let issue_time = windows.issue_time(&known.values, window);
            let is_fair = cutoff.is_none_or(|cutoff| issue_time >= cutoff);
            Some(WindowPair { issue_time, is_fair, candidate: (*candidate)?, reference: (*reference)? })
        };
        let pairs: Vec<WindowPair> = ours.iter().zip(&theirs).enumerate().filter_map(pair).collect();
        let verdict = judge(&pairs, &reference, &policy);
        Ok(Results { pairs, reference, verdict, rows })
    }
}

/// Most runs over all windows: candidate, seasonal naive, champion, and the candidate again on the champion's series.
const N_TESTS_MAX: usize = 4;

/// The row of what was found.
fn row(model: &Model, order: &Retraining, horizon: usize, results: &Results) -> serde_json::Result<Comparison> {
    let Results { pairs, reference, verdict, .. } = results;
    let (reference, champion_model_id) = match reference {
        Reference::Champion { model_id, .. } => (ReferenceKind::Champion, Some(*model_id)),
        Reference::SeasonalNaive { .. } => (ReferenceKind::SeasonalNaive, None),
    };
    let Retraining { policy, as_of, .. } = order;
    Ok(Comparison {
        model_id: model.model_id,
        reference,
        champion_model_id,
        compared_at: *as_of,
        horizon: i32::try_from(horizon).unwrap_or(i32::MAX),
        num_samples: i32::try_from(policy.num_samples).unwrap_or(i32::MAX),
        seed: i64::try_from(policy.seed).unwrap_or(i64::MAX),
        issue_times: pairs.iter().map(|pair| pair.issue_time).collect(),
        is_fair: pairs.iter().map(|pair| pair.is_fair).collect(),
        candidate_crps: pairs.iter().map(|pair| pair.candidate.crps).collect(),
        reference_crps: pairs.iter().map(|pair| pair.reference.crps).collect(),
        candidate_coverage_80: pairs.iter().map(|pair| pair.candidate.coverage_80).collect(),
        reference_coverage_80: pairs.iter().map(|pair| pair.reference.coverage_80).collect(),
        difference: verdict.difference.map(|difference| difference.mean),
        difference_lower: verdict.difference.map(|difference| difference.lower),
        difference_upper: verdict.difference.map(|difference| difference.upper),
        decision: verdict.decision,
        is_flagged: verdict.is_flagged,
        reason: verdict.reason.clone(),
        policy: serde_json::to_value(policy)?,
    })
}
