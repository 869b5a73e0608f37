//! Correlations of the scores of a path over all leads and series, factored causally in time.
//!
//! Elements are ordered `lead * n_series + series`. Two structures:
//!
//! - *dense*: the Cholesky factor of the whole matrix, for paths of up to [`N_ELEMENTS_DENSE_MAX`] elements;
//! - *principal*: the leading directions `u_j` in the space of the series have a Cholesky factor `T_j` in time each, and
//!   what lies outside them shares one, `T_0`:
//!
//! ```text
//! L = G (Σ_j u_j u_jᵀ ⊗ T_j  +  (I − Σ_j u_j u_jᵀ) ⊗ T_0)
//! ```
//!
//! The gains `G`, one of each element, give every score the variance that it had, which what is shared alone would not. It needs
//! `(n_directions + 1) · horizon²` numbers and a gain of each element, and far fewer paths to estimate them.

use nalgebra::{DMatrix, DVectorView, SymmetricEigen};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::innovation::ErrorPaths;
use crate::noise::Stream;

/// Above this many elements of a path the dense structure is not tried: it could neither be estimated nor stored.
pub const N_ELEMENTS_DENSE_MAX: usize = 1200;
/// Directions that have a factor in time of their own.
const N_DIRECTIONS_MAX: usize = 32;
/// Numbers in all factors in time together.
const N_FACTOR_ELEMENTS_MAX: usize = 16_000_000;
/// Up to this many series directions come from a full decomposition, above it from subspace iteration.
const N_SERIES_DECOMPOSED_MAX: usize = 256;
const N_SUBSPACE_ITERATIONS: usize = 20;
/// Variance that an element keeps at least.
const VARIANCE_FLOOR: f64 = 1e-8;

/// How correlations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Structure {
    /// One factor of everything.
    Dense,
    /// Directions in the space of the series, each with a factor in time.
    Principal {
        /// Number of directions.
        n_directions: usize,
    },
}

/// The factor `L` of correlations, `score = L · innovation`.
#[derive(Clone, Debug, PartialEq)]
pub enum Correlation {
    /// Scores are innovations.
    None,
    /// Lower triangular, row-major `[element, element]`.
    Dense {
        /// The factor.
        factor: Vec<f64>,
    },
    /// Directions in the space of the series, each with a factor in time.
    Principal {
        /// Orthonormal directions, `[direction, series]`.
        directions: Vec<f64>,
        /// Lower triangular factors in time, row-major `[direction + 1, lead, lead]`; the last is of the rest.
        factors: Vec<f64>,
        /// What each score is multiplied by, `[lead, series]`.
        gains: Vec<f64>,
        /// Leads of a path.
        horizon: usize,
    },
}

/// What the earlier steps of a path leave open of one score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open {
    /// Standard deviation of the score given the earlier steps.
    pub deviation: f64,
    /// The element's part of the logarithm of the determinant of its step's factor; these add up to that of `L`.
    pub log_scale: f64,
}

/// Weighted mean products of scores, from which factors are made.
pub enum Products {
    /// Of all pairs of elements.
    Dense(DMatrix<f64>),
    /// Of all pairs of leads, in each direction and in the rest.
    Principal {
        /// Orthonormal directions, `[direction, series]`.
        directions: Vec<f64>,
        /// Products in time.
        products: Vec<DMatrix<f64>>,
        /// Mean square of each score, `[lead, series]`.
        squares: Vec<f64>,
    },
}

impl Structure {
    /// The structures that paths of so many elements can have.
    pub fn candidates(n_elements: usize, n_series: usize) -> Vec<Structure> {
        let horizon = n_elements / n_series;
        let n_directions =
            n_series.min(N_DIRECTIONS_MAX).min((N_FACTOR_ELEMENTS_MAX / horizon.pow(2)).saturating_sub(1));
        let principal = Self::Principal { n_directions };
        match (n_elements <= N_ELEMENTS_DENSE_MAX, n_series) {
            // A single series has one direction: both structures are the same.
            (true, 1) => vec![Self::Dense],
            (true, _) => vec![Self::Dense, principal],
            (false, _) => vec![principal],
        }
    }

    /// Mean products of paths of scores. A gap counts as 0, and what is known of an element for more, so that its mean square is that of
    /// the known scores.
    pub fn products(self, scores: &ErrorPaths, half_life: Option<f64>) -> Products {
        let weights: Vec<f64> = scores.weights(half_life).into_iter().map(f64::sqrt).collect();
        let total: f64 = weights.iter().map(|weight| weight * weight).sum();
        let scales = scales_of_known(scores, &weights, total);
        let known = |value: f64| if value.is_nan() { 0.0 } else { value };
        let weighted = scores.values.iter().enumerate().map(|(index, score)| {
            weights[index / scores.n_elements] * scales[index % scores.n_elements] * known(*score)
        });
        let (n_paths, n_series) = (scores.n_paths(), scores.n_series);
        let horizon = scores.n_elements / n_series;
        match self {
            Self::Dense => {
                // A column is a path.
                let scores = DMatrix::from_iterator(scores.n_elements, n_paths, weighted);
                Products::Dense(&scores * scores.transpose() / total)
            }
            Self::Principal { n_directions } => {
                // A column is a step of a path.
                let scores = DMatrix::from_iterator(n_series, n_paths * horizon, weighted);
                let directions = leading_directions(&scores, n_directions);
                let components = &directions * &scores;
                let in_time = |path_major: DMatrix<f64>| &path_major * path_major.transpose() / total;
                let mut products: Vec<DMatrix<f64>> = components
                    .row_iter()
                    .map(|row| in_time(DMatrix::from_iterator(horizon, n_paths, row.iter().copied())))
                    .collect();
                let n_rest = n_series - directions.nrows();
                products.push(if n_rest == 0 {
                    DMatrix::identity(horizon, horizon)
                } else {
                    let rest = &scores - directions.transpose() * &components;
                    let mut sum = DMatrix::zeros(horizon, horizon);
                    for row in rest.row_iter() {
                        sum += in_time(DMatrix::from_iterator(horizon, n_paths, row.iter().copied()));
                    }
                    sum / n_rest as f64
                });
                let mut squares = vec![0.0; horizon * n_series];
                for (index, score) in scores.iter().enumerate() {
                    squares[index % (horizon * n_series)] += score * score / total;
                }
                Products::Principal { directions: directions.transpose().as_slice().to_vec(), products, squares }
            }
        }
    }
}

/// For each element the inverse root of the share of the weight of the paths in which it is known; 1 where it never is.
fn scales_of_known(scores: &ErrorPaths, roots: &[f64], total: f64) -> Vec<f64> {
    let mut gaps = vec![0.0; scores.n_elements];
    for (path, root) in scores.values.chunks_exact(scores.n_elements).zip(roots) {
        for (gap, _) in gaps.iter_mut().zip(path).filter(|(_, score)| score.is_nan()) {
            *gap += root * root;
        }
    }
    let scale = |gap: f64| if gap < total { (1.0 - gap / total).sqrt().recip() } else { 1.0 };
    gaps.into_iter().map(scale).collect()
}

/// Orthonormal rows that span the directions of largest variance of the columns.
fn leading_directions(columns: &DMatrix<f64>, n_directions: usize) -> DMatrix<f64> {
    let n_series = columns.nrows();
    let covariance = columns * columns.transpose();
    if n_series <= N_SERIES_DECOMPOSED_MAX {
        let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..n_series).collect();
        order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
        return DMatrix::from_fn(n_directions, n_series, |direction, series| eigenvectors[(series, order[direction])]);
    }
    let mut stream = Stream::new(0, STREAM_SUBSPACE);
    let mut subspace = DMatrix::from_fn(n_series, n_directions, |_, _| stream.normal());
    for _ in 0..N_SUBSPACE_ITERATIONS {
        subspace = (&covariance * subspace).qr().q();
    }
    subspace.transpose()
}

const STREAM_SUBSPACE: u32 = 4;

/// Cholesky factor of `(1 - shrinkage) product + shrinkage diagonal`, with more shrinkage where that is needed.
fn factor(product: &DMatrix<f64>, shrinkage: f64) -> Result<DMatrix<f64>, Error> {
    let mut kept = 1.0 - shrinkage;
    for _ in 0..4 {
        let mut shrunk = product * kept;
        for index in 0..shrunk.nrows() {
            shrunk[(index, index)] = product[(index, index)].max(VARIANCE_FLOOR) * (1.0 + 1e-9);
        }
        if let Some(cholesky) = shrunk.cholesky() {
            return Ok(cholesky.l());
        }
        kept *= 0.5;
    }
    Err(Error::Covariance)
}

impl Products {
    /// The factor, with a share of the products between different leads or elements taken away.
    ///
    /// # Errors
    /// [`Error::Covariance`] when the result is not positive definite.
    pub fn factor(&self, shrinkage: f64) -> Result<Correlation, Error> {
        let row_major = |lower: DMatrix<f64>| lower.transpose().as_slice().to_vec();
        match self {
            Self::Dense(product) => Ok(Correlation::Dense { factor: row_major(factor(product, shrinkage)?) }),
            Self::Principal { directions, products, squares } => {
                let horizon = products[0].nrows();
                let mut factors = Vec::with_capacity(products.len() * horizon * horizon);
                for product in products {
                    factors.extend(row_major(factor(product, shrinkage)?));
                }
                let n_series = directions.len() / (products.len() - 1);
                let principal = PrincipalFactors { directions, factors: &factors, horizon, n_series };
                // What is nowhere known has no variance to give back.
                let gain =
                    |(&square, variance): (&f64, f64)| if square > 0.0 { (square / variance).sqrt() } else { 1.0 };
                let gains = squares.iter().zip(principal.variances()).map(gain).collect();
                Ok(Correlation::Principal { directions: directions.clone(), factors, gains, horizon })
            }
        }
    }
}

impl Correlation {
    /// Mean negative logarithm of the likelihood of paths of scores, up to a constant.
    pub fn loss(&self, scores: &ErrorPaths) -> f64 {
        let squares = |path: &[f64]| -> f64 {
            let innovations = self.whiten(path, scores.n_series);
            innovations.iter().filter(|z| !z.is_nan()).map(|z| 0.5 * z * z).sum()
        };
        let sum: f64 = scores.values.chunks_exact(scores.n_elements).map(squares).sum();
        sum / scores.n_paths().max(1) as f64 + self.log_determinant(scores.n_series)
    }

    fn log_determinant(&self, n_series: usize) -> f64 {
        let trace = |factor: &[f64], n: usize| (0..n).map(|index| libm::log(factor[index * n + index])).sum::<f64>();
        match self {
            Self::None => 0.0,
            Self::Dense { factor } => trace(factor, factor.len().isqrt()),
            Self::Principal { directions, factors, gains, horizon } => {
                let n_directions = directions.len() / n_series;
                let of = |index: usize| trace(&factors[index * horizon * horizon..][..horizon * horizon], *horizon);
                let own: f64 = (0..n_directions).map(of).sum();
                let gains: f64 = gains.iter().map(|gain| libm::log(*gain)).sum();
                own + (n_series - n_directions) as f64 * of(n_directions) + gains
            }
        }
    }

    /// What is left open of one element's score when the earlier steps are known.
    pub fn open(&self, element: usize, n_series: usize) -> Open {
        match self {
            Self::None => Open { deviation: 1.0, log_scale: 0.0 },
            Self::Dense { factor } => {
                let row = &factor[element * factor.len().isqrt()..][..=element];
                let of_step = &row[element / n_series * n_series..];
                Open { deviation: dot(of_step, of_step).sqrt(), log_scale: libm::log(row[element]) }
            }
            Self::Principal { directions, factors, gains, horizon } => {
                let (lead, series) = (element / n_series, element % n_series);
                let n_directions = directions.len() / n_series;
                let scale = |index: usize| factors[(index * horizon + lead) * horizon + lead];
                let rest = scale(n_directions);
                let (mut variance, mut log_determinant) = (rest * rest, n_series as f64 * libm::log(rest));
                for (index, direction) in directions.chunks_exact(n_series).enumerate() {
                    variance += direction[series].powi(2) * (scale(index).powi(2) - rest * rest);
                    log_determinant += libm::log(scale(index) / rest);
                }
                let log_scale = log_determinant / n_series as f64 + libm::log(gains[element]);
                Open { deviation: gains[element] * variance.sqrt(), log_scale }
            }
        }
    }

    /// Innovations of a path of scores. A gap has no innovation and counts as its conditional mean for what follows.
    pub fn whiten(&self, scores: &[f64], n_series: usize) -> Vec<f64> {
        match self {
            Self::None => scores.to_vec(),
            Self::Dense { factor } => {
                let n_elements = factor.len().isqrt();
                let mut innovations = vec![0.0; scores.len()];
                for element in 0..scores.len() {
                    if !scores[element].is_nan() {
                        let row = &factor[element * n_elements..][..=element];
                        let explained = dot(&row[..element], &innovations[..element]);
                        innovations[element] = (scores[element] - explained) / row[element];
                    }
                }
                restore_gaps(innovations, scores)
            }
            Self::Principal { directions, factors, gains, horizon } => {
                // Innovations in each direction and in the rest, found lead by lead.
                let principal = PrincipalFactors { directions, factors, horizon: *horizon, n_series };
                let n_directions = principal.n_directions();
                let mut components = vec![vec![]; n_directions];
                let mut innovations: Vec<f64> = Vec::with_capacity(scores.len());
                for (lead, step) in scores.chunks_exact(n_series).enumerate() {
                    let row = |index: usize| principal.row(index, lead);
                    let rest_row = row(n_directions);
                    let explained = principal.explained(lead, &innovations, &components);
                    let unexplained: Vec<f64> = step
                        .iter()
                        .zip(&gains[lead * n_series..])
                        .zip(&explained)
                        .map(|((score, gain), explained)| if score.is_nan() { 0.0 } else { score / gain - explained })
                        .collect();
                    let mut found: Vec<f64> = unexplained.iter().map(|value| value / rest_row[lead]).collect();
                    for (index, direction) in directions.chunks_exact(n_series).enumerate() {
                        let component = dot(direction, &unexplained);
                        let own = component / row(index)[lead];
                        add(&mut found, direction, own - component / rest_row[lead]);
                        components[index].push(own);
                    }
                    innovations.extend(found);
                }
                restore_gaps(innovations, scores)
            }
        }
    }

    /// Scores of a path of innovations, which may be shorter than the map.
    pub fn colour(&self, innovations: &[f64], n_series: usize) -> Vec<f64> {
        match self {
            Self::None => innovations.to_vec(),
            Self::Dense { factor } => {
                let n_elements = factor.len().isqrt();
                let row = |element: usize| &factor[element * n_elements..][..=element];
                (0..innovations.len()).map(|element| dot(row(element), &innovations[..=element])).collect()
            }
            Self::Principal { directions, factors, gains, horizon } => {
                let n_directions = directions.len() / n_series;
                let steps: Vec<&[f64]> = innovations.chunks_exact(n_series).collect();
                let components: Vec<Vec<f64>> = directions
                    .chunks_exact(n_series)
                    .map(|direction| steps.iter().map(|step| dot(direction, step)).collect())
                    .collect();
                let mut scores = Vec::with_capacity(innovations.len());
                for lead in 0..steps.len() {
                    let row = |index: usize| &factors[(index * horizon + lead) * horizon..][..=lead];
                    let rest_row = row(n_directions);
                    let mut score = vec![0.0; n_series];
                    for (step, weight) in steps.iter().zip(rest_row) {
                        add(&mut score, step, *weight);
                    }
                    for (index, direction) in directions.chunks_exact(n_series).enumerate() {
                        let component = &components[index][..=lead];
                        add(&mut score, direction, dot(row(index), component) - dot(rest_row, component));
                    }
                    scores.extend(score.iter().zip(&gains[lead * n_series..]).map(|(score, gain)| score * gain));
                }
                scores
            }
        }
    }

    /// `Lᵀ` times as many numbers as a path has scores: how much each innovation adds to a weighted sum of scores.
    pub fn gather(&self, weights: &[f64], n_series: usize) -> Vec<f64> {
        let mut gathered = vec![0.0; weights.len()];
        match self {
            Self::None => gathered.copy_from_slice(weights),
            Self::Dense { factor } => {
                let n_elements = factor.len().isqrt();
                for (element, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    add(&mut gathered, &factor[element * n_elements..][..=element], weight);
                }
            }
            Self::Principal { directions, factors, gains, horizon } => {
                let n_directions = directions.len() / n_series;
                for (lead, step) in weights.chunks_exact(n_series).enumerate() {
                    if step.iter().all(|weight| *weight == 0.0) {
                        continue;
                    }
                    let gained = step.iter().zip(&gains[lead * n_series..]).map(|(weight, gain)| weight * gain);
                    let step: &[f64] = &gained.collect::<Vec<_>>();
                    let row = |index: usize| &factors[(index * horizon + lead) * horizon..][..=lead];
                    let components: Vec<f64> =
                        directions.chunks_exact(n_series).map(|direction| dot(direction, step)).collect();
                    for earlier in 0..=lead {
                        let rest = row(n_directions)[earlier];
                        let gathered = &mut gathered[earlier * n_series..][..n_series];
                        add(gathered, step, rest);
                        for (index, direction) in directions.chunks_exact(n_series).enumerate() {
                            add(gathered, direction, components[index] * (row(index)[earlier] - rest));
                        }
                    }
                }
            }
        }
        gathered
    }

    /// By how much each innovation moves the scores of its path: the squared norm of its column of `L`, relative to the mean. In the
    /// principal structure the gains of a lead count as if they were alike.
    pub fn influences(&self, n_elements: usize, n_series: usize) -> Vec<f32> {
        let mut sums = vec![0.0; n_elements];
        match self {
            Self::None => sums.fill(1.0),
            Self::Dense { factor } => {
                for row in factor.chunks_exact(n_elements) {
                    sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * weight);
                }
            }
            Self::Principal { directions, factors, gains, horizon } => {
                let n_directions = directions.len() / n_series;
                let mean_square = |gains: &[f64]| dot(gains, gains) / n_series as f64;
                let squared_gains: Vec<f64> = gains.chunks_exact(n_series).map(mean_square).collect();
                for (index, factor) in factors.chunks_exact(horizon * horizon).enumerate() {
                    let mut columns = vec![0.0; *horizon];
                    for (row, gain) in factor.chunks_exact(*horizon).zip(&squared_gains) {
                        columns.iter_mut().zip(row).for_each(|(sum, weight)| *sum += gain * weight * weight);
                    }
                    for (element, sum) in sums.iter_mut().enumerate() {
                        let series = element % n_series;
                        let square = |index: usize| directions[index * n_series + series].powi(2);
                        let part = if index < n_directions {
                            square(index)
                        } else {
                            1.0 - (0..n_directions).map(square).sum::<f64>()
                        };
                        *sum += part * columns[element / n_series];
                    }
                }
            }
        }
        let mean = sums.iter().sum::<f64>() / n_elements as f64;
        sums.into_iter().map(|sum| (sum / mean) as f32).collect()
    }

    /// The weights of the innovations up to an element in its score, as wide as is asked for.
    pub fn row(&self, element: usize, width: usize, n_series: usize) -> Vec<f64> {
        let mut weights = vec![0.0; width];
        match self {
            Self::None => weights[element] = 1.0,
            Self::Dense { factor } => {
                weights[..=element].copy_from_slice(&factor[element * factor.len().isqrt()..][..=element]);
            }
            Self::Principal { directions, factors, gains, horizon } => {
                let (lead, series) = (element / n_series, element % n_series);
                let n_directions = directions.len() / n_series;
                let row = |index: usize| &factors[(index * horizon + lead) * horizon..][..=lead];
                for earlier in 0..=lead {
                    let rest = row(n_directions)[earlier];
                    let step = &mut weights[earlier * n_series..][..n_series];
                    step[series] += rest;
                    for (index, direction) in directions.chunks_exact(n_series).enumerate() {
                        add(step, direction, direction[series] * (row(index)[earlier] - rest));
                    }
                    step.iter_mut().for_each(|weight| *weight *= gains[element]);
                }
            }
        }
        weights
    }
}

/// The factors of a principal structure.
#[derive(Clone, Copy)]
pub(crate) struct PrincipalFactors<'a> {
    /// `[direction, series]`.
    pub directions: &'a [f64],
    /// `[direction + 1, lead, lead]`.
    pub factors: &'a [f64],
    pub horizon: usize,
    pub n_series: usize,
}

impl PrincipalFactors<'_> {
    pub fn n_directions(&self) -> usize {
        self.directions.len() / self.n_series
    }

    /// Variance of each score before its gain, `[lead, series]`.
    fn variances(&self) -> Vec<f64> {
        let mut variances = Vec::with_capacity(self.horizon * self.n_series);
        for lead in 0..self.horizon {
            let variance = |index: usize| dot(self.row(index, lead), self.row(index, lead));
            let rest = variance(self.n_directions());
            let mut of_lead = vec![rest; self.n_series];
            for (index, direction) in self.directions.chunks_exact(self.n_series).enumerate() {
                let more = variance(index) - rest;
                of_lead.iter_mut().zip(direction).for_each(|(sum, along)| *sum += along * along * more);
            }
            variances.extend(of_lead.into_iter().map(|variance| variance.max(VARIANCE_FLOOR)));
        }
        variances
    }

    /// The weights of the leads up to one in the score of that lead: in a direction, or in the rest behind them.
    pub fn row(&self, direction: usize, lead: usize) -> &[f64] {
        &self.factors[(direction * self.horizon + lead) * self.horizon..][..=lead]
    }

    /// What earlier leads explain of the scores of a lead, in every direction and in the rest: for innovations `[lead, series]`, and
    /// what they are in each direction.
    pub fn explained(&self, lead: usize, innovations: &[f64], components: &[Vec<f64>]) -> Vec<f64> {
        let rest_row = &self.row(self.n_directions(), lead)[..lead];
        let mut explained = vec![0.0; self.n_series];
        for (innovations, weight) in innovations.chunks_exact(self.n_series).zip(rest_row) {
            add(&mut explained, innovations, *weight);
        }
        for (index, direction) in self.directions.chunks_exact(self.n_series).enumerate() {
            let component = &components[index];
            add(&mut explained, direction, dot(&self.row(index, lead)[..lead], component) - dot(rest_row, component));
        }
        explained
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    DVectorView::from_slice(a, a.len()).dot(&DVectorView::from_slice(b, b.len()))
}

pub(crate) fn add(sum: &mut [f64], values: &[f64], weight: f64) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
}

fn restore_gaps(mut innovations: Vec<f64>, scores: &[f64]) -> Vec<f64> {
    innovations.iter_mut().zip(scores).filter(|(_, score)| score.is_nan()).for_each(|(z, _)| *z = f64::NAN);
    innovations
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_SERIES: usize = 4;
    const HORIZON: usize = 5;

    /// Paths of two factors, one slow and one quick, and noise of each series.
    fn factor_model(n: usize, seed: u64) -> ErrorPaths {
        let mut stream = Stream::new(seed, 0);
        let mut values = vec![];
        for _ in 0..n {
            let (mut slow, mut quick) = (0.0, 0.0);
            for _ in 0..HORIZON {
                slow = 0.9 * slow + stream.normal();
                quick = -0.5 * quick + stream.normal();
                values.extend([slow, slow + quick, slow - quick, quick].map(|value| value + 0.3 * stream.normal()));
            }
        }
        ErrorPaths { n_series: N_SERIES, n_elements: N_SERIES * HORIZON, values }
    }

    fn structures() -> [Structure; 3] {
        [Structure::Dense, Structure::Principal { n_directions: 2 }, Structure::Principal { n_directions: N_SERIES }]
    }

    fn fitted(structure: Structure, paths: &ErrorPaths) -> Correlation {
        structure.products(paths, None).factor(0.01).expect("positive definite")
    }

    #[test]
    fn whitening_and_colouring_are_inverse_and_rows_are_what_colouring_does() {
        let paths = factor_model(500, 1);
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            let scores = &paths.values[..paths.n_elements];
            let innovations = correlation.whiten(scores, N_SERIES);
            let back = correlation.colour(&innovations, N_SERIES);
            for (element, (score, back)) in scores.iter().zip(&back).enumerate() {
                assert!((score - back).abs() < 1e-9, "{structure:?} {score} {back}");
                let row = correlation.row(element, paths.n_elements, N_SERIES);
                assert!((dot(&row, &innovations) - score).abs() < 1e-9, "{structure:?} row {element}");
            }
        }
    }

    #[test]
    fn innovations_up_to_a_step_depend_on_scores_up_to_that_step_only() {
        let paths = factor_model(500, 2);
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            let scores = paths.values[..paths.n_elements].to_vec();
            let mut changed = scores.clone();
            changed[3 * N_SERIES..].iter_mut().for_each(|score| *score += 1.0);
            let (a, b) = (correlation.whiten(&scores, N_SERIES), correlation.whiten(&changed, N_SERIES));
            assert_eq!(a[..3 * N_SERIES], b[..3 * N_SERIES]);
            assert_ne!(a[3 * N_SERIES..], b[3 * N_SERIES..]);
        }
    }

    #[test]
    fn both_structures_say_the_same_of_factors_and_principal_directions_need_fewer_paths() {
        let (many, few, later) = (factor_model(20_000, 3), factor_model(40, 4), factor_model(2000, 5));
        let loss = |structure, paths| fitted(structure, paths).loss(&later);
        let principal = Structure::Principal { n_directions: N_SERIES };
        let (dense, directions) = (loss(Structure::Dense, &many), loss(principal, &many));
        assert!((dense - directions).abs() < 0.2, "nats of a path of 20 elements: {dense} {directions}");
        let (dense, directions) = (loss(Structure::Dense, &few), loss(principal, &few));
        assert!(directions < dense - 1.0, "{directions} against {dense}");
    }

    #[test]
    fn influences_are_the_squared_columns_of_the_factor() {
        let paths = factor_model(500, 8);
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            let n = paths.n_elements;
            let rows: Vec<Vec<f64>> = (0..n).map(|element| correlation.row(element, n, N_SERIES)).collect();
            let columns: Vec<f64> = (0..n).map(|column| rows.iter().map(|row| row[column].powi(2)).sum()).collect();
            let mean = columns.iter().sum::<f64>() / n as f64;
            // Gains of the series of a lead, where they matter, count as if they were alike.
            let tolerance = if structure == Structure::Dense { 1e-5 } else { 0.1 };
            for (influence, column) in correlation.influences(n, N_SERIES).iter().zip(&columns) {
                assert!((f64::from(*influence) / (column / mean) - 1.0).abs() < tolerance, "{structure:?}");
            }
        }
    }

    #[test]
    fn every_score_has_the_variance_that_it_had_where_it_was_known() {
        let mut paths = factor_model(4000, 9);
        let n = paths.n_elements;
        for element in 0..n {
            let column = || (0..4000).map(move |path| path * n + element);
            let deviation = (column().map(|index| paths.values[index].powi(2)).sum::<f64>() / 4000.0).sqrt();
            column().for_each(|index| paths.values[index] /= deviation);
        }
        // One series begins after two thirds of the paths, another one misses a step now and then.
        for path in 0..4000 {
            let of_path = &mut paths.values[path * n..(path + 1) * n];
            if path < 2600 {
                of_path.iter_mut().skip(1).step_by(N_SERIES).for_each(|score| *score = f64::NAN);
            }
            if path % 5 == 0 {
                of_path[2 * N_SERIES + 2] = f64::NAN;
            }
        }
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            for element in 0..n {
                let row = correlation.row(element, n, N_SERIES);
                let deviation = dot(&row, &row).sqrt();
                assert!((deviation - 1.0).abs() < 0.04, "{structure:?} {element}: {deviation}");
            }
        }
    }

    #[test]
    fn gathering_is_the_transpose_of_colouring() {
        let paths = factor_model(500, 8);
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            let (weights, z) =
                (&paths.values[..paths.n_elements], &paths.values[paths.n_elements..2 * paths.n_elements]);
            let coloured = dot(weights, &correlation.colour(z, N_SERIES));
            let gathered = dot(&correlation.gather(weights, N_SERIES), z);
            assert!((coloured - gathered).abs() < 1e-9 * coloured.abs().max(1.0), "{structure:?}");
        }
    }

    #[test]
    fn the_loss_is_that_of_a_gaussian_of_the_factored_covariance() {
        let paths = factor_model(50, 6);
        for structure in structures() {
            let correlation = fitted(structure, &paths);
            let n = paths.n_elements;
            let factor = DMatrix::from_fn(n, n, |row, column| correlation.row(row, n, N_SERIES)[column]);
            let covariance = &factor * factor.transpose();
            let expected: f64 = paths
                .values
                .chunks_exact(n)
                .map(|path| {
                    let x = nalgebra::DVector::from_column_slice(path);
                    let solved = covariance.clone().cholesky().expect("positive definite").solve(&x);
                    0.5 * x.dot(&solved) / 50.0
                })
                .sum::<f64>()
                + 0.5 * covariance.determinant().ln();
            let loss = correlation.loss(&paths);
            assert!((loss - expected).abs() < 1e-6 * expected.abs().max(1.0), "{structure:?} {loss} {expected}");
        }
    }

    #[test]
    fn many_series_find_their_directions_by_iteration() {
        let n_series = N_SERIES_DECOMPOSED_MAX + 10;
        let mut stream = Stream::new(7, 0);
        let loadings: Vec<f64> = (0..n_series).map(|_| stream.normal()).collect();
        let columns = DMatrix::from_fn(n_series, 400, |series, column| {
            loadings[series] * ((column * 37 % 101) as f64 / 50.0 - 1.0)
                + 0.1 * ((series * 31 + column * 17) % 13) as f64 / 13.0
        });
        let directions = leading_directions(&columns, 2);
        let norm = loadings.iter().map(|x| x * x).sum::<f64>().sqrt();
        let aligned = dot(directions.row(0).transpose().as_slice(), &loadings).abs() / norm;
        assert!(aligned > 0.99, "{aligned}");
    }
}
