//! Training: chooses the base, measures its errors, and teaches the network what is left.
//!
//! 1. The base forecaster is chosen on the last fold of the origins, the innovations' shrinkage too.
//! 2. The network is trained on the earlier folds and watched on the last one; the best number of steps is kept.
//! 3. Base and innovations are fitted on everything, and the network is trained anew for that many steps.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::base::{BaseFitter, BaseInput, CrossFitted};
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::diffusion::{Example, NoisedBatch, Purpose};
use crate::innovation::{ErrorPaths, Innovation};
use crate::noise::Stream;
use crate::scaling::{Scaling, fill_from_past};
use crate::{Error, History, Model};

/// How long the network may train. Both passes over the data together stay within it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// At most this many optimiser steps in each pass: reproducible.
    Steps(usize),
    /// At most this many seconds: the number of steps follows from the machine.
    Seconds(f64),
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
    /// Steps of context that the network sees; `None` chooses by the seasons.
    pub context_length: Option<usize>,
    /// Width of the network; `None` chooses by the length of the history.
    pub d_model: Option<usize>,
    /// Layers of the network.
    pub n_layers: usize,
    /// Windows in a batch.
    pub batch_size: usize,
}

impl TrainConfig {
    /// The defaults for a horizon.
    pub fn new(horizon: usize, budget: Budget, seed: u64) -> Self {
        Self { horizon, budget, seed, context_length: None, d_model: None, n_layers: 2, batch_size: 64 }
    }
}

/// Where training stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// `base`, `select` or `train`.
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

/// What training found, for the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainReport {
    /// The base forecaster in words.
    pub base: String,
    /// Share of the error covariance that was replaced by its diagonal; 1 is diagonal.
    pub shrinkage: f64,
    /// Steps with the lowest validation loss; 0 keeps the joint Gaussian.
    pub best_step: usize,
    /// Validation loss of the joint Gaussian (step 0).
    pub validation_loss_gaussian: f64,
    /// Validation loss at the best step.
    pub validation_loss: f64,
    /// Trainable numbers of the network.
    pub n_parameters: usize,
    /// Wall time of the whole training.
    pub seconds: f64,
}

/// A model with the record of its training.
pub struct Fitted {
    /// The model.
    pub model: Model,
    /// The record.
    pub report: TrainReport,
    /// Whole paths of out-of-fold base errors, `[path, lead, series]`, data units: what the base alone would add.
    pub base_errors: Vec<Vec<f64>>,
}

const LEARNING_RATE: f64 = 2e-3;
const WARM_UP_STEPS: usize = 20;
const WEIGHT_DECAY: f32 = 0.01;
const GRADIENT_NORM_MAX: f32 = 1.0;
const N_STEPS_MAX: usize = 2000;
/// The validation windows are looked at after this many steps, and again whenever the steps have grown by a fifth.
const FIRST_VALIDATION_STEP: usize = 10;
const VALIDATION_GROWTH: f64 = 1.2;
/// Selection ends early when the validation loss is so many times the best one: it has begun to learn by heart.
const LOSS_RATIO_MAX: f64 = 1.2;
const N_VALIDATION_WINDOWS: usize = 192;
/// Draws of token, level and noise for each validation window.
const N_VALIDATION_DRAWS: usize = 4;
const N_ERROR_PATHS_MAX: usize = 4000;
/// Share of the time for the first pass; the second takes no more steps than the first found best.
const SELECT_SHARE: f64 = 0.5;
const N_TIMED_STEPS: usize = 5;
/// Time of a step with its part of the looks at the validation windows, relative to the step alone.
const VALIDATION_OVERHEAD: f64 = 1.25;
/// Below this many rows a network of half the width is learned: on small panels a larger one only overfits.
const N_STEPS_SMALL: usize = 2000;

/// Cuts time into tokens: the largest patch that divides the horizon and leaves enough tokens to be causal between.
fn layout(history: &History, config: &TrainConfig) -> TokenLayout {
    let n_series = history.values.n_series();
    let largest = (config.horizon / 6).clamp(1, 8).min((256 / n_series).max(1));
    let patch = (1..=largest).rev().find(|patch| config.horizon.is_multiple_of(*patch)).unwrap_or(1);
    let season = history.seasons.first().copied().unwrap_or(config.horizon);
    let wanted = config.context_length.unwrap_or((2 * season).clamp(8 * patch, 24 * patch));
    let n_context_tokens = wanted.min(history.values.n_steps() / 4).div_ceil(patch).max(1);
    TokenLayout {
        n_series,
        n_calendar: history.calendar.n_features(),
        patch,
        n_context_tokens,
        n_horizon_tokens: config.horizon / patch,
    }
}

/// Trains a model on a history.
///
/// `progress` is told after every step and may stop training; what the current stage has learned so far is then kept.
///
/// # Errors
/// - [`Error::TooShort`] when the history has too few steps for the horizon
/// - [`Error::NothingObserved`] when no value is observed
/// - [`Error::SeriesCount`], [`Error::CalendarLength`] when the parts of the history disagree
/// - [`Error::Stopped`] when training was stopped before there was a model
pub fn fit(
    history: &History,
    config: &TrainConfig,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    let started = Instant::now();
    check(history, config)?;
    let n_series = history.values.n_series();
    let scaling = Scaling::fit(&history.values);
    let standard = scaling.standardise_grid(&history.values);
    let filled = fill_from_past(&standard, n_series, history.seasons.first().copied());
    let input = BaseInput { filled: &filled, n_series, calendar: &history.calendar };

    let note = |stage| Progress {
        stage,
        step: 0,
        n_steps: 0,
        loss: 1.0,
        validation_loss: None,
        steps_per_second: 0.0,
        seconds_left: 0.0,
    };
    if progress(&note("base")).is_break() {
        return Err(Error::Stopped);
    }
    let fitter = BaseFitter::new(input, &standard, &history.seasons, config.horizon)?;
    let chosen = fitter.choose(&history.seasons);
    let all: Vec<usize> = (0..fitter.folds().n_folds()).collect();
    let (last, earlier) = all.split_last().ok_or(Error::NothingObserved)?;

    let layout = layout(history, config);
    let data = Data { standard: &standard, input, layout };
    let select = data.stage(fitter.cross_fit(&chosen, earlier), earlier, None, Some(*last))?;
    let d_model = config.d_model.unwrap_or(if history.values.n_steps() < N_STEPS_SMALL { 32 } else { 64 });
    let network = DenoiserConfig {
        n_elements: layout.n_elements(),
        n_calendar: layout.n_calendar.max(1),
        n_horizon_tokens: layout.n_horizon_tokens,
        d_model,
        n_heads: (d_model / 16).max(1),
        n_layers: config.n_layers,
    };
    let trainer = Trainer { data: &data, config, network: &network, device, started };
    let selection = trainer.select(&select, *last, progress)?;
    let full = data.stage(fitter.cross_fit(&chosen, &all), &all, Some(select.shrinkage), None)?;
    let (best_step, n_steps) = (selection.best_step, selection.n_steps);
    let denoiser = trainer.train(&full, best_step, n_steps, progress)?;

    let report = TrainReport {
        base: format!("{}, context {}", chosen.kind, chosen.context),
        shrinkage: select.shrinkage,
        best_step,
        validation_loss_gaussian: selection.gaussian_loss,
        validation_loss: selection.best_loss,
        n_parameters: denoiser.num_params(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let base_errors = full.base_errors(&scaling, n_series);
    let model = Model {
        layout,
        seasons: history.seasons.clone(),
        scaling,
        base: full.cross.base,
        innovation: full.innovation,
        network,
        denoiser,
        device: device.clone(),
    };
    Ok(Fitted { model, report, base_errors })
}

fn check(history: &History, config: &TrainConfig) -> Result<(), Error> {
    let (given, expected) = (history.bounds.len(), history.values.n_series());
    if given != expected {
        return Err(Error::SeriesCount { given, expected });
    }
    let expected = history.values.n_steps();
    if let Some(given) = history.calendar.n_steps().filter(|&given| given != expected) {
        return Err(Error::CalendarLength { given, expected });
    }
    let positive =
        [("horizon", config.horizon), ("d_model", config.d_model.unwrap_or(1)), ("batch_size", config.batch_size)];
    if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
        return Err(Error::Zero { name });
    }
    if history.values.values().iter().all(|value| value.is_nan()) {
        return Err(Error::NothingObserved);
    }
    Ok(())
}

/// The history in standard units, cut into tokens.
struct Data<'a> {
    standard: &'a [f64],
    input: BaseInput<'a>,
    layout: TokenLayout,
}

/// Base, errors and innovations fitted on some of the folds.
struct Stage {
    cross: CrossFitted,
    innovation: Innovation,
    one_step: OneStep,
    shrinkage: f64,
    /// Origins of training windows.
    origins: Vec<usize>,
    errors: ErrorPaths,
}

impl Data<'_> {
    /// Measures out-of-fold errors of the given folds and fits the innovations; `later` helps to choose the shrinkage.
    fn stage(
        &self,
        cross: CrossFitted,
        folds: &[usize],
        shrinkage: Option<f64>,
        later: Option<usize>,
    ) -> Result<Stage, Error> {
        let errors = self.error_paths(&cross, folds);
        let shrinkage = match (shrinkage, later) {
            (Some(shrinkage), _) => shrinkage,
            (None, Some(fold)) => Innovation::choose_shrinkage(&errors, &self.error_paths(&cross, &[fold]))?,
            (None, None) => 1.0,
        };
        let innovation = Innovation::fit(&errors, shrinkage)?;
        let n_steps = self.standard.len() / self.input.n_series;
        let base_for = |origin: usize| &cross.without_fold[cross.folds.of(origin)];
        let one_step = OneStep::new(self.standard, self.input, &innovation, 0..n_steps, base_for);
        let origins = folds.iter().flat_map(|&fold| cross.folds.usable(fold)).collect();
        Ok(Stage { cross, innovation, one_step, shrinkage, origins, errors })
    }

    /// Errors of the whole paths from an origin, by the forecaster that did not see it; `NaN` for gaps.
    fn path_errors(&self, cross: &CrossFitted, origin: usize) -> (Vec<f64>, Vec<f64>) {
        let path = cross.without_fold[cross.folds.of(origin)].paths(self.input, origin);
        let truth = &self.standard[(origin + 1) * self.input.n_series..];
        let errors = path.iter().zip(truth).map(|(expected, value)| value - expected).collect();
        (path, errors)
    }

    fn error_paths(&self, cross: &CrossFitted, folds: &[usize]) -> ErrorPaths {
        let origins: Vec<usize> = folds.iter().flat_map(|&fold| cross.folds.usable(fold)).collect();
        let stride = origins.len().div_ceil(N_ERROR_PATHS_MAX).max(1);
        let values = origins.into_iter().step_by(stride).flat_map(|origin| self.path_errors(cross, origin).1).collect();
        ErrorPaths { n_elements: self.layout.horizon() * self.input.n_series, values }
    }

    fn example(&self, stage: &Stage, origin: usize) -> Example {
        let (path, errors) = self.path_errors(&stage.cross, origin);
        let innovations = stage.innovation.whiten(&errors).iter().map(|&z| z as f32).collect();
        let (calendar, one_step) = (self.input.calendar, &stage.one_step);
        let conditioning = Conditioning::new(&self.layout, self.standard, one_step, calendar, origin, &path);
        Example { conditioning, innovations }
    }
}

impl Stage {
    /// Whole observed paths of errors in data units.
    fn base_errors(&self, scaling: &Scaling, n_series: usize) -> Vec<Vec<f64>> {
        let whole = self.errors.values.chunks_exact(self.errors.n_elements);
        let whole = whole.filter(|path| path.iter().all(|error| !error.is_nan()));
        whole
            .map(|path| path.iter().enumerate().map(|(index, error)| error * scaling.scale[index % n_series]).collect())
            .collect()
    }
}

struct Selection {
    best_step: usize,
    n_steps: usize,
    best_loss: f64,
    gaussian_loss: f64,
}

struct Trainer<'a> {
    data: &'a Data<'a>,
    config: &'a TrainConfig,
    network: &'a DenoiserConfig,
    device: &'a Device,
    started: Instant,
}

/// Streams of random numbers, one per purpose.
const STREAM_WEIGHTS: u32 = 0;
const STREAM_WINDOWS: u32 = 1;
const STREAM_VALIDATION: u32 = 2;

impl Trainer<'_> {
    fn learning_rate(step: usize, n_steps: usize) -> f64 {
        let warm_up = ((step + 1) as f64 / WARM_UP_STEPS as f64).min(1.0);
        let progress = step as f64 / n_steps as f64;
        LEARNING_RATE * warm_up * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))
    }

    /// Runs up to `n_steps` steps; `after` sees the network after each and may end the run.
    fn run(&self, stage: &Stage, n_steps: usize, after: &mut dyn FnMut(usize, f64, &Denoiser) -> Continue) -> Denoiser {
        let device = self.device.clone().autodiff();
        let mut stream = Stream::new(self.config.seed, STREAM_WINDOWS);
        let mut denoiser = Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), &device);
        let clipping = burn::grad_clipping::GradientClippingConfig::Norm(GRADIENT_NORM_MAX);
        let mut optimiser =
            AdamWConfig::new().with_weight_decay(WEIGHT_DECAY).with_grad_clipping(Some(clipping)).init();
        let mut n_steps = n_steps;
        let mut step = 0;
        while step < n_steps {
            let examples: Vec<Example> = (0..self.config.batch_size)
                .map(|_| self.data.example(stage, stage.origins[stream.below(stage.origins.len())]))
                .collect();
            let batch = NoisedBatch::new(&self.data.layout, &examples, Purpose::Training, &mut stream, &device);
            let loss = batch.loss(&denoiser);
            let gradients = GradientsParams::from_grads(loss.backward(), &denoiser);
            denoiser = optimiser.step(Self::learning_rate(step, n_steps), denoiser, gradients);
            step += 1;
            match after(step, f64::from(loss.into_scalar::<f32>()), &denoiser) {
                Continue::Same => {}
                Continue::Until(limit) => n_steps = limit.max(step),
                Continue::Stop => break,
            }
        }
        denoiser.valid()
    }

    /// Trains on the earlier folds and finds the number of steps with the lowest loss on the last one.
    fn select(
        &self,
        stage: &Stage,
        validation_fold: usize,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Selection, Error> {
        let validation = self.validation_batches(stage, validation_fold);
        let validation_loss = |denoiser: &Denoiser| {
            let denoiser = denoiser.valid();
            let weighted = validation
                .iter()
                .map(|batch| f64::from(batch.loss(&denoiser).into_scalar::<f32>()) * batch.n_counted());
            weighted.sum::<f64>() / validation.iter().map(NoisedBatch::n_counted).sum::<f64>().max(1.0)
        };
        let untrained = Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), self.device);
        let gaussian_loss = validation_loss(&untrained);
        let (mut best_step, mut best_loss) = (0, gaussian_loss);
        let mut n_steps = match self.config.budget {
            Budget::Steps(n) => n,
            Budget::Seconds(_) => N_STEPS_MAX,
        };
        let (begun, mut smoothed, mut stopped) = (Instant::now(), 1.0, false);
        let (mut latest, mut next_look) = (None, FIRST_VALIDATION_STEP);
        self.run(stage, n_steps, &mut |step, loss, denoiser| {
            smoothed += (loss - smoothed) / f64::min(step as f64, 20.0);
            let mut next = Continue::Same;
            if let (Budget::Seconds(seconds), N_TIMED_STEPS) = (self.config.budget, step) {
                // The time of the first steps fixes how many there are, so that the learning rate can fall to 0 on time.
                let per_step = begun.elapsed().as_secs_f64() / step as f64;
                let left = seconds * SELECT_SHARE - self.started.elapsed().as_secs_f64();
                n_steps = step + ((left.max(0.0) / per_step / VALIDATION_OVERHEAD) as usize).min(N_STEPS_MAX);
                next = Continue::Until(n_steps);
            }
            if step == next_look || step == n_steps {
                next_look = (step as f64 * VALIDATION_GROWTH).ceil() as usize;
                let loss = validation_loss(denoiser);
                latest = Some(loss);
                if loss < best_loss {
                    (best_step, best_loss) = (step, loss);
                } else if loss > LOSS_RATIO_MAX * best_loss {
                    next = Continue::Stop;
                }
            }
            let state = self.state("select", step, n_steps, smoothed, latest, begun);
            stopped = progress(&state).is_break();
            if stopped { Continue::Stop } else { next }
        });
        if stopped && best_step == 0 {
            return Err(Error::Stopped);
        }
        Ok(Selection { best_step, n_steps, best_loss, gaussian_loss })
    }

    /// Trains on everything for the chosen number of steps of the same schedule.
    fn train(
        &self,
        stage: &Stage,
        best_step: usize,
        n_steps: usize,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Denoiser, Error> {
        let (begun, mut smoothed) = (Instant::now(), 1.0);
        if best_step == 0 {
            return Ok(Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), self.device));
        }
        Ok(self.run(stage, n_steps, &mut |step, loss, _| {
            smoothed += (loss - smoothed) / f64::min(step as f64, 20.0);
            let over = matches!(self.config.budget, Budget::Seconds(seconds) if self.started.elapsed().as_secs_f64() > seconds);
            let state = self.state("train", step, best_step, smoothed, None, begun);
            if progress(&state).is_break() || over || step == best_step { Continue::Stop } else { Continue::Same }
        }))
    }

    fn state(
        &self,
        stage: &'static str,
        step: usize,
        n_steps: usize,
        loss: f64,
        validation_loss: Option<f64>,
        begun: Instant,
    ) -> Progress {
        let steps_per_second = step as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let seconds_left = n_steps.saturating_sub(step) as f64 / steps_per_second;
        Progress { stage, step, n_steps, loss, validation_loss, steps_per_second, seconds_left }
    }

    /// Fixed windows of a fold with fixed levels and noise, so that losses can be compared.
    fn validation_batches(&self, stage: &Stage, fold: usize) -> Vec<NoisedBatch> {
        let origins: Vec<usize> = stage.cross.folds.usable(fold).collect();
        let stride = origins.len().div_ceil(N_VALIDATION_WINDOWS).max(1);
        let examples: Vec<Example> =
            origins.iter().step_by(stride).map(|&origin| self.data.example(stage, origin)).collect();
        let mut stream = Stream::new(self.config.seed, STREAM_VALIDATION);
        let repeated: Vec<Example> = (0..N_VALIDATION_DRAWS).flat_map(|_| examples.iter().cloned()).collect();
        let batches = repeated.chunks(self.config.batch_size);
        batches
            .map(|batch| NoisedBatch::new(&self.data.layout, batch, Purpose::Validation, &mut stream, self.device))
            .collect()
    }
}

enum Continue {
    Same,
    Until(usize),
    Stop,
}
