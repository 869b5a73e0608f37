//! Diffusion Forcing: every token of a window gets a noise level of its own, and one network denoises all.
//!
//! Chen et al., "Diffusion Forcing: next-token prediction meets full-sequence diffusion", NeurIPS 2024,
//! algorithm 1, with velocities as targets (their section D.3) and continuous levels.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::conditioning::{Conditioning, INNOVATION_MAX, TokenLayout};
use crate::denoiser::{Cache, Denoiser, N_LEVEL_FEATURES, Tokens, level_harmonics};
use crate::level::NoiseLevel;
use crate::loss_weight::LossWeight;
use crate::noise::Stream;
use crate::noising::{LevelMix, draw_validation_levels};

/// One training window: what the network is told, and the innovations that came after the anchor.
#[derive(Clone, Debug)]
pub struct Example {
    /// The network's view.
    pub conditioning: Conditioning,
    /// Innovations `[horizon, series]`, `NaN` for a gap.
    pub innovations: Vec<f32>,
}

impl Example {
    /// The same window of some of its series, of which it has so many.
    pub(crate) fn of_series(&self, chosen: &[usize], n_series: usize) -> Self {
        let Self { conditioning, innovations } = self;
        let Conditioning { context, context_levels, context_standard, context_expected, horizon_standard, calendar } =
            conditioning;
        let conditioning = Conditioning {
            context: columns(context, chosen, n_series),
            context_levels: columns(context_levels, chosen, n_series),
            context_standard: columns(context_standard, chosen, n_series),
            context_expected: columns(context_expected, chosen, n_series),
            horizon_standard: columns(horizon_standard, chosen, n_series),
            calendar: calendar.clone(),
        };
        Self { conditioning, innovations: columns(innovations, chosen, n_series) }
    }
}

/// Some columns of rows of so many values.
pub(crate) fn columns<T: Copy>(values: &[T], chosen: &[usize], n_columns: usize) -> Vec<T> {
    values.chunks_exact(n_columns).flat_map(|row| chosen.iter().map(|&column| row[column])).collect()
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
        let n_context = self.place[..time].iter().take_while(|&&place| place == 0).count();
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
            n_context,
            first_position,
        }
    }
}

/// The level whose angle is the mean of those of a token's elements.
fn mean_level(levels: impl ExactSizeIterator<Item = NoiseLevel>) -> NoiseLevel {
    let n = levels.len() as f64;
    NoiseLevel::new(levels.map(NoiseLevel::value).sum::<f64>() / n)
}

/// How the noise levels of a batch are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Purpose {
    /// To learn: independent levels, and by how much the error of a token counts.
    Training(LevelMix, LossWeight),
    /// To measure what an autoregressive forecast meets: the loss counts for one token of the horizon, drawn at random,
    /// with everything before it clean.
    Validation,
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
                Purpose::Training(mix, _) => {
                    (mix.draw_levels(layout, stream), mix.draw_gaps(layout, stream), 0..n_tokens)
                }
                Purpose::Validation => {
                    let (levels, token) = draw_validation_levels(layout, stream);
                    (levels, vec![false; n_context * n_elements], token..token + 1)
                }
            };
            let view = &example.conditioning;
            let is_mirrored = matches!(purpose, Purpose::Training(..)) && stream.uniform() < 0.5;
            let sign = if is_mirrored { -1.0 } else { 1.0 };
            let innovations = example.innovations.iter().map(|&z| sign * z);
            let clean: Vec<f32> = view.context.iter().copied().chain(innovations).collect();
            let token_weights = match purpose {
                Purpose::Training(_, weight) => {
                    let is_hidden = |index: usize| gaps.get(index).is_some_and(|gap| *gap) || clean[index].is_nan();
                    let shown = |index: usize| if is_hidden(index) { NoiseLevel::NOISE } else { levels[index] };
                    let elements = |token: usize| token * n_elements..(token + 1) * n_elements;
                    weight.relative(n_tokens, |token| mean_level(elements(token).map(shown)))
                }
                Purpose::Validation => vec![1.0; n_tokens],
            };
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
                let influence = if is_context { 1.0 } else { influences[index - gaps.len()] };
                let weight = influence * token_weights[index / n_elements] as f32;
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
        error.sum() / self.n_counted.max(f64::from(f32::MIN_POSITIVE))
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
    use crate::attention::Sight;
    use crate::denoiser::{DenoiserConfig, TokenOf};
    use crate::noising::LevelDistribution;

    const LAYOUT: TokenLayout =
        TokenLayout { n_series: 2, n_calendar: 0, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    const N_CONTEXT: usize = 12;
    const N_HORIZON: usize = 16;
    /// Every window has artificial gaps.
    const GAPPED: LevelMix = LevelMix {
        distribution: LevelDistribution::Uniform,
        n_levels: None,
        clean_context: 0.5,
        by_element: 0.25,
        shared: 0.0,
        gaps: 1.0,
    };

    fn example() -> Example {
        let mut stream = Stream::new(1, 0);
        let mut normals = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let conditioning = Conditioning {
            context: normals(N_CONTEXT),
            context_standard: normals(N_CONTEXT),
            context_expected: normals(N_CONTEXT),
            horizon_standard: normals(N_HORIZON),
            ..Conditioning::default()
        };
        Example { conditioning, innovations: normals(N_HORIZON) }
    }

    fn batch(example: &Example, mix: LevelMix, seed: u64) -> NoisedBatch {
        let (examples, purpose) = (std::slice::from_ref(example), Purpose::Training(mix, LossWeight::Constant));
        NoisedBatch::new(&LAYOUT, examples, &[1.0; N_HORIZON], purpose, &mut Stream::new(seed, 1), &crate::cpu())
    }

    fn numbers(tensor: &Tensor<3>) -> Vec<f32> {
        tensor.clone().try_into_vec_as().expect("on the host")
    }

    /// Everything that a network is shown.
    fn shown(batch: &NoisedBatch) -> Vec<Vec<f32>> {
        let Tokens { noisy, noise_share, is_gap, standard, calendar, level, .. } = &batch.tokens;
        [noisy, noise_share, is_gap, standard, calendar, level, &batch.mirrored].map(numbers).to_vec()
    }

    #[test]
    fn a_network_is_shown_nothing_of_a_value_that_is_hidden_from_it() {
        let mut n_hidden = 0;
        for seed in 0..20 {
            // Levels come first, as in a batch.
            let mut stream = Stream::new(seed, 1);
            GAPPED.draw_levels(&LAYOUT, &mut stream);
            let is_hidden = GAPPED.draw_gaps(&LAYOUT, &mut stream);
            let seen = shown(&batch(&example(), GAPPED, seed));
            let with_other = |wanted: bool| {
                let (mut other, mut n) = (example(), 0);
                for index in (0..N_CONTEXT).filter(|&index| is_hidden[index] == wanted) {
                    other.conditioning.context[index] = 7.0;
                    other.conditioning.context_standard[index] = -7.0;
                    n += 1;
                }
                (shown(&batch(&other, GAPPED, seed)), n)
            };
            let (hidden, n) = with_other(true);
            assert_eq!(seen, hidden, "seed {seed}");
            n_hidden += n;
            assert!(with_other(false).0 != seen || n == N_CONTEXT, "what is not hidden is seen, seed {seed}");
        }
        assert!(n_hidden > 20, "{n_hidden}");
    }

    #[test]
    fn a_gap_is_no_target_whatever_stands_in_its_place() {
        const GAPS: [usize; 5] = [1, 6, N_CONTEXT, N_CONTEXT + 5, N_CONTEXT + 9];
        let mut gapped = example();
        for gap in GAPS {
            match gap.checked_sub(N_CONTEXT) {
                None => gapped.conditioning.context[gap] = f32::NAN,
                Some(element) => gapped.innovations[element] = f32::NAN,
            }
        }
        // Nothing is clean, so that every value is a target.
        let noised = LevelMix { clean_context: 0.0, by_element: 0.0, gaps: 0.0, ..GAPPED };
        assert_eq!(batch(&example(), noised, 3).n_counted, (N_CONTEXT + N_HORIZON) as f64);
        let config = DenoiserConfig {
            n_elements: 4,
            n_calendar: 1,
            n_horizon_tokens: 4,
            d_model: 16,
            n_heads: 1,
            n_layers: 1,
            attention: Sight::Causal,
            token: TokenOf::Panel,
        };
        let denoiser = Denoiser::new(&config, &mut Stream::new(2, 0), &crate::cpu());
        // With targets of another size at some elements.
        let loss = |elements: &[usize]| {
            let batch = batch(&gapped, noised, 3);
            assert_eq!(batch.n_counted, (N_CONTEXT + N_HORIZON - GAPS.len()) as f64);
            let mut targets = numbers(&batch.velocity);
            elements.iter().for_each(|&element| targets[element] = 100.0);
            let velocity = Tensor::from_data(TensorData::new(targets, batch.velocity.dims()), &crate::cpu());
            let batch = NoisedBatch { velocity, ..batch };
            (batch.loss(&denoiser).into_scalar::<f32>(), batch.fit_sums(&denoiser).loss(1.0))
        };
        assert!(loss(&[]).0.is_finite() && loss(&[]).0 > 0.0);
        assert_eq!(loss(&[]), loss(&GAPS));
        for beside in [0, N_CONTEXT + 1] {
            assert_ne!(loss(&[]), loss(&[beside]));
        }
    }
}
