//! How much the error of a token counts in training.

use serde::{Deserialize, Serialize};

use crate::{Error, NoiseLevel};

/// Signal-to-noise ratios above this count as this (Hang et al. 2023).
const SNR_MAX: f64 = 5.0;
/// Weight of every token where none weighs more.
const CONSTANT: f64 = SNR_MAX / 2.0;

/// Weight of the squared error of a token's velocity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossWeight {
    /// The same for all tokens, 2.5: what the paper uses for time series.
    #[default]
    Constant,
    /// Min-SNR (Hang et al. 2023) of the token alone.
    MinSnr,
    /// Fused SNR (Chen et al. 2024, section D.1): what the tokens before tell counts as signal too.
    FusedSnr {
        /// Share of the past that is kept from one token to the next, between 0 and 1.
        decay: f64,
    },
}

impl LossWeight {
    /// # Errors
    /// [`Error::Share`] when the decay is not between 0 and 1.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match *self {
            Self::FusedSnr { decay } if !(0.0..=1.0).contains(&decay) => {
                Err(Error::Share { name: "decay", value: decay })
            }
            _ => Ok(()),
        }
    }

    /// The weights of the tokens of one window from their signal-to-noise ratios, in the order of time.
    ///
    /// With `S = min(snr, C) / C` and `C = 5`, min-SNR for velocities is `S C / (snr + 1)`. Fused, `S` is replaced by
    /// `1 − (1 − S)(1 − S̄)` and `snr / C` by `1 − (1 − snr / C)(1 − S̄)`, where `S̄` is the decayed mean of the `S` before,
    /// none for the first token.
    pub fn of_window(&self, snrs: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut history: Option<f64> = None;
        snrs.map(|snr| {
            let signal = snr.min(SNR_MAX) / SNR_MAX;
            let heard = match *self {
                Self::Constant => return CONSTANT,
                Self::MinSnr => 0.0,
                Self::FusedSnr { decay } => {
                    let heard = history.unwrap_or(0.0);
                    history = Some(history.map_or(signal, |history| decay * history + (1.0 - decay) * signal));
                    heard
                }
            };
            // Of a clean token there is nothing to learn.
            if snr.is_infinite() {
                0.0
            } else {
                fused(signal, heard) * SNR_MAX / (fused(snr / SNR_MAX, heard) * SNR_MAX + 1.0)
            }
        })
        .collect()
    }
}

impl LossWeight {
    /// The weights of the tokens of one window, relative to the constant one, from their levels, which are asked for where they
    /// matter.
    pub(crate) fn relative(&self, n_tokens: usize, level_of: impl Fn(usize) -> NoiseLevel) -> Vec<f64> {
        if *self == Self::Constant {
            return vec![1.0; n_tokens];
        }
        let weights = self.of_window((0..n_tokens).map(|token| libm::exp(2.0 * level_of(token).log_snr())));
        weights.into_iter().map(|weight| weight / CONSTANT).collect()
    }
}

/// What a token and its past tell together.
fn fused(signal: f64, heard: f64) -> f64 {
    1.0 - (1.0 - signal) * (1.0 - heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(weight: LossWeight, snrs: &[f64]) -> Vec<f64> {
        weight.of_window(snrs.iter().copied())
    }

    #[test]
    fn weights_of_levels_are_relative_to_the_constant_one() {
        // Noise alone, as much signal as noise, clean.
        let level_of = |token: usize| NoiseLevel::new([1.0, 0.5, 0.0][token]);
        assert_eq!(LossWeight::Constant.relative(3, level_of), [1.0; 3]);
        let found = LossWeight::MinSnr.relative(3, level_of);
        assert!(found[0] == 0.0 && (found[1] - 0.2).abs() < 1e-12 && found[2] == 0.0, "{found:?}");
    }

    #[test]
    fn the_constant_weight_knows_nothing_of_the_noise() {
        assert_eq!(weights(LossWeight::Constant, &[1e-9, 1.0, 1e4]), [2.5; 3]);
    }

    #[test]
    fn min_snr_of_a_velocity_is_the_clipped_ratio_over_the_ratio_plus_one() {
        let found = weights(LossWeight::MinSnr, &[0.5, 5.0, 20.0]);
        for (found, expected) in found.iter().zip([0.5 / 1.5, 5.0 / 6.0, 5.0 / 21.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn fused_follows_the_formula_of_the_paper() {
        // S = 0.2, 0.4, 1; the past of the third is 0.9 · 0.2 + 0.1 · 0.4.
        let found = weights(LossWeight::FusedSnr { decay: 0.9 }, &[1.0, 2.0, 5.0]);
        let second = 5.0 * (1.0 - 0.6 * 0.8);
        let third = 5.0 * (1.0 - 0.0 * (1.0 - 0.22));
        for (found, expected) in found.iter().zip([1.0 / 2.0, second / (second + 1.0), third / (third + 1.0)]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    proptest! {
        #[test]
        fn without_a_past_fused_is_min_snr(snr in 0.0f64..100.0, decay in 0.0f64..=1.0) {
            let silent = [0.0, 0.0, snr];
            let fused = LossWeight::FusedSnr { decay };
            for window in [&silent[..], &[snr]] {
                let (fused, alone) = (weights(fused, window), weights(LossWeight::MinSnr, window));
                prop_assert!((fused[window.len() - 1] - alone[window.len() - 1]).abs() < 1e-12);
            }
        }

        #[test]
        fn fused_signal_rises_with_both_parts_and_stays_a_share(a in 0.0f64..=1.0, b in 0.0f64..=1.0, other in 0.0f64..=1.0) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(fused(low, other) <= fused(high, other) && fused(other, low) <= fused(other, high));
            prop_assert!((0.0..=1.0).contains(&fused(a, other)) && fused(a, other) >= a.max(other) - 1e-12);
        }

        #[test]
        fn weights_are_finite_and_not_negative(snrs in prop::collection::vec(0.0f64..1e6, 1..20), decay in 0.0f64..=1.0) {
            for weight in [LossWeight::Constant, LossWeight::MinSnr, LossWeight::FusedSnr { decay }] {
                let found = weights(weight, &snrs);
                prop_assert!(found.iter().all(|weight| (0.0..=SNR_MAX).contains(weight)), "{found:?}");
            }
        }
    }

    #[test]
    fn a_clean_past_raises_the_weight_of_a_noisy_token() {
        let fused = |past| weights(LossWeight::FusedSnr { decay: 0.9 }, &[past, 0.1])[1];
        assert!(fused(5.0) > 2.0 * fused(0.0), "{} {}", fused(5.0), fused(0.0));
    }

    #[test]
    fn a_decay_outside_its_range_is_refused() {
        for decay in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(LossWeight::FusedSnr { decay }.check(), Err(Error::Share { .. })), "{decay}");
        }
        assert!(LossWeight::FusedSnr { decay: 0.9 }.check().is_ok());
    }
}
