//! The data of a training run: the history in standard units, its base forecaster and the errors that this makes.

use std::time::Instant;

use crate::base::Base;
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::correction::{Correction, LinearPath, Plan, Shares};
use crate::diffusion::Example;
use crate::effects::{EffectFitter, EffectKind, Effects};
use crate::folds::{CrossFitted, Folds};
use crate::innovation::{ErrorPaths, Estimation, Innovation};
use crate::last_fold::LastFold;
use crate::linear::{BaseInput, Linear, LinearFitter, LinearPlan};
use crate::metrics::{Outcome, score_each};
use crate::noise::{Noise, NoiseSource, Stream};
use crate::outlook::Outlook;
use crate::pool::{POOL_SHARES, Pool};
use crate::reliability::{Reliability, reliability};
use crate::role::Roles;
use crate::sampler::{Draw, Sampler};
use crate::scaling::{Scaling, ScalingKind, fill_from_past};
use crate::stratified::Stratified;
use crate::support::{Support, make_whole};
use crate::thinning::thinned;
use crate::{Error, Grid, History, SampleConfig, Trajectories, parallel};

/// Origins whose paths are kept.
const N_PATHS_MAX: usize = 4000;
/// Elements of all kept paths together: bounds memory, and the time that covariances and trees take.
const N_PATH_ELEMENTS_MAX: usize = 1_500_000;
/// So many paths are kept where they have no more than so many elements, that every fold has some; of longer ones a few.
const N_PATHS_MIN: std::ops::RangeInclusive<usize> = 8..=40;
const N_PATH_ELEMENTS_MIN: usize = 10_000_000;
/// Origins on which stages are compared, and draws of each.
const N_COMPARED_ORIGINS: usize = 48;
const N_COMPARED_SAMPLES: usize = 48;

/// A Gaussian law has to score better by this than one that keeps the shape of its margins: scores hardly tell a wrong shape,
/// coverage does.
const GAUSSIAN_PRICE: f64 = 0.06;

/// A history in standard units.
pub struct Data<'a> {
    /// The modelled series, with known covariates beside the calendar.
    history: &'a History,
    roles: &'a Roles,
    /// How it was brought there.
    pub scaling: Scaling,
    /// Which values each series can take, as those rows say.
    pub supports: Vec<Support>,
    /// Effects of known covariates, which its values do not have any more.
    effects: Effects,
    /// Its values, gaps `NaN`, `[time, series]`.
    standard: Vec<f64>,
    /// Its values with gaps filled for the base.
    filled: Vec<f64>,
    /// How windows are cut.
    pub layout: TokenLayout,
}

/// A path from an origin as the base saw it without knowing its fold.
struct KnownPath {
    origin: usize,
    outlook: Outlook,
    /// Errors relative to the spread, `[lead, series]`; `NaN` for gaps.
    errors: Vec<f64>,
}

/// A base forecaster, out of fold, and the paths that it was measured on.
pub struct Measured {
    base: CrossFitted<Base>,
    /// The folds that it was fitted on.
    used: Vec<usize>,
    paths: Vec<KnownPath>,
}

/// How the law of the errors is estimated and drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// How the law is estimated.
    pub estimation: Estimation,
    /// Share of the trajectories that take a past path.
    pub pool_share: f64,
    /// Its loss on the last fold.
    pub loss: f64,
}

/// Base, errors and innovations fitted on some of the folds.
pub struct Stage {
    measured: Measured,
    /// What the errors are made of.
    pub innovation: Innovation,
    /// Innovations of all paths, `[lead, series]`; `NaN` for gaps.
    innovations: Vec<Vec<f32>>,
    pool: Pool,
    half_life: Option<f64>,
    one_step: OneStep,
}

impl<'a> Data<'a> {
    /// Brings a history into standard units by a scaling that was fitted on some of its rows.
    pub fn new(
        history: &'a History,
        roles: &'a Roles,
        kind: ScalingKind,
        fitted_on: &Grid,
        layout: TokenLayout,
    ) -> Self {
        let scaling = Scaling::fit(kind, fitted_on).within(&history.bounds, fitted_on);
        let supports = Support::of_each(fitted_on, &history.bounds);
        let standard = scaling.standardise_grid(&history.values);
        let filled = fill_from_past(&standard, layout.n_series, history.seasons.first().copied());
        Self { history, roles, scaling, supports, effects: Effects::default(), standard, filled, layout }
    }

    /// Takes out the effects of known covariates, as they are on some folds. Where their kind is not given it is chosen on the
    /// last fold, which must not be used.
    pub fn take_out_effects(
        &mut self,
        plan: &LinearPlan,
        used: &[usize],
        kind: Option<Option<EffectKind>>,
    ) -> Option<EffectKind> {
        if self.layout.n_known == 0 {
            return None;
        }
        let season = self.history.seasons.first().copied();
        let fitter = EffectFitter {
            standard: &self.standard,
            n_series: self.layout.n_series,
            targets: &self.roles.targets,
            n_known: self.layout.n_known,
            calendar: &self.history.calendar,
            season,
            plan,
        };
        let (effects, kind) = fitter.fit(used, kind);
        effects.take_out(&mut self.standard, &self.history.calendar, 0);
        self.filled = fill_from_past(&self.standard, self.layout.n_series, season);
        self.effects = effects;
        kind
    }

    /// The effects of known covariates, how values are brought into standard units, and which ones are possible.
    pub fn into_parts(self) -> (Effects, Scaling, Vec<Support>) {
        (self.effects, self.scaling, self.supports)
    }

    fn input(&self) -> BaseInput<'_> {
        BaseInput {
            filled: &self.filled,
            n_series: self.layout.n_series,
            calendar: &self.history.calendar,
            past: &self.roles.past,
        }
    }

    /// What chooses and fits the linear part of base forecasters of this data.
    pub fn linear_fitter<'b>(&'b self, plan: &'b LinearPlan) -> LinearFitter<'b> {
        LinearFitter::new(self.input(), &self.standard, plan)
    }

    fn errors(&self, origin: usize, path: &[f64]) -> Vec<f64> {
        let truth = &self.standard[(origin + 1) * self.layout.n_series..];
        path.iter().zip(truth).map(|(expected, value)| value - expected).collect()
    }

    /// Measures a linear forecaster as it is.
    pub fn measure(&self, linear: CrossFitted<Linear>, used: Vec<usize>) -> Measured {
        let folds = linear.folds;
        let base = linear.map(|linear| Base { linear, correction: Correction::none(&self.history.seasons) });
        let known = |&origin: &usize| {
            let path = base.out_of_fold(origin).linear.paths(self.input(), origin);
            let errors = self.errors(origin, &path);
            KnownPath { origin, outlook: Outlook { spread: vec![1.0; path.len()], path, moved: None }, errors }
        };
        let paths = parallel::map(&self.kept_origins(folds), known);
        Measured { base, used, paths }
    }

    /// Fits the correction of a measured linear forecaster, and measures the whole; what is not to be corrected stays as it is.
    pub fn correct(&self, measured: Measured, shares: Shares, plan: Plan) -> Measured {
        if shares == Shares::default() {
            return measured;
        }
        let Measured { base, used, paths } = measured;
        let (paths, seasons, folds) = (linear_paths(paths), &self.history.seasons, base.folds);
        let corrections = Correction::cross_fit(self.input(), seasons, &paths, folds, &used, shares, plan);
        self.corrected(base, used, &paths, corrections)
    }

    /// As [`Data::correct`], once for each of the [corrections](Correction::candidates) among which the last fold may choose. It must
    /// not be used.
    pub fn corrections(&self, measured: Measured, plan: Plan) -> Vec<Measured> {
        let Measured { base, used, paths } = measured;
        let (paths, seasons, folds) = (linear_paths(paths), &self.history.seasons, base.folds);
        let candidates = Correction::candidates(self.input(), seasons, &paths, folds, &used, plan);
        let corrected = |corrections| self.corrected(base.clone(), used.clone(), &paths, corrections);
        candidates.into_iter().map(corrected).collect()
    }

    /// A base with corrections of its linear paths.
    fn corrected(
        &self,
        base: CrossFitted<Base>,
        used: Vec<usize>,
        paths: &[LinearPath],
        corrections: CrossFitted<Correction>,
    ) -> Measured {
        let known = |linear: &LinearPath| {
            let origin = linear.origin;
            let outlook = corrections.out_of_fold(origin).apply(self.input(), origin, linear.path.clone());
            let truth = self.standard[(origin + 1) * self.layout.n_series..].iter().take(outlook.path.len());
            let relative = |(element, &value)| outlook.relative(element, value);
            KnownPath { origin, errors: truth.enumerate().map(relative).collect(), outlook }
        };
        let paths = parallel::map(paths, known);
        let base = base.zip(corrections, |base, correction| Base { correction, ..base });
        Measured { base, used, paths }
    }

    /// Evenly spread origins of all folds, the newest one of them.
    fn kept_origins(&self, folds: Folds) -> Vec<usize> {
        let n_elements = self.layout.horizon() * self.layout.n_series;
        let n_paths_min = (N_PATH_ELEMENTS_MIN / n_elements).clamp(*N_PATHS_MIN.start(), *N_PATHS_MIN.end());
        let n_paths_max = (N_PATH_ELEMENTS_MAX / n_elements).clamp(n_paths_min, N_PATHS_MAX);
        thinned((0..folds.n_folds()).flat_map(|fold| folds.usable(fold)), n_paths_max)
    }

    /// The stage of a measured base with the given law of its errors.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no covariance can be estimated.
    pub fn stage(&self, measured: Measured, law: Law) -> Result<Stage, Error> {
        let errors = measured.error_paths(self, |fold| measured.used.contains(&fold));
        let innovation = Innovation::fit(&errors, law.estimation)?;
        let innovations = parallel::map(&measured.paths, |path| whitened(&innovation, path));
        let used = measured.paths_of(|fold| measured.used.contains(&fold));
        let pool = Pool::new(law.pool_share, errors.n_elements, used.iter().map(|&path| innovations[path].clone()));
        let base_for = |origin: usize| &measured.base.out_of_fold(origin).linear;
        let steps = 0..self.history.values.n_steps();
        let one_step = OneStep::new(&self.standard, self.input(), &innovation, steps, base_for);
        Ok(Stage { measured, innovation, innovations, pool, half_life: law.estimation.half_life, one_step })
    }

    /// Of the laws that are likeliest on the last fold, one for each shape and share of the pool, the one that scores best
    /// there.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no covariance can be estimated.
    pub fn choose_law(&self, measured: &Measured) -> Result<Law, Error> {
        let last = measured.base.folds.n_folds() - 1;
        let earlier = measured.error_paths(self, |fold| measured.used.contains(&fold));
        let later = measured.error_paths(self, |fold| fold == last);
        let mut best: Option<Law> = None;
        for shape in [ScalingKind::Linear, ScalingKind::NormalScore] {
            let estimation = Innovation::choose_estimation(shape, &earlier, &later)?;
            let innovation = Innovation::fit(&earlier, estimation)?;
            let used = measured.paths_of(|fold| measured.used.contains(&fold)).into_iter();
            let past = used.map(|path| whitened(&innovation, &measured.paths[path]));
            let mut pool = Pool::new(0.0, earlier.n_elements, past);
            for pool_share in POOL_SHARES {
                pool.share = pool_share;
                let price = if shape == ScalingKind::Linear { GAUSSIAN_PRICE } else { 0.0 };
                let loss = self.loss_of_law(measured, &innovation, &pool)? + price;
                if best.is_none_or(|best| loss < best.loss) {
                    best = Some(Law { estimation, pool_share, loss });
                }
            }
        }
        best.ok_or(Error::Covariance)
    }

    /// The loss on the last fold where what is denoised is white noise. Samples are independent: paths of the pool do not share out
    /// the law between them, and of so few samples that would count against them.
    fn loss_of_law(&self, measured: &Measured, innovation: &Innovation, pool: &Pool) -> Result<f64, Error> {
        let n_series = self.layout.n_series;
        let n_elements = self.layout.horizon() * n_series;
        let scores = self.score_draws(measured, innovation, 0, &mut |_, seed| {
            let noise = Noise::new(seed);
            let of_sample = |sample: usize| match pool.path(seed, sample, 0) {
                Some(path) => path.to_vec(),
                None => (0..n_elements)
                    .map(|element| {
                        noise.normal(sample as u32, (element / n_series) as u32, (element % n_series) as u32)
                    })
                    .collect(),
            };
            Ok((0..N_COMPARED_SAMPLES).flat_map(of_sample).collect())
        })?;
        Ok(scores.loss())
    }

    /// What the last fold scores, from an origin on, where what is denoised is drawn by a sampler.
    ///
    /// # Errors
    /// Those of [`Sampler::draw`].
    pub fn score_sampler(&self, stage: &Stage, sampler: &Sampler<'_>, first_origin: usize) -> Result<LastFold, Error> {
        self.score_draws(&stage.measured, &stage.innovation, first_origin, &mut |path, seed| {
            self.draw(stage, sampler, path, seed)
        })
    }

    /// How reliable forecasts of the last fold are, from an origin on, where what is denoised is drawn by a sampler.
    ///
    /// # Errors
    /// Those of [`Sampler::draw`].
    pub fn reliability_of_sampler(
        &self,
        stage: &Stage,
        sampler: &Sampler<'_>,
        first_origin: usize,
    ) -> Result<Reliability, Error> {
        let mut draw = |path, seed| self.draw(stage, sampler, path, seed);
        reliability(&self.outcomes(&stage.measured, &stage.innovation, first_origin, &mut draw)?)
    }

    /// Seconds that [`Data::score_sampler`] takes, from one of its draws; the one before it makes things ready.
    ///
    /// # Errors
    /// Those of [`Sampler::draw`].
    pub fn seconds_of_sampler(&self, stage: &Stage, sampler: &Sampler<'_>, first_origin: usize) -> Result<f64, Error> {
        let paths = stage.measured.last_paths(first_origin);
        let mut seconds = 0.0;
        for &path in paths.iter().take(2) {
            let begun = Instant::now();
            self.draw(stage, sampler, path, 0)?;
            seconds = begun.elapsed().as_secs_f64();
        }
        Ok(seconds * paths.len().min(N_COMPARED_ORIGINS) as f64)
    }

    /// Innovations `[sample, element]` that a sampler draws for the index of a path, with those of samples of the pool.
    fn draw(&self, stage: &Stage, sampler: &Sampler<'_>, path: usize, seed: u64) -> Result<Vec<f32>, Error> {
        let draw = Draw {
            first_sample: 0,
            n_samples: N_COMPARED_SAMPLES,
            first_step: 0,
            n_tokens: self.layout.n_horizon_tokens,
        };
        let config = SampleConfig { n_samples: N_COMPARED_SAMPLES, ..SampleConfig::default() };
        let Example { conditioning, .. } = self.example(stage, path);
        let Stage { innovation, pool, .. } = stage;
        let samples = Stratified { innovation, pool, seed, n_together: N_COMPARED_SAMPLES };
        let noise = samples.noise(0..N_COMPARED_SAMPLES, 0, self.layout.horizon());
        let mut drawn = sampler.draw_from(&[conditioning], draw, &config, NoiseSource::Stratified(&noise), None)?;
        for (sample, innovations) in drawn.chunks_exact_mut(pool.n_elements).enumerate() {
            if let Some(path) = pool.path(seed, sample, 0) {
                innovations.copy_from_slice(path);
            }
        }
        Ok(drawn)
    }

    /// What the last fold scores, from an origin on, for innovations `[sample, element]` that are drawn for the index of a path
    /// and a seed.
    fn score_draws(
        &self,
        measured: &Measured,
        innovation: &Innovation,
        first_origin: usize,
        draw: &mut dyn FnMut(usize, u64) -> Result<Vec<f32>, Error>,
    ) -> Result<LastFold, Error> {
        let outcomes = self.outcomes(measured, innovation, first_origin, draw)?;
        let folds = measured.base.folds;
        let (scores, windows) = score_each(&self.target_rows(0..folds.start(folds.n_folds() - 1)), 1, &outcomes);
        Ok(LastFold { scores, windows })
    }

    /// Forecasts of windows of the last fold, and what came.
    fn outcomes(
        &self,
        measured: &Measured,
        innovation: &Innovation,
        first_origin: usize,
        draw: &mut dyn FnMut(usize, u64) -> Result<Vec<f32>, Error>,
    ) -> Result<Vec<Outcome>, Error> {
        let (n_series, horizon, bounds) = (self.layout.n_series, self.layout.horizon(), &self.history.bounds);
        let paths = measured.last_paths(first_origin);
        let mut outcomes = vec![];
        for (seed, index) in thinned(paths, N_COMPARED_ORIGINS).into_iter().enumerate() {
            let path = &measured.paths[index];
            let drawn = draw(index, seed as u64)?;
            let first = path.origin + 1;
            let mut expected = path.outlook.path.clone();
            self.effects.add(&mut expected, &self.history.calendar, first);
            let mut values = Vec::with_capacity(drawn.len());
            for (sample, innovations) in drawn.chunks_exact(horizon * n_series).enumerate() {
                let innovations: Vec<f64> = innovations.iter().map(|&z| f64::from(z)).collect();
                let errors = innovation.colour(&innovations).into_iter().zip(&expected);
                let values_of = errors.enumerate().map(|(element, (relative, expected))| {
                    let series = element % n_series;
                    let restored = self.scaling.restore(series, expected + path.outlook.error(element, relative));
                    self.supports[series].clip(restored, &bounds[series]) as f32
                });
                let mut sample_path: Vec<f32> = values_of.collect();
                make_whole(&self.supports, bounds, NoiseSource::Seed(seed as u64), sample, &mut sample_path);
                values.extend(sample_path);
            }
            outcomes.push(Outcome {
                trajectories: self.roles.targets_of(Trajectories::new(
                    N_COMPARED_SAMPLES,
                    1,
                    horizon,
                    n_series,
                    values,
                )?),
                truth: self.target_rows(first..first + horizon),
            });
        }
        Ok(outcomes)
    }

    fn target_rows(&self, rows: std::ops::Range<usize>) -> Grid {
        let rows = self.history.values.rows(rows);
        if self.roles.past.is_empty() { rows } else { rows.columns(&self.roles.targets) }
    }

    /// A training window from a path of the stage.
    pub fn example(&self, stage: &Stage, path: usize) -> Example {
        let KnownPath { origin, outlook, .. } = &stage.measured.paths[path];
        let innovations = stage.innovations[path].clone();
        let (calendar, one_step) = (&self.history.calendar, &stage.one_step);
        let conditioning = Conditioning::new(&self.layout, &self.standard, one_step, calendar, *origin, &outlook.path);
        Example { conditioning, innovations }
    }
}

fn linear_paths(paths: Vec<KnownPath>) -> Vec<LinearPath> {
    let of_linear = |KnownPath { origin, outlook, errors }| LinearPath { origin, path: outlook.path, errors };
    paths.into_iter().map(of_linear).collect()
}

/// Innovations of a path, as the network takes them.
fn whitened(innovation: &Innovation, path: &KnownPath) -> Vec<f32> {
    innovation.whiten(&path.errors).iter().map(|&z| z as f32).collect()
}

impl Measured {
    /// How much of the base's correction is believed.
    pub fn shares(&self) -> Shares {
        self.base.whole.correction.shares
    }

    /// Indices of the paths of some folds.
    fn paths_of(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.paths.len()).filter(|&path| is_wanted(self.base.folds.of(self.paths[path].origin))).collect()
    }

    /// Indices of the paths of the last fold, from an origin on.
    fn last_paths(&self, first_origin: usize) -> Vec<usize> {
        let last = self.base.folds.n_folds() - 1;
        let paths = self.paths_of(|fold| fold == last).into_iter();
        paths.filter(|&path| self.paths[path].origin >= first_origin).collect()
    }

    fn error_paths(&self, data: &Data<'_>, is_wanted: impl Fn(usize) -> bool) -> ErrorPaths {
        let n_series = data.layout.n_series;
        let n_elements = data.layout.horizon() * n_series;
        let values =
            self.paths_of(is_wanted).into_iter().flat_map(|path| self.paths[path].errors.iter().copied()).collect();
        ErrorPaths { n_series, n_elements, values }
    }
}

impl Stage {
    /// The number of the path to learn from next, of so many, the oldest first.
    ///
    /// Paths weigh as much as they do in the law of the errors: otherwise the network would learn to undo the difference.
    pub fn draw_path(&self, n_paths: usize, stream: &mut Stream) -> usize {
        let uniform = stream.uniform();
        let age = match self.half_life {
            None => uniform,
            // The inverse of the distribution of ages whose density halves with every half-life.
            Some(half_life) => -half_life * libm::log2(1.0 - uniform * (1.0 - libm::exp2(-1.0 / half_life))),
        };
        (((1.0 - age) * n_paths as f64) as usize).min(n_paths - 1)
    }

    /// Indices of the paths to learn from.
    pub fn training_paths(&self) -> Vec<usize> {
        self.measured.paths_of(|fold| self.measured.used.contains(&fold))
    }

    /// Indices of the paths of the last fold, from an origin on.
    pub fn validation_paths(&self, first_origin: usize) -> Vec<usize> {
        self.measured.last_paths(first_origin)
    }

    /// The base forecaster, the innovations, their pool, and whole observed paths of errors, `[path, lead, series]`,
    /// standard units.
    pub fn into_parts(self) -> (Base, Innovation, Pool, Vec<Vec<f64>>) {
        let error = |path: &KnownPath| -> Vec<f64> {
            path.errors.iter().enumerate().map(|(element, &relative)| path.outlook.error(element, relative)).collect()
        };
        let is_whole = |path: &Vec<f64>| path.iter().all(|error| !error.is_nan());
        let errors = self.measured.paths.iter().map(error).filter(is_whole).collect();
        (self.measured.base.whole, self.innovation, self.pool, errors)
    }
}
