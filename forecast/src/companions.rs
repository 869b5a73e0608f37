//! Other panels that a network learns from beside its own: one network for many panels.
//!
//! Each companion has a scaling, a base and a law of errors of its own, as any panel has; what is left over is learned by
//! the same network, whose tokens are of single series. It is chosen by its own panel alone.

use std::borrow::Cow;

use burn::tensor::Device;

use crate::conditioning::TokenLayout;
use crate::correction::Plan;
use crate::covariates::{self, Covariates};
use crate::denoiser::TokenOf;
use crate::linear::LinearPlan;
use crate::panel_stage::{self, Told, go_on};
use crate::role::Roles;
use crate::stage::{Data, Stage};
use crate::{Error, History, TrainConfig};

/// Companions that a training has at most.
pub const N_COMPANIONS_MAX: usize = 64;

/// A companion before anything is fitted to it.
pub(crate) struct Companion<'a> {
    history: Cow<'a, History>,
    roles: Roles,
    layout: TokenLayout,
    plan: LinearPlan,
}

/// What a companion shows the network.
pub(crate) struct Shown<'a> {
    pub data: Data<'a>,
    pub stage: Stage,
}

impl<'a> Companion<'a> {
    /// Companions whose windows a network of a layout can learn from, in the order in which they are given.
    ///
    /// # Errors
    /// - [`Error::Setting`] when they are too many, or tokens are of whole panels
    /// - [`Error::Companion`] naming the first that cannot be learned from, and why
    pub fn all(
        histories: &'a [History],
        ours: &TokenLayout,
        config: &TrainConfig,
        device: &Device,
        told: Told<'_>,
    ) -> Result<Vec<Self>, Error> {
        if histories.len() > N_COMPANIONS_MAX {
            return Err(Error::Setting { name: "companions", expected: format!("at most {N_COMPANIONS_MAX}") });
        }
        if !histories.is_empty() && config.network.token_of() != TokenOf::Series {
            return Err(Error::Setting { name: "token", expected: "\"series\" where there are companions".to_owned() });
        }
        let companion = |(index, history)| {
            let source = match Self::new(history, ours, config, device, told) {
                // That is no fault of the companion.
                Err(Error::Stopped) => return Err(Error::Stopped),
                other => other,
            };
            source.map_err(|source| Error::Companion { index, source: Box::new(source) })
        };
        histories.iter().enumerate().map(companion).collect()
    }

    fn new(
        history: &'a History,
        ours: &TokenLayout,
        config: &TrainConfig,
        device: &Device,
        told: Told<'_>,
    ) -> Result<Self, Error> {
        history.check()?;
        let roles = Roles::new(&history.roles, history.values.n_series())?;
        let covariates = Covariates::fit(history, &roles, config, device, told)?;
        let history = covariates::modelled_history(history, &roles, covariates.as_ref());
        let layout = TokenLayout {
            n_series: history.values.n_series(),
            n_calendar: history.calendar.n_features(),
            n_known: roles.known.len(),
            ..*ours
        };
        let features = [
            ("calendar features", layout.n_calendar, ours.n_calendar),
            ("known covariates", layout.n_known, ours.n_known),
        ];
        if let Some((what, theirs, ours)) = features.into_iter().find(|(_, theirs, ours)| theirs != ours) {
            return Err(Error::OtherFeatures { what, theirs, ours });
        }
        let plan = LinearPlan::new(&history.seasons, config.horizon, history.values.n_steps())?;
        Ok(Self { history, roles, layout, plan })
    }

    /// Rows of its history.
    pub fn n_steps(&self) -> usize {
        self.history.values.n_steps()
    }

    /// Fits scaling, base and law of the errors, which is all that the network is told.
    ///
    /// # Errors
    /// Those of [`panel_stage::choose`].
    pub fn shown(&self, trees: Plan, told: Told<'_>) -> Result<Shown<'_>, Error> {
        let Self { history, roles, layout, plan } = self;
        let panel = panel_stage::Panel { history, roles, layout: *layout, plan };
        let chosen = panel_stage::choose(panel, trees, panel_stage::Parts::All, told)?;
        go_on(told)?;
        let (data, stage, _) = chosen.on_everything(panel, trees)?;
        Ok(Shown { data, stage })
    }
}
