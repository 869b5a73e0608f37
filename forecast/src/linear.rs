//! The linear part of the base forecaster: from recent values and the calendar to the path ahead.
//!
//! Last value, last season and ridge regression are one type with different weights; which one serves is chosen on the
//! last part of the training data.
//!
//! All values here are in standard units, see [`crate::scaling`].

use std::fmt;

use nalgebra::{DMatrix, DMatrixView};
use serde::{Deserialize, Serialize};

use crate::folds::{CrossFitted, Folds};
use crate::{Calendar, Error, past};

/// What a linear forecaster was made as.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LinearKind {
    /// Every lead repeats the last value.
    LastValue,
    /// Every lead repeats the value one season earlier.
    LastSeason {
        /// Season length in steps.
        season: usize,
    },
    /// Ridge regression of the path on the last values and the calendar.
    Ridge {
        /// Penalty as a share of the number of rows.
        penalty: f64,
        /// One set of weights for all series instead of one per series.
        pooled: bool,
        /// Weight of a fold relative to the next newer one.
        decay: f64,
    },
}

impl fmt::Display for LinearKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastValue => write!(formatter, "last value"),
            Self::LastSeason { season } => write!(formatter, "last season of {season} steps"),
            Self::Ridge { penalty, pooled, decay } => {
                let weights = if *pooled { "pooled" } else { "per-series" };
                write!(formatter, "{weights} ridge, penalty {penalty}, decay {decay}")
            }
        }
    }
}

/// A linear forecaster of the next `horizon` values of each series, relative to its last value.
///
/// ```text
/// path(h) = last + Σ_j weights[j, h] · x_j        x = 1, calendar of the origin, recent values of past covariates,
///                                                     value(origin − lag) − last for each lag
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// What it was made as.
    pub kind: LinearKind,
    /// Steps back from the last value to the other values that it looks at.
    pub lags: Vec<usize>,
    /// Leads of its path.
    pub horizon: usize,
    /// Row-major `[feature, horizon]`, one matrix per series or a single one for all.
    pub weights: Vec<Vec<f64>>,
}

/// Filled standard values `[time, series]` and their calendar: what a forecaster reads.
#[derive(Clone, Copy)]
pub struct BaseInput<'a> {
    /// Filled values, row-major `[time, series]`.
    pub filled: &'a [f64],
    /// Number of series.
    pub n_series: usize,
    /// Features of each step.
    pub calendar: &'a Calendar,
    /// The series that are past covariates of the others.
    pub past: &'a [usize],
}

impl BaseInput<'_> {
    /// The value of a series at a step.
    pub fn value(&self, step: usize, series: usize) -> f64 {
        self.filled[step * self.n_series + series]
    }

    /// Number of features of an origin that are no lag differences.
    fn n_features(&self) -> usize {
        1 + self.calendar.n_features() + past::n_features(self.past.len())
    }

    /// Features of an origin: 1, calendar, past covariates, lag differences.
    fn features(&self, origin: usize, series: usize, lags: &[usize], out: &mut Vec<f64>) {
        let last = self.value(origin, series);
        out.clear();
        out.push(1.0);
        out.extend_from_slice(self.calendar.row(origin));
        past::push_features(*self, origin, out);
        out.extend(lags.iter().map(|&lag| if lag > origin { 0.0 } else { self.value(origin - lag, series) - last }));
    }
}

impl Linear {
    /// Number of values up to the last one that it needs.
    pub fn context(&self) -> usize {
        1 + self.lags.iter().copied().max().unwrap_or(0)
    }

    /// Number of weights of so many lags, for a calendar and past covariates.
    pub(crate) fn n_weights(n_calendar: usize, n_past: usize, n_lags: usize, horizon: usize) -> usize {
        (1 + n_calendar + past::n_features(n_past) + n_lags) * horizon
    }

    fn last_value(n_features: usize, horizon: usize) -> Self {
        Self { kind: LinearKind::LastValue, lags: vec![], horizon, weights: vec![vec![0.0; n_features * horizon]] }
    }

    fn last_season(n_features: usize, horizon: usize, season: usize) -> Self {
        let lags: Vec<usize> = (1..season).collect();
        let mut weights = vec![0.0; (n_features + lags.len()) * horizon];
        for lead in 0..horizon {
            let lag = season - 1 - lead % season;
            if lag > 0 {
                weights[(n_features + lag - 1) * horizon + lead] = 1.0;
            }
        }
        Self { kind: LinearKind::LastSeason { season }, lags, horizon, weights: vec![weights] }
    }

    /// The path of one series from an origin, `out[lead]` for lead 1 first, standard units.
    pub fn path(&self, input: BaseInput<'_>, origin: usize, series: usize, features: &mut Vec<f64>, out: &mut [f64]) {
        input.features(origin, series, &self.lags, features);
        let weights = &self.weights[series % self.weights.len()];
        out.fill(input.value(origin, series));
        for (feature, row) in features.iter().zip(weights.chunks_exact(self.horizon)) {
            if *feature != 0.0 {
                out.iter_mut().zip(row).for_each(|(value, weight)| *value += feature * weight);
            }
        }
    }

    /// The paths of all series from an origin, `[lead, series]`.
    pub fn paths(&self, input: BaseInput<'_>, origin: usize) -> Vec<f64> {
        let n_series = input.n_series;
        let (mut features, mut path) = (vec![], vec![0.0; self.horizon]);
        let mut paths = vec![0.0; self.horizon * n_series];
        for series in 0..n_series {
            self.path(input, origin, series, &mut features, &mut path);
            path.iter().enumerate().for_each(|(lead, &value)| paths[lead * n_series + series] = value);
        }
        paths
    }

    /// The forecast of the step after an origin.
    pub fn one_step(&self, input: BaseInput<'_>, origin: usize, series: usize, features: &mut Vec<f64>) -> f64 {
        input.features(origin, series, &self.lags, features);
        let weights = &self.weights[series % self.weights.len()];
        let change: f64 = features.iter().zip(weights.chunks_exact(self.horizon)).map(|(x, row)| x * row[0]).sum();
        input.value(origin, series) + change
    }
}

/// Normal equations of the ridge regression, per fold and per series.
struct NormalEquations {
    gram: Vec<Vec<DMatrix<f64>>>,
    moment: Vec<Vec<DMatrix<f64>>>,
    n_rows: Vec<Vec<f64>>,
}

const N_ROWS_MAX: usize = 6000;
/// Lags that a ridge regression has at most: its normal equations are as many rows and columns.
const N_LAGS_MAX: usize = 500;
/// Values that count as recent whatever the season is.
const N_RECENT_MIN: usize = 16;
/// Above this many series the weights are pooled: their normal equations would not fit in memory.
const N_SERIES_UNPOOLED_MAX: usize = 64;
const PENALTIES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];
const DECAYS: [f64; 2] = [1.0, 0.4];

/// What follows from the shape of a history alone: the lags of its regressions and the folds of its origins.
#[derive(Clone, Debug)]
pub struct LinearPlan {
    /// Lags of the largest regression; smaller ones take the first of them.
    lags: Vec<usize>,
    /// Numbers of lags that are tried.
    n_lags_tried: Vec<usize>,
    /// Leads of a path.
    horizon: usize,
    /// The folds.
    pub folds: Folds,
}

impl LinearPlan {
    /// The plan for a history with the given seasons and number of steps.
    ///
    /// # Errors
    /// [`Error::TooShort`] when not even last-value errors could be measured.
    pub fn new(seasons: &[usize], horizon: usize, n_steps: usize) -> Result<Self, Error> {
        let (lags, n_lags_tried) = lags(seasons, horizon, n_steps / 4);
        let context = 1 + lags.iter().copied().max().unwrap_or(0);
        let needed = context + 4 * horizon;
        if n_steps < needed {
            return Err(Error::TooShort { n_steps, horizon, needed });
        }
        Ok(Self { lags, n_lags_tried, horizon, folds: Folds::new(context - 1, n_steps - horizon, horizon) })
    }

    /// The same folds with a middling number of lags, for a forecaster that serves to compare.
    pub(crate) fn short(&self) -> Self {
        let n_lags = self.n_lags_tried[self.n_lags_tried.len() / 2];
        Self { lags: self.lags[..n_lags].to_vec(), n_lags_tried: vec![n_lags], ..self.clone() }
    }
}

/// Lags of the largest regression, and the numbers of them that are tried: the last season, the last two, then also what
/// lies one and two longest seasons before the horizon. None is longer than `longest`.
fn lags(seasons: &[usize], horizon: usize, longest: usize) -> (Vec<usize>, Vec<usize>) {
    let shortest = seasons.first().copied().unwrap_or(1);
    let recent = [shortest, 2 * shortest, N_RECENT_MIN, horizon];
    let n_recent = recent.into_iter().max().unwrap_or(N_RECENT_MIN).min(longest).min(N_LAGS_MAX);
    let mut lags: Vec<usize> = (1..=n_recent).collect();
    let mut tried: Vec<usize> = recent.into_iter().filter(|&n| n <= n_recent).chain([n_recent]).collect();
    for multiple in [1, 2] {
        let season = multiple * seasons.last().copied().unwrap_or(0);
        if season > n_recent && season <= longest {
            // Lead 1 was `season - 1` steps before the last value, one season earlier.
            let block = season.saturating_sub(horizon + 1).max(n_recent + 1)..=season;
            if lags.len() + block.clone().count() <= N_LAGS_MAX {
                lags.extend(block);
                tried.push(lags.len());
            }
        }
    }
    tried.sort_unstable();
    tried.dedup();
    (lags, tried)
}

/// Chooses and fits the linear forecasters of a panel.
pub struct LinearFitter<'a> {
    input: BaseInput<'a>,
    /// Standard values with their gaps: only whole observed paths are regressed on.
    standard: &'a [f64],
    plan: &'a LinearPlan,
    equations: NormalEquations,
}

impl<'a> LinearFitter<'a> {
    /// Collects the normal equations of every fold.
    pub fn new(input: BaseInput<'a>, standard: &'a [f64], plan: &'a LinearPlan) -> Self {
        let equations = NormalEquations { gram: vec![], moment: vec![], n_rows: vec![] };
        let mut fitter = Self { input, standard, plan, equations };
        fitter.equations = fitter.collect();
        fitter
    }

    /// The folds of the origins.
    pub fn folds(&self) -> Folds {
        self.plan.folds
    }

    fn n_groups(&self) -> usize {
        if self.input.n_series > N_SERIES_UNPOOLED_MAX { 1 } else { self.input.n_series }
    }

    fn observed_path(&self, origin: usize, series: usize) -> bool {
        (1..=self.plan.horizon).all(|lead| !self.standard[(origin + lead) * self.input.n_series + series].is_nan())
    }

    fn collect(&self) -> NormalEquations {
        let n_features = self.input.n_features() + self.plan.lags.len();
        let n_origins = self.plan.folds.n_origins();
        let n_groups = self.n_groups();
        let stride = (n_origins * (self.input.n_series / n_groups)).div_ceil(N_ROWS_MAX).max(1);
        let mut equations = NormalEquations { gram: vec![], moment: vec![], n_rows: vec![] };
        let mut features = Vec::with_capacity(n_features);
        for fold in 0..self.plan.folds.n_folds() {
            let (mut grams, mut moments, mut counts) = (vec![], vec![], vec![]);
            for group in 0..n_groups {
                let (mut x, mut y) = (vec![], vec![]);
                for series in (group..self.input.n_series).step_by(n_groups) {
                    for origin in self.plan.folds.usable(fold).step_by(stride) {
                        if self.observed_path(origin, series) {
                            self.input.features(origin, series, &self.plan.lags, &mut features);
                            x.extend_from_slice(&features);
                            let last = self.input.value(origin, series);
                            y.extend(
                                (1..=self.plan.horizon).map(|lead| self.input.value(origin + lead, series) - last),
                            );
                        }
                    }
                }
                // Columns are rows of the regression here, so that a row is contiguous.
                let n_rows = x.len() / n_features;
                let x = DMatrixView::from_slice(&x, n_features, n_rows);
                let y = DMatrixView::from_slice(&y, self.plan.horizon, n_rows);
                grams.push(x * x.transpose());
                moments.push(x * y.transpose());
                counts.push(n_rows as f64);
            }
            equations.gram.push(grams);
            equations.moment.push(moments);
            equations.n_rows.push(counts);
        }
        equations
    }

    /// Ridge weights from the given folds; `None` when there are no rows or the system is singular.
    fn ridge(&self, folds: &[usize], n_lags: usize, penalty: f64, pooled: bool, decay: f64) -> Option<Linear> {
        let newest = folds.iter().copied().max()?;
        let n_features = self.input.n_features() + n_lags;
        let n_groups = self.n_groups();
        let groups: Vec<Vec<usize>> =
            if pooled { vec![(0..n_groups).collect()] } else { (0..n_groups).map(|group| vec![group]).collect() };
        let mut weights = vec![];
        for members in groups {
            let mut gram = DMatrix::zeros(n_features, n_features);
            let mut moment = DMatrix::zeros(n_features, self.plan.horizon);
            let mut n_rows = 0.0;
            for (&fold, &group) in folds.iter().flat_map(|fold| members.iter().map(move |group| (fold, group))) {
                let weight = decay.powi((newest - fold) as i32);
                gram += weight * self.equations.gram[fold][group].view((0, 0), (n_features, n_features));
                moment += weight * self.equations.moment[fold][group].view((0, 0), (n_features, self.plan.horizon));
                n_rows += weight * self.equations.n_rows[fold][group];
            }
            if n_rows == 0.0 {
                // A series without a single observed path keeps its last value.
                weights.push(vec![0.0; n_features * self.plan.horizon]);
                continue;
            }
            for feature in 0..n_features {
                // The intercept is all but free.
                gram[(feature, feature)] += n_rows * if feature == 0 { 1e-6 } else { penalty };
            }
            let solution = gram.cholesky()?.solve(&moment);
            weights.push(solution.transpose().as_slice().to_vec());
        }
        let lags = self.plan.lags[..n_lags].to_vec();
        Some(Linear { kind: LinearKind::Ridge { penalty, pooled, decay }, lags, horizon: self.plan.horizon, weights })
    }

    /// The ridge regression on all lags, fitted on some folds with a moderate penalty; `None` when there are no rows.
    pub(crate) fn ridge_of_all_lags(&self, folds: &[usize]) -> Option<Linear> {
        self.ridge(folds, self.plan.lags.len(), PENALTIES[2], self.n_groups() == 1, 1.0)
    }

    /// Mean absolute error over the usable origins of a fold, standard units.
    fn error(&self, base: &Linear, fold: usize) -> f64 {
        let origins = self.plan.folds.usable(fold);
        let stride = (origins.len() * self.input.n_series).div_ceil(N_ROWS_MAX).max(1);
        let (mut features, mut path) = (vec![], vec![0.0; self.plan.horizon]);
        let (mut sum, mut n) = (0.0, 0.0);
        for origin in origins.step_by(stride) {
            for series in 0..self.input.n_series {
                base.path(self.input, origin, series, &mut features, &mut path);
                for (lead, forecast) in path.iter().enumerate() {
                    let truth = self.standard[(origin + 1 + lead) * self.input.n_series + series];
                    if !truth.is_nan() {
                        sum += (truth - forecast).abs();
                        n += 1.0;
                    }
                }
            }
        }
        if n == 0.0 { f64::INFINITY } else { sum / n }
    }

    /// The forecaster with the smallest error on the last fold, fitted on the folds before it.
    pub fn choose(&self, seasons: &[usize]) -> Linear {
        let n_features = self.input.n_features();
        let last = self.plan.folds.n_folds() - 1;
        let before: Vec<usize> = (0..last).collect();
        let context = 1 + self.plan.lags.iter().copied().max().unwrap_or(0);
        let mut candidates = vec![Linear::last_value(n_features, self.plan.horizon)];
        let held = seasons.iter().copied().filter(|&season| season <= context);
        candidates.extend(held.map(|season| Linear::last_season(n_features, self.plan.horizon, season)));
        let poolings: &[bool] = if self.n_groups() == 1 { &[true] } else { &[false, true] };
        for &n_lags in &self.plan.n_lags_tried {
            for penalty in PENALTIES {
                for decay in DECAYS {
                    let ridge = |&pooled: &bool| self.ridge(&before, n_lags, penalty, pooled, decay);
                    candidates.extend(poolings.iter().filter_map(ridge));
                }
            }
        }
        let errors: Vec<f64> = candidates.iter().map(|base| self.error(base, last)).collect();
        let best = (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b])).unwrap_or(0);
        candidates.swap_remove(best)
    }

    /// The chosen forecaster fitted on the given folds, with its out-of-fold versions.
    ///
    /// For a fold outside the given ones, all given folds are used.
    pub fn cross_fit(&self, chosen: &Linear, folds: &[usize]) -> CrossFitted<Linear> {
        let fit = |folds: &[usize]| match chosen.kind {
            LinearKind::Ridge { penalty, pooled, decay } => {
                self.ridge(folds, chosen.lags.len(), penalty, pooled, decay).unwrap_or_else(|| chosen.clone())
            }
            LinearKind::LastValue | LinearKind::LastSeason { .. } => chosen.clone(),
        };
        let without_fold = (0..self.plan.folds.n_folds())
            .map(|fold| {
                let others: Vec<usize> = folds.iter().copied().filter(|&other| other != fold).collect();
                fit(if others.is_empty() { folds } else { &others })
            })
            .collect();
        CrossFitted { whole: fit(folds), without_fold, folds: self.plan.folds }
    }
}
