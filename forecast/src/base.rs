//! The base forecaster: a linear map from recent values and the calendar to the path ahead.
//!
//! Diffusion Forcing models what this map leaves over. Last value, last season and ridge regression are one
//! type with different weights; which one serves is chosen on the last part of the training data. Its errors
//! in training are *out of fold* (each origin is forecast by weights that did not see it), so the model learns
//! errors as large as those it will meet.
//!
//! All values here are in standard units, see [`crate::scaling`].

use std::fmt;

use nalgebra::{DMatrix, DMatrixView};
use serde::{Deserialize, Serialize};

use crate::{Calendar, Error};

/// What a base forecaster was made as.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BaseKind {
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
    },
}

impl fmt::Display for BaseKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastValue => write!(formatter, "last value"),
            Self::LastSeason { season } => write!(formatter, "last season of {season} steps"),
            Self::Ridge { penalty, pooled } => {
                write!(formatter, "{} ridge, penalty {penalty}", if *pooled { "pooled" } else { "per-series" })
            }
        }
    }
}

/// A linear forecaster of the next `horizon` values of each series, relative to its last value.
///
/// ```text
/// path(h) = last + Σ_j weights[j, h] · x_j        x = 1, calendar of the origin, value(origin − lag) − last for lag 1..context
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// What it was made as.
    pub kind: BaseKind,
    /// Number of values that it looks at, the last one included.
    pub context: usize,
    /// Leads of its path.
    pub horizon: usize,
    /// Row-major `[feature, horizon]`, one matrix per series or a single one for all.
    pub weights: Vec<Vec<f64>>,
}

/// Filled standard values `[time, series]` and their calendar: what a base forecaster reads.
#[derive(Clone, Copy)]
pub struct BaseInput<'a> {
    /// Filled values, row-major `[time, series]`.
    pub filled: &'a [f64],
    /// Number of series.
    pub n_series: usize,
    /// Features of each step.
    pub calendar: &'a Calendar,
}

impl BaseInput<'_> {
    fn value(&self, step: usize, series: usize) -> f64 {
        self.filled[step * self.n_series + series]
    }

    /// Features of an origin: 1, calendar, lag differences; `context - 1` of the latter.
    fn features(&self, origin: usize, series: usize, context: usize, out: &mut Vec<f64>) {
        let last = self.value(origin, series);
        out.clear();
        out.push(1.0);
        out.extend_from_slice(self.calendar.row(origin));
        out.extend((1..context).map(|lag| if lag > origin { 0.0 } else { self.value(origin - lag, series) - last }));
    }
}

impl Base {
    fn last_value(n_calendar: usize, horizon: usize) -> Self {
        Self { kind: BaseKind::LastValue, context: 1, horizon, weights: vec![vec![0.0; (1 + n_calendar) * horizon]] }
    }

    fn last_season(n_calendar: usize, horizon: usize, season: usize) -> Self {
        let mut weights = vec![0.0; (1 + n_calendar + season - 1) * horizon];
        for lead in 0..horizon {
            let lag = season - 1 - lead % season;
            if lag > 0 {
                weights[(n_calendar + lag) * horizon + lead] = 1.0;
            }
        }
        Self { kind: BaseKind::LastSeason { season }, context: season, horizon, weights: vec![weights] }
    }

    /// The path of one series from an origin, `out[lead]` for lead 1 first, standard units.
    pub fn path(&self, input: BaseInput<'_>, origin: usize, series: usize, features: &mut Vec<f64>, out: &mut [f64]) {
        input.features(origin, series, self.context, features);
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
        input.features(origin, series, self.context, features);
        let weights = &self.weights[series % self.weights.len()];
        let change: f64 = features.iter().zip(weights.chunks_exact(self.horizon)).map(|(x, row)| x * row[0]).sum();
        input.value(origin, series) + change
    }
}

/// Contiguous folds of forecast origins. The last `horizon` origins of a fold are purged: their paths reach into the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Folds {
    first: usize,
    end: usize,
    n_folds: usize,
    horizon: usize,
}

const N_FOLDS_MAX: usize = 5;

impl Folds {
    /// Folds of the origins `first..end`.
    pub fn new(first: usize, end: usize, horizon: usize) -> Self {
        let n_folds = ((end - first) / (3 * horizon)).clamp(2, N_FOLDS_MAX);
        Self { first, end, n_folds, horizon }
    }

    /// Number of folds.
    pub fn n_folds(&self) -> usize {
        self.n_folds
    }

    /// First origin of a fold; the end of the last one for `fold == n_folds`.
    pub fn start(&self, fold: usize) -> usize {
        self.first + (self.end - self.first) * fold / self.n_folds
    }

    /// The fold of an origin; origins outside belong to the nearest.
    pub fn of(&self, origin: usize) -> usize {
        (1..self.n_folds).take_while(|&fold| self.start(fold) <= origin).count()
    }

    /// Origins of a fold whose paths stay inside it; at least one.
    pub fn usable(&self, fold: usize) -> std::ops::Range<usize> {
        let (start, end) = (self.start(fold), self.start(fold + 1));
        let purged = if fold + 1 == self.n_folds { 0 } else { self.horizon.min((end - start) / 2) };
        start..end - purged
    }
}

/// A base forecaster and its out-of-fold versions.
pub struct CrossFitted {
    /// Fitted on every fold.
    pub base: Base,
    /// For each fold, the forecaster that did not see it.
    pub without_fold: Vec<Base>,
    /// The folds.
    pub folds: Folds,
}

/// Normal equations of the ridge regression, per fold and per series.
struct NormalEquations {
    gram: Vec<Vec<DMatrix<f64>>>,
    moment: Vec<Vec<DMatrix<f64>>>,
    n_rows: Vec<Vec<f64>>,
}

const N_ROWS_MAX: usize = 6000;
const CONTEXT_MAX: usize = 400;
/// Above this many series the weights are pooled: their normal equations would not fit in memory.
const N_SERIES_UNPOOLED_MAX: usize = 64;
const PENALTIES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// Chooses and fits the base forecasters of a panel.
pub struct BaseFitter<'a> {
    input: BaseInput<'a>,
    /// Standard values with their gaps: only whole observed paths are regressed on.
    standard: &'a [f64],
    horizon: usize,
    context_max: usize,
    folds: Folds,
    equations: NormalEquations,
}

impl<'a> BaseFitter<'a> {
    /// Collects the normal equations of every fold.
    ///
    /// # Errors
    /// [`Error::TooShort`] when not even last-value errors could be measured.
    pub fn new(input: BaseInput<'a>, standard: &'a [f64], seasons: &[usize], horizon: usize) -> Result<Self, Error> {
        let n_steps = input.filled.len() / input.n_series;
        let longest =
            seasons.iter().map(|season| 2 * season).max().unwrap_or(16).max(seasons.last().map_or(16, |s| s + 1));
        let context_max = longest.min(CONTEXT_MAX).min(n_steps / 4).max(1);
        let needed = context_max + 4 * horizon;
        if n_steps < needed {
            return Err(Error::TooShort { n_steps, horizon, needed });
        }
        let folds = Folds::new(context_max - 1, n_steps - horizon, horizon);
        let mut fitter = Self {
            input,
            standard,
            horizon,
            context_max,
            folds,
            equations: NormalEquations { gram: vec![], moment: vec![], n_rows: vec![] },
        };
        fitter.equations = fitter.collect();
        Ok(fitter)
    }

    /// The folds of the origins.
    pub fn folds(&self) -> Folds {
        self.folds
    }

    fn n_groups(&self) -> usize {
        if self.input.n_series > N_SERIES_UNPOOLED_MAX { 1 } else { self.input.n_series }
    }

    fn observed_path(&self, origin: usize, series: usize) -> bool {
        (1..=self.horizon).all(|lead| !self.standard[(origin + lead) * self.input.n_series + series].is_nan())
    }

    fn collect(&self) -> NormalEquations {
        let n_features = self.context_max + self.input.calendar.n_features();
        let n_origins = self.folds.end - self.folds.first;
        let n_groups = self.n_groups();
        let stride = (n_origins * (self.input.n_series / n_groups)).div_ceil(N_ROWS_MAX).max(1);
        let mut equations = NormalEquations { gram: vec![], moment: vec![], n_rows: vec![] };
        let mut features = Vec::with_capacity(n_features);
        for fold in 0..self.folds.n_folds() {
            let (mut grams, mut moments, mut counts) = (vec![], vec![], vec![]);
            for group in 0..n_groups {
                let (mut x, mut y) = (vec![], vec![]);
                for series in (group..self.input.n_series).step_by(n_groups) {
                    for origin in self.folds.usable(fold).step_by(stride) {
                        if self.observed_path(origin, series) {
                            self.input.features(origin, series, self.context_max, &mut features);
                            x.extend_from_slice(&features);
                            let last = self.input.value(origin, series);
                            y.extend((1..=self.horizon).map(|lead| self.input.value(origin + lead, series) - last));
                        }
                    }
                }
                // Columns are rows of the regression here, so that a row is contiguous.
                let n_rows = x.len() / n_features;
                let x = DMatrixView::from_slice(&x, n_features, n_rows);
                let y = DMatrixView::from_slice(&y, self.horizon, n_rows);
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
    fn ridge(&self, folds: &[usize], context: usize, penalty: f64, pooled: bool) -> Option<Base> {
        let n_features = context + self.input.calendar.n_features();
        let n_groups = self.n_groups();
        let groups: Vec<Vec<usize>> =
            if pooled { vec![(0..n_groups).collect()] } else { (0..n_groups).map(|group| vec![group]).collect() };
        let mut weights = vec![];
        for members in groups {
            let mut gram = DMatrix::zeros(n_features, n_features);
            let mut moment = DMatrix::zeros(n_features, self.horizon);
            let mut n_rows = 0.0;
            for (&fold, &group) in folds.iter().flat_map(|fold| members.iter().map(move |group| (fold, group))) {
                gram += self.equations.gram[fold][group].view((0, 0), (n_features, n_features));
                moment += self.equations.moment[fold][group].view((0, 0), (n_features, self.horizon));
                n_rows += self.equations.n_rows[fold][group];
            }
            if n_rows == 0.0 {
                // A series without a single observed path keeps its last value.
                weights.push(vec![0.0; n_features * self.horizon]);
                continue;
            }
            for feature in 0..n_features {
                // The intercept is all but free.
                gram[(feature, feature)] += n_rows * if feature == 0 { 1e-6 } else { penalty };
            }
            let solution = gram.cholesky()?.solve(&moment);
            weights.push(solution.transpose().as_slice().to_vec());
        }
        Some(Base { kind: BaseKind::Ridge { penalty, pooled }, context, horizon: self.horizon, weights })
    }

    /// Mean absolute error over the usable origins of a fold, standard units.
    fn error(&self, base: &Base, fold: usize) -> f64 {
        let origins = self.folds.usable(fold);
        let stride = (origins.len() * self.input.n_series).div_ceil(N_ROWS_MAX).max(1);
        let (mut features, mut path) = (vec![], vec![0.0; self.horizon]);
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
    pub fn choose(&self, seasons: &[usize]) -> Base {
        let n_calendar = self.input.calendar.n_features();
        let last = self.folds.n_folds() - 1;
        let before: Vec<usize> = (0..last).collect();
        let fitting = |length: &usize| *length <= self.context_max;
        let mut candidates = vec![Base::last_value(n_calendar, self.horizon)];
        let held_seasons = seasons.iter().copied().filter(fitting);
        candidates.extend(held_seasons.map(|season| Base::last_season(n_calendar, self.horizon, season)));
        let mut contexts: Vec<usize> =
            seasons.iter().flat_map(|&season| [season, season + 1, 2 * season]).filter(fitting).collect();
        contexts.extend([4, 16, self.context_max].iter().copied().filter(fitting));
        contexts.sort_unstable();
        contexts.dedup();
        let poolings: &[bool] = if self.n_groups() == 1 { &[true] } else { &[false, true] };
        for &context in &contexts {
            for penalty in PENALTIES {
                candidates.extend(poolings.iter().filter_map(|&pooled| self.ridge(&before, context, penalty, pooled)));
            }
        }
        let errors: Vec<f64> = candidates.iter().map(|base| self.error(base, last)).collect();
        let best = (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b])).unwrap_or(0);
        candidates.swap_remove(best)
    }

    /// The chosen forecaster fitted on the given folds, with its out-of-fold versions.
    ///
    /// For a fold outside the given ones, all given folds are used.
    pub fn cross_fit(&self, chosen: &Base, folds: &[usize]) -> CrossFitted {
        let fit = |folds: &[usize]| match chosen.kind {
            BaseKind::Ridge { penalty, pooled } => {
                self.ridge(folds, chosen.context, penalty, pooled).unwrap_or_else(|| chosen.clone())
            }
            BaseKind::LastValue | BaseKind::LastSeason { .. } => chosen.clone(),
        };
        let without_fold = (0..self.folds.n_folds())
            .map(|fold| {
                let others: Vec<usize> = folds.iter().copied().filter(|&other| other != fold).collect();
                fit(if others.is_empty() { folds } else { &others })
            })
            .collect();
        CrossFitted { base: fit(folds), without_fold, folds: self.folds }
    }
}
