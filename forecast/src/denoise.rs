//! Follows a schedule matrix from noise to clean tokens, whatever predicts the velocities.

use std::borrow::Cow;

use crate::Error;
use crate::conditioning::INNOVATION_MAX;
use crate::level::NoiseLevel;
use crate::schedule::ScheduleMatrix;
use crate::solver::Path;

/// Finished values are kept within this.
pub(crate) const BOUND: f32 = INNOVATION_MAX as f32;

/// A token of several samples on its way from noise to clean.
#[derive(Clone, Debug, PartialEq)]
pub struct NoisyToken {
    /// Innovations `[sample, element]`.
    pub values: Vec<f32>,
    /// Their noise level.
    pub level: NoiseLevel,
}

/// What predicts velocities: the network, or in tests a process whose law is known.
pub trait Denoise {
    /// Predicts the velocity `v = cos φ · ε − sin φ · x₀` of noisy tokens, from them and what came before.
    ///
    /// `tokens` follow those that were finished in earlier calls. The first `n_finished` of them are finished too:
    /// they are to be remembered, and are not given again. Returns `[sample, element]` for each token after these.
    ///
    /// # Errors
    /// Those of the device on which the prediction is made.
    fn velocities(&mut self, tokens: &[NoisyToken], n_finished: usize) -> Result<Vec<Vec<f32>>, Error>;
}

/// Takes the tokens after the first `n_finished` from noise to clean along a schedule, which has a column for each.
///
/// Of the predicted velocity a share is believed: 1 all of it, 0 nothing but noise, which then stays. A token whose level does not
/// change in a pass keeps its values.
///
/// Finished tokens are shown to the predictor at the level of `stabilization`, as if they had been measured with its error
/// ([`NoiseLevel::of_measurement`]): what it draws next leans less on them (Chen et al. 2024, "stabilizing autoregressive generation"). At
/// [`NoiseLevel::CLEAN`] they are shown as they are.
///
/// # Errors
/// Those of [`Denoise::velocities`].
pub fn denoise(
    predictor: &mut impl Denoise,
    tokens: &mut [NoisyToken],
    n_finished: usize,
    matrix: &ScheduleMatrix,
    velocity_share: f64,
    stabilization: NoiseLevel,
) -> Result<(), Error> {
    debug_assert_eq!(tokens.len(), n_finished + matrix.n_tokens(), "a column for each token");
    if velocity_share == 0.0 {
        // Nothing moves, so nobody need be asked.
        for token in &mut tokens[n_finished..] {
            token.level = NoiseLevel::CLEAN;
            token.values.iter_mut().for_each(|value| *value = value.clamp(-BOUND, BOUND));
        }
        return Ok(());
    }
    let mut paths: Vec<Path> = tokens.iter().map(|_| Path::default()).collect();
    let mut n_remembered = 0;
    for (before, after) in matrix.passes() {
        let changes = |token: &usize| before[*token] != after[*token];
        // Columns never get cleaner to the right, so the tokens of a pass are neighbours.
        let Some(first) = (0..before.len()).find(changes) else { continue };
        let end = (0..before.len()).rev().find(changes).map_or(first, |last| last + 1);
        let (first, end) = (n_finished + first, n_finished + end);
        let seen = stabilised(&tokens[n_remembered..end], first - n_remembered, stabilization);
        let velocities = predictor.velocities(&seen, first - n_remembered)?;
        n_remembered = first;
        for (token, velocity) in (first..end).zip(velocities) {
            let noisy = &mut tokens[token];
            let values = noisy.values.iter().zip(velocity);
            let clean = values
                .map(|(&value, v)| noisy.level.clean(f64::from(value), velocity_share * f64::from(v)) as f32)
                .collect();
            paths[token].advance(noisy, clean, after[token - n_finished]);
        }
    }
    Ok(())
}

/// Tokens with the first of them, which are finished, as if they had been measured with an error.
fn stabilised(tokens: &[NoisyToken], n_finished: usize, level: NoiseLevel) -> Cow<'_, [NoisyToken]> {
    if level == NoiseLevel::CLEAN || n_finished == 0 {
        return Cow::Borrowed(tokens);
    }
    let mut tokens = tokens.to_vec();
    for token in &mut tokens[..n_finished] {
        token.level = level;
        token.values.iter_mut().for_each(|value| *value *= level.signal() as f32);
    }
    Cow::Owned(tokens)
}
