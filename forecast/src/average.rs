//! The average of a network's weights over the optimiser's steps.
//!
//! Weights go on wandering while the learning rate is high; their average is where they wander about. It forgets in proportion to
//! how long training has taken (power function average; Karras et al. 2024, "Analyzing and improving the training dynamics of
//! diffusion models", eq. 4), so that it is of use after ten steps and after a thousand:
//!
//! ```text
//! average += (1 − (1 − 1/t)^(γ + 1)) (weights − average)        after step t
//! ```

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::denoiser::Denoiser;

/// `γ`: the average reaches back over about a tenth of the steps (their `σ_rel` of 0.1).
const POWER: f64 = 6.94;

/// The average after a step, counted from 1, that left the network with some weights.
pub fn after_step(average: Denoiser, latest: &Denoiser, step: usize) -> Denoiser {
    let mut weights = Weights::default();
    latest.visit(&mut weights);
    let kept = libm::pow(1.0 - 1.0 / step as f64, POWER + 1.0);
    average.map(&mut Towards { weights: weights.0, share: 1.0 - kept })
}

/// Flat weights in the order of the network's parts.
#[derive(Default)]
struct Weights(VecDeque<Tensor<1>>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weights = param.val();
        let n_weights: usize = weights.dims().iter().product();
        self.0.push_back(weights.reshape([n_weights]));
    }
}

/// Moves weights a share of the way towards others.
struct Towards {
    weights: VecDeque<Tensor<1>>,
    share: f64,
}

impl ModuleMapper for Towards {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(latest) = self.weights.pop_front() else { unreachable!("networks of one configuration") };
        param.map(|average| average.clone() + (latest.reshape(average.dims()) - average) * self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Sight;
    use crate::denoiser::{DenoiserConfig, TokenOf};
    use crate::noise::Stream;

    fn flat(denoiser: &Denoiser) -> Vec<f32> {
        let mut weights = Weights::default();
        denoiser.visit(&mut weights);
        weights.0.into_iter().flat_map(|part| part.into_data().try_into_vec::<f32>().expect("f32")).collect()
    }

    fn network(seed: u64) -> Denoiser {
        let config = DenoiserConfig {
            n_elements: 2,
            n_calendar: 1,
            n_horizon_tokens: 2,
            d_model: 4,
            n_heads: 2,
            n_layers: 1,
            attention: Sight::Causal,
            token: TokenOf::Panel,
        };
        Denoiser::new(&config, &mut Stream::new(seed, 0), &crate::cpu())
    }

    #[test]
    fn the_first_step_is_taken_whole_and_a_later_one_in_part() {
        let (start, first, second) = (network(1), network(2), network(3));
        let average = after_step(start, &first, 1);
        assert!(flat(&average).iter().zip(flat(&first)).all(|(average, first)| (average - first).abs() < 1e-6));
        let average = after_step(average, &second, 20);
        let kept = 0.95_f64.powf(POWER + 1.0) as f32;
        for ((average, first), second) in flat(&average).into_iter().zip(flat(&first)).zip(flat(&second)) {
            assert!((average - kept * first - (1.0 - kept) * second).abs() < 1e-6);
        }
    }
}
