//! Forecasts under conditions on the path.
//!
//! Everything random about a sample is its noise `ε`, which is standard normal, and its path is a function of that noise: through
//! the network, past observed values ([`crate::pins`]), through base and maps to data units, block after block beyond
//! the trained horizon. So the law under conditions is a law of noise,
//!
//! ```text
//! p(ε | conditions)  ∝  N(ε; 0, I) · w(ε) · 1[the path of ε meets every limit]
//! ```
//!
//! where prescribed numbers enter by the path itself and the weight `w` ([`crate::equality`]), and tilts by the weight alone: a path
//! counts `exp(tilt · number / spread)`, which is the law that guidance by a reward aims at (Chen et al. 2024, section 3.3), without
//! gradients. It is drawn from exactly, in the limit of many particles:
//!
//! 1. *Candidates* are drawn without conditions. When enough of them meet the limits, these are the forecast: rejection sampling.
//! 2. Otherwise limits are tightened in levels, each of which a quarter of the particles meets (subset simulation; Au and Beck
//!    2001). Survivors are resampled and moved by `ε' = √(1−β²) ε + β ξ`, which leaves their law as it is (Papaioannou et al.
//!    2015; Neal 1998), until they have forgotten where they came from.

use crate::condition::{Condition, ConditionProblem, Demand, N_CONDITIONS_MAX};
use crate::equality::Equalities;
use crate::noise::NoiseSource;
use crate::particles::Drawn;
use crate::prepared::Prepared;
use crate::{Error, Model, SampleConfig, Trajectories, Window};

/// Numbers in the paths of all candidates: bounds the memory.
const N_CANDIDATE_VALUES_MAX: usize = 20_000_000;
/// Share of its size and spread by which a prescribed number may differ: paths are kept in single precision.
const EQUAL: f64 = 1e-5;

/// How much is drawn to meet conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Trajectories drawn without conditions, at least as many as are asked for.
    pub n_candidates: usize,
    /// Most trajectories drawn in all.
    pub n_draws_max: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { n_candidates: 1000, n_draws_max: 20_000 }
    }
}

/// A forecast under conditions.
#[derive(Clone, Debug)]
pub struct Guided {
    /// Equally likely paths under the conditions.
    pub trajectories: Trajectories,
    /// How they came about.
    pub guidance: Guidance,
}

/// What conditions did to a forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    /// What is told of each condition, in their order.
    pub conditions: Vec<ConditionReport>,
    /// Number of independent trajectories that would say as much as those that were drawn.
    pub effective_sample_size: f64,
    /// How likely all limits together are without conditions; `None` when there are only prescribed numbers.
    pub base_rate: Option<BaseRate>,
    /// Trajectories that were drawn in all.
    pub n_drawn: usize,
}

/// What is told of one condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConditionReport {
    /// Share of the trajectories that meet it; a tilt is always met.
    pub satisfaction: f64,
    /// Share of the candidates that meet it without conditions: of a limit.
    pub base_rate: Option<f64>,
    /// Share of the candidates whose number is lower without conditions than a prescribed number, or than the mean that a tilt leads
    /// to. Near 0 or 1 it lies far out.
    pub quantile_level: Option<f64>,
}

/// How likely limits are without conditions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BaseRate {
    /// The probability: the share of the candidates, or the product over levels. 0 when it was not reached by either.
    pub probability: f64,
    /// Its Monte Carlo error, one standard deviation.
    pub standard_error: f64,
    /// Candidates that meet all limits.
    pub n_met: usize,
    /// Candidates.
    pub n_candidates: usize,
}

impl Model {
    /// Conditions on columns of a window as conditions on modelled series.
    fn modelled_conditions(&self, conditions: &[Condition]) -> Result<Vec<Condition>, Error> {
        let modelled = |(index, condition): (usize, &Condition)| {
            let place = |series: &usize| self.roles.modelled.iter().position(|column| column == series);
            let series: Option<Vec<usize>> = condition.series.iter().map(place).collect();
            let refused = Error::Condition { condition: index, problem: ConditionProblem::Series };
            Ok(Condition { series: series.ok_or(refused)?, ..condition.clone() })
        };
        conditions.iter().enumerate().map(modelled).collect()
    }

    /// Draws joint trajectories that meet conditions; see [`Prepared::forecast_under`].
    ///
    /// # Errors
    /// Those of [`Model::prepare`] and of [`Prepared::forecast_under`].
    pub fn forecast_under(
        &self,
        window: &Window,
        conditions: &[Condition],
        config: &SampleConfig,
        effort: &Effort,
    ) -> Result<Guided, Error> {
        self.prepare(window)?.forecast_under(conditions, config, effort)
    }
}

impl Prepared<'_> {
    /// Draws joint trajectories under conditions, all of which each of them meets. Conditions name columns of the window, which must be
    /// targets or past covariates. Known covariates whose future is not supplied are what is expected of them. Without conditions they are those of
    /// [`Prepared::forecast`], bit for bit.
    ///
    /// Series of whole numbers stay that under limits; paths that meet prescribed numbers are not made whole.
    ///
    /// For limits the law is exact up to the number of particles, whatever the model. For prescribed numbers it is exact where
    /// innovations are Gaussian; where a network or the pool made them something else it is an approximation, as for
    /// observed values.
    ///
    /// # Errors
    /// - [`Error::TooManyConditions`] when there are more than [`N_CONDITIONS_MAX`]
    /// - [`Error::Condition`] when one makes no sense, lies outside of declared bounds, is already decided, or was not met
    ///   within the effort
    /// - those of [`Prepared::forecast`]
    pub fn forecast_under(
        &self,
        conditions: &[Condition],
        config: &SampleConfig,
        effort: &Effort,
    ) -> Result<Guided, Error> {
        if conditions.len() > N_CONDITIONS_MAX {
            return Err(Error::TooManyConditions { given: conditions.len(), limit: N_CONDITIONS_MAX });
        }
        let conditions = &self.model.modelled_conditions(conditions)?;
        for (index, condition) in conditions.iter().enumerate() {
            let checked = condition.check(self.window.horizon, &self.window.bounds);
            checked.map_err(|problem| Error::Condition { condition: index, problem })?;
        }
        if conditions.is_empty() {
            let guidance = Guidance {
                conditions: vec![],
                effective_sample_size: config.n_samples as f64,
                base_rate: None,
                n_drawn: config.n_samples,
            };
            return Ok(Guided { trajectories: self.forecast(config)?, guidance });
        }
        config.check()?;
        let equalities = Equalities::new(self, conditions)?;
        let n_values = self.n_steps() * self.model.n_series();
        let n_candidates = effort.n_candidates.min(N_CANDIDATE_VALUES_MAX / n_values).max(config.n_samples);
        let plain = self.candidates(n_candidates, config, None)?;
        let guide = Guide::new(self, conditions, equalities, *config, &plain);
        let n_met = guide.excesses(&plain.paths).iter().filter(|excess| **excess == 0.0).count();
        let (candidates, n_drawn) = match &guide.equalities {
            None => (plain.clone(), n_candidates),
            Some(equalities) => (self.candidates(n_candidates, config, Some(equalities))?, 2 * n_candidates),
        };
        let drawn = guide.draw(candidates, n_drawn, effort.n_draws_max)?;
        let guidance = guide.report(&plain, n_met, &drawn);
        let trajectories = self.trajectories(config.n_samples, drawn.paths.concat())?;
        Ok(Guided { trajectories, guidance })
    }

    fn candidates(
        &self,
        n_candidates: usize,
        config: &SampleConfig,
        equalities: Option<&Equalities>,
    ) -> Result<Weighted, Error> {
        let mut drawn = Weighted::default();
        self.draw(n_candidates, config, NoiseSource::Seed(config.seed), equalities, None, &mut |path, log_weight| {
            drawn.push(path, log_weight);
        })?;
        Ok(drawn)
    }
}

/// Paths with the logarithms of their weights.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weighted {
    pub paths: Vec<Vec<f32>>,
    pub log_weights: Vec<f64>,
}

impl Weighted {
    pub fn push(&mut self, path: Vec<f32>, log_weight: f64) {
        self.paths.push(path);
        self.log_weights.push(log_weight);
    }
}

/// The conditions of one prepared window.
pub(crate) struct Guide<'a> {
    pub prepared: &'a Prepared<'a>,
    pub conditions: &'a [Condition],
    pub equalities: Option<Equalities>,
    pub config: SampleConfig,
    /// Spread of the number of each condition without conditions.
    scales: Vec<f64>,
}

impl<'a> Guide<'a> {
    fn new(
        prepared: &'a Prepared<'a>,
        conditions: &'a [Condition],
        equalities: Option<Equalities>,
        config: SampleConfig,
        plain: &Weighted,
    ) -> Self {
        let mut guide = Self { prepared, conditions, equalities, config, scales: vec![] };
        let spread = |condition: &Condition| {
            let numbers: Vec<f64> = plain.paths.iter().map(|path| guide.read(condition, path)).collect();
            let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
            let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt();
            if deviation > 0.0 { deviation } else { 1.0 }
        };
        guide.scales = conditions.iter().map(spread).collect();
        guide
    }

    /// The number of a condition, of a whole path.
    pub fn read(&self, condition: &Condition, path: &[f32]) -> f64 {
        let n_series = self.prepared.model.n_series();
        let n_nowcast = self.prepared.n_steps() - self.prepared.window.horizon;
        condition.read(&path[n_nowcast * n_series..], n_series)
    }

    /// By how much tilts raise the logarithm of the weight of a path.
    pub fn tilt(&self, path: &[f32]) -> f64 {
        let of_condition = |(condition, scale): (&Condition, &f64)| match condition.demand {
            Demand::Tilt(tilt) => tilt * self.read(condition, path) / scale,
            Demand::Equal(_) | Demand::Within(_) => 0.0,
        };
        self.conditions.iter().zip(&self.scales).map(of_condition).sum()
    }

    /// How far a path is from meeting each limit, in spreads; 0 for other conditions.
    pub fn misses(&self, path: &[f32]) -> impl Iterator<Item = f64> {
        self.conditions.iter().zip(&self.scales).map(move |(condition, scale)| match condition.demand {
            Demand::Equal(_) | Demand::Tilt(_) => 0.0,
            Demand::Within(_) => condition.excess(self.read(condition, path), 0.0) / scale,
        })
    }

    pub fn excesses(&self, paths: &[Vec<f32>]) -> Vec<f64> {
        paths.iter().map(|path| self.misses(path).fold(0.0, f64::max)).collect()
    }

    pub fn limit_not_met(&self, paths: &[Vec<f32>], n_drawn: usize) -> Error {
        let excesses = self.excesses(paths);
        let nearest = (0..paths.len()).min_by(|&a, &b| excesses[a].total_cmp(&excesses[b])).unwrap_or(0);
        let misses: Vec<f64> = self.misses(&paths[nearest]).collect();
        let condition = (0..misses.len()).max_by(|&a, &b| misses[a].total_cmp(&misses[b])).unwrap_or(0);
        let nearest = self.read(&self.conditions[condition], &paths[nearest]);
        Error::Condition { condition, problem: ConditionProblem::NotMet { n_drawn, nearest } }
    }

    /// No candidate could be moved onto the prescribed numbers: tells the one that is furthest out.
    pub fn prescribed_not_met(&self, candidates: &Weighted, n_drawn: usize) -> Error {
        let distance = |condition: &Condition, path: &Vec<f32>| condition.excess(self.read(condition, path), 0.0);
        let prescribed = self.conditions.iter().zip(&self.scales).enumerate();
        let of_condition = |(index, (condition, scale)): (usize, (&Condition, &f64))| {
            let nearest = candidates
                .paths
                .iter()
                .min_by(|a, b| distance(condition, a).total_cmp(&distance(condition, b)))
                .map(|path| (distance(condition, path) / scale, self.read(condition, path)));
            matches!(condition.demand, Demand::Equal(_)).then_some((index, nearest.unwrap_or((0.0, f64::NAN))))
        };
        let furthest = prescribed.filter_map(of_condition).max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let (condition, (_, nearest)) = furthest.unwrap_or((0, (0.0, f64::NAN)));
        Error::Condition { condition, problem: ConditionProblem::NotMet { n_drawn, nearest } }
    }

    fn report(&self, plain: &Weighted, n_met: usize, drawn: &Drawn) -> Guidance {
        let n_candidates = plain.paths.len();
        let share = |paths: &[Vec<f32>], is: &dyn Fn(&Vec<f32>) -> bool| {
            paths.iter().filter(|path| is(path)).count() as f64 / paths.len() as f64
        };
        let below =
            |condition: &Condition, number: f64| share(&plain.paths, &|path| self.read(condition, path) < number);
        let of_condition = |(condition, scale): (&Condition, &f64)| {
            let tolerance = match condition.demand {
                Demand::Equal(number) => EQUAL * (number.abs() + scale),
                Demand::Within(_) | Demand::Tilt(_) => 0.0,
            };
            let is_met = |path: &Vec<f32>| condition.excess(self.read(condition, path), tolerance) == 0.0;
            let satisfaction = share(&drawn.paths, &is_met);
            match condition.demand {
                Demand::Within(_) => ConditionReport {
                    satisfaction,
                    base_rate: Some(share(&plain.paths, &is_met)),
                    quantile_level: None,
                },
                Demand::Equal(number) => {
                    let level = below(condition, number);
                    ConditionReport { satisfaction, base_rate: None, quantile_level: Some(level) }
                }
                Demand::Tilt(_) => {
                    let sum: f64 = drawn.paths.iter().map(|path| self.read(condition, path)).sum();
                    let level = below(condition, sum / drawn.paths.len() as f64);
                    ConditionReport { satisfaction, base_rate: None, quantile_level: Some(level) }
                }
            }
        };
        let direct = n_met as f64 / n_candidates as f64;
        // What was found level by level holds for weighted candidates, where a number is prescribed or paths are favoured.
        let is_limit = |condition: &Condition| matches!(condition.demand, Demand::Within(_));
        let (probability, standard_error) = if self.conditions.iter().all(is_limit) {
            (drawn.probability, drawn.standard_error)
        } else {
            (direct, (direct * (1.0 - direct) / n_candidates as f64).sqrt())
        };
        Guidance {
            conditions: self.conditions.iter().zip(&self.scales).map(of_condition).collect(),
            effective_sample_size: drawn.effective_sample_size,
            base_rate: self.conditions.iter().any(is_limit).then_some(BaseRate {
                probability,
                standard_error,
                n_met,
                n_candidates,
            }),
            n_drawn: drawn.n_drawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};

    use super::*;
    use crate::correlation::Correlation;
    use crate::noise::Stream;
    use crate::pool::Pool;
    use crate::scaling::Scaling;
    use crate::{Aggregate, Bounds, Calendar, Grid, Reading};

    const GAP: f64 = f64::NAN;
    const N_SERIES: usize = 2;
    const HORIZON: usize = 6;
    const SUM: Reading = Reading::Aggregate(Aggregate::Sum);
    const MAX: Reading = Reading::Aggregate(Aggregate::Max);

    /// Covariance of the path of a vector autoregression that starts at 0.
    fn covariance() -> DMatrix<f64> {
        let transition = DMatrix::from_row_slice(2, 2, &[0.7, 0.2, 0.0, 0.8]);
        let noise = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.5, 1.0]);
        let n = HORIZON * N_SERIES;
        let mut path = DMatrix::zeros(n, n);
        let mut of_step = DMatrix::zeros(2, 2);
        for step in 0..HORIZON {
            of_step = &transition * of_step * transition.transpose() + &noise;
            let mut ahead = of_step.clone();
            for later in step..HORIZON {
                path.view_mut((2 * later, 2 * step), (2, 2)).copy_from(&ahead);
                path.view_mut((2 * step, 2 * later), (2, 2)).copy_from(&ahead.transpose());
                ahead = &transition * ahead;
            }
        }
        path
    }

    /// A model whose forecast is the path of that autoregression, exactly.
    fn autoregression() -> Model {
        let mut model = Model::random_walk(&[1.0, 0.0, 0.0, 1.0], 2, HORIZON);
        let factor = covariance().cholesky().expect("positive definite").l();
        model.innovation.deviation = vec![1.0; HORIZON * N_SERIES];
        model.innovation.correlation = Correlation::Dense { factor: factor.transpose().as_slice().to_vec() };
        model
    }

    fn window(horizon: usize) -> Window {
        Window {
            context: Grid::new(N_SERIES, vec![0.0; 8]).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            horizon,
            bounds: vec![Bounds::default(); N_SERIES],
            future: None,
        }
    }

    fn sampling(n_samples: usize) -> SampleConfig {
        SampleConfig { n_samples, seed: 11, passes: 2, ..SampleConfig::default() }
    }

    fn condition(
        reading: Reading,
        series: &[usize],
        steps: std::ops::RangeInclusive<usize>,
        demand: Demand,
    ) -> Condition {
        Condition { reading, series: series.to_vec(), steps, demand }
    }

    fn at_least(limit: f64) -> Demand {
        Demand::Within(Bounds { lower: Some(limit), upper: None })
    }

    fn at_most(limit: f64) -> Demand {
        Demand::Within(Bounds { lower: None, upper: Some(limit) })
    }

    fn guided(model: &Model, window: &Window, conditions: &[Condition], n_samples: usize) -> Guided {
        let effort = Effort { n_draws_max: 200 * n_samples.max(500), ..Effort::default() };
        model.forecast_under(window, conditions, &sampling(n_samples), &effort).expect("conditions that can be met")
    }

    fn refused(model: &Model, window: &Window, conditions: &[Condition]) -> (usize, ConditionProblem) {
        match model.forecast_under(window, conditions, &sampling(20), &Effort::default()) {
            Err(Error::Condition { condition, problem }) => (condition, problem),
            other => panic!("{other:?}"),
        }
    }

    /// Mean and covariance over paths.
    fn moments<'p>(paths: impl Iterator<Item = &'p [f32]>) -> (DVector<f64>, DMatrix<f64>) {
        let paths: Vec<DVector<f64>> =
            paths.map(|path| DVector::from_iterator(path.len(), path.iter().map(|&x| f64::from(x)))).collect();
        let n = paths.len() as f64;
        let mean = paths.iter().sum::<DVector<f64>>() / n;
        let covariance = paths.iter().map(|path| (path - &mean) * (path - &mean).transpose()).sum::<DMatrix<f64>>() / n;
        (mean, covariance)
    }

    fn moments_of(trajectories: &Trajectories) -> (DVector<f64>, DMatrix<f64>) {
        moments(trajectories.values().chunks_exact(trajectories.n_steps() * trajectories.n_series()))
    }

    /// Whether two laws have the same mean and deviations, as far as so many independent paths of the second one can tell.
    fn assert_same(found: &(DVector<f64>, DMatrix<f64>), expected: &(DVector<f64>, DMatrix<f64>), n: f64) {
        for element in 0..found.0.len() {
            let deviation = expected.1[(element, element)].max(1e-12).sqrt();
            let off = (found.0[element] - expected.0[element]) / deviation;
            assert!(off.abs() < 4.0 / n.sqrt(), "mean of {element}: {} not {}", found.0[element], expected.0[element]);
            let ratio = found.1[(element, element)].sqrt() / deviation;
            assert!((ratio - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "deviation of {element}: {ratio} of {deviation}");
        }
    }

    #[test]
    fn without_conditions_and_with_one_that_always_holds_nothing_changes() {
        let (model, window) = (autoregression(), window(HORIZON));
        let plain = model.forecast(&window, &sampling(50)).expect("drawn");
        assert_eq!(guided(&model, &window, &[], 50).trajectories, plain);
        let always = guided(&model, &window, &[condition(SUM, &[0], 1..=6, at_least(-1e6))], 50);
        assert_eq!(always.trajectories, plain);
        assert_eq!(always.guidance.effective_sample_size, 50.0);
        let rate = always.guidance.base_rate.expect("it is a limit");
        assert_eq!((rate.probability, rate.n_met, rate.n_candidates), (1.0, 1000, 1000));
    }

    #[test]
    fn given_its_sum_a_path_has_the_conditional_law_of_the_process() {
        const TOTAL: f64 = 9.0;
        let sum = condition(SUM, &[0, 1], 2..=5, Demand::Equal(TOTAL));
        let drawn = guided(&autoregression(), &window(HORIZON), std::slice::from_ref(&sum), 4000);
        let reads = DVector::from_fn(12, |element, _| if (2..10).contains(&element) { 1.0 } else { 0.0 });
        let answer = covariance() * &reads;
        let variance = reads.dot(&answer);
        let exact = (&answer * (TOTAL / variance), covariance() - &answer * answer.transpose() / variance);
        let found = moments_of(&drawn.trajectories);
        assert_same(&found, &exact, 4000.0);
        // All covariances, too: within five standard errors.
        for (row, column) in (0..12).flat_map(|row| (0..12).map(move |column| (row, column))) {
            let scale = (exact.1[(row, row)] * exact.1[(column, column)]).sqrt();
            let off = (found.1[(row, column)] - exact.1[(row, column)]).abs() / scale;
            assert!(off < 5.0 * 2.0_f64.sqrt() / 4000.0_f64.sqrt(), "{row} {column}: {off}");
        }
        let report = &drawn.guidance;
        assert_eq!((report.conditions[0].satisfaction, report.effective_sample_size), (1.0, 4000.0));
        let level = report.conditions[0].quantile_level.expect("it is prescribed");
        let expected = 1.0 - 0.5 * libm::erfc(TOTAL / variance.sqrt() * std::f64::consts::FRAC_1_SQRT_2);
        assert!((level - expected).abs() < 0.03, "{level} {expected}");
        assert_eq!(report.base_rate, None);
    }

    #[test]
    fn several_prescribed_numbers_hold_together_and_beside_a_pinned_value() {
        let mut supposed = window(HORIZON);
        supposed.future = Some(Grid::new(2, vec![GAP, GAP, GAP, GAP, 2.0, GAP]).expect("whole rows"));
        let conditions = [
            condition(SUM, &[0], 1..=6, Demand::Equal(3.0)),
            condition(Reading::Aggregate(Aggregate::Mean), &[0, 1], 6..=6, Demand::Equal(-1.0)),
            condition(MAX, &[1], 2..=2, Demand::Equal(0.0)),
        ];
        let drawn = guided(&autoregression(), &supposed, &conditions, 4000);
        // The pinned element is 4; the others are linear too.
        let reads = DMatrix::from_fn(4, 12, |row, element| match row {
            0 => f64::from(u8::from(element == 4)),
            1 => f64::from(u8::from(element % 2 == 0)),
            2 => {
                if element >= 10 {
                    0.5
                } else {
                    0.0
                }
            }
            _ => f64::from(u8::from(element == 3)),
        });
        let gain = covariance()
            * reads.transpose()
            * (&reads * covariance() * reads.transpose()).try_inverse().expect("independent");
        let exact =
            (&gain * DVector::from_column_slice(&[2.0, 3.0, -1.0, 0.0]), covariance() - &gain * &reads * covariance());
        let found = moments_of(&drawn.trajectories);
        let decided = |element: usize| element == 3 || element == 4;
        for element in (0..12).filter(|&element| !decided(element)) {
            let deviation = exact.1[(element, element)].sqrt();
            assert!((found.0[element] - exact.0[element]).abs() < 0.065 * deviation, "mean of {element}");
            assert!((found.1[(element, element)].sqrt() / deviation - 1.0).abs() < 0.05, "deviation of {element}");
        }
        assert!(
            (0..4000).all(|k| drawn.trajectories.value(k, 2, 0) == 2.0 && drawn.trajectories.value(k, 1, 1) == 0.0)
        );
        assert!(drawn.guidance.conditions.iter().all(|report| report.satisfaction == 1.0));
    }

    #[test]
    fn above_a_limit_the_law_is_the_truncated_one_however_rare_that_is() {
        let reads = DVector::from_element(12, 1.0);
        let answer = covariance() * &reads;
        let deviation = reads.dot(&answer).sqrt();
        for (alpha, n_samples) in [(0.5, 500), (2.0, 2000), (5.0, 2000)] {
            let limit = condition(SUM, &[0, 1], 1..=6, at_least(alpha * deviation));
            let drawn = guided(&autoregression(), &window(HORIZON), &[limit], n_samples);
            let tail = 0.5 * libm::erfc(alpha * std::f64::consts::FRAC_1_SQRT_2);
            let hazard = libm::exp(-0.5 * alpha * alpha) / (2.0 * std::f64::consts::PI).sqrt() / tail;
            let shrunk = hazard * hazard - alpha * hazard;
            let exact = (
                &answer * (hazard / deviation),
                covariance() - &answer * answer.transpose() * (shrunk / deviation.powi(2)),
            );
            let effective = drawn.guidance.effective_sample_size;
            assert!(effective > 0.5 * n_samples as f64, "{alpha}: {effective}");
            assert_same(&moments_of(&drawn.trajectories), &exact, effective);
            let rate = drawn.guidance.base_rate.expect("it is a limit");
            assert!((rate.probability - tail).abs() < 4.0 * rate.standard_error, "{alpha}: {rate:?} of {tail}");
            assert!(rate.standard_error < 0.3 * rate.probability, "{alpha}: {rate:?}");
            assert_eq!(drawn.guidance.conditions[0].satisfaction, 1.0);
            if alpha == 5.0 {
                assert_eq!((rate.n_met, drawn.guidance.conditions[0].base_rate), (0, Some(0.0)));
            }
        }
    }

    #[test]
    fn a_tilt_moves_a_normal_number_by_as_many_deviations_and_keeps_its_spread() {
        let plain = autoregression().forecast(&window(HORIZON), &sampling(50)).expect("drawn");
        let none = guided(&autoregression(), &window(HORIZON), &[condition(SUM, &[0], 1..=6, Demand::Tilt(0.0))], 50);
        assert_eq!(none.trajectories, plain);
        let answer = covariance() * DVector::from_element(12, 1.0);
        let deviation = answer.sum().sqrt();
        for tilt in [-1.0, 3.0] {
            let favoured = condition(SUM, &[0, 1], 1..=6, Demand::Tilt(tilt));
            // Many candidates, so that the deviation by which a number counts is that of the law.
            let effort = Effort { n_candidates: 8000, n_draws_max: 400_000 };
            let drawn = autoregression()
                .forecast_under(&window(HORIZON), &[favoured], &sampling(2000), &effort)
                .expect("nothing is demanded");
            let effective = drawn.guidance.effective_sample_size;
            assert!(effective > 1000.0, "{tilt}: {effective}");
            assert_same(&moments_of(&drawn.trajectories), &(&answer * (tilt / deviation), covariance()), effective);
            let [report] = drawn.guidance.conditions[..] else { panic!("one condition") };
            let expected = 0.5 * libm::erfc(-tilt * std::f64::consts::FRAC_1_SQRT_2);
            let level = report.quantile_level.expect("it is favoured");
            assert!((level - expected).abs() < 0.03, "{level} {expected}");
            assert_eq!((report.satisfaction, report.base_rate, drawn.guidance.base_rate), (1.0, None, None));
        }
    }

    #[test]
    fn a_tilt_works_beside_a_limit_whose_base_rate_stays_that_of_the_plain_forecast() {
        let deviation = covariance().sum().sqrt();
        let total = |demand| condition(SUM, &[0, 1], 1..=6, demand);
        let both = [total(at_most(deviation)), total(Demand::Tilt(2.0))];
        let drawn = guided(&autoregression(), &window(HORIZON), &both, 1000);
        // A normal number around 2, cut off at 1, in deviations.
        let density = |x: f64| libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
        let below = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let expected = 2.0 - density(-1.0) / below(-1.0);
        let totals = both[0].read_all(&drawn.trajectories).expect("in range");
        let mean = totals.iter().sum::<f64>() / 1000.0 / deviation;
        assert!((mean - expected).abs() < 0.08, "{mean} {expected}");
        let rate = drawn.guidance.base_rate.expect("there is a limit");
        assert!((rate.probability - below(1.0)).abs() < 4.0 * rate.standard_error, "{rate:?}");
        assert_eq!(drawn.guidance.conditions[0].satisfaction, 1.0);
    }

    #[test]
    fn the_default_effort_reaches_one_in_a_hundred_thousand() {
        let limit = condition(SUM, &[0, 1], 1..=6, at_least(4.265 * covariance().sum().sqrt()));
        let drawn = autoregression()
            .forecast_under(&window(HORIZON), &[limit], &SampleConfig::default(), &Effort::default())
            .expect("it can be met");
        let rate = drawn.guidance.base_rate.expect("it is a limit");
        assert!((rate.probability - 1e-5).abs() < 4.0 * rate.standard_error, "{rate:?}");
        assert!(drawn.guidance.effective_sample_size > 50.0 && drawn.guidance.n_drawn <= 20_000);
    }

    /// Moments of those of many plain paths that meet conditions, and how many do.
    fn rejected(plain: &Trajectories, conditions: &[Condition]) -> ((DVector<f64>, DMatrix<f64>), f64) {
        let meets = |path: &&[f32]| {
            conditions.iter().all(|condition| condition.excess(condition.read(path, N_SERIES), 0.0) == 0.0)
        };
        let kept: Vec<&[f32]> = plain.values().chunks_exact(plain.n_steps() * N_SERIES).filter(meets).collect();
        let n = kept.len() as f64;
        (moments(kept.into_iter()), n)
    }

    #[test]
    fn limits_on_ramps_and_extremes_agree_with_rejection() {
        let (model, window) = (autoregression(), window(HORIZON));
        let plain = model.forecast(&window, &sampling(60_000)).expect("drawn");
        for conditions in [
            vec![condition(Reading::Ramp, &[0, 1], 1..=6, at_most(1.1))],
            vec![condition(MAX, &[0], 1..=6, at_least(3.0)), condition(SUM, &[1], 5..=6, at_most(0.0))],
        ] {
            let (expected, n_kept) = rejected(&plain, &conditions);
            assert!((150.0..6000.0).contains(&n_kept), "{n_kept}");
            let drawn = guided(&model, &window, &conditions, 1000);
            let n = 1.0 / (1.0 / n_kept + 1.0 / drawn.guidance.effective_sample_size);
            assert_same(&moments_of(&drawn.trajectories), &expected, n);
            assert!(drawn.guidance.conditions.iter().all(|report| report.satisfaction == 1.0));
            let rate = drawn.guidance.base_rate.expect("they are limits");
            assert!((rate.probability - n_kept / 60_000.0).abs() < 4.0 * rate.standard_error, "{rate:?} {n_kept}");
        }
    }

    #[test]
    fn a_prescribed_sum_and_a_limit_agree_with_rejection() {
        let (model, window) = (autoregression(), window(HORIZON));
        let sum = condition(SUM, &[0, 1], 1..=6, Demand::Equal(20.0));
        let limit = condition(MAX, &[0, 1], 1..=6, at_most(2.6));
        let given_sum = guided(&model, &window, std::slice::from_ref(&sum), 20_000);
        let (expected, n_kept) = rejected(&given_sum.trajectories, std::slice::from_ref(&limit));
        assert!((200.0..4000.0).contains(&n_kept), "{n_kept}");
        let drawn = guided(&model, &window, &[limit, sum], 1000);
        let n = 1.0 / (1.0 / n_kept + 1.0 / drawn.guidance.effective_sample_size);
        assert_same(&moments_of(&drawn.trajectories), &expected, n);
        assert!(drawn.guidance.conditions.iter().all(|report| report.satisfaction == 1.0));
    }

    /// Paths whose values are positive and skewed, with a bound that cuts off the tail.
    fn skewed() -> (Model, Window) {
        let mut model = autoregression();
        let standard: Vec<f64> = (-8..=8).map(|knot| 0.5 * f64::from(knot)).collect();
        let knots: Vec<f64> = standard.iter().map(|x| libm::exp(0.5 * x)).collect();
        let (ranges, edges) = (vec![[-10.0, 10.0]; 2], vec![[None; 2]; 2]);
        model.scaling = Scaling { standard, values: vec![knots; 2], ranges, edges };
        let mut window = window(HORIZON);
        window.context = Grid::new(N_SERIES, vec![1.0; 8]).expect("whole rows");
        window.bounds = vec![Bounds { lower: Some(0.0), upper: Some(6.0) }; 2];
        (model, window)
    }

    #[test]
    fn weights_make_a_prescribed_sum_exact_where_maps_are_not_linear() {
        const TOTAL: f64 = 24.0;
        let (model, window) = skewed();
        let plain = model.forecast(&window, &sampling(200_000)).expect("drawn");
        let reading = |demand| condition(SUM, &[0, 1], 1..=6, demand);
        let near = Demand::Within(Bounds { lower: Some(TOTAL - 0.5), upper: Some(TOTAL + 0.5) });
        let (expected, n_kept) = rejected(&plain, &[reading(near)]);
        assert!(n_kept > 1500.0, "{n_kept}");
        let drawn = guided(&model, &window, &[reading(Demand::Equal(TOTAL))], 2000);
        let effective = drawn.guidance.effective_sample_size;
        assert!(effective > 1000.0, "{effective}");
        assert_same(&moments_of(&drawn.trajectories), &expected, 1.0 / (1.0 / n_kept + 1.0 / effective));
        assert_eq!(drawn.guidance.conditions[0].satisfaction, 1.0);
    }

    #[test]
    fn past_paths_of_the_pool_keep_their_share_under_a_limit() {
        let mut model = autoregression();
        let mut stream = Stream::new(3, 0);
        let heavy = (0..400).map(|_| (0..12).map(|_| (1.5 * stream.normal()) as f32).collect());
        model.pool = Pool::new(0.5, 12, heavy.collect::<Vec<_>>().into_iter());
        let limit = [condition(SUM, &[0, 1], 1..=6, at_least(30.0))];
        let plain = model.forecast(&window(HORIZON), &sampling(60_000)).expect("drawn");
        let (expected, n_kept) = rejected(&plain, &limit);
        let drawn = guided(&model, &window(HORIZON), &limit, 1000);
        // 400 past paths are few above the limit, so there are fewer different ones than samples.
        assert!(drawn.guidance.effective_sample_size < 500.0, "{}", drawn.guidance.effective_sample_size);
        let n = 1.0 / (1.0 / n_kept + 1.0 / drawn.guidance.effective_sample_size);
        assert_same(&moments_of(&drawn.trajectories), &expected, n);
        assert_eq!(drawn.guidance.conditions[0].satisfaction, 1.0);
    }

    #[test]
    fn a_limit_goes_through_the_network() {
        let (model, window) = (crate::prepared::tests::shaken(), crate::prepared::tests::window());
        let plain = model.forecast(&window, &sampling(8000)).expect("drawn");
        let sum = |demand| condition(SUM, &[0, 1], 7..=8, demand);
        let mut sums = sum(at_least(0.0)).read_all(&plain).expect("in range");
        sums.sort_unstable_by(f64::total_cmp);
        let limit = [sum(at_least(sums[7700]))];
        let (expected, n_kept) = rejected(&plain, &limit);
        assert!((100.0..800.0).contains(&n_kept), "{n_kept}");
        let drawn = guided(&model, &window, &limit, 256);
        assert!(drawn.guidance.n_drawn > 1256, "by levels: {}", drawn.guidance.n_drawn);
        let n = 1.0 / (1.0 / n_kept + 1.0 / drawn.guidance.effective_sample_size);
        assert_same(&moments_of(&drawn.trajectories), &expected, n);
    }

    #[test]
    fn limits_reach_beyond_the_trained_horizon_and_prescribed_numbers_do_not() {
        let model = Model::random_walk(&[1.0, 0.0, 0.0, 1.0], 2, 4);
        let deviation = 10.0_f64.sqrt();
        let drawn = guided(&model, &window(10), &[condition(SUM, &[0], 10..=10, at_least(3.0 * deviation))], 1000);
        let hazard = 3.283;
        let mean = drawn.trajectories.mean();
        for step in [1, 5, 10] {
            let expected = hazard * step as f64 / deviation;
            assert!((mean[(step - 1) * 2] - expected).abs() < 0.4, "{step}: {} not {expected}", mean[(step - 1) * 2]);
        }
        let rate = drawn.guidance.base_rate.expect("it is a limit");
        assert!((rate.probability - 1.35e-3).abs() < 4.0 * rate.standard_error, "{rate:?}");
        let prescribed = [condition(SUM, &[0], 2..=5, Demand::Equal(0.0))];
        assert_eq!(refused(&model, &window(10), &prescribed), (0, ConditionProblem::BeyondHorizon { last: 4 }));
    }

    #[test]
    fn what_cannot_be_met_is_refused_by_its_index() {
        let (model, window) = (autoregression(), window(HORIZON));
        let sum = condition(SUM, &[0], 1..=6, Demand::Equal(1.0));
        let half = condition(SUM, &[0], 1..=3, Demand::Equal(1.0));
        let rest = condition(SUM, &[0], 4..=6, at_most(5.0));
        assert_eq!(refused(&model, &window, &[sum.clone(), rest, sum.clone()]), (2, ConditionProblem::Decided));
        let mut supposed = window.clone();
        supposed.future = Some(Grid::new(2, vec![1.0, GAP, 1.0, GAP, 1.0, GAP]).expect("whole rows"));
        assert_eq!(refused(&model, &supposed, &[half]), (0, ConditionProblem::Decided));
        let still = condition(Reading::Ramp, &[0], 1..=6, at_most(0.0));
        assert!(
            matches!(refused(&model, &window, &[still]), (0, ConditionProblem::NotMet { nearest, .. }) if nearest > 0.0)
        );
        // Bounds say it at once, a tail that no error ever had after the search.
        let (bounded_model, bounded) = skewed();
        let high = condition(SUM, &[0, 1], 1..=6, Demand::Equal(73.0));
        assert!(matches!(
            refused(&bounded_model, &bounded, &[high]),
            (0, ConditionProblem::OutOfBounds { highest: 72.0, .. })
        ));
        let mut model = autoregression();
        model.innovation.shape.ranges = vec![[-1.0, 1.0]; 2];
        let far = condition(SUM, &[0, 1], 1..=6, Demand::Equal(12.5));
        let (index, problem) = refused(&model, &window, &[far]);
        assert!(matches!(problem, ConditionProblem::NotMet { nearest, .. } if nearest <= 12.0), "{problem}");
        assert_eq!(index, 0);
        let many = vec![sum; N_CONDITIONS_MAX + 1];
        let refused = model.forecast_under(&window, &many, &sampling(20), &Effort::default());
        assert!(matches!(refused, Err(Error::TooManyConditions { given: 17, limit: 16 })));
    }
}
