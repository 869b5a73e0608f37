//! Training: AdamW on random windows of the earlier rows, watched on the last ones.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};

use super::cell::{Network, Sizes, TokenRows};
use super::{Config, Fitted, Levels, Model, N_LEVELS, Past, Report, host, lags_of};
use crate::noise::Stream;
use crate::scaling::{Scaling, ScalingKind, fill_from_past};
use crate::{Budget, Calendar, Error, History, LossWeight, Progress};

const LEARNING_RATE: f64 = 3e-4;
const WARM_UP_STEPS: usize = 2000;
const WEIGHT_DECAY: f32 = 1e-3;
const EPSILON: f32 = 1e-8;
const GRADIENT_NORM_MAX: f64 = 10.0;
const N_STEPS_MAX: usize = 200_000;
/// Steps between two looks at the validation windows.
const EPOCH_STEPS: usize = 100;
/// Epochs without a lower validation loss after which training ends.
const PATIENCE: usize = 6;
/// Share of the rows, at the end of the history, on which training is watched, in whole horizons; at most so many.
const VALIDATION_SHARE: f64 = 0.1;
const N_VALIDATION_WINDOWS_MAX: usize = 64;
/// Draws of level and noise for each token of a validation window.
const N_VALIDATION_DRAWS: usize = 8;

/// Streams of random numbers, one per purpose.
const STREAM_WEIGHTS: u32 = 0;
const STREAM_WINDOWS: u32 = 1;
const STREAM_VALIDATION: u32 = 2;

/// The history in standard units.
struct Data<'a> {
    /// Gaps `NaN`, `[time, series]`.
    standard: Vec<f64>,
    /// The same with gaps filled from the past.
    filled: Vec<f64>,
    calendar: &'a Calendar,
    lags: &'a [usize],
    n_series: usize,
}

/// What of a token's values is hidden under noise, and what the network should make of it.
#[derive(Default)]
struct Targets {
    velocity: Vec<f32>,
    /// 0 where the error does not count, else 1.
    counts: Vec<f32>,
}

impl Data<'_> {
    /// Appends the token of a row at a level. A gap does not count, and of a clean value there is nothing to learn.
    fn push(&self, row: usize, level: usize, levels: &Levels, stream: &mut Stream, rows: &mut TokenRows) -> Targets {
        let mut targets = Targets::default();
        for index in row * self.n_series..(row + 1) * self.n_series {
            let (value, noise) = (self.filled[index], stream.normal());
            rows.noisy.push(levels.mix(level, value, noise) as f32);
            targets.velocity.push(levels.velocity(level, value, noise) as f32);
            targets.counts.push(if level > 0 && !self.standard[index].is_nan() { 1.0 } else { 0.0 });
        }
        rows.levels.push(level);
        let past = Past { shared: &self.filled[..row * self.n_series], drawn: &[], n_series: self.n_series };
        past.push_covariates(self.lags, self.calendar.row(row), &mut rows.covariates);
        rows.shown.push(1.0);
        targets
    }
}

/// Noised windows with their targets.
struct Batch {
    rows: TokenRows,
    velocity: Vec<f32>,
    counts: Vec<f32>,
    /// Loss weight of each element.
    weights: Vec<f32>,
    size: usize,
}

/// The levels of a batch of windows, `[step, window]`: all independent, uniform over all levels with both ends.
fn draw_levels(n_steps: usize, n_windows: usize, levels: &Levels, stream: &mut Stream) -> Vec<usize> {
    (0..n_steps * n_windows).map(|_| stream.below(levels.noisiest() + 1)).collect()
}

impl Batch {
    /// Noises the windows that begin at `starts`.
    fn new(
        data: &Data<'_>,
        starts: &[usize],
        n_steps: usize,
        levels: &Levels,
        weight: LossWeight,
        stream: &mut Stream,
    ) -> Self {
        let size = starts.len();
        let drawn = draw_levels(n_steps, size, levels, stream);
        let of_windows: Vec<Vec<f64>> = (0..size)
            .map(|window| weight.of_window((0..n_steps).map(|step| levels.snr(drawn[step * size + window]))))
            .collect();
        let mut batch = Self { rows: TokenRows::default(), velocity: vec![], counts: vec![], weights: vec![], size };
        for step in 0..n_steps {
            for (window, start) in starts.iter().enumerate() {
                let targets = data.push(start + step, drawn[step * size + window], levels, stream, &mut batch.rows);
                batch.velocity.extend(targets.velocity);
                batch.counts.extend(targets.counts);
                batch.weights.extend(std::iter::repeat_n(of_windows[window][step] as f32, data.n_series));
            }
        }
        // The first token of a window has no covariates.
        batch.rows.shown[..size].fill(0.0);
        batch
    }

    /// The weighted loss, and the plain mean squared error of the velocity.
    fn loss(self, network: &Network, device: &Device) -> (Tensor<1>, Tensor<1>) {
        let n_counted = self.counts.iter().map(|&count| f64::from(count)).sum::<f64>().max(1.0);
        let shape = [self.rows.levels.len(), self.velocity.len() / self.rows.levels.len()];
        let latents = network.steps(network.start(self.size), &network.inputs_of(self.rows));
        let predicted = network.velocity(Tensor::cat(latents, 0));
        let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, shape), device);
        let error = (predicted - tensor(self.velocity)).square() * tensor(self.counts);
        let weighted = (error.clone() * tensor(self.weights)).sum() / n_counted;
        (weighted, error.sum() / n_counted)
    }
}

/// Windows after all training rows: each step is noised alone, with everything before it clean, as in a forecast.
struct Validation {
    /// First row of each window, one context before the rows that count.
    starts: Vec<usize>,
    horizon: usize,
}

impl Validation {
    /// Mean squared error of the velocity, with the same levels and noise at every call.
    fn loss(
        &self,
        data: &Data<'_>,
        network: &Network,
        levels: &Levels,
        seed: u64,
        device: &Device,
    ) -> Result<f64, Error> {
        let mut stream = Stream::new(seed, STREAM_VALIDATION);
        let size = self.starts.len();
        // The last step of a window is noised, but nothing comes after it.
        let mut clean = TokenRows::default();
        for step in 0..2 * self.horizon - 1 {
            for start in &self.starts {
                data.push(start + step, 0, levels, &mut stream, &mut clean);
            }
        }
        clean.shown[..size].fill(0.0);
        let beliefs = network.steps(network.start(size), &network.inputs_of(clean));
        let before = Tensor::cat(beliefs[self.horizon - 1..].to_vec(), 0);
        let (mut error, mut n_counted) = (0.0, 0.0);
        for _ in 0..N_VALIDATION_DRAWS {
            let (mut rows, mut all) = (TokenRows::default(), Targets::default());
            let drawn = draw_levels(self.horizon, size, levels, &mut stream);
            for step in 0..self.horizon {
                for (window, start) in self.starts.iter().enumerate() {
                    let (row, level) = (start + self.horizon + step, drawn[step * size + window]);
                    let targets = data.push(row, level, levels, &mut stream, &mut rows);
                    all.velocity.extend(targets.velocity);
                    all.counts.extend(targets.counts);
                }
            }
            let shape = [self.horizon * size, data.n_series];
            let latents = network.step(before.clone(), network.inputs_of(rows));
            n_counted += all.counts.iter().map(|&count| f64::from(count)).sum::<f64>();
            let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, shape), device);
            let difference = (network.velocity(latents) - tensor(all.velocity)) * tensor(all.counts);
            error += f64::from(host(difference.square().sum())?[0]);
        }
        Ok(error / f64::max(n_counted, 1.0))
    }
}

/// Trains the paper's network on a history.
///
/// The last tenth of the rows is not trained on; the network with the lowest loss on it is kept, and the scaling does not
/// know it either. `progress` is told after every step and may stop training.
///
/// # Errors
/// - [`Error::TooShort`] when the history has too few steps for the horizon
/// - [`Error::NothingObserved`] when no value is observed
/// - [`Error::SeriesCount`], [`Error::CalendarLength`] when the parts of the history disagree
/// - [`Error::Zero`], [`Error::Share`] when a number of the configuration is out of range
/// - [`Error::Stopped`] when training was stopped before the network had learned anything
pub fn fit(
    history: &History,
    config: &Config,
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    let started = Instant::now();
    check(history, config)?;
    let (n_steps, n_series, horizon) = (history.values.n_steps(), history.values.n_series(), config.horizon);
    let mut lags = config.lags.clone().unwrap_or_else(|| lags_of(&history.seasons));
    if config.lags.is_none() {
        // A lag longer than a quarter of the history would leave too few windows.
        lags.retain(|&lag| lag <= (n_steps / 4).max(1));
    }
    let longest = lags.iter().copied().max().unwrap_or(0);
    let n_windows = ((n_steps as f64 * VALIDATION_SHARE) as usize / horizon).clamp(1, N_VALIDATION_WINDOWS_MAX);
    let needed = longest + 2 * horizon + n_windows * horizon;
    if n_steps < needed {
        return Err(Error::TooShort { n_steps, horizon, needed });
    }
    let n_train = n_steps - n_windows * horizon;
    let scaling = Scaling::fit(ScalingKind::Linear, &history.values.rows(0..n_train));
    let season = history.seasons.first().copied();
    let standard = scaling.standardise_grid(&history.values);
    let filled = fill_from_past(&standard, n_series, season);
    let data = Data { standard, filled, calendar: &history.calendar, lags: &lags, n_series };
    let levels = Levels::cosine(N_LEVELS);
    let starts = longest..n_train - 2 * horizon + 1;
    let validation =
        Validation { starts: (0..n_windows).map(|window| n_train + window * horizon - horizon).collect(), horizon };
    let sizes = Sizes {
        n_series,
        n_covariates: lags.len() * n_series + history.calendar.n_features(),
        n_cells: config.n_cells,
        d_cell: config.d_cell,
        d_embedding: config.d_embedding,
    };

    let training_device = device.clone().autodiff();
    let mut network = Network::new(&sizes, &mut Stream::new(config.seed, STREAM_WEIGHTS), &training_device);
    let look = |network: &Network| validation.loss(&data, network, &levels, config.seed, device);
    let mut best = network.valid();
    let validation_loss_start = look(&best)?;
    let (mut best_step, mut best_loss, mut latest) = (0, validation_loss_start, validation_loss_start);
    let mut optimiser = AdamWConfig::new().with_weight_decay(WEIGHT_DECAY).with_epsilon(EPSILON).init();
    let mut stream = Stream::new(config.seed, STREAM_WINDOWS);
    let (mut step, mut smoothed, mut is_stopped) = (0, 0.0, false);
    let begun = Instant::now();
    let mut is_over = config.budget == Budget::Steps(0);
    while !is_over {
        let windows: Vec<usize> = (0..config.batch_size).map(|_| starts.start + stream.below(starts.len())).collect();
        let batch = Batch::new(&data, &windows, 2 * horizon, &levels, config.loss_weight, &mut stream);
        let (loss, error) = batch.loss(&network, &training_device);
        let gradients = clipped(GradientsParams::from_grads(loss.backward(), &network), &network)?;
        let warm_up = ((step + 1) as f64 / WARM_UP_STEPS as f64).min(1.0);
        network = optimiser.step(LEARNING_RATE * warm_up, network, gradients);
        step += 1;
        smoothed += (f64::from(host(error)?[0]) - smoothed) / f64::min(step as f64, 20.0);
        let steps_per_second = step as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let limit = match config.budget {
            Budget::Steps(limit) => limit,
            Budget::Seconds(seconds) => {
                let left = seconds - started.elapsed().as_secs_f64();
                step + (left * steps_per_second).max(0.0) as usize
            }
        };
        let limit = limit.min(N_STEPS_MAX);
        let state = Progress {
            stage: "train",
            step,
            n_steps: limit,
            loss: smoothed,
            validation_loss: Some(latest),
            steps_per_second,
            seconds_left: limit.saturating_sub(step) as f64 / steps_per_second,
        };
        is_stopped = progress(&state).is_break();
        is_over = is_stopped || step >= limit;
        if is_over || step.is_multiple_of(EPOCH_STEPS) {
            let valid = network.valid();
            latest = look(&valid)?;
            if latest < best_loss {
                (best_step, best_loss, best) = (step, latest, valid);
            }
            is_over |= step - best_step >= PATIENCE * EPOCH_STEPS;
        }
    }
    if is_stopped && best_step == 0 {
        return Err(Error::Stopped);
    }
    let report = Report {
        lags: lags.clone(),
        n_steps: step,
        best_step,
        validation_loss_start,
        validation_loss: best_loss,
        n_parameters: best.num_params(),
        steps_per_second: step as f64 / begun.elapsed().as_secs_f64().max(1e-9),
        seconds: started.elapsed().as_secs_f64(),
    };
    let n_calendar = history.calendar.n_features();
    let model = Model { horizon, lags, season, n_calendar, scaling, levels, network: best };
    Ok(Fitted { model, report })
}

fn check(history: &History, config: &Config) -> Result<(), Error> {
    history.check()?;
    let positive = [
        ("horizon", config.horizon),
        ("batch_size", config.batch_size),
        ("n_cells", config.n_cells),
        ("d_cell", config.d_cell),
        ("d_embedding", config.d_embedding),
        ("a lag", config.lags.iter().flatten().copied().min().unwrap_or(1)),
    ];
    if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
        return Err(Error::Zero { name });
    }
    config.loss_weight.check()
}

/// Scales all gradients together so that their joint norm is at most 10. The optimiser's own clipping takes each
/// parameter for itself.
fn clipped(mut gradients: GradientsParams, network: &Network) -> Result<GradientsParams, Error> {
    let mut norm = SquaredNorm { gradients: &gradients, squares: vec![] };
    network.visit(&mut norm);
    let squared = host(Tensor::cat(norm.squares, 0).sum())?[0];
    let norm = f64::from(squared).sqrt();
    if norm > GRADIENT_NORM_MAX {
        network.visit(&mut Scale { gradients: &mut gradients, factor: GRADIENT_NORM_MAX / norm });
    }
    Ok(gradients)
}

struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.squares.extend(self.gradients.get::<D>(param.id).map(|gradient| gradient.square().sum()));
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_uniform_with_both_ends_and_independent_between_neighbours() {
        let (levels, mut stream) = (Levels::cosine(9), Stream::new(1, 0));
        let (n_steps, n_windows) = (200, 100);
        let drawn = draw_levels(n_steps, n_windows, &levels, &mut stream);
        // Ten levels, 0 to 9: a chi-square test with nine degrees of freedom, 0.1 % point.
        let expected = drawn.len() as f64 / 10.0;
        let chi_square: f64 = (0..10)
            .map(|level| drawn.iter().filter(|&&other| other == level).count() as f64)
            .map(|count| (count - expected).powi(2) / expected)
            .sum();
        assert!(chi_square < 27.9, "chi-square {chi_square}");
        let product = |a: usize, b: usize| (a as f64 - 4.5) * (b as f64 - 4.5) / 8.25;
        let in_time: Vec<f64> =
            (n_windows..drawn.len()).map(|index| product(drawn[index], drawn[index - n_windows])).collect();
        let across: Vec<f64> = drawn.windows(2).map(|pair| product(pair[0], pair[1])).collect();
        for pairs in [in_time, across] {
            let correlation = pairs.iter().sum::<f64>() / pairs.len() as f64;
            assert!(correlation.abs() < 0.03, "correlation {correlation}");
        }
    }

    #[test]
    fn a_gap_and_a_clean_value_do_not_count() {
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let standard = vec![0.5, f64::NAN];
        let data = Data { filled: vec![0.5, 0.0], standard, calendar: &calendar, lags: &[1], n_series: 2 };
        let counts = |level| {
            let mut rows = TokenRows::default();
            data.push(0, level, &Levels::cosine(N_LEVELS), &mut Stream::new(1, 0), &mut rows).counts
        };
        assert_eq!(counts(500), [1.0, 0.0]);
        assert_eq!(counts(0), [0.0, 0.0]);
    }

    #[test]
    fn large_gradients_are_scaled_together_and_small_ones_are_left() {
        let device = crate::cpu().autodiff();
        let sizes = Sizes { n_series: 1, n_covariates: 1, n_cells: 1, d_cell: 4, d_embedding: 4 };
        let network = Network::new(&sizes, &mut Stream::new(1, 0), &device);
        let norm_after = |factor: f64| {
            let rows = TokenRows { noisy: vec![1.0], levels: vec![500], covariates: vec![1.0], shown: vec![1.0] };
            let latent = network.step(network.start(1), network.inputs_of(rows));
            let loss = network.velocity(latent).square().sum() * factor;
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let clipped = clipped(gradients, &network).expect("finite");
            let mut norm = SquaredNorm { gradients: &clipped, squares: vec![] };
            network.visit(&mut norm);
            f64::from(host(Tensor::cat(norm.squares, 0).sum()).expect("a number")[0]).sqrt()
        };
        assert!((norm_after(1e6) - 10.0).abs() < 1e-3, "{}", norm_after(1e6));
        assert!((norm_after(2e-3) / norm_after(1e-3) - 2.0).abs() < 1e-3);
    }
}
