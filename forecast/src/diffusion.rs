//! Diffusion Forcing: every token of a window gets a noise level of its own, and one network denoises all.
//!
//! Chen et al., "Diffusion Forcing: next-token prediction meets full-sequence diffusion", NeurIPS 2024,
//! algorithm 1, with velocities as targets (their section D.3) and continuous levels.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::conditioning::{Conditioning, INNOVATION_MAX, TokenLayout};
use crate::denoiser::{Cache, Denoiser, N_LEVEL_FEATURES, Tokens, level_harmonics};
use crate::level::NoiseLevel;
use crate::noise::Stream;

/// Shares of the training windows that are noised in a particular way. Fixed on validation windows.
const CLEAN_CONTEXT_SHARE: f64 = 0.5;
const ELEMENT_LEVELS_SHARE: f64 = 0.25;
const ARTIFICIAL_GAPS_SHARE: f64 = 0.2;
/// In a window with artificial gaps, the share of series that lose a part of their context.
const GAP_SERIES_SHARE: f64 = 0.3;
/// Where levels are drawn per element, the share of elements that stay clean.
const CLEAN_ELEMENT_SHARE: f64 = 0.3;

/// One training window: what the network is told, and the innovations that came after the anchor.
#[derive(Clone, Debug)]
pub struct Example {
    /// The network's view.
    pub conditioning: Conditioning,
    /// Innovations `[horizon, series]`, `NaN` for a gap.
    pub innovations: Vec<f32>,
}

/// Rows of tokens on the host, from which tensors are made.
#[derive(Default)]
pub(crate) struct TokenRows {
    pub noisy: Vec<f32>,
    pub noise_share: Vec<f32>,
    pub is_gap: Vec<f32>,
    pub standard: Vec<f32>,
    pub calendar: Vec<f32>,
    pub level: Vec<f32>,
    pub place: Vec<i32>,
}

impl TokenRows {
    /// Adds a token whose elements have the given levels; a gap has none.
    pub(crate) fn push(&mut self, elements: impl Iterator<Item = Option<(f32, NoiseLevel)>>, place: usize) {
        let (mut sum, mut n) = (0.0, 0.0);
        for element in elements {
            let (noisy, level) = element.unwrap_or((0.0, NoiseLevel::NOISE));
            self.noisy.push(noisy);
            self.noise_share.push(level.noise() as f32);
            self.is_gap.push(f32::from(u8::from(element.is_none())));
            if element.is_some() {
                sum += level.angle();
                n += 1.0;
            }
        }
        let angle = if n == 0.0 { NoiseLevel::NOISE.angle() } else { sum / n };
        self.level.extend(level_harmonics(angle));
        self.place.push(place as i32);
    }

    /// Adds a token without gaps whose elements have one noise share. Its level is added once for all sequences.
    pub(crate) fn push_at_level(&mut self, noisy: &[f32], noise_share: f32, place: usize) {
        self.noisy.extend_from_slice(noisy);
        self.noise_share.extend(std::iter::repeat_n(noise_share, noisy.len()));
        self.is_gap.extend(std::iter::repeat_n(0.0, noisy.len()));
        self.place.push(place as i32);
    }

    /// The tensors of a batch of equally long token sequences; each has its own levels, or all have the same.
    pub(crate) fn into_tokens(
        self,
        layout: &TokenLayout,
        batch: usize,
        first_position: usize,
        device: &Device,
    ) -> Tokens {
        let time = self.place.len() / batch;
        let tensor_of = |values: Vec<f32>, batch: usize| {
            let width = values.len() / (batch * time);
            Tensor::<3>::from_data(TensorData::new(values, [batch, time, width]), device)
        };
        let tensor = |values| tensor_of(values, batch);
        let n_levels = self.level.len() / (time * N_LEVEL_FEATURES);
        let calendar = if layout.n_features() == 0 { vec![0.0; batch * time] } else { self.calendar };
        Tokens {
            noisy: tensor(self.noisy),
            noise_share: tensor(self.noise_share),
            is_gap: tensor(self.is_gap),
            standard: tensor(self.standard),
            calendar: tensor(calendar),
            level: tensor_of(self.level, n_levels),
            place: Tensor::<2, Int>::from_data(TensorData::new(self.place, [batch, time]), device),
            first_position,
        }
    }
}

/// How the noise levels of a batch are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn: independent levels, see [`draw_levels`].
    Training,
    /// To measure what an autoregressive forecast meets: the loss counts for one token of the horizon, drawn at random,
    /// with everything before it clean.
    Validation,
}

/// Levels of a validation window, and the token on which the loss counts.
fn draw_validation_levels(layout: &TokenLayout, stream: &mut Stream) -> (Vec<NoiseLevel>, usize) {
    let counted = layout.n_context_tokens + stream.below(layout.n_horizon_tokens);
    let level = NoiseLevel::new(stream.uniform());
    let levels = (0..layout.n_context_tokens + layout.n_horizon_tokens).flat_map(|token| {
        let level = match token.cmp(&counted) {
            std::cmp::Ordering::Less => NoiseLevel::CLEAN,
            std::cmp::Ordering::Equal => level,
            std::cmp::Ordering::Greater => NoiseLevel::NOISE,
        };
        std::iter::repeat_n(level, layout.n_elements())
    });
    (levels.collect(), counted)
}

/// Noise levels of all elements of a training window, `[token, element]`, context tokens first.
///
/// Half of the windows have a clean context; otherwise every token draws its own level, uniform in (0, 1).
/// In a share of the windows every element draws its own.
pub(crate) fn draw_levels(layout: &TokenLayout, stream: &mut Stream) -> Vec<NoiseLevel> {
    let clean_context = stream.uniform() < CLEAN_CONTEXT_SHARE;
    let per_element = stream.uniform() < ELEMENT_LEVELS_SHARE;
    let mut levels = vec![];
    for token in 0..layout.n_context_tokens + layout.n_horizon_tokens {
        let token_level = NoiseLevel::new(stream.uniform());
        for _ in 0..layout.n_elements() {
            levels.push(if token < layout.n_context_tokens && clean_context {
                NoiseLevel::CLEAN
            } else if !per_element {
                token_level
            } else if stream.uniform() < CLEAN_ELEMENT_SHARE {
                NoiseLevel::CLEAN
            } else {
                NoiseLevel::new(stream.uniform())
            });
        }
    }
    levels
}

/// Makes a part of the context of some series a gap: the network must learn from the windows that have none what one means.
///
/// Returns a flag for each context element.
fn draw_gaps(layout: &TokenLayout, stream: &mut Stream) -> Vec<bool> {
    let (n_steps, n_series) = (layout.context_length(), layout.n_series);
    let mut gaps = vec![false; n_steps * n_series];
    if stream.uniform() < ARTIFICIAL_GAPS_SHARE {
        for series in (0..n_series).filter(|_| stream.uniform() < GAP_SERIES_SHARE).collect::<Vec<_>>() {
            let (a, b) = (stream.below(n_steps + 1), stream.below(n_steps + 1));
            (a.min(b)..a.max(b)).for_each(|step| gaps[step * n_series + series] = true);
        }
    }
    gaps
}

/// A noised batch with its targets.
pub struct NoisedBatch {
    tokens: Tokens,
    /// The same with the innovations of the horizon mirrored.
    mirrored: Tensor<3>,
    velocity: Tensor<3>,
    /// By how much the loss counts.
    counts: Tensor<3>,
    n_counted: f64,
}

impl NoisedBatch {
    /// Noises a batch of examples with levels and noise from the stream.
    ///
    /// `influences` weigh the elements of the horizon in the loss.
    pub fn new(
        layout: &TokenLayout,
        examples: &[Example],
        influences: &[f32],
        purpose: Purpose,
        stream: &mut Stream,
        device: &Device,
    ) -> Self {
        let (n_elements, n_context) = (layout.n_elements(), layout.n_context_tokens);
        let n_tokens = n_context + layout.n_horizon_tokens;
        let (mut rows, mut velocities, mut counts) = (TokenRows::default(), vec![], vec![]);
        for example in examples {
            let (levels, gaps, counted_tokens) = match purpose {
                Purpose::Training => (draw_levels(layout, stream), draw_gaps(layout, stream), 0..n_tokens),
                Purpose::Validation => {
                    let (levels, token) = draw_validation_levels(layout, stream);
                    (levels, vec![false; n_context * n_elements], token..token + 1)
                }
            };
            let view = &example.conditioning;
            let sign = if purpose == Purpose::Training && stream.uniform() < 0.5 { -1.0 } else { 1.0 };
            let innovations = example.innovations.iter().map(|&z| sign * z);
            let clean: Vec<f32> = view.context.iter().copied().chain(innovations).collect();
            let mut elements = Vec::with_capacity(clean.len());
            for (index, &value) in clean.iter().enumerate() {
                let is_context = index < gaps.len();
                let made_gap = is_context && gaps[index];
                let level = if made_gap { NoiseLevel::NOISE } else { levels[index] };
                let value = f64::from(value).clamp(-INNOVATION_MAX, INNOVATION_MAX);
                let known = !value.is_nan();
                let noise = stream.normal();
                let target = if known { level.velocity(value, noise) } else { 0.0 };
                let counted = known && level != NoiseLevel::CLEAN && counted_tokens.contains(&(index / n_elements));
                velocities.push(target as f32);
                let weight = if is_context { 1.0 } else { influences[index - gaps.len()] };
                counts.push(if counted { weight } else { 0.0 });
                // A gap of the horizon has nothing to learn, yet is not marked: it is never one at sampling time.
                let hidden = made_gap || is_context && !known;
                elements.push((!hidden).then(|| {
                    let mixed = if known { level.mix(value, noise) } else { noise };
                    (mixed as f32, if known { level } else { NoiseLevel::NOISE })
                }));
                let standard =
                    if is_context { view.context_standard[index] } else { view.horizon_standard[index - gaps.len()] };
                // What the base expected stands in for a value that is hidden.
                rows.standard.push(if made_gap { view.context_expected[index] } else { standard });
            }
            for token in 0..n_tokens {
                let place = (token + 1).saturating_sub(n_context);
                rows.push(elements[token * n_elements..(token + 1) * n_elements].iter().copied(), place);
            }
            rows.calendar.extend_from_slice(&view.calendar);
        }
        let n_counted = counts.iter().map(|&count| f64::from(count)).sum::<f64>();
        let tensor = |values: Vec<f32>| {
            Tensor::<3>::from_data(TensorData::new(values, [examples.len(), n_tokens, n_elements]), device)
        };
        let (velocity, counts) = (tensor(velocities), tensor(counts));
        let tokens = rows.into_tokens(layout, examples.len(), 0, device);
        let noisy = tokens.noisy.clone();
        let context = noisy.clone().narrow(1, 0, n_context);
        let mirrored = Tensor::cat(vec![context, -noisy.narrow(1, n_context, layout.n_horizon_tokens)], 1);
        Self { tokens, mirrored, velocity, counts, n_counted }
    }

    /// Weighted mean squared error of the predicted velocity.
    ///
    /// Batches show innovations and their mirror images alike, so the network itself need not be made odd here.
    pub fn loss(&self, denoiser: &Denoiser) -> Tensor<1> {
        let (velocity, _) = denoiser.forward(&self.tokens, &Cache::default());
        let error = (velocity - self.velocity.clone()).square() * self.counts.clone();
        error.sum() / self.n_counted.max(1.0)
    }

    /// Sums from which the loss of the odd velocity follows for any share of it, see [`crate::sampler::Session`].
    pub fn fit_sums(&self, denoiser: &Denoiser) -> FitSums {
        let (seen, _) = denoiser.forward(&self.tokens, &Cache::default());
        let mirrored = Tokens { noisy: self.mirrored.clone(), ..self.tokens.clone() };
        let (image, _) = denoiser.forward(&mirrored, &Cache::default());
        let (predicted, target) = ((seen - image) * 0.5, self.velocity.clone());
        let sum = |tensor: Tensor<3>| f64::from((tensor * self.counts.clone()).sum().into_scalar::<f32>());
        FitSums {
            target: sum(target.clone().square()),
            product: sum(target * predicted.clone()),
            predicted: sum(predicted.square()),
            n: self.n_counted,
        }
    }
}

/// Sums of squares and products of target and predicted velocities.
#[derive(Clone, Copy, Debug, Default)]
pub struct FitSums {
    target: f64,
    product: f64,
    predicted: f64,
    n: f64,
}

impl FitSums {
    /// The sums of both.
    pub fn plus(self, other: FitSums) -> FitSums {
        FitSums {
            target: self.target + other.target,
            product: self.product + other.product,
            predicted: self.predicted + other.predicted,
            n: self.n + other.n,
        }
    }

    /// The share of the predicted velocity, between 0 and 1, with the smallest mean squared error.
    ///
    /// A network that has begun to learn by heart predicts too much; believing a part of it keeps what it has learned.
    pub fn best_share(&self) -> f64 {
        if self.predicted > 0.0 { (self.product / self.predicted).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Mean squared error with a share of the predicted velocity.
    pub fn loss(&self, share: f64) -> f64 {
        (self.target - 2.0 * share * self.product + share * share * self.predicted) / self.n.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: TokenLayout =
        TokenLayout { n_series: 2, n_calendar: 0, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };

    /// Levels of the first element of each horizon token, over many windows.
    fn horizon_levels(n_windows: usize) -> Vec<Vec<f64>> {
        let mut stream = Stream::new(1, 0);
        let tokens = |levels: Vec<NoiseLevel>| levels.chunks(4).skip(3).map(|token| token[0].value()).collect();
        (0..n_windows).map(|_| tokens(draw_levels(&LAYOUT, &mut stream))).collect()
    }

    #[test]
    fn levels_are_uniform_and_independent_between_tokens() {
        // Elements that were left clean on purpose aside, levels are uniform: a chi-square test with ten cells, 0.1 % point.
        let windows = horizon_levels(8000);
        let drawn: Vec<f64> = windows.iter().flatten().copied().filter(|&level| level > 0.0).collect();
        let mut counts = [0.0; 10];
        drawn.iter().for_each(|level| counts[((level * 10.0) as usize).min(9)] += 1.0);
        let expected = drawn.len() as f64 / 10.0;
        let chi_square: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(chi_square < 27.9, "chi-square {chi_square}");
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let both = windows.iter().filter(|levels| levels[0] > 0.0 && levels[1] > 0.0);
        let pairs: Vec<f64> = both.map(|levels| (levels[0] - mean) * (levels[1] - mean)).collect();
        // 1/12 is the variance of a uniform number.
        let correlation = pairs.iter().sum::<f64>() / pairs.len() as f64 * 12.0;
        assert!(correlation.abs() < 0.05, "correlation {correlation}");
    }

    #[test]
    fn half_of_the_windows_have_a_clean_context() {
        let mut stream = Stream::new(2, 0);
        let clean = |levels: Vec<NoiseLevel>| levels[..12].iter().all(|&level| level == NoiseLevel::CLEAN);
        let n = (0..4000).filter(|_| clean(draw_levels(&LAYOUT, &mut stream))).count();
        assert!((1850..2150).contains(&n), "{n} of 4000");
    }

    #[test]
    fn only_the_drawn_token_counts_for_validation_and_what_is_before_it_is_clean() {
        let mut stream = Stream::new(3, 0);
        for _ in 0..50 {
            let (levels, token) = draw_validation_levels(&LAYOUT, &mut stream);
            assert!((3..7).contains(&token));
            assert!(levels[..token * 4].iter().all(|&level| level == NoiseLevel::CLEAN));
            assert!(levels[(token + 1) * 4..].iter().all(|&level| level == NoiseLevel::NOISE));
        }
    }
}
