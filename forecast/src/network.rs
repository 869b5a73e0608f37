//! The network of a panel: how time is cut into tokens, its sizes, and how it learns.

use serde::{Deserialize, Serialize};

use crate::attention::Sight;
use crate::conditioning::TokenLayout;
use crate::denoiser::{DenoiserConfig, TokenOf};
use crate::loss_weight::LossWeight;
use crate::noising::LevelMix;
use crate::{Error, History, TrainConfig};

/// Channels of an attention head.
const N_HEAD_CHANNELS: usize = 16;

/// The network and how it learns. What is `None` follows from the panel; every default is the one that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Steps of context that the network sees; `None` chooses by the seasons.
    pub context_length: Option<usize>,
    /// What a token is a patch of; `None` is of the panel, or of single series where it learns from companions.
    pub token: Option<TokenOf>,
    /// Steps in a token, which must divide the horizon; `None` chooses by horizon and number of series.
    pub patch: Option<usize>,
    /// Width of the network, a multiple of 16; `None` chooses by the length of the history.
    pub d_model: Option<usize>,
    /// Layers of the network.
    pub n_layers: usize,
    /// What a token of the horizon attends to.
    pub attention: Sight,
    /// Windows in a batch.
    pub batch_size: usize,
    /// How noise levels are drawn in training.
    pub levels: LevelMix,
    /// By how much the error of a token counts at its level.
    #[serde(skip_serializing_if = "is_constant")]
    pub loss_weight: LossWeight,
}

/// Whether it need not be said.
fn is_constant(weight: &LossWeight) -> bool {
    *weight == LossWeight::Constant
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            context_length: None,
            token: None,
            patch: None,
            d_model: None,
            n_layers: 2,
            attention: Sight::Causal,
            batch_size: 64,
            levels: LevelMix::default(),
            loss_weight: LossWeight::Constant,
        }
    }
}

impl NetworkConfig {
    /// What a token is a patch of.
    pub(crate) fn token_of(&self) -> TokenOf {
        self.token.unwrap_or_default()
    }

    /// Checks every number, for a horizon.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first number that is out of range, [`Error::Share`] where it is the decay of the loss weight.
    pub fn check(&self, horizon: usize) -> Result<(), Error> {
        let ranges = [
            ("context_length", self.context_length, 100_000),
            ("d_model", self.d_model, 1024),
            ("n_layers", Some(self.n_layers), 32),
            ("batch_size", Some(self.batch_size), 4096),
        ];
        for (name, value, limit) in ranges {
            if value.is_some_and(|value| !(1..=limit).contains(&value)) {
                return Err(Error::Setting { name, expected: format!("1 to {limit}") });
            }
        }
        if self.d_model.is_some_and(|d_model| !d_model.is_multiple_of(N_HEAD_CHANNELS)) {
            return Err(Error::Setting { name: "d_model", expected: format!("a multiple of {N_HEAD_CHANNELS}") });
        }
        if self.patch.is_some_and(|patch| patch == 0 || !horizon.is_multiple_of(patch)) {
            return Err(Error::Setting { name: "patch", expected: format!("a divisor of the horizon, {horizon}") });
        }
        self.loss_weight.check()?;
        self.levels.check()
    }
}

/// Below this many rows a network of half the width is learned: on small panels a larger one only overfits.
const N_STEPS_SMALL: usize = 2000;

/// Cuts time into tokens: by default the largest patch that divides the horizon and leaves enough tokens to be causal between.
pub(crate) fn layout(history: &History, config: &TrainConfig) -> TokenLayout {
    let n_series = history.values.n_series();
    let n_together = match config.network.token_of() {
        TokenOf::Panel => n_series,
        TokenOf::Series => 1,
    };
    let largest = (config.horizon / 6).clamp(1, 8).min((256 / n_together).max(1));
    let fitting = || (1..=largest).rev().find(|patch| config.horizon.is_multiple_of(*patch)).unwrap_or(1);
    let patch = config.network.patch.unwrap_or_else(fitting);
    let season = history.seasons.first().copied().unwrap_or(config.horizon);
    let wanted = config.network.context_length.unwrap_or((2 * season).clamp(8 * patch, 24 * patch));
    let n_context_tokens = wanted.min(history.values.n_steps() / 4).div_ceil(patch).max(1);
    TokenLayout {
        n_known: 0,
        n_series,
        n_calendar: history.calendar.n_features(),
        patch,
        n_context_tokens,
        n_horizon_tokens: config.horizon / patch,
    }
}

/// Sizes of the network for a layout, that learns from so many rows.
pub(crate) fn network(layout: &TokenLayout, n_rows: usize, config: &TrainConfig) -> DenoiserConfig {
    let d_model = config.network.d_model.unwrap_or(if n_rows < N_STEPS_SMALL { 32 } else { 64 });
    let token = config.network.token_of();
    DenoiserConfig {
        n_elements: match token {
            TokenOf::Panel => layout.n_elements(),
            TokenOf::Series => layout.patch,
        },
        n_calendar: layout.n_features().max(1),
        n_horizon_tokens: layout.n_horizon_tokens,
        d_model,
        n_heads: (d_model / N_HEAD_CHANNELS).max(1),
        n_layers: config.network.n_layers,
        attention: config.network.attention,
        token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |config: NetworkConfig| match config.check(24) {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        let default = NetworkConfig::default;
        assert_eq!(refused(NetworkConfig { n_layers: 0, ..default() }), "n_layers");
        assert_eq!(refused(NetworkConfig { batch_size: 5000, ..default() }), "batch_size");
        assert_eq!(refused(NetworkConfig { d_model: Some(40), ..default() }), "d_model");
        assert_eq!(refused(NetworkConfig { patch: Some(5), ..default() }), "patch");
        let levels = LevelMix { clean_context: 1.5, ..LevelMix::default() };
        assert_eq!(refused(NetworkConfig { levels, ..default() }), "levels.clean_context");
        assert!(NetworkConfig { patch: Some(6), d_model: Some(48), ..default() }.check(24).is_ok());
    }
}
