//! From noise to innovations with the network, its context, and a cache of what is finished.

use burn::tensor::Device;

use crate::conditioning::{Conditioning, TokenLayout};
use crate::denoise::{BOUND, Denoise, NoisyToken, denoise};
use crate::denoiser::{Cache, Denoiser, Tokens, level_harmonics};
use crate::diffusion::TokenRows;
use crate::level::NoiseLevel;
use crate::noise::NoiseSource;
use crate::pins::Pins;
use crate::schedule::ScheduleMatrix;
use crate::{Error, SampleConfig};

/// What was observed may be further than the network is shown; this keeps its arithmetic finite.
const KNOWN_MAX: f64 = 1e6;

/// A network with the shape of its tokens.
pub struct Sampler<'a> {
    /// The network.
    pub denoiser: &'a Denoiser,
    /// Share of its predicted velocity that is believed: 1 all of it, 0 nothing but noise.
    pub velocity_share: f64,
    /// The shape of its tokens.
    pub layout: &'a TokenLayout,
    /// Where it runs.
    pub device: &'a Device,
}

/// Observed elements at the start of the horizon, and the number of tokens that hold them.
#[derive(Clone, Copy)]
pub struct PinnedStart<'a> {
    /// The update that meets the observations.
    pub pins: &'a Pins,
    /// Scores of the observed elements: of each sample, or the same of all.
    pub scores: &'a [Vec<f64>],
    /// Tokens up to the last one that holds a pinned element.
    pub n_tokens: usize,
}

/// What the network remembers of one context, and of the tokens after it that are wholly observed.
#[derive(Clone, Debug)]
pub struct Context {
    conditioning: Conditioning,
    /// Of the context, and of the observed tokens and their mirror images.
    cache: Cache,
    /// Innovations of the observed tokens, `[token, element]`.
    known: Vec<f32>,
    n_known: usize,
}

/// Which samples are drawn, and where their path begins in the noise.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// First sample.
    pub first_sample: usize,
    /// Number of samples.
    pub n_samples: usize,
    /// Index of the first step in the forecast's whole path.
    pub first_step: usize,
    /// Tokens to draw.
    pub n_tokens: usize,
}

/// The network with what it remembers of one forecast: the context, and the tokens that are finished.
///
/// Innovations are as likely as their mirror image: where the path goes is what the base says, and a network that learns
/// it again learns by heart. So the velocity is made an odd function of the innovations, `v(x) = (f(x) − f(−x)) / 2`.
#[derive(Clone)]
pub struct Session<'a> {
    sampler: &'a Sampler<'a>,
    /// One for all sequences, or one for each.
    conditionings: Vec<Conditioning>,
    /// Whether samples come in antithetic pairs, so that each is the mirror image of its neighbour.
    is_paired: bool,
    cache: Cache,
    n_remembered: usize,
}

impl Context {
    /// Tokens after the context that are known.
    pub fn n_known(&self) -> usize {
        self.n_known
    }

    /// Their innovations, `[token, element]`.
    pub fn known(&self) -> &[f32] {
        &self.known
    }
}

impl PinnedStart<'_> {
    /// Moves the innovations of one of the drawn samples, in a layout of so many series.
    pub fn apply(&self, draw: Draw, index: usize, noise: NoiseSource<'_>, n_series: usize, innovations: &mut [f64]) {
        let measurement = |element: usize| {
            noise.measurement(draw.first_sample + index, draw.first_step + element / n_series, element % n_series)
        };
        self.pins.apply(innovations, &self.scores[index % self.scores.len()], measurement);
        innovations.iter_mut().for_each(|z| *z = z.clamp(-KNOWN_MAX, KNOWN_MAX));
    }
}

impl Draw {
    /// Whether the samples are whole antithetic pairs.
    fn is_paired(&self) -> bool {
        self.first_sample.is_multiple_of(2) && self.n_samples.is_multiple_of(2)
    }
}

impl Denoise for Session<'_> {
    fn velocities(&mut self, tokens: &[NoisyToken], n_finished: usize) -> Result<Vec<Vec<f32>>, Error> {
        let mirrored: Vec<NoisyToken>;
        let sequences = if self.is_paired {
            tokens
        } else {
            mirrored = tokens.iter().map(with_mirror_images).collect();
            &mirrored
        };
        let rows = self.sampler.horizon_tokens(&self.conditionings, sequences, self.n_remembered);
        let (velocity, key_values) = self.sampler.denoiser.forward(&rows, &self.cache);
        self.cache.append(key_values, n_finished);
        self.n_remembered += n_finished;
        let n_open = tokens.len() - n_finished;
        let velocity = velocity.narrow(1, n_finished, n_open).swap_dims(0, 1).try_into_vec_as::<f32>();
        let velocity = velocity.map_err(|error| Error::Device { problem: error.to_string() })?;
        let n_elements = self.sampler.layout.n_elements();
        let odd = |token: &[f32]| if self.is_paired { odd_in_pairs(token, n_elements) } else { odd_in_halves(token) };
        Ok(velocity.chunks_exact(velocity.len() / n_open).map(odd).collect())
    }
}

/// The sequences of a token, and behind them their mirror images.
fn with_mirror_images(token: &NoisyToken) -> NoisyToken {
    let values = token.values.iter().copied().chain(token.values.iter().map(|value| -value)).collect();
    NoisyToken { values, level: token.level }
}

/// Velocities of sequences whose mirror images are their neighbours.
fn odd_in_pairs(velocity: &[f32], n_elements: usize) -> Vec<f32> {
    let mut odd = velocity.to_vec();
    for pair in odd.chunks_exact_mut(2 * n_elements) {
        let (first, second) = pair.split_at_mut(n_elements);
        for (a, b) in first.iter_mut().zip(second) {
            *a = 0.5 * (*a - *b);
            *b = -*a;
        }
    }
    odd
}

/// Velocities of the first half of the sequences, whose mirror images are the second half.
fn odd_in_halves(velocity: &[f32]) -> Vec<f32> {
    let (sequences, images) = velocity.split_at(velocity.len() / 2);
    sequences.iter().zip(images).map(|(a, b)| 0.5 * (a - b)).collect()
}

impl Sampler<'_> {
    /// Draws innovations `[sample, token, element]`.
    ///
    /// One conditioning serves all samples, or each sample has its own.
    ///
    /// # Errors
    /// Those of [`ScheduleMatrix::new`].
    pub fn draw(
        &self,
        conditionings: &[Conditioning],
        draw: Draw,
        config: &SampleConfig,
        pinned: Option<PinnedStart<'_>>,
    ) -> Result<Vec<f32>, Error> {
        self.draw_from(conditionings, draw, config, NoiseSource::Seed(config.seed), pinned)
    }

    /// As [`Sampler::draw`], with noise from any source; the seed of the configuration plays no part.
    ///
    /// # Errors
    /// Those of [`ScheduleMatrix::new`].
    pub fn draw_from(
        &self,
        conditionings: &[Conditioning],
        draw: Draw,
        config: &SampleConfig,
        noise: NoiseSource<'_>,
        pinned: Option<PinnedStart<'_>>,
    ) -> Result<Vec<f32>, Error> {
        let is_paired = conditionings.len() == 1 && pinned.is_none() && draw.is_paired() && noise.is_antithetic();
        self.draw_in(&self.session(conditionings, is_paired), &[], draw, config, noise, pinned)
    }

    /// As [`Sampler::draw_from`], with the context already encoded. Tokens that are known in it come back as they are.
    ///
    /// # Errors
    /// Those of [`ScheduleMatrix::new`].
    pub fn draw_after(
        &self,
        context: &Context,
        draw: Draw,
        config: &SampleConfig,
        noise: NoiseSource<'_>,
        pinned: Option<PinnedStart<'_>>,
    ) -> Result<Vec<f32>, Error> {
        let session = Session {
            sampler: self,
            conditionings: vec![context.conditioning.clone()],
            // What was observed has no mirror image among the samples.
            is_paired: context.n_known == 0 && pinned.is_none() && draw.is_paired() && noise.is_antithetic(),
            cache: context.cache.clone().repeated(draw.n_samples),
            n_remembered: context.n_known,
        };
        self.draw_in(&session, &context.known, draw, config, noise, pinned)
    }

    fn draw_in(
        &self,
        session: &Session<'_>,
        known: &[f32],
        draw: Draw,
        config: &SampleConfig,
        noise: NoiseSource<'_>,
        pinned: Option<PinnedStart<'_>>,
    ) -> Result<Vec<f32>, Error> {
        let mut tokens = self.initial_noise(draw, noise);
        for (token, known) in tokens.iter_mut().zip(known.chunks_exact(self.layout.n_elements())) {
            *token = NoisyToken { values: known.repeat(draw.n_samples), level: NoiseLevel::CLEAN };
        }
        // What is known is remembered already.
        let n_known = session.n_remembered;
        let mut n_finished = n_known;
        if let Some(start) = pinned {
            self.denoise(session, &mut tokens[n_known..start.n_tokens], 0, config)?;
            self.pin(&mut tokens[..start.n_tokens], draw, noise, &start);
            n_finished = start.n_tokens;
        }
        if n_finished < draw.n_tokens {
            self.denoise(session, &mut tokens[n_known..], n_finished - n_known, config)?;
        }
        Ok(sample_by_sample(&tokens, draw.n_samples))
    }

    /// The context of one conditioning.
    pub fn context(&self, conditioning: Conditioning) -> Context {
        let cache = self.encode_context(std::slice::from_ref(&conditioning));
        Context { conditioning, cache, known: vec![], n_known: 0 }
    }

    /// Adds the next token of the horizon, wholly observed, to a context.
    pub fn observe(&self, context: &mut Context, innovations: &[f32]) {
        let values: Vec<f32> = innovations.iter().map(|z| z.clamp(-KNOWN_MAX as f32, KNOWN_MAX as f32)).collect();
        context.known.extend_from_slice(&values);
        if self.velocity_share > 0.0 {
            let token = with_mirror_images(&NoisyToken { values, level: NoiseLevel::CLEAN });
            let rows = self.horizon_tokens(std::slice::from_ref(&context.conditioning), &[token], context.n_known);
            let (_, key_values) = self.denoiser.forward(&rows, &context.cache);
            context.cache.append(key_values, 1);
        }
        context.n_known += 1;
    }

    /// Moves the innovations of each sample onto what was observed.
    fn pin(&self, tokens: &mut [NoisyToken], draw: Draw, noise: NoiseSource<'_>, start: &PinnedStart<'_>) {
        let n_elements = self.layout.n_elements();
        for sample in 0..draw.n_samples {
            let part = sample * n_elements..(sample + 1) * n_elements;
            let values = tokens.iter().flat_map(|token| &token.values[part.clone()]);
            let mut innovations: Vec<f64> = values.map(|&value| f64::from(value)).collect();
            start.apply(draw, sample, noise, self.layout.n_series, &mut innovations);
            let values = tokens.iter_mut().flat_map(|token| &mut token.values[part.clone()]);
            values.zip(innovations).for_each(|(value, moved)| *value = moved as f32);
        }
    }

    /// The network with the context encoded, before the first token of the horizon. Samples are paired when each is the
    /// mirror image of its neighbour, as antithetic noise makes them.
    pub fn session(&self, conditionings: &[Conditioning], is_paired: bool) -> Session<'_> {
        let mut conditionings = conditionings.to_vec();
        if conditionings.len() > 1 && !is_paired {
            conditionings.extend_from_within(..);
        }
        let cache = self.encode_context(&conditionings);
        Session { sampler: self, conditionings, is_paired, cache, n_remembered: 0 }
    }

    fn denoise(
        &self,
        session: &Session<'_>,
        tokens: &mut [NoisyToken],
        n_finished: usize,
        config: &SampleConfig,
    ) -> Result<(), Error> {
        let matrix = ScheduleMatrix::new(config.schedule, tokens.len() - n_finished, config.passes)?;
        denoise(&mut session.clone(), tokens, n_finished, &matrix, self.velocity_share, config.stabilization())
    }

    fn initial_noise(&self, draw: Draw, noise: NoiseSource<'_>) -> Vec<NoisyToken> {
        let (patch, n_series) = (self.layout.patch, self.layout.n_series);
        let samples = draw.first_sample..draw.first_sample + draw.n_samples;
        let token = |token: usize| {
            let first_step = draw.first_step + token * patch;
            let mut values = Vec::with_capacity(draw.n_samples * self.layout.n_elements());
            for sample in samples.clone() {
                for step in first_step..first_step + patch {
                    values.extend((0..n_series).map(|series| noise.normal(sample, step, series)));
                }
            }
            NoisyToken { values, level: NoiseLevel::NOISE }
        };
        (0..draw.n_tokens).map(token).collect()
    }

    /// Keys and values of the context: computed once, and shared by all samples when there is one conditioning. Nothing, where
    /// nothing of what the network says is believed.
    pub(crate) fn encode_context(&self, conditionings: &[Conditioning]) -> Cache {
        if self.velocity_share == 0.0 {
            return Cache::default();
        }
        let mut rows = TokenRows::default();
        let (n_context, n_elements) = (self.layout.n_context_tokens, self.layout.n_elements());
        for view in conditionings {
            let level = |index: usize| view.context_levels.get(index).copied().unwrap_or(NoiseLevel::CLEAN);
            for token in 0..n_context {
                let elements = token * n_elements..(token + 1) * n_elements;
                let known = |index: usize| (!view.context[index].is_nan()).then(|| (view.context[index], level(index)));
                rows.push(elements.map(known), 0);
            }
            let gap_aware = view.context_standard.iter();
            rows.standard.extend(gap_aware);
            rows.calendar.extend_from_slice(&view.calendar[..n_context * self.layout.n_features()]);
        }
        let tokens = rows.into_tokens(self.layout, conditionings.len(), 0, self.device);
        let (_, key_values) = self.denoiser.forward(&tokens, &Cache::default());
        Cache::of_context(key_values, conditionings.len() == 1)
    }

    /// Tokens of the horizon from the one with index `first` on, as the network takes them.
    fn horizon_tokens(&self, conditionings: &[Conditioning], tokens: &[NoisyToken], first: usize) -> Tokens {
        let (n_elements, n_features) = (self.layout.n_elements(), self.layout.n_features());
        let n_context = self.layout.n_context_tokens;
        let n_samples = tokens[0].values.len() / n_elements;
        let end = first + tokens.len();
        let mut rows = TokenRows::default();
        rows.level.extend(tokens.iter().flat_map(|token| level_harmonics(token.level.angle())));
        let noise_shares: Vec<f32> = tokens.iter().map(|token| token.level.noise() as f32).collect();
        for sample in 0..n_samples {
            let view = &conditionings[sample % conditionings.len()];
            for (index, (token, &noise_share)) in tokens.iter().zip(&noise_shares).enumerate() {
                let values = token.values[sample * n_elements..(sample + 1) * n_elements].iter();
                let seen: Vec<f32> = values.map(|value| value.clamp(-BOUND, BOUND)).collect();
                rows.push_at_level(&seen, noise_share, first + index + 1);
            }
            rows.standard.extend_from_slice(&view.horizon_standard[first * n_elements..end * n_elements]);
            rows.calendar
                .extend_from_slice(&view.calendar[(n_context + first) * n_features..(n_context + end) * n_features]);
        }
        rows.into_tokens(self.layout, n_samples, n_context + first, self.device)
    }
}

/// Innovations `[sample, token, element]`.
fn sample_by_sample(tokens: &[NoisyToken], n_samples: usize) -> Vec<f32> {
    let part = |sample: usize, token: &NoisyToken| {
        let n_elements = token.values.len() / n_samples;
        token.values[sample * n_elements..(sample + 1) * n_elements].to_vec()
    };
    (0..n_samples).flat_map(|sample| tokens.iter().flat_map(move |token| part(sample, token))).collect()
}
