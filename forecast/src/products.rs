//! The matrix products of the network, counted: what its arithmetic consists of, and how fast it could be at best.
//!
//! Element-wise work (normalisation, softmax, activations) and copies are left out: a share of the rate at which the
//! device multiplies matrices tells how much time goes into these.

use burn::tensor::{Device, Tensor, TensorData};

use crate::Error;
use crate::conditioning::TokenLayout;
use crate::denoiser::{DenoiserConfig, N_LEVEL_FEATURES, TokenOf};

/// Some equal products `[batch, rows, inner] × [batch, inner, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// How many of them.
    pub n: usize,
    /// Independent pairs of matrices.
    pub batch: usize,
    /// Rows of the left matrix and of the result.
    pub rows: usize,
    /// Columns of the left matrix, rows of the right one.
    pub inner: usize,
    /// Columns of the right matrix and of the result.
    pub columns: usize,
    /// Whether the left matrix is data, whose gradient nobody asks for.
    pub of_data: bool,
}

impl Product {
    /// Multiplications, each with an addition: `n · batch · rows · inner · columns`.
    pub fn multiply_adds(&self) -> u64 {
        [self.n, self.batch, self.rows, self.inner, self.columns].map(|size| size as u64).iter().product()
    }

    /// The products that make the gradients of both matrices: of the right one `leftᵀ × gradient`, and of the left one
    /// `gradient × rightᵀ` unless it is data.
    fn gradients(self) -> impl Iterator<Item = Product> {
        let right = Product { rows: self.inner, inner: self.rows, ..self };
        let left = Product { inner: self.columns, columns: self.inner, ..self };
        [(true, right), (!self.of_data, left)].into_iter().filter_map(|(needed, product)| needed.then_some(product))
    }
}

/// Multiply-adds of all products together.
pub fn multiply_adds(products: &[Product]) -> u64 {
    products.iter().map(Product::multiply_adds).sum()
}

/// Tokens that go through the network together, and those that they attend to besides.
#[derive(Clone, Copy, Debug)]
struct Pass {
    batch: usize,
    time: usize,
    /// Tokens of one time: as many as there are series where each has its own, else 1.
    n_groups: usize,
    /// Members of the batch with levels of their own; 1 when all have the same.
    n_levels: usize,
    /// Cached tokens that all of the batch share.
    n_shared: usize,
    /// Cached tokens of each member of the batch.
    n_own: usize,
}

/// Products of one pass of the network, `n` times.
///
/// With `d = d_model`, `e` elements and `c` calendar features of a token:
/// ```text
/// for each token: input (4 e + c) → d, output d → e
///     in every layer: attention d → 3 d and d → d, feed-forward d → 4 d → d
///     in every layer and head: queries × keys and weights × values, with all shared and own keys; the mask saves nothing
/// for each token, once where all of the batch have the same levels: level 16 → d → d, last modulation d → 2 d, skip d → e
///     in every layer: modulation d → 6 d
/// for each time, in every layer where each series has its own tokens: mean of these d → 4 d
/// ```
fn forward(network: &DenoiserConfig, pass: Pass, n: usize) -> Vec<Product> {
    let DenoiserConfig { n_elements, n_calendar, d_model: d, n_heads, n_layers, token, .. } = *network;
    let Pass { batch, time, n_groups, n_levels, n_shared, n_own } = pass;
    let linear = |n_layers: usize, rows: usize, inner: usize, columns: usize| Product {
        n: n * n_layers,
        batch: 1,
        rows,
        inner,
        columns,
        of_data: false,
    };
    let (tokens, levels) = (batch * time * n_groups, n_levels * time);
    let mut products = vec![
        Product { of_data: true, ..linear(1, tokens, 4 * n_elements + n_calendar, d) },
        linear(n_layers, tokens, d, 3 * d),
        linear(n_layers, tokens, d, d),
        linear(n_layers, tokens, d, 4 * d),
        linear(n_layers, tokens, 4 * d, d),
        linear(1, tokens, d, n_elements),
        Product { of_data: true, ..linear(1, levels, N_LEVEL_FEATURES, d) },
        linear(1, levels, d, d),
        linear(n_layers, levels, d, 6 * d),
        linear(1, levels, d, 2 * d),
        linear(1, levels, d, n_elements),
    ];
    if token == TokenOf::Series {
        products.push(linear(n_layers, batch * time, d, 4 * d));
    }
    let (channels, n_heads) = (d / n_heads, n_groups * n_heads);
    let mut attend = |batch: usize, rows: usize, n_keys: usize| {
        let scores = Product { n: n * n_layers, batch, rows, inner: channels, columns: n_keys, of_data: false };
        let values = Product { inner: n_keys, columns: channels, ..scores };
        products.extend([scores, values]);
    };
    if n_shared > 0 {
        attend(n_heads, batch * time, n_shared);
    }
    attend(batch * n_heads, time, n_own + time);
    products
}

/// Tokens of one time.
fn n_groups(network: &DenoiserConfig, layout: &TokenLayout) -> usize {
    layout.n_elements() / network.n_elements
}

/// Products of one optimiser step on a batch of windows: forward, and the gradients of weights and activations.
pub fn training_step(network: &DenoiserConfig, layout: &TokenLayout, batch_size: usize) -> Vec<Product> {
    let time = layout.n_context_tokens + layout.n_horizon_tokens;
    let n_groups = n_groups(network, layout);
    let pass = Pass { batch: batch_size, time, n_groups, n_levels: batch_size, n_shared: 0, n_own: 0 };
    let forward = forward(network, pass, 1);
    let gradients: Vec<Product> = forward.iter().flat_map(|product| product.gradients()).collect();
    [forward, gradients].concat()
}

/// Products of an autoregressive forecast of the trained horizon: the context once, then every token `passes` times. The
/// first pass of a token also takes the one before it, which is finished, into the cache.
pub fn sampling(network: &DenoiserConfig, layout: &TokenLayout, n_samples: usize, passes: usize) -> Vec<Product> {
    let (n_context, n_groups) = (layout.n_context_tokens, n_groups(network, layout));
    let context = Pass { batch: 1, time: n_context, n_groups, n_levels: 1, n_shared: 0, n_own: 0 };
    let mut products = forward(network, context, 1);
    for token in 0..layout.n_horizon_tokens {
        let n_shared = n_context;
        let pass =
            |time: usize| Pass { batch: n_samples, time, n_groups, n_levels: 1, n_shared, n_own: token + 1 - time };
        let first = usize::from(token > 0);
        if first > 0 {
            products.extend(forward(network, pass(2), first));
        }
        products.extend(forward(network, pass(1), passes - first));
    }
    products
}

/// Products with made-up matrices, ready to be multiplied.
pub(crate) struct Prepared {
    operands: Vec<(usize, Tensor<3>, Tensor<3>)>,
    device: Device,
}

impl Prepared {
    pub(crate) fn new(products: &[Product], device: &Device) -> Self {
        let matrices = |shape: [usize; 3]| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let operands = products
            .iter()
            .map(|p| (p.n, matrices([p.batch, p.rows, p.inner]), matrices([p.batch, p.inner, p.columns])))
            .collect();
        Self { operands, device: device.clone() }
    }

    /// Multiplies all of them, and waits for the device.
    pub(crate) fn multiply(&self) -> Result<(), Error> {
        for (n, left, right) in &self.operands {
            for _ in 0..*n {
                drop(left.clone().matmul(right.clone()));
            }
        }
        self.device.sync().map_err(|error| Error::Device { problem: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Sight;

    /// Two steps of three series in a token, one calendar feature.
    const NETWORK: DenoiserConfig = DenoiserConfig {
        n_elements: 6,
        n_calendar: 1,
        n_horizon_tokens: 2,
        d_model: 4,
        n_heads: 2,
        n_layers: 1,
        attention: Sight::Causal,
        token: TokenOf::Panel,
    };
    const LAYOUT: TokenLayout =
        TokenLayout { n_series: 3, n_calendar: 1, patch: 2, n_context_tokens: 3, n_horizon_tokens: 2, n_known: 0 };

    /// Weights that a token meets: (24 + 1)·4 in front, 4·12 + 4·4 + 4·16 + 16·4 in the layer, 4·6 behind.
    const OF_A_TOKEN: u64 = 100 + 48 + 16 + 64 + 64 + 24;
    /// Weights that its level meets: 16·4 + 4·4 in front, 4·24 in the layer, 4·8 and 4·6 behind.
    const OF_A_LEVEL: u64 = 64 + 16 + 96 + 32 + 24;

    #[test]
    fn a_forecast_is_counted_as_by_hand() {
        // For each query, two heads of two channels: 4 for the scores with a key, 4 for its value.
        let context = 3 * (OF_A_TOKEN + OF_A_LEVEL) + 3 * 3 * 8;
        // First token of the horizon, 5 passes: context and itself.
        let first = 5 * (OF_A_TOKEN + (3 + 1) * 8);
        // Second token: one pass of both tokens, which see context and both; then 4 passes, which see as much.
        let second = 2 * (OF_A_TOKEN + (3 + 2) * 8) + 4 * (OF_A_TOKEN + (3 + 2) * 8);
        // All samples have the same levels.
        let levels = (5 + 6) * OF_A_LEVEL;
        assert_eq!(multiply_adds(&sampling(&NETWORK, &LAYOUT, 7, 5)), context + levels + 7 * (first + second));
        let one_pass = 3 * OF_A_LEVEL + first / 5 + second / 6 * 2;
        assert_eq!(multiply_adds(&sampling(&NETWORK, &LAYOUT, 1, 1)), context + one_pass);
    }

    #[test]
    fn a_training_step_is_counted_as_by_hand() {
        // Data need no gradient: 100 + 64 multiply-adds of a token are done twice, all others three times.
        let tokens = 5 * (3 * (OF_A_TOKEN + OF_A_LEVEL) - 164);
        let attention = 3 * 5 * 5 * 8;
        assert_eq!(multiply_adds(&training_step(&NETWORK, &LAYOUT, 11)), 11 * (tokens + attention));
    }

    #[test]
    fn every_weight_of_the_network_is_met_once() {
        let denoiser = crate::denoiser::Denoiser::new(&NETWORK, &mut crate::noise::Stream::new(1, 0), &crate::cpu());
        let weights: usize = burn::module::Module::num_params(&denoiser);
        // Beside the matrices of the linear layers: places, biases, and scale and shift of three norms.
        let places = 3 * 4;
        let biases = 4 + 4 + 4 + (12 + 4 + 16 + 4 + 24) + 8 + 6 + 6;
        assert_eq!(weights as u64, OF_A_TOKEN + OF_A_LEVEL + places + biases + 3 * 8);
    }
}
