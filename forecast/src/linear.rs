//! The linear part of the base forecaster: from recent values and the calendar to the path ahead.
//!
//! Last value, last season and ridge regression are one type with different weights, and so is an average of them. Which
//! ones are averaged, and with which shares, is chosen on the last two folds of the training data.
//!
//! All values here are in standard units, see [`crate::scaling`].

use std::fmt;

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use crate::folds::{CrossFitted, Folds};
use crate::thinning::thinned;
use crate::{Calendar, Error, parallel, past};

/// How the weights of a linear forecaster come about.
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
        /// The season whose repetition the weights are shrunk to; none shrinks them to the last value.
        season: Option<usize>,
    },
}

/// A linear forecaster in an average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// How its weights come about.
    #[serde(flatten)]
    pub kind: LinearKind,
    /// Of the lags, so many of the first are used.
    pub n_lags: usize,
    /// Its share in the average.
    pub share: f64,
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1} ", self.share)?;
        match self.kind {
            LinearKind::LastValue => write!(formatter, "last value"),
            LinearKind::LastSeason { season } => write!(formatter, "last season of {season}"),
            LinearKind::Ridge { penalty, pooled, season } => {
                let weights = if pooled { "pooled" } else { "per-series" };
                write!(formatter, "{weights} ridge of {} lags, penalty {penalty}", self.n_lags)?;
                season.map_or(Ok(()), |season| write!(formatter, " to last season of {season}"))
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
    /// What it is the average of.
    pub members: Vec<Member>,
    /// Steps back from the last value to the other values that it looks at.
    pub lags: Vec<usize>,
    /// Leads of its path.
    pub horizon: usize,
    /// Row-major `[feature, horizon]`, one matrix per series or a single one for all.
    pub weights: Vec<Vec<f64>>,
}

impl fmt::Display for Linear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.members.iter().map(Member::to_string).collect();
        formatter.write_str(&members.join(" + "))
    }
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

/// Number of features of an origin that are no lag differences: 1, calendar, past covariates.
fn n_plain_features(n_calendar: usize, n_past: usize) -> usize {
    1 + n_calendar + past::n_features(n_past)
}

impl BaseInput<'_> {
    /// The value of a series at a step.
    pub fn value(&self, step: usize, series: usize) -> f64 {
        self.filled[step * self.n_series + series]
    }

    /// Number of features of an origin that are no lag differences.
    fn n_features(&self) -> usize {
        n_plain_features(self.calendar.n_features(), self.past.len())
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

    /// Features of origins and series, a column each, so that what belongs together is contiguous.
    fn columns_of_features(&self, rows: &[(usize, usize)], lags: &[usize]) -> DMatrix<f64> {
        let (mut features, mut all) = (vec![], vec![]);
        for &(origin, series) in rows {
            self.features(origin, series, lags, &mut features);
            all.extend_from_slice(&features);
        }
        DMatrix::from_vec(self.n_features() + lags.len(), rows.len(), all)
    }

    /// Series whose weights are fitted together are one group: each alone, or all of many.
    fn n_groups(&self) -> usize {
        if self.n_series > N_SERIES_UNPOOLED_MAX { 1 } else { self.n_series }
    }
}

impl Linear {
    /// Number of values up to the last one that it needs.
    pub fn context(&self) -> usize {
        1 + self.lags.iter().copied().max().unwrap_or(0)
    }

    /// Number of weights of so many lags, for a calendar and past covariates.
    pub(crate) fn n_weights(n_calendar: usize, n_past: usize, n_lags: usize, horizon: usize) -> usize {
        (n_plain_features(n_calendar, n_past) + n_lags) * horizon
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

/// Normal equations of the ridge regression of one fold and one group of series.
struct NormalEquations {
    gram: DMatrix<f64>,
    moment: DMatrix<f64>,
    n_rows: f64,
}

const N_ROWS_MAX: usize = 6000;
/// Lags that a ridge regression has at most: its normal equations are as many rows and columns.
const N_LAGS_MAX: usize = 500;
/// Values that count as recent whatever the season is, and at most.
const N_RECENT_MIN: usize = 16;
const N_RECENT_MAX: usize = 336;
/// Numbers of lags that are tried.
const N_LAGS_TRIED: usize = 3;
/// Above this many series the weights are pooled: their normal equations would not fit in memory.
const N_SERIES_UNPOOLED_MAX: usize = 64;
/// Penalties of weights that are shrunk to the last value, and of those that are shrunk to a season, which can be larger.
const PENALTIES: [f64; 2] = [0.01, 0.1];
const PENALTIES_TO_SEASON: [f64; 2] = [0.1, 1.0];
/// The last folds that candidates are compared on, elements of their paths, and features of all their origins and series,
/// which at a short horizon take more memory than the paths.
const N_COMPARED_FOLDS: usize = 2;
const N_COMPARED_ELEMENTS: usize = 200_000;
const N_COMPARED_FEATURES: usize = 20_000_000;
/// Mean error, in standard units, below which candidates are equally good: where nothing moves, a candidate that repeats a
/// value makes none.
const SMALLEST_ERROR: f64 = 1e-6;
/// Candidates that are averaged, each with its multiplicity.
const N_PICKS: usize = 10;

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
        let needed = 4 * horizon + 1;
        let Some(available) = n_steps.checked_sub(needed) else {
            return Err(Error::TooShort { n_steps, horizon, needed });
        };
        // Short histories, too, have the shortest season.
        let longest = (n_steps / 4).max(seasons.first().copied().unwrap_or(0)).min(available);
        let (lags, n_lags_tried) = lags(seasons, horizon, longest);
        let first = lags.iter().copied().max().unwrap_or(0);
        Ok(Self { lags, n_lags_tried, horizon, folds: Folds::new(first, n_steps - horizon, horizon) })
    }

    /// At most so many leads, evenly spread from the first on.
    pub(crate) fn leads_of(&self, n_leads: usize) -> Vec<usize> {
        (1..=self.horizon).step_by(self.horizon.div_ceil(n_leads)).collect()
    }

    /// The same folds with a middling number of lags, for a forecaster that serves to compare.
    pub(crate) fn short(&self) -> Self {
        let n_lags = self.n_lags_tried[self.n_lags_tried.len() / 2];
        Self { lags: self.lags[..n_lags].to_vec(), n_lags_tried: vec![n_lags], ..self.clone() }
    }
}

/// Lags of the largest regression, and the numbers of them that are tried: what is recent (two of the shortest seasons, the
/// horizon), then also what lies one and two of each season before the horizon. None is longer than `longest`.
fn lags(seasons: &[usize], horizon: usize, longest: usize) -> (Vec<usize>, Vec<usize>) {
    let shortest = seasons.first().copied().unwrap_or(1);
    let recent = [shortest, 2 * shortest, N_RECENT_MIN, horizon];
    let n_recent = recent.into_iter().max().unwrap_or(N_RECENT_MIN).min(longest).min(N_RECENT_MAX);
    let mut lags: Vec<usize> = (1..=n_recent).collect();
    let mut tried: Vec<usize> = recent.into_iter().filter(|&n| n <= n_recent).chain([n_recent]).collect();
    for multiple in [1, 2] {
        for season in seasons.iter().map(|season| multiple * season).filter(|&season| season <= longest) {
            // Lead 1 was `season - 1` steps before the last value, one season earlier.
            let block: Vec<usize> =
                (season.saturating_sub(horizon + 1)..=season).filter(|lag| *lag > 0 && !lags.contains(lag)).collect();
            if lags.len() + block.len() <= N_LAGS_MAX {
                lags.extend(block);
            }
        }
        tried.push(lags.len());
    }
    tried.sort_unstable();
    tried.dedup();
    // The shortest look back and the longest ones.
    tried.drain(1..(tried.len() + 1).saturating_sub(N_LAGS_TRIED).max(1));
    (lags, tried)
}

/// Weights `[feature, lead]`, one matrix per series or a single one for all.
type Weights = Vec<DMatrix<f64>>;

impl NormalEquations {
    /// Those of every fold and group, from whole observed paths.
    fn collect(input: BaseInput<'_>, standard: &[f64], plan: &LinearPlan) -> Vec<Self> {
        let (n_series, n_groups) = (input.n_series, input.n_groups());
        let stride = (plan.folds.n_origins() * (n_series / n_groups)).div_ceil(N_ROWS_MAX).max(1);
        let is_observed = |&(origin, series): &(usize, usize)| {
            (1..=plan.horizon).all(|lead| !standard[(origin + lead) * n_series + series].is_nan())
        };
        let of = |&(fold, group): &(usize, usize)| {
            let usable = plan.folds.usable(fold);
            let kept = thinned(usable.clone(), usable.len().div_ceil(stride));
            let origins = |series| kept.iter().map(move |&origin| (origin, series));
            let rows = (group..n_series).step_by(n_groups).flat_map(origins);
            Self::new(input, plan, &rows.filter(is_observed).collect::<Vec<_>>())
        };
        let parts = (0..plan.folds.n_folds()).flat_map(|fold| (0..n_groups).map(move |group| (fold, group)));
        parallel::map(&parts.collect::<Vec<_>>(), of)
    }

    /// Those of the paths from some origins of some series.
    fn new(input: BaseInput<'_>, plan: &LinearPlan, rows: &[(usize, usize)]) -> Self {
        let x = input.columns_of_features(rows, &plan.lags);
        let paths = rows.iter().flat_map(|&(origin, series)| {
            let last = input.value(origin, series);
            (1..=plan.horizon).map(move |lead| input.value(origin + lead, series) - last)
        });
        let y = DMatrix::from_iterator(plan.horizon, rows.len(), paths);
        Self { gram: &x * x.transpose(), moment: &x * y.transpose(), n_rows: rows.len() as f64 }
    }
}

/// Chooses and fits the linear forecasters of a panel.
pub struct LinearFitter<'a> {
    input: BaseInput<'a>,
    /// Standard values with their gaps: only whole observed paths are regressed on.
    standard: &'a [f64],
    plan: &'a LinearPlan,
    /// By fold, then by group of series.
    equations: Vec<NormalEquations>,
}

/// The observed elements of some paths, and what each candidate expected.
struct Comparison {
    truth: Vec<f32>,
    forecasts: Vec<Vec<f32>>,
}

/// Every how many of so many origins and series candidates are compared on.
fn compared_stride(n_rows: usize, n_features: usize, horizon: usize) -> usize {
    let of_elements = (n_rows * horizon).div_ceil(N_COMPARED_ELEMENTS);
    of_elements.max((n_rows * n_features).div_ceil(N_COMPARED_FEATURES)).max(1)
}

impl Comparison {
    /// Logarithm of the mean absolute error of a sum of forecasts over their number.
    fn loss(&self, sum: &[f32], candidate: usize, n: usize) -> f64 {
        let share = 1.0 / n as f32;
        let errors = self.truth.iter().zip(sum).zip(&self.forecasts[candidate]);
        let sum: f64 = errors.map(|((truth, sum), forecast)| f64::from((truth - share * (sum + forecast)).abs())).sum();
        libm::log(sum / self.truth.len() as f64 + SMALLEST_ERROR)
    }
}

impl<'a> LinearFitter<'a> {
    /// Collects the normal equations of every fold.
    pub fn new(input: BaseInput<'a>, standard: &'a [f64], plan: &'a LinearPlan) -> Self {
        Self { input, standard, plan, equations: NormalEquations::collect(input, standard, plan) }
    }

    /// Weights with which every lead repeats the last value, or the value one season earlier; `None` where a lag is missing.
    fn naive(&self, season: Option<usize>, n_lags: usize) -> Option<DMatrix<f64>> {
        let mut weights = DMatrix::zeros(self.input.n_features() + n_lags, self.plan.horizon);
        for (lead, season) in (0..self.plan.horizon).filter_map(|lead| Some((lead, season?))) {
            let lag = season - 1 - lead % season;
            if lag > 0 {
                let index = self.plan.lags[..n_lags].iter().position(|&other| other == lag)?;
                weights[(self.input.n_features() + index, lead)] = 1.0;
            }
        }
        Some(weights)
    }

    /// Weights of a kind from the given folds; `None` where a lag is missing.
    fn fit(&self, kind: LinearKind, n_lags: usize, folds: &[usize]) -> Option<Weights> {
        match kind {
            LinearKind::LastValue => Some(vec![self.naive(None, n_lags)?]),
            LinearKind::LastSeason { season } => Some(vec![self.naive(Some(season), n_lags)?]),
            LinearKind::Ridge { penalty, pooled, season } => {
                let naive = self.naive(season, n_lags)?;
                let groups: Vec<usize> = (0..self.input.n_groups()).collect();
                let members: Vec<&[usize]> = if pooled { vec![&groups] } else { groups.chunks(1).collect() };
                Some(members.into_iter().map(|groups| self.ridge(folds, groups, &naive, penalty)).collect())
            }
        }
    }

    /// Ridge weights of some groups of series, shrunk to naive ones; these where there are no rows.
    fn ridge(&self, folds: &[usize], groups: &[usize], naive: &DMatrix<f64>, penalty: f64) -> DMatrix<f64> {
        let shape = naive.shape();
        let (mut gram, mut moment) = (DMatrix::zeros(shape.0, shape.0), DMatrix::zeros(shape.0, shape.1));
        let mut n_rows = 0.0;
        for (&fold, &group) in folds.iter().flat_map(|fold| groups.iter().map(move |group| (fold, group))) {
            let equations = &self.equations[fold * self.input.n_groups() + group];
            gram += equations.gram.view((0, 0), (shape.0, shape.0));
            moment += equations.moment.view((0, 0), shape);
            n_rows += equations.n_rows;
        }
        moment -= &gram * naive;
        for feature in 0..shape.0 {
            // The intercept is all but free.
            gram[(feature, feature)] += n_rows * if feature == 0 { 1e-6 } else { penalty };
        }
        gram.cholesky().map_or_else(|| naive.clone(), |factor| factor.solve(&moment) + naive)
    }

    /// The ridge regression on all lags, fitted on some folds with a moderate penalty.
    pub(crate) fn ridge_of_all_lags(&self, folds: &[usize]) -> Linear {
        let kind = LinearKind::Ridge { penalty: PENALTIES[0], pooled: self.input.n_groups() == 1, season: None };
        self.average(&[Member { kind, n_lags: self.plan.lags.len(), share: 1.0 }], folds)
    }

    /// What is tried, with the number of lags.
    fn candidates(&self, seasons: &[usize]) -> Vec<(LinearKind, usize)> {
        let mut candidates = vec![(LinearKind::LastValue, 0)];
        for &season in seasons {
            let n_lags =
                self.plan.n_lags_tried.iter().copied().find(|&n_lags| self.naive(Some(season), n_lags).is_some());
            candidates.extend(n_lags.map(|n_lags| (LinearKind::LastSeason { season }, n_lags)));
        }
        let poolings: &[bool] = if self.input.n_groups() == 1 { &[true] } else { &[false, true] };
        for &n_lags in &self.plan.n_lags_tried {
            for season in [None].into_iter().chain(seasons.iter().copied().map(Some)) {
                if self.naive(season, n_lags).is_none() {
                    continue;
                }
                for penalty in if season.is_none() { PENALTIES } else { PENALTIES_TO_SEASON } {
                    let ridge = |&pooled: &bool| (LinearKind::Ridge { penalty, pooled, season }, n_lags);
                    candidates.extend(poolings.iter().map(ridge));
                }
            }
        }
        candidates
    }

    /// What candidates that know the folds before it expected in a fold.
    fn compare(&self, candidates: &[(LinearKind, usize)], fold: usize) -> Comparison {
        let (horizon, n_series) = (self.plan.horizon, self.input.n_series);
        let before: Vec<usize> = (0..fold).collect();
        let origins = self.plan.folds.usable(fold);
        let n_features = self.input.n_features() + self.plan.lags.len();
        let stride = compared_stride(origins.len() * n_series, n_features, horizon);
        let origins = thinned(origins.clone(), origins.len().div_ceil(stride));
        let features = |series: usize| {
            let rows: Vec<_> = origins.iter().map(|&origin| (origin, series)).collect();
            self.input.columns_of_features(&rows, &self.plan.lags)
        };
        let features: Vec<DMatrix<f64>> = (0..n_series).map(features).collect();
        // Elements by series, origin and lead, as the columns of the products come.
        let elements = || {
            let of_series = |series| origins.iter().map(move |&origin| (series, origin));
            (0..n_series).flat_map(of_series).flat_map(|(series, origin)| {
                (1..=horizon).map(move |lead| (origin, (origin + lead) * n_series + series, series))
            })
        };
        let observed: Vec<bool> = elements().map(|(_, index, _)| !self.standard[index].is_nan()).collect();
        let keep = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().zip(&observed).filter(|(_, observed)| **observed).map(|(value, _)| value).collect()
        };
        let change = |(origin, index, series)| (self.standard[index] - self.input.value(origin, series)) as f32;
        let forecast = |&(kind, n_lags): &(LinearKind, usize)| {
            // The candidates have the lags that they need.
            let weights = self.fit(kind, n_lags, &before).unwrap_or_default();
            let paths = features.iter().enumerate().flat_map(|(series, features)| {
                let weights = &weights[series % weights.len()];
                (weights.tr_mul(&features.rows(0, weights.nrows())))
                    .iter()
                    .map(|&value| value as f32)
                    .collect::<Vec<_>>()
            });
            keep(paths.collect())
        };
        Comparison { truth: keep(elements().map(change).collect()), forecasts: parallel::map(candidates, forecast) }
    }

    /// The average with the smallest error on the last two folds, each forecast from what lies before it.
    ///
    /// Candidates are added to the average one by one, the one that lowers the error most, with replacement (Caruana et al.,
    /// "Ensemble selection from libraries of models", ICML 2004). The error is the geometric mean over the folds of the
    /// mean absolute error, so that a fold with large values counts no more than the other. Where neither has an observed
    /// value it is the last value that is repeated.
    pub fn choose(&self, seasons: &[usize]) -> Vec<Member> {
        let candidates = self.candidates(seasons);
        let n_folds = self.plan.folds.n_folds();
        let folds = n_folds.saturating_sub(N_COMPARED_FOLDS).max(1)..n_folds;
        let comparisons = folds.map(|fold| self.compare(&candidates, fold));
        // A fold of which nothing was observed says nothing.
        let comparisons: Vec<Comparison> = comparisons.filter(|fold| !fold.truth.is_empty()).collect();
        let mut sums: Vec<Vec<f32>> = comparisons.iter().map(|fold| vec![0.0; fold.truth.len()]).collect();
        let mut picks = vec![0; candidates.len()];
        let indices: Vec<usize> = (0..candidates.len()).collect();
        for n in 1..=N_PICKS {
            let loss = |&candidate: &usize| -> f64 {
                comparisons.iter().zip(&sums).map(|(fold, sum)| fold.loss(sum, candidate, n)).sum()
            };
            let losses = parallel::map(&indices, loss);
            let best = indices.iter().copied().min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap_or(0);
            picks[best] += 1;
            for (sum, fold) in sums.iter_mut().zip(&comparisons) {
                sum.iter_mut().zip(&fold.forecasts[best]).for_each(|(sum, forecast)| *sum += forecast);
            }
        }
        let picked = candidates.into_iter().zip(picks).filter(|(_, n)| *n > 0);
        picked.map(|((kind, n_lags), n)| Member { kind, n_lags, share: f64::from(n) / N_PICKS as f64 }).collect()
    }

    /// The average of members fitted on some folds.
    fn average(&self, members: &[Member], folds: &[usize]) -> Linear {
        let (n_plain, horizon) = (self.input.n_features(), self.plan.horizon);
        let n_lags = members.iter().map(|member| member.n_lags).max().unwrap_or(0);
        let parts: Vec<(f64, Weights)> = members
            .iter()
            .filter_map(|member| Some((member.share, self.fit(member.kind, member.n_lags, folds)?)))
            .collect();
        let n_sets = parts.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1);
        let average = |set: usize| {
            let mut sum = vec![0.0; (n_plain + n_lags) * horizon];
            for (share, weights) in &parts {
                // Columns of the transpose are rows of features.
                let rows = weights[set % weights.len()].transpose();
                sum.iter_mut().zip(rows.iter()).for_each(|(sum, weight)| *sum += share * weight);
            }
            sum
        };
        let weights = (0..n_sets).map(average).collect();
        Linear { members: members.to_vec(), lags: self.plan.lags[..n_lags].to_vec(), horizon, weights }
    }

    /// The chosen average fitted on the given folds, with its out-of-fold versions.
    ///
    /// For a fold outside the given ones, all given folds are used.
    pub fn cross_fit(&self, members: &[Member], folds: &[usize]) -> CrossFitted<Linear> {
        let without = |left_out: &Option<usize>| {
            let others: Vec<usize> = folds.iter().copied().filter(|&fold| Some(fold) != *left_out).collect();
            self.average(members, if others.is_empty() { folds } else { &others })
        };
        let left_out: Vec<Option<usize>> = (0..self.plan.folds.n_folds()).map(Some).collect();
        CrossFitted { whole: without(&None), without_fold: parallel::map(&left_out, without), folds: self.plan.folds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;

    const HORIZON: usize = 6;

    /// Walks that share a season of 12, `[time, series]`.
    fn seasonal(n_steps: usize, n_series: usize, noise: f64) -> Vec<f64> {
        let mut stream = Stream::new(1, 0);
        let season: Vec<f64> = (0..12).map(|_| 2.0 * stream.normal()).collect();
        let mut levels = vec![0.0; n_series];
        let mut values = vec![];
        for step in 0..n_steps {
            for level in &mut levels {
                *level += noise * stream.normal();
                values.push(*level + season[step % 12]);
            }
        }
        values
    }

    /// Runs a function with a fitter of values, and returns the error of the last season and of the chosen average, fitted
    /// before the last fold, on that fold.
    fn errors(values: &[f64], n_series: usize) -> (Vec<Member>, f64, f64) {
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let input = BaseInput { filled: values, n_series, calendar: &calendar, past: &[] };
        let plan = LinearPlan::new(&[12], HORIZON, values.len() / n_series).expect("long enough");
        let fitter = LinearFitter::new(input, values, &plan);
        let members = fitter.choose(&[12]);
        let last = plan.folds.n_folds() - 1;
        let error = |members: &[Member]| {
            let cross = fitter.cross_fit(members, &(0..last).collect::<Vec<_>>());
            let origins = plan.folds.usable(last);
            let n = (origins.len() * HORIZON * n_series) as f64;
            let error_from = |origin: usize| -> f64 {
                let path = cross.whole.paths(input, origin);
                path.iter().zip(&values[(origin + 1) * n_series..]).map(|(path, truth)| (path - truth).abs() / n).sum()
            };
            origins.map(error_from).sum()
        };
        let season = Member { kind: LinearKind::LastSeason { season: 12 }, n_lags: plan.n_lags_tried[2], share: 1.0 };
        let (naive, chosen) = (error(&[season]), error(&members));
        (members, naive, chosen)
    }

    #[test]
    fn the_chosen_average_beats_the_last_season_on_long_histories() {
        let (members, naive, chosen) = errors(&seasonal(600, 2, 0.3), 2);
        assert!(chosen < 0.8 * naive, "{naive} {chosen} {members:?}");
        assert!((members.iter().map(|member| member.share).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_wide_and_short_panel_is_no_worse_than_its_last_season() {
        let (members, naive, chosen) = errors(&seasonal(80, 70, 0.3), 70);
        assert!(chosen <= 1.02 * naive, "{naive} {chosen} {members:?}");
    }

    /// Share of the last value in the average that is chosen for two series whose values from a step on are changed.
    fn share_of_last_value(change: impl Fn(&LinearPlan, &mut [f64], &mut [f64])) -> f64 {
        let mut filled = seasonal(600, 2, 0.1);
        let mut standard = filled.clone();
        let plan = LinearPlan::new(&[12], HORIZON, 600).expect("long enough");
        change(&plan, &mut filled, &mut standard);
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let input = BaseInput { filled: &filled, n_series: 2, calendar: &calendar, past: &[] };
        let members = LinearFitter::new(input, &standard, &plan).choose(&[12]);
        members.iter().filter(|member| member.kind == LinearKind::LastValue).map(|member| member.share).sum()
    }

    #[test]
    fn a_fold_without_an_observed_value_leaves_the_choice_to_the_other() {
        let share = share_of_last_value(|plan, _, standard| {
            standard[2 * plan.folds.start(plan.folds.n_folds() - 1)..].fill(f64::NAN);
        });
        assert!(share < 0.5, "{share}");
    }

    #[test]
    fn a_fold_in_which_nothing_moves_leaves_the_choice_among_those_that_see_it_to_the_other() {
        let share = share_of_last_value(|plan, filled, standard| {
            // For as long before it that what repeats a season sees nothing move either.
            let first = 2 * (plan.folds.start(plan.folds.n_folds() - 1) - 12);
            filled[first..].fill(0.5);
            standard[first..].fill(0.5);
        });
        assert!(share < 0.5, "{share}");
    }

    #[test]
    fn candidates_are_compared_on_so_much_as_fits_in_memory() {
        let (n_rows, n_features) = (2_000_000, N_LAGS_MAX + 20);
        for horizon in [1, 4, 96] {
            let n_compared = n_rows / compared_stride(n_rows, n_features, horizon);
            assert!(n_compared * n_features <= N_COMPARED_FEATURES && n_compared * horizon <= N_COMPARED_ELEMENTS);
            assert!(n_compared > 2000, "{n_compared} at horizon {horizon}");
        }
        assert_eq!(compared_stride(8000, n_features, 24), 1);
    }

    #[test]
    fn an_average_expects_the_average_of_what_its_members_expect() {
        let values = seasonal(300, 2, 0.3);
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let input = BaseInput { filled: &values, n_series: 2, calendar: &calendar, past: &[] };
        let plan = LinearPlan::new(&[12], HORIZON, 300).expect("long enough");
        let fitter = LinearFitter::new(input, &values, &plan);
        let ridge = LinearKind::Ridge { penalty: 0.1, pooled: false, season: None };
        let members = [
            Member { kind: ridge, n_lags: 16, share: 0.3 },
            Member { kind: LinearKind::LastSeason { season: 12 }, n_lags: 24, share: 0.7 },
        ];
        let paths = |members: &[Member]| fitter.average(members, &[0, 1]).paths(input, 200);
        let [ridge, season] = members.map(|member| paths(&[Member { share: 1.0, ..member }]));
        for ((average, ridge), season) in paths(&members).iter().zip(&ridge).zip(&season) {
            assert!((average - 0.3 * ridge - 0.7 * season).abs() < 1e-9);
        }
        assert!((season[0] - input.value(200 - 11, 0)).abs() < 1e-9);
    }

    #[test]
    fn without_rows_to_learn_from_the_season_is_repeated() {
        let values = seasonal(300, 1, 0.3);
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let input = BaseInput { filled: &values, n_series: 1, calendar: &calendar, past: &[] };
        let plan = LinearPlan::new(&[12], HORIZON, 300).expect("long enough");
        let gaps = vec![f64::NAN; values.len()];
        let fitter = LinearFitter::new(input, &gaps, &plan);
        let kind = LinearKind::Ridge { penalty: 0.1, pooled: true, season: Some(12) };
        let linear = fitter.average(&[Member { kind, n_lags: 24, share: 1.0 }], &[0]);
        let paths = linear.paths(input, 100);
        assert!(paths.iter().zip(&values[89..95]).all(|(path, value)| (path - value).abs() < 1e-9));
    }

    #[test]
    fn lags_reach_back_one_and_two_of_each_season_and_no_further_than_allowed() {
        let (lags_of_days, tried) = lags(&[24, 168], 24, 1000);
        assert!([48, 143, 168, 311, 336].iter().all(|lag| lags_of_days.contains(lag)) && !lags_of_days.contains(&100));
        assert_eq!((tried.len(), tried[0], tried[2]), (3, 16, lags_of_days.len()));
        let (lags_of_minutes, _) = lags(&[1440, 10080], 30, 100_000);
        assert!(lags_of_minutes.contains(&1439) && lags_of_minutes.contains(&10079));
        assert!(lags_of_minutes.len() <= N_LAGS_MAX);
        let (short, tried) = lags(&[12], 12, 15);
        assert_eq!((short.len(), tried), (15, vec![12, 15]));
    }
}
