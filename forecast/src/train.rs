//! Training: chooses the base, measures its errors, and teaches the network what is left.
//!
//! 1. Scaling, shares of the trees and the law of the errors are chosen on the last fold of the origins, the members of the linear
//!    base on the last two.
//! 2. The network is trained on the earlier folds and watched on the last one; the best number of steps is kept.
//! 3. Base and innovations are fitted on everything, and the network is trained anew for that many steps.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::companions::Companion;
use crate::conditioning::TokenLayout;
use crate::correction::{Plan, Shares};
use crate::covariates::{self, Covariates};
use crate::denoiser::TokenOf;
use crate::effects::EffectKind;
use crate::innovation::Estimation;
use crate::linear::LinearPlan;
use crate::network::{NetworkConfig, layout, network};
use crate::panel_stage::{self, Panel, Parts, go_on};
use crate::reliability::Reliability;
use crate::resume::{Keeper, Memory, Resumed};
use crate::role::Roles;
use crate::scaling::ScalingKind;
use crate::start::{Start, WarmStart};
use crate::timetable::Timetable;
use crate::trainer::{Begun, Trainer};
use crate::{Error, History, Model};

/// How long the network may train. Both passes over the data together stay within it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// At most this many optimiser steps in each pass: reproducible.
    Steps(usize),
    /// At most this many seconds: the number of steps follows from the machine.
    Seconds(f64),
}

/// Steps of the longest horizon that is learned: the law of its errors is factored in time, in matrices of the square of it. A longer
/// one can be forecast.
pub const TRAINED_HORIZON_MAX: usize = 2000;
/// Rows that trees are fitted to, where there is time for as many.
const N_TREE_ROWS: usize = 100_000;
/// The same for each second of a budget, on two cores: the trees then take up to half of it.
const N_TREE_ROWS_PER_SECOND: f64 = 1200.0;

impl Budget {
    fn n_tree_rows(self) -> usize {
        match self {
            Self::Steps(_) => N_TREE_ROWS,
            Self::Seconds(seconds) => {
                ((N_TREE_ROWS_PER_SECOND * seconds) as usize).clamp(N_TREE_ROWS / 10, N_TREE_ROWS)
            }
        }
    }
}

/// What is to be trained.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// Horizon to learn, in steps. Any other one can be forecast later.
    pub horizon: usize,
    /// How long.
    pub budget: Budget,
    /// Seed of weights, windows, levels and noise.
    pub seed: u64,
    /// The network and how it learns.
    pub network: NetworkConfig,
}

impl TrainConfig {
    /// What is not set of the network is that of the model that training begins with, whose weights fit nothing else; and what many
    /// panels can share where there are companions.
    fn beginning_with(&self, start: Option<Start<'_>>, companions: &[History]) -> Self {
        let mut config = self.clone();
        let network = &mut config.network;
        if let Some(Start { model, .. }) = start {
            network.token = network.token.or(Some(model.network.token));
            network.d_model = network.d_model.or(Some(model.network.d_model));
            network.context_length = network.context_length.or(Some(model.layout.context_length()));
            let patch = Some(model.layout.patch).filter(|patch| self.horizon.is_multiple_of(*patch));
            network.patch = network.patch.or(patch);
        }
        if !companions.is_empty() {
            network.token = network.token.or(Some(TokenOf::Series));
        }
        config
    }

    /// The defaults for a horizon.
    pub fn new(horizon: usize, budget: Budget, seed: u64) -> Self {
        Self { horizon, budget, seed, network: NetworkConfig::default() }
    }
}

/// Where training stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// `base`, `select`, `compare` or `train`.
    pub stage: &'static str,
    /// Optimiser steps done in this stage.
    pub step: usize,
    /// Optimiser steps that this stage will take; 0 where there are none.
    pub n_steps: usize,
    /// Smoothed training loss: 1 is the joint Gaussian, lower is better.
    pub loss: f64,
    /// Loss on the validation windows when it was last measured.
    pub validation_loss: Option<f64>,
    /// Optimiser steps in a second.
    pub steps_per_second: f64,
    /// Estimated seconds to the end of this stage.
    pub seconds_left: f64,
}

impl Progress {
    /// The start of a stage that takes no optimiser steps.
    pub(crate) fn of_stage(stage: &'static str) -> Self {
        Self { stage, step: 0, n_steps: 0, loss: 1.0, validation_loss: None, steps_per_second: 0.0, seconds_left: 0.0 }
    }

    /// Share of the whole training that is done, roughly: both passes take about as long.
    #[must_use]
    pub fn share_done(&self) -> f64 {
        let within = self.step as f64 / self.n_steps.max(1) as f64;
        match self.stage {
            "base" => 0.0,
            "select" => 0.2 + 0.3 * within,
            "compare" => 0.5,
            _ => 0.7 + 0.3 * within,
        }
    }
}

/// What training found, for the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainReport {
    /// Where the network went on when training had been cut off; none where it had not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// Whether the network began with the weights of another model; none where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmStart>,
    /// How values are brought into standard units.
    pub scaling: ScalingKind,
    /// Series that are forecast in whole numbers, as all their values are.
    #[serde(default)]
    pub n_integer: usize,
    /// Series that are forecast to be at least zero, which their values say is the end of what is possible.
    #[serde(default)]
    pub n_non_negative: usize,
    /// The linear part of the base forecaster in words.
    pub base: String,
    /// How effects of known covariates are taken out of the series; none where there are none, or of no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<EffectKind>,
    /// How much of the corrections of the base's linear part is believed.
    pub shares: Shares,
    /// How the law of the base's errors is estimated.
    pub estimation: Estimation,
    /// Share of the trajectories that take a past path of innovations.
    pub pool_share: f64,
    /// Steps whose network gave the best trajectories on the last fold; 0 keeps the network that it began with, which without a
    /// warm start is the joint law of the base's errors.
    pub best_step: usize,
    /// Share of the predicted velocity whose trajectories scored best on the last fold.
    pub velocity_share: f64,
    /// What trajectories scored on the last fold without a network and with those that were compared; none where nothing was
    /// learned.
    pub sampled_losses: Vec<SampledLoss>,
    /// Validation loss of the joint Gaussian (step 0).
    pub validation_loss_gaussian: f64,
    /// Validation loss at the best step.
    pub validation_loss: f64,
    /// How reliable forecasts of the last fold were, up to 48 of 48 trajectories, by what was fitted before it; none where nobody looked.
    #[serde(default)]
    pub reliability: Option<Reliability>,
    /// Trainable numbers of the network.
    pub n_parameters: usize,
    /// Wall time of the whole training, without what was lost when it was cut off.
    pub seconds: f64,
}

/// What trajectories scored that were sampled with a network and a share of its velocity.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SampledLoss {
    /// Optimiser steps of the network; 0 is what it began with.
    #[serde(default)]
    pub step: usize,
    /// The share.
    pub velocity_share: f64,
    /// Sum of the logarithms of CRPS, CRPS_sum and energy score.
    pub loss: f64,
    /// Standard error, over windows, of its difference to the loss without a network; none with a single window.
    #[serde(default)]
    pub standard_error: Option<f64>,
}

/// A model with the record of its training.
pub struct Fitted {
    /// The model.
    pub model: Model,
    /// The record.
    pub report: TrainReport,
    /// Whole paths of out-of-fold base errors, `[path, lead, series]`, standard units: what the base alone would add.
    pub base_errors: Vec<Vec<f64>>,
}

/// Time of the chosen correction on all folds, relative to that of those among which it was chosen.
const CORRECTION_AGAIN: f64 = 0.6;

/// Trains a model on a history.
///
/// `progress` is told after every step and may stop training; what the current stage has learned so far is then kept.
///
/// # Errors
/// - [`Error::TooShort`] when the history has too few steps for the horizon
/// - [`Error::NothingObserved`] when no value is observed
/// - [`Error::Zero`], [`Error::Setting`] when a number of the configuration is out of range
/// - [`Error::NoTarget`], [`Error::TooManyCovariates`] when the roles are not those of a model
/// - [`Error::SeriesCount`], [`Error::CalendarLength`] when the parts of the history disagree
/// - [`Error::Stopped`] when training was stopped before there was a model
pub fn fit(
    history: &History,
    config: &TrainConfig,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    fit_with(history, config, Means::default(), device, progress)
}

/// What training may begin with, beside a history.
#[derive(Default)]
pub struct Means<'a> {
    /// A model whose weights the network begins with, where these fit and enough of the last fold is unknown to them.
    pub start: Option<Start<'a>>,
    /// Where the state of the training is kept, and that of the same training found when it was cut off.
    pub memory: Option<&'a mut dyn Memory>,
    /// Histories of other panels that the network learns from too, half of its windows together. Tokens have to be of single series.
    pub companions: &'a [History],
}

/// As [`fit`], beginning with what there is already; the report says with what it did.
///
/// # Errors
/// Those of [`fit`].
pub fn fit_with(
    history: &History,
    config: &TrainConfig,
    means: Means<'_>,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    fit_parts(history, config, means, device, progress, Parts::All)
}

/// A model without trees and network: linear base and joint law of its errors.
///
/// # Errors
/// Those of [`fit`].
pub(crate) fn fit_law(
    history: &History,
    config: &TrainConfig,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Model, Error> {
    let config = TrainConfig { budget: Budget::Steps(0), ..config.clone() };
    Ok(fit_parts(history, &config, Means::default(), device, progress, Parts::LinearLaw)?.model)
}

fn fit_parts(
    history: &History,
    config: &TrainConfig,
    Means { start, memory, companions }: Means<'_>,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    parts: Parts,
) -> Result<Fitted, Error> {
    check(history, config)?;
    let config = &config.beginning_with(start, companions);
    let mut keeper = Keeper::new(memory, history, companions, config, start)?;
    go_on(progress)?;
    let roles = Roles::new(&history.roles, history.values.n_series())?;
    let mut covariates = Covariates::fit(history, &roles, config, device, progress)?;
    let history = &*covariates::modelled_history(history, &roles, covariates.as_ref());
    let layout = TokenLayout { n_known: roles.known.len(), ..layout(history, config) };
    let companions = Companion::all(companions, &layout, config, device, progress)?;
    let plan = &LinearPlan::new(&history.seasons, config.horizon, history.values.n_steps())?;
    let trees = Plan { n_rows: config.budget.n_tree_rows(), seed: config.seed };
    let panel = Panel { history, roles: &roles, layout, plan };
    let chosen = panel_stage::choose(panel, trees, parts, progress)?;
    let (data, stage) = (&chosen.data, &chosen.stage);
    // All companions together have as many as the panel itself.
    let their_trees = Plan { n_rows: trees.n_rows.div_ceil(companions.len().max(1)), ..trees };
    let shown = companions.iter().map(|companion| companion.shown(their_trees, progress));
    let shown = shown.collect::<Result<Vec<_>, _>>()?;

    let n_rows = history.values.n_steps() + companions.iter().map(Companion::n_steps).sum::<usize>();
    let network = network(&layout, n_rows, config);
    let start =
        start.map(|start| start.weights(&layout, &network, plan.folds, |first| stage.validation_paths(first).len()));
    let warm_start = start.as_ref().map(|start| match start {
        Ok(weights) => WarmStart::Weights { n_origins: weights.n_origins },
        Err(unfit) => WarmStart::Nothing { reason: unfit.to_string() },
    });
    let start = start.and_then(Result::ok);
    let mut trainer = Trainer { config, network: &network, start, companions: &shown, device, timetable: None };
    let begun = trainer.recall(&mut keeper);
    if let Budget::Seconds(seconds) = config.budget {
        let again = if chosen.shares == Shares::default() { 0.0 } else { CORRECTION_AGAIN };
        let base_seconds = again * chosen.correction_seconds;
        trainer.timetable = Some(Timetable { started: keeper.started, seconds, base_seconds });
    }
    let resumed = begun.as_ref().map(Begun::resumed);
    let (selection, second) = match begun {
        Some(Begun::Train(both)) => (both.0, Some(both.1)),
        Some(Begun::Select(first)) => (trainer.select(data, stage, Some(*first), &mut keeper, progress)?, None),
        None => (trainer.select(data, stage, None, &mut keeper, progress)?, None),
    };

    let reliability = trainer.reliability(data, stage, &selection)?;
    let (data, full, base_words) = chosen.on_everything(panel, trees)?;

    let choice = selection.choice.clone();
    let mut report = TrainReport {
        resumed,
        warm_start,
        scaling: chosen.kind,
        n_integer: data.supports.iter().filter(|support| support.integer).count(),
        n_non_negative: data.supports.iter().filter(|support| support.non_negative).count(),
        effects: chosen.effects.clone(),
        base: base_words,
        shares: chosen.shares,
        estimation: chosen.law.estimation,
        pool_share: chosen.law.pool_share,
        best_step: choice.best_step,
        velocity_share: choice.velocity_share,
        sampled_losses: choice.sampled_losses,
        validation_loss_gaussian: choice.gaussian_loss,
        validation_loss: choice.best_loss,
        reliability: Some(reliability),
        n_parameters: 0,
        seconds: 0.0,
    };
    let denoiser = trainer.train(&data, &full, selection, second, &mut keeper, progress);
    report.n_parameters = denoiser.num_params();
    report.seconds = keeper.started.elapsed().as_secs_f64();
    let (base, innovation, pool, base_errors) = full.into_parts();
    let (effects, scaling, supports) = data.into_parts();
    if let Some(covariates) = &mut covariates {
        covariates.effects = effects;
    }
    let model = Model {
        roles,
        covariates,
        layout,
        seasons: history.seasons.clone(),
        scaling,
        supports,
        base,
        innovation,
        pool,
        network,
        denoiser,
        velocity_share: choice.velocity_share,
        device: device.clone(),
    };
    Ok(Fitted { model, report, base_errors })
}

fn check(history: &History, config: &TrainConfig) -> Result<(), Error> {
    history.check()?;
    if config.horizon == 0 {
        return Err(Error::Zero { name: "horizon" });
    }
    if config.horizon > TRAINED_HORIZON_MAX {
        return Err(Error::Setting {
            name: "horizon",
            expected: format!("at most {TRAINED_HORIZON_MAX} to be learned"),
        });
    }
    config.network.check(config.horizon)
}
