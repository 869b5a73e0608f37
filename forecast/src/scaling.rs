//! Data units to standard units and back, and the causal filling of gaps for the base forecaster.

use serde::{Deserialize, Serialize};

use crate::{Bounds, Grid};

/// The shape of the map from data units to standard units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingKind {
    /// Mean 0, standard deviation 1.
    Linear,
    /// Normal scores: the quantiles of the training values go to those of the standard normal law. Skewed series become
    /// symmetric, and values that occur often (zeros) become atoms.
    NormalScore,
    /// Mean 0 and standard deviation 1 of the logarithms, where every value of a series is above 0; linear where not. What
    /// grows by a share of itself then grows by steps.
    Log,
}

impl ScalingKind {
    /// The shapes that are worth trying on some rows.
    pub fn candidates(values: &Grid) -> Vec<ScalingKind> {
        let is_log = (0..values.n_series()).any(|series| is_positive(&observed(values, series, |_| 1.0)));
        [Self::Linear, Self::NormalScore].into_iter().chain(is_log.then_some(Self::Log)).collect()
    }
}

/// An increasing, piecewise linear map of each series from data units to standard units, fitted on observed values.
///
/// All series share the knots in standard units. Beyond the outer knots the map goes on with the slope of the outer half
/// of its side, or bends towards a declared bound ([`Edge`]). A constant series comes back as the constant, whatever is modelled.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Knots in standard units, ascending.
    pub standard: Vec<f64>,
    /// For each series, the knots in data units, not descending.
    pub values: Vec<Vec<f64>>,
    /// For each series, its smallest and largest training value in standard units.
    pub ranges: Vec<[f64; 2]>,
    /// For each series, where its map bends towards its lower and its upper bound.
    pub edges: Vec<[Option<Edge>; 2]>,
}

/// A declared bound that no training value reaches. Between it and the training value that comes nearest, the map is bent so that it
/// approaches the bound and never meets it:
///
/// ```text
/// bent = bound + margin · exp((straight − nearest) / margin)        margin = nearest − bound
/// ```
///
/// for what is beyond `nearest`; at `nearest` value and slope are those of the straight map, and inside nothing is changed. A bound that
/// training values do reach is one at which values lie: what is beyond counts as there (a censored law, see [`crate::support`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The bound, in data units.
    pub bound: f64,
    /// The training value nearest to it.
    pub nearest: f64,
}

/// A value that leaves less than this share of the margin to its bound counts as one that leaves so much, three margins beyond the
/// nearest training value: what was never reached is odd when it is, and not beyond all measure.
const MARGIN_SHARE_MIN: f64 = 0.05;

impl Edge {
    fn new(bound: f64, nearest: f64, is_lower: bool) -> Option<Self> {
        let is_inside = if is_lower { nearest > bound } else { nearest < bound };
        (is_inside && bound.is_finite()).then_some(Self { bound, nearest })
    }

    fn margin(self) -> f64 {
        self.nearest - self.bound
    }

    fn bend(self, straight: f64) -> f64 {
        let beyond = (straight - self.nearest) / self.margin();
        if beyond < 0.0 { self.nearest + self.margin() * libm::expm1(beyond) } else { straight }
    }

    /// The share of the margin that is used up at a value, as a negative number. Bounds may be far off, so that what is left is not
    /// told from all of it.
    fn used(self, bent: f64) -> f64 {
        ((bent - self.nearest) / self.margin()).clamp(MARGIN_SHARE_MIN - 1.0, 0.0)
    }

    fn straighten(self, bent: f64) -> f64 {
        let used = self.used(bent);
        if used < 0.0 { self.nearest + self.margin() * libm::log1p(used) } else { bent }
    }

    /// The value, or the nearest one that is far enough from the bound to be told from it.
    fn told(self, bent: f64) -> f64 {
        let used = self.used(bent);
        if used < 0.0 { self.nearest + self.margin() * used } else { bent }
    }
}

/// A standard deviation below this share of the mean magnitude is rounding, not variation.
const RELATIVE_FLOOR: f64 = 1e-9;
/// A measurement with a larger standard deviation than this, in standard units, tells nothing; keeps covariances finite.
const SD_MAX: f64 = 1e3;
/// Knots of normal scores: enough for the shape, few enough to be smooth.
const N_KNOTS: usize = 99;
/// Knots of logarithms, and how far from the mean they reach, in standard deviations.
const N_LOG_KNOTS: usize = 97;
const LOG_REACH: f64 = 6.0;
/// Logarithms stay within this, so that every knot is finite.
const LOG_MAX: f64 = 700.0;

impl Scaling {
    /// Fits the map of each series.
    pub fn fit(kind: ScalingKind, values: &Grid) -> Self {
        Self::fit_weighted(kind, values, |_| 1.0)
    }

    /// Fits the map of each series to rows that weigh differently.
    pub fn fit_weighted(kind: ScalingKind, values: &Grid, weight: impl Fn(usize) -> f64) -> Self {
        let all: Vec<Vec<Weighted>> = (0..values.n_series()).map(|series| observed(values, series, &weight)).collect();
        let (standard, knots) = match kind {
            ScalingKind::Linear => (vec![0.0, 1.0], all.iter().map(|values| linear_knots(values).to_vec()).collect()),
            ScalingKind::NormalScore => {
                let probabilities: Vec<f64> = (1..=N_KNOTS).map(|knot| knot as f64 / (N_KNOTS + 1) as f64).collect();
                let standard = probabilities.iter().map(|&p| standard_normal_quantile(p)).collect();
                (standard, all.iter().map(|values| quantile_knots(values.clone(), &probabilities)).collect())
            }
            ScalingKind::Log => {
                let share = |knot: usize| 2.0 * knot as f64 / (N_LOG_KNOTS - 1) as f64 - 1.0;
                let standard: Vec<f64> = (0..N_LOG_KNOTS).map(|knot| LOG_REACH * share(knot)).collect();
                let knots = all.iter().map(|values| log_knots(values, &standard)).collect();
                (standard, knots)
            }
        };
        let edges = vec![[None; 2]; all.len()];
        let mut scaling = Self { standard, values: knots, ranges: vec![], edges };
        let extremes = all.iter().map(|values| {
            let values = || values.iter().map(|one| one.value);
            [values().reduce(f64::min).unwrap_or(0.0), values().reduce(f64::max).unwrap_or(0.0)]
        });
        scaling.ranges = extremes
            .enumerate()
            .map(|(series, extremes)| extremes.map(|extreme| scaling.standardise(series, extreme)))
            .collect();
        scaling
    }

    /// The map that leaves every value as it is.
    pub fn identity(n_series: usize) -> Self {
        let unbounded = [f64::NEG_INFINITY, f64::INFINITY];
        Self {
            standard: vec![0.0, 1.0],
            values: vec![vec![0.0, 1.0]; n_series],
            ranges: vec![unbounded; n_series],
            edges: vec![[None; 2]; n_series],
        }
    }

    /// Bends the maps towards the bounds that are declared, given the values that they were fitted on.
    pub fn within(mut self, bounds: &[Bounds], values: &Grid) -> Self {
        self.edges = bounds
            .iter()
            .enumerate()
            .map(|(series, bounds)| {
                let values = || observed(values, series, |_| 1.0).into_iter().map(|one| one.value);
                let edge = |bound: Option<f64>, nearest: Option<f64>, is_lower| Edge::new(bound?, nearest?, is_lower);
                let lower = edge(bounds.lower, values().reduce(f64::min), true);
                [lower, edge(bounds.upper, values().reduce(f64::max), false)]
            })
            .collect();
        self
    }

    /// The nearest standard value inside the range of the training values.
    pub fn into_range(&self, series: usize, value: f64) -> f64 {
        let [smallest, largest] = self.ranges[series];
        value.clamp(smallest, largest)
    }

    /// Number of series.
    pub fn n_series(&self) -> usize {
        self.values.len()
    }

    /// A value of a series in standard units; a gap stays one. A value on a flat part of the map goes to its middle.
    pub fn standardise(&self, series: usize, value: f64) -> f64 {
        if value.is_nan() {
            return value;
        }
        let value = self.straighten(series, value);
        let (knots, standard) = (&self.values[series], &self.standard);
        let below = knots.partition_point(|&knot| knot < value);
        let through = knots.partition_point(|&knot| knot <= value);
        if below < through {
            return 0.5 * (standard[below] + standard[through - 1]);
        }
        let last = knots.len() - 1;
        match below {
            0 => standard[0] - steps(knots[0] - value, self.slope_below(series)),
            n if n > last => standard[last] + steps(value - knots[last], self.slope_above(series)),
            n => {
                let share = (value - knots[n - 1]) / (knots[n] - knots[n - 1]);
                standard[n - 1] + share * (standard[n] - standard[n - 1])
            }
        }
    }

    /// The standard deviation of a measurement in standard units: `sd` times the mean slope of the map within one `sd` of
    /// the value, which is defined at knots and on atoms too.
    pub fn standardise_sd(&self, series: usize, value: f64, sd: f64) -> f64 {
        if sd == 0.0 || value.is_nan() {
            return 0.0;
        }
        let (low, high) = (self.standardise(series, value - sd), self.standardise(series, value + sd));
        (0.5 * (high - low)).min(SD_MAX)
    }

    /// A standard value of a series in data units.
    pub fn restore(&self, series: usize, value: f64) -> f64 {
        let (knots, standard) = (&self.values[series], &self.standard);
        let last = knots.len() - 1;
        let straight = match standard.partition_point(|&knot| knot < value) {
            0 => knots[0] - (standard[0] - value) * self.slope_below(series),
            n if n > last => knots[last] + (value - standard[last]) * self.slope_above(series),
            n => {
                let share = (value - standard[n - 1]) / (standard[n] - standard[n - 1]);
                knots[n - 1] + share * (knots[n] - knots[n - 1])
            }
        };
        self.edges[series].iter().flatten().fold(straight, |value, edge| edge.bend(value))
    }

    /// The value that comes back from the standard value of one: itself, but for what is too near to a bound that was never reached.
    pub fn told(&self, series: usize, value: f64) -> f64 {
        self.edges[series].iter().flatten().fold(value, |value, edge| edge.told(value))
    }

    fn straighten(&self, series: usize, value: f64) -> f64 {
        self.edges[series].iter().flatten().fold(value, |value, edge| edge.straighten(value))
    }

    /// Logarithm of the derivative of the standard value by the value; 0 where the map is flat, since what lies there has a
    /// probability and no density.
    pub fn log_derivative(&self, series: usize, value: f64) -> f64 {
        let bend: f64 = self.edges[series].iter().flatten().map(|edge| libm::log1p(edge.used(value))).sum();
        let value = self.straighten(series, value);
        let (knots, standard) = (&self.values[series], &self.standard);
        let below = knots.partition_point(|&knot| knot < value);
        let is_atom = knots.partition_point(|&knot| knot <= value) > below + 1;
        let slope = match below {
            _ if is_atom => 0.0,
            0 => self.slope_below(series),
            n if n == knots.len() => self.slope_above(series),
            n => (knots[n] - knots[n - 1]) / (standard[n] - standard[n - 1]),
        };
        if slope > 0.0 { -slope.ln() - bend } else { 0.0 }
    }

    /// A whole grid in standard units, `[time, series]` row-major, gaps `NaN`.
    pub fn standardise_grid(&self, values: &Grid) -> Vec<f64> {
        let n_series = self.n_series();
        values.values().iter().enumerate().map(|(index, &value)| self.standardise(index % n_series, value)).collect()
    }

    fn slope_below(&self, series: usize) -> f64 {
        let (knots, standard) = (&self.values[series], &self.standard);
        let inner = standard.partition_point(|&knot| knot < standard[0] / 2.0).max(1);
        (knots[inner] - knots[0]) / (standard[inner] - standard[0])
    }

    fn slope_above(&self, series: usize) -> f64 {
        let (knots, standard) = (&self.values[series], &self.standard);
        let last = knots.len() - 1;
        let inner = standard.partition_point(|&knot| knot < standard[last] / 2.0).min(last - 1);
        (knots[last] - knots[inner]) / (standard[last] - standard[inner])
    }
}

/// How far a distance reaches in standard units; where the map is flat, nowhere.
fn steps(distance: f64, slope: f64) -> f64 {
    if slope > 0.0 { distance / slope } else { 0.0 }
}

/// An observed value, and how much it counts.
#[derive(Clone, Copy)]
struct Weighted {
    value: f64,
    weight: f64,
}

fn observed(values: &Grid, series: usize, weight: impl Fn(usize) -> f64) -> Vec<Weighted> {
    let weighted = |step| Weighted { value: values.get(step, series), weight: weight(step) };
    (0..values.n_steps()).map(weighted).filter(|one| !one.value.is_nan()).collect()
}

fn is_positive(observed: &[Weighted]) -> bool {
    !observed.is_empty() && observed.iter().all(|one| one.value > 0.0)
}

fn log_knots(observed: &[Weighted], standard: &[f64]) -> Vec<f64> {
    let is_log = is_positive(observed);
    let logarithms = || observed.iter().map(|one| Weighted { value: libm::log(one.value), ..*one }).collect::<Vec<_>>();
    let [mean, above] = if is_log { linear_knots(&logarithms()) } else { linear_knots(observed) };
    let knot = |standard: &f64| {
        let value = mean + standard * (above - mean);
        if is_log { libm::exp(value.clamp(-LOG_MAX, LOG_MAX)) } else { value }
    };
    standard.iter().map(knot).collect()
}

/// The values of the standard values 0 and 1.
fn linear_knots(observed: &[Weighted]) -> [f64; 2] {
    let n: f64 = observed.iter().map(|one| one.weight).sum();
    let mean: f64 = observed.iter().map(|one| one.weight * one.value / n).sum();
    let deviation = observed.iter().map(|one| one.weight * (one.value - mean).powi(2) / n).sum::<f64>().sqrt();
    let is_constant = deviation <= RELATIVE_FLOOR * mean.abs();
    [mean, if is_constant { mean } else { mean + deviation }]
}

/// Quantiles, linear between neighbours, which lie as far apart as both weigh in the mean.
fn quantile_knots(mut observed: Vec<Weighted>, probabilities: &[f64]) -> Vec<f64> {
    if observed.is_empty() {
        return vec![0.0; probabilities.len()];
    }
    observed.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
    let mut positions = vec![0.0];
    for pair in observed.windows(2) {
        positions.push(positions[positions.len() - 1] + 0.5 * (pair[0].weight + pair[1].weight));
    }
    let last = observed.len() - 1;
    let quantile = |p: f64| {
        let position = p * positions[last];
        let below = positions.partition_point(|&other| other <= position) - 1;
        let above = (below + 1).min(last);
        let distance = positions[above] - positions[below];
        let share = if distance > 0.0 { (position - positions[below]) / distance } else { 0.0 };
        observed[below].value + share * (observed[above].value - observed[below].value)
    };
    probabilities.iter().map(|&p| quantile(p)).collect()
}

/// Inverse of the standard normal distribution function, for a probability in (0, 1): a rational approximation (Abramowitz and
/// Stegun 1964, 26.2.23), and two steps of Halley from there, after which nothing is left to correct.
pub fn standard_normal_quantile(probability: f64) -> f64 {
    let tail = probability.min(1.0 - probability);
    let t = libm::sqrt(-2.0 * libm::log(tail));
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let mut x = t - numerator / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    for _ in 0..2 {
        // By how much the tail beyond x is too large, over the density there.
        let density = libm::exp(-0.5 * x * x) / std::f64::consts::TAU.sqrt();
        let off = (0.5 * libm::erfc(x * std::f64::consts::FRAC_1_SQRT_2) - tail) / density;
        x += off / (1.0 - 0.5 * x * off);
    }
    if probability < 0.5 { -x } else { x }
}

/// Standard values with their gaps filled from the past: by the value one season earlier, else by the last value, else by 0.
///
/// Only the inputs of the base forecaster are filled. What the model conditions on and is scored on keeps its gaps.
pub fn fill_from_past(standard: &[f64], n_series: usize, season: Option<usize>) -> Vec<f64> {
    let mut filled = standard.to_vec();
    for index in 0..filled.len() {
        if filled[index].is_nan() {
            let season_ago = season.and_then(|season| index.checked_sub(season * n_series));
            let source = season_ago.or_else(|| index.checked_sub(n_series));
            filled[index] = source.map_or(0.0, |source| filled[source]);
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;
    use proptest::prelude::*;

    const GAP: f64 = f64::NAN;
    const KINDS: [ScalingKind; 3] = [ScalingKind::Linear, ScalingKind::NormalScore, ScalingKind::Log];

    fn skewed(n: usize) -> Vec<f64> {
        let mut stream = Stream::new(1, 0);
        (0..n).map(|_| stream.normal().exp()).collect()
    }

    proptest! {
        #[test]
        fn maps_round_trip_inside_and_far_outside_the_data(value in -50.0f64..200.0) {
            let grid = Grid::new(1, skewed(500)).expect("whole rows");
            for kind in KINDS {
                let scaling = Scaling::fit(kind, &grid);
                let back = scaling.restore(0, scaling.standardise(0, value));
                prop_assert!((back - value).abs() < 1e-9 * (1.0 + value.abs()), "{kind:?}: {value} came back as {back}");
            }
        }

        #[test]
        fn maps_rise(a in -50.0f64..200.0, b in -50.0f64..200.0) {
            let grid = Grid::new(1, skewed(500)).expect("whole rows");
            for kind in KINDS {
                let scaling = Scaling::fit(kind, &grid);
                prop_assert!(scaling.standardise(0, a.min(b)) <= scaling.standardise(0, a.max(b)));
            }
        }
    }

    fn bounded(kind: ScalingKind, lower: Option<f64>, upper: Option<f64>) -> Scaling {
        let grid = Grid::new(1, skewed(500)).expect("whole rows");
        Scaling::fit(kind, &grid).within(&[Bounds { lower, upper }], &grid)
    }

    proptest! {
        #[test]
        fn bounds_that_were_never_reached_are_approached_and_never_met(a in -6.0f64..6.0, b in -6.0f64..6.0) {
            for kind in KINDS {
                let (lower, upper) = (-0.5, 40.0);
                let scaling = bounded(kind, Some(lower), Some(upper));
                let (low, high) = (scaling.restore(0, a.min(b)), scaling.restore(0, a.max(b)));
                prop_assert!(lower < low && high < upper && low <= high, "{kind:?}: {low} {high}");
                let nearest = scaling.edges[0].map(|edge| edge.expect("never reached").nearest);
                if (nearest[0]..=nearest[1]).contains(&low) {
                    prop_assert_eq!(low, bounded(kind, None, None).restore(0, a.min(b)));
                }
                let (told, back) = (scaling.told(0, low), scaling.restore(0, scaling.standardise(0, low)));
                prop_assert!((back - told).abs() < 1e-9 * (1.0 + low.abs()), "{kind:?}: {low} came back as {back}");
                prop_assert!(told == low || !(-0.4..=38.0).contains(&low), "{kind:?}: {low} counts as {told}");
            }
        }
    }

    #[test]
    fn the_density_near_a_bound_is_that_of_the_bent_map() {
        let scaling = bounded(ScalingKind::Linear, Some(-0.5), Some(40.0));
        for value in [-0.4, -0.1, 0.02, 1.0, 20.0, 35.0, 38.0] {
            let step = 1e-6;
            let rise = scaling.standardise(0, value + step) - scaling.standardise(0, value - step);
            let found = scaling.log_derivative(0, value);
            assert!((found - (rise / (2.0 * step)).ln()).abs() < 1e-6, "{value}: {found}");
        }
    }

    #[test]
    fn a_value_at_a_bound_that_was_never_reached_is_odd_and_no_more() {
        let scaling = bounded(ScalingKind::Linear, Some(-0.5), None);
        let nearest = scaling.edges[0][0].expect("never reached").nearest;
        let one = scaling.standardise(0, nearest) - scaling.standardise(0, nearest - 1.0);
        let [at, below] = [-0.5, -9.0].map(|value| scaling.standardise(0, nearest) - scaling.standardise(0, value));
        assert!(at == below && at > 0.0 && at < 3.1 * (nearest + 0.5) * one.max(1.0), "{at}");
    }

    #[test]
    fn a_bound_far_away_bends_as_good_as_nothing() {
        let scaling = bounded(ScalingKind::Linear, Some(-1e17), Some(1e17));
        let free = bounded(ScalingKind::Linear, None, None);
        for standard in [-8.0, -3.0, 9.0, 40.0] {
            let (found, straight) = (scaling.restore(0, standard), free.restore(0, standard));
            assert!((found - straight).abs() < 1e-9 * straight.abs().max(1.0), "{found} {straight}");
            assert!((scaling.standardise(0, found) - standard).abs() < 1e-9, "{standard}");
        }
    }

    #[test]
    fn a_bound_at_which_values_lie_bends_nothing() {
        let grid = Grid::new(1, vec![0.0, 0.0, 1.0, 4.0, f64::NAN]).expect("whole rows");
        let bounds = |lower, upper| [Bounds { lower, upper }];
        let edges = |bounds: &[Bounds]| Scaling::fit(ScalingKind::Linear, &grid).within(bounds, &grid).edges[0];
        assert_eq!(edges(&bounds(Some(0.0), Some(4.0))), [None, None]);
        assert_eq!(edges(&bounds(Some(1.0), Some(3.0))), [None, None], "values lie beyond them");
        assert_eq!(edges(&bounds(None, Some(5.0))), [None, Some(Edge { bound: 5.0, nearest: 4.0 })]);
    }

    #[test]
    fn measurement_errors_scale_with_the_map_and_stay_finite() {
        let grid = Grid::new(1, (0..101).map(f64::from).collect()).expect("whole rows");
        let linear = Scaling::fit(ScalingKind::Linear, &grid);
        let slope = linear.standardise(0, 1.0) - linear.standardise(0, 0.0);
        assert!((linear.standardise_sd(0, 40.0, 3.0) - 3.0 * slope).abs() < 1e-12);
        let scores = Scaling::fit(ScalingKind::NormalScore, &grid);
        let (middle, tail) = (scores.standardise_sd(0, 50.0, 1.0), scores.standardise_sd(0, 3.0, 1.0));
        assert!(tail > 2.0 * middle, "the map is steeper in the tail: {middle} {tail}");
        for scaling in [linear, scores] {
            assert_eq!(scaling.standardise_sd(0, 50.0, 0.0), 0.0);
            assert_eq!(scaling.standardise_sd(0, 50.0, f64::MAX), SD_MAX);
        }
    }

    #[test]
    fn gaps_stay_gaps() {
        let values = Grid::new(2, vec![1.0, GAP, 3.0, 5.0, GAP, 9.0]).expect("whole rows");
        for kind in KINDS {
            let standard = Scaling::fit(kind, &values).standardise_grid(&values);
            assert!(standard.iter().zip(values.values()).all(|(standard, value)| standard.is_nan() == value.is_nan()));
        }
    }

    #[test]
    fn normal_scores_of_a_skewed_series_are_symmetric() {
        let values = skewed(4000);
        let scaling = Scaling::fit(ScalingKind::NormalScore, &Grid::new(1, values.clone()).expect("whole rows"));
        let scores: Vec<f64> = values.iter().map(|&value| scaling.standardise(0, value)).collect();
        let moment = |power: i32| scores.iter().map(|score| score.powi(power)).sum::<f64>() / 4000.0;
        assert!(
            moment(1).abs() < 0.03 && (moment(2) - 1.0).abs() < 0.1 && moment(3).abs() < 0.5,
            "{} {} {}",
            moment(1),
            moment(2),
            moment(3)
        );
    }

    #[test]
    fn growth_by_a_share_is_growth_by_steps_in_logarithms() {
        let growing: Vec<f64> = (0..100).map(|step| 1.05_f64.powi(step)).collect();
        let grid = Grid::new(1, growing.clone()).expect("whole rows");
        assert_eq!(ScalingKind::candidates(&grid).last(), Some(&ScalingKind::Log));
        let scaling = Scaling::fit(ScalingKind::Log, &grid);
        let (first, middle) = (scaling.standardise(0, growing[0]), scaling.standardise(0, growing[50]));
        let next = scaling.restore(0, 2.0 * middle - first);
        assert!((next / growing[50] / growing[50] - 1.0).abs() < 0.01, "{next} goes on with the growth");
    }

    #[test]
    fn a_series_that_reaches_zero_has_no_logarithms() {
        let grid = Grid::new(1, vec![0.0, 1.0, 2.0, GAP, 5.0]).expect("whole rows");
        assert!(!ScalingKind::candidates(&grid).contains(&ScalingKind::Log));
        let (log, linear) = (Scaling::fit(ScalingKind::Log, &grid), Scaling::fit(ScalingKind::Linear, &grid));
        assert!((log.standardise(0, 4.0) - linear.standardise(0, 4.0)).abs() < 1e-12);
    }

    #[test]
    fn a_value_that_occurs_often_is_an_atom() {
        let values: Vec<f64> = (0..300).map(|step| if step % 3 == 0 { f64::from(step) } else { 0.0 }).collect();
        let scaling = Scaling::fit(ScalingKind::NormalScore, &Grid::new(1, values).expect("whole rows"));
        let zero = scaling.standardise(0, 0.0);
        assert!(zero < 0.0);
        assert_eq!((scaling.restore(0, zero), scaling.restore(0, -5.0)), (0.0, 0.0), "and nothing is below it");
    }

    #[test]
    fn a_constant_series_comes_back_as_the_constant_whatever_is_modelled() {
        for kind in KINDS {
            let scaling = Scaling::fit(kind, &Grid::new(1, vec![0.1; 50]).expect("whole rows"));
            assert!((scaling.restore(0, 7.0) - 0.1).abs() < 1e-12 && (scaling.restore(0, -3.0) - 0.1).abs() < 1e-12);
            assert!(scaling.standardise(0, 0.1).is_finite() && scaling.standardise(0, 5.0).is_finite());
        }
    }

    #[test]
    fn a_series_of_gaps_stays_finite() {
        for kind in KINDS {
            let scaling = Scaling::fit(kind, &Grid::new(1, vec![GAP; 5]).expect("whole rows"));
            assert_eq!(scaling.restore(0, 1.0), 0.0);
        }
        assert_eq!(fill_from_past(&[GAP; 5], 1, Some(2)), [0.0; 5]);
    }

    #[test]
    fn the_normal_quantile_inverts_the_distribution() {
        for (probability, expected) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.01, -2.326_347_874_040_841)] {
            assert!((standard_normal_quantile(probability) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn filling_uses_the_season_before_and_never_the_future() {
        assert_eq!(fill_from_past(&[1.0, 2.0, GAP, GAP, 5.0], 1, Some(2)), [1.0, 2.0, 1.0, 2.0, 5.0]);
        assert_eq!(fill_from_past(&[GAP, 2.0, GAP], 1, None), [0.0, 2.0, 2.0]);
    }

    #[test]
    fn a_row_that_weighs_twice_counts_as_two() {
        let mut stream = Stream::new(3, 0);
        let values: Vec<f64> = (0..400).map(|_| stream.normal()).collect();
        let weight = |row: usize| if row < 100 { 2.0 } else { 1.0 };
        let twice = values[..100].iter().chain(&values).copied().collect();
        let (grid, twice) = (Grid::from_rows(1, values), Grid::from_rows(1, twice));
        for kind in [ScalingKind::Linear, ScalingKind::NormalScore] {
            let (weighted, copied) = (Scaling::fit_weighted(kind, &grid, weight), Scaling::fit(kind, &twice));
            let pairs = weighted.values[0].iter().zip(&copied.values[0]);
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 0.05), "{kind:?}");
            assert!(weighted.values[0].is_sorted_by(|a, b| a < b), "what weighs more is no atom");
        }
    }
}
