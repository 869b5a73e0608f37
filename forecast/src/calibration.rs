//! From scores to p-values: how often would a score so high come about when nothing is wrong?
//!
//! Scores of rows that training has not seen say how scores are spread. Inside their range the p-value of a score is
//! the conformal one, `(1 + number of scores at least as high) / (n + 1)`. Beyond the highest one that would always
//! be `1 / (n + 1)`; there a generalised Pareto law, fitted to the highest tenth of the scores, goes on:
//!
//! ```text
//! p(s) = share above u · (1 + ξ (s − u) / σ)^(−1/ξ)      at most 1 / (n + 1)
//! ```
//!
//! Shape and scale are estimated by Zhang and Stephens ("A new and efficient estimation method for the generalized Pareto
//! distribution", Technometrics 2009), the shape with the weak prior towards 1/2 of Vehtari et al. ("Pareto smoothed
//! importance sampling", JMLR 2024): from few scores a tail is believed to be heavy, and p-values are cautious.

use std::mem::take;

/// Share of the scores that the tail is fitted to.
const TAIL_SHARE: f64 = 0.1;
/// Fewest scores that a tail is fitted to, but never more than the upper half.
const N_TAIL_MIN: usize = 10;
/// Shape that the prior believes in, and the number of scores that it is worth.
const PRIOR_SHAPE: f64 = 0.5;
const PRIOR_WEIGHT: f64 = 10.0;
/// The tail is fitted again when the number of scores has grown by this ratio.
const GROWTH: (usize, usize) = (20, 21);
/// No p-value is smaller: beyond this the tail is arithmetic.
const P_MIN: f64 = 1e-300;

/// The spread of scores when nothing is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Ascending.
    scores: Vec<f64>,
    tail: Tail,
    /// Number of scores that the tail was fitted to.
    n_fitted: usize,
}

/// A generalised Pareto law above a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tail {
    threshold: f64,
    /// Share of the scores above the threshold.
    share: f64,
    shape: f64,
    scale: f64,
}

impl Calibration {
    /// From scores of rows that training has not seen, in any order; those that are not finite do not count.
    ///
    /// Without any score every p-value is 1.
    pub fn from_scores(scores: impl IntoIterator<Item = f64>) -> Self {
        let mut scores: Vec<f64> = scores.into_iter().filter(|score| score.is_finite()).collect();
        scores.sort_unstable_by(f64::total_cmp);
        Self { tail: Tail::fit(&scores), n_fitted: scores.len(), scores }
    }

    /// Remembers one more score. The tail is fitted again whenever the scores have grown by a twentieth.
    pub fn add(&mut self, score: f64) {
        if score.is_finite() {
            self.scores.insert(self.scores.partition_point(|&known| known < score), score);
            if self.scores.len() * GROWTH.0 >= self.n_fitted * GROWTH.1 {
                *self =
                    Self { tail: Tail::fit(&self.scores), n_fitted: self.scores.len(), scores: take(&mut self.scores) };
            }
        }
    }

    /// Number of scores that it rests on.
    pub fn n_scores(&self) -> usize {
        self.scores.len()
    }

    /// Probability, in (0, 1], of a score at least as high as this one. It does not rise with the score.
    pub fn p_value(&self, score: f64) -> f64 {
        let n = self.scores.len();
        if n == 0 || score.is_nan() {
            return 1.0;
        }
        let n_as_high = n - self.scores.partition_point(|&known| known < score);
        let empirical = (1 + n_as_high) as f64 / (n + 1) as f64;
        if n_as_high > 0 { empirical } else { self.tail.exceedance(score).clamp(P_MIN, empirical) }
    }
}

impl Tail {
    fn fit(ascending: &[f64]) -> Self {
        let n = ascending.len();
        let n_tail = ((TAIL_SHARE * n as f64) as usize).max(N_TAIL_MIN.min(n / 2));
        let threshold = if n > n_tail { ascending[n - n_tail - 1] } else { ascending.first().copied().unwrap_or(0.0) };
        let excesses: Vec<f64> =
            ascending[n - n_tail..].iter().map(|score| score - threshold).filter(|&excess| excess > 0.0).collect();
        let share = n_tail as f64 / (n + 1) as f64;
        let (shape, scale) = match excesses.len() {
            // Equal scores tell no scale; one nat is that of the log-likelihood.
            0 => (PRIOR_SHAPE, 1.0),
            n if n < N_TAIL_MIN / 2 => (PRIOR_SHAPE, excesses.iter().sum::<f64>() / n as f64),
            _ => zhang_stephens(&excesses),
        };
        Self { threshold, share, shape, scale }
    }

    fn exceedance(&self, score: f64) -> f64 {
        let z = (score - self.threshold).max(0.0) / self.scale;
        let log_survival = if self.shape < 1e-9 { -z } else { -(self.shape * z).ln_1p() / self.shape };
        self.share * log_survival.exp()
    }
}

/// Shape and scale of ascending positive excesses.
fn zhang_stephens(excesses: &[f64]) -> (f64, f64) {
    let n = excesses.len() as f64;
    let largest = excesses[excesses.len() - 1];
    let quartile = excesses[((n / 4.0 + 0.5) as usize).clamp(1, excesses.len()) - 1];
    let n_grid = 30 + n.sqrt() as usize;
    let shape_of = |theta: f64| excesses.iter().map(|excess| (-theta * excess).ln_1p()).sum::<f64>() / n;
    let thetas: Vec<f64> = (1..=n_grid)
        .map(|j| 1.0 / largest + (1.0 - (n_grid as f64 / (j as f64 - 0.5)).sqrt()) / 3.0 / quartile)
        .collect();
    let log_likelihoods: Vec<f64> = thetas
        .iter()
        .map(|&theta| {
            let shape = shape_of(theta);
            n * ((-theta / shape).ln() - shape - 1.0)
        })
        .collect();
    let best = log_likelihoods.iter().copied().filter(|value| value.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> =
        log_likelihoods.iter().map(|value| if value.is_finite() { (value - best).exp() } else { 0.0 }).collect();
    let total: f64 = weights.iter().sum();
    let theta = thetas.iter().zip(&weights).map(|(theta, weight)| theta * weight).sum::<f64>() / total;
    let shape = shape_of(theta);
    let scale = -shape / theta;
    let believed = (n * shape + PRIOR_WEIGHT * PRIOR_SHAPE) / (n + PRIOR_WEIGHT);
    let mean = excesses.iter().sum::<f64>() / n;
    if !believed.is_finite() || !scale.is_finite() || scale <= 0.0 {
        (PRIOR_SHAPE, mean)
    } else if believed <= 0.0 {
        // A law with an end would call what lies beyond it impossible, and a surprise in nats has no end.
        (0.0, mean)
    } else {
        (believed, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;
    use proptest::prelude::*;

    fn exponential(n: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, 0);
        (0..n).map(|_| -stream.uniform().ln()).collect()
    }

    proptest! {
        #[test]
        fn p_values_are_probabilities_and_do_not_rise(
            scores in prop::collection::vec(-10.0f64..1e4, 0..60), a in -20.0f64..1e9, b in -20.0f64..1e9,
        ) {
            let calibration = Calibration::from_scores(scores);
            let (low, high) = (calibration.p_value(a.min(b)), calibration.p_value(a.max(b)));
            prop_assert!(high > 0.0 && high <= low && low <= 1.0, "{high} {low}");
        }
    }

    #[test]
    fn inside_the_scores_the_p_value_is_the_conformal_one() {
        let calibration = Calibration::from_scores([3.0, 1.0, 2.0, f64::NAN, 4.0]);
        assert_eq!(calibration.n_scores(), 4);
        for (score, expected) in [(0.0, 1.0), (1.0, 1.0), (2.5, 0.6), (4.0, 0.4)] {
            assert_eq!(calibration.p_value(score), expected, "of {score}");
        }
    }

    #[test]
    fn beyond_the_scores_an_exponential_tail_goes_on_cautiously() {
        // Of exponential scores the truth is exp(-s). With the prior the tail may be too heavy, and hardly too light.
        for seed in 1..=5 {
            let calibration = Calibration::from_scores(exponential(5000, seed));
            for score in [12.0, 16.0] {
                let ratio = calibration.p_value(score).ln() / -score;
                assert!((0.7..1.1).contains(&ratio), "log p of {score} is {ratio} of the truth, seed {seed}");
            }
        }
    }

    #[test]
    fn a_heavy_tail_is_seen_as_one() {
        // Scores u⁻¹ have P(S > s) = 1/s.
        let mut stream = Stream::new(4, 0);
        let calibration = Calibration::from_scores((0..5000).map(|_| 1.0 / stream.uniform()).collect::<Vec<_>>());
        let p_value = calibration.p_value(1e6);
        assert!((1e-7..1e-5).contains(&p_value), "{p_value} instead of 1e-6");
    }

    #[test]
    fn p_values_of_fresh_scores_are_uniform() {
        let (calibration, fresh) = (Calibration::from_scores(exponential(2000, 7)), exponential(2000, 8));
        for level in [0.01, 0.1, 0.5, 0.9] {
            let share = fresh.iter().filter(|&&score| calibration.p_value(score) <= level).count() as f64 / 2000.0;
            assert!((share - level).abs() < 0.04, "{share} of the p-values are at most {level}");
        }
    }

    #[test]
    fn scores_that_are_added_count_like_those_given_at_once() {
        // The tail is fitted again with the 315th score, the 331st, and so on; the 574th is one of these.
        let (first, later) = (exponential(300, 1), exponential(274, 2));
        let mut grown = Calibration::from_scores(first.iter().copied());
        later.iter().for_each(|&score| grown.add(score));
        grown.add(f64::NAN);
        assert_eq!(grown, Calibration::from_scores(first.into_iter().chain(later)));
    }

    #[test]
    fn equal_scores_and_no_scores_have_finite_p_values() {
        let equal = Calibration::from_scores(vec![0.5; 200]);
        assert_eq!(equal.p_value(0.5), 1.0);
        assert!(equal.p_value(1e7) < 1e-5 && equal.p_value(1e7) > 0.0);
        assert_eq!(Calibration::from_scores([]).p_value(3.0), 1.0);
    }
}
