//! The optimiser's loop: once to find how long to learn, once to learn.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;

use crate::Error;
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::diffusion::{Example, FitSums, NoisedBatch, Purpose};
use crate::noise::Stream;
use crate::sampler::Sampler;
use crate::stage::{Data, Stage};
use crate::train::{Budget, Progress, SampledLoss, TrainConfig};

const LEARNING_RATE: f64 = 2e-3;
const WARM_UP_STEPS: usize = 20;
const WEIGHT_DECAY: f32 = 0.01;
const GRADIENT_NORM_MAX: f32 = 1.0;
const N_STEPS_MAX: usize = 2000;
/// The validation windows are looked at after this many steps, and again whenever the steps have grown by a fifth.
const FIRST_VALIDATION_STEP: usize = 10;
const VALIDATION_GROWTH: f64 = 1.2;
/// Selection ends early when no more than this share of the velocity is of use: the network learns by heart.
const SHARE_MIN: f64 = 0.2;
const N_VALIDATION_WINDOWS: usize = 192;
/// Draws of token, level and noise for each validation window.
const N_VALIDATION_DRAWS: usize = 4;
/// Share of the time for the first pass; the second takes no more steps than the first found best.
const SELECT_SHARE: f64 = 0.45;
/// Shares of the velocity that are compared by the trajectories that they give.
const VELOCITY_SHARES: [f64; 4] = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0];
const N_TIMED_STEPS: usize = 5;
/// Time of a step with its part of the looks at the validation windows, relative to the step alone.
const VALIDATION_OVERHEAD: f64 = 1.25;

/// How long to learn, and how much to believe.
pub struct Selection {
    /// Steps with the lowest validation loss.
    pub best_step: usize,
    /// Length of the schedule of the learning rate.
    pub n_steps: usize,
    /// Share of the predicted velocity whose trajectories score best; 0 leaves the joint law of the base's errors.
    pub velocity_share: f64,
    /// Losses on the last fold of trajectories that are sampled with shares of the velocity.
    pub sampled_losses: Vec<SampledLoss>,
    /// The lowest validation loss.
    pub best_loss: f64,
    /// Validation loss of the joint Gaussian.
    pub gaussian_loss: f64,
    /// The network with the lowest validation loss, which knows nothing of the last fold.
    pub denoiser: Denoiser,
    /// Whether training was stopped.
    pub is_stopped: bool,
}

/// Trains networks of one configuration.
pub struct Trainer<'a> {
    /// What is to be trained.
    pub config: &'a TrainConfig,
    /// Sizes of the network.
    pub network: &'a DenoiserConfig,
    /// Where it is trained.
    pub device: &'a Device,
    /// When the whole training began.
    pub started: Instant,
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
    fn run(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        n_steps: usize,
        after: &mut dyn FnMut(usize, f64, &Denoiser) -> Continue,
    ) -> Denoiser {
        let device = self.device.clone().autodiff();
        let mut stream = Stream::new(self.config.seed, STREAM_WINDOWS);
        let mut denoiser = Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), &device);
        let clipping = GradientClippingConfig::Norm(GRADIENT_NORM_MAX);
        let mut optimiser =
            AdamWConfig::new().with_weight_decay(WEIGHT_DECAY).with_grad_clipping(Some(clipping)).init();
        let paths = stage.training_paths();
        let influences = stage.innovation.influences();
        let purpose = Purpose::Training(self.config.network.levels);
        let mut n_steps = n_steps;
        let mut step = 0;
        while step < n_steps {
            let examples: Vec<Example> = (0..self.config.network.batch_size)
                .map(|_| data.example(stage, paths[stage.draw_path(paths.len(), &mut stream)]))
                .collect();
            let batch = NoisedBatch::new(&data.layout, &examples, &influences, purpose, &mut stream, &device);
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
    ///
    /// # Errors
    /// [`Error::Stopped`] when training was stopped before anything was learned.
    pub fn select(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Selection, Error> {
        let validation = self.validation_batches(data, stage);
        let validate = |denoiser: &Denoiser| {
            let denoiser = denoiser.valid();
            let sums = validation.iter().map(|batch| batch.fit_sums(&denoiser)).fold(FitSums::default(), FitSums::plus);
            let share = sums.best_share();
            (sums.loss(share), share)
        };
        let untrained = Denoiser::new(self.network, &mut Stream::new(self.config.seed, STREAM_WEIGHTS), self.device);
        let (gaussian_loss, _) = validate(&untrained);
        let mut best = untrained;
        let (mut best_step, mut best_loss, mut velocity_share) = (0, gaussian_loss, 0.0);
        let mut n_steps = match self.config.budget {
            Budget::Steps(n) => n,
            Budget::Seconds(_) => N_STEPS_MAX,
        };
        let (begun, mut smoothed, mut stopped) = (Instant::now(), 1.0, false);
        let (mut latest, mut next_look) = (None, FIRST_VALIDATION_STEP);
        self.run(data, stage, n_steps, &mut |step, loss, denoiser| {
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
                let (loss, share) = validate(denoiser);
                latest = Some(loss);
                if loss < best_loss {
                    (best_step, best_loss, velocity_share) = (step, loss, share);
                    best = denoiser.valid();
                } else if share < SHARE_MIN && step > n_steps / 3 {
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
        let mut sampled_losses = vec![];
        if best_step > 0 && !stopped {
            sampled_losses = self.sampled_losses(data, stage, &best)?;
            let lowest = sampled_losses.iter().min_by(|a, b| a.loss.total_cmp(&b.loss));
            velocity_share = lowest.map_or(0.0, |lowest| lowest.velocity_share);
        }
        if velocity_share == 0.0 {
            best_step = 0;
        }
        Ok(Selection {
            best_step,
            n_steps,
            velocity_share,
            sampled_losses,
            best_loss,
            gaussian_loss,
            denoiser: best,
            is_stopped: stopped,
        })
    }

    /// The losses on the last fold of trajectories that are sampled with each share of the velocity.
    fn sampled_losses(&self, data: &Data<'_>, stage: &Stage, denoiser: &Denoiser) -> Result<Vec<SampledLoss>, Error> {
        let loss = |velocity_share: f64| {
            let sampler = Sampler { denoiser, velocity_share, layout: &data.layout, device: self.device };
            Ok(SampledLoss { velocity_share, loss: data.loss_of_sampler(stage, &sampler)? })
        };
        VELOCITY_SHARES.into_iter().map(loss).collect()
    }

    /// Trains on everything for the chosen number of steps of the same schedule.
    ///
    /// Where training is stopped or out of time before that, the network of the selection is kept: it has seen less, but
    /// it is finished.
    pub fn train(
        &self,
        data: &Data<'_>,
        stage: &Stage,
        selection: Selection,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Denoiser {
        let Selection { best_step, n_steps, .. } = selection;
        if best_step == 0 || selection.is_stopped {
            return selection.denoiser;
        }
        let (begun, mut smoothed, mut is_finished) = (Instant::now(), 1.0, false);
        let trained = self.run(data, stage, n_steps, &mut |step, loss, _| {
            smoothed += (loss - smoothed) / f64::min(step as f64, 20.0);
            is_finished = step == best_step;
            let is_over =
                matches!(self.config.budget, Budget::Seconds(seconds) if self.started.elapsed().as_secs_f64() > seconds);
            let state = self.state("train", step, best_step, smoothed, None, begun);
            let is_stopped = progress(&state).is_break();
            if is_finished || is_over || is_stopped { Continue::Stop } else { Continue::Same }
        });
        if is_finished { trained } else { selection.denoiser }
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

    /// Fixed windows of the last fold with fixed levels and noise, so that losses can be compared.
    fn validation_batches(&self, data: &Data<'_>, stage: &Stage) -> Vec<NoisedBatch> {
        let paths = stage.validation_paths();
        let influences = stage.innovation.influences();
        let stride = paths.len().div_ceil(N_VALIDATION_WINDOWS).max(1);
        let examples: Vec<Example> = paths.iter().step_by(stride).map(|&path| data.example(stage, path)).collect();
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

enum Continue {
    Same,
    Until(usize),
    Stop,
}
