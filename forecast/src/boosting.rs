//! Gradient-boosted regression trees: what a linear map cannot say about a number of features.
//!
//! Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 2001, with histograms
//! of binned features and trees that grow at the leaf with the largest gain (Ke et al., "LightGBM", NeurIPS 2017).
//! Rows and features are subsampled per tree; leaves are shrunk by a ridge penalty.

use crate::noise::Stream;

/// Trees of a model.
const N_TREES: usize = 300;
/// Share of a tree that is added.
const LEARNING_RATE: f64 = 0.06;
/// Leaves of a tree.
const N_LEAVES: usize = 31;
/// Rows in a leaf at least.
const N_ROWS_IN_LEAF: usize = 100;
/// Rows that a leaf is shrunk by: its mean counts as if so many rows of 0 were in it.
const LEAF_PENALTY: f64 = 5.0;
/// Share of the features that a tree may use.
const FEATURE_SHARE: f64 = 0.6;
/// Share of the rows that a tree learns from.
const ROW_SHARE: f64 = 0.7;
/// Bins of a feature.
const N_BINS: usize = 64;
/// Values that the bins of a feature are found from.
const N_BINNED_VALUES: usize = 20_000;

/// Rows of features, row-major `[row, feature]`.
#[derive(Clone, Debug, Default)]
pub struct FeatureRows {
    /// Number of features of a row.
    pub n_features: usize,
    /// The values; never `NaN`.
    pub values: Vec<f32>,
}

impl FeatureRows {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_features.max(1)
    }
}

/// What an error costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Half its square.
    Squared,
    /// Half its square up to a threshold and linear beyond (Huber 1964): outliers do not rule the fit.
    Huber(f32),
    /// Its size: trees tell the median. A leaf adds the median of its residuals (Friedman 2001, algorithm 3).
    Absolute,
}

/// What trees are grown to.
pub(crate) trait Objective {
    /// What a tree adds to a row.
    type Value: Copy + Default;

    /// The negative gradient of the loss at a row; trees are numbered.
    fn pull(&self, tree: usize, fitted: &Self::Value, target: f32) -> f32;

    /// What a leaf adds: a share of what would be best for its rows, of which each is what is fitted so far, and the target.
    fn leaf(&self, rows: &mut dyn Iterator<Item = (Self::Value, f32)>, share: f64) -> Self::Value;

    /// Adds what a tree says.
    fn add(fitted: &mut Self::Value, value: Self::Value);
}

impl Objective for Loss {
    type Value = f32;

    fn pull(&self, _: usize, fitted: &f32, target: f32) -> f32 {
        self.pull_of(target - fitted)
    }

    fn leaf(&self, rows: &mut dyn Iterator<Item = (f32, f32)>, share: f64) -> f32 {
        (share * self.centre(&mut rows.map(|(fitted, target)| target - fitted).collect::<Vec<f32>>())) as f32
    }

    fn add(fitted: &mut f32, value: f32) {
        *fitted += value;
    }
}

impl Loss {
    /// The negative gradient at a residual.
    fn pull_of(self, residual: f32) -> f32 {
        match self {
            Self::Squared => residual,
            Self::Huber(threshold) => residual.clamp(-threshold, threshold),
            Self::Absolute if residual == 0.0 => 0.0,
            Self::Absolute => residual.signum(),
        }
    }

    /// What the rows of a leaf have in common, of their residuals.
    fn centre(self, residuals: &mut [f32]) -> f64 {
        match self {
            Self::Squared | Self::Huber(_) => {
                residuals.iter().map(|&residual| f64::from(self.pull_of(residual))).sum::<f64>()
                    / residuals.len() as f64
            }
            Self::Absolute => {
                let middle = residuals.len() / 2;
                f64::from(*residuals.select_nth_unstable_by(middle, f32::total_cmp).1)
            }
        }
    }
}

/// A node of a tree. The children of a split lie behind it in the tree's list.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Node<V = f32> {
    /// The feature that is compared; a leaf has none.
    pub feature: Option<u16>,
    /// Rows with at most this value go left.
    pub threshold: f32,
    /// The left child; the right one is next to it.
    pub left: u16,
    /// What a leaf adds.
    pub value: V,
}

/// A sum of regression trees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boosting {
    /// The trees, root first.
    pub trees: Vec<Vec<Node>>,
}

impl Boosting {
    /// Fits trees to targets; without rows there are none.
    pub fn fit(rows: &FeatureRows, targets: &[f32], loss: Loss, seed: u64) -> Self {
        Self { trees: grow_all(&loss, rows, targets, 0.0, seed) }
    }

    /// What lies halfway between this and another one.
    pub fn halfway(&self, other: &Self) -> Self {
        let halved = |node: &Node| Node { value: 0.5 * node.value, ..*node };
        let trees = self.trees.iter().chain(&other.trees).map(|tree| tree.iter().map(halved).collect());
        Self { trees: trees.collect() }
    }

    /// The sum of all trees for each row of features.
    pub fn predict(&self, rows: &FeatureRows) -> Vec<f64> {
        let mut sums = vec![0.0; rows.n_rows()];
        each_leaf(&self.trees, rows, |row, value| sums[row] += f64::from(value));
        sums
    }
}

/// Grows trees to targets, from where all rows start; without rows there are none.
pub(crate) fn grow_all<O: Objective>(
    objective: &O,
    rows: &FeatureRows,
    targets: &[f32],
    start: O::Value,
    seed: u64,
) -> Vec<Vec<Node<O::Value>>> {
    let n_rows = rows.n_rows();
    if n_rows < 2 * N_ROWS_IN_LEAF {
        return vec![];
    }
    let binned = Binned::new(rows);
    let mut stream = Stream::new(seed, 0);
    let mut fitted = vec![start; n_rows];
    let mut pulls = vec![0.0_f32; n_rows];
    let mut trees = Vec::with_capacity(N_TREES);
    let mut descent = Descent::default();
    for number in 0..N_TREES {
        for ((pull, &target), fitted) in pulls.iter_mut().zip(targets).zip(&fitted) {
            *pull = objective.pull(number, fitted, target);
        }
        let unit = Count::unit(&pulls);
        let counted: Vec<Count> = pulls.iter().map(|&pull| Count::of(pull, unit)).collect();
        let sampled = (0..n_rows as u32).filter(|_| stream.uniform() < ROW_SHARE).collect();
        let features = (0..rows.n_features).filter(|_| stream.uniform() < FEATURE_SHARE).collect();
        let tree = Grower { binned: &binned, pulls: &counted, features, rows: sampled }.grow(|rows| {
            let n = rows.len() as f64;
            let mut rows = rows.iter().map(|&row| (fitted[row as usize], targets[row as usize]));
            objective.leaf(&mut rows, LEARNING_RATE * n / (n + LEAF_PENALTY))
        });
        descent.each_leaf(&tree, &rows.values, rows.n_features, |row, value| O::add(&mut fitted[row], value));
        trees.push(tree);
    }
    trees
}

/// Calls a function with each row and what the leaf of each tree adds that it comes to.
pub(crate) fn each_leaf<V: Copy>(trees: &[Vec<Node<V>>], rows: &FeatureRows, mut f: impl FnMut(usize, V)) {
    let mut descent = Descent::default();
    for (block, values) in rows.values.chunks(N_BLOCK_ROWS * rows.n_features.max(1)).enumerate() {
        for tree in trees {
            descent.each_leaf(tree, values, rows.n_features, |row, value| f(block * N_BLOCK_ROWS + row, value));
        }
    }
}

/// Numbers that a node is stored as, beside its values.
const N_PLACE: usize = 3;

/// Trees as rows of feature (-1 for a leaf), threshold, left child and values, and the number of rows of each tree.
pub(crate) fn to_rows<V>(trees: &[Vec<Node<V>>], values: impl Fn(&V) -> Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    let row = |node: &Node<V>| {
        let feature = node.feature.map_or(-1.0, f64::from);
        let mut row = vec![feature, f64::from(node.threshold), f64::from(node.left)];
        row.extend(values(&node.value));
        row
    };
    let sizes = trees.iter().map(|tree| tree.len() as f64).collect();
    (trees.iter().flatten().flat_map(row).collect(), sizes)
}

/// The trees of rows and sizes that [`to_rows`] made of so many values; `None` when they are no trees over so many features.
pub(crate) fn from_rows<V>(
    rows: &[f64],
    sizes: &[f64],
    n_features: usize,
    n_values: usize,
    value: impl Fn(&[f64]) -> V,
) -> Option<Vec<Vec<Node<V>>>> {
    let mut nodes = rows.chunks_exact(N_PLACE + n_values).map(|row| Node {
        feature: (row[0] >= 0.0).then_some(row[0] as u16),
        threshold: row[1] as f32,
        left: row[2] as u16,
        value: value(&row[N_PLACE..]),
    });
    let trees: Vec<Vec<Node<V>>> = sizes.iter().map(|&size| nodes.by_ref().take(size as usize).collect()).collect();
    let is_sound = |tree: &Vec<Node<V>>| {
        let is_sound = |(index, node): (usize, &Node<V>)| {
            let (feature, left) = (node.feature.map(usize::from), usize::from(node.left));
            feature.is_none_or(|feature| feature < n_features && left > index && left + 1 < tree.len())
        };
        !tree.is_empty() && tree.iter().enumerate().all(is_sound)
    };
    trees.iter().all(is_sound).then_some(trees)
}

impl Boosting {
    /// The trees as rows of feature (-1 for a leaf), threshold, left child and value, and the number of rows of each tree.
    pub fn to_rows(&self) -> (Vec<f64>, Vec<f64>) {
        to_rows(&self.trees, |&value| vec![f64::from(value)])
    }

    /// The trees of rows and sizes that [`Boosting::to_rows`] made; `None` when they are no trees over so many features.
    pub fn from_rows(rows: &[f64], sizes: &[f64], n_features: usize) -> Option<Self> {
        Some(Self { trees: from_rows(rows, sizes, n_features, 1, |value| value[0] as f32)? })
    }
}

/// Rows that all trees see before the next ones: they stay near the processor.
const N_BLOCK_ROWS: usize = 256;
/// Rows that go down a tree side by side, so that the processor does not wait for each of their steps.
const N_LANES: usize = 8;

/// A node on the way down; a leaf leads to itself.
#[derive(Clone, Copy)]
struct Step {
    threshold: f32,
    feature: u16,
    left: u16,
}

/// The way down a tree, for many rows.
#[derive(Default)]
struct Descent {
    steps: Vec<Step>,
}

impl Descent {
    /// Calls a function with each row of values, `[row, feature]`, and with what the leaf adds that it comes to.
    fn each_leaf<V: Copy>(&mut self, tree: &[Node<V>], values: &[f32], n_features: usize, mut f: impl FnMut(usize, V)) {
        self.steps.clear();
        self.steps.extend(tree.iter().zip(0..).map(|(node, index)| match node.feature {
            Some(feature) => Step { threshold: node.threshold, feature, left: node.left },
            None => Step { threshold: f32::INFINITY, feature: 0, left: index },
        }));
        let n_rows = values.len() / n_features;
        for first in (0..n_rows).step_by(N_LANES) {
            let rows: [&[f32]; N_LANES] =
                std::array::from_fn(|lane| &values[(first + lane).min(n_rows - 1) * n_features..][..n_features]);
            let mut at = [0_u16; N_LANES];
            loop {
                let before = at;
                for (at, row) in at.iter_mut().zip(rows) {
                    let Step { threshold, feature, left } = self.steps[usize::from(*at)];
                    *at = left + u16::from(row[usize::from(feature)] > threshold);
                }
                if at == before {
                    break;
                }
            }
            at.iter().zip(first..n_rows).for_each(|(&at, row)| f(row, tree[usize::from(at)].value));
        }
    }
}

/// Features as numbers of bins, `[row, feature]`.
struct Binned {
    n_features: usize,
    bins: Vec<u8>,
    /// Upper ends of the bins of each feature but the last.
    thresholds: Vec<Vec<f32>>,
}

impl Binned {
    fn new(rows: &FeatureRows) -> Self {
        let (n_rows, n_features) = (rows.n_rows(), rows.n_features);
        let stride = n_rows.div_ceil(N_BINNED_VALUES);
        let mut thresholds = Vec::with_capacity(n_features);
        let mut bins = vec![0; rows.values.len()];
        for feature in 0..n_features {
            let column = || rows.values.iter().skip(feature).step_by(n_features);
            let mut sorted: Vec<f32> = column().step_by(stride).copied().collect();
            sorted.sort_unstable_by(f32::total_cmp);
            let mut ends: Vec<f32> = (1..N_BINS).map(|bin| sorted[bin * (sorted.len() - 1) / N_BINS]).collect();
            ends.dedup();
            for (bin, value) in bins.iter_mut().skip(feature).step_by(n_features).zip(column()) {
                *bin = ends.partition_point(|end| end < value) as u8;
            }
            thresholds.push(ends);
        }
        Self { n_features, bins, thresholds }
    }

    /// The bins of a row.
    fn row(&self, row: u32) -> &[u8] {
        &self.bins[row as usize * self.n_features..][..self.n_features]
    }
}

/// How many rows, and the sum of their pulls in whole numbers of a unit: the one in the lower half, the other in the upper one, so
/// that one addition counts a row (Shi et al., "Quantized training of gradient boosting decision trees", NeurIPS 2022).
#[derive(Clone, Copy, Default)]
struct Count(i64);

impl Count {
    /// The unit in which the sum of so many pulls cannot overflow.
    fn unit(pulls: &[f32]) -> f64 {
        let largest = pulls.iter().fold(0.0, |largest, pull| f32::max(largest, pull.abs()));
        f64::from(largest).max(f64::MIN_POSITIVE) * pulls.len() as f64 / f64::from(i32::MAX / 2)
    }

    /// One row.
    fn of(pull: f32, unit: f64) -> Self {
        Self((((f64::from(pull) / unit) as i64) << 32) + 1)
    }

    fn n_rows(self) -> f64 {
        f64::from(self.0 as u32)
    }

    /// The sum, in units.
    fn sum(self) -> f64 {
        (self.0 >> 32) as f64
    }
}

/// What is in each bin of each usable feature.
type Histogram = Vec<[Count; N_BINS]>;

struct Split {
    gain: f64,
    feature: usize,
    bin: usize,
}

/// A leaf that may still be split.
struct Leaf {
    node: usize,
    rows: std::ops::Range<usize>,
    histogram: Histogram,
    split: Option<Split>,
}

struct Grower<'a> {
    binned: &'a Binned,
    /// Each row's.
    pulls: &'a [Count],
    features: Vec<usize>,
    /// Sampled rows; those of a leaf are neighbours.
    rows: Vec<u32>,
}

impl Grower<'_> {
    /// Grows a tree whose leaves add what a function says of their rows.
    fn grow<V: Copy + Default>(mut self, value: impl Fn(&[u32]) -> V) -> Vec<Node<V>> {
        let all = 0..self.rows.len();
        let histogram = self.histogram(all.clone());
        let mut nodes = vec![Node::<V>::default()];
        let split = self.best_split(&histogram);
        let mut leaves = vec![Leaf { node: 0, rows: all, histogram, split }];
        while leaves.len() < N_LEAVES {
            let gain = |leaf: &Leaf| leaf.split.as_ref().map_or(0.0, |split| split.gain);
            let Some(best) = (0..leaves.len()).max_by(|&a, &b| gain(&leaves[a]).total_cmp(&gain(&leaves[b]))) else {
                break;
            };
            let Some(split) = leaves[best].split.take() else { break };
            let Leaf { node, rows, mut histogram, .. } = leaves.swap_remove(best);
            let middle = self.partition(rows.clone(), &split);
            let (left, right) = (rows.start..middle, middle..rows.end);
            // The histogram of the larger child is what the smaller one leaves over.
            let is_left_smaller = left.len() < right.len();
            let smaller = self.histogram(if is_left_smaller { left.clone() } else { right.clone() });
            for (whole, part) in histogram.as_flattened_mut().iter_mut().zip(smaller.as_flattened()) {
                whole.0 -= part.0;
            }
            let (left_histogram, right_histogram) =
                if is_left_smaller { (smaller, histogram) } else { (histogram, smaller) };
            let threshold = self.binned.thresholds[split.feature][split.bin];
            let child = nodes.len();
            nodes[node] =
                Node { feature: Some(split.feature as u16), threshold, left: child as u16, value: V::default() };
            nodes.extend([Node::<V>::default(); 2]);
            for (node, rows, histogram) in [(child, left, left_histogram), (child + 1, right, right_histogram)] {
                let split = self.best_split(&histogram);
                leaves.push(Leaf { node, rows, histogram, split });
            }
        }
        for Leaf { node, rows, .. } in leaves {
            nodes[node].value = value(&self.rows[rows]);
        }
        nodes
    }

    fn histogram(&self, rows: std::ops::Range<usize>) -> Histogram {
        let mut histogram = vec![[Count::default(); N_BINS]; self.features.len()];
        for &row in &self.rows[rows] {
            let (counted, bins_of_row) = (self.pulls[row as usize], self.binned.row(row));
            for (&feature, bins) in self.features.iter().zip(&mut histogram) {
                bins[usize::from(bins_of_row[feature]) % N_BINS].0 += counted.0;
            }
        }
        histogram
    }

    fn best_split(&self, histogram: &Histogram) -> Option<Split> {
        let score = |count: Count| count.sum() * count.sum() / (count.n_rows() + LEAF_PENALTY);
        let mut best: Option<Split> = None;
        for (&feature, bins) in self.features.iter().zip(histogram) {
            let all = Count(bins.iter().map(|bin| bin.0).sum());
            let mut left = Count::default();
            let n_thresholds = self.binned.thresholds[feature].len();
            for (bin, count) in bins[..n_thresholds].iter().enumerate() {
                left.0 += count.0;
                let right = Count(all.0 - left.0);
                if left.n_rows() < N_ROWS_IN_LEAF as f64 || right.n_rows() < N_ROWS_IN_LEAF as f64 {
                    continue;
                }
                let gain = score(left) + score(right) - score(all);
                if gain > best.as_ref().map_or(0.0, |best| best.gain) {
                    best = Some(Split { gain, feature, bin });
                }
            }
        }
        best
    }

    /// Moves the rows that go left to the front of the range, in their order, and returns where the others begin.
    fn partition(&mut self, rows: std::ops::Range<usize>, split: &Split) -> usize {
        let is_left = |row: &&u32| usize::from(self.binned.row(**row)[split.feature]) <= split.bin;
        let (left, right): (Vec<u32>, Vec<u32>) = self.rows[rows.clone()].iter().partition(is_left);
        let middle = rows.start + left.len();
        self.rows[rows.start..middle].copy_from_slice(&left);
        self.rows[middle..rows.end].copy_from_slice(&right);
        middle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y = sign(a) · b + noise`, which no linear map of `a` and `b` can say; the third feature says nothing.
    fn interaction(n: usize, seed: u64) -> (FeatureRows, Vec<f32>) {
        let mut stream = Stream::new(seed, 1);
        let (mut rows, mut targets) = (FeatureRows { n_features: 3, values: vec![] }, vec![]);
        for _ in 0..n {
            let (a, b, c) = (stream.normal(), stream.normal(), stream.normal());
            rows.values.extend([a as f32, b as f32, c as f32]);
            targets.push((a.signum() * b + 0.1 * stream.normal()) as f32);
        }
        (rows, targets)
    }

    fn mean_squared_error(boosting: &Boosting, rows: &FeatureRows, targets: &[f32]) -> f64 {
        let squares =
            boosting.predict(rows).into_iter().zip(targets).map(|(y, target)| (y - f64::from(*target)).powi(2));
        squares.sum::<f64>() / targets.len() as f64
    }

    #[test]
    fn an_interaction_is_learned_and_holds_on_new_rows() {
        let (rows, targets) = interaction(8000, 1);
        let (new_rows, new_targets) = interaction(2000, 2);
        let boosting = Boosting::fit(&rows, &targets, Loss::Squared, 1);
        let error = mean_squared_error(&boosting, &new_rows, &new_targets);
        assert!(error < 0.12, "mean squared error {error} of a target with variance 1");
    }

    #[test]
    fn noise_is_hardly_learned() {
        let (rows, _) = interaction(8000, 1);
        let mut stream = Stream::new(3, 1);
        let targets: Vec<f32> = (0..8000).map(|_| stream.normal() as f32).collect();
        let boosting = Boosting::fit(&rows, &targets, Loss::Squared, 1);
        let (new_rows, _) = interaction(2000, 4);
        let size = mean_squared_error(&boosting, &new_rows, &vec![0.0; 2000]);
        assert!(size < 0.1, "mean square of what was made of noise: {size}");
    }

    #[test]
    fn outliers_do_not_rule_a_robust_fit() {
        let (rows, mut targets) = interaction(8000, 1);
        targets.iter_mut().step_by(50).for_each(|target| *target += 200.0);
        let (new_rows, new_targets) = interaction(2000, 2);
        let error = |loss| mean_squared_error(&Boosting::fit(&rows, &targets, loss, 1), &new_rows, &new_targets);
        let (huber, absolute, squared) = (error(Loss::Huber(1.0)), error(Loss::Absolute), error(Loss::Squared));
        assert!(huber < 0.2 && absolute < 0.2 && squared > 2.0, "{huber}, {absolute}, {squared}");
    }

    #[test]
    fn absolute_errors_give_the_median_and_squared_ones_the_mean() {
        let mut stream = Stream::new(5, 1);
        let rows = FeatureRows { n_features: 1, values: (0..8000).map(|_| stream.normal() as f32).collect() };
        // Of an exponential law with mean 1, whose median is ln 2.
        let targets: Vec<f32> = (0..8000).map(|_| -libm::log(1.0 - stream.uniform()) as f32).collect();
        let fit = |loss| Boosting::fit(&rows, &targets, loss, 1);
        let mean = |fit: &Boosting| fit.predict(&rows)[..2000].iter().sum::<f64>() / 2000.0;
        let (median, expected) = (fit(Loss::Absolute), fit(Loss::Squared));
        assert!((mean(&median) - std::f64::consts::LN_2).abs() < 0.05, "{}", mean(&median));
        assert!((mean(&expected) - 1.0).abs() < 0.05, "{}", mean(&expected));
        let halfway = mean(&median.halfway(&expected));
        assert!((halfway - 0.5 * (mean(&median) + mean(&expected))).abs() < 1e-6, "{halfway}");
    }

    #[test]
    fn every_row_comes_to_its_leaf() {
        let (rows, targets) = interaction(3 * N_BLOCK_ROWS + 5, 1);
        let boosting = Boosting::fit(&rows, &targets, Loss::Squared, 1);
        let value = |tree: &Vec<Node>, row: &[f32]| {
            let mut node = tree[0];
            while let Some(feature) = node.feature {
                let is_right = row[usize::from(feature)] > node.threshold;
                node = tree[usize::from(node.left) + usize::from(is_right)];
            }
            f64::from(node.value)
        };
        let one_by_one =
            rows.values.chunks(3).map(|row| boosting.trees.iter().map(|tree| value(tree, row)).sum::<f64>());
        assert!(boosting.trees.iter().any(|tree| tree.len() > 3));
        assert_eq!(boosting.predict(&rows), one_by_one.collect::<Vec<_>>());
    }

    #[test]
    fn the_same_seed_gives_the_same_trees_and_few_rows_none() {
        let (rows, targets) = interaction(1000, 1);
        let fit = |seed| Boosting::fit(&rows, &targets, Loss::Squared, seed);
        assert_eq!(fit(1), fit(1));
        assert_ne!(fit(1), fit(2));
        let (few, few_targets) = interaction(150, 1);
        let new_row = FeatureRows { n_features: 3, values: vec![1.0; 3] };
        assert_eq!(Boosting::fit(&few, &few_targets, Loss::Squared, 1).predict(&new_row), [0.0]);
    }
}
