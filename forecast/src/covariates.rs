//! Covariates whose future is supplied: what a model is told about them, and what it draws where nothing is supplied.
//!
//! Known covariates are no part of the joint law of the modelled series; the law is conditioned on them. Their linear
//! [`effects`](crate::effects) are taken out of the series, the trees of the [`correction`](crate::correction) and the
//! network see them at every step. Where a part of their future is missing, it is drawn from a joint law of their own (base
//! and innovations, without trees and network), and every trajectory goes on from its own draw.

use std::borrow::Cow;
use std::ops::ControlFlow;

use burn::tensor::Device;

use crate::effects::Effects;
use crate::role::Roles;
use crate::scaling::{Scaling, ScalingKind, fill_from_past};
use crate::{
    Budget, Calendar, Error, Grid, History, Model, Progress, SampleConfig, TrainConfig, Trajectories, Window, train,
};

/// By how many standard deviations a covariate may leave the range of its training values.
const BEYOND_RANGE: f64 = 1.0;
/// Draws over which the expected path of what is not supplied is averaged.
const N_EXPECTED: usize = 100;
/// Keeps the draws of covariates apart from those of the series that have the same seed.
const SEED_OF_COVARIATES: u64 = 0x636f_7661_7269_6174;

/// The known covariates of a model.
#[derive(Clone, Debug)]
pub(crate) struct Covariates {
    /// To standard units, `[covariate]`.
    pub scaling: Scaling,
    /// Their joint law, whose seasons are those of the features.
    pub law: Box<Model>,
    /// Their linear effects on the modelled series.
    pub effects: Effects,
}

/// The future of the covariates where it is not supplied, drawn for some samples.
#[derive(Clone, Debug)]
pub(crate) struct Futures {
    /// All rows of a window, `[step, covariate]`; `NaN` where nothing is known.
    known: Grid,
    /// The row at which the draws begin.
    first_row: usize,
    drawn: Trajectories,
}

/// A known covariate whose future is not supplied to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCovariate {
    /// Column of the panel.
    pub series: usize,
    /// The first step from which on nothing is known; before 1 where even the past is not known to its end.
    pub step: i32,
}

/// Features of each covariate at a step: its value, the one before, the mean over the shortest season, and the
/// differences from one season earlier.
pub(crate) fn n_features(n_known: usize, seasons: &[usize]) -> usize {
    n_known * (3 + seasons.len())
}

impl Covariates {
    /// Fits scaling and law on the covariates of a history; the effects come with the base forecaster. `None` when there are
    /// none.
    ///
    /// # Errors
    /// Those of [`crate::fit`].
    pub fn fit(
        history: &History,
        roles: &Roles,
        config: &TrainConfig,
        device: &Device,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Option<Self>, Error> {
        if roles.known.is_empty() {
            return Ok(None);
        }
        let known = history.columns(&roles.known);
        let config = TrainConfig { budget: Budget::Steps(0), ..config.clone() };
        let law = train::fit_law(&known, &config, device, progress)?;
        Ok(Some(Self {
            scaling: Scaling::fit(ScalingKind::Linear, &known.values),
            law: Box::new(law),
            effects: Effects::default(),
        }))
    }

    /// Number of covariates.
    pub fn n_known(&self) -> usize {
        self.scaling.n_series()
    }

    /// A calendar with the features of the covariates beside it, for values `[step, covariate]` of its first rows. Gaps count as
    /// the value one season earlier, or the last one.
    pub fn beside(&self, calendar: &Calendar, known: &Grid) -> Calendar {
        let n_known = self.n_known();
        let mut standard = self.scaling.standardise_grid(known);
        for (index, value) in standard.iter_mut().enumerate() {
            let [smallest, largest] = self.scaling.ranges[index % n_known];
            *value = value.clamp(smallest - BEYOND_RANGE, largest + BEYOND_RANGE);
        }
        let seasons = &self.law.seasons;
        let filled = fill_from_past(&standard, n_known, seasons.first().copied());
        calendar.clone().with_covariates(n_features(n_known, seasons), features(&filled, n_known, seasons))
    }

    /// What is expected of the unknown future; `None` when all of it is known.
    pub fn expected(&self, roles: &Roles, window: &Window) -> Result<Option<Grid>, Error> {
        let config = SampleConfig { n_samples: N_EXPECTED, ..SampleConfig::default() };
        Ok(self.futures(roles, window, &config)?.map(|futures| futures.mean()))
    }

    /// Draws the unknown future; `None` when all of it is known, or nothing of the covariates.
    ///
    /// # Errors
    /// Those of [`Model::forecast`].
    pub fn futures(&self, roles: &Roles, window: &Window, config: &SampleConfig) -> Result<Option<Futures>, Error> {
        let known = known_values(roles, window);
        let n_rows = known.n_steps();
        let ends: Vec<usize> = ends(&known).collect();
        let newest = ends.iter().copied().max().unwrap_or(0);
        if newest == 0 || ends.iter().all(|&end| end == n_rows) {
            return Ok(None);
        }
        // Where one covariate is known to the end, the step after it is drawn along: a horizon has at least one.
        let supplied = Window {
            context: known.rows(0..newest),
            calendar: window.calendar.extended(n_rows + 1),
            horizon: (n_rows - newest).max(1),
            bounds: roles.known.iter().map(|&series| window.bounds[series]).collect(),
            future: None,
        };
        let config = SampleConfig { seed: config.seed ^ SEED_OF_COVARIATES, ..*config };
        let drawn = self.law.forecast(&supplied, &config)?;
        let first_row = (newest as i64 + i64::from(drawn.first_step()) - 1).max(0) as usize;
        Ok(Some(Futures { known, first_row, drawn }))
    }
}

impl Futures {
    /// All rows of the covariates as one sample has them.
    pub fn of_sample(&self, sample: usize) -> Grid {
        self.filled(|step, covariate| f64::from(self.drawn.value(sample, step, covariate)))
    }

    fn mean(&self) -> Grid {
        let mean = self.drawn.mean();
        self.filled(|step, covariate| mean[step * self.known.n_series() + covariate])
    }

    fn filled(&self, drawn: impl Fn(usize, usize) -> f64) -> Grid {
        let n_known = self.known.n_series();
        let ends: Vec<usize> = ends(&self.known).collect();
        let value = |(index, &value): (usize, &f64)| {
            let (row, covariate) = (index / n_known, index % n_known);
            if row >= ends[covariate].max(self.first_row) { drawn(row - self.first_row, covariate) } else { value }
        };
        Grid::from_rows(n_known, self.known.values().iter().enumerate().map(value).collect())
    }
}

/// A history as the joint law sees it: the modelled series, with the known covariates beside its calendar.
pub(crate) fn modelled_history<'h>(
    history: &'h History,
    roles: &Roles,
    covariates: Option<&Covariates>,
) -> Cow<'h, History> {
    if roles.are_all_targets() {
        return Cow::Borrowed(history);
    }
    let modelled = history.columns(&roles.modelled);
    Cow::Owned(match covariates {
        None => modelled,
        Some(covariates) => {
            let calendar = covariates.beside(&history.calendar, &history.values.columns(&roles.known));
            History { calendar, ..modelled }
        }
    })
}

/// For each covariate, the row after its last known one.
fn ends(known: &Grid) -> impl Iterator<Item = usize> {
    (0..known.n_series()).map(|covariate| known.last_observed(covariate).map_or(0, |last| last + 1))
}

/// Values of the known covariates in context and horizon, `[step, covariate]`.
pub(crate) fn known_values(roles: &Roles, window: &Window) -> Grid {
    let n_known = roles.known.len();
    let mut values = window.context.columns(&roles.known).values().to_vec();
    if let Some(future) = &window.future {
        values.extend_from_slice(future.columns(&roles.known).values());
    }
    values.resize((window.context.n_steps() + window.horizon) * n_known, f64::NAN);
    Grid::from_rows(n_known, values)
}

/// Known covariates of a window whose future is not supplied to its end.
pub(crate) fn unknown(roles: &Roles, window: &Window) -> Vec<UnknownCovariate> {
    let known = known_values(roles, window);
    let missing = ends(&known).enumerate().filter(|&(_, end)| end < known.n_steps());
    let step = |end: usize| end as i32 - window.context.n_steps() as i32 + 1;
    missing.map(|(covariate, end)| UnknownCovariate { series: roles.known[covariate], step: step(end) }).collect()
}

/// Features `[time, feature]` of filled standard values `[time, covariate]`: first all values, which the network reads.
fn features(filled: &[f64], n_known: usize, seasons: &[usize]) -> Vec<f64> {
    let length = seasons.first().copied().unwrap_or(8);
    let mut sums = vec![0.0; n_known];
    let mut features = Vec::with_capacity(filled.len() / n_known.max(1) * n_features(n_known, seasons));
    for (step, row) in filled.chunks_exact(n_known).enumerate() {
        let before = |back: usize| &filled[step.saturating_sub(back) * n_known..][..n_known];
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        if step >= length {
            sums.iter_mut().zip(before(length)).for_each(|(sum, value)| *sum -= value);
        }
        features.extend_from_slice(row);
        features.extend_from_slice(before(1));
        features.extend(sums.iter().map(|sum| sum / length.min(step + 1) as f64));
        for &season in seasons {
            features.extend(row.iter().zip(before(season)).map(|(value, before)| value - before));
        }
    }
    features
}
