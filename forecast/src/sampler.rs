//! From noise to innovations: follows a schedule matrix with a second-order solver and a cache.

use burn::tensor::Device;

use crate::conditioning::{Conditioning, INNOVATION_MAX, TokenLayout};
use crate::denoiser::{Cache, Denoiser};
use crate::diffusion::TokenRows;
use crate::innovation::Pins;
use crate::level::NoiseLevel;
use crate::noise::Noise;
use crate::schedule::ScheduleMatrix;
use crate::{Error, SampleConfig};

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
pub struct PinnedStart<'a> {
    /// The update that meets the observations.
    pub pins: &'a Pins,
    /// Tokens that hold pinned elements.
    pub n_tokens: usize,
}

/// Which samples are drawn, and where their path begins in the noise.
#[derive(Clone, Copy)]
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

/// Innovations of several samples while they are being denoised, `[sample, token, element]`.
struct State {
    values: Vec<f32>,
    /// Velocity and step of each token's previous pass, for the second-order solver.
    previous: Vec<Option<(Vec<f32>, f64)>>,
    n_tokens: usize,
    n_elements: usize,
}

impl State {
    fn token(&self, sample: usize, token: usize) -> &[f32] {
        &self.values[(sample * self.n_tokens + token) * self.n_elements..][..self.n_elements]
    }

    fn token_mut(&mut self, sample: usize, token: usize) -> &mut [f32] {
        &mut self.values[(sample * self.n_tokens + token) * self.n_elements..][..self.n_elements]
    }

    /// Two-step Adams–Bashforth on `dx/dφ = v`, with the first step of a token by Euler.
    ///
    /// ```text
    /// x ← x − Δ · (v + Δ / (2 Δ') · (v − v'))
    /// ```
    fn advance(&mut self, token: usize, velocity: Vec<f32>, from: NoiseLevel, to: NoiseLevel) {
        let step = from.angle() - to.angle();
        let n_samples = self.values.len() / (self.n_tokens * self.n_elements);
        let previous = self.previous[token].take();
        for sample in 0..n_samples {
            let range = sample * self.n_elements..(sample + 1) * self.n_elements;
            for (offset, index) in range.enumerate() {
                let current = f64::from(velocity[index]);
                let slope = match &previous {
                    Some((earlier, earlier_step)) => {
                        current + step / (2.0 * earlier_step) * (current - f64::from(earlier[index]))
                    }
                    None => current,
                };
                let element = &mut self.token_mut(sample, token)[offset];
                let mut value = f64::from(*element) - step * slope;
                if to == NoiseLevel::CLEAN {
                    value = value.clamp(-INNOVATION_MAX, INNOVATION_MAX);
                }
                *element = value as f32;
            }
        }
        self.previous[token] = Some((velocity, step));
    }
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
        let mut state = self.initial_noise(draw, Noise::new(config.seed));
        let context = self.encode_context(conditionings);
        let mut n_finished = 0;
        if let Some(PinnedStart { pins, n_tokens }) = pinned {
            self.denoise(conditionings, &context, &mut state, 0..n_tokens, config)?;
            let n_pinned = n_tokens * state.n_elements;
            for sample in state.values.chunks_exact_mut(draw.n_tokens * state.n_elements) {
                let mut start: Vec<f64> = sample[..n_pinned].iter().map(|&value| f64::from(value)).collect();
                pins.apply(&mut start);
                for (value, moved) in sample[..n_pinned].iter_mut().zip(start) {
                    *value = moved.clamp(-INNOVATION_MAX, INNOVATION_MAX) as f32;
                }
            }
            n_finished = n_tokens;
        }
        self.denoise(conditionings, &context, &mut state, n_finished..draw.n_tokens, config)?;
        Ok(state.values)
    }

    fn initial_noise(&self, draw: Draw, noise: Noise) -> State {
        let (n_elements, n_series) = (self.layout.n_elements(), self.layout.n_series);
        let mut values = Vec::with_capacity(draw.n_samples * draw.n_tokens * n_elements);
        for sample in draw.first_sample..draw.first_sample + draw.n_samples {
            for step in draw.first_step..draw.first_step + draw.n_tokens * self.layout.patch {
                values.extend((0..n_series).map(|series| noise.normal(sample as u32, step as u32, series as u32)));
            }
        }
        State { values, previous: vec![None; draw.n_tokens], n_tokens: draw.n_tokens, n_elements }
    }

    /// Keys and values of the context: computed once, and shared by all samples when there is one conditioning.
    fn encode_context(&self, conditionings: &[Conditioning]) -> Cache {
        let mut rows = TokenRows::default();
        let (n_context, n_elements) = (self.layout.n_context_tokens, self.layout.n_elements());
        for view in conditionings {
            for token in 0..n_context {
                let elements = view.context[token * n_elements..(token + 1) * n_elements].iter();
                rows.push(elements.map(|&value| (!value.is_nan()).then_some((value, NoiseLevel::CLEAN))), 0);
            }
            let gap_aware = view.context_standard.iter();
            rows.standard.extend(gap_aware);
            rows.calendar.extend_from_slice(&view.calendar[..n_context * self.layout.n_calendar]);
        }
        let tokens = rows.into_tokens(self.layout, conditionings.len(), 0, self.device);
        let (_, key_values) = self.denoiser.forward(&tokens, &Cache::default());
        Cache::of_context(key_values, conditionings.len() == 1)
    }

    /// Takes the tokens of a range from noise to clean; those before it are finished.
    fn denoise(
        &self,
        conditionings: &[Conditioning],
        context: &Cache,
        state: &mut State,
        range: std::ops::Range<usize>,
        config: &SampleConfig,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let matrix = ScheduleMatrix::new(config.schedule, range.len(), config.passes)?;
        let mut cache = context.clone();
        let mut n_cached = 0;
        for (before, after) in matrix.passes() {
            let changes = |token: &usize| before[*token] != after[*token];
            // Columns never get cleaner to the right, so the tokens of a pass are neighbours.
            let Some(first) = (0..before.len()).find(changes) else { continue };
            let end = before.len() - (0..before.len()).rev().find(changes).map_or(0, |last| before.len() - 1 - last);
            let (first, end) = (range.start + first, range.start + end);
            let level =
                |token: usize| if token < range.start { NoiseLevel::CLEAN } else { before[token - range.start] };
            let fed = n_cached..end;
            let tokens = self.horizon_tokens(conditionings, state, fed.clone(), level);
            let (velocity, key_values) = self.denoiser.forward(&tokens, &cache);
            cache.append(key_values, first - n_cached);
            for token in first..end {
                let velocity = velocity.clone().narrow(1, token - fed.start, 1).try_into_vec_as::<f32>();
                let velocity = velocity.map_err(|error| Error::Device { problem: error.to_string() })?;
                let velocity = velocity.into_iter().map(|value| value * self.velocity_share as f32).collect();
                state.advance(token, velocity, before[token - range.start], after[token - range.start]);
            }
            n_cached = first;
        }
        Ok(())
    }

    fn horizon_tokens(
        &self,
        conditionings: &[Conditioning],
        state: &State,
        tokens: std::ops::Range<usize>,
        level: impl Fn(usize) -> NoiseLevel,
    ) -> crate::denoiser::Tokens {
        let (n_elements, n_calendar) = (self.layout.n_elements(), self.layout.n_calendar);
        let n_context = self.layout.n_context_tokens;
        let n_samples = state.values.len() / (state.n_tokens * n_elements);
        let mut rows = TokenRows::default();
        for sample in 0..n_samples {
            let view = &conditionings[sample % conditionings.len()];
            for token in tokens.clone() {
                let elements = state.token(sample, token).iter();
                rows.push(elements.map(|&value| Some((value, level(token)))), token + 1);
            }
            rows.standard.extend_from_slice(&view.horizon_standard[tokens.start * n_elements..tokens.end * n_elements]);
            let calendar = (n_context + tokens.start) * n_calendar..(n_context + tokens.end) * n_calendar;
            rows.calendar.extend_from_slice(&view.calendar[calendar]);
        }
        rows.into_tokens(self.layout, n_samples, n_context + tokens.start, self.device)
    }
}
