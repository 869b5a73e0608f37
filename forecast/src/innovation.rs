//! Errors of the base forecaster, and the innovations that the model learns instead.
//!
//! The errors `r` of one path (all leads, all series, relative to their spread) become innovations `z` in three steps.
//! Each is divided by the standard deviation of its element; the *shape* of its series' law is taken out by a map to
//! normal scores; and with the factor `L` of the correlation of the scores, `score = L z`, the innovations have unit
//! variance and no correlation. `L` is lower triangular in time, so `z` up to a step depends on `r` up to that step only.
//! An untrained network, which leaves noise as it is, then *is* a joint law with the right margins and correlations (a
//! Gaussian copula), and training adds only what that lacks.

use serde::{Deserialize, Serialize};

use crate::correlation::{Correlation, Structure};
use crate::scaling::{Scaling, ScalingKind};
use crate::thinning::thinned;
use crate::{Error, Grid};

/// Variance that an element keeps at least, standard units squared.
const VARIANCE_FLOOR: f64 = 1e-8;

/// Shares of a correlation that are replaced by its diagonal, of those that are tried.
const SHRINKAGES: [f64; 5] = [0.03, 0.1, 0.3, 0.6, 0.9];
/// Half-lives of the weight of a path, as shares of all paths; infinity weighs all alike.
const HALF_LIVES: [f64; 4] = [f64::INFINITY, 0.5, 0.2, 0.08];
/// Old paths count less only where that makes later ones likelier by so much for each element: errors are forgotten when they have
/// become something else, not when the last fold happens to be calm.
const HALF_LIFE_PRICE: f64 = 0.1;
/// Later paths on which estimations are compared.
const N_COMPARED_PATHS: usize = 300;

/// How the law of the errors is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimation {
    /// How correlations are stored.
    pub structure: Structure,
    /// The shape of the margins: linear keeps them as they are, and Gaussian when they are drawn.
    pub shape: ScalingKind,
    /// Share of the correlation that is replaced by its diagonal; 1 is diagonal.
    pub shrinkage: f64,
    /// Paths after which a weight is halved, as a share of all paths; none weighs all alike.
    pub half_life: Option<f64>,
}

/// The map between errors of a path and innovations. Elements are ordered `lead * n_series + series`.
#[derive(Clone, Debug, PartialEq)]
pub struct Innovation {
    /// Standard deviation of each element.
    pub deviation: Vec<f64>,
    /// From errors over their deviation to scores, a map for each series.
    pub shape: Scaling,
    /// The factor of the correlation of the scores.
    pub correlation: Correlation,
}

/// Paths of base errors relative to their spread, the oldest first, `NaN` where the truth is a gap.
pub struct ErrorPaths {
    /// Number of series.
    pub n_series: usize,
    /// Elements of a path.
    pub n_elements: usize,
    /// Row-major `[path, element]`.
    pub values: Vec<f64>,
}

impl ErrorPaths {
    /// Number of paths.
    pub fn n_paths(&self) -> usize {
        self.values.len() / self.n_elements
    }

    /// Weight of each path; the newest has 1.
    pub fn weights(&self, half_life: Option<f64>) -> Vec<f64> {
        let n = self.n_paths() as f64;
        let age = |path: usize| (n - path as f64) / n;
        (1..=self.n_paths())
            .map(|path| half_life.map_or(1.0, |half_life| 0.5_f64.powf(age(path) / half_life)))
            .collect()
    }

    /// Weighted standard deviation around 0 of each element over the paths where it is known.
    fn deviations(&self, half_life: Option<f64>) -> Vec<f64> {
        let (mut sums, mut counts) = (vec![0.0; self.n_elements], vec![0.0; self.n_elements]);
        for (path, weight) in self.values.chunks_exact(self.n_elements).zip(self.weights(half_life)) {
            for (element, error) in path.iter().enumerate().filter(|(_, error)| !error.is_nan()) {
                sums[element] += weight * error * error;
                counts[element] += weight;
            }
        }
        let mean = |(sum, n): (&f64, &f64)| if *n > 0.0 { sum / n } else { 0.0 };
        sums.iter().zip(&counts).map(mean).map(|variance| variance.max(VARIANCE_FLOOR).sqrt()).collect()
    }

    /// With gaps for the elements that other paths never know, of which they tell nothing.
    fn where_known_in(mut self, other: &ErrorPaths) -> ErrorPaths {
        let mut is_known = vec![false; self.n_elements];
        for path in other.values.chunks_exact(self.n_elements) {
            is_known.iter_mut().zip(path).for_each(|(is_known, error)| *is_known |= !error.is_nan());
        }
        for path in self.values.chunks_exact_mut(self.n_elements) {
            path.iter_mut().zip(&is_known).filter(|(_, is_known)| !**is_known).for_each(|(error, _)| *error = f64::NAN);
        }
        self
    }

    /// At most so many of the paths, evenly spread.
    fn thinned(&self, n_paths: usize) -> ErrorPaths {
        let values = thinned(self.values.chunks_exact(self.n_elements), n_paths).concat();
        ErrorPaths { n_series: self.n_series, n_elements: self.n_elements, values }
    }
}

impl Innovation {
    /// Of the estimations with a shape, the one under which later paths are likeliest.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no shrinkage gives a positive definite matrix.
    pub fn choose_estimation(
        shape: ScalingKind,
        earlier: &ErrorPaths,
        later: &ErrorPaths,
    ) -> Result<Estimation, Error> {
        let later = later.thinned(N_COMPARED_PATHS).where_known_in(earlier);
        let mut best: Option<(f64, Estimation)> = None;
        for half_life in HALF_LIVES.map(|half_life| half_life.is_finite().then_some(half_life)) {
            let margins = Self::margins(shape, earlier, half_life);
            let (scores, later_scores) = (margins.scores(earlier), margins.scores(&later));
            let log_scale = margins.log_scale(&later);
            let price = half_life.map_or(0.0, |_| HALF_LIFE_PRICE * earlier.n_elements as f64);
            for structure in Structure::candidates(earlier.n_elements, earlier.n_series) {
                let products = structure.products(&scores, half_life);
                for shrinkage in SHRINKAGES {
                    let loss = products.factor(shrinkage)?.loss(&later_scores) + log_scale + price;
                    if best.as_ref().is_none_or(|(lowest, _)| loss < *lowest) {
                        best = Some((loss, Estimation { structure, shape, shrinkage, half_life }));
                    }
                }
            }
        }
        best.map(|(_, estimation)| estimation).ok_or(Error::Covariance)
    }

    /// Estimates the map from paths of errors.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no shrinkage gives a positive definite matrix.
    pub fn fit(paths: &ErrorPaths, estimation: Estimation) -> Result<Self, Error> {
        let Estimation { structure, shape, shrinkage, half_life } = estimation;
        let margins = Self::margins(shape, paths, half_life);
        let correlation = structure.products(&margins.scores(paths), half_life).factor(shrinkage)?;
        Ok(Self { correlation, ..margins })
    }

    /// Deviations and shapes, without correlation.
    fn margins(shape: ScalingKind, paths: &ErrorPaths, half_life: Option<f64>) -> Self {
        let deviation = paths.deviations(half_life);
        let relative =
            paths.values.iter().enumerate().map(|(index, error)| error / deviation[index % paths.n_elements]);
        let (weights, n_leads) = (paths.weights(half_life), paths.n_elements / paths.n_series);
        let shape = match shape {
            ScalingKind::Linear => Scaling::identity(paths.n_series),
            shape => {
                let relative = Grid::from_rows(paths.n_series, relative.collect());
                Scaling::fit_weighted(shape, &relative, |row| weights[row / n_leads])
            }
        };
        Self { deviation, shape, correlation: Correlation::None }
    }

    fn scores(&self, paths: &ErrorPaths) -> ErrorPaths {
        let score = |(index, error): (usize, &f64)| self.score(index % paths.n_elements, *error);
        ErrorPaths { values: paths.values.iter().enumerate().map(score).collect(), ..*paths }
    }

    /// Mean over paths of the logarithm of how much room a score takes among errors, summed over the elements that are known: with
    /// the loss of the scores, the negative logarithm of the likelihood of paths without gaps. What lies on an atom has no slope.
    fn log_scale(&self, paths: &ErrorPaths) -> f64 {
        let log_scale = |(index, error): (usize, &f64)| {
            let deviation = self.deviation[index % paths.n_elements];
            libm::log(deviation) - self.shape.log_derivative(index % self.n_series(), error / deviation)
        };
        let known = paths.values.iter().enumerate().filter(|(_, error)| !error.is_nan());
        known.map(log_scale).sum::<f64>() / paths.n_paths().max(1) as f64
    }

    pub(crate) fn n_series(&self) -> usize {
        self.shape.n_series()
    }

    /// Number of elements of a path.
    pub fn n_elements(&self) -> usize {
        self.deviation.len()
    }

    /// Normal score of an error; a gap stays one.
    pub fn score(&self, element: usize, error: f64) -> f64 {
        self.shape.standardise(element % self.n_series(), error / self.deviation[element])
    }

    /// Standard deviation of a measurement as the score of its error has it, for an error with a standard deviation.
    pub fn score_sd(&self, element: usize, error: f64, sd: f64) -> f64 {
        let deviation = self.deviation[element];
        self.shape.standardise_sd(element % self.n_series(), error / deviation, sd / deviation)
    }

    /// The error that has a normal score. Where the shape is known from many errors, no larger one is made up.
    pub fn error(&self, element: usize, score: f64) -> f64 {
        let series = element % self.n_series();
        self.shape.restore(series, self.shape.into_range(series, score)) * self.deviation[element]
    }

    /// Innovations of a path of errors. A gap has no innovation and counts as its conditional mean for what follows.
    pub fn whiten(&self, errors: &[f64]) -> Vec<f64> {
        let scores: Vec<f64> = errors.iter().enumerate().map(|(element, &error)| self.score(element, error)).collect();
        self.correlation.whiten(&scores, self.n_series())
    }

    /// Errors of a path of innovations, which may be shorter than the map.
    pub fn colour(&self, innovations: &[f64]) -> Vec<f64> {
        let scores = self.correlation.colour(innovations, self.n_series());
        scores.into_iter().enumerate().map(|(element, score)| self.error(element, score)).collect()
    }

    /// By how much each innovation moves its path, relative to the mean, `[element]`.
    pub fn influences(&self) -> Vec<f32> {
        self.correlation.influences(self.n_elements(), self.n_series())
    }

    /// The weights of the innovations up to an element in its score, `[element]`, as wide as is asked for.
    pub fn row(&self, element: usize, width: usize) -> Vec<f64> {
        self.correlation.row(element, width, self.n_series())
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};

    use super::*;
    use crate::noise::Stream;

    const fn estimation(shape: ScalingKind, shrinkage: f64) -> Estimation {
        Estimation { structure: Structure::Dense, shape, shrinkage, half_life: None }
    }

    fn gaussian(shrinkage: f64) -> Estimation {
        estimation(ScalingKind::Linear, shrinkage)
    }

    /// Errors of two series over three leads, correlated in both directions.
    fn correlated(n: usize, seed: u64) -> ErrorPaths {
        let mut stream = Stream::new(seed, 0);
        let mut values = vec![];
        for _ in 0..n {
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..3 {
                let shared = stream.normal();
                a = 0.8 * a + shared + 0.3 * stream.normal();
                b = 0.5 * b - shared + 0.3 * stream.normal();
                values.extend([a, b]);
            }
        }
        ErrorPaths { n_series: 2, n_elements: 6, values }
    }

    #[test]
    fn a_series_that_begins_in_the_last_fold_does_not_choose_the_law() {
        let (mut earlier, later) = (correlated(300, 4), correlated(60, 5));
        let chosen = |earlier: &ErrorPaths, later: &ErrorPaths| {
            let estimation = Innovation::choose_estimation(ScalingKind::Linear, earlier, later).expect("a covariance");
            (estimation.structure, estimation.shrinkage, estimation.half_life)
        };
        earlier.values.iter_mut().skip(1).step_by(2).for_each(|error| *error = f64::NAN);
        let mut loud = correlated(60, 5);
        loud.values.iter_mut().skip(1).step_by(2).for_each(|error| *error *= 1e6);
        assert_eq!(chosen(&earlier, &loud), chosen(&earlier, &later));
    }

    #[test]
    fn whitening_and_colouring_are_inverse() {
        let paths = correlated(400, 1);
        for shape in [ScalingKind::Linear, ScalingKind::NormalScore] {
            let innovation = Innovation::fit(&paths, estimation(shape, 0.03)).expect("positive definite");
            let errors = &paths.values[..6];
            let back = innovation.colour(&innovation.whiten(errors));
            assert!(errors.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }

    #[test]
    fn innovations_are_white() {
        let paths = correlated(4000, 2);
        let innovation = Innovation::fit(&paths, gaussian(0.0)).expect("positive definite");
        let mut covariance = DMatrix::zeros(6, 6);
        for path in paths.values.chunks_exact(6) {
            let z = DVector::from_vec(innovation.whiten(path));
            covariance += &z * z.transpose() / 4000.0;
        }
        assert!((covariance - DMatrix::identity(6, 6)).abs().max() < 1e-6);
    }

    #[test]
    fn the_shape_of_heavy_tails_is_kept_by_normal_scores_and_lost_without() {
        let mut paths = correlated(4000, 3);
        paths.values.iter_mut().for_each(|error| *error = error.powi(3));
        let kurtosis_of_draws = |shape| {
            let innovation = Innovation::fit(&paths, estimation(shape, 0.03)).expect("positive definite");
            let mut stream = Stream::new(5, 0);
            let draw = |stream: &mut Stream| innovation.colour(&[0.0; 6].map(|_: f64| stream.normal()))[5];
            let draws: Vec<f64> = (0..4000).map(|_| draw(&mut stream)).collect();
            let moment = |power| draws.iter().map(|error| error.powi(power)).sum::<f64>() / 4000.0;
            moment(4) / moment(2).powi(2)
        };
        let (linear, scores) = (kurtosis_of_draws(ScalingKind::Linear), kurtosis_of_draws(ScalingKind::NormalScore));
        assert!(linear < 4.0 && scores > 8.0, "{linear} {scores}");
    }

    #[test]
    fn a_gap_changes_no_earlier_innovation() {
        let innovation = Innovation::fit(&correlated(400, 3), gaussian(0.03)).expect("positive definite");
        let errors = [0.3, -0.2, 0.5, 0.1, -0.4, 0.2];
        let mut gapped = errors;
        gapped[4] = f64::NAN;
        let (whole, gapped) = (innovation.whiten(&errors), innovation.whiten(&gapped));
        assert_eq!(whole[..4], gapped[..4]);
        assert!(gapped[4].is_nan() && gapped[5].is_finite());
    }

    #[test]
    fn shrinkage_is_small_when_data_abound_and_large_when_they_do_not() {
        let later = correlated(200, 5);
        let many = Innovation::choose_estimation(ScalingKind::Linear, &correlated(4000, 6), &later)
            .expect("positive definite");
        let few =
            Innovation::choose_estimation(ScalingKind::Linear, &correlated(7, 7), &later).expect("positive definite");
        assert!(many.shrinkage < few.shrinkage, "{many:?} {few:?}");
    }

    #[test]
    fn nothing_is_forgotten_because_of_a_calm_end() {
        let (mut earlier, later) = (correlated(400, 8), correlated(100, 9));
        let end = earlier.values.len() - 40 * earlier.n_elements;
        earlier.values[end..].iter_mut().for_each(|error| *error *= 0.3);
        for shape in [ScalingKind::Linear, ScalingKind::NormalScore] {
            let chosen = Innovation::choose_estimation(shape, &earlier, &later).expect("positive definite");
            assert_eq!(chosen.half_life, None, "{chosen:?}");
        }
    }

    #[test]
    fn what_is_old_is_forgotten_when_the_spread_has_changed() {
        let mut changed = correlated(400, 8);
        let half = changed.values.len() / 2;
        changed.values[..half].iter_mut().for_each(|error| *error *= 10.0);
        for shape in [ScalingKind::Linear, ScalingKind::NormalScore] {
            let chosen =
                Innovation::choose_estimation(shape, &changed, &correlated(100, 9)).expect("positive definite");
            assert!(chosen.half_life.is_some_and(|half_life| half_life < 0.3), "{chosen:?}");
        }
    }
}
