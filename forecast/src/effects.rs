//! Linear effects of known covariates on the modelled series.
//!
//! As in a regression with autocorrelated errors, the effect of the covariates is taken out of a series, and what is left
//! of it is forecast: `standard(t) = effect(x(t)) + rest(t)`. The effect is a weighted sum of functions of the covariates at
//! a step (value, hinges at its quartiles, the value before, the mean over a season, and value times calendar), so that every
//! forecaster of the rest stays as it is.
//!
//! Weights are those that make the *forecasts* best, not those of a regression of levels, which would take any common trend
//! or season for an effect: a linear forecaster of the rest is applied to series and functions alike, and the errors that it
//! makes on the series are regressed on those that it makes on the functions, over several leads at once.

use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};

use crate::linear::{BaseInput, Linear, LinearFitter, LinearPlan};
use crate::scaling::fill_from_past;
use crate::thinning::thinned;
use crate::{Calendar, parallel};

/// Ridge penalties that are tried, as shares of the variance of a function's errors.
const PENALTIES: [f64; 3] = [1e-3, 1e-2, 1e-1];
/// Effects must lower the squared error of a series on the last fold by this share: what is taken out has to be worth it.
const PRICE: f64 = 0.02;
/// Blocks of the last fold over which the error of that gain is measured.
const N_BLOCKS: usize = 8;
/// The forecaster of the rest and the effects depend on each other: each is found so often.
const N_ROUNDS: usize = 2;
/// Leads whose errors are regressed.
const N_LEADS: usize = 8;
/// Errors that weights are found from, in all series together, and the least for each.
const N_ROWS_MAX: usize = 200_000;
const N_ROWS_OF_SERIES: std::ops::RangeInclusive<usize> = 2000..=12_000;
/// Functions of the covariates: their normal equations are as many rows and columns.
const N_FUNCTIONS_MAX: usize = 128;

/// Which functions are used, how hard their weights are held to 0, and where they are of use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectKind {
    /// Whether values times calendar features are among the functions: an effect that depends on hour or weekday.
    pub with_calendar: bool,
    /// Ridge penalty.
    pub penalty: f64,
    /// The modelled series that have effects; the others have none.
    #[serde(default)]
    pub series: Vec<usize>,
}

/// Effects of covariates; none by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effects {
    pub functions: Functions,
    /// For each modelled series, the weights of the first functions, standard units; empty when there are no effects.
    pub weights: Vec<Vec<f64>>,
}

/// The functions of the covariates at a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Functions {
    pub n_known: usize,
    /// Covariate and value at which each hinge begins.
    pub hinges: Vec<(usize, f64)>,
    /// Whether values times calendar features come last.
    pub with_calendar: bool,
}

impl Functions {
    /// All functions that may be of use, by the values that the covariates have at some steps.
    fn all(n_known: usize, calendar: &Calendar, n_steps: usize) -> Self {
        let mut functions = Self { n_known, hinges: vec![], with_calendar: false };
        let quartiles = |covariate: usize| -> Vec<f64> {
            let mut values: Vec<f64> = (0..n_steps).map(|step| calendar.covariates(step)[covariate]).collect();
            values.sort_unstable_by(f64::total_cmp);
            let mut quartiles: Vec<f64> = [1, 2, 3].map(|nth| values[nth * (n_steps - 1) / 4]).to_vec();
            quartiles.dedup();
            // A hinge at the smallest or largest value says nothing that the value itself does not say.
            quartiles.retain(|&quartile| quartile > values[0] && quartile < values[n_steps - 1]);
            quartiles
        };
        let hinges: Vec<(usize, f64)> = (0..n_known)
            .flat_map(|covariate| quartiles(covariate).into_iter().map(move |quartile| (covariate, quartile)))
            .collect();
        if functions.n_plain() + hinges.len() <= N_FUNCTIONS_MAX {
            functions.hinges = hinges;
        }
        let n_products = n_known * calendar.n_features();
        functions.with_calendar = n_products > 0 && functions.n_plain() + n_products <= N_FUNCTIONS_MAX;
        functions
    }

    /// Number of functions without those of the calendar.
    fn n_plain(&self) -> usize {
        3 * self.n_known + self.hinges.len()
    }

    /// Number of functions, for so many features of the calendar.
    pub fn len(&self, n_calendar: usize) -> usize {
        self.n_plain() + if self.with_calendar { self.n_known * n_calendar } else { 0 }
    }

    /// Their values at a step.
    fn at(&self, calendar: &Calendar, step: usize, out: &mut Vec<f64>) {
        let covariates = calendar.covariates(step);
        out.clear();
        out.extend_from_slice(&covariates[..3 * self.n_known]);
        out.extend(self.hinges.iter().map(|&(covariate, at)| (covariates[covariate] - at).max(0.0)));
        if self.with_calendar {
            let calendar = calendar.row(step);
            out.extend(covariates[..self.n_known].iter().flat_map(|value| calendar.iter().map(move |c| value * c)));
        }
    }
}

impl Effects {
    /// Whether there are any.
    pub fn is_none(&self) -> bool {
        self.weights.is_empty()
    }

    /// Effects on each modelled series at a step, standard units.
    pub fn at(&self, calendar: &Calendar, step: usize) -> Vec<f64> {
        let mut functions = vec![];
        self.functions.at(calendar, step, &mut functions);
        self.weights.iter().map(|weights| weights.iter().zip(&functions).map(|(w, f)| w * f).sum()).collect()
    }

    /// Takes the effects out of standard values `[step, series]` whose first row is some row of the calendar.
    pub fn take_out(&self, standard: &mut [f64], calendar: &Calendar, first_row: usize) {
        self.each(standard, calendar, first_row, |value, effect| *value -= effect);
    }

    /// Adds the effects to standard values `[step, series]` whose first row is some row of the calendar.
    pub fn add(&self, standard: &mut [f64], calendar: &Calendar, first_row: usize) {
        self.each(standard, calendar, first_row, |value, effect| *value += effect);
    }

    fn each(&self, standard: &mut [f64], calendar: &Calendar, first_row: usize, change: impl Fn(&mut f64, f64)) {
        if self.is_none() {
            return;
        }
        for (step, row) in standard.chunks_exact_mut(self.weights.len()).enumerate() {
            let effects = self.at(calendar, first_row + step);
            row.iter_mut().zip(effects).for_each(|(value, effect)| change(value, effect));
        }
    }
}

/// What effects are found from: standard values of the modelled series, and the calendar with the covariates beside it.
pub(crate) struct EffectFitter<'a> {
    /// `[time, series]`, gaps `NaN`.
    pub standard: &'a [f64],
    pub n_series: usize,
    /// The series whose errors decide.
    pub targets: &'a [usize],
    pub n_known: usize,
    pub calendar: &'a Calendar,
    /// The shortest season.
    pub season: Option<usize>,
    pub plan: &'a LinearPlan,
}

/// Normal equations of errors of a series and of functions.
struct Equations {
    gram: DMatrix<f64>,
    moment: DVector<f64>,
    squares: f64,
}

impl Equations {
    /// Ridge weights of the first functions; zeros when they cannot be told apart.
    fn weights(&self, n_functions: usize, penalty: f64) -> DVector<f64> {
        let mut gram = self.gram.view((0, 0), (n_functions, n_functions)).into_owned();
        for function in 0..n_functions {
            // A function that never changes has no weight.
            gram[(function, function)] += penalty * gram[(function, function)] + 1e-9;
        }
        let moment = self.moment.rows(0, n_functions).into_owned();
        gram.cholesky().map_or_else(|| DVector::zeros(n_functions), |gram| gram.solve(&moment))
    }

    /// Sum of squared errors with some weights.
    fn squares_with(&self, weights: &DVector<f64>) -> f64 {
        let n = weights.len();
        let gram = self.gram.view((0, 0), (n, n));
        self.squares - 2.0 * weights.dot(&self.moment.rows(0, n)) + weights.dot(&(gram * weights))
    }
}

/// Weights of a series that were found with a candidate, and what they are worth.
struct Tried {
    weights: DVector<f64>,
    /// Squared error on later folds relative to that without effects; 1 where there is no gain to be sure of.
    ratio: f64,
}

/// Kinds of effects: with products or without, and the penalty.
fn candidates(functions: &Functions) -> Vec<(bool, f64)> {
    let with_calendar = [false, true].into_iter().filter(|&with_calendar| !with_calendar || functions.with_calendar);
    with_calendar.flat_map(|with_calendar| PENALTIES.map(|penalty| (with_calendar, penalty))).collect()
}

/// The squared error of a series on later blocks with weights, relative to that without; 1 where it is not lower by more than a
/// standard error over the blocks, and by what effects have to be worth.
fn ratio(weights: &DVector<f64>, blocks: &[Equations]) -> f64 {
    let gains: Vec<f64> = blocks.iter().map(|block| block.squares - block.squares_with(weights)).collect();
    let (gain, n) = (gains.iter().sum::<f64>(), gains.len() as f64);
    let variance = gains.iter().map(|part| (part - gain / n).powi(2)).sum::<f64>() * n / (n - 1.0).max(1.0);
    let without: f64 = blocks.iter().map(|block| block.squares).sum();
    if gain > variance.sqrt().max(PRICE * without) { 1.0 - gain / without } else { 1.0 }
}

impl EffectFitter<'_> {
    /// Effects from the given folds. Where no kind is given it is chosen on the last fold, which must not be used; `None` is
    /// the kind without effects.
    pub fn fit(&self, used: &[usize], kind: Option<Option<EffectKind>>) -> (Effects, Option<EffectKind>) {
        if kind == Some(None) {
            return (Effects::default(), None);
        }
        let n_steps = self.standard.len() / self.n_series;
        let mut functions = Functions::all(self.n_known, self.calendar, n_steps);
        let last = self.plan.folds.n_folds() - 1;
        let short = self.plan.short();
        let mut values = vec![];
        let mut row = vec![];
        for step in 0..n_steps {
            functions.at(self.calendar, step, &mut row);
            values.extend_from_slice(&row);
        }
        let n_functions = row.len();
        let plain = self.calendar.clone().with_covariates(0, vec![]);

        let filled = fill_from_past(self.standard, self.n_series, self.season);
        let n_used = |with_calendar| if with_calendar { n_functions } else { functions.n_plain() };
        let all: Vec<usize> = (0..self.n_series).collect();
        let (mut effects, mut chosen) = (Effects::default(), kind.flatten());
        for _ in 0..N_ROUNDS {
            let mut rest = self.standard.to_vec();
            effects.take_out(&mut rest, self.calendar, 0);
            let filled_rest = fill_from_past(&rest, self.n_series, self.season);
            let input = BaseInput { filled: &filled_rest, n_series: self.n_series, calendar: &plain, past: &[] };
            let linear = LinearFitter::new(input, &rest, &short).ridge_of_all_lags(used);
            let input = BaseInput { filled: &filled, ..input };
            let (candidates, later) = match &chosen {
                Some(kind) => (vec![(kind.with_calendar, kind.penalty)], vec![]),
                None => (candidates(&functions), self.origins(&[last])),
            };
            let (earlier, blocks) = (self.origins(used), later.chunks(later.len().div_ceil(N_BLOCKS).max(1)));
            // Normal equations are large: those of one series at a time.
            let tried = parallel::map(&all, |&series| {
                let equations =
                    |origins: &[usize]| self.equations(series, origins, &linear, input, &values, n_functions);
                let found = equations(&earlier);
                let blocks: Vec<Equations> = blocks.clone().map(equations).collect();
                let weights =
                    candidates.iter().map(|&(with_calendar, penalty)| found.weights(n_used(with_calendar), penalty));
                weights.map(|weights| Tried { ratio: ratio(&weights, &blocks), weights }).collect::<Vec<Tried>>()
            });
            let best = if chosen.is_some() { Some(0) } else { self.best(&tried) };
            let Some(best) = best else { return (Effects::default(), None) };
            let of_best = tried.iter().map(|tried| &tried[best]);
            let kind = chosen.get_or_insert_with(|| {
                let (with_calendar, penalty) = candidates[best];
                let helped = of_best.clone().enumerate().filter(|(_, tried)| tried.ratio < 1.0);
                EffectKind { with_calendar, penalty, series: helped.map(|(series, _)| series).collect() }
            });
            let weights = |(series, tried): (usize, &Tried)| match kind.series.contains(&series) {
                true => tried.weights.as_slice().to_vec(),
                false => vec![0.0; tried.weights.len()],
            };
            effects = Effects { weights: of_best.enumerate().map(weights).collect(), functions: functions.clone() };
        }
        functions.with_calendar &= chosen.as_ref().is_some_and(|kind| kind.with_calendar);
        (Effects { functions, ..effects }, chosen)
    }

    /// The candidate with the smallest ratio as a mean over the targets; `None` when that is not below 1.
    fn best(&self, tried: &[Vec<Tried>]) -> Option<usize> {
        let loss = |candidate: usize| {
            self.targets.iter().map(|&target| tried[target][candidate].ratio).sum::<f64>() / self.targets.len() as f64
        };
        let n_candidates = tried.first().map_or(0, Vec::len);
        let losses = (0..n_candidates).map(|candidate| (candidate, loss(candidate)));
        losses.filter(|(_, loss)| *loss < 1.0).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(candidate, _)| candidate)
    }

    /// Evenly spread origins of some folds.
    fn origins(&self, folds: &[usize]) -> Vec<usize> {
        let n_rows = (N_ROWS_MAX / self.n_series).clamp(*N_ROWS_OF_SERIES.start(), *N_ROWS_OF_SERIES.end());
        let n_leads = self.plan.leads_of(N_LEADS).len();
        thinned(folds.iter().flat_map(|&fold| self.plan.folds.usable(fold)), n_rows / n_leads)
    }

    /// Normal equations over errors of a forecaster at some leads, from some origins.
    fn equations(
        &self,
        series: usize,
        origins: &[usize],
        linear: &Linear,
        input: BaseInput<'_>,
        functions: &[f64],
        n_functions: usize,
    ) -> Equations {
        let horizon = linear.horizon;
        let leads = self.plan.leads_of(N_LEADS);
        let weights = &linear.weights[series % linear.weights.len()];
        let lag_weights = &weights[weights.len() - linear.lags.len() * horizon..];
        let at = |step: usize| &functions[step * n_functions..(step + 1) * n_functions];
        let (mut features, mut path) = (vec![], vec![0.0; horizon]);
        let mut rows = vec![];
        let mut errors = vec![];
        for &origin in origins {
            linear.path(input, origin, series, &mut features, &mut path);
            for &lead in &leads {
                let truth = self.standard[(origin + lead) * self.n_series + series];
                if truth.is_nan() {
                    continue;
                }
                errors.push(truth - path[lead - 1]);
                let first = rows.len();
                rows.extend_from_slice(at(origin + lead));
                let row: &mut [f64] = &mut rows[first..];
                let mut of_last = 1.0;
                for (&lag, weights) in linear.lags.iter().zip(lag_weights.chunks_exact(horizon)) {
                    let weight = weights[lead - 1];
                    if lag <= origin && weight != 0.0 {
                        of_last -= weight;
                        row.iter_mut().zip(at(origin - lag)).for_each(|(error, value)| *error -= weight * value);
                    }
                }
                row.iter_mut().zip(at(origin)).for_each(|(error, value)| *error -= of_last * value);
            }
        }
        let rows = DMatrix::from_vec(n_functions, errors.len(), rows);
        let errors = DVector::from_vec(errors);
        Equations { gram: &rows * rows.transpose(), moment: &rows * &errors, squares: errors.norm_squared() }
    }
}
