//! Self-attention with rotary positions and a cache of what came before.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::noise::Stream;

/// Keys and values `[batch, head, time, channel]` of tokens that will not change any more.
#[derive(Clone, Debug)]
pub struct KeyValue {
    /// Keys, rotated to their positions.
    pub key: Tensor<4>,
    /// Values.
    pub value: Tensor<4>,
}

impl KeyValue {
    /// These tokens and then those.
    pub fn followed_by(self, later: KeyValue) -> KeyValue {
        KeyValue {
            key: Tensor::cat(vec![self.key, later.key], 2),
            value: Tensor::cat(vec![self.value, later.value], 2),
        }
    }

    /// Each sequence so many times, one after the other.
    pub fn repeated(&self, n_times: usize) -> KeyValue {
        let repeat = |tensor: &Tensor<4>| {
            let sequences = (0..tensor.dims()[0]).map(|row| tensor.clone().narrow(0, row, 1).repeat_dim(0, n_times));
            Tensor::cat(sequences.collect(), 0)
        };
        KeyValue { key: repeat(&self.key), value: repeat(&self.value) }
    }

    /// The first tokens only.
    pub fn first(&self, n_tokens: usize) -> KeyValue {
        KeyValue { key: self.key.clone().narrow(2, 0, n_tokens), value: self.value.clone().narrow(2, 0, n_tokens) }
    }
}

/// What a layer remembers: the observed context, the same for all samples, and each sample's own finished tokens.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    /// Of the context, batch 1.
    pub shared: Option<KeyValue>,
    /// Of each sample, the full batch.
    pub own: Option<KeyValue>,
}

/// Rotary position angles (Su et al. 2021) of consecutive positions: cosines and sines `[1, 1, time, channel / 2]`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// The angles of `n_tokens` positions from `first` on.
    pub fn new(first: usize, n_tokens: usize, n_channels: usize, device: &Device) -> Self {
        let half = n_channels / 2;
        let angles: Vec<f64> = (first..first + n_tokens)
            .flat_map(|position| (0..half).map(move |i| position as f64 * libm::pow(100.0, -(i as f64) / half as f64)))
            .collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, n_tokens, half]), device)
        };
        Self { cos: table(libm::cos), sin: table(libm::sin) }
    }

    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let rotated_a = a.clone() * self.cos.clone() - b.clone() * self.sin.clone();
        let rotated_b = a * self.sin.clone() + b * self.cos.clone();
        Tensor::cat(vec![rotated_a, rotated_b], 3)
    }
}

/// What a token of the horizon sees of the horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sight {
    /// Itself and what is before it: what a forecast says of its first steps does not depend on how far it goes.
    #[default]
    Causal,
    /// All of it, for comparison: what is drawn together depends on what else is drawn. The context stays causal.
    Joint,
}

impl Sight {
    /// Additive mask `[1, 1, time, time]` among tokens of which the first `n_context` are of the context.
    pub fn mask(self, n_context: usize, n_tokens: usize, device: &Device) -> Tensor<4> {
        let sees = |query: usize, key: usize| key <= query || (self == Self::Joint && query >= n_context);
        let values: Vec<f32> = (0..n_tokens)
            .flat_map(|query| (0..n_tokens).map(move |key| if sees(query, key) { 0.0 } else { -1e9 }))
            .collect();
        Tensor::from_data(TensorData::new(values, [1, 1, n_tokens, n_tokens]), device)
    }
}

/// A linear layer with normal weights of standard deviation `gain / √d_input`.
pub(crate) fn linear(d_input: usize, d_output: usize, gain: f64, stream: &mut Stream, device: &Device) -> Linear {
    let deviation = gain / (d_input as f64).sqrt();
    let weight: Vec<f32> =
        (0..d_input * d_output).map(|_| if gain == 0.0 { 0.0 } else { (deviation * stream.normal()) as f32 }).collect();
    Linear {
        weight: Param::from_data(TensorData::new(weight, [d_input, d_output]), device),
        bias: Some(Param::from_data(TensorData::new(vec![0.0_f32; d_output], [d_output]), device)),
    }
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    query_key_value: Linear,
    output: Linear,
    n_heads: usize,
}

impl Attention {
    /// Random weights; the output projection starts small.
    pub fn new(d_model: usize, n_heads: usize, stream: &mut Stream, device: &Device) -> Self {
        Self {
            query_key_value: linear(d_model, 3 * d_model, 1.0, stream, device),
            output: linear(d_model, d_model, 1.0, stream, device),
            n_heads,
        }
    }

    /// Number of heads.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// Attends from the given tokens to the cache and to themselves.
    ///
    /// Tokens of the same time are so many groups, of which each attends to its own: as if they had heads of their own. Returns the
    /// output and the keys and values of the given tokens, for the cache.
    ///
    /// # Shapes
    /// - `x` and output: `[batch, time · group, d_model]`
    /// - keys and values: `[batch, group · head, time, channel]`
    /// - `mask`: `[1, 1, time, time]` among the given tokens
    pub fn forward(
        &self,
        x: Tensor<3>,
        n_groups: usize,
        rotation: &Rotation,
        mask: &Tensor<4>,
        cache: &LayerCache,
    ) -> (Tensor<3>, KeyValue) {
        let [batch, n_tokens, d_model] = x.dims();
        let (time, heads, channels) = (n_tokens / n_groups, n_groups * self.n_heads, d_model / self.n_heads);
        let projected = self.query_key_value.forward(x).reshape([batch, time, n_groups, 3 * d_model]);
        let part = |index: usize| {
            let part = projected.clone().narrow(3, index * d_model, d_model);
            part.reshape([batch, time, heads, channels]).swap_dims(1, 2)
        };
        let query = rotation.apply(part(0)).mul_scalar((channels as f32).powf(-0.5));
        let current = KeyValue { key: rotation.apply(part(1)), value: part(2) };
        let (own, mask) = match &cache.own {
            Some(earlier) => {
                let n_earlier = earlier.key.dims()[2];
                let seen = Tensor::zeros([1, 1, time, n_earlier], &mask.device());
                (earlier.clone().followed_by(current.clone()), Tensor::cat(vec![seen, mask.clone()], 3))
            }
            None => (current.clone(), mask.clone()),
        };
        let own_scores = query.clone().matmul(own.key.swap_dims(2, 3)) + mask;
        let attended = match &cache.shared {
            None => softmax(own_scores, 3).matmul(own.value),
            Some(shared) => {
                // All samples' queries side by side meet the one context in a single product.
                let n_shared = shared.key.dims()[2];
                let fold = |x: Tensor<4>, last: usize| x.swap_dims(0, 1).reshape([1, heads, batch * time, last]);
                let unfold = |x: Tensor<4>, last: usize| x.reshape([heads, batch, time, last]).swap_dims(0, 1);
                let scores = fold(query, channels).matmul(shared.key.clone().swap_dims(2, 3));
                let weights = softmax(Tensor::cat(vec![unfold(scores, n_shared), own_scores], 3), 3);
                let n_own = weights.dims()[3] - n_shared;
                let from_shared = fold(weights.clone().narrow(3, 0, n_shared), n_shared).matmul(shared.value.clone());
                unfold(from_shared, channels) + weights.narrow(3, n_shared, n_own).matmul(own.value)
            }
        };
        (self.output.forward(attended.swap_dims(1, 2).reshape([batch, n_tokens, d_model])), current)
    }
}
