//! The solver: takes one token from noise to clean along the estimates of its clean value.
//!
//! In `x / sin φ` the probability flow is linear in the estimate `x̂₀` of the clean value and has a closed form in
//! the log signal-to-noise ratio `λ = ln cot φ`:
//!
//! ```text
//! x_t = (sin φ_t / sin φ_s) x_s + sin φ_t ∫_{λ_s}^{λ_t} e^λ x̂₀(λ) dλ
//! ```
//!
//! (Lu et al. 2022, "DPM-Solver++", eq. 8). Only `x̂₀(λ)` is approximated, by the polynomial through a token's last
//! passes. When the next estimate is known, the step before it is made again with it: a corrector that costs no
//! call of the network (Zhao et al. 2023, "UniPC", algorithm 1).

use crate::denoise::{BOUND, NoisyToken};
use crate::level::NoiseLevel;

/// Estimates through which a polynomial is laid.
const ORDER: usize = 3;

/// An estimate of a token's clean values `[sample, element]`, and the level of the token from which it was made.
struct Estimate {
    level: NoiseLevel,
    clean: Vec<f32>,
}

/// What is remembered of the passes of one token.
#[derive(Default)]
pub(crate) struct Path {
    /// The last estimates, oldest first, at most [`ORDER`].
    estimates: Vec<Estimate>,
    /// Corrected values at the level of the last estimate.
    corrected: Vec<f32>,
}

impl Path {
    /// Moves a token to a lower level, given the estimate of its clean values at its present one.
    pub(crate) fn advance(&mut self, token: &mut NoisyToken, clean: Vec<f32>, to: NoiseLevel) {
        let from = token.level;
        token.level = to;
        if to == NoiseLevel::CLEAN {
            token.values = clean.into_iter().map(|value| value.clamp(-BOUND, BOUND)).collect();
            *self = Self::default();
            return;
        }
        let start = self.estimates.last().map(|last| last.level);
        if self.estimates.len() == ORDER {
            self.estimates.remove(0);
        }
        self.estimates.push(Estimate { level: from, clean });
        self.corrected = match start {
            Some(start) => step(&self.corrected, &self.estimates, start, from),
            None => token.values.clone(),
        };
        if from != NoiseLevel::NOISE {
            self.estimates.retain(|estimate| estimate.level != NoiseLevel::NOISE);
        }
        token.values = step(&self.corrected, &self.estimates, from, to);
    }
}

/// The values after a step that begins with `values`.
fn step(values: &[f32], estimates: &[Estimate], from: NoiseLevel, to: NoiseLevel) -> Vec<f32> {
    let levels: Vec<NoiseLevel> = estimates.iter().map(|estimate| estimate.level).collect();
    let weights = weights(&levels, from, to);
    let kept = to.noise() / from.noise();
    let mut next: Vec<f64> = values.iter().map(|&value| kept * f64::from(value)).collect();
    for (estimate, weight) in estimates.iter().zip(weights) {
        next.iter_mut().zip(&estimate.clean).for_each(|(next, &clean)| *next += weight * f64::from(clean));
    }
    next.into_iter().map(|value| value as f32).collect()
}

/// Weights of the estimates at some levels in a step between two levels, neither of them clean.
///
/// From pure noise, where `λ` has no beginning, `x̂₀` is linear in `cos φ`: exact for a standard normal. There is at
/// most one more estimate then.
fn weights(levels: &[NoiseLevel], from: NoiseLevel, to: NoiseLevel) -> Vec<f64> {
    if from == NoiseLevel::NOISE {
        return match levels {
            [_, second] => {
                let weight = (1.0 - to.noise()) / second.signal();
                vec![to.signal() - weight, weight]
            }
            _ => vec![to.signal()],
        };
    }
    let start = from.log_snr();
    let width = to.log_snr() - start;
    // moments[m] = ∫₀^width e^(s − width) s^m ds, by parts.
    let mut moments = vec![-libm::expm1(-width)];
    for power in 1..levels.len() {
        moments.push(libm::pow(width, power as f64) - power as f64 * moments[power - 1]);
    }
    let nodes: Vec<f64> = levels.iter().map(|level| level.log_snr() - start).collect();
    let weight = |index: usize| {
        // Coefficients of the Lagrange polynomial that is 1 at this node and 0 at the others.
        let mut polynomial = vec![1.0];
        for (_, node) in nodes.iter().enumerate().filter(|(other, _)| *other != index) {
            let scale = 1.0 / (nodes[index] - node);
            let shifted = std::iter::once(0.0).chain(polynomial.iter().copied());
            let kept = polynomial.iter().copied().chain(std::iter::once(0.0));
            polynomial = shifted.zip(kept).map(|(up, same)| scale * (up - node * same)).collect();
        }
        to.signal() * polynomial.iter().zip(&moments).map(|(coefficient, moment)| coefficient * moment).sum::<f64>()
    };
    (0..levels.len()).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sin φ_t ∫ e^λ f(λ) dλ` by the midpoint rule.
    fn integral(from: NoiseLevel, to: NoiseLevel, f: impl Fn(f64) -> f64) -> f64 {
        let (start, n) = (from.log_snr(), 100_000);
        let width = (to.log_snr() - start) / f64::from(n);
        let nodes = (0..n).map(|index| start + (f64::from(index) + 0.5) * width);
        to.noise() * width * nodes.map(|node| libm::exp(node) * f(node)).sum::<f64>()
    }

    #[test]
    fn weights_are_exact_for_a_polynomial_of_their_order() {
        let levels = [-1.3, 0.4, 1.1].map(NoiseLevel::from_log_snr);
        let f = |log_snr: f64| 0.7 - 0.2 * log_snr + 0.5 * log_snr * log_snr;
        for (from, to) in [(1.1, 1.9), (0.4, 1.1)] {
            let (from, to) = (NoiseLevel::from_log_snr(from), NoiseLevel::from_log_snr(to));
            let weighted: f64 =
                weights(&levels, from, to).iter().zip(levels).map(|(weight, level)| weight * f(level.log_snr())).sum();
            assert!((weighted - integral(from, to, f)).abs() < 1e-8, "{weighted}");
        }
    }

    #[test]
    fn the_first_step_is_exact_for_a_standard_normal_once_corrected() {
        // Its flow leaves x as it is, and x̂₀ = cos φ · x.
        let to = NoiseLevel::from_log_snr(-0.5);
        let [_, weight] = weights(&[NoiseLevel::NOISE, to], NoiseLevel::NOISE, to)[..] else { panic!("two weights") };
        assert!((to.noise() + weight * to.signal() - 1.0).abs() < 1e-12);
    }
}
