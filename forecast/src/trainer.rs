//! The optimiser's loop: once to find how long to learn, once to learn.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::average;
use crate::companions::Shown;
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::diffusion::{Example, FitSums, NoisedBatch, Purpose};
use crate::noise::Stream;
use crate::reliability::Reliability;
use crate::resume::{Keeper, Resumed};
use crate::sampler::Sampler;
use crate::stage::{Data, Stage};
use crate::start::Weights;
use crate::thinning::thinned;
use crate::timetable::{N_STEPS_MAX, Pace, Timetable};
use crate::train::{Budget, Progress, SampledLoss, TrainConfig};
use crate::windows::TrainingWindows;

const LEARNING_RATE: f64 = 2e-3;
/// The same after a warm start: what is learned already is not to be forgotten.
const LEARNING_RATE_WARM: f64 = 1e-3;
const WARM_UP_STEPS: usize = 20;
const WEIGHT_DECAY: f32 = 0.01;
const GRADIENT_NORM_MAX: f32 = 1.0;
/// The validation windows are looked at after this many steps, and again whenever the steps have grown by a fifth.
const FIRST_VALIDATION_STEP: usize = 10;
const VALIDATION_GROWTH: f64 = 1.2;
/// Selection ends early when no more than this share of the velocity is of use: the network learns by heart.
const SHARE_MIN: f64 = 0.2;
const N_VALIDATION_WINDOWS: usize = 192;
/// Draws of token, level and noise for each validation window.
const N_VALIDATION_DRAWS: usize = 4;
/// Networks are compared by the trajectories that they give whenever the steps have grown by this factor.
const CANDIDATE_GROWTH: f64 = 1.6;
/// Shares of the velocity, beside all of it, that are compared for the best of them.
const PARTIAL_SHARES: [f64; 2] = [1.0 / 3.0, 2.0 / 3.0];
/// The time of these steps fixes how many there are; those before them are slower.
const TIMED_STEPS: Range<usize> = 2..7;

/// A network that was trained for so many steps.
pub struct Candidate {
    step: usize,
    /// Its validation loss with the best share of the velocity.
    loss: f64,
    /// The share of the velocity that is believed: at first the best one by that loss.
    share: f64,
    denoiser: Denoiser,
}

/// What is learned in one pass over the data, and how far that has come.
pub struct Pass {
    /// The network, to learn.
    pub denoiser: Denoiser,
    /// The average of its weights over the steps.
    pub average: Denoiser,
    /// The optimiser with its moments.
    pub optimiser: ModuleOptimizer,
    /// What the next window is drawn from.
    pub stream: Stream,
    /// Steps that were done.
    pub step: usize,
}

/// What a pass knows beside its networks, so that it can go on after it was cut off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The first pass, with the steps, losses and shares of its candidates.
    Select {
        /// What it looks at.
        looks: Looks,
        /// Step, loss and share of each candidate.
        candidates: Vec<(usize, f64, f64)>,
    },
    /// The second pass, with the network of the first.
    Train {
        /// What was chosen in the first.
        choice: Choice,
        /// Smoothed training loss.
        smoothed: f64,
    },
}

impl Found {
    /// Networks that belong to it.
    pub fn n_networks(&self) -> usize {
        match self {
            Self::Select { candidates, .. } => candidates.len(),
            Self::Train { .. } => 1,
        }
    }
}

/// How far the first pass has come in looking at its networks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Looks {
    n_steps: usize,
    pace: Pace,
    smoothed: f64,
    lowest_loss: f64,
    latest: Option<f64>,
    next_look: usize,
    next_candidate: usize,
    /// Whether it has ended early.
    is_over: bool,
}

/// The first pass.
pub struct FirstPass {
    pass: Pass,
    looks: Looks,
    candidates: Vec<Candidate>,
}

/// The second pass.
pub struct SecondPass {
    pass: Pass,
    /// Smoothed training loss.
    smoothed: f64,
}

/// A training that was cut off.
pub enum Begun {
    /// In the first pass.
    Select(Box<FirstPass>),
    /// In the second one, after what the first has found.
    Train(Box<(Selection, SecondPass)>),
}

impl Begun {
    /// Where it goes on.
    pub fn resumed(&self) -> Resumed {
        let (stage, pass) = match self {
            Self::Select(first) => (SELECT, &first.pass),
            Self::Train(both) => (TRAIN, &both.1.pass),
        };
        Resumed { stage: stage.to_owned(), step: pass.step }
    }
}

/// How long to learn, and how much to believe.
pub struct Selection {
    /// What was chosen.
    pub choice: Choice,
    /// The network of the best step, which knows nothing of the last fold.
    pub denoiser: Denoiser,
    /// Whether training was stopped.
    pub is_stopped: bool,
}

/// The outcome of the first pass in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// Steps whose network gives the best trajectories; 0 when none is of use, or none is better than what it began with.
    pub best_step: usize,
    /// Length of the schedule of the learning rate.
    pub n_steps: usize,
    /// Share of the predicted velocity whose trajectories score best; 0 leaves the joint law of the base's errors.
    pub velocity_share: f64,
    /// Losses on the last fold of trajectories, without a network and with those that were compared.
    pub sampled_losses: Vec<SampledLoss>,
    /// Validation loss at the best step.
    pub best_loss: f64,
    /// Validation loss of the joint Gaussian.
    pub gaussian_loss: f64,
}

impl Selection {
    fn of(
        best: Candidate,
        n_steps: usize,
        sampled_losses: Vec<SampledLoss>,
        gaussian_loss: f64,
        is_stopped: bool,
    ) -> Self {
        let Candidate { step: best_step, loss: best_loss, share: velocity_share, denoiser } = best;
        let choice = Choice { best_step, n_steps, velocity_share, sampled_losses, best_loss, gaussian_loss };
        Self { choice, denoiser, is_stopped }
    }
}

/// Trains networks of one configuration.
pub struct Trainer<'a> {
    /// What is to be trained.
    pub config: &'a TrainConfig,
    /// Sizes of the network.
    pub network: &'a DenoiserConfig,
    /// What it begins with, if not with nothing.
    pub start: Option<Weights<'a>>,
    /// Other panels that it learns from.
    pub companions: &'a [Shown<'a>],
    /// Where it is trained.
    pub device: &'a Device,
    /// What has to be done by when, with a budget of time.
    pub timetable: Option<Timetable>,
}

/// Stages of training with optimiser steps.
const SELECT: &str = "select";
const TRAIN: &str = "train";

/// Streams of random numbers, one per purpose.
const STREAM_WEIGHTS: u32 = 0;
const STREAM_WINDOWS: u32 = 1;
const STREAM_VALIDATION: u32 = 2;

impl Trainer<'_> {
    fn learning_rate(&self, step: usize, n_steps: usize) -> f64 {
        let highest = if self.start.is_some() { LEARNING_RATE_WARM } else { LEARNING_RATE };
        let warm_up = ((step + 1) as f64 / WARM_UP_STEPS as f64).min(1.0);
        let progress = step as f64 / n_steps as f64;
        highest * warm_up * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))
    }

    /// A network that has learned nothing.
    fn untrained(&self, device: &Device) -> Denoiser {
        Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), device)
    }

    /// The network before its first step.
    fn first(&self, device: &Device) -> Denoiser {
        let untrained = self.untrained(device);
        match self.start {
            None => untrained,
            Some(Weights { denoiser, .. }) => untrained.load_record(denoiser.clone().into_record()),
        }
    }

    /// The first origin by which networks are compared.
    fn first_origin(&self) -> usize {
        self.start.map_or(0, |weights| weights.first_origin)
    }

    fn sampler<'a>(&'a self, data: &'a Data<'_>, denoiser: &'a Denoiser, velocity_share: f64) -> Sampler<'a> {
        Sampler { denoiser, velocity_share, layout: &data.layout, device: self.device }
    }

    /// A pass before its first step.
    fn pass(&self) -> Pass {
        let denoiser = self.first(&self.device.clone().autodiff());
        let average = denoiser.valid();
        let clipping = GradientClippingConfig::Norm(GRADIENT_NORM_MAX);
        let optimiser = AdamWConfig::new().with_weight_decay(WEIGHT_DECAY).with_grad_clipping(Some(clipping)).init();
        Pass { denoiser, average, optimiser, stream: Stream::new(self.config.seed, STREAM_WINDOWS), step: 0 }
    }

    /// What was kept of this training when it was cut off.
    pub fn recall(&self, keeper: &mut Keeper<'_>) -> Option<Begun> {
        let (pass, found, mut networks) = keeper.recall(|| self.pass(), &self.untrained(self.device))?;
        Some(match found {
            Found::Select { looks, candidates } => {
                let candidate = |((step, loss, share), denoiser)| Candidate { step, loss, share, denoiser };
                let candidates = candidates.into_iter().zip(networks).map(candidate).collect();
                Begun::Select(Box::new(FirstPass { pass, looks, candidates }))
            }
            Found::Train { choice, smoothed } => {
                let selection = Selection { choice, denoiser: networks.pop()?, is_stopped: false };
                Begun::Train(Box::new((selection, SecondPass { pass, smoothed })))
            }
        })
    }

    /// Runs a pass up to `n_steps` steps; `after` sees it after each and may end it. Returns the averaged network.
    fn run(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        mut pass: Pass,
        n_steps: usize,
        after: &mut dyn FnMut(&Pass, f64) -> Continue,
    ) -> Denoiser {
        let windows = TrainingWindows::new(data, stage, self.companions, &self.config.network);
        let mut n_steps = n_steps;
        windows.ahead(pass.stream.clone(), &self.device.clone().autodiff(), |batches| {
            while pass.step < n_steps
                && let Ok((batch, stream)) = batches.recv()
            {
                let loss = batch.loss(&pass.denoiser);
                let gradients = GradientsParams::from_grads(loss.backward(), &pass.denoiser);
                let learning_rate = self.learning_rate(pass.step, n_steps);
                pass.denoiser = pass.optimiser.step(learning_rate, pass.denoiser, gradients);
                pass.stream = stream;
                pass.step += 1;
                pass.average = average::after_step(pass.average, &pass.denoiser.valid(), pass.step);
                match after(&pass, f64::from(loss.into_scalar::<f32>())) {
                    Continue::Same => {}
                    Continue::Until(limit) => n_steps = limit.max(pass.step),
                    Continue::Stop => break,
                }
            }
            pass.average
        })
    }

    /// Trains on the earlier folds, and finds the number of steps and the share of the velocity whose trajectories score best on the
    /// last one. Goes on with a pass that was cut off, where one is given.
    ///
    /// # Errors
    /// [`Error::Stopped`] when training was stopped before anything was learned.
    pub fn select(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        begun: Option<FirstPass>,
        keeper: &mut Keeper<'_>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Selection, Error> {
        let validation = self.validation_batches(data, stage);
        let validate = |denoiser: &Denoiser| {
            let sums = validation.iter().map(|batch| batch.fit_sums(denoiser)).fold(FitSums::default(), FitSums::plus);
            let share = sums.best_share();
            (sums.loss(share), share)
        };
        let untrained = self.untrained(self.device);
        let (gaussian_loss, _) = validate(&untrained);
        let FirstPass { pass, mut looks, mut candidates } = match begun {
            Some(begun) => begun,
            None => self.first_pass(data, stage, &validate, &untrained, gaussian_loss)?,
        };
        let (begun, mut timed, mut stopped) = ((Instant::now(), pass.step), Instant::now(), false);
        let n_steps = if looks.is_over { pass.step } else { looks.n_steps };
        let latest = self.run(data, stage, pass, n_steps, &mut |pass, loss| {
            let step = pass.step;
            looks.smoothed += (loss - looks.smoothed) / f64::min(step as f64, 20.0);
            let mut next = Continue::Same;
            if step == TIMED_STEPS.start {
                timed = Instant::now();
            }
            if let Some(timetable) = self.timetable.filter(|_| step == TIMED_STEPS.end) {
                // So that the learning rate can fall to 0 on time.
                looks.pace.step = timed.elapsed().as_secs_f64() / TIMED_STEPS.len() as f64;
                looks.n_steps = timetable.n_steps(looks.pace, n_compared).max(step);
                next = Continue::Until(looks.n_steps);
            }
            if step == looks.next_look || step == looks.n_steps {
                looks.next_look = (step as f64 * VALIDATION_GROWTH).ceil() as usize;
                let (loss, share) = validate(&pass.average);
                looks.latest = Some(loss);
                if share > 0.0 && (step >= looks.next_candidate || step == looks.n_steps) {
                    looks.next_candidate = (step as f64 * CANDIDATE_GROWTH).ceil() as usize;
                    candidates.push(Candidate { step, loss, share, denoiser: pass.average.clone() });
                }
                if loss < looks.lowest_loss {
                    looks.lowest_loss = loss;
                } else if share < SHARE_MIN && step > looks.n_steps / 3 {
                    looks.is_over = true;
                    next = Continue::Stop;
                }
            }
            // Before that there is little to lose, and the pace is not known.
            if step >= TIMED_STEPS.end {
                keeper.after_step(pass, || {
                    let numbers = candidates.iter().map(|candidate| (candidate.step, candidate.loss, candidate.share));
                    let found = Found::Select { looks: looks.clone(), candidates: numbers.collect() };
                    (found, candidates.iter().map(|candidate| &candidate.denoiser).collect())
                });
            }
            let state = self.state(SELECT, begun, step, looks.n_steps, looks.smoothed, looks.latest);
            stopped = progress(&state).is_break();
            if stopped { Continue::Stop } else { next }
        });
        let Looks { n_steps, pace, .. } = looks;
        if stopped {
            // There is no time to compare trajectories.
            let of_use = candidates.into_iter().filter(|candidate| candidate.loss < gaussian_loss);
            let best = of_use.min_by(|a, b| a.loss.total_cmp(&b.loss)).ok_or(Error::Stopped)?;
            return Ok(Selection::of(best, n_steps, vec![], gaussian_loss, true));
        }
        // What is of no use here may be of use to panels that begin with it, if it has learned from others at all.
        let kept = if self.companions.is_empty() { untrained } else { latest };
        let nothing = Candidate { step: 0, loss: gaussian_loss, share: 0.0, denoiser: kept };
        let mut goes_on = || {
            stopped = stopped || progress(&Progress::of_stage("compare")).is_break();
            !stopped
        };
        let (best, sampled_losses) = self.best_by_trajectories(data, stage, candidates, nothing, pace, &mut goes_on)?;
        Ok(Selection::of(best, n_steps, sampled_losses, gaussian_loss, stopped))
    }

    /// The first pass before its first step.
    fn first_pass(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        validate: &dyn Fn(&Denoiser) -> (f64, f64),
        untrained: &Denoiser,
        gaussian_loss: f64,
    ) -> Result<FirstPass, Error> {
        let mut looks = Looks {
            n_steps: match self.config.budget {
                Budget::Steps(n) => n,
                Budget::Seconds(_) => N_STEPS_MAX,
            },
            pace: Pace { step: 0.0, comparison: 0.0 },
            smoothed: 1.0,
            lowest_loss: gaussian_loss,
            latest: None,
            next_look: FIRST_VALIDATION_STEP,
            next_candidate: FIRST_VALIDATION_STEP,
            is_over: false,
        };
        let mut candidates = vec![];
        if self.start.is_some() {
            let denoiser = self.first(self.device);
            let (loss, share) = validate(&denoiser);
            looks.lowest_loss = looks.lowest_loss.min(loss);
            candidates.extend((share > 0.0).then_some(Candidate { step: 0, loss, share, denoiser }));
        }
        if self.timetable.is_some() {
            let sampler = self.sampler(data, untrained, 1.0);
            looks.pace.comparison = data.seconds_of_sampler(stage, &sampler, self.first_origin())?;
        }
        Ok(FirstPass { pass: self.pass(), looks, candidates })
    }

    /// The candidate and the share of its velocity whose trajectories score best on the last fold, with the losses of all that
    /// were compared; `nothing` where none is better than the joint law of the base's errors. Asked before each whether to go on, it
    /// chooses among those that there are when it is not to.
    ///
    /// The loss of the velocity goes on falling when trajectories have begun to get worse: what is learned by heart adds up
    /// along a path.
    fn best_by_trajectories(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        candidates: Vec<Candidate>,
        nothing: Candidate,
        pace: Pace,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<(Candidate, Vec<SampledLoss>), Error> {
        let score = |denoiser: &Denoiser, velocity_share: f64| {
            data.score_sampler(stage, &self.sampler(data, denoiser, velocity_share), self.first_origin())
        };
        let has_time = |best_step: usize| {
            // The next one and what comes after it: the partial shares, and what was chosen once more, for its reliability.
            let n_comparisons = 2 + PARTIAL_SHARES.len();
            self.timetable.is_none_or(|timetable| timetable.has_time_for(n_comparisons, best_step, pace))
        };
        if candidates.is_empty() {
            return Ok((nothing, vec![]));
        }
        let mut best: Option<(SampledLoss, Candidate)> = None;
        let without = score(&nothing.denoiser, 0.0)?;
        let compare = |candidate: &Candidate, velocity_share: f64| {
            let found = score(&candidate.denoiser, velocity_share)?;
            let standard_error = found.standard_error(&without);
            Ok::<_, Error>(SampledLoss { step: candidate.step, velocity_share, loss: found.loss(), standard_error })
        };
        let mut losses = vec![SampledLoss {
            step: 0,
            velocity_share: 0.0,
            loss: without.loss(),
            standard_error: without.standard_error(&without),
        }];
        // Every other one first, so that none is far from one that was compared when time runs out.
        let (even, odd): (Vec<_>, Vec<_>) = candidates.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        for (_, candidate) in even.into_iter().chain(odd) {
            if !goes_on() || best.as_ref().is_some_and(|(best, _)| !has_time(best.step)) {
                break;
            }
            let found = compare(&candidate, 1.0)?;
            losses.push(found);
            if best.as_ref().is_none_or(|(best, _)| found.loss < best.loss) {
                best = Some((found, candidate));
            }
        }
        let Some((mut lowest, candidate)) = best else { return Ok((nothing, losses)) };
        for share in PARTIAL_SHARES {
            if !goes_on() {
                break;
            }
            let found = compare(&candidate, share)?;
            losses.push(found);
            if found.loss < lowest.loss {
                lowest = found;
            }
        }
        let is_of_use = lowest.loss < losses[0].loss;
        let best = if is_of_use { Candidate { share: lowest.velocity_share, ..candidate } } else { nothing };
        Ok((best, losses))
    }

    /// How reliable forecasts of the last fold are with what was chosen, of which nothing was fitted there.
    ///
    /// # Errors
    /// Those of [`Sampler::draw`].
    pub fn reliability(&self, data: &Data<'_>, stage: &Stage, selection: &Selection) -> Result<Reliability, Error> {
        let sampler = self.sampler(data, &selection.denoiser, selection.choice.velocity_share);
        data.reliability_of_sampler(stage, &sampler, self.first_origin())
    }

    /// Trains on everything for the chosen number of steps of the same schedule. Goes on with a pass that was cut off, where one is
    /// given.
    ///
    /// Where training is stopped or out of time before that, the network of the selection is kept: it has seen less, but
    /// it is finished.
    pub fn train(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        selection: Selection,
        begun: Option<SecondPass>,
        keeper: &mut Keeper<'_>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Denoiser {
        let Selection { choice, denoiser, is_stopped } = selection;
        let Choice { best_step, n_steps, .. } = choice;
        if best_step == 0 || is_stopped {
            return denoiser;
        }
        let SecondPass { pass, mut smoothed } =
            begun.unwrap_or_else(|| SecondPass { pass: self.pass(), smoothed: 1.0 });
        let (begun, mut is_finished) = ((Instant::now(), pass.step), pass.step == best_step);
        // As many as the schedule of the learning rate is long, of which the best come first.
        let until = if is_finished { best_step } else { n_steps };
        let trained = self.run(data, stage, pass, until, &mut |pass, loss| {
            smoothed += (loss - smoothed) / f64::min(pass.step as f64, 20.0);
            is_finished = pass.step == best_step;
            keeper.after_step(pass, || (Found::Train { choice: choice.clone(), smoothed }, vec![&denoiser]));
            let is_over = self.timetable.is_some_and(|timetable| timetable.is_over());
            let state = self.state(TRAIN, begun, pass.step, best_step, smoothed, None);
            let is_stopped = progress(&state).is_break();
            if is_finished || is_over || is_stopped { Continue::Stop } else { Continue::Same }
        });
        if is_finished { trained } else { denoiser }
    }

    fn state(
        &self,
        stage: &'static str,
        (begun, first_step): (Instant, usize),
        step: usize,
        n_steps: usize,
        loss: f64,
        validation_loss: Option<f64>,
    ) -> Progress {
        let steps_per_second = (step - first_step) as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let seconds_left = n_steps.saturating_sub(step) as f64 / steps_per_second;
        Progress { stage, step, n_steps, loss, validation_loss, steps_per_second, seconds_left }
    }

    /// Fixed windows of the last fold with fixed levels and noise, so that losses can be compared.
    fn validation_batches(&self, data: &Data<'_>, stage: &Stage) -> Vec<NoisedBatch> {
        let paths = stage.validation_paths(self.first_origin());
        let influences = stage.innovation.influences();
        let kept = thinned(paths, N_VALIDATION_WINDOWS).into_iter();
        let examples: Vec<Example> = kept.map(|path| data.example(stage, path)).collect();
        let mut stream = Stream::new(self.config.seed, STREAM_VALIDATION);
        let repeated: Vec<Example> = (0..N_VALIDATION_DRAWS).flat_map(|_| examples.iter().cloned()).collect();
        let batches = repeated.chunks(self.config.network.batch_size);
        batches
            .map(|batch| {
                NoisedBatch::new(&data.layout, batch, &influences, Purpose::Validation, &mut stream, self.device)
            })
            .collect()
    }
}

/// How often trajectories are drawn after a first pass of so many steps: without a network, with networks, with shares, and with what was
/// chosen.
fn n_compared(n_steps: usize) -> usize {
    let growth = n_steps as f64 / FIRST_VALIDATION_STEP as f64;
    let n_networks = 2.0 + (libm::log(growth.max(1.0)) / libm::log(CANDIDATE_GROWTH));
    2 + n_networks as usize + PARTIAL_SHARES.len()
}

enum Continue {
    Same,
    Until(usize),
    Stop,
}
