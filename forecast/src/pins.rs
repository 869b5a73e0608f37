//! Observed elements of a path: moves sampled innovations so that their scores meet what was observed.

use std::collections::BTreeMap;
use std::ops::Range;

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use crate::Error;
use crate::innovation::Innovation;

/// Observed elements that depend on each other: their matrix is decomposed in seconds.
const N_TOGETHER_MAX: usize = 2500;

/// An observed element of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pin {
    /// Its index, `lead * n_series + series`.
    pub element: usize,
    /// Standard deviation of its measurement, in scores; 0 when it is exact.
    pub sd: f64,
}

/// Moves innovations by `z + Aᵀ (A Aᵀ + R)⁻¹ (b + e − A z)`, where `A` has the rows of the factor that belong to the observed
/// elements, `b` are the scores of their errors, `R` is the variance of the measurements and `e ~ N(0, R)`.
///
/// For Gaussian innovations this is an exact draw from the conditional law (Matheron's rule; Wilson et al., "Efficiently
/// sampling functions from Gaussian process posteriors", ICML 2020, eq. 11, for noisy observations), and it
/// respects observations of one series in the others, at later steps and at earlier ones.
#[derive(Clone, Debug)]
pub struct Pins {
    pins: Vec<Pin>,
    groups: Vec<Group>,
}

/// Observed elements that share innovations. Where there is no covariance, each is alone, and no large matrix arises.
#[derive(Clone, Debug)]
struct Group {
    /// Positions in the list of pins.
    members: Vec<usize>,
    /// Innovations that the members are made of, ascending.
    columns: Vec<usize>,
    /// How many of the columns come before those that may move.
    n_fixed: usize,
    /// `A`, `[member, column]`.
    rows: DMatrix<f64>,
    /// `A Aᵀ + R` over the columns that may move.
    covariance: Cholesky<f64, Dyn>,
}

impl Pins {
    /// Prepares the update of the innovations in the range `free`; earlier ones are known and stay as they are.
    ///
    /// # Errors
    /// - [`Error::Covariance`] when the observed elements determine each other
    /// - [`Error::TooManyPins`] when more than 2500 depend on each other: their matrices would take too long
    pub fn new(innovation: &Innovation, pins: &[Pin], free: Range<usize>) -> Result<Self, Error> {
        let groups = groups(innovation, pins, free.clone());
        if let Some(given) = groups.iter().map(Vec::len).find(|&n_members| n_members > N_TOGETHER_MAX) {
            return Err(Error::TooManyPins { given, limit: N_TOGETHER_MAX });
        }
        let groups = groups.into_iter().map(|members| Group::new(innovation, pins, members, free.clone()));
        Ok(Self { pins: pins.to_vec(), groups: groups.collect::<Result<_, _>>()? })
    }

    /// Moves the first innovations of one sample onto the scores of the observed elements. `measurement` gives the standard
    /// normal number of an element from which the error of its measurement is made.
    pub fn apply(&self, innovations: &mut [f64], scores: &[f64], measurement: impl Fn(usize) -> f64) {
        for group in &self.groups {
            let z =
                DVector::from_iterator(group.columns.len(), group.columns.iter().map(|&column| innovations[column]));
            let met = group.members.iter().map(|&member| {
                let Pin { element, sd } = self.pins[member];
                scores[member] + if sd > 0.0 { sd * measurement(element) } else { 0.0 }
            });
            let missed = DVector::from_iterator(group.members.len(), met) - &group.rows * z;
            let moved = group.free_rows().transpose() * group.covariance.solve(&missed);
            group.columns[group.n_fixed..].iter().zip(moved.iter()).for_each(|(&column, by)| innovations[column] += by);
        }
    }

    /// Takes out of a vector of innovations what the observations determine: multiplies it by the covariance that they leave,
    /// `I − Aᵀ (A Aᵀ + R)⁻¹ A`. Innovations before those that may move must be 0 in it.
    pub fn project(&self, innovations: &mut [f64]) {
        self.apply(innovations, &vec![0.0; self.pins.len()], |_| 0.0);
    }
}

impl Group {
    fn new(innovation: &Innovation, pins: &[Pin], members: Vec<usize>, free: Range<usize>) -> Result<Self, Error> {
        let rows: Vec<Vec<f64>> =
            members.iter().map(|&member| innovation.row(pins[member].element, free.end)).collect();
        let columns: Vec<usize> = (0..free.end).filter(|&column| rows.iter().any(|row| row[column] != 0.0)).collect();
        let n_fixed = columns.partition_point(|&column| column < free.start);
        let matrix = DMatrix::from_fn(members.len(), columns.len(), |member, column| rows[member][columns[column]]);
        let free = matrix.columns(n_fixed, columns.len() - n_fixed);
        let mut covariance = free * free.transpose();
        for (index, &member) in members.iter().enumerate() {
            covariance[(index, index)] += pins[member].sd.powi(2);
        }
        let covariance = covariance.cholesky().ok_or(Error::Covariance)?;
        Ok(Self { members, columns, n_fixed, rows: matrix, covariance })
    }

    fn free_rows(&self) -> nalgebra::DMatrixView<'_, f64> {
        self.rows.columns(self.n_fixed, self.columns.len() - self.n_fixed)
    }
}

/// Elements whose scores share a free innovation, directly or through others, belong together.
fn groups(innovation: &Innovation, pins: &[Pin], free: Range<usize>) -> Vec<Vec<usize>> {
    let mut parents: Vec<usize> = (0..pins.len()).collect();
    let mut owners: Vec<Option<usize>> = vec![None; free.len()];
    for (index, pin) in pins.iter().enumerate() {
        let row = innovation.row(pin.element, free.end);
        for (owner, _) in owners.iter_mut().zip(&row[free.start..]).filter(|(_, share)| **share != 0.0) {
            let (a, b) = (root(&mut parents, *owner.get_or_insert(index)), root(&mut parents, index));
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..pins.len() {
        groups.entry(root(&mut parents, index)).or_default().push(index);
    }
    groups.into_values().collect()
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlation::Correlation;
    use crate::noise::Stream;
    use crate::scaling::Scaling;

    /// Scores are errors.
    fn plain(n_series: usize, n_elements: usize, correlation: Correlation) -> Innovation {
        Innovation { deviation: vec![1.0; n_elements], shape: Scaling::identity(n_series), correlation }
    }

    /// The factor of a random walk of two series over three steps whose increments have correlation 0.8.
    fn walk() -> Innovation {
        let increments = DMatrix::from_row_slice(2, 2, &[1.0, 0.0, 0.8, 0.6]);
        let factor =
            DMatrix::from_fn(
                6,
                6,
                |row, column| {
                    if column / 2 <= row / 2 { increments[(row % 2, column % 2)] } else { 0.0 }
                },
            );
        plain(2, 6, Correlation::Dense { factor: factor.transpose().as_slice().to_vec() })
    }

    fn exact(element: usize) -> Pin {
        Pin { element, sd: 0.0 }
    }

    /// Errors of `n` samples after the update.
    fn moved(pins: &Pins, errors: &[f64], n: usize) -> Vec<Vec<f64>> {
        let (mut stream, mut measurements) = (Stream::new(9, 0), Stream::new(9, 1));
        (0..n)
            .map(|_| {
                let mut z: Vec<f64> = (0..6).map(|_| stream.normal()).collect();
                let errors_of_measurement: Vec<f64> = (0..6).map(|_| measurements.normal()).collect();
                pins.apply(&mut z, errors, |element| errors_of_measurement[element]);
                walk().colour(&z)
            })
            .collect()
    }

    fn mean_and_variance(paths: &[Vec<f64>], element: usize) -> (f64, f64) {
        let n = paths.len() as f64;
        let mean = paths.iter().map(|path| path[element]).sum::<f64>() / n;
        (mean, paths.iter().map(|path| (path[element] - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn an_exact_observation_is_met_and_bridges_what_is_before_it() {
        let pins = Pins::new(&walk(), &[exact(4)], 0..6).expect("independent elements");
        let paths = moved(&pins, &[3.0], 20_000);
        assert!(paths.iter().all(|path| (path[4] - 3.0).abs() < 1e-9));
        // A Brownian bridge of length 3: mean t/3 of the end, variance t (3 − t) / 3; the other series follows with 0.8 of it.
        for (element, expected) in [(0, (1.0, 2.0 / 3.0)), (2, (2.0, 2.0 / 3.0)), (3, (1.6, 2.0 - 0.64 * 4.0 / 3.0))] {
            let (mean, variance) = mean_and_variance(&paths, element);
            assert!(
                (mean - expected.0).abs() < 0.03 && (variance - expected.1).abs() < 0.03,
                "{element} {mean} {variance}"
            );
        }
    }

    #[test]
    fn a_doubtful_observation_moves_by_the_share_that_it_deserves() {
        for sd in [0.5, 1.0, 3.0] {
            let pins = Pins::new(&walk(), &[Pin { element: 0, sd }], 0..6).expect("independent elements");
            let (mean, variance) = mean_and_variance(&moved(&pins, &[2.0], 20_000), 0);
            let gain = 1.0 / (1.0 + sd * sd);
            assert!(
                (mean - 2.0 * gain).abs() < 0.03 && (variance - (1.0 - gain)).abs() < 0.03,
                "{sd} {mean} {variance}"
            );
        }
    }

    #[test]
    fn known_innovations_stay_and_are_taken_into_account() {
        let pins = Pins::new(&walk(), &[exact(3), exact(4)], 2..6).expect("independent elements");
        let mut z = vec![0.7, -0.2, 1.0, 1.0, 1.0, 1.0];
        pins.apply(&mut z, &[0.4, -1.0], |_| 0.0);
        let errors = walk().colour(&z);
        assert_eq!(z[..2], [0.7, -0.2]);
        assert!((errors[3] - 0.4).abs() < 1e-9 && (errors[4] + 1.0).abs() < 1e-9);
    }

    #[test]
    fn elements_without_covariance_are_moved_one_by_one() {
        // As many that one matrix of all of them would take gigabytes.
        let n = 20_000;
        let innovation = plain(1, n, Correlation::None);
        let observed: Vec<Pin> = (0..n).step_by(7).map(exact).collect();
        let pins = Pins::new(&innovation, &observed, 0..n).expect("independent elements");
        let mut z = vec![0.5; n];
        pins.apply(&mut z, &vec![3.0; observed.len()], |_| 0.0);
        assert!((0..n).all(|element| z[element] == if element % 7 == 0 { 3.0 } else { 0.5 }));
    }

    #[test]
    fn too_many_elements_that_depend_on_each_other_are_refused() {
        let n = N_TOGETHER_MAX + 1;
        let direction = vec![(n as f64).sqrt().recip(); n];
        let gains = vec![1.0; n];
        let correlation = Correlation::Principal { directions: direction, factors: vec![2.0, 1.0], gains, horizon: 1 };
        let observed: Vec<Pin> = (0..n).map(exact).collect();
        let refused = Pins::new(&plain(n, n, correlation), &observed, 0..n);
        assert!(matches!(refused, Err(Error::TooManyPins { given, limit: N_TOGETHER_MAX }) if given == n));
    }
}
