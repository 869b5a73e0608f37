//! Schedules: in which order the tokens of a horizon lose their noise.
//!
//! A schedule is a matrix of noise levels, one row per denoising pass and one column per token (a token is a
//! patch of time steps of all series). Every choice is a matrix; the sampler only follows it.

use serde::{Deserialize, Serialize};

use crate::{Error, NoiseLevel};

/// How the tokens of a horizon are denoised.
///
/// With a strictly causal network only [`Schedule::Autoregressive`] draws from the learned joint law. Where
/// neighbouring tokens are noisy together, the gradient of what comes later is missing, and sums over time come
/// out too narrow: for an AR(1) process with coefficient 0.9 the variance of a three-step sum is 5.2 instead of
/// 8.2 for [`Schedule::Full`] (`tests/exactness.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Schedule {
    /// A token is finished before the next one starts. Exact in law; the default.
    #[default]
    Autoregressive,
    /// Each token starts `slope` passes after the one before it. Biased: narrow sums.
    Pyramid {
        /// Passes between the starts of neighbouring tokens; as many as passes per token gives `Autoregressive`.
        slope: usize,
    },
    /// All tokens lose their noise together. Biased: narrow sums.
    Full,
    /// Blocks of tokens one after the other, each block as `Full`. Biased inside a block.
    Blocks {
        /// Tokens in a block.
        size: usize,
    },
}

/// Noise levels `[row, token]`: the first row is all noise, the last all clean.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleMatrix {
    n_tokens: usize,
    rows: Vec<Vec<NoiseLevel>>,
}

/// Passes of a token unless another number is asked for.
///
/// With them the standard deviation of a Gaussian comes out within 1.2 % of the truth for every conditional standard
/// deviation from 0.01 to 1 of the marginal one, with 10 within 5 % (`tests/exactness.rs`).
pub const PASSES_DEFAULT: usize = 12;
/// Log signal-to-noise ratios of the second and of the last of [`PASSES_DEFAULT`] passes, with the others evenly
/// between; the first sees pure noise. They minimise the largest of those errors. With another number of passes the range
/// grows on both sides by the logarithm of its ratio, so that the error tends to 0.
const LOG_SNR_RANGE: (f64, f64) = (-1.3, 5.75);

/// The level of a token after some of its passes.
fn level_after(passes_done: usize, n_passes: usize) -> NoiseLevel {
    if passes_done == 0 {
        return NoiseLevel::NOISE;
    }
    if passes_done >= n_passes {
        return NoiseLevel::CLEAN;
    }
    let widening = libm::log(n_passes as f64 / PASSES_DEFAULT as f64);
    let (first, last) = (LOG_SNR_RANGE.0 - widening, LOG_SNR_RANGE.1 + widening);
    let place = (passes_done - 1) as f64 / (n_passes - 2).max(1) as f64;
    NoiseLevel::from_log_snr(first + (last - first) * place)
}

impl ScheduleMatrix {
    /// The matrix of a schedule for a number of tokens and of passes per token.
    ///
    /// # Errors
    /// [`Error::Zero`] when tokens, passes, slope or block size are 0.
    pub fn new(schedule: Schedule, n_tokens: usize, n_passes: usize) -> Result<Self, Error> {
        let start_of: Box<dyn Fn(usize) -> usize> = match schedule {
            Schedule::Autoregressive => Box::new(move |token| token * n_passes),
            Schedule::Pyramid { slope: 0 } => return Err(Error::Zero { name: "slope" }),
            Schedule::Pyramid { slope } => Box::new(move |token| token * slope.min(n_passes)),
            Schedule::Full => Box::new(|_| 0),
            Schedule::Blocks { size: 0 } => return Err(Error::Zero { name: "size" }),
            Schedule::Blocks { size } => Box::new(move |token| token / size * n_passes),
        };
        if n_tokens == 0 {
            return Err(Error::Zero { name: "n_tokens" });
        }
        if n_passes == 0 {
            return Err(Error::Zero { name: "passes" });
        }
        let n_rows = start_of(n_tokens - 1) + n_passes + 1;
        let rows = (0..n_rows)
            .map(|row| (0..n_tokens).map(|token| level_after(row.saturating_sub(start_of(token)), n_passes)).collect())
            .collect();
        Ok(Self { n_tokens, rows })
    }

    /// Number of columns.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Pairs of neighbouring rows: the levels before and after each denoising pass.
    pub fn passes(&self) -> impl Iterator<Item = (&[NoiseLevel], &[NoiseLevel])> {
        self.rows.windows(2).map(|pair| (pair[0].as_slice(), pair[1].as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        prop_oneof![
            Just(Schedule::Autoregressive),
            (1usize..20).prop_map(|slope| Schedule::Pyramid { slope }),
            Just(Schedule::Full),
            (1usize..6).prop_map(|size| Schedule::Blocks { size }),
        ]
    }

    proptest! {
        #[test]
        fn a_matrix_goes_from_noise_to_clean_and_never_back(schedule in any_schedule(), n_tokens in 1usize..12, n_passes in 1usize..12) {
            let matrix = ScheduleMatrix::new(schedule, n_tokens, n_passes).expect("all positive");
            let (first, last) = (&matrix.rows[0], &matrix.rows[matrix.rows.len() - 1]);
            prop_assert!(first.iter().all(|&level| level == NoiseLevel::NOISE));
            prop_assert!(last.iter().all(|&level| level == NoiseLevel::CLEAN));
            for (before, after) in matrix.passes() {
                prop_assert!(before.iter().zip(after).all(|(before, after)| after <= before));
                prop_assert!(before.windows(2).all(|pair| pair[0] <= pair[1]), "earlier tokens are never noisier");
                prop_assert!(before != after, "no pass is idle");
            }
        }
    }

    #[test]
    fn each_schedule_has_its_number_of_passes() {
        let n_passes =
            |schedule, n_tokens| ScheduleMatrix::new(schedule, n_tokens, 8).expect("all positive").passes().count();
        assert_eq!(n_passes(Schedule::Full, 6), 8);
        assert_eq!(n_passes(Schedule::Pyramid { slope: 2 }, 6), 8 + 5 * 2);
        assert_eq!(n_passes(Schedule::Autoregressive, 6), 48);
        assert_eq!(n_passes(Schedule::Blocks { size: 4 }, 6), 16);
    }

    #[test]
    fn autoregressive_is_the_steepest_pyramid_and_one_token_collapses_all() {
        let matrix = |schedule, n_tokens| ScheduleMatrix::new(schedule, n_tokens, 5).expect("all positive");
        assert_eq!(matrix(Schedule::Autoregressive, 4), matrix(Schedule::Pyramid { slope: 5 }, 4));
        assert_eq!(matrix(Schedule::Autoregressive, 4), matrix(Schedule::Blocks { size: 1 }, 4));
        for schedule in [Schedule::Autoregressive, Schedule::Pyramid { slope: 1 }, Schedule::Blocks { size: 3 }] {
            assert_eq!(matrix(schedule, 1), matrix(Schedule::Full, 1));
        }
    }
}
