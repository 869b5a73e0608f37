//! How fast the default model trains and forecasts, beside the matrix products that it cannot do without.

use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;

use crate::conditioning::{Conditioning, TokenLayout};
use crate::denoiser::Denoiser;
use crate::diffusion::{Example, NoisedBatch, Purpose};
use crate::linear::LinearPlan;
use crate::network::{layout, network};
use crate::noise::Stream;
use crate::products::{Prepared, Product, multiply_adds, sampling, training_step};
use crate::role::Roles;
use crate::sampler::{Draw, Sampler};
use crate::scaling::ScalingKind;
use crate::stage::Data;
use crate::windows::TrainingWindows;
use crate::{Bounds, Budget, Calendar, Error, Grid, History, SampleConfig, TrainConfig};

/// Numbers of series that are measured: a small panel, and a large one, on which a token has one step.
pub const N_SERIES: [usize; 2] = [8, 370];
const HORIZON: usize = 24;
const N_SAMPLES: usize = 100;
/// Features of an hourly calendar: day, week and year.
const N_CALENDAR: usize = 6;
/// Rows of the history: enough for the default width of the network.
const N_ROWS: usize = 2200;
/// Optimiser steps, and forecasts, of which the fastest counts: other work on the machine only makes them slower.
const N_TRAINING_STEPS: usize = 31;
const N_FORECASTS: usize = 15;

/// A rate of ours beside the one that the matrix products alone would have.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// `sampling` or `training`, and the number of series.
    pub name: String,
    /// Ours.
    pub value: f64,
    /// Unit of both rates.
    pub unit: &'static str,
    /// What would be reached if nothing but the products took time.
    pub reference_value: f64,
    /// Multiply-adds of the products, for one unit of work.
    pub multiply_adds: f64,
}

impl Measurement {
    /// What the reference is.
    pub const REFERENCE: &'static str = "the same matrix products alone";

    /// Share of the time that goes into matrix products, if these run as fast in the model as alone.
    pub fn ratio(&self) -> f64 {
        self.value / self.reference_value
    }

    /// From the seconds that `work` units took, ours and of the products alone.
    fn new(name: String, unit: &'static str, work: f64, products: &[Product], seconds: &[(f64, f64)]) -> Self {
        let best = |of: fn(&(f64, f64)) -> f64| seconds.iter().map(of).fold(f64::INFINITY, f64::min);
        let multiply_adds = multiply_adds(products) as f64 / work;
        let (value, reference_value) = (work / best(|both| both.0), work / best(|both| both.1));
        Self { name, value, unit, reference_value, multiply_adds }
    }
}

/// Measures training and sampling of the default network, with random weights, on the tokens of a made-up hourly panel.
///
/// A training step is noising a batch, the loss, its gradients and the optimiser; a forecast is the denoising of all samples.
/// What comes before and after, in f64 on the processor, is not measured: base, covariance and scaling. Our work and the
/// products alternate, so that both meet the same machine.
///
/// # Errors
/// [`Error::Device`] when the device fails.
pub fn model(n_series: usize, device: &Device) -> Result<[Measurement; 2], Error> {
    let config = TrainConfig::new(HORIZON, Budget::Steps(1), 1);
    let history = history(n_series)?;
    let layout = layout(&history, &config);
    let network = network(&layout, history.values.n_steps(), &config);
    let mut stream = Stream::new(1, 0);

    let denoiser = Denoiser::new(&network, &mut stream, device);
    let sample = SampleConfig { n_samples: N_SAMPLES, ..SampleConfig::default() };
    let draw = Draw { first_sample: 0, n_samples: N_SAMPLES, first_step: 0, n_tokens: layout.n_horizon_tokens };
    let sampler = Sampler { denoiser: &denoiser, velocity_share: 1.0, layout: &layout, device };
    let view = [example(&layout, &mut stream).conditioning];
    let products = sampling(&network, &layout, N_SAMPLES, sample.passes);
    let prepared = Prepared::new(&products, device);
    let mut times = vec![];
    for _ in 0..N_FORECASTS {
        let ours = seconds_of(|| sampler.draw(&view, draw, &sample, None))?;
        times.push((ours, seconds_of(|| prepared.multiply())?));
    }
    let name = format!("sampling, {n_series} series");
    let sampling = Measurement::new(name, "trajectories/s", N_SAMPLES as f64, &products, &times);

    let products = training_step(&network, &layout, config.network.batch_size);
    let prepared = Prepared::new(&products, device);
    let device = device.clone().autodiff();
    let examples: Vec<Example> = (0..config.network.batch_size).map(|_| example(&layout, &mut stream)).collect();
    let mut denoiser = Denoiser::new(&network, &mut stream, &device);
    let mut optimiser = AdamWConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(1.0))).init();
    let mut times = vec![];
    for _ in 0..N_TRAINING_STEPS {
        let started = Instant::now();
        let influences = vec![1.0; layout.horizon() * layout.n_series];
        let batch = NoisedBatch::new(
            &layout,
            &examples,
            &influences,
            Purpose::Training(config.network.levels, config.network.loss_weight),
            &mut stream,
            &device,
        );
        let gradients = GradientsParams::from_grads(batch.loss(&denoiser).backward(), &denoiser);
        denoiser = optimiser.step(1e-3, denoiser, gradients);
        device.sync().map_err(|error| Error::Device { problem: error.to_string() })?;
        times.push((started.elapsed().as_secs_f64(), seconds_of(|| prepared.multiply())?));
    }
    let training = Measurement::new(format!("training, {n_series} series"), "steps/s", 1.0, &products, &times);
    Ok([sampling, training])
}

/// How fast training gets its batches, beside how fast it uses them up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batches {
    /// Seconds to make ready what windows are cut from: values in standard units and the paths of the base's errors.
    pub prepare_seconds: f64,
    /// Batches that are cut, noised and brought to the device in a second.
    pub made_per_second: f64,
    /// Batches that training steps use up in a second.
    pub used_per_second: f64,
}

/// Measures batches of random training windows of a history, and the training steps of the default network on them. The base is
/// linear: trees change nothing of what a batch is.
///
/// Both alternate, so that both meet the same machine; of each the fastest counts.
///
/// # Errors
/// Those of [`crate::fit`].
pub fn batches(history: &History, device: &Device) -> Result<Batches, Error> {
    let config = TrainConfig::new(HORIZON, Budget::Steps(1), 1);
    let layout = layout(history, &config);
    let network = network(&layout, history.values.n_steps(), &config);
    let started = Instant::now();
    let roles = Roles::new(&history.roles, history.values.n_series())?;
    let plan = LinearPlan::new(&history.seasons, config.horizon, history.values.n_steps())?;
    let data = Data::new(history, &roles, ScalingKind::Linear, &history.values, layout);
    let fitter = data.linear_fitter(&plan);
    let folds: Vec<usize> = (0..plan.folds.n_folds()).collect();
    let measured = data.measure(fitter.cross_fit(&fitter.choose(&history.seasons), &folds), folds);
    let law = data.choose_law(&measured)?;
    let stage = data.stage(measured, law)?;
    let prepare_seconds = started.elapsed().as_secs_f64();

    let device = device.clone().autodiff();
    let mut stream = Stream::new(1, 0);
    let windows = TrainingWindows::new(&data, &stage, &[], &config.network);
    let mut denoiser = Denoiser::new(&network, &mut stream, &device);
    let mut optimiser = AdamWConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(1.0))).init();
    let mut times = vec![];
    for _ in 0..N_TRAINING_STEPS {
        let started = Instant::now();
        let batch = windows.draw(&mut stream, &device);
        device.sync().map_err(|error| Error::Device { problem: error.to_string() })?;
        let made = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let gradients = GradientsParams::from_grads(batch.loss(&denoiser).backward(), &denoiser);
        denoiser = optimiser.step(1e-3, denoiser, gradients);
        device.sync().map_err(|error| Error::Device { problem: error.to_string() })?;
        times.push((made, started.elapsed().as_secs_f64()));
    }
    let best = |of: fn(&(f64, f64)) -> f64| times.iter().map(of).fold(f64::INFINITY, f64::min);
    let (made, used) = (best(|times| times.0), best(|times| times.1));
    Ok(Batches { prepare_seconds, made_per_second: 1.0 / made, used_per_second: 1.0 / used })
}

fn seconds_of<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<f64, Error> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

/// What the default layout depends on: the size of the panel, its calendar and its seasons.
fn history(n_series: usize) -> Result<History, Error> {
    Ok(History {
        values: Grid::new(n_series, vec![0.0; N_ROWS * n_series])?,
        calendar: Calendar::new(N_CALENDAR, vec![0.0; N_ROWS * N_CALENDAR])?,
        seasons: vec![24, 168],
        roles: vec![],
        bounds: vec![Bounds::default(); n_series],
    })
}

/// A window of white noise.
fn example(layout: &TokenLayout, stream: &mut Stream) -> Example {
    let mut noise = |n: usize| -> Vec<f32> { (0..n).map(|_| stream.normal() as f32).collect() };
    let (n_context, n_horizon) = (layout.context_length() * layout.n_series, layout.horizon() * layout.n_series);
    let conditioning = Conditioning {
        context: noise(n_context),
        context_levels: vec![],
        context_standard: noise(n_context),
        context_expected: noise(n_context),
        horizon_standard: noise(n_horizon),
        calendar: noise((layout.n_context_tokens + layout.n_horizon_tokens) * layout.n_calendar),
    };
    Example { conditioning, innovations: noise(n_horizon) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_work_by_the_shortest_time() {
        let product = Product { n: 2, batch: 3, rows: 4, inner: 5, columns: 6, of_data: false };
        let seconds = [(9.0, 1.5), (2.0, 1.0), (3.0, 7.0)];
        let measured = Measurement::new("sampling".into(), "trajectories/s", 10.0, &[product], &seconds);
        assert_eq!((measured.value, measured.reference_value, measured.ratio()), (5.0, 10.0, 0.5));
        assert_eq!(measured.multiply_adds, 72.0);
    }

    #[test]
    fn batches_of_a_history_are_measured() {
        let empty = history(2).expect("a history");
        let mut stream = Stream::new(1, 0);
        let noise = (0..N_ROWS * 2).map(|_| f64::from(stream.normal() as f32)).collect();
        let noisy = History { values: Grid::new(2, noise).expect("whole rows"), ..empty };
        let measured = batches(&noisy, &crate::cpu()).expect("a device");
        assert!(measured.made_per_second > measured.used_per_second && measured.used_per_second > 0.0, "{measured:?}");
        assert!(measured.prepare_seconds > 0.0);
    }

    #[test]
    fn rates_of_a_small_panel_are_positive() {
        for measured in model(1, &crate::cpu()).expect("a device") {
            assert!(measured.value > 0.0 && measured.value.is_finite(), "{measured:?}");
            assert!(measured.reference_value > 0.0 && measured.ratio().is_finite(), "{measured:?}");
        }
    }
}
