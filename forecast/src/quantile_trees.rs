//! How the law of an error depends on the state: its quantiles, by boosted trees.
//!
//! A spread widens and narrows a law whose shape stays. But demand that is zero on most days, power at dawn and prices that may
//! jump have another shape in every state. Trees tell by how much each quantile of an error is moved from where it usually is
//! (Koenker and Bassett, "Regression quantiles", Econometrica 1978; by gradient boosting: Friedman 2001, as in
//! [`boosting`](crate::boosting)). All quantiles share the trees: each tree grows for one of the levels in turn, and its leaves
//! move all of them.

use crate::boosting::{FeatureRows, Node, Objective, each_leaf, from_rows, grow_all, to_rows};

/// Number of quantiles.
pub const N_LEVELS: usize = 7;
/// Their levels.
const LEVELS: [f64; N_LEVELS] = [0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95];
/// Moved quantiles come no nearer to each other than this share of their usual distance, and usual ones than this share of the distance
/// of the outer ones: where nearly all values are alike, what is a little off is no wonder.
const DISTANCE_MIN: f32 = 0.1;
/// Errors whose outer quantiles differ by less than this share of their size are all alike: nothing between them could be told apart.
const RANGE_MIN: f32 = 1e-3;
/// Beyond the outer quantiles errors come no closer to each other than they usually are: what trees are a little wrong about there
/// is not magnified.
const OUTER_SLOPE_MIN: f64 = 1.0;

/// Quantiles, or by how much they are moved, in the order of their levels.
pub type Quantiles = [f32; N_LEVELS];

/// Trees that move quantiles.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantileTrees {
    /// Quantiles of all errors together, increasing.
    pub usual: Quantiles,
    /// By how much they are moved.
    pub trees: Vec<Vec<Node<Quantiles>>>,
}

impl Default for QuantileTrees {
    /// No trees: nothing is moved.
    fn default() -> Self {
        Self { usual: std::array::from_fn(|level| level as f32 - (N_LEVELS / 2) as f32), trees: vec![] }
    }
}

impl QuantileTrees {
    /// Fits trees to errors. Without enough of them, or where they are all alike, there are none.
    pub fn fit(rows: &FeatureRows, errors: &[f32], seed: u64) -> Self {
        let usual = quantiles(&mut errors.to_vec());
        let (lowest, highest) = (usual[0], usual[N_LEVELS - 1]);
        if highest - lowest <= RANGE_MIN * highest.abs().max(lowest.abs()) {
            return Self::default();
        }
        let distance = DISTANCE_MIN * (highest - lowest);
        let usual = increasing(usual, [distance; N_LEVELS - 1]);
        Self { usual, trees: grow_all(&AllLevels, rows, errors, usual, seed) }
    }

    /// By how much the quantiles of each row are moved.
    pub fn moves(&self, rows: &FeatureRows) -> Vec<Quantiles> {
        let mut moves = vec![Quantiles::default(); rows.n_rows()];
        each_leaf(&self.trees, rows, |row, value| AllLevels::add(&mut moves[row], value));
        moves
    }

    /// The quantiles after a share of a move, increasing.
    pub fn moved(&self, moves: &Quantiles, share: f64) -> Quantiles {
        let mut moved = self.usual;
        moved.iter_mut().zip(moves).for_each(|(quantile, by)| *quantile += share as f32 * by);
        moved.sort_unstable_by(f32::total_cmp);
        increasing(moved, std::array::from_fn(|gap| DISTANCE_MIN * (self.usual[gap + 1] - self.usual[gap])))
    }

    /// The trees as rows, see [`boosting`](crate::boosting).
    pub(crate) fn to_rows(&self) -> (Vec<f64>, Vec<f64>) {
        to_rows(&self.trees, |moves| moves.map(f64::from).to_vec())
    }

    /// The trees of rows and sizes that [`QuantileTrees::to_rows`] made; `None` when they are no trees over so many features, or
    /// when the usual quantiles are not increasing.
    pub(crate) fn from_rows(rows: &[f64], sizes: &[f64], usual: &[f64], n_features: usize) -> Option<Self> {
        let quantiles = |values: &[f64]| -> Quantiles { std::array::from_fn(|level| values[level] as f32) };
        let trees = from_rows(rows, sizes, n_features, N_LEVELS, quantiles)?;
        let is_increasing = usual.len() == N_LEVELS && usual.is_sorted_by(|a, b| a < b);
        is_increasing.then(|| Self { usual: quantiles(usual), trees })
    }
}

/// Mean cost of an error under quantiles: what is lowest for its true quantiles, and half of its CRPS were there all of them.
pub fn quantile_loss(quantiles: &Quantiles, error: f64) -> f64 {
    let cost = |(level, &quantile): (f64, &f32)| {
        let over = error - f64::from(quantile);
        over * (level - if over < 0.0 { 1.0 } else { 0.0 })
    };
    LEVELS.into_iter().zip(quantiles).map(cost).sum::<f64>() / N_LEVELS as f64
}

/// Where an error comes to lie when the usual quantiles come to lie at moved ones.
pub fn move_error(usual: &Quantiles, moved: &Quantiles, error: f64) -> f64 {
    let (segment, slope) = at(usual, moved, usual, error);
    f64::from(moved[segment]) + (error - f64::from(usual[segment])) * slope
}

/// The inverse of [`move_error`].
pub fn move_back(usual: &Quantiles, moved: &Quantiles, error: f64) -> f64 {
    let (segment, slope) = at(usual, moved, moved, error);
    f64::from(usual[segment]) + (error - f64::from(moved[segment])) / slope
}

/// The slope of [`move_error`].
pub fn slope(usual: &Quantiles, moved: &Quantiles, error: f64) -> f64 {
    at(usual, moved, usual, error).1
}

/// A quantile from which the map is straight up to an error, which lies among some quantiles, and its slope.
fn at(usual: &Quantiles, moved: &Quantiles, among: &Quantiles, error: f64) -> (usize, f64) {
    let width = |knots: &Quantiles, gap: usize| f64::from(knots[gap + 1]) - f64::from(knots[gap]);
    let slope = |gap| width(moved, gap) / width(usual, gap);
    match among.partition_point(|&knot| f64::from(knot) < error) {
        0 => (0, slope(0).max(OUTER_SLOPE_MIN)),
        N_LEVELS => (N_LEVELS - 1, slope(N_LEVELS - 2).max(OUTER_SLOPE_MIN)),
        above => (above - 1, slope(above - 1)),
    }
}

/// Every level at once.
struct AllLevels;

impl Objective for AllLevels {
    type Value = Quantiles;

    fn pull(&self, tree: usize, fitted: &Quantiles, target: f32) -> f32 {
        let level = tree % N_LEVELS;
        match LEVELS[level] as f32 {
            _ if target == fitted[level] => 0.0,
            share if target < fitted[level] => share - 1.0,
            share => share,
        }
    }

    fn leaf(&self, rows: &mut dyn Iterator<Item = (Quantiles, f32)>, share: f64) -> Quantiles {
        let rows: Vec<(Quantiles, f32)> = rows.collect();
        std::array::from_fn(|level| {
            let mut residuals: Vec<f32> = rows.iter().map(|(fitted, target)| target - fitted[level]).collect();
            (share * f64::from(quantile(&mut residuals, LEVELS[level]))) as f32
        })
    }

    fn add(fitted: &mut Quantiles, value: Quantiles) {
        fitted.iter_mut().zip(value).for_each(|(fitted, value)| *fitted += value);
    }
}

/// The quantiles of values, 0 of none.
fn quantiles(values: &mut [f32]) -> Quantiles {
    LEVELS.map(|level| quantile(values, level))
}

fn quantile(values: &mut [f32], level: f64) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = (level * (values.len() - 1) as f64).round() as usize;
    *values.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// Sorted quantiles, moved away from the middle one where they are closer than the given distances.
fn increasing(mut sorted: Quantiles, distances: [f32; N_LEVELS - 1]) -> Quantiles {
    const MIDDLE: usize = N_LEVELS / 2;
    for gap in MIDDLE..N_LEVELS - 1 {
        sorted[gap + 1] = sorted[gap + 1].max(sorted[gap] + distances[gap]);
    }
    for gap in (0..MIDDLE).rev() {
        sorted[gap] = sorted[gap].min(sorted[gap + 1] - distances[gap]);
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;

    /// Errors that are 0 four times of five where the feature is negative, and standard normal elsewhere.
    fn in_two_states(n: usize) -> (FeatureRows, Vec<f32>) {
        let mut stream = Stream::new(1, 0);
        let values: Vec<f32> = (0..n).map(|_| stream.normal() as f32).collect();
        let error = |&feature: &f32| match feature {
            feature if feature < 0.0 && stream.uniform() < 0.8 => 0.0,
            feature if feature < 0.0 => 5.0 * stream.uniform() as f32,
            _ => stream.normal() as f32,
        };
        let errors = values.iter().map(error).collect();
        (FeatureRows { n_features: 1, values }, errors)
    }

    fn states() -> FeatureRows {
        FeatureRows { n_features: 1, values: vec![-1.0, 1.0] }
    }

    #[test]
    fn quantiles_follow_the_state() {
        let (rows, errors) = in_two_states(20_000);
        let trees = QuantileTrees::fit(&rows, &errors, 1);
        let [idle, busy] = trees
            .moves(&states())
            .try_into()
            .map(|moves: [Quantiles; 2]| moves.map(|moves| trees.moved(&moves, 1.0)))
            .expect("two rows");
        assert!(idle[1..5].iter().all(|quantile| quantile.abs() < 0.1), "{idle:?}");
        assert!((idle[6] - 3.75).abs() < 0.5, "{idle:?}");
        for (level, expected) in [(0, -1.645), (3, 0.0), (6, 1.645)] {
            assert!((busy[level] - expected).abs() < 0.2, "{busy:?}");
        }
        let loss = |share: f64| {
            let moves = trees.moves(&rows);
            let loss = |(moves, &error)| quantile_loss(&trees.moved(moves, share), f64::from(error));
            moves.iter().zip(&errors).map(loss).sum::<f64>()
        };
        assert!(loss(1.0) < 0.9 * loss(0.0) && loss(1.0) < loss(0.5), "{} {} {}", loss(0.0), loss(0.5), loss(1.0));
    }

    #[test]
    fn few_errors_and_equal_ones_give_no_trees() {
        let (rows, errors) = in_two_states(150);
        assert!(QuantileTrees::fit(&rows, &errors, 1).trees.is_empty());
        assert_eq!(QuantileTrees::fit(&FeatureRows::default(), &[], 1), QuantileTrees::default());
        let rows = FeatureRows { n_features: 1, values: vec![0.5; 1000] };
        assert_eq!(QuantileTrees::fit(&rows, &[2.0; 1000], 1), QuantileTrees::default());
        let nearly: Vec<f32> = (0..1000_u16).map(|row| 2.0 + f32::from(row) * f32::EPSILON).collect();
        assert_eq!(QuantileTrees::fit(&rows, &nearly, 1), QuantileTrees::default());
    }

    #[test]
    fn the_map_between_quantiles_has_an_inverse_even_where_they_meet() {
        let (rows, errors) = in_two_states(20_000);
        let trees = QuantileTrees::fit(&rows, &errors, 1);
        let collapsed = trees.usual.map(|quantile| 0.5 - quantile);
        for moves in trees.moves(&states()).into_iter().chain([collapsed]) {
            let moved = trees.moved(&moves, 1.0);
            assert!(moved.is_sorted_by(|a, b| a < b), "{moved:?}");
            for at in (-60..60).map(|tenths| f64::from(tenths) / 10.0) {
                let there = move_error(&trees.usual, &moved, at);
                assert!((move_back(&trees.usual, &moved, there) - at).abs() < 1e-4, "{at}");
                let next = move_error(&trees.usual, &moved, at + 1e-6);
                assert!(((next - there) / 1e-6 - slope(&trees.usual, &moved, at + 5e-7)).abs() < 1e-3, "{at}");
            }
        }
    }

    #[test]
    fn trees_come_back_from_rows_and_wrong_rows_are_refused() {
        let (rows, errors) = in_two_states(2000);
        let trees = QuantileTrees::fit(&rows, &errors, 1);
        let (nodes, sizes) = trees.to_rows();
        let usual = trees.usual.map(f64::from);
        assert_eq!(QuantileTrees::from_rows(&nodes, &sizes, &usual, 1), Some(trees));
        assert_eq!(QuantileTrees::from_rows(&nodes, &sizes, &usual, 0), None);
        assert_eq!(QuantileTrees::from_rows(&nodes, &sizes, &[1.0; N_LEVELS], 1), None);
        assert_eq!(QuantileTrees::from_rows(&nodes, &sizes, &usual[1..], 1), None);
    }
}
