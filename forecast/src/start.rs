//! A warm start: training begins with the weights of a model that is there already.
//!
//! Only the network's weights are taken over. Scaling, base, trees and the law of the errors are fitted anew, as in every
//! training. Weights know what they were trained on, so networks that began with them are compared on those windows of the last fold
//! alone whose steps come after that; where these are too few to tell, training begins with nothing.

use serde::{Deserialize, Serialize};

use crate::Model;
use crate::conditioning::TokenLayout;
use crate::denoiser::{Denoiser, DenoiserConfig, TokenOf};
use crate::folds::Folds;

/// Horizons of origins that a comparison needs: as many as the smallest fold has.
const N_HORIZONS_MIN: usize = 3;
/// And paths: of wide panels not every origin has its path kept.
const N_PATHS_MIN: usize = 3;

/// A model whose weights training begins with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The model.
    pub model: &'a Model,
    /// Rows at the beginning of the history that its weights may have been trained on; 0 for a model of other data.
    pub n_rows_seen: usize,
}

/// Why a network does not begin with the weights of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its tokens are of something else.
    #[error("its tokens are of {theirs}, this network's of {ours}")]
    Token {
        /// In the model.
        theirs: TokenOf,
        /// In the network that is to be trained.
        ours: TokenOf,
    },
    /// The shapes of the weights are others.
    #[error("its {what} is {theirs}, this network's is {ours}")]
    Shape {
        /// What differs.
        what: &'static str,
        /// In the model.
        theirs: usize,
        /// In the network that is to be trained.
        ours: usize,
    },
    /// What it has not seen is too little to choose on.
    #[error("{n_origins} origins come after what it was trained on, and {needed} are needed to choose by")]
    TooFewOrigins {
        /// Origins of the last fold whose steps it has not seen.
        n_origins: usize,
        /// Origins needed.
        needed: usize,
    },
}

/// What came of a warm start that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmStart {
    /// Training began with the weights.
    Weights {
        /// Origins of the last fold by which was chosen: those whose steps the weights had not seen.
        n_origins: usize,
    },
    /// Training began with nothing.
    Nothing {
        /// Why.
        reason: String,
    },
}

/// Weights, and the first origin whose steps they have not seen.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub denoiser: &'a Denoiser,
    pub first_origin: usize,
    /// Origins of the last fold from there on.
    pub n_origins: usize,
}

impl<'a> Start<'a> {
    /// The weights, for a network of these sizes that is chosen on the last fold. `n_paths` tells how many paths are kept of that
    /// fold from an origin on.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub(crate) fn weights(
        &self,
        layout: &TokenLayout,
        network: &DenoiserConfig,
        folds: Folds,
        n_paths: impl Fn(usize) -> usize,
    ) -> Result<Weights<'a>, Unfit> {
        let (model, horizon) = (self.model, layout.horizon());
        let (theirs, ours) = (model.network.token, network.token);
        if theirs != ours {
            return Err(Unfit::Token { theirs, ours });
        }
        // Weights that series share are those of any number of them.
        let n_series = |layout: &TokenLayout| if ours == TokenOf::Panel { layout.n_series } else { 1 };
        let shapes = [
            ("number of series", n_series(&model.layout), n_series(layout)),
            ("number of known covariates", model.layout.n_known, layout.n_known),
            ("number of calendar features", model.layout.n_calendar, layout.n_calendar),
            ("patch", model.layout.patch, layout.patch),
            ("context in tokens", model.layout.n_context_tokens, layout.n_context_tokens),
            ("horizon", model.layout.horizon(), horizon),
            ("width", model.network.d_model, network.d_model),
            ("number of heads", model.network.n_heads, network.n_heads),
            ("number of layers", model.network.n_layers, network.n_layers),
        ];
        if let Some((what, theirs, ours)) = shapes.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            return Err(Unfit::Shape { what, theirs, ours });
        }
        let last = folds.n_folds() - 1;
        let (start, end) = (folds.start(last), folds.start(last + 1));
        let first_origin = self.n_rows_seen.saturating_sub(1);
        let (n_origins, needed) = (end.saturating_sub(first_origin.max(start)), N_HORIZONS_MIN * horizon);
        // A fold that is shorter than that is all there is to choose by anyway.
        if n_origins < needed.min(end - start) {
            return Err(Unfit::TooFewOrigins { n_origins, needed });
        }
        let n_kept = n_paths(first_origin);
        if n_kept < N_PATHS_MIN {
            return Err(Unfit::TooFewOrigins { n_origins: n_kept, needed: N_PATHS_MIN });
        }
        Ok(Weights { denoiser: &model.denoiser, first_origin, n_origins })
    }
}
