//! The data of a training run: the history in standard units, its base forecaster and the errors that this makes.

use crate::base::{Base, BaseFitter, BaseInput, BasePlan, CrossFitted, Folds};
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::diffusion::Example;
use crate::innovation::{ErrorPaths, Estimation, Innovation};
use crate::scaling::{Scaling, ScalingKind, fill_from_past, standard_normal_quantile};
use crate::{Error, Grid, History};

const N_ERROR_PATHS_MAX: usize = 4000;
/// Elements of all error paths together: bounds the time that covariances take.
const N_ERROR_ELEMENTS_MAX: usize = 2_000_000;
/// Origins on which the scalings are compared.
const N_COMPARED_ORIGINS: usize = 200;
/// Quantile levels at which the scalings are compared: 0.05, 0.10 … 0.95.
const N_COMPARED_LEVELS: usize = 19;

/// A history in standard units.
pub struct Data<'a> {
    history: &'a History,
    /// How it was brought there.
    pub scaling: Scaling,
    /// Its values, gaps `NaN`, `[time, series]`.
    standard: Vec<f64>,
    /// Its values with gaps filled for the base.
    filled: Vec<f64>,
    /// How windows are cut.
    pub layout: TokenLayout,
}

/// Base, errors and innovations fitted on some of the folds.
pub struct Stage {
    /// The base forecaster and its out-of-fold versions.
    pub cross: CrossFitted,
    /// What its errors are made of.
    pub innovation: Innovation,
    /// How the covariance of the errors is estimated.
    pub estimation: Estimation,
    /// Origins of training windows.
    pub origins: Vec<usize>,
    one_step: OneStep,
    errors: ErrorPaths,
}

impl<'a> Data<'a> {
    /// Brings a history into standard units by a scaling that was fitted on some of its rows.
    pub fn new(history: &'a History, kind: ScalingKind, fitted_on: &Grid, layout: TokenLayout) -> Self {
        let scaling = Scaling::fit(kind, fitted_on);
        let standard = scaling.standardise_grid(&history.values);
        let filled = fill_from_past(&standard, layout.n_series, history.seasons.first().copied());
        Self { history, scaling, standard, filled, layout }
    }

    fn input(&self) -> BaseInput<'_> {
        BaseInput { filled: &self.filled, n_series: self.layout.n_series, calendar: &self.history.calendar }
    }

    /// What chooses and fits base forecasters of this data.
    pub fn base_fitter<'b>(&'b self, plan: &'b BasePlan) -> BaseFitter<'b> {
        BaseFitter::new(self.input(), &self.standard, plan)
    }

    /// The stage of the folds before the last one, which helps to choose how the covariance is estimated.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no covariance can be estimated.
    pub fn stage_for_selection(&self, cross: CrossFitted) -> Result<Stage, Error> {
        let last = cross.folds.n_folds() - 1;
        let earlier: Vec<usize> = (0..last).collect();
        let errors = self.error_paths(&cross, &earlier);
        let estimation = Innovation::choose_estimation(&errors, &self.error_paths(&cross, &[last]))?;
        self.stage(cross, &earlier, errors, estimation)
    }

    /// The stage of all folds.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no covariance can be estimated.
    pub fn stage_of_all(&self, cross: CrossFitted, estimation: Estimation) -> Result<Stage, Error> {
        let all: Vec<usize> = (0..cross.folds.n_folds()).collect();
        let errors = self.error_paths(&cross, &all);
        self.stage(cross, &all, errors, estimation)
    }

    fn stage(
        &self,
        cross: CrossFitted,
        folds: &[usize],
        errors: ErrorPaths,
        estimation: Estimation,
    ) -> Result<Stage, Error> {
        let innovation = Innovation::fit(&errors, estimation)?;
        let base_for = |origin: usize| out_of_fold(&cross, origin);
        let steps = 0..self.history.values.n_steps();
        let one_step = OneStep::new(&self.standard, self.input(), &innovation, steps, base_for);
        let origins = folds.iter().flat_map(|&fold| cross.folds.usable(fold)).collect();
        Ok(Stage { innovation, one_step, estimation, origins, errors, cross })
    }

    /// What the base expects of the path after an origin, and its errors; `NaN` for gaps.
    fn path_and_errors(&self, cross: &CrossFitted, origin: usize) -> (Vec<f64>, Vec<f64>) {
        let path = out_of_fold(cross, origin).paths(self.input(), origin);
        let truth = &self.standard[(origin + 1) * self.layout.n_series..];
        let errors = path.iter().zip(truth).map(|(expected, value)| value - expected).collect();
        (path, errors)
    }

    fn error_paths(&self, cross: &CrossFitted, folds: &[usize]) -> ErrorPaths {
        let n_elements = self.layout.horizon() * self.layout.n_series;
        let n_paths_max = N_ERROR_PATHS_MAX.min(N_ERROR_ELEMENTS_MAX / n_elements).max(1);
        let origins: Vec<usize> = folds.iter().flat_map(|&fold| cross.folds.usable(fold)).collect();
        let stride = origins.len().div_ceil(n_paths_max).max(1);
        let values =
            origins.into_iter().step_by(stride).flat_map(|origin| self.path_and_errors(cross, origin).1).collect();
        ErrorPaths { n_elements, values }
    }

    /// A training window from an origin.
    pub fn example(&self, stage: &Stage, origin: usize) -> Example {
        let (path, errors) = self.path_and_errors(&stage.cross, origin);
        let innovations = stage.innovation.whiten(&errors).iter().map(|&z| z as f32).collect();
        let (calendar, one_step) = (&self.history.calendar, &stage.one_step);
        let conditioning = Conditioning::new(&self.layout, &self.standard, one_step, calendar, origin, &path);
        Example { conditioning, innovations }
    }

    /// Mean quantile loss of the joint Gaussian on a fold, each series in units of its own spread.
    ///
    /// The quantiles of a Gaussian, brought back to data units by an increasing map, are those of the forecast: nothing
    /// is sampled.
    pub fn gaussian_quantile_loss(&self, stage: &Stage, fold: usize) -> f64 {
        let n_series = self.layout.n_series;
        let spreads = Scaling::fit(ScalingKind::Linear, &self.history.values);
        let levels: Vec<f64> = (1..=N_COMPARED_LEVELS).map(|k| k as f64 / (N_COMPARED_LEVELS + 1) as f64).collect();
        let scores: Vec<f64> = levels.iter().map(|&level| standard_normal_quantile(level)).collect();
        let deviations: Vec<f64> =
            (0..self.layout.horizon() * n_series).map(|element| stage.innovation.deviation(element)).collect();
        let origins: Vec<usize> = stage.cross.folds.usable(fold).collect();
        let stride = origins.len().div_ceil(N_COMPARED_ORIGINS).max(1);
        let (mut loss, mut n) = (0.0, 0.0);
        for origin in origins.into_iter().step_by(stride) {
            let (path, errors) = self.path_and_errors(&stage.cross, origin);
            for element in (0..path.len()).filter(|&element| !errors[element].is_nan()) {
                let series = element % n_series;
                let truth = self.history.values.get(origin + 1 + element / n_series, series);
                let spread = spreads.values[series][1] - spreads.values[series][0];
                if spread == 0.0 {
                    continue;
                }
                for (level, score) in levels.iter().zip(&scores) {
                    let standard = path[element] + deviations[element] * score;
                    let quantile = self.history.bounds[series].clip(self.scaling.restore(series, standard));
                    let indicator = if truth <= quantile { 1.0 } else { 0.0 };
                    loss += 2.0 * ((quantile - truth) * (indicator - level)).abs() / spread;
                }
                n += N_COMPARED_LEVELS as f64;
            }
        }
        loss / f64::max(n, 1.0)
    }
}

fn out_of_fold(cross: &CrossFitted, origin: usize) -> &Base {
    &cross.without_fold[cross.folds.of(origin)]
}

impl Stage {
    /// The folds of the origins.
    pub fn folds(&self) -> Folds {
        self.cross.folds
    }

    /// Whole observed paths of errors, standard units.
    pub fn whole_error_paths(&self) -> Vec<Vec<f64>> {
        let paths = self.errors.values.chunks_exact(self.errors.n_elements);
        paths.filter(|path| path.iter().all(|error| !error.is_nan())).map(<[f64]>::to_vec).collect()
    }
}
