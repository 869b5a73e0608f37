//! What a linear map cannot say: by how much its path is off, and how sure it is, in the present state.
//!
//! Three sets of boosted trees look at each element of a path with the values at the same phase of earlier seasons, recent
//! means and recent changes, and the calendar of the step itself. One corrects the location of the path. Another tells
//! its spread relative to what is usual for that lead and series: prices are less sure when they are high, demand is
//! less sure by day. The third, where that is worth it, tells the [shape](crate::quantile_trees) of the law of what is left. All are
//! fitted out of fold, and the share of each that is believed is chosen on the last fold.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::boosting::{Boosting, FeatureRows, Loss};
use crate::folds::{CrossFitted, Folds};
use crate::linear::BaseInput;
use crate::noise::Stream;
use crate::outlook::{Moved, Outlook};
use crate::quantile_trees::{QuantileTrees, quantile_loss};
use crate::{parallel, past};

/// Shares that are tried.
const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// A share must lower the loss by this share of itself: what is believed has to be worth it.
const SHARE_PRICE: f64 = 0.01;
/// What all moved quantiles together must lower their loss by: only where the law has another shape in other states.
const QUANTILE_PRICE: f64 = 0.05;
/// Errors beyond this many mean absolute errors pull the location no further.
const OUTLIER: f64 = 1.5;
/// Smallest error that the spread tells from 0, in mean absolute errors.
const SMALLEST_ERROR: f64 = 0.1;
/// A spread is at most so many times the usual one, and at least its inverse.
const SPREAD_MAX: f64 = 20.0;
/// Steps back from the last value to other recent ones.
const RECENT: [usize; 4] = [1, 2, 3, 6];
/// Lengths over which means, and mean changes, are taken.
const N_LENGTHS: usize = 3;
/// Earlier seasons that are looked at.
const N_SEASONS_BACK: usize = 3;

/// How much of each correction is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Of the correction of the location.
    pub location: f64,
    /// Of the logarithm of the spread.
    pub spread: f64,
    /// Of the moves of the quantiles.
    #[serde(default)]
    pub quantiles: f64,
    /// Of the trees for the location, those that learn absolute errors instead of Huber's loss: none or half.
    #[serde(default)]
    pub absolute: f64,
}

/// How corrections are fitted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rows that trees are fitted to.
    pub n_rows: usize,
    /// Seed of the rows and of the trees.
    pub seed: u64,
}

/// A correction of a linear path, and its relative spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// Season lengths whose phase it knows, shortest first.
    pub seasons: Vec<usize>,
    /// How much of each part is believed.
    pub shares: Shares,
    /// What is added to the path, standard units.
    pub location: Boosting,
    /// Logarithm of the spread relative to the usual one.
    pub spread: Boosting,
    /// Quantiles of the errors that are left, in usual sizes.
    pub quantiles: QuantileTrees,
    /// Usual size of each element's errors; nothing where quantiles stay where they are.
    pub sizes: Arc<[f64]>,
}

/// The path of a linear forecaster from an origin, and its errors, `[lead, series]`, standard units; `NaN` for gaps.
pub struct LinearPath {
    /// The last known step.
    pub origin: usize,
    /// What the forecaster expected.
    pub path: Vec<f64>,
    /// By how much the truth was above.
    pub errors: Vec<f64>,
}

/// What the trees are told about the elements of one path.
struct Features<'a> {
    input: BaseInput<'a>,
    seasons: &'a [usize],
    origin: usize,
    /// What all leads of a series share.
    shared: Vec<Vec<f32>>,
}

impl<'a> Features<'a> {
    fn new(input: BaseInput<'a>, seasons: &'a [usize], origin: usize) -> Self {
        let shared = (0..input.n_series).map(|series| Self::shared(input, seasons, origin, series)).collect();
        Self { input, seasons, origin, shared }
    }

    /// Steps up to the origin that are looked at.
    fn context(seasons: &[usize]) -> usize {
        let recent = 1 + RECENT[RECENT.len() - 1];
        let phases = N_SEASONS_BACK * seasons.last().copied().unwrap_or(0);
        Self::mean_lengths(seasons).into_iter().max().unwrap_or(0).max(phases).max(recent)
    }

    fn mean_lengths(seasons: &[usize]) -> [usize; N_LENGTHS] {
        let (shortest, longest) = ends(seasons);
        [shortest, longest, 4 * longest]
    }

    fn shared(input: BaseInput<'_>, seasons: &[usize], origin: usize, series: usize) -> Vec<f32> {
        let last = input.value(origin, series);
        let mut features = vec![series as f32, last as f32];
        features.extend(RECENT.map(|back| (input.value(origin.saturating_sub(back), series) - last) as f32));
        for length in Self::mean_lengths(seasons) {
            let steps = (origin + 1).saturating_sub(length)..origin + 1;
            let n = steps.len() as f64;
            features.push((steps.map(|step| input.value(step, series)).sum::<f64>() / n - last) as f32);
        }
        let (shortest, longest) = ends(seasons);
        let lengths: [usize; N_LENGTHS] = [(shortest / 4).max(2), shortest, longest];
        for length in lengths {
            let steps = (origin + 1).saturating_sub(length).max(1)..origin + 1;
            let n = steps.len().max(1) as f64;
            let change = |step: usize| (input.value(step, series) - input.value(step - 1, series)).abs();
            features.push((steps.map(change).sum::<f64>() / n) as f32);
        }
        past::push_tree_features(input, origin, shortest, &mut features);
        features
    }

    /// The features of an element, for which a path expects a value.
    fn row(&self, lead: usize, series: usize, expected: f64, out: &mut Vec<f32>) {
        let step = self.origin + lead;
        let last = self.input.value(self.origin, series);
        out.extend([lead as f32, expected as f32, (expected - last) as f32]);
        out.extend_from_slice(&self.shared[series]);
        for &season in self.seasons {
            for back in 0..N_SEASONS_BACK {
                let source = step.checked_sub(season * (lead.div_ceil(season) + back));
                out.push(source.map_or(0.0, |source| (self.input.value(source, series) - expected) as f32));
            }
        }
        out.extend(self.input.calendar.row(step).iter().map(|&feature| feature as f32));
        out.extend(self.input.calendar.covariates(step).iter().map(|&feature| feature as f32));
    }
}

/// Lengths that count as a short and a long while.
fn ends(seasons: &[usize]) -> (usize, usize) {
    let shortest = seasons.first().copied().unwrap_or(8);
    (shortest, seasons.last().copied().unwrap_or(4 * shortest))
}

impl Correction {
    /// The one that changes nothing.
    pub fn none(seasons: &[usize]) -> Self {
        Self {
            seasons: seasons.to_vec(),
            shares: Shares::default(),
            location: Boosting::default(),
            spread: Boosting::default(),
            quantiles: QuantileTrees::default(),
            sizes: Arc::default(),
        }
    }

    /// Number of features of an element, for so many features of its step and so many past covariates.
    pub fn n_features(seasons: &[usize], n_of_step: usize, n_past: usize) -> usize {
        3 + 2
            + RECENT.len()
            + 2 * N_LENGTHS
            + N_SEASONS_BACK * seasons.len()
            + n_of_step
            + past::N_TREE_FEATURES * n_past
    }

    /// Number of values up to the last one that it looks at.
    pub fn context(&self) -> usize {
        Features::context(&self.seasons)
    }

    /// What is expected from an origin on, for the path that a linear forecaster expects, `[lead, series]`.
    pub fn apply(&self, input: BaseInput<'_>, origin: usize, mut path: Vec<f64>) -> Outlook {
        let mut spread = vec![1.0; path.len()];
        if self.shares == Shares::default() {
            return Outlook { path, spread, moved: None };
        }
        let features = Features::new(input, &self.seasons, origin);
        let mut values = vec![];
        for (index, &expected) in path.iter().enumerate() {
            features.row(1 + index / input.n_series, index % input.n_series, expected, &mut values);
        }
        let rows = FeatureRows { n_features: values.len() / path.len(), values };
        if self.shares.location > 0.0 {
            for (expected, correction) in path.iter_mut().zip(self.location.predict(&rows)) {
                *expected += self.shares.location * correction;
            }
        }
        if self.shares.spread > 0.0 {
            let predicted = self.spread.predict(&rows).into_iter();
            spread = predicted.map(|logarithm| relative_spread(self.shares.spread, logarithm)).collect();
        }
        let moved = (self.shares.quantiles > 0.0).then(|| {
            let moves = self.quantiles.moves(&rows);
            let quantiles = moves.iter().map(|moves| self.quantiles.moved(moves, self.shares.quantiles)).collect();
            Moved { usual: self.quantiles.usual, sizes: self.sizes.clone(), quantiles }
        });
        Outlook { path, spread, moved }
    }

    /// Fits corrections on the given folds, with their out-of-fold versions. For a fold outside the given ones, all given folds are
    /// used.
    pub fn cross_fit(
        input: BaseInput<'_>,
        seasons: &[usize],
        paths: &[LinearPath],
        folds: Folds,
        used: &[usize],
        shares: Shares,
        plan: Plan,
    ) -> CrossFitted<Correction> {
        let fitter = Fitter { sample: Sample::draw(input, seasons, paths, folds, plan), seasons, folds, used, plan };
        let trees = if shares.location > 0.0 { fitter.trees(shares.absolute) } else { Trees::none(folds) };
        fitter.correction(&fitter.location(trees, shares.absolute, Some(shares.location)), Some(shares))
    }

    /// As [`Correction::cross_fit`], with the shares of location, spread and quantiles that are best on the last fold, which must not be used:
    /// without trees that learn absolute errors, and, where any of the location is of use, with as many of these as of others.
    pub fn candidates(
        input: BaseInput<'_>,
        seasons: &[usize],
        paths: &[LinearPath],
        folds: Folds,
        used: &[usize],
        plan: Plan,
    ) -> Vec<CrossFitted<Correction>> {
        let fitter = Fitter { sample: Sample::draw(input, seasons, paths, folds, plan), seasons, folds, used, plan };
        let robust = fitter.trees(0.0);
        let halfway = robust.halfway(&fitter.trees_with(Loss::Absolute));
        let halfway = Some(fitter.location(halfway, 0.5, None)).filter(|halfway| halfway.share > 0.0);
        let locations = [fitter.location(robust, 0.0, None)].into_iter().chain(halfway);
        locations.map(|location| fitter.correction(&location, None)).collect()
    }
}

/// Fits corrections to one sample of errors.
struct Fitter<'a> {
    sample: Sample,
    seasons: &'a [usize],
    folds: Folds,
    used: &'a [usize],
    plan: Plan,
}

/// Trees for the location, and how much of them is believed.
struct Location {
    trees: Trees,
    /// Share of the trees that learned absolute errors.
    absolute: f64,
    share: f64,
    /// What is left of the errors.
    errors: Vec<f64>,
}

impl Fitter<'_> {
    fn trees_with(&self, loss: Loss) -> Trees {
        self.sample.fit(&self.sample.errors, loss, self.used, self.plan.seed)
    }

    /// Trees for the location, of which a share learns absolute errors.
    fn trees(&self, absolute: f64) -> Trees {
        let size = mean(self.sample.errors.iter().map(|error| error.abs()));
        let robust = self.trees_with(Loss::Huber((OUTLIER * size) as f32));
        if absolute > 0.0 { robust.halfway(&self.trees_with(Loss::Absolute)) } else { robust }
    }

    /// The rows of the last fold.
    fn last_rows(&self) -> Vec<usize> {
        let last = self.folds.n_folds() - 1;
        self.sample.rows_of(|fold| fold == last)
    }

    /// What a share of trees for the location is worth. Where no share is given it is chosen on the last fold.
    fn location(&self, trees: Trees, absolute: f64, share: Option<f64>) -> Location {
        let errors = &self.sample.errors;
        let corrections = self.sample.out_of_fold(&trees);
        let share = share.unwrap_or_else(|| {
            let last = self.last_rows();
            best_share(|share| mean(last.iter().map(|&row| (errors[row] - share * corrections[row]).abs())))
        });
        let errors = errors.iter().zip(&corrections).map(|(error, correction)| error - share * correction).collect();
        Location { trees, absolute: if share > 0.0 { absolute } else { 0.0 }, share, errors }
    }

    /// The correction with this location. Where no shares are given those of spread and quantiles are chosen on the last fold.
    fn correction(&self, location: &Location, shares: Option<Shares>) -> CrossFitted<Correction> {
        let (sample, folds) = (&self.sample, self.folds);
        let spread_share = shares.map(|shares| shares.spread);
        let usual_sizes = sample.usual_sizes(&location.errors, |fold| self.used.contains(&fold));
        let relative = sample.relative(&location.errors, &usual_sizes).map(f64::abs).collect::<Vec<f64>>();
        let logarithms: Vec<f64> = relative.iter().map(|size| libm::log(size + SMALLEST_ERROR)).collect();
        let usual = mean(logarithms.iter().copied());
        let spread = if spread_share == Some(0.0) {
            Trees::none(folds)
        } else {
            let targets: Vec<f64> = logarithms.iter().map(|value| value - usual).collect();
            sample.fit(&targets, Loss::Squared, self.used, self.plan.seed)
        };
        let spread_share = spread_share.unwrap_or_else(|| {
            let (spreads, last) = (sample.out_of_fold(&spread), self.last_rows());
            // Of a Laplace law, whose scale is the mean absolute error: mean logarithm of the scale is what it costs.
            let laplace_loss = |share: f64| {
                let scale = mean(last.iter().map(|&row| relative[row] * libm::exp(-share * spreads[row])));
                libm::log(scale.max(1e-300)) + mean(last.iter().map(|&row| share * spreads[row]))
            };
            best_share(|share| libm::exp(laplace_loss(share)))
        });
        let spreads = sample.out_of_fold(&spread).into_iter().map(|logarithm| relative_spread(spread_share, logarithm));
        let errors: Vec<f64> = location.errors.iter().zip(spreads).map(|(error, spread)| error / spread).collect();
        let usual_sizes = sample.usual_sizes(&errors, |fold| self.used.contains(&fold));
        let (quantiles, quantile_share) = self.quantiles(&errors, &usual_sizes, shares.map(|shares| shares.quantiles));
        let shares = Shares {
            location: location.share,
            spread: spread_share,
            quantiles: quantile_share,
            absolute: location.absolute,
        };
        let location = &location.trees;
        let correction = |location: &Boosting, spread: &Boosting, quantiles: &QuantileTrees| Correction {
            seasons: self.seasons.to_vec(),
            shares,
            location: if shares.location > 0.0 { location.clone() } else { Boosting::default() },
            spread: if shares.spread > 0.0 { spread.clone() } else { Boosting::default() },
            quantiles: if shares.quantiles > 0.0 { quantiles.clone() } else { QuantileTrees::default() },
            sizes: if shares.quantiles > 0.0 { usual_sizes.clone() } else { Arc::default() },
        };
        let without_fold = (0..folds.n_folds())
            .map(|fold| correction(location.without(fold), spread.without(fold), quantiles.without(fold)))
            .collect();
        CrossFitted { whole: correction(&location.whole, &spread.whole, &quantiles.whole), without_fold, folds }
    }

    /// Trees for the quantiles of errors, and the share of their moves that is believed. Where none is given it is chosen on the last
    /// fold.
    fn quantiles(&self, errors: &[f64], usual_sizes: &[f64], share: Option<f64>) -> (Trees<QuantileTrees>, f64) {
        let sample = &self.sample;
        let relative: Vec<f64> = sample.relative(errors, usual_sizes).collect();
        let fit = |rows: &FeatureRows, errors: &[f32]| QuantileTrees::fit(rows, errors, self.plan.seed);
        let share = share.unwrap_or_else(|| {
            let last = self.last_rows();
            let trees = sample.fit_on(&relative, |fold| self.used.contains(&fold), &fit);
            let moves = trees.moves(&sample.rows(&last));
            let loss = |share: f64| {
                let moves = last.iter().zip(&moves);
                mean(moves.map(|(&row, moves)| quantile_loss(&trees.moved(moves, share), relative[row])))
            };
            let share = if trees.trees.is_empty() { 0.0 } else { best_share(loss) };
            if loss(share) * (1.0 + QUANTILE_PRICE) < loss(0.0) { share } else { 0.0 }
        });
        let trees = if share > 0.0 { sample.fit_each(&relative, self.used, fit) } else { Trees::none(self.folds) };
        (trees, share)
    }
}

/// The spread of an element relative to the usual one, when a share of its logarithm is believed.
fn relative_spread(share: f64, logarithm: f64) -> f64 {
    libm::exp(share * logarithm).clamp(1.0 / SPREAD_MAX, SPREAD_MAX)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / f64::max(n, 1.0)
}

/// The share with the smallest loss, its price included.
fn best_share(loss: impl Fn(f64) -> f64) -> f64 {
    let priced = SHARES.map(|share| (share, loss(share) * (1.0 + SHARE_PRICE * share)));
    priced.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.0, |(share, _)| share)
}

/// Trees fitted on all used folds, and without each of these.
struct Trees<T = Boosting> {
    whole: T,
    without_fold: Vec<Option<T>>,
}

impl<T: Clone + Default> Trees<T> {
    fn none(folds: Folds) -> Self {
        Self { whole: T::default(), without_fold: vec![None; folds.n_folds()] }
    }

    fn without(&self, fold: usize) -> &T {
        self.without_fold[fold].as_ref().unwrap_or(&self.whole)
    }
}

impl Trees {
    /// What lies halfway between these and others that were fitted on the same folds.
    fn halfway(&self, other: &Self) -> Self {
        let pairs = self.without_fold.iter().zip(&other.without_fold);
        let without_fold = pairs.map(|(a, b)| Some(a.as_ref()?.halfway(b.as_ref()?))).collect();
        Self { whole: self.whole.halfway(&other.whole), without_fold }
    }
}

/// Elements of paths drawn at random.
struct Sample {
    n_series: usize,
    horizon: usize,
    rows: FeatureRows,
    elements: Vec<usize>,
    n_folds: usize,
    /// The fold of each row.
    folds: Vec<usize>,
    errors: Vec<f64>,
}

impl Sample {
    fn draw(input: BaseInput<'_>, seasons: &[usize], paths: &[LinearPath], folds: Folds, plan: Plan) -> Self {
        let n_elements = paths.first().map_or(0, |path| path.path.len());
        let n_from_path = plan.n_rows.div_ceil(paths.len().max(1)).min(n_elements);
        let mut stream = Stream::new(plan.seed, STREAM_ELEMENTS);
        let mut sample = Self {
            n_series: input.n_series,
            horizon: n_elements / input.n_series,
            rows: FeatureRows::default(),
            elements: vec![],
            n_folds: folds.n_folds(),
            folds: vec![],
            errors: vec![],
        };
        for LinearPath { origin, path, errors } in paths {
            let features = Features::new(input, seasons, *origin);
            for nth in 0..n_from_path {
                // One from each of as many equal parts of the path.
                let part: Range<usize> = nth * n_elements / n_from_path..(nth + 1) * n_elements / n_from_path;
                let element = part.start + stream.below(part.len());
                if errors[element].is_nan() {
                    continue;
                }
                let (lead, series) = (1 + element / input.n_series, element % input.n_series);
                features.row(lead, series, path[element], &mut sample.rows.values);
                sample.elements.push(element);
                sample.folds.push(folds.of(*origin));
                sample.errors.push(errors[element]);
            }
        }
        sample.rows.n_features = sample.rows.values.len() / sample.errors.len().max(1);
        sample
    }

    /// Numbers of the rows of some folds.
    fn rows_of(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.folds.len()).filter(|&row| is_wanted(self.folds[row])).collect()
    }

    /// Some of the rows.
    fn rows(&self, rows: &[usize]) -> FeatureRows {
        let n_features = self.rows.n_features;
        let values = rows.iter().flat_map(|row| &self.rows.values[row * n_features..][..n_features]).copied().collect();
        FeatureRows { n_features, values }
    }

    /// Trees for the targets of the rows.
    fn fit(&self, targets: &[f64], loss: Loss, used: &[usize], seed: u64) -> Trees {
        self.fit_each(targets, used, |rows, targets| Boosting::fit(rows, targets, loss, seed))
    }

    /// What a function fits to the targets of the rows of some folds.
    fn fit_on<T>(
        &self,
        targets: &[f64],
        is_wanted: impl Fn(usize) -> bool,
        fit: &impl Fn(&FeatureRows, &[f32]) -> T,
    ) -> T {
        let chosen = self.rows_of(is_wanted);
        let targets: Vec<f32> = chosen.iter().map(|&row| targets[row] as f32).collect();
        fit(&self.rows(&chosen), &targets)
    }

    /// What a function fits to the targets of the rows of all used folds, and without each of these.
    fn fit_each<T: Clone + Default + Send>(
        &self,
        targets: &[f64],
        used: &[usize],
        fit: impl Fn(&FeatureRows, &[f32]) -> T + Sync,
    ) -> Trees<T> {
        let fit = |&left_out: &Option<usize>| {
            self.fit_on(targets, |fold| used.contains(&fold) && left_out != Some(fold), &fit)
        };
        let left_out: Vec<Option<usize>> = used.iter().copied().map(Some).chain([None]).collect();
        let mut trees = Trees { whole: T::default(), without_fold: vec![None; self.n_folds] };
        for (left_out, fitted) in left_out.iter().zip(parallel::map(&left_out, fit)) {
            match left_out {
                Some(fold) => trees.without_fold[*fold] = Some(fitted),
                None => trees.whole = fitted,
            }
        }
        trees
    }

    /// What the trees that did not see a row say about it.
    fn out_of_fold(&self, trees: &Trees) -> Vec<f64> {
        let folds: Vec<usize> = (0..self.n_folds).collect();
        let predicted = parallel::map(&folds, |&fold| {
            let chosen = self.rows_of(|of_row| of_row == fold);
            let values = trees.without(fold).predict(&self.rows(&chosen));
            chosen.into_iter().zip(values).collect::<Vec<_>>()
        });
        let mut all = vec![0.0; self.folds.len()];
        predicted.into_iter().flatten().for_each(|(row, value)| all[row] = value);
        all
    }

    /// Mean size of the errors in some folds by element: that of its lead, times that of its series.
    fn usual_sizes(&self, errors: &[f64], is_wanted: impl Fn(usize) -> bool) -> Arc<[f64]> {
        let mut by_lead = vec![(0.0, 0.0); self.horizon];
        let mut by_series = vec![(0.0, 0.0); self.n_series];
        let mut all = (0.0, 0.0);
        for (element, error) in self.rows_of(is_wanted).into_iter().map(|row| (self.elements[row], errors[row])) {
            for sum in [&mut by_lead[element / self.n_series], &mut by_series[element % self.n_series], &mut all] {
                *sum = (sum.0 + error.abs(), sum.1 + 1.0);
            }
        }
        let mean = |(sum, n): (f64, f64)| if n > 0.0 { sum / n } else { 0.0 };
        let usual = |element: usize| {
            let (lead, series) = (by_lead[element / self.n_series], by_series[element % self.n_series]);
            let usual = mean(lead) * mean(series) / mean(all).max(1e-300);
            // Where there are no errors any unit will do.
            if usual > 0.0 { usual } else { 1.0 }
        };
        (0..self.horizon * self.n_series).map(usual).collect()
    }

    /// Errors over what is usual.
    fn relative<'a>(&'a self, errors: &'a [f64], usual_sizes: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.elements.iter().zip(errors).map(|(&element, error)| error / usual_sizes[element])
    }
}

const STREAM_ELEMENTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Calendar;

    const N: usize = 4000;
    const HORIZON: usize = 6;

    /// A series whose noise is five times as large in every second half of its season of 8, and whose mean then jumps
    /// when its last value was high; the linear path expects 0 throughout.
    fn state_dependent() -> Vec<f64> {
        let mut stream = Stream::new(1, 0);
        let mut values = vec![0.0_f64];
        for step in 1..N {
            let is_loud = step % 8 >= 4;
            let jump = if values[step - 1].abs() > 1.0 { 2.0 } else { 0.0 };
            values.push(jump + if is_loud { 1.0 } else { 0.2 } * stream.normal());
        }
        values
    }

    fn fitted(values: &[f64], calendar: &Calendar) -> (Correction, Shares) {
        let input = BaseInput { filled: values, n_series: 1, calendar, past: &[] };
        let folds = Folds::new(40, N - HORIZON, HORIZON);
        let last = folds.n_folds() - 1;
        let origins = (0..=last).flat_map(|fold| folds.usable(fold));
        let paths: Vec<LinearPath> = origins
            .map(|origin| {
                let errors = values[origin + 1..=origin + HORIZON].to_vec();
                LinearPath { origin, path: vec![0.0; HORIZON], errors }
            })
            .collect();
        let earlier: Vec<usize> = (0..last).collect();
        let plan = Plan { n_rows: 60_000, seed: 1 };
        let candidates = Correction::candidates(input, &[8], &paths, folds, &earlier, plan);
        for candidate in &candidates {
            let shares = candidate.whole.shares;
            let again = Correction::cross_fit(input, &[8], &paths, folds, &earlier, shares, plan);
            assert_eq!(again.whole, candidate.whole, "{shares:?}");
        }
        let Some(cross) = candidates.into_iter().next_back() else { panic!("at least one") };
        let shares = cross.whole.shares;
        (cross.whole, shares)
    }

    #[test]
    fn location_and_spread_follow_the_state() {
        let (values, calendar) = (state_dependent(), Calendar::new(0, vec![]).expect("no features"));
        let (correction, shares) = fitted(&values, &calendar);
        assert!(shares.location > 0.0 && shares.spread > 0.0 && shares.absolute == 0.5, "{shares:?}");
        let input = BaseInput { filled: &values, n_series: 1, calendar: &calendar, past: &[] };
        let (mut above, mut spreads) = ([(0.0, 0.0); 2], [(0.0, 0.0); 2]);
        for origin in N - 400..N - HORIZON {
            let Outlook { path, spread, moved } = correction.apply(input, origin, vec![0.0; HORIZON]);
            assert_eq!(moved, None, "normal in every state");
            let group = &mut above[usize::from(values[origin].abs() > 1.0)];
            *group = (group.0 + path[0], group.1 + 1.0);
            let group = &mut spreads[usize::from((origin + 1) % 8 >= 4)];
            *group = (group.0 + spread[0], group.1 + 1.0);
        }
        let mean = |(sum, n): (f64, f64)| sum / n;
        assert!(mean(above[1]) > mean(above[0]) + 1.0, "{above:?}");
        assert!(mean(spreads[1]) > 1.5 * mean(spreads[0]), "{spreads:?}");
    }

    #[test]
    fn nothing_is_believed_of_white_noise() {
        let mut stream = Stream::new(2, 0);
        let values: Vec<f64> = (0..N).map(|_| stream.normal()).collect();
        let calendar = Calendar::new(0, vec![]).expect("no features");
        let (correction, shares) = fitted(&values, &calendar);
        assert_eq!(shares, Shares::default());
        let input = BaseInput { filled: &values, n_series: 1, calendar: &calendar, past: &[] };
        let outlook = Outlook { path: vec![0.5; HORIZON], spread: vec![1.0; HORIZON], moved: None };
        assert_eq!(correction.apply(input, 100, vec![0.5; HORIZON]), outlook);
    }

    #[test]
    fn a_path_is_corrected_by_its_past_alone() {
        let calendar = Calendar::new(0, vec![]).expect("no features");
        for values in [state_dependent(), intermittent()] {
            let (correction, _) = fitted(&values, &calendar);
            let outlook = |values: &[f64]| {
                let input = BaseInput { filled: values, n_series: 1, calendar: &calendar, past: &[] };
                correction.apply(input, 500, vec![0.0; HORIZON])
            };
            let mut changed = values.clone();
            changed[501..].iter_mut().for_each(|value| *value = f64::NAN);
            assert_eq!(outlook(&values), outlook(&changed));
        }
    }

    /// Nothing but now and then a number, in the first half of a season of 8, and a number always in the other half.
    fn intermittent() -> Vec<f64> {
        let mut stream = Stream::new(4, 0);
        let value = |step: usize| match step % 8 {
            0..4 if stream.uniform() < 0.8 => 0.0,
            0..4 => 4.0 * stream.uniform(),
            _ => stream.normal(),
        };
        (0..N).map(value).collect()
    }

    #[test]
    fn the_shape_of_the_law_follows_the_state() {
        let (values, calendar) = (intermittent(), Calendar::new(0, vec![]).expect("no features"));
        let (correction, shares) = fitted(&values, &calendar);
        assert!(shares.quantiles > 0.0, "{shares:?}");
        let input = BaseInput { filled: &values, n_series: 1, calendar: &calendar, past: &[] };
        // The last of the idle half of the season is one step ahead, then comes the busy half.
        let outlook = correction.apply(input, 802, vec![0.0; HORIZON]);
        let middle = |element: usize| outlook.value(element, 0.3) - outlook.value(element, -0.3);
        assert!(middle(0) < 0.3 * middle(2), "{} {}", middle(0), middle(2));
    }
}
