//! The recurrent network: a stack of GRU cells whose joint state `z` is the belief about the path so far.
//!
//! One step takes `z`, the noisy values of a token, its noise level and its covariates, and gives the next `z`; the
//! velocity is read off `z` (Chen et al. 2024, section D.10 and their code for vector data).

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::noise::Stream;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// Series of the panel.
    pub n_series: usize,
    /// Covariates of a token: lagged values of all series, and the calendar.
    pub n_covariates: usize,
    /// Stacked GRU cells.
    pub n_cells: usize,
    /// State of each cell; `z` has the states of all.
    pub d_cell: usize,
    /// Width of the embeddings of level and covariates.
    pub d_embedding: usize,
}

impl Sizes {
    /// Numbers in `z`.
    pub fn d_latent(&self) -> usize {
        self.n_cells * self.d_cell
    }
}

/// A linear layer with weights and biases uniform within `±bound`.
fn uniform_linear(d_input: usize, d_output: usize, bound: f64, stream: &mut Stream, device: &Device) -> Linear {
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| (bound * (2.0 * stream.uniform() - 1.0)) as f32).collect() };
    let weight = Param::from_data(TensorData::new(draw(d_input * d_output), [d_input, d_output]), device);
    let bias = Param::from_data(TensorData::new(draw(d_output), [d_output]), device);
    Linear { weight, bias: Some(bias) }
}

/// The layer as PyTorch starts it.
fn layer(d_input: usize, d_output: usize, stream: &mut Stream, device: &Device) -> Linear {
    uniform_linear(d_input, d_output, (d_input as f64).powf(-0.5), stream, device)
}

/// A gated recurrent unit (Cho et al. 2014), with the reset gate after the product as in PyTorch.
///
/// ```text
/// r = σ(W_r x + U_r h)    u = σ(W_u x + U_u h)    n = tanh(W_n x + r · U_n h)    h' = (1 − u) n + u h
/// ```
#[derive(Module, Debug)]
struct GruCell {
    /// To the three gates at once, in the order reset, update, new.
    input: Linear,
    state: Linear,
}

impl GruCell {
    fn new(d_input: usize, d_state: usize, stream: &mut Stream, device: &Device) -> Self {
        let bound = (d_state as f64).powf(-0.5);
        Self {
            input: uniform_linear(d_input, 3 * d_state, bound, stream, device),
            state: uniform_linear(d_state, 3 * d_state, bound, stream, device),
        }
    }

    fn forward(&self, x: Tensor<2>, state: Tensor<2>) -> Tensor<2> {
        let [_, d] = state.dims();
        let (from_input, from_state) = (self.input.forward(x), self.state.forward(state.clone()));
        let part = |gates: &Tensor<2>, gate: usize| gates.clone().narrow(1, gate * d, d);
        let reset = sigmoid(part(&from_input, 0) + part(&from_state, 0));
        let update = sigmoid(part(&from_input, 1) + part(&from_state, 1));
        let new = (part(&from_input, 2) + reset * part(&from_state, 2)).tanh();
        new.clone() + update * (state - new)
    }
}

/// Tokens on the host, a row each: step after step, and within a step one row per batch member.
#[derive(Default)]
pub(crate) struct TokenRows {
    /// Noisy standard values, `[row, series]`.
    pub noisy: Vec<f32>,
    /// Noise level of each row.
    pub levels: Vec<usize>,
    /// Covariates, `[row, covariate]`.
    pub covariates: Vec<f32>,
    /// 0 where the covariates of a row are withheld, else 1.
    pub shown: Vec<f32>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Network {
    level_in: Linear,
    level_out: Linear,
    /// One learned number per series, a constant covariate.
    series: Param<Tensor<2>>,
    covariates_in: Linear,
    covariates_out: Linear,
    mix_in: Linear,
    mix_out: Linear,
    mix_skip: Linear,
    cells: Vec<GruCell>,
    latent: Linear,
    velocity: Linear,
    d_embedding: usize,
}

impl Network {
    /// A network with random weights.
    pub fn new(sizes: &Sizes, stream: &mut Stream, device: &Device) -> Self {
        let (d, d_latent) = (sizes.d_embedding, sizes.d_latent());
        let d_input = d_latent + sizes.n_series + 2 * d;
        let series: Vec<f32> = (0..sizes.n_series).map(|_| stream.normal() as f32).collect();
        let d_cell_input = |cell: usize| if cell == 0 { d_latent } else { sizes.d_cell };
        Self {
            level_in: layer(d, d, stream, device),
            level_out: layer(d, d, stream, device),
            series: Param::from_data(TensorData::new(series, [1, sizes.n_series]), device),
            covariates_in: layer(sizes.n_covariates + sizes.n_series, d, stream, device),
            covariates_out: layer(d, d, stream, device),
            mix_in: layer(d_input, d_latent, stream, device),
            mix_out: layer(d_latent, d_latent, stream, device),
            mix_skip: layer(d_input, d_latent, stream, device),
            cells: (0..sizes.n_cells)
                .map(|cell| GruCell::new(d_cell_input(cell), sizes.d_cell, stream, device))
                .collect(),
            latent: layer(d_latent, d_latent, stream, device),
            velocity: layer(d_latent, sizes.n_series, stream, device),
            d_embedding: d,
        }
    }

    /// The belief before anything was seen, `[batch, latent]`.
    pub fn start(&self, batch: usize) -> Tensor<2> {
        Tensor::zeros([batch, self.latent.weight.dims()[1]], &self.latent.weight.device())
    }

    /// Embeds covariates, `[row, embedding]`. `shown` has 0 for the rows whose covariates are withheld.
    pub(crate) fn embed_covariates(&self, covariates: Vec<f32>, shown: Vec<f32>) -> Tensor<2> {
        let device = self.latent.weight.device();
        let n_rows = shown.len();
        let n_covariates = covariates.len() / n_rows;
        let covariates = Tensor::<2>::from_data(TensorData::new(covariates, [n_rows, n_covariates]), &device);
        let shown = Tensor::<2>::from_data(TensorData::new(shown, [n_rows, 1]), &device);
        let series = self.series.val().repeat_dim(0, n_rows);
        let all = Tensor::cat(vec![covariates, series], 1) * shown;
        self.covariates_out.forward(gelu(self.covariates_in.forward(all)))
    }

    /// What a step takes beside `z`, `[row, input]`.
    pub(crate) fn inputs(&self, noisy: Vec<f32>, levels: &[usize], covariates: Tensor<2>) -> Tensor<2> {
        let device = self.latent.weight.device();
        let n_rows = levels.len();
        let n_series = noisy.len() / n_rows;
        let noisy = Tensor::<2>::from_data(TensorData::new(noisy, [n_rows, n_series]), &device);
        let harmonics: Vec<f32> = levels.iter().flat_map(|&level| harmonics(level, self.d_embedding)).collect();
        let levels = Tensor::<2>::from_data(TensorData::new(harmonics, [n_rows, self.d_embedding]), &device);
        let levels = self.level_out.forward(gelu(self.level_in.forward(levels)));
        Tensor::cat(vec![noisy, levels, covariates], 1)
    }

    /// The inputs of whole rows.
    pub(crate) fn inputs_of(&self, rows: TokenRows) -> Tensor<2> {
        let covariates = self.embed_covariates(rows.covariates, rows.shown);
        self.inputs(rows.noisy, &rows.levels, covariates)
    }

    /// One step: `z` and the inputs of a token to the next `z`, `[batch, latent]`.
    pub(crate) fn step(&self, latent: Tensor<2>, inputs: Tensor<2>) -> Tensor<2> {
        let x = Tensor::cat(vec![latent.clone(), inputs], 1);
        let mixed = self.mix_out.forward(gelu(self.mix_in.forward(x.clone())));
        let mut x = gelu(self.mix_skip.forward(x) + mixed);
        let mut states = Vec::with_capacity(self.cells.len());
        for (cell, state) in self.cells.iter().zip(latent.chunk(self.cells.len(), 1)) {
            x = cell.forward(x, state);
            states.push(x.clone());
        }
        self.latent.forward(Tensor::cat(states, 1))
    }

    /// The `z` after each step of a sequence, from the inputs `[step * batch, input]`.
    pub(crate) fn steps(&self, start: Tensor<2>, inputs: &Tensor<2>) -> Vec<Tensor<2>> {
        let ([batch, _], [n_rows, _]) = (start.dims(), inputs.dims());
        let mut latent = start;
        (0..n_rows / batch)
            .map(|step| {
                latent = self.step(latent.clone(), inputs.clone().narrow(0, step * batch, batch));
                latent.clone()
            })
            .collect()
    }

    /// The velocity of a token, `[row, series]`, from the `z` that has seen it.
    pub(crate) fn velocity(&self, latent: Tensor<2>) -> Tensor<2> {
        self.velocity.forward(latent)
    }
}

/// Sines and then cosines of a level at geometrically spaced frequencies from 1 to 1/10000 (Vaswani et al. 2017).
fn harmonics(level: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angle = |index: usize| {
        level as f64 * libm::exp(-libm::log(10_000.0) * index as f64 / half.saturating_sub(1).max(1) as f64)
    };
    let sines = (0..half).map(|index| libm::sin(angle(index)) as f32);
    sines.chain((half..width).map(|index| libm::cos(angle(index - half)) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::gru::GruConfig;

    const SIZES: Sizes = Sizes { n_series: 2, n_covariates: 3, n_cells: 2, d_cell: 4, d_embedding: 6 };
    const N_STEPS: usize = 5;
    const BATCH: usize = 3;

    fn network() -> Network {
        Network::new(&SIZES, &mut Stream::new(1, 0), &crate::cpu())
    }

    fn rows() -> TokenRows {
        let mut stream = Stream::new(2, 0);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| stream.normal() as f32).collect() };
        let n_rows = N_STEPS * BATCH;
        TokenRows {
            noisy: draw(n_rows * 2),
            covariates: draw(n_rows * 3),
            levels: (0..n_rows).map(|row| row * 37 % 1001).collect(),
            shown: vec![1.0; n_rows],
        }
    }

    /// Velocities `[step, batch, series]`.
    fn velocities(rows: TokenRows) -> Vec<f32> {
        let network = network();
        let latents = network.steps(network.start(BATCH), &network.inputs_of(rows));
        numbers(network.velocity(Tensor::cat(latents, 0)))
    }

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.try_into_vec_as().expect("numbers")
    }

    #[test]
    fn step_by_step_is_the_same_as_the_sequence() {
        let network = network();
        let inputs = network.inputs_of(rows());
        let at_once = network.steps(network.start(BATCH), &inputs);
        let mut latent = network.start(BATCH);
        for (step, expected) in at_once.into_iter().enumerate() {
            let all = rows();
            let of_step = |values: &[f32], width: usize| values[step * BATCH * width..][..BATCH * width].to_vec();
            let alone = TokenRows {
                noisy: of_step(&all.noisy, 2),
                covariates: of_step(&all.covariates, 3),
                levels: all.levels[step * BATCH..][..BATCH].to_vec(),
                shown: vec![1.0; BATCH],
            };
            latent = network.step(latent, network.inputs_of(alone));
            let differences = numbers(latent.clone()).into_iter().zip(numbers(expected)).map(|(a, b)| (a - b).abs());
            assert!(differences.fold(0.0, f32::max) < 1e-6);
        }
    }

    #[test]
    fn nothing_of_a_later_step_reaches_an_earlier_one_and_all_of_an_earlier_step_reaches_a_later_one() {
        let expected = velocities(rows());
        let changes: [fn(&mut TokenRows, usize); 3] = [
            |rows, row| rows.noisy[row * 2] += 1.0,
            |rows, row| rows.levels[row] = 500 - rows.levels[row] / 2,
            |rows, row| rows.covariates[row * 3 + 1] += 1.0,
        ];
        for change in changes {
            // The second batch member of the third step.
            let row = 2 * BATCH + 1;
            let mut changed = rows();
            change(&mut changed, row);
            let found = velocities(changed);
            for index in 0..N_STEPS * BATCH {
                let same = found[index * 2..][..2] == expected[index * 2..][..2];
                let is_reached = index >= row && index % BATCH == 1;
                assert_eq!(same, !is_reached, "row {index}");
            }
        }
    }

    #[test]
    fn covariates_that_are_withheld_do_not_matter() {
        let of = |covariate: f32, shown: f32| {
            let mut rows = rows();
            rows.covariates[0] = covariate;
            rows.shown[0] = shown;
            velocities(rows)
        };
        assert_eq!(of(1.0, 0.0), of(2.0, 0.0));
        assert_ne!(of(1.0, 1.0), of(2.0, 1.0));
    }

    #[test]
    fn the_cell_is_the_one_of_burn() {
        let (d_input, d) = (3, 4);
        let cell = GruCell::new(d_input, d, &mut Stream::new(3, 0), &crate::cpu());
        let mut reference = GruConfig::new(d_input, d, true).init(&crate::cpu());
        let copy = |from: &Linear, gate: usize| Linear {
            weight: Param::from_tensor(from.weight.val().narrow(1, gate * d, d)),
            bias: from.bias.as_ref().map(|bias| Param::from_tensor(bias.val().narrow(0, gate * d, d))),
        };
        let gates = [&mut reference.reset_gate, &mut reference.update_gate, &mut reference.new_gate];
        for (index, gate) in gates.into_iter().enumerate() {
            gate.input_transform = copy(&cell.input, index);
            gate.hidden_transform = copy(&cell.state, index);
        }
        let mut stream = Stream::new(4, 0);
        let mut tensor = |rows: usize, columns: usize| {
            let values: Vec<f32> = (0..rows * columns).map(|_| stream.normal() as f32).collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &crate::cpu())
        };
        let (x, state) = (tensor(2, d_input), tensor(2, d));
        let expected = reference.forward(x.clone().reshape([2, 1, d_input]), Some(state.clone())).reshape([2, d]);
        let difference = numbers((cell.forward(x, state) - expected).abs()).into_iter().fold(0.0, f32::max);
        assert!(difference < 1e-6, "{difference}");
    }

    /// 6.7 million for the exchange rates, as the published code has; 512 more, because a lag is no longer lost.
    #[test]
    fn the_sizes_of_the_paper_have_as_many_numbers_as_its_code() {
        let lost_lag = Sizes { n_series: 8, n_covariates: 12, n_cells: 4, d_cell: 256, d_embedding: 64 };
        assert_eq!(Network::new(&lost_lag, &mut Stream::new(1, 0), &crate::cpu()).num_params(), 6_667_792);
    }
}
