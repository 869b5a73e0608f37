//! Errors of the base forecaster, and the innovations that the model learns instead.
//!
//! The errors `r` of one path (all leads, all series) are correlated and grow with the lead. With the
//! Cholesky factor `L` of their covariance, `r = L z`, the innovations `z` have unit variance and no
//! correlation, and since `L` is lower triangular in time, `z` up to a step depends on `r` up to that step
//! only. An untrained network, which leaves noise as it is, then *is* the joint Gaussian forecast, and
//! training adds only what is not Gaussian.

use nalgebra::{DMatrix, DVector};

use crate::Error;

/// Above this many elements of a path the factor is diagonal: a dense one could neither be estimated nor stored.
pub const N_ELEMENTS_DENSE_MAX: usize = 1200;

/// Variance that an element keeps at least, standard units squared.
const VARIANCE_FLOOR: f64 = 1e-8;

const SHRINKAGES: [f64; 5] = [0.03, 0.1, 0.3, 0.6, 0.9];
/// Half-lives of the weight of a path, as shares of all paths; infinity weighs all alike.
const HALF_LIVES: [f64; 4] = [f64::INFINITY, 0.5, 0.2, 0.08];

/// How a covariance is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimation {
    /// Share of the covariance that is replaced by its diagonal; 1 is diagonal.
    pub shrinkage: f64,
    /// Paths after which a weight is halved, as a share of all paths; infinity weighs all alike.
    pub half_life: f64,
}

/// The map between errors of a path and innovations. Elements are ordered `lead * n_series + series`.
#[derive(Clone, Debug, PartialEq)]
pub enum Innovation {
    /// Lower triangular factor of the covariance, row-major.
    Dense {
        /// Number of elements of a path.
        n_elements: usize,
        /// The factor.
        factor: Vec<f64>,
    },
    /// Standard deviation of each element.
    Diagonal {
        /// Standard deviations, standard units.
        deviation: Vec<f64>,
    },
}

/// Paths of base errors, the oldest first, `NaN` where the truth is a gap.
pub struct ErrorPaths {
    /// Elements of a path.
    pub n_elements: usize,
    /// Row-major `[path, element]`.
    pub values: Vec<f64>,
}

impl ErrorPaths {
    fn n_paths(&self) -> usize {
        self.values.len() / self.n_elements
    }

    /// Weight of each path; the newest has 1.
    fn weights(&self, half_life: f64) -> Vec<f64> {
        let n = self.n_paths() as f64;
        (1..=self.n_paths()).map(|path| 0.5_f64.powf((n - path as f64) / n / half_life)).collect()
    }

    /// Weighted mean square of each element over the paths where it is known.
    fn variances(&self, half_life: f64) -> Vec<f64> {
        let (mut sums, mut counts) = (vec![0.0; self.n_elements], vec![0.0; self.n_elements]);
        for (path, weight) in self.values.chunks_exact(self.n_elements).zip(self.weights(half_life)) {
            for (element, error) in path.iter().enumerate().filter(|(_, error)| !error.is_nan()) {
                sums[element] += weight * error * error;
                counts[element] += weight;
            }
        }
        let mean = |(sum, n): (&f64, &f64)| if *n > 0.0 { sum / n } else { 0.0 };
        sums.iter().zip(&counts).map(mean).map(|variance| variance.max(VARIANCE_FLOOR)).collect()
    }

    /// Weighted mean products of all pairs of elements over the paths where both are known.
    fn covariance(&self, half_life: f64) -> DMatrix<f64> {
        let weights: Vec<f64> = self.weights(half_life).into_iter().map(f64::sqrt).collect();
        let weighted = self.values.iter().enumerate().map(|(index, error)| (weights[index / self.n_elements], *error));
        let known = weighted.clone().map(|(weight, error)| if error.is_nan() { 0.0 } else { weight });
        let errors = weighted.map(|(weight, error)| if error.is_nan() { 0.0 } else { weight * error });
        let known = DMatrix::from_iterator(self.n_elements, self.n_paths(), known);
        let errors = DMatrix::from_iterator(self.n_elements, self.n_paths(), errors);
        let counts = &known * known.transpose();
        (&errors * errors.transpose()).component_div(&counts.map(|n| if n > 0.0 { n } else { 1.0 }))
    }
}

/// Cholesky factor of `(1 - shrinkage) covariance + shrinkage diagonal`, with more shrinkage where that is needed.
fn factor(covariance: &DMatrix<f64>, shrinkage: f64) -> Result<DMatrix<f64>, Error> {
    let mut kept = 1.0 - shrinkage;
    for _ in 0..4 {
        let mut shrunk = covariance * kept;
        for index in 0..shrunk.nrows() {
            shrunk[(index, index)] = covariance[(index, index)].max(VARIANCE_FLOOR) * (1.0 + 1e-9);
        }
        if let Some(cholesky) = shrunk.cholesky() {
            return Ok(cholesky.l());
        }
        kept *= 0.5;
    }
    Err(Error::Covariance)
}

/// Mean negative log-likelihood (up to a constant) of the whole paths under a factor.
fn gaussian_loss(factor: &DMatrix<f64>, paths: &ErrorPaths) -> Option<f64> {
    let log_determinant: f64 = factor.diagonal().iter().map(|x| x.ln()).sum();
    let whole: Vec<&[f64]> =
        paths.values.chunks_exact(paths.n_elements).filter(|path| path.iter().all(|value| !value.is_nan())).collect();
    let n = whole.len() as f64;
    let x = DMatrix::from_iterator(paths.n_elements, whole.len(), whole.iter().flat_map(|path| path.iter().copied()));
    (n > 0.0).then(|| factor.solve_lower_triangular(&x).map(|z| 0.5 * z.norm_squared() / n + log_determinant))?
}

impl Innovation {
    /// The estimation under which later paths are likeliest.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no shrinkage gives a positive definite matrix.
    pub fn choose_estimation(earlier: &ErrorPaths, later: &ErrorPaths) -> Result<Estimation, Error> {
        if earlier.n_elements > N_ELEMENTS_DENSE_MAX {
            return Ok(Estimation { shrinkage: 1.0, half_life: f64::INFINITY });
        }
        let mut best =
            (f64::INFINITY, Estimation { shrinkage: SHRINKAGES[SHRINKAGES.len() - 1], half_life: f64::INFINITY });
        for half_life in HALF_LIVES {
            let covariance = earlier.covariance(half_life);
            for shrinkage in SHRINKAGES {
                if let Some(loss) = gaussian_loss(&factor(&covariance, shrinkage)?, later)
                    && loss < best.0
                {
                    best = (loss, Estimation { shrinkage, half_life });
                }
            }
        }
        Ok(best.1)
    }

    /// Estimates the map from paths of errors.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no shrinkage gives a positive definite matrix.
    pub fn fit(paths: &ErrorPaths, estimation: Estimation) -> Result<Self, Error> {
        let Estimation { shrinkage, half_life } = estimation;
        if paths.n_elements > N_ELEMENTS_DENSE_MAX || shrinkage >= 1.0 {
            let deviation = paths.variances(half_life).into_iter().map(f64::sqrt).collect();
            return Ok(Self::Diagonal { deviation });
        }
        let lower = factor(&paths.covariance(half_life), shrinkage)?;
        Ok(Self::Dense { n_elements: paths.n_elements, factor: lower.transpose().as_slice().to_vec() })
    }

    /// Number of elements of a path.
    pub fn n_elements(&self) -> usize {
        match self {
            Self::Dense { n_elements, .. } => *n_elements,
            Self::Diagonal { deviation } => deviation.len(),
        }
    }

    /// Standard deviation of one element of the error.
    pub fn deviation(&self, element: usize) -> f64 {
        match self {
            Self::Dense { n_elements, factor } => {
                factor[element * n_elements..][..=element].iter().map(|x| x * x).sum::<f64>().sqrt()
            }
            Self::Diagonal { deviation } => deviation[element],
        }
    }

    /// Innovations of a path of errors. A gap has no innovation and counts as its conditional mean for what follows.
    pub fn whiten(&self, errors: &[f64]) -> Vec<f64> {
        match self {
            Self::Dense { n_elements, factor } => {
                let mut innovations = vec![0.0; errors.len()];
                for element in 0..errors.len() {
                    if !errors[element].is_nan() {
                        let row = &factor[element * n_elements..][..=element];
                        let explained: f64 = row[..element].iter().zip(&innovations).map(|(l, z)| l * z).sum();
                        innovations[element] = (errors[element] - explained) / row[element];
                    }
                }
                innovations.iter().zip(errors).map(|(&z, error)| if error.is_nan() { f64::NAN } else { z }).collect()
            }
            Self::Diagonal { deviation } => {
                errors.iter().zip(deviation).map(|(error, deviation)| error / deviation).collect()
            }
        }
    }

    /// Errors of a path of innovations, which may be shorter than the map.
    pub fn colour(&self, innovations: &[f64]) -> Vec<f64> {
        match self {
            Self::Dense { n_elements, factor } => (0..innovations.len())
                .map(|element| {
                    let row = &factor[element * n_elements..][..=element];
                    row.iter().zip(innovations).map(|(l, z)| l * z).sum()
                })
                .collect(),
            Self::Diagonal { deviation } => {
                innovations.iter().zip(deviation).map(|(z, deviation)| z * deviation).collect()
            }
        }
    }

    /// The row of the factor that makes one error out of the innovations up to it.
    fn row(&self, element: usize, width: usize) -> Vec<f64> {
        let mut row = vec![0.0; width];
        match self {
            Self::Dense { n_elements, factor } => {
                row[..=element].copy_from_slice(&factor[element * n_elements..][..=element])
            }
            Self::Diagonal { deviation } => row[element] = deviation[element],
        }
        row
    }
}

/// Moves sampled innovations onto observed errors: `z + Aᵀ (A Aᵀ)⁻¹ (b − A z)`, where `A` has the rows of the
/// factor that belong to the observed elements and `b` their errors.
///
/// For Gaussian innovations this is an exact draw from the conditional law (Matheron's rule; Wilson et al.,
/// "Efficiently sampling functions from Gaussian process posteriors", ICML 2020, eq. 11), and it respects
/// observations of one series in the others, at later steps and at earlier ones.
pub struct Pins {
    elements: DMatrix<f64>,
    gain: DMatrix<f64>,
    errors: DVector<f64>,
}

impl Pins {
    /// Prepares the update for the observed `(element, error)` pairs among the first `width` elements.
    ///
    /// # Errors
    /// [`Error::Covariance`] when the observed elements determine each other.
    pub fn new(innovation: &Innovation, observed: &[(usize, f64)], width: usize) -> Result<Self, Error> {
        let rows: Vec<f64> = observed.iter().flat_map(|&(element, _)| innovation.row(element, width)).collect();
        let elements = DMatrix::from_row_slice(observed.len(), width, &rows);
        let inverse = (&elements * elements.transpose()).cholesky().ok_or(Error::Covariance)?.inverse();
        let gain = elements.transpose() * inverse;
        Ok(Self { elements, gain, errors: DVector::from_iterator(observed.len(), observed.iter().map(|pair| pair.1)) })
    }

    /// Moves one sample's first innovations.
    pub fn apply(&self, innovations: &mut [f64]) {
        let mut z = DVector::from_column_slice(&innovations[..self.gain.nrows()]);
        z += &self.gain * (&self.errors - &self.elements * &z);
        innovations[..z.len()].copy_from_slice(z.as_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;

    const fn estimation(shrinkage: f64) -> Estimation {
        Estimation { shrinkage, half_life: f64::INFINITY }
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
        ErrorPaths { n_elements: 6, values }
    }

    #[test]
    fn whitening_and_colouring_are_inverse() {
        let paths = correlated(400, 1);
        for innovation in [Innovation::fit(&paths, estimation(0.03)), Innovation::fit(&paths, estimation(1.0))] {
            let innovation = innovation.expect("positive definite");
            let errors = &paths.values[..6];
            let back = innovation.colour(&innovation.whiten(errors));
            assert!(errors.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }

    #[test]
    fn innovations_are_white() {
        let paths = correlated(4000, 2);
        let innovation = Innovation::fit(&paths, estimation(0.0)).expect("positive definite");
        let whitened = paths.values.chunks_exact(6).flat_map(|path| innovation.whiten(path)).collect();
        let covariance = ErrorPaths { n_elements: 6, values: whitened }.covariance(f64::INFINITY);
        assert!((covariance - DMatrix::identity(6, 6)).abs().max() < 1e-6);
    }

    #[test]
    fn a_gap_changes_no_earlier_innovation() {
        let innovation = Innovation::fit(&correlated(400, 3), estimation(0.03)).expect("positive definite");
        let errors = [0.3, -0.2, 0.5, 0.1, -0.4, 0.2];
        let mut gapped = errors;
        gapped[4] = f64::NAN;
        let (whole, gapped) = (innovation.whiten(&errors), innovation.whiten(&gapped));
        assert_eq!(whole[..4], gapped[..4]);
        assert!(gapped[4].is_nan() && gapped[5].is_finite());
    }

    #[test]
    fn pinned_errors_are_met_and_move_what_is_correlated_with_them() {
        let innovation = Innovation::fit(&correlated(4000, 4), estimation(0.0)).expect("positive definite");
        let pins = Pins::new(&innovation, &[(1, -2.0), (3, -2.5)], 6).expect("independent elements");
        let mut stream = Stream::new(9, 0);
        let (mut mean, n) = (0.0, 500);
        for _ in 0..n {
            let mut z: Vec<f64> = (0..6).map(|_| stream.normal()).collect();
            pins.apply(&mut z);
            let errors = innovation.colour(&z);
            assert!((errors[1] + 2.0).abs() < 1e-9 && (errors[3] + 2.5).abs() < 1e-9);
            mean += errors[0] / f64::from(n);
        }
        assert!(mean > 1.0, "series a moves against series b, its mean is {mean}");
    }

    #[test]
    fn shrinkage_is_small_when_data_abound_and_large_when_they_do_not() {
        let later = correlated(200, 5);
        let many = Innovation::choose_estimation(&correlated(4000, 6), &later).expect("positive definite");
        let few = Innovation::choose_estimation(&correlated(7, 7), &later).expect("positive definite");
        assert!(many.shrinkage < few.shrinkage, "{many:?} {few:?}");
    }

    #[test]
    fn what_is_old_is_forgotten_when_the_spread_has_changed() {
        let mut changed = correlated(400, 8);
        let half = changed.values.len() / 2;
        changed.values[..half].iter_mut().for_each(|error| *error *= 10.0);
        let chosen = Innovation::choose_estimation(&changed, &correlated(100, 9)).expect("positive definite");
        assert!(chosen.half_life < 0.3, "{chosen:?}");
    }
}
