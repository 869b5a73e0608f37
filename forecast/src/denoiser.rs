//! The network: a causal transformer that predicts the velocity of every element of every token.
//!
//! A token is a patch of time steps of all series, or of one ([`TokenOf`]). The network sees, for each element, its noisy value, its
//! noise level, whether it is a gap and its standard value (observed, or as the base forecaster expects it);
//! for each token the calendar and its place in the horizon. The mean noise level of a token modulates every layer (adaptive
//! normalisation with zero-initialised gates, Peebles and Xie 2023). A token attends to tokens at or before it, and to later
//! ones only where that is asked for.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{gelu, silu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::attention::{Attention, KeyValue, LayerCache, Rotation, Sight, linear};
use crate::noise::Stream;

/// Sines and cosines that encode a noise level.
pub const N_LEVEL_FEATURES: usize = 16;

/// Sizes of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenoiserConfig {
    /// Elements of a token: steps of a patch, times series where it is of all.
    pub n_elements: usize,
    /// Calendar features of a token.
    pub n_calendar: usize,
    /// Tokens of the trained horizon.
    pub n_horizon_tokens: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; must divide `d_model` into an even number of channels.
    pub n_heads: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// What a token of the horizon attends to.
    #[serde(default)]
    pub attention: Sight,
    /// What a token is of.
    #[serde(default)]
    pub token: TokenOf,
}

/// What a token is a patch of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenOf {
    /// All series of the panel: the network knows each by its place.
    #[default]
    Panel,
    /// A single series. All series share the weights, and a token hears of the others through their mean (Zaheer et al. 2017, Deep
    /// Sets); so the network can be of any number of series, and of series that it has never seen.
    Series,
}

impl std::fmt::Display for TokenOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Panel => "the panel",
            Self::Series => "single series",
        })
    }
}

/// Tokens as the network takes them. All parts have the same time, and but for the levels the same batch. Elements are ordered by
/// step and then by series; a network whose tokens are of single series cuts them up itself.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Noisy values `[batch, time, element]`; 0 for a gap.
    pub noisy: Tensor<3>,
    /// Noise share `sin φ` of each element `[batch, time, element]`.
    pub noise_share: Tensor<3>,
    /// 1 where the element is a gap of the context, else 0, `[batch, time, element]`.
    pub is_gap: Tensor<3>,
    /// Standard value of each element, observed or expected by the base, `[batch, time, element]`.
    pub standard: Tensor<3>,
    /// Calendar `[batch, time, feature]`.
    pub calendar: Tensor<3>,
    /// Harmonics of the mean noise level, from [`level_harmonics`], `[batch, time, 16]`; batch 1 when all have the same.
    pub level: Tensor<3>,
    /// 0 for context tokens, 1.. for the tokens of the horizon, `[batch, time]`.
    pub place: Tensor<2, Int>,
    /// Tokens at the start that are of the context.
    pub n_context: usize,
    /// Position of the first token in the sequence.
    pub first_position: usize,
}

/// Sines and cosines of multiples of the angle of a noise level.
pub fn level_harmonics(angle: f64) -> [f32; N_LEVEL_FEATURES] {
    std::array::from_fn(|index| {
        let multiple = (index / 2 + 1) as f64 * angle;
        (if index % 2 == 0 { libm::sin(multiple) } else { libm::cos(multiple) }) as f32
    })
}

/// Keys and values of every layer.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// One per layer; empty before anything is cached.
    pub layers: Vec<LayerCache>,
}

/// From `[batch, time, element]`, ordered by step and series, to `[batch, time · group, element]`.
fn into_groups(x: Tensor<3>, n_groups: usize) -> Tensor<3> {
    if n_groups == 1 {
        return x;
    }
    let [batch, time, n] = x.dims();
    x.reshape([batch, time, n / n_groups, n_groups]).swap_dims(2, 3).reshape([batch, time * n_groups, n / n_groups])
}

/// The way back.
fn from_groups(x: Tensor<3>, n_groups: usize) -> Tensor<3> {
    if n_groups == 1 {
        return x;
    }
    let [batch, n_tokens, n] = x.dims();
    let time = n_tokens / n_groups;
    x.reshape([batch, time, n_groups, n]).swap_dims(2, 3).reshape([batch, time, n_groups * n])
}

/// What all groups of a time share, `[batch, time, channel]`, once for each: `[batch, time · group, channel]`.
fn for_each_group(x: Tensor<3>, n_groups: usize) -> Tensor<3> {
    if n_groups == 1 {
        return x;
    }
    let [batch, time, d] = x.dims();
    x.reshape([batch, time, 1, d]).repeat_dim(2, n_groups).reshape([batch, time * n_groups, d])
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: Attention,
    feed_norm: LayerNorm,
    feed_in: Linear,
    feed_out: Linear,
    modulation: Linear,
    /// From the mean over the series; none where tokens are of all of them.
    others: Option<Linear>,
}

impl Block {
    fn new(config: &DenoiserConfig, stream: &mut Stream, device: &Device) -> Self {
        let d = config.d_model;
        Self {
            attention_norm: LayerNormConfig::new(d).init(device),
            attention: Attention::new(d, config.n_heads, stream, device),
            feed_norm: LayerNormConfig::new(d).init(device),
            feed_in: linear(d, 4 * d, 1.0, stream, device),
            feed_out: linear(4 * d, d, 1.0, stream, device),
            modulation: linear(d, 6 * d, 0.0, stream, device),
            others: (config.token == TokenOf::Series).then(|| linear(d, 4 * d, 1.0, stream, device)),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        n_groups: usize,
        level: Tensor<3>,
        rotation: &Rotation,
        mask: &Tensor<4>,
        cache: &LayerCache,
    ) -> (Tensor<3>, KeyValue) {
        let [batch, n_tokens, d] = x.dims();
        let modulation = for_each_group(self.modulation.forward(level), n_groups);
        let part = |index: usize| modulation.clone().narrow(2, index * d, d);
        let normed = self.attention_norm.forward(x.clone()) * (part(0) + 1.0) + part(1);
        let (attended, key_value) = self.attention.forward(normed, n_groups, rotation, mask, cache);
        let x = x + attended * part(2);
        let normed = self.feed_norm.forward(x.clone()) * (part(3) + 1.0) + part(4);
        let mut hidden = self.feed_in.forward(normed.clone());
        if let Some(others) = &self.others {
            let time = n_tokens / n_groups;
            let mean = normed.reshape([batch, time, n_groups, d]).mean_dim(2).reshape([batch, time, d]);
            hidden = hidden + for_each_group(others.forward(mean), n_groups);
        }
        let fed = self.feed_out.forward(gelu(hidden));
        (x + fed * part(5), key_value)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Denoiser {
    input: Linear,
    place: Param<Tensor<2>>,
    level_in: Linear,
    level_out: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    modulation: Linear,
    output: Linear,
    skip: Linear,
    is_joint: bool,
    n_elements: usize,
}

impl Denoiser {
    /// A network with random weights that predicts a velocity of exactly 0, the optimum for white noise.
    pub fn new(config: &DenoiserConfig, stream: &mut Stream, device: &Device) -> Self {
        let d = config.d_model;
        let place: Vec<f32> = (0..(config.n_horizon_tokens + 1) * d).map(|_| 0.02 * stream.normal() as f32).collect();
        Self {
            input: linear(4 * config.n_elements + config.n_calendar, d, 1.0, stream, device),
            place: Param::from_data(TensorData::new(place, [config.n_horizon_tokens + 1, d]), device),
            level_in: linear(N_LEVEL_FEATURES, d, 1.0, stream, device),
            level_out: linear(d, d, 1.0, stream, device),
            blocks: (0..config.n_layers).map(|_| Block::new(config, stream, device)).collect(),
            norm: LayerNormConfig::new(d).init(device),
            modulation: linear(d, 2 * d, 0.0, stream, device),
            output: linear(d, config.n_elements, 0.0, stream, device),
            skip: linear(d, config.n_elements, 0.0, stream, device),
            is_joint: config.attention == Sight::Joint,
            n_elements: config.n_elements,
        }
    }

    /// Predicts the velocity of each element, and returns the keys and values of the tokens for the cache.
    ///
    /// # Shapes
    /// - output: `[batch, time, element]`
    ///
    /// # Panics
    /// When the parts of `tokens` disagree in shape: they are built together.
    pub fn forward(&self, tokens: &Tokens, cache: &Cache) -> (Tensor<3>, Vec<KeyValue>) {
        let [batch, time, n_elements] = tokens.noisy.dims();
        let device = tokens.noisy.device();
        let [_, d] = self.place.dims();
        let n_groups = n_elements / self.n_elements;
        let noisy = into_groups(tokens.noisy.clone(), n_groups);
        let elements = vec![
            noisy.clone(),
            into_groups(tokens.noise_share.clone(), n_groups),
            into_groups(tokens.is_gap.clone(), n_groups),
            into_groups(tokens.standard.clone(), n_groups),
            for_each_group(tokens.calendar.clone(), n_groups),
        ];
        let place = self.place.val().select(0, tokens.place.clone().reshape([batch * time])).reshape([batch, time, d]);
        let mut x = self.input.forward(Tensor::cat(elements, 2)) + for_each_group(place, n_groups);
        let level = silu(self.level_out.forward(silu(self.level_in.forward(tokens.level.clone()))));
        let n_channels = d / self.blocks.first().map_or(1, |block| block.attention.n_heads());
        let rotation = Rotation::new(tokens.first_position, time, n_channels, &device);
        let sight = if self.is_joint { Sight::Joint } else { Sight::Causal };
        let mask = sight.mask(tokens.n_context, time, &device);
        let empty = LayerCache::default();
        let mut key_values = Vec::with_capacity(self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let cached = cache.layers.get(index).unwrap_or(&empty);
            let (next, key_value) = block.forward(x, n_groups, level.clone(), &rotation, &mask, cached);
            x = next;
            key_values.push(key_value);
        }
        let modulation = for_each_group(self.modulation.forward(level.clone()), n_groups);
        let normed = self.norm.forward(x) * (modulation.clone().narrow(2, 0, d) + 1.0) + modulation.narrow(2, d, d);
        let velocity = self.output.forward(normed) + for_each_group(self.skip.forward(level), n_groups) * noisy;
        (from_groups(velocity, n_groups), key_values)
    }
}

impl Cache {
    /// The cache of an encoded context, shared by all samples or of each sample its own.
    pub fn of_context(key_values: Vec<KeyValue>, shared: bool) -> Self {
        let layer = |key_value| {
            if shared {
                LayerCache { shared: Some(key_value), own: None }
            } else {
                LayerCache { shared: None, own: Some(key_value) }
            }
        };
        Self { layers: key_values.into_iter().map(layer).collect() }
    }

    /// The cache with each sequence's own tokens so many times, one after the other.
    pub fn repeated(mut self, n_times: usize) -> Self {
        for layer in &mut self.layers {
            layer.own = layer.own.take().map(|own| own.repeated(n_times));
        }
        self
    }

    /// Remembers the first tokens of a pass, which are finished.
    pub fn append(&mut self, key_values: Vec<KeyValue>, n_tokens: usize) {
        if n_tokens == 0 {
            return;
        }
        for (layer, key_value) in self.layers.iter_mut().zip(key_values) {
            let finished = key_value.first(n_tokens);
            layer.own = Some(match layer.own.take() {
                Some(earlier) => earlier.followed_by(finished),
                None => finished,
            });
        }
    }
}
