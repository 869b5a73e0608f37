//! Numbers that are prescribed: moves sampled innovations so that sums and means of the path in data units meet them.

use nalgebra::{DMatrix, DVector};

use crate::condition::{Condition, ConditionProblem, Demand};
use crate::outlook::Outlook;
use crate::parallel;
use crate::prepared::Prepared;
use crate::{Bounds, Error, Model};

/// Linearisations on the way to the most likely path.
const N_LINEARISATIONS: usize = 8;
/// Newton steps of one sample.
const N_NEWTON_MAX: usize = 60;
/// Halvings of a Newton step that leads nowhere.
const N_HALVINGS_MAX: usize = 12;
/// A number is met when it is missed by less than this share of its standard deviation.
const TOLERANCE: f64 = 1e-9;
/// Share of its variance that earlier conditions must leave to one.
const OPEN_MIN: f64 = 1e-8;
/// How far, in scores, the slope is taken that says how a value answers: across knots and flat parts of its map.
const REACH: f64 = 1.0;
/// How far it is taken for a Newton step.
const REACH_LOCAL: f64 = 1e-4;

/// Prescribed numbers of one prepared window, and the directions in which innovations are moved to meet them.
///
/// Innovations are split into `z = z⊥ + V s`, where `s` are as many standard normal numbers as there are conditions and `z⊥` is
/// independent of them. `V` holds the directions in which the numbers answer at the most likely path that meets them. Each
/// sample keeps its `z⊥` and gets the `s` at which its path meets the numbers `g`; its weight is the density of that,
///
/// ```text
/// w = φ(s) / |det ∂g/∂s|
/// ```
///
/// so for Gaussian innovations weighted samples have the conditional law, whatever the monotone maps between innovations and
/// data. Where these are linear all weights are equal, and this is Matheron's rule for a sum.
#[derive(Clone, Debug)]
pub(crate) struct Equalities {
    targets: Vec<Target>,
    /// Elements that the targets read.
    elements: Vec<usize>,
    /// Innovations that are expected, given what is observed after the anchor.
    mean: DVector<f64>,
    /// `V`, `[innovation, condition]`.
    directions: DMatrix<f64>,
    /// From innovations less their mean to `s`, `[condition, innovation]`.
    readings: DMatrix<f64>,
    /// By how much `s` moves the scores, `[element, condition]`.
    effects: DMatrix<f64>,
    /// `s` of the most likely path.
    start: DVector<f64>,
}

/// A prescribed number.
#[derive(Clone, Debug)]
struct Target {
    /// What it must be, less what is known of it.
    number: f64,
    /// By how much each of its elements counts.
    coefficient: f64,
    /// Positions in the list of elements.
    positions: Vec<usize>,
    /// By how much it may be missed.
    tolerance: f64,
}

impl Equalities {
    /// Prepares those of the conditions that prescribe a number; `None` when none does.
    ///
    /// # Errors
    /// [`Error::Condition`] when one reads beyond the trained horizon, or is already decided.
    pub fn new(prepared: &Prepared<'_>, conditions: &[Condition]) -> Result<Option<Self>, Error> {
        let n_series = prepared.model.n_series();
        let n_after = prepared.n_after();
        let mut equalities = Self::without_directions(prepared);
        let mut numbers = vec![];
        for (index, condition) in conditions.iter().enumerate() {
            let Demand::Equal(number) = condition.demand else { continue };
            let refuse = |problem| Error::Condition { condition: index, problem };
            let coefficient = condition.coefficient().ok_or(refuse(ConditionProblem::NotLinear))?;
            if *condition.steps.end() + n_after > prepared.n_drawn() {
                return Err(refuse(ConditionProblem::BeyondHorizon { last: prepared.n_drawn() - n_after }));
            }
            let mut target = Target { number, coefficient, positions: vec![], tolerance: 0.0 };
            for (step, &series) in
                condition.steps.clone().flat_map(|step| condition.series.iter().map(move |series| (step, series)))
            {
                let element = (n_after + step - 1) * n_series + series;
                let known = prepared
                    .observed
                    .iter()
                    .find(|observed| observed.sd == 0.0 && observed.element(n_series) == element);
                match known {
                    Some(known) => target.number -= coefficient * known.value,
                    None => target.positions.push(equalities.position(element)),
                }
            }
            equalities.targets.push(target);
            numbers.push(index);
        }
        if equalities.targets.is_empty() {
            return Ok(None);
        }
        let decided =
            |target: usize| Error::Condition { condition: numbers[target], problem: ConditionProblem::Decided };
        equalities.find_directions(prepared).map_err(decided)?;
        Ok(Some(equalities))
    }

    fn without_directions(prepared: &Prepared<'_>) -> Self {
        Self {
            targets: vec![],
            elements: vec![],
            mean: prepared.expected_innovations(),
            directions: DMatrix::zeros(0, 0),
            readings: DMatrix::zeros(0, 0),
            effects: DMatrix::zeros(0, 0),
            start: DVector::zeros(0),
        }
    }

    fn position(&mut self, element: usize) -> usize {
        self.elements.iter().position(|&known| known == element).unwrap_or_else(|| {
            self.elements.push(element);
            self.elements.len() - 1
        })
    }

    /// Finds the most likely innovations that meet the numbers, by Gauss and Newton, and the directions there.
    ///
    /// Fails with the first target that is decided by what is known or by the targets before it.
    fn find_directions(&mut self, prepared: &Prepared<'_>) -> Result<(), usize> {
        let n_series = prepared.model.n_series();
        let correlation = &prepared.model.innovation.correlation;
        let (n_innovations, n_targets) = (self.mean.len(), self.targets.len());
        let mut likeliest = self.mean.clone();
        for round in 0..=N_LINEARISATIONS {
            let all = correlation.colour(likeliest.as_slice(), n_series);
            let scores: Vec<f64> = self.elements.iter().map(|&element| all[element]).collect();
            let slopes = self.slopes(prepared, &scores, REACH);
            // Rows of the derivative, and the covariance of the innovations times them.
            let mut derivative = DMatrix::zeros(n_targets, n_innovations);
            let mut answers = DMatrix::zeros(n_innovations, n_targets);
            for (index, target) in self.targets.iter().enumerate() {
                let mut weights = vec![0.0; n_innovations];
                for &position in &target.positions {
                    weights[self.elements[position]] += target.coefficient * slopes[position];
                }
                let mut row = correlation.gather(&weights, n_series);
                derivative.set_row(index, &DVector::from_column_slice(&row).transpose());
                prepared.project(&mut row);
                answers.set_column(index, &DVector::from_vec(row));
            }
            let factor = factor(&(&derivative * &answers))?;
            let whitened = |matrix: &DMatrix<f64>| factor.solve_lower_triangular(matrix).expect("positive diagonal");
            if round == N_LINEARISATIONS {
                self.directions = whitened(&answers.transpose()).transpose();
                self.readings = whitened(&derivative);
                self.start = &self.readings * (&likeliest - &self.mean);
                let columns: Vec<Vec<f64>> = self
                    .directions
                    .column_iter()
                    .map(|direction| correlation.colour(direction.into_owned().as_slice(), n_series))
                    .collect();
                self.effects =
                    DMatrix::from_fn(self.elements.len(), n_targets, |row, column| columns[column][self.elements[row]]);
                for (index, target) in self.targets.iter_mut().enumerate() {
                    target.tolerance = TOLERANCE * factor.row(index).norm();
                }
                return Ok(());
            }
            let missed = self.missed(prepared, &scores) + &derivative * (&likeliest - &self.mean);
            let solved = whitened(&DMatrix::from_column_slice(n_targets, 1, missed.as_slice()));
            likeliest = &self.mean + whitened(&answers.transpose()).transpose() * solved.column(0);
        }
        Ok(())
    }

    /// Moves the innovations of each sample so that its path meets the numbers. Gives the logarithms of the samples' weights:
    /// minus infinity for one whose path cannot.
    pub fn meet(&self, prepared: &Prepared<'_>, innovations: &mut [f32], n_samples: usize) -> Vec<f64> {
        let n_series = prepared.model.n_series();
        let correlation = &prepared.model.innovation.correlation;
        let n_innovations = self.mean.len();
        let parts: Vec<&[f32]> = innovations.chunks_exact(innovations.len() / n_samples).collect();
        let moved = parallel::map(&parts, |part| {
            let z = DVector::from_iterator(n_innovations, part.iter().map(|&z| f64::from(z)));
            let kept = &z - &self.directions * (&self.readings * (&z - &self.mean));
            let all = correlation.colour(kept.as_slice(), n_series);
            let scores = DVector::from_iterator(self.elements.len(), self.elements.iter().map(|&element| all[element]));
            let (found, log_weight) = self.solve(prepared, &scores)?;
            Some((kept + &self.directions * found, log_weight))
        });
        let samples = innovations.chunks_exact_mut(innovations.len() / n_samples);
        let put = |(sample, moved): (&mut [f32], Option<(DVector<f64>, f64)>)| {
            let Some((z, log_weight)) = moved else { return f64::NEG_INFINITY };
            sample.iter_mut().zip(z.iter()).for_each(|(sample, &z)| *sample = z as f32);
            log_weight
        };
        samples.zip(moved).map(put).collect()
    }

    /// Elements whose value is prescribed by itself, with it.
    pub fn values(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let single = |target: &Target| match target.positions.as_slice() {
            &[position] => Some((self.elements[position], target.number / target.coefficient)),
            _ => None,
        };
        self.targets.iter().filter_map(single)
    }

    /// The `s` at which scores `kept + effects · s` meet the numbers, and the logarithm of the weight.
    fn solve(&self, prepared: &Prepared<'_>, kept: &DVector<f64>) -> Option<(DVector<f64>, f64)> {
        let mut s = self.start.clone();
        let scores = |s: &DVector<f64>| kept + &self.effects * s;
        let size = |missed: &DVector<f64>| {
            missed.iter().zip(&self.targets).map(|(missed, target)| (missed / target.tolerance).powi(2)).sum::<f64>()
        };
        let mut missed = self.missed(prepared, scores(&s).as_slice());
        for _ in 0..N_NEWTON_MAX {
            let is_met = missed.iter().zip(&self.targets).all(|(missed, target)| missed.abs() <= target.tolerance);
            let answer = self.answer(prepared, scores(&s).as_slice(), REACH_LOCAL);
            if is_met {
                let determinant = answer.determinant().abs();
                return (determinant > 0.0).then(|| (s.clone(), -0.5 * s.norm_squared() - libm::log(determinant)));
            }
            // Where the map is flat, the slope over a longer way says where to go.
            let step = answer.lu().solve(&missed).filter(|step| step.iter().all(|by| by.abs() < 1e3));
            let step = step.or_else(|| self.answer(prepared, scores(&s).as_slice(), REACH).lu().solve(&missed))?;
            let before = size(&missed);
            let mut share = 1.0;
            for _ in 0..N_HALVINGS_MAX {
                let tried = &s + &step * share;
                let left = self.missed(prepared, scores(&tried).as_slice());
                if size(&left) < before {
                    (s, missed) = (tried, left);
                    break;
                }
                share *= 0.5;
            }
            if size(&missed) >= before {
                return None;
            }
        }
        None
    }

    /// What the numbers lack at some scores of the elements.
    fn missed(&self, prepared: &Prepared<'_>, scores: &[f64]) -> DVector<f64> {
        let values: Vec<f64> =
            (0..scores.len()).map(|position| self.value(prepared, position, scores[position])).collect();
        let missed = |target: &Target| {
            target.number - target.coefficient * target.positions.iter().map(|&position| values[position]).sum::<f64>()
        };
        DVector::from_iterator(self.targets.len(), self.targets.iter().map(missed))
    }

    /// `∂g/∂s`.
    fn answer(&self, prepared: &Prepared<'_>, scores: &[f64], reach: f64) -> DMatrix<f64> {
        let slopes = self.slopes(prepared, scores, reach);
        DMatrix::from_fn(self.targets.len(), self.targets.len(), |row, column| {
            let target = &self.targets[row];
            let part = |&position: &usize| slopes[position] * self.effects[(position, column)];
            target.coefficient * target.positions.iter().map(part).sum::<f64>()
        })
    }

    /// How each element answers to its score.
    fn slopes(&self, prepared: &Prepared<'_>, scores: &[f64], reach: f64) -> Vec<f64> {
        let value = |position: usize, score: f64| self.value(prepared, position, score);
        let slope = |(position, &score): (usize, &f64)| {
            (value(position, score + reach) - value(position, score - reach)) / (2.0 * reach)
        };
        scores.iter().enumerate().map(slope).collect()
    }

    /// An element in data units.
    fn value(&self, prepared: &Prepared<'_>, position: usize, score: f64) -> f64 {
        prepared.model.value_of_score(&prepared.outlook, self.elements[position], score, &prepared.window.bounds)
    }
}

impl Model {
    /// The value of an element in data units when the error of the base has a score.
    fn value_of_score(&self, outlook: &Outlook, element: usize, score: f64, bounds: &[Bounds]) -> f64 {
        let standard = outlook.value(element, self.innovation.error(element, score));
        self.restore(element % self.n_series(), standard, bounds)
    }
}

/// Cholesky's factor, or the first row that the ones before it determine.
fn factor(covariance: &DMatrix<f64>) -> Result<DMatrix<f64>, usize> {
    let n = covariance.nrows();
    let mut factor = DMatrix::zeros(n, n);
    for row in 0..n {
        for column in 0..=row {
            let explained: f64 = (0..column).map(|k| factor[(row, k)] * factor[(column, k)]).sum();
            let left: f64 = covariance[(row, column)] - explained;
            if row > column {
                factor[(row, column)] = left / factor[(column, column)];
            } else if left > OPEN_MIN * covariance[(row, row)] {
                factor[(row, row)] = left.sqrt();
            } else {
                return Err(row);
            }
        }
    }
    Ok(factor)
}
