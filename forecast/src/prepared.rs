//! A window whose context is encoded, from which forecasts are drawn and which takes in observations as they come.

use std::borrow::Cow;
use std::ops::Range;

use nalgebra::DVector;

use crate::covariates::Futures;
use crate::equality::Equalities;
use crate::model::N_SAMPLES_TOGETHER;
use crate::noise::{NoiseSource, SampleNoise};
use crate::observed::{Observed, Past};
use crate::outlook::Outlook;
use crate::pins::Pins;
use crate::sampler::{Context, Draw, PinnedStart};
use crate::stratified::StratifiedNoise;
use crate::support::make_whole;
use crate::{Calendar, Error, Grid, Model, SampleConfig, Trajectories, Window, parallel};

/// A window with what a model makes of it before anything is sampled.
///
/// What the base expects and the context are those of its anchor, and stay when rows are added with [`Prepared::observe`].
#[derive(Clone, Debug)]
pub struct Prepared<'m> {
    pub(crate) model: &'m Model,
    /// The window as it was given, where it is not what the joint law sees.
    given: Option<Window>,
    /// What the joint law sees of it.
    pub(crate) window: Window,
    /// The last step that counts as past.
    anchor: usize,
    past: Past,
    pub(crate) outlook: Outlook,
    /// The context, and the wholly observed tokens after it.
    context: Context,
    /// What is observed after the anchor, or supposed.
    pub(crate) observed: Vec<Observed>,
    pinned: Option<Pinned>,
}

/// What is observed after the tokens that are known as a whole.
#[derive(Clone, Debug)]
struct Pinned {
    pins: Pins,
    scores: Vec<f64>,
    n_tokens: usize,
}

/// What became of the anchor when rows were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// It stays: the context was not computed again.
    Extended,
    /// It has moved: everything was computed again.
    Reanchored,
}

impl Model {
    /// Computes what all samples of a forecast share.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarFeatures`], [`Error::CalendarLength`] when the window is not the model's
    /// - [`Error::Zero`] when its horizon is 0, [`Error::FutureLength`] when its future is longer
    /// - [`Error::NothingObserved`] when no value of its context is known
    /// - [`Error::BeyondHorizon`] when a value of its future lies beyond the trained horizon, which begins after the last step at
    ///   which every live series is observed
    /// - [`Error::Covariance`] when the observed values after that step determine each other
    /// - [`Error::TooManyPins`] when more than 2500 values of the future depend on each other. Where late series are what makes
    ///   so many, fewer steps are waited for them.
    pub fn prepare(&self, window: &Window) -> Result<Prepared<'_>, Error> {
        let (modelled, mut reach) = (self.modelled(window)?, self.horizon());
        let mut prepared = loop {
            let anchor = self.anchor(&modelled.context, reach)?;
            match self.prepare_at(modelled.clone().into_owned(), anchor) {
                Err(Error::TooManyPins { .. }) if reach > 0 => reach /= 2,
                prepared => break prepared.map_err(|error| self.roles.in_panel(error))?,
            }
        };
        prepared.given = matches!(modelled, Cow::Owned(_)).then(|| window.clone());
        Ok(prepared)
    }

    fn prepare_at(&self, window: Window, anchor: usize) -> Result<Prepared<'_>, Error> {
        if window.horizon == 0 {
            return Err(Error::Zero { name: "horizon" });
        }
        let past = self.past(&window.context, &window.calendar, anchor);
        let calendar = self.padded_calendar(&window, anchor + 1 + self.horizon());
        let (view, outlook) = self.condition(&past, &calendar);
        let context = self.sampler().context(view);
        let (observed, pinned) = (vec![], None);
        let mut prepared =
            Prepared { model: self, given: None, window, anchor, past, outlook, context, observed, pinned };
        prepared.take_in()?;
        Ok(prepared)
    }
}

impl Prepared<'_> {
    /// The window, with the rows that were added.
    pub fn window(&self) -> &Window {
        self.given.as_ref().unwrap_or(&self.window)
    }

    /// Adds observed rows, of which the first was step 1. The forecast still ends where it did: the horizon is shorter by as
    /// many steps, and the first rows of the window's future give way.
    ///
    /// The anchor stays for as long as at most `reanchor_steps` steps, and less than a trained horizon, lie between it and
    /// the last row. Then wholly observed tokens are added to the encoded context, and other values pin the samples. With
    /// covariates, it moves with every row.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`] when the rows have another number of series
    /// - [`Error::Zero`] when no step is left to forecast
    /// - those of [`Model::prepare`]
    ///
    /// After an error everything is as it was.
    pub fn observe(&mut self, rows: &Grid, reanchor_steps: usize) -> Result<Update, Error> {
        let n_new = rows.n_steps();
        let mut window = self.window().clone();
        window.context.extend(rows)?;
        window.horizon = window.horizon.saturating_sub(n_new);
        if window.horizon == 0 {
            return Err(Error::Zero { name: "horizon" });
        }
        window.future = window.future.map(|future| future.rows(n_new.min(future.n_steps())..future.n_steps()));
        let n_after = window.context.n_steps() - 1 - self.anchor;
        // New values of covariates change what the base expects of every step.
        if self.given.is_some() || n_after > reanchor_steps.min(self.model.horizon() - 1) {
            *self = self.model.prepare(&window)?;
            return Ok(Update::Reanchored);
        }
        let mut extended = Self { window, ..self.clone() };
        extended.take_in()?;
        *self = extended;
        Ok(Update::Extended)
    }

    /// Draws joint trajectories of all targets. They begin with the first step after the anchor at which not everything is
    /// observed, which may be before step 1.
    ///
    /// # Errors
    /// - [`Error::Zero`] when samples, passes or a schedule's parameter are 0
    /// - [`Error::Share`] when the stabilization lies outside [0, 1]
    /// - [`Error::Device`] when the device fails
    pub fn forecast(&self, config: &SampleConfig) -> Result<Trajectories, Error> {
        config.check()?;
        let mut values = Vec::with_capacity(config.n_samples * self.n_steps() * self.model.n_series());
        let (noise, futures) = (NoiseSource::Seed(config.seed), self.futures(config)?);
        let mut take = |path: Vec<f32>, _| values.extend(path);
        self.draw(config.n_samples, config, noise, None, futures.as_ref(), &mut take)?;
        self.trajectories(config.n_samples, values)
    }

    /// Draws of the covariates where the window does not supply them.
    fn futures(&self, config: &SampleConfig) -> Result<Option<Futures>, Error> {
        let Some((covariates, given)) = self.model.covariates.as_ref().zip(self.given.as_ref()) else {
            return Ok(None);
        };
        covariates.futures(&self.model.roles, given, config)
    }

    /// The calendar as a sample sees it, with its own draw of the covariates.
    fn calendar_of(&self, sample: usize, futures: &Futures, n_steps: usize) -> Calendar {
        let calendar = match &self.model.covariates {
            Some(covariates) => covariates.beside(&self.window.calendar, &futures.of_sample(sample)),
            None => self.window.calendar.clone(),
        };
        calendar.extended(n_steps)
    }

    /// Hands over the path of each of so many samples, `[step, series]` from the first step of its trajectory on, and the
    /// logarithm of its weight. Covariates that are not supplied are those of the futures, or what is expected of them.
    pub(crate) fn draw(
        &self,
        n_samples: usize,
        config: &SampleConfig,
        noise: NoiseSource<'_>,
        equalities: Option<&Equalities>,
        futures: Option<&Futures>,
        take: &mut dyn FnMut(Vec<f32>, f64),
    ) -> Result<(), Error> {
        let n_skipped = self.n_skipped() * self.model.n_series();
        for first_sample in (0..n_samples).step_by(N_SAMPLES_TOGETHER) {
            let samples = first_sample..n_samples.min(first_sample + N_SAMPLES_TOGETHER);
            for (mut path, log_weight) in self.paths(samples, config, noise, equalities, futures)? {
                path.drain(..n_skipped);
                take(path, log_weight);
            }
        }
        Ok(())
    }

    /// Trajectories of the targets from the paths of samples one after the other.
    pub(crate) fn trajectories(&self, n_samples: usize, values: Vec<f32>) -> Result<Trajectories, Error> {
        let n_nowcast = self.n_after() - self.n_skipped();
        let first_step = 1 - n_nowcast as i32;
        let drawn = Trajectories::new(n_samples, first_step, self.n_steps(), self.model.n_series(), values)?;
        Ok(self.model.roles.targets_of(drawn))
    }

    /// Steps of a trajectory.
    pub(crate) fn n_steps(&self) -> usize {
        self.n_after() + self.window.horizon - self.n_skipped()
    }

    /// Innovations of the tokens that are drawn in one go as they are expected, given what is observed after the anchor.
    pub(crate) fn expected_innovations(&self) -> DVector<f64> {
        let mut expected = vec![0.0; self.n_tokens() * self.model.layout.n_elements()];
        expected.iter_mut().zip(self.context.known()).for_each(|(z, &known)| *z = f64::from(known));
        if let Some(Pinned { pins, scores, .. }) = &self.pinned {
            pins.apply(&mut expected, scores, |_| 0.0);
        }
        DVector::from_vec(expected)
    }

    /// Multiplies a vector of innovations by the covariance that is left by what is observed after the anchor.
    pub(crate) fn project(&self, innovations: &mut [f64]) {
        innovations[..self.context.known().len()].fill(0.0);
        if let Some(Pinned { pins, .. }) = &self.pinned {
            pins.project(innovations);
        }
    }

    /// The noise of some samples of a seed.
    pub(crate) fn noise(&self, seed: u64, samples: &[usize]) -> Vec<SampleNoise> {
        let (n_series, patch, horizon) = (self.model.n_series(), self.model.layout.patch, self.model.horizon());
        let n_total = self.n_after() + self.window.horizon;
        // Whole tokens are drawn, of the block that is last.
        let before_last = (n_total - 1) / horizon * horizon;
        let n_steps = (before_last + (n_total - before_last).div_ceil(patch) * patch).max(self.n_tokens() * patch);
        let n_measured = self.observed.iter().filter(|observed| observed.sd > 0.0).map(|observed| observed.step).max();
        let n_samples = samples.iter().max().map_or(0, |last| last + 1);
        let block = |first: usize| self.model.stratified(seed).noise(0..n_samples, first, horizon.min(n_steps - first));
        let blocks: Vec<StratifiedNoise> = (0..n_steps).step_by(horizon).map(block).collect();
        let source = NoiseSource::Seed(seed);
        let of_sample = |&sample: &usize| {
            let measured =
                (0..n_measured.unwrap_or(0)).flat_map(|step| (0..n_series).map(move |series| (step, series)));
            SampleNoise {
                n_series,
                normals: blocks.iter().flat_map(|block| block.of_sample(sample)).copied().collect(),
                measurements: measured.map(|(step, series)| source.measurement(sample, step, series) as f32).collect(),
                pool_key: source.pool_key(sample),
            }
        };
        samples.iter().map(of_sample).collect()
    }

    /// Whether a sample takes a path of the pool.
    pub(crate) fn is_pooled(&self, noise: &SampleNoise) -> bool {
        self.model.pool.takes(noise.pool_key.1)
    }

    /// Steps after the anchor at which all targets are observed, before the first step of a trajectory.
    fn n_skipped(&self) -> usize {
        let is_observed = |row: &&[f64]| self.model.roles.targets.iter().all(|&target| !row[target].is_nan());
        let complete = self.exact_errors().chunks(self.model.n_series()).take_while(is_observed).count();
        complete.min(self.n_after())
    }

    /// Steps between the anchor and the forecast.
    pub(crate) fn n_after(&self) -> usize {
        self.window.context.n_steps() - 1 - self.anchor
    }

    /// Relative errors of the base over the trained horizon where the truth is observed exactly, else `NaN`.
    fn exact_errors(&self) -> Vec<f64> {
        let mut errors = vec![f64::NAN; self.outlook.path.len()];
        for observed in self.observed.iter().filter(|observed| observed.sd == 0.0) {
            errors[observed.element(self.model.n_series())] = self.model.relative_error(observed, &self.outlook);
        }
        errors
    }

    /// Finds what is observed after the anchor: whole tokens enter the context, the rest pins the samples.
    fn take_in(&mut self) -> Result<(), Error> {
        let (model, layout) = (self.model, &self.model.layout);
        self.observed = model.observed_after(&self.window, self.anchor)?;
        let errors = self.exact_errors();
        let is_whole = |token: &&[f64]| token.iter().all(|error| !error.is_nan());
        let n_whole = errors.chunks_exact(layout.n_elements()).take_while(is_whole).count();
        let innovations: Vec<f32> = model.innovation.whiten(&errors).iter().map(|&z| z as f32).collect();
        let tokens = innovations.chunks_exact(layout.n_elements()).take(n_whole);
        // One by one, so that it makes no difference in how many rounds they come.
        for token in tokens.skip(self.context.n_known()) {
            model.sampler().observe(&mut self.context, token);
        }
        let is_left = |observed: &&Observed| observed.step > n_whole * layout.patch;
        let left: Vec<Observed> = self.observed.iter().filter(is_left).copied().collect();
        let pins = model.pins(&left, n_whole, std::slice::from_ref(&self.outlook))?;
        let scores = model.scores(&left, &self.outlook);
        self.pinned = pins.map(|(pins, n_tokens)| Pinned { pins, scores, n_tokens });
        Ok(())
    }

    /// Steps from the anchor on that are drawn in one go.
    pub(crate) fn n_drawn(&self) -> usize {
        self.model.horizon().min(self.n_after() + self.window.horizon)
    }

    /// Tokens that are drawn for these.
    pub(crate) fn n_tokens(&self) -> usize {
        let n_pinned = self.pinned.as_ref().map_or(0, |pinned| pinned.n_tokens);
        self.n_drawn().div_ceil(self.model.layout.patch).max(n_pinned)
    }

    /// Paths of some of the samples from the anchor on, each `[step, series]`, data units, and the logarithms of their
    /// weights. Where covariates are drawn, each sample has an outlook of its own.
    fn paths(
        &self,
        samples: Range<usize>,
        config: &SampleConfig,
        noise: NoiseSource<'_>,
        equalities: Option<&Equalities>,
        futures: Option<&Futures>,
    ) -> Result<Vec<(Vec<f32>, f64)>, Error> {
        let model = self.model;
        let (n_series, horizon) = (model.n_series(), model.horizon());
        let (first_sample, n_samples) = (samples.start, samples.len());
        let n_steps = self.n_after() + self.window.horizon;
        let n_tokens_for = |n_drawn: usize| n_drawn.div_ceil(model.layout.patch);

        // From the seed of a forecast come noise that is stratified, and choices from the pool.
        let stratified = |draw: Draw| match noise {
            NoiseSource::Seed(seed) => {
                let n_steps = draw.n_tokens * model.layout.patch;
                Some(model.stratified(seed).noise(samples.clone(), draw.first_step, n_steps))
            }
            NoiseSource::Stratified(_) | NoiseSource::Given(_) => None,
        };
        let n_drawn = self.n_drawn();
        let draw = Draw { first_sample, n_samples, first_step: 0, n_tokens: self.n_tokens() };
        let own = stratified(draw);
        let noise_of_block = own.as_ref().map_or(noise, NoiseSource::Stratified);
        let start = self.pinned.as_ref().map(|Pinned { pins, scores, n_tokens }| {
            let scores = std::slice::from_ref(scores);
            PinnedStart { pins, scores, n_tokens: *n_tokens }
        });
        let innovations = model.sampler().draw_after(&self.context, draw, config, noise_of_block, start)?;
        let mut innovations = model.with_pool(innovations, self.context.known(), draw, noise_of_block, start);
        let log_weights = match equalities {
            Some(equalities) => equalities.meet(self, &mut innovations, n_samples),
            None => vec![0.0; n_samples],
        };
        let n_rows = self.anchor + 1 + n_steps.div_ceil(horizon) * horizon;
        let calendar = model.padded_calendar(&self.window, n_rows);
        let calendar_of = |index: usize| match futures {
            None => Cow::Borrowed(&calendar),
            Some(futures) => Cow::Owned(self.calendar_of(first_sample + index, futures, n_rows)),
        };
        let outlooks: Cow<'_, [Outlook]> = match futures {
            None => Cow::Borrowed(std::slice::from_ref(&self.outlook)),
            Some(_) => {
                let samples: Vec<usize> = (0..n_samples).collect();
                Cow::Owned(parallel::map(&samples, |&index| model.outlook(&self.past, &calendar_of(index))))
            }
        };
        let mut block = model.paths_of(&innovations, n_samples, n_drawn, &outlooks, &self.observed);
        let mut drawn: Vec<Vec<f32>> = block.iter().map(|path| self.in_data_units(path)).collect();

        // Beyond the trained horizon every sample goes on from its own path, seen as its past. What it sees is kept in the
        // range of the training values: a linear base that is fed with its own output can run away.
        let is_exact = |observed: &&Observed| observed.sd == 0.0;
        let exact: Vec<usize> = self.observed.iter().filter(is_exact).map(|one| one.element(n_series)).collect();
        let n_pasts = if n_steps > horizon { n_samples } else { 0 };
        let mut pasts = vec![self.past.clone(); n_pasts];
        for first_step in (horizon..n_steps).step_by(horizon) {
            for (index, (past, path)) in pasts.iter_mut().zip(&block).enumerate() {
                let in_range = |(index, &value): (usize, &f64)| model.scaling.into_range(index % n_series, value);
                let mut seen: Vec<f64> = path.iter().enumerate().map(in_range).collect();
                model.take_out_effects(&mut seen, &calendar_of(index), self.anchor + 1 + first_step - horizon);
                past.standard.extend_from_slice(&seen);
                past.filled.extend(seen);
            }
            let n_drawn = horizon.min(n_steps - first_step);
            let condition = |(index, past)| {
                let (mut view, outlook) = model.condition(past, &calendar_of(index));
                view.stabilise(first_step * n_series, &exact, config.stabilization());
                (view, outlook)
            };
            let (views, outlooks): (Vec<_>, Vec<_>) = pasts.iter().enumerate().map(condition).unzip();
            let draw = Draw { first_sample, n_samples, first_step, n_tokens: n_tokens_for(n_drawn) };
            let own = stratified(draw);
            let noise_of_block = own.as_ref().map_or(noise, NoiseSource::Stratified);
            let innovations = model.sampler().draw_from(&views, draw, config, noise_of_block, None)?;
            let innovations = model.with_pool(innovations, &[], draw, noise_of_block, None);
            block = model.paths_of(&innovations, n_samples, n_drawn, &outlooks, &[]);
            drawn.iter_mut().zip(&block).for_each(|(drawn, path)| drawn.extend(self.in_data_units(path)));
        }
        // Paths that meet prescribed numbers do so as they are.
        if equalities.is_none() {
            let samples = samples.zip(&mut drawn);
            samples.for_each(|(sample, path)| make_whole(&model.supports, &self.window.bounds, noise, sample, path));
        }
        for observed in self.observed.iter().filter(|observed| observed.sd == 0.0 && observed.step <= n_steps) {
            drawn.iter_mut().for_each(|path| path[observed.element(n_series)] = observed.value as f32);
        }
        for (element, value) in equalities.iter().flat_map(|equalities| equalities.values()) {
            drawn.iter_mut().for_each(|path| path[element] = value as f32);
        }
        Ok(drawn.into_iter().zip(log_weights).collect())
    }

    fn in_data_units(&self, path: &[f64]) -> Vec<f32> {
        let n_series = self.model.n_series();
        let restore = |(index, &value)| self.model.restore(index % n_series, value, &self.window.bounds) as f32;
        path.iter().enumerate().map(restore).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::module::{Module, ModuleMapper, Param};
    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::correlation::Correlation;
    use crate::denoiser::{Denoiser, DenoiserConfig};
    use crate::innovation::Innovation;
    use crate::noise::Stream;
    use crate::role::Roles;
    use crate::scaling::Scaling;
    use crate::{Bounds, Calendar};

    const GAP: f64 = f64::NAN;
    const INCREMENTS: [f64; 4] = [1.0, 0.0, 0.8, 0.6];

    struct Shake(Stream);

    impl ModuleMapper for Shake {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let shape = tensor.dims();
                let noise: Vec<f32> = (0..shape.iter().product()).map(|_| 0.1 * self.0.normal() as f32).collect();
                let noise = Tensor::from_data(TensorData::new(noise, shape), &tensor.device());
                tensor + noise
            })
        }
    }

    /// A walk with a network of random weights, to which every token matters.
    pub(crate) fn shaken() -> Model {
        let mut model = Model::random_walk(&INCREMENTS, 2, 8);
        model.denoiser = model.denoiser.map(&mut Shake(Stream::new(4, 0)));
        model.velocity_share = 1.0;
        model
    }

    pub(crate) fn window() -> Window {
        let mut stream = Stream::new(2, 0);
        let mut level = 0.0;
        let values = (0..12).flat_map(|_| {
            level += stream.normal();
            [level, level + stream.normal()]
        });
        Window {
            context: Grid::new(2, values.collect()).expect("whole rows"),
            calendar: Calendar::new(0, vec![]).expect("no features"),
            horizon: 10,
            bounds: vec![Bounds::default(); 2],
            future: None,
        }
    }

    fn sample(n_samples: usize) -> SampleConfig {
        SampleConfig { n_samples, seed: 5, passes: 3, ..SampleConfig::default() }
    }

    fn row(a: f64, b: f64) -> Grid {
        Grid::new(2, vec![a, b]).expect("whole rows")
    }

    #[test]
    fn row_by_row_equals_a_full_computation_under_the_same_anchor() {
        let (model, window) = (shaken(), window());
        let rows = [
            row(0.5, 1.0),
            row(1.0, 0.0),
            row(0.5, 0.5),
            row(-0.5, 1.0),
            row(GAP, 2.0),
            row(1.0, 1.5).with_sd(vec![0.0, 0.7]).expect("as many as values"),
        ];
        let mut updated = model.prepare(&window).expect("a window of the model");
        let mut known = window;
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(updated.observe(row, 8).expect("two series"), Update::Extended);
            known.context.extend(row).expect("two series");
            known.horizon -= 1;
            assert_eq!(updated.context.n_known(), (index + 1).min(4) / 2, "whole tokens alone are in the context");
            let anew = model.prepare_at(known.clone(), 11).expect("a window of the model");
            let (updated, anew) = (updated.forecast(&sample(3)), anew.forecast(&sample(3)));
            assert_eq!(updated.expect("drawn"), anew.expect("drawn"));
        }
        let drawn = updated.forecast(&sample(3)).expect("drawn");
        assert_eq!((drawn.first_step(), drawn.n_steps()), (-1, 6), "from the first row that is not wholly known");
        assert_eq!((drawn.value(0, 0, 1), drawn.value(2, 1, 0)), (2.0, 1.0));
    }

    #[test]
    fn a_token_in_the_context_counts_as_one_that_was_drawn_with_these_values() {
        // Pins on all elements of a token say the same as the token itself; only the arithmetic differs.
        let (model, window) = (shaken(), window());
        let mut updated = model.prepare(&window).expect("a window of the model");
        updated.observe(&row(0.5, 1.0), 8).expect("two series");
        updated.observe(&row(1.0, 0.0), 8).expect("two series");
        let mut pinned = model.prepare(&window).expect("a window of the model");
        pinned.window = updated.window.clone();
        pinned.observed = updated.observed.clone();
        let (pins, n_tokens) =
            model.pins(&pinned.observed, 0, std::slice::from_ref(&pinned.outlook)).expect("independent").expect("some");
        pinned.pinned = Some(Pinned { pins, scores: model.scores(&pinned.observed, &pinned.outlook), n_tokens });
        let (updated, pinned) = (updated.forecast(&sample(4)), pinned.forecast(&sample(4)));
        let (updated, pinned) = (updated.expect("drawn"), pinned.expect("drawn"));
        let differences = updated.values().iter().zip(pinned.values()).map(|(a, b)| (a - b).abs());
        assert!(differences.fold(0.0, f32::max) < 1e-4);
    }

    #[test]
    fn a_walk_goes_on_from_the_newest_value() {
        let model = Model::random_walk(&INCREMENTS, 2, 8);
        let mut prepared = model.prepare(&window()).expect("a window of the model");
        let last = window().context.row(11).to_vec();
        for step in 1..4 {
            // The second row is further than what the network sees.
            let far = if step == 1 { 0.0 } else { 20.0 };
            prepared.observe(&row(last[0] + far, last[1] + far), 8).expect("two series");
        }
        let drawn = prepared.forecast(&sample(4000)).expect("drawn");
        assert_eq!((drawn.first_step(), drawn.n_steps()), (1, 7));
        let mean = drawn.mean();
        let off = (mean[0] - last[0] - 20.0, mean[1] - last[1] - 20.0);
        assert!(off.0.abs() < 0.06 && off.1.abs() < 0.06, "{off:?}");
        let variance: f64 =
            (0..4000).map(|k| (f64::from(drawn.value(k, 0, 0)) - mean[0]).powi(2)).sum::<f64>() / 4000.0;
        assert!((variance - 1.0).abs() < 0.08, "{variance}");
    }

    #[test]
    fn the_anchor_moves_after_so_many_steps() {
        let (model, mut known) = (shaken(), window());
        let mut prepared = model.prepare(&known).expect("a window of the model");
        for (index, expected) in [Update::Extended, Update::Extended, Update::Reanchored].into_iter().enumerate() {
            let row = row(index as f64, 1.0);
            assert_eq!(prepared.observe(&row, 2).expect("two series"), expected);
            known.context.extend(&row).expect("two series");
            known.horizon -= 1;
        }
        let (updated, anew) = (prepared.forecast(&sample(3)), model.forecast(&known, &sample(3)));
        assert_eq!(updated.expect("drawn"), anew.expect("drawn"));
    }

    #[test]
    fn a_large_panel_does_not_wait_for_a_late_series() {
        const N_SERIES: usize = 1300;
        let mut model = Model::random_walk(&[1.0], 1, 4);
        model.layout.n_series = N_SERIES;
        model.roles = Roles::new(&[], N_SERIES).expect("targets");
        model.scaling = Scaling::identity(N_SERIES);
        let factor = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        model.innovation = Innovation {
            deviation: vec![1.0; 4 * N_SERIES],
            shape: Scaling::identity(N_SERIES),
            correlation: Correlation::Principal {
                directions: vec![(N_SERIES as f64).sqrt().recip(); N_SERIES],
                factors: [factor.map(|share| 2.0 * share), factor].concat(),
                gains: vec![1.0; 4 * N_SERIES],
                horizon: 4,
            },
        };
        let network = DenoiserConfig { n_elements: N_SERIES, ..model.network.clone() };
        model.denoiser = Denoiser::new(&network, &mut Stream::new(1, 0), &model.device);
        let anchor = |n_late: usize| {
            let mut values = vec![0.0; 8 * N_SERIES];
            (8 - n_late..8).for_each(|step| values[step * N_SERIES] = GAP);
            let context = Grid::new(N_SERIES, values).expect("whole rows");
            let window = Window { context, bounds: vec![Bounds::default(); N_SERIES], ..window() };
            model.prepare(&window).expect("a window of the model").anchor
        };
        assert_eq!((anchor(1), anchor(2)), (6, 7), "1299 values are met, 2598 are not");
    }

    #[test]
    fn a_refused_row_changes_nothing() {
        let (model, window) = (shaken(), window());
        let mut prepared = model.prepare(&window).expect("a window of the model");
        let before = prepared.forecast(&sample(3)).expect("drawn");
        let three = Grid::new(3, vec![1.0; 3]).expect("whole rows");
        assert!(matches!(prepared.observe(&three, 8), Err(Error::SeriesCount { given: 3, expected: 2 })));
        let all = Grid::new(2, vec![1.0; 20]).expect("whole rows");
        assert!(matches!(prepared.observe(&all, 8), Err(Error::Zero { name: "horizon" })));
        assert_eq!(before, prepared.forecast(&sample(3)).expect("drawn"));
    }

    #[test]
    fn a_row_takes_the_place_of_what_was_supposed_of_its_step() {
        let (model, mut window) = (Model::random_walk(&INCREMENTS, 2, 8), window());
        window.future = Some(Grid::new(2, vec![9.0, GAP, GAP, GAP, -2.0, GAP]).expect("whole rows"));
        let mut prepared = model.prepare(&window).expect("a window of the model");
        assert_eq!(prepared.forecast(&sample(2)).expect("drawn").value(1, 0, 0), 9.0);
        prepared.observe(&row(1.0, 1.0), 8).expect("two series");
        let drawn = prepared.forecast(&sample(2)).expect("drawn");
        assert_eq!((drawn.first_step(), drawn.value(1, 1, 0)), (1, -2.0));
    }
}
