//! How surprising observed values are to a model: scores for anomalies.
//!
//! Rows are scored teacher forced: each one given what was truly observed before it. Three scores of an element, from
//! simple to complete:
//!
//! - its one-step *error* under base forecaster and innovations, in standard deviations;
//! - the *denoising error*: how badly the network tells the velocity of the element, which was noised at a few fixed levels;
//! - a bound on its *log-likelihood*: that of the joint Gaussian, exactly, and what the network adds.
//!
//! What the network adds is the difference of two evidence bounds of continuous-time diffusion (Kingma et al., "Variational
//! diffusion models", NeurIPS 2021, eq. 17; per token with a clean past it is Chen et al. 2024, theorem 3.1), that of the
//! network less that of white noise. With `x₀ − x̂₀ = −sin φ (v − v̂)` and `SNR = cot² φ` it becomes
//!
//! ```text
//! log p(x₀) ≥ log N(x₀; 0, I) + ∫ E[ |v|² − |v − v̂|² ] d log sin φ
//! ```
//!
//! White noise meets its own bound, so an untrained network, `v̂ = 0`, gives exactly the Gaussian log-likelihood. Below the
//! noise share [`NOISE_SHARE_MIN`] the network is not asked, which is a bound of its own right: there the density is taken to
//! be that of white noise. Integral and expectation are averages over fixed levels and fixed noise, so the result is repeatable
//! but carries their error.

use std::ops::Range;

use nalgebra::DMatrix;

use crate::conditioning::{Conditioning, INNOVATION_MAX, OneStep};
use crate::correlation::{Correlation, N_ELEMENTS_DENSE_MAX, Open};
use crate::denoiser::Tokens;
use crate::diffusion::TokenRows;
use crate::innovation::Innovation;
use crate::level::NoiseLevel;
use crate::noise::Noise;
use crate::outlook::Outlook;
use crate::scaling::fill_from_past;
use crate::{Error, History, Model};

/// Errors are reported up to this many standard deviations: a series that never varied may suddenly do.
pub const ERROR_MAX: f64 = 1e4;
/// Smallest noise share `sin φ` at which the network is asked.
pub const NOISE_SHARE_MIN: f64 = 0.05;
/// Differences below this share of the values themselves come from arithmetic.
const ROUNDING: f64 = 1e-9;
/// Windows that go through the network together: bounds memory whatever the number of rows.
const N_WINDOWS_TOGETHER: usize = 128;

/// How the network's part is measured. The cost is `n_levels * n_draws` passes of each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurpriseConfig {
    /// Noise levels, evenly spaced in `log sin φ`.
    pub n_levels: usize,
    /// Draws of noise at each level, in antithetic pairs.
    pub n_draws: usize,
    /// Seed of the noise.
    pub seed: u64,
}

impl Default for SurpriseConfig {
    fn default() -> Self {
        Self { n_levels: 8, n_draws: 4, seed: 0 }
    }
}

/// The surprise of one observed element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ElementSurprise {
    /// The median that base and innovations expected from the rows before, data units.
    pub expected: f64,
    /// Observed less expected, in standard deviations of what the rows before leave open; within ± [`ERROR_MAX`].
    pub error: f64,
    /// The same given also the earlier series of the same row: uncorrelated with all others under the joint Gaussian.
    pub innovation: f64,
    /// Mean squared error of the velocity; 1 is what white noise has on average.
    pub denoising_error: f64,
    /// Part of the log-likelihood of the joint Gaussian, nats per data unit.
    pub gaussian_log_likelihood: f64,
    /// What the network adds to that, nats.
    pub network_gain: f64,
}

impl ElementSurprise {
    /// Part of the bound on the log-likelihood, given the rows before and the earlier series of the row; nats per data unit.
    pub fn log_likelihood(&self) -> f64 {
        self.gaussian_log_likelihood + self.network_gain
    }

    /// Surprise of the element for itself, nats: `error² / 2`, less what the network adds. It does not depend on the unit
    /// of the series, and, but for the network, not on the order of the series.
    pub fn score(&self) -> f64 {
        0.5 * self.error * self.error - self.network_gain
    }

    /// Part of the surprise of a whole row, nats: `innovation² / 2`, less what the network adds.
    pub fn joint_score(&self) -> f64 {
        0.5 * self.innovation * self.innovation - self.network_gain
    }
}

/// The surprise of a token: sums over its observed elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSurprise {
    /// Elements that were observed.
    pub n_observed: usize,
    /// Mean of the denoising errors; 0 where nothing was observed.
    pub denoising_error: f64,
    /// Bound on the log-likelihood of the token given everything before it, nats.
    pub log_likelihood: f64,
    /// Sum of the joint scores, nats.
    pub score: f64,
}

/// The surprise of consecutive rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Surprise {
    n_series: usize,
    patch: usize,
    elements: Vec<Option<ElementSurprise>>,
}

impl Surprise {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.elements.len() / self.n_series
    }

    /// All series of a row, counted from the first one that was scored; `None` for a gap.
    pub fn row(&self, row: usize) -> &[Option<ElementSurprise>] {
        &self.elements[row * self.n_series..][..self.n_series]
    }

    /// The tokens that the rows were scored in, in order; the last one may reach beyond the rows.
    pub fn tokens(&self) -> Vec<TokenSurprise> {
        self.elements.chunks(self.patch * self.n_series).map(TokenSurprise::of).collect()
    }

    /// Bound on the log-likelihood of all observed elements given the rows before the first, nats.
    pub fn log_likelihood(&self) -> f64 {
        self.elements.iter().flatten().map(ElementSurprise::log_likelihood).sum()
    }
}

impl TokenSurprise {
    /// Sums over some elements.
    pub(crate) fn of(elements: &[Option<ElementSurprise>]) -> Self {
        let observed = || elements.iter().flatten();
        let n_observed = observed().count();
        Self {
            n_observed,
            denoising_error: observed().map(|element| element.denoising_error).sum::<f64>() / n_observed.max(1) as f64,
            log_likelihood: observed().map(ElementSurprise::log_likelihood).sum(),
            score: observed().map(ElementSurprise::joint_score).sum(),
        }
    }
}

/// What the Gaussian law of the scores of a path says of an observed element, given the observed ones before it.
struct Conditional {
    element: usize,
    score: f64,
    /// Expected score given the earlier steps.
    mean: f64,
    /// Standard deviation of the score given the earlier steps.
    deviation: f64,
    innovation: f64,
    /// The element's part of the logarithm of the determinant.
    log_scale: f64,
}

/// Rows after one anchor: what the network is told, and the innovations that it is asked about.
struct ScoredWindow {
    anchor: usize,
    view: Conditioning,
    outlook: Outlook,
    /// Errors of the base relative to their spread, `NaN` for a gap and beyond the rows.
    errors: Vec<f64>,
    /// Innovations as in training, clipped as the network sees them.
    innovations: Vec<f64>,
}

impl Model {
    /// Scores rows of the modelled series of a history (targets and past covariates), each given what was observed before it
    /// and the known covariates.
    ///
    /// Every trained horizon a new window begins, anchored at the row before it. Values within a token are scored together:
    /// the score of a step may use the later steps of its token, and none after that. With a trained horizon below 12 a token
    /// is one step.
    ///
    /// The history need not begin before [`Model::context_length`] rows ahead of the range. Gaps are not scored and count for
    /// nothing; the Gaussian part is exact whatever is missing after the anchor, the network sees what training shows it in place of a gap. A
    /// value that the map to standard units cannot give back (a series that was constant in training, and is not any more) has
    /// the largest error. Where the map is flat, the log-likelihood has no derivative of the map in it.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarFeatures`], [`Error::CalendarLength`] when the history is not the model's
    /// - [`Error::RowRange`] when the range is empty, begins with row 0 or ends beyond the history
    /// - [`Error::Zero`] when levels or draws are 0
    /// - [`Error::Covariance`] when observed elements determine each other, [`Error::Device`]
    pub fn surprise(&self, history: &History, rows: Range<usize>, config: &SurpriseConfig) -> Result<Surprise, Error> {
        self.check_surprise(history, &rows, config)?;
        let history = &*self.modelled_history(history);
        let (n_series, horizon) = (self.n_series(), self.horizon());
        let calendar = history.calendar.extended(rows.end + horizon);
        let standard = self.standard(&history.values.rows(0..rows.end), &calendar);
        let filled = fill_from_past(&standard, n_series, self.seasons.first().copied());
        let input = self.input(&filled, &calendar);
        let context = rows.start.saturating_sub(self.layout.context_length())..rows.end;
        let one_step = OneStep::new(&standard, input, &self.innovation, context, |_| &self.base.linear);

        let mut elements = vec![None; rows.len() * n_series];
        let anchors: Vec<usize> = (rows.start - 1..rows.end - 1).step_by(horizon).collect();
        for anchors in anchors.chunks(N_WINDOWS_TOGETHER) {
            let windows: Vec<ScoredWindow> = anchors
                .iter()
                .map(|&anchor| {
                    let outlook = self.base.outlook(input, anchor);
                    let truth = standard[(anchor + 1) * n_series..].iter().copied().chain(std::iter::repeat(f64::NAN));
                    let relative = |(element, value)| outlook.relative(element, value);
                    let errors: Vec<f64> = truth.take(outlook.path.len()).enumerate().map(relative).collect();
                    let clipped = |z: f64| z.clamp(-INNOVATION_MAX, INNOVATION_MAX);
                    let innovations = self.innovation.whiten(&errors).into_iter().map(clipped).collect();
                    let view = Conditioning::new(&self.layout, &standard, &one_step, &calendar, anchor, &outlook.path);
                    ScoredWindow { anchor, view, outlook, errors, innovations }
                })
                .collect();
            let gains = self.velocity_gains(&windows, config)?;
            for (window, gains) in windows.iter().zip(gains) {
                for conditional in conditionals(&self.innovation, &window.errors, n_series)? {
                    let index = (window.anchor + 1 - rows.start) * n_series + conditional.element;
                    let gain = gains[conditional.element];
                    elements[index] = Some(self.element(history, window, &conditional, gain, config));
                }
            }
        }
        Ok(Surprise { n_series, patch: self.layout.patch, elements })
    }

    fn check_surprise(&self, history: &History, rows: &Range<usize>, config: &SurpriseConfig) -> Result<(), Error> {
        let (given, expected) = (history.values.n_series(), self.roles.all.len());
        if given != expected || history.bounds.len() != expected {
            return Err(Error::SeriesCount { given, expected });
        }
        let (given, expected) = (history.calendar.n_features(), self.layout.n_calendar);
        if given != expected {
            return Err(Error::CalendarFeatures { given, expected });
        }
        let n_steps = history.values.n_steps();
        if rows.is_empty() || rows.start == 0 || rows.end > n_steps {
            return Err(Error::RowRange { first: rows.start, end: rows.end, n_steps });
        }
        if let Some(given) = history.calendar.n_steps().filter(|&given| given < rows.end) {
            return Err(Error::CalendarLength { given, expected: rows.end });
        }
        for (name, value) in [("n_levels", config.n_levels), ("n_draws", config.n_draws)] {
            if value == 0 {
                return Err(Error::Zero { name });
            }
        }
        Ok(())
    }

    fn element(
        &self,
        history: &History,
        window: &ScoredWindow,
        conditional: &Conditional,
        velocity_gain: f64,
        config: &SurpriseConfig,
    ) -> ElementSurprise {
        let Conditional { element, score, mean, deviation, mut innovation, log_scale } = *conditional;
        let (step, series) = (window.anchor + 1 + element / self.n_series(), element % self.n_series());
        let value = history.values.get(step, series);
        let outlook = &window.outlook;
        let effect = self.effects(&history.calendar, step).map_or(0.0, |effects| effects[series]);
        let standard = |score: f64| effect + outlook.value(element, self.innovation.error(element, score));
        let mut error = (score - mean) / deviation;
        let (relative, usual) = (window.errors[element], self.innovation.deviation[element]);
        let error_given_back = self.innovation.shape.restore(series, score) * usual;
        let given_back = self.scaling.restore(series, effect + outlook.value(element, error_given_back));
        let largest_knot = self.scaling.values[series].iter().fold(0.0, |largest, knot| knot.abs().max(largest));
        let value = self.scaling.told(series, value);
        if (given_back - value).abs() > ROUNDING * (value.abs() + largest_knot) {
            error = ERROR_MAX.copysign(value - given_back);
            innovation = error;
        }
        let bounded = |error: f64| error.clamp(-ERROR_MAX, ERROR_MAX);
        let innovation = bounded(innovation);
        let log_density = -0.5 * (innovation * innovation + std::f64::consts::TAU.ln()) - log_scale;
        let log_derivative = self.scaling.log_derivative(series, value)
            - libm::log(outlook.slope(element, relative) * usual)
            + self.innovation.shape.log_derivative(series, relative / usual);
        let clipped = window.innovations[element];
        let white: f64 = levels(config.n_levels)
            .map(|level| level.signal().powi(2) + (level.noise() * clipped).powi(2))
            .sum::<f64>()
            / config.n_levels as f64;
        ElementSurprise {
            expected: self.restore(series, standard(mean), &history.bounds),
            error: bounded(error),
            innovation,
            denoising_error: white - velocity_gain,
            gaussian_log_likelihood: log_density + log_derivative,
            network_gain: -NOISE_SHARE_MIN.ln() * velocity_gain,
        }
    }

    /// For each element of each window, the mean of `v² − (v − v̂)²` over levels and noise.
    fn velocity_gains(&self, windows: &[ScoredWindow], config: &SurpriseConfig) -> Result<Vec<Vec<f64>>, Error> {
        let n_elements = self.layout.n_elements();
        let mut gains = vec![vec![0.0; n_elements * self.layout.n_horizon_tokens]; windows.len()];
        if self.velocity_share == 0.0 {
            return Ok(gains);
        }
        let sampler = self.sampler();
        let views: Vec<Conditioning> = windows.iter().map(|window| window.view.clone()).collect();
        let mut cache = sampler.encode_context(&views);
        let noise = Noise::new(config.seed);
        let n_passes = (config.n_levels * config.n_draws) as f64;
        let last_observed = windows.iter().filter_map(|window| window.errors.iter().rposition(|error| !error.is_nan()));
        let n_tokens = last_observed.max().map_or(0, |last| last / n_elements + 1);
        for token in 0..n_tokens {
            for (index, level) in levels(config.n_levels).enumerate() {
                for draw in 0..config.n_draws {
                    // Samples come in antithetic pairs: a level begins with the first of one.
                    let sample = index * config.n_draws.next_multiple_of(2) + draw;
                    let noise = |element: usize| {
                        let step = token * self.layout.patch + element / self.layout.n_series;
                        let series = element % self.layout.n_series;
                        f64::from(noise.normal(sample as u32, step as u32, series as u32))
                    };
                    let tokens = self.token(windows, token, level, &noise);
                    let (predicted, _) = self.denoiser.forward(&tokens, &cache);
                    let predicted = predicted.try_into_vec_as::<f32>();
                    let predicted = predicted.map_err(|error| Error::Device { problem: error.to_string() })?;
                    for ((window, gains), predicted) in
                        windows.iter().zip(&mut gains).zip(predicted.chunks_exact(n_elements))
                    {
                        for (offset, &predicted) in predicted.iter().enumerate() {
                            let element = token * n_elements + offset;
                            let clean = window.innovations[element];
                            if !clean.is_nan() {
                                let velocity = level.velocity(clean, noise(offset));
                                let believed = self.velocity_share * f64::from(predicted);
                                gains[element] += believed * (2.0 * velocity - believed) / n_passes;
                            }
                        }
                    }
                }
            }
            let gap_noise = |element: usize| f64::from(noise.normal(u32::MAX, token as u32, element as u32));
            let (_, key_values) =
                self.denoiser.forward(&self.token(windows, token, NoiseLevel::CLEAN, &gap_noise), &cache);
            cache.append(key_values, 1);
        }
        Ok(gains)
    }

    /// One token of the horizon of every window at a level. A gap is noise, as in training.
    fn token(&self, windows: &[ScoredWindow], token: usize, level: NoiseLevel, noise: &dyn Fn(usize) -> f64) -> Tokens {
        let (n_elements, n_features) = (self.layout.n_elements(), self.layout.n_features());
        let position = self.layout.n_context_tokens + token;
        let mut rows = TokenRows::default();
        for window in windows {
            let clean = window.innovations[token * n_elements..][..n_elements].iter().enumerate();
            let noisy = clean.map(|(element, &clean)| {
                if clean.is_nan() {
                    return Some((noise(element) as f32, NoiseLevel::NOISE));
                }
                Some((level.mix(clean, noise(element)) as f32, level))
            });
            rows.push(noisy, token + 1);
            rows.standard.extend_from_slice(&window.view.horizon_standard[token * n_elements..][..n_elements]);
            rows.calendar.extend_from_slice(&window.view.calendar[position * n_features..][..n_features]);
        }
        rows.into_tokens(&self.layout, windows.len(), position, &self.device)
    }
}

/// Levels in the middle of equal parts of `log sin φ` from [`NOISE_SHARE_MIN`] to 1.
fn levels(n_levels: usize) -> impl Iterator<Item = NoiseLevel> {
    (0..n_levels).map(move |index| {
        let share = libm::exp(NOISE_SHARE_MIN.ln() * (1.0 - (index as f64 + 0.5) / n_levels as f64));
        NoiseLevel::new(libm::asin(share) / std::f64::consts::FRAC_PI_2)
    })
}

/// The law of the score of each observed element given those before it, for the errors of one path.
///
/// Without gaps innovations are those of [`Correlation::whiten`]. With gaps the correlation of what is observed has a factor of
/// its own; where that would be too large, a gap counts as its conditional mean, as in training.
fn conditionals(innovation: &Innovation, errors: &[f64], n_series: usize) -> Result<Vec<Conditional>, Error> {
    let scores: Vec<f64> =
        errors.iter().enumerate().map(|(element, &error)| innovation.score(element, error)).collect();
    let observed: Vec<usize> = (0..scores.len()).filter(|&element| !scores[element].is_nan()).collect();
    let has_gaps = observed.last().is_some_and(|last| last + 1 > observed.len());
    let is_small = observed.len() <= N_ELEMENTS_DENSE_MAX;
    if has_gaps && is_small && innovation.correlation != Correlation::None {
        return gapped_conditionals(innovation, &scores, &observed, n_series);
    }
    let mut innovations = innovation.correlation.whiten(&scores, n_series);
    innovations.iter_mut().filter(|z| z.is_nan()).for_each(|z| *z = 0.0);
    let mut conditionals = Vec::with_capacity(observed.len());
    for of_step in observed.chunk_by(|a, b| a / n_series == b / n_series) {
        let start = of_step[0] / n_series * n_series;
        let mut earlier = innovations[..start].to_vec();
        earlier.resize(start + n_series, 0.0);
        let means = innovation.correlation.colour(&earlier, n_series);
        conditionals.extend(of_step.iter().map(|&element| {
            let Open { deviation, log_scale } = innovation.correlation.open(element, n_series);
            let (score, mean, innovation) = (scores[element], means[element], innovations[element]);
            Conditional { element, score, mean, deviation, innovation, log_scale }
        }));
    }
    Ok(conditionals)
}

fn gapped_conditionals(
    innovation: &Innovation,
    scores: &[f64],
    observed: &[usize],
    n_series: usize,
) -> Result<Vec<Conditional>, Error> {
    let width = observed.last().map_or(0, |last| (last / n_series + 1) * n_series);
    let rows: Vec<f64> = observed.iter().flat_map(|&element| innovation.row(element, width)).collect();
    let rows = DMatrix::from_row_slice(observed.len(), width, &rows);
    let factor = (&rows * rows.transpose()).cholesky().ok_or(Error::Covariance)?.l();
    let mut innovations: Vec<f64> = Vec::with_capacity(observed.len());
    let mut conditionals = Vec::with_capacity(observed.len());
    for (rank, &element) in observed.iter().enumerate() {
        let row: Vec<f64> = factor.row(rank).iter().take(rank + 1).copied().collect();
        let explained = |ranks: Range<usize>| -> f64 {
            row[ranks.clone()].iter().zip(&innovations[ranks]).map(|(weight, innovation)| weight * innovation).sum()
        };
        let of_step = observed.partition_point(|&earlier| earlier / n_series < element / n_series);
        let (score, mean) = (scores[element], explained(0..of_step));
        let innovation = (score - mean - explained(of_step..rank)) / row[rank];
        let deviation = row[of_step..].iter().map(|weight| weight * weight).sum::<f64>().sqrt();
        innovations.push(innovation);
        conditionals.push(Conditional { element, score, mean, deviation, innovation, log_scale: libm::log(row[rank]) });
    }
    Ok(conditionals)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::OnceLock;

    use super::*;
    use crate::base::Base;
    use crate::correction::Shares;
    use crate::linear::Linear;
    use crate::noise::Stream;
    use crate::scaling::Scaling;
    use crate::{Bounds, Budget, Calendar, Grid, TrainConfig, fit};

    const GAP: f64 = f64::NAN;
    /// Covariance of the increments of the random walk.
    const COVARIANCE: [[f64; 2]; 2] = [[4.0, 1.2], [1.2, 1.0]];

    fn history(n_series: usize, values: Vec<f64>) -> History {
        History {
            values: Grid::new(n_series, values).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            seasons: vec![],
            bounds: vec![Bounds::default(); n_series],
            roles: vec![],
        }
    }

    fn trained(history: &History, horizon: usize, n_steps: usize) -> Model {
        let mut config = TrainConfig::new(horizon, Budget::Steps(n_steps), 3);
        config.network.batch_size = 32;
        fit(history, &config, &crate::cpu(), &mut |_| ControlFlow::Continue(())).expect("long enough").model
    }

    /// Two random walks with related increments, and a model that is exactly their law.
    fn random_walk(horizon: usize) -> (History, Model) {
        let mut stream = Stream::new(6, 0);
        let mut level = [10.0, -5.0];
        let values = (0..120).flat_map(|_| {
            let (a, b) = (stream.normal(), stream.normal());
            level = [level[0] + 2.0 * a, level[1] + 0.6 * a + 0.8 * b];
            level
        });
        let history = history(2, values.collect());
        let mut model = trained(&history, horizon, 0);
        let spread = [3.0, 0.5];
        model.scaling = Scaling {
            standard: vec![0.0, 1.0],
            values: vec![vec![1.0, 1.0 + spread[0]], vec![2.0, 2.0 + spread[1]]],
            ranges: vec![[-9.0, 9.0]; 2],
            edges: vec![[None; 2]; 2],
        };
        let linear = Linear { members: vec![], lags: vec![], horizon, weights: vec![vec![0.0; horizon]] };
        model.base.correction.shares = Shares::default();
        model.base = Base { linear, ..model.base };
        let increment = [[2.0, 0.0], [0.6, 0.8]];
        let factor = |row: usize, column: usize| {
            if column / 2 > row / 2 { 0.0 } else { increment[row % 2][column % 2] / spread[row % 2] }
        };
        let n = 2 * horizon;
        let deviation: Vec<f64> =
            (0..n).map(|row| (0..n).map(|column| factor(row, column).powi(2)).sum::<f64>().sqrt()).collect();
        let factor = (0..n * n).map(|index| factor(index / n, index % n) / deviation[index / n]).collect();
        model.innovation =
            Innovation { deviation, shape: Scaling::identity(2), correlation: Correlation::Dense { factor } };
        (history, model)
    }

    /// The log density of the observed values after an anchor, from the covariance of the walk itself.
    fn log_density(history: &History, anchor: usize, n_rows: usize) -> f64 {
        let change = |row: usize, series| history.values.get(anchor + row, series) - history.values.get(anchor, series);
        let observed: Vec<(usize, usize)> = (1..=n_rows)
            .flat_map(|row| [(row, 0), (row, 1)])
            .filter(|&(row, series)| !history.values.get(anchor + row, series).is_nan())
            .collect();
        let n = observed.len();
        let changes = DMatrix::from_iterator(n, 1, observed.iter().map(|&(row, series)| change(row, series)));
        let covariance = DMatrix::from_fn(n, n, |i, j| {
            observed[i].0.min(observed[j].0) as f64 * COVARIANCE[observed[i].1][observed[j].1]
        });
        let inverse = covariance.clone().try_inverse().expect("positive definite");
        let quadratic = (changes.transpose() * inverse * changes)[(0, 0)];
        -0.5 * (quadratic + covariance.determinant().ln() + n as f64 * std::f64::consts::TAU.ln())
    }

    #[test]
    fn an_untrained_network_gives_the_exact_likelihood_of_a_gaussian_process() {
        // A horizon of 12 has two steps in a token. 29 rows are five windows of 6, the last one incomplete.
        for (horizon, rows) in [(6, 30..59), (12, 30..54)] {
            let (history, model) = random_walk(horizon);
            let surprise = model.surprise(&history, rows.clone(), &SurpriseConfig::default()).expect("scored");
            let exact = log_density(&history, rows.start - 1, rows.len());
            assert!((surprise.log_likelihood() - exact).abs() < 1e-8, "{} {exact}", surprise.log_likelihood());
            let of_tokens: f64 = surprise.tokens().iter().map(|token| token.log_likelihood).sum();
            assert!((of_tokens - exact).abs() < 1e-8, "{of_tokens} {exact}");
            let element = surprise.row(3)[1].expect("observed");
            let row = rows.start + 3;
            let change = history.values.get(row, 1) - history.values.get(row - 1, 1);
            assert!((element.expected - history.values.get(row - 1, 1)).abs() < 1e-9, "the walk stays where it is");
            assert!((element.error - change).abs() < 1e-9, "the second increment has standard deviation 1");
        }
    }

    #[test]
    fn gaps_contribute_nothing_and_are_bridged_exactly() {
        let (complete, model) = random_walk(6);
        let mut values = complete.values.values().to_vec();
        // Rows 31 and 32 of the second series, and row 34 of both, counted from the anchor 30.
        [(32, 1), (33, 1), (35, 0), (35, 1)].into_iter().for_each(|(row, series)| values[row * 2 + series] = GAP);
        let history = history(2, values);
        let surprise = model.surprise(&history, 31..37, &SurpriseConfig::default()).expect("scored");
        let exact = log_density(&history, 30, 6);
        assert!((surprise.log_likelihood() - exact).abs() < 1e-8, "{} {exact}", surprise.log_likelihood());
        assert_eq!(surprise.row(4), [None, None]);
        assert!(surprise.row(1)[0].is_some() && surprise.row(1)[1].is_none());
        assert_eq!(
            surprise.tokens()[4],
            TokenSurprise { n_observed: 0, denoising_error: 0.0, log_likelihood: 0.0, score: 0.0 }
        );
    }

    #[test]
    fn principal_directions_give_the_exact_density_and_spread_of_each_step() {
        // Two directions of three series, over three leads.
        let directions = [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]].concat();
        let factors = [
            [1.0, 0.0, 0.0, 0.7, 0.8, 0.0, 0.5, 0.4, 0.6],
            [1.5, 0.0, 0.0, -0.3, 0.5, 0.0, 0.1, 0.2, 0.9],
            [0.9, 0.0, 0.0, 0.2, 1.1, 0.0, 0.3, -0.2, 0.7],
        ];
        let gains = (0..9).map(|element| 0.8 + 0.05 * f64::from(element)).collect();
        let correlation = Correlation::Principal { directions, factors: factors.concat(), gains, horizon: 3 };
        let innovation = Innovation { deviation: vec![1.0; 9], shape: Scaling::identity(3), correlation };
        let rows: Vec<f64> = (0..9).flat_map(|element| innovation.row(element, 9)).collect();
        let rows = DMatrix::from_row_slice(9, 9, &rows);
        let covariance = &rows * rows.transpose();
        let whole = [0.4, -1.0, 0.3, 1.2, 0.1, -0.7, 0.9, -0.2, 0.5];
        let mut gapped = whole;
        (gapped[1], gapped[5]) = (GAP, GAP);
        for errors in [whole, gapped] {
            let observed: Vec<usize> = (0..9).filter(|&element| !errors[element].is_nan()).collect();
            let covariance = covariance.select_rows(&observed).select_columns(&observed);
            let values = DMatrix::from_iterator(observed.len(), 1, observed.iter().map(|&element| errors[element]));
            let inverse = covariance.clone().try_inverse().expect("positive definite");
            let exact = -0.5 * ((values.transpose() * inverse * &values)[(0, 0)] + covariance.determinant().ln());
            let found = conditionals(&innovation, &errors, 3).expect("positive definite");
            let sum: f64 = found.iter().map(|found| -0.5 * found.innovation.powi(2) - found.log_scale).sum();
            assert!((sum - exact).abs() < 1e-9, "{sum} {exact}");
            // The law of the last element given the two earlier steps, by regression.
            let n = observed.iter().filter(|&&element| element < 6).count();
            let (earlier, with) = (covariance.view((0, 0), (n, n)), covariance.view((0, observed.len() - 1), (n, 1)));
            let weights = earlier.clone_owned().try_inverse().expect("positive definite") * with;
            let mean = (weights.transpose() * values.rows(0, n))[(0, 0)];
            let variance = covariance[(observed.len() - 1, observed.len() - 1)] - (weights.transpose() * with)[(0, 0)];
            let last = found.last().expect("observed");
            assert!((last.mean - mean).abs() < 1e-9 && (last.deviation - variance.sqrt()).abs() < 1e-9);
        }
    }

    /// `x ← 0.9 x ± 1`, with noise: Gaussian to look at, but each step goes one way or the other.
    fn two_ways(n_steps: usize) -> (Vec<f64>, Vec<f64>) {
        let mut stream = Stream::new(2, 0);
        let (mut level, mut values, mut log_densities) = (0.0, vec![], vec![]);
        for _ in 0..n_steps {
            let step = if stream.uniform() < 0.5 { 1.0 } else { -1.0 } + 0.3 * stream.normal();
            let density =
                |centre: f64| (-0.5 * ((step - centre) / 0.3).powi(2)).exp() / (0.3 * std::f64::consts::TAU.sqrt());
            log_densities.push((0.5 * (density(1.0) + density(-1.0))).ln());
            level = 0.9 * level + step;
            values.push(level);
        }
        (values, log_densities)
    }

    const N_LEARNED: usize = 1600;

    fn two_ways_model() -> &'static Model {
        static MODEL: OnceLock<Model> = OnceLock::new();
        MODEL.get_or_init(|| trained(&history(1, two_ways(N_LEARNED).0), 6, 250))
    }

    #[test]
    fn the_bound_of_a_trained_network_lies_between_the_gaussian_and_the_truth() {
        let (values, log_densities) = two_ways(N_LEARNED + 600);
        let rows = N_LEARNED..N_LEARNED + 600;
        let surprise = two_ways_model().surprise(&history(1, values), rows.clone(), &SurpriseConfig::default());
        let surprise = surprise.expect("scored");
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let truth = mean(&log_densities[rows]);
        let elements: Vec<ElementSurprise> = (0..600).filter_map(|row| surprise.row(row)[0]).collect();
        let gaussian = mean(&elements.iter().map(|element| element.gaussian_log_likelihood).collect::<Vec<_>>());
        let bound = surprise.log_likelihood() / 600.0;
        // The truth is known to 0.03 from 600 steps.
        assert!(bound < truth + 0.03, "bound {bound}, truth {truth}");
        assert!(bound > gaussian + 0.15, "bound {bound}, Gaussian {gaussian}, truth {truth}");
        // A step that goes neither way is what the network finds odd, and the Gaussian does not.
        let score = |row: usize| elements[row].network_gain;
        let neither = (0..600).filter(|&row| elements[row].innovation.abs() < 0.2).map(score).collect::<Vec<_>>();
        let either =
            (0..600).filter(|&row| (elements[row].innovation.abs() - 1.0).abs() < 0.2).map(score).collect::<Vec<_>>();
        assert!(!neither.is_empty() && mean(&neither) + 0.5 < mean(&either), "{} {}", mean(&neither), mean(&either));
    }

    #[test]
    fn scores_do_not_know_what_comes_later_nor_what_is_scored_beside_them() {
        let model = two_ways_model();
        let (mut values, _) = two_ways(N_LEARNED + 30);
        let score = |values: &[f64], rows: Range<usize>| {
            model.surprise(&history(1, values.to_vec()), rows, &SurpriseConfig::default()).expect("scored")
        };
        let before = score(&values, N_LEARNED..N_LEARNED + 30);
        let alone = score(&values, N_LEARNED + 6..N_LEARNED + 12);
        let close = |a: &Surprise, row_a: usize, b: &Surprise, row_b: usize| {
            let (a, b) = (a.row(row_a)[0].expect("observed"), b.row(row_b)[0].expect("observed"));
            (a.score() - b.score()).abs() < 1e-4 && (a.log_likelihood() - b.log_likelihood()).abs() < 1e-4
        };
        assert!((0..6).all(|row| close(&before, 6 + row, &alone, row)));
        assert_eq!(before, score(&values, N_LEARNED..N_LEARNED + 30), "the same again");
        values[N_LEARNED + 15..].iter_mut().for_each(|value| *value = 40.0);
        let after = score(&values, N_LEARNED..N_LEARNED + 30);
        assert!((0..15).all(|row| close(&before, row, &after, row)));
        assert!(!close(&before, 15, &after, 15), "and the changed step is scored");
    }

    #[test]
    fn a_constant_series_that_changes_is_as_odd_as_can_be_and_nothing_is_nan() {
        let mut stream = Stream::new(5, 0);
        let mut values: Vec<f64> = (0..260).flat_map(|_| [7.0, stream.normal()]).collect();
        let mut model = trained(&history(2, values[..2 * 200].to_vec()), 6, 12);
        model.velocity_share = 1.0;
        (values[2 * 255], values[2 * 257], values[2 * 257 + 1]) = (8.0, GAP, 1e30);
        let surprise = model.surprise(&history(2, values), 200..260, &SurpriseConfig::default()).expect("scored");
        assert_eq!(surprise.row(55)[0].expect("observed").error, ERROR_MAX);
        let before = surprise.row(54)[0].expect("observed");
        assert!(before.error.abs() < 5.0, "nothing happened one step before: {before:?}");
        let finite = |element: &ElementSurprise| {
            element.log_likelihood().is_finite()
                && element.score().is_finite()
                && element.denoising_error.is_finite()
                && element.expected.is_finite()
        };
        assert!((0..60).all(|row| surprise.row(row).iter().flatten().all(finite)));
    }

    #[test]
    fn rows_that_cannot_be_scored_are_refused() {
        let (history, model) = random_walk(6);
        for rows in [0..5, 5..5, 100..121] {
            let error = model.surprise(&history, rows.clone(), &SurpriseConfig::default()).expect_err("refused");
            assert!(matches!(error, Error::RowRange { n_steps: 120, .. }), "{rows:?}: {error}");
        }
    }
}
