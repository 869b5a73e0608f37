//! A trained model: base forecaster, innovations and network together; windows in, trajectories out.

use std::borrow::Cow;

use burn::tensor::Device;

use crate::base::Base;
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::covariates::{self, Covariates, UnknownCovariate};
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::grid::Bounds;
use crate::innovation::Innovation;
use crate::level::NoiseLevel;
use crate::linear::BaseInput;
use crate::noise::NoiseSource;
use crate::observed::{Observed, Past};
use crate::outlook::Outlook;
use crate::pool::Pool;
use crate::role::{Role, Roles};
use crate::sampler::{Draw, PinnedStart, Sampler};
use crate::scaling::{Scaling, fill_from_past};
use crate::schedule::{PASSES_DEFAULT, Schedule};
use crate::stratified::{N_TOGETHER, Stratified};
use crate::support::Support;
use crate::{Calendar, Error, Grid, History, Trajectories, Window};

/// Samples that are denoised together: bounds the memory of a forecast whatever the number of samples.
pub(crate) const N_SAMPLES_TOGETHER: usize = 200;

/// How a forecast is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleConfig {
    /// Trajectories to draw.
    pub n_samples: usize,
    /// Seed of the noise: the same seed gives the same trajectories.
    pub seed: u64,
    /// Denoising passes of a token.
    pub passes: usize,
    /// Order in which the tokens are denoised.
    pub schedule: Schedule,
    /// Standard deviation of the error that the network is told drawn values to have, in standard deviations of an innovation, so
    /// that it leans less on them; at most 1. With 0, the default, they count as what they are. It concerns finished tokens, pinned
    /// ones too, and what a path beyond the trained horizon goes on from; the base takes what was drawn for what it is, and so does
    /// imputation from one stretch to the next.
    pub stabilization: f64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { n_samples: 100, seed: 0, passes: PASSES_DEFAULT, schedule: Schedule::Autoregressive, stabilization: 0.0 }
    }
}

impl SampleConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match [("n_samples", self.n_samples), ("passes", self.passes)].into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Error::Zero { name }),
            None if (0.0..=1.0).contains(&self.stabilization) => Ok(()),
            None => Err(Error::Share { name: "stabilization", value: self.stabilization }),
        }
    }

    /// The level at which drawn values are shown to the network.
    pub(crate) fn stabilization(&self) -> NoiseLevel {
        NoiseLevel::of_measurement(self.stabilization)
    }
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) roles: Roles,
    pub(crate) covariates: Option<Covariates>,
    pub(crate) layout: TokenLayout,
    pub(crate) seasons: Vec<usize>,
    pub(crate) scaling: Scaling,
    /// Which values each modelled series can take.
    pub(crate) supports: Vec<Support>,
    pub(crate) base: Base,
    pub(crate) innovation: Innovation,
    /// Past innovations, which some trajectories take.
    pub(crate) pool: Pool,
    pub(crate) network: DenoiserConfig,
    pub(crate) denoiser: Denoiser,
    /// Share of the predicted velocity that is believed, chosen on the validation windows; 0 leaves the joint Gaussian.
    pub(crate) velocity_share: f64,
    pub(crate) device: Device,
}

impl Model {
    /// Rows of context that a forecast uses; shorter windows are filled up with gaps.
    pub fn context_length(&self) -> usize {
        let of_series = self.n_past() + self.layout.horizon();
        self.covariates.as_ref().map_or(of_series, |covariates| of_series.max(covariates.law.context_length()))
    }

    /// Rows up to an anchor that a forecast from there uses.
    pub(crate) fn n_past(&self) -> usize {
        self.base.context() + self.layout.context_length()
    }

    /// The horizon that was trained; any other one can be forecast.
    pub fn horizon(&self) -> usize {
        self.layout.horizon()
    }

    /// Number of modelled series: targets and past covariates.
    pub fn n_series(&self) -> usize {
        self.layout.n_series
    }

    /// What each series of a window is to the model.
    pub fn roles(&self) -> &[Role] {
        &self.roles.all
    }

    /// The series that are forecast, as columns of a window, in the order in which they come in trajectories.
    pub fn targets(&self) -> Vec<usize> {
        self.roles.target_columns()
    }

    /// The known covariates whose future a window does not supply to its end: a forecast draws what is missing.
    pub fn unknown_covariates(&self, window: &Window) -> Vec<UnknownCovariate> {
        covariates::unknown(&self.roles, window)
    }

    /// Draws joint trajectories of all targets from the end of the window on.
    ///
    /// Where series end before the last row of the context, the steps in between are drawn too, as nowcasts, given what
    /// the other series show. At most one trained horizon is nowcast: a series that is silent for longer counts as a gap.
    /// So are steps whose values were measured with an error that matters: what is drawn there is the true value. Values
    /// of the window's future are kept.
    ///
    /// # Errors
    /// Those of [`Model::prepare`] and of [`Prepared::forecast`](crate::Prepared::forecast).
    pub fn forecast(&self, window: &Window, config: &SampleConfig) -> Result<Trajectories, Error> {
        self.prepare(window)?.forecast(config)
    }

    /// What the base forecaster alone expects of the trained horizon, with every gap up to the issue time filled from the
    /// past, `[step, series]`, standard units; at most the window's horizon.
    pub(crate) fn base_path(&self, window: &Window) -> Vec<f64> {
        let n_series = self.n_series();
        let calendar = self.padded_calendar(window, window.context.n_steps() + self.horizon());
        let standard = self.standard(&window.context, &calendar);
        let filled = fill_from_past(&standard, n_series, self.seasons.first().copied());
        let first = window.context.n_steps();
        let mut path = self.base.outlook(self.input(&filled, &calendar), first - 1).path;
        self.add_effects(&mut path, &calendar, first);
        path.truncate(window.horizon * n_series);
        path
    }

    /// What the base reads.
    pub(crate) fn input<'a>(&'a self, filled: &'a [f64], calendar: &'a Calendar) -> BaseInput<'a> {
        BaseInput { filled, n_series: self.n_series(), calendar, past: &self.roles.past }
    }

    /// Values of the modelled series in standard units, without the effects of covariates, for the first rows of a calendar.
    pub(crate) fn standard(&self, values: &Grid, calendar: &Calendar) -> Vec<f64> {
        let mut standard = self.scaling.standardise_grid(values);
        self.take_out_effects(&mut standard, calendar, 0);
        standard
    }

    /// Effects of covariates on the modelled series at a row of a calendar, standard units; `None` when there are none.
    pub(crate) fn effects(&self, calendar: &Calendar, row: usize) -> Option<Vec<f64>> {
        let covariates = self.covariates.as_ref().filter(|covariates| !covariates.effects.is_none())?;
        Some(covariates.effects.at(calendar, row))
    }

    /// Takes the effects of covariates out of standard values `[step, series]` that begin at a row of a calendar.
    pub(crate) fn take_out_effects(&self, standard: &mut [f64], calendar: &Calendar, first_row: usize) {
        if let Some(covariates) = &self.covariates {
            covariates.effects.take_out(standard, calendar, first_row);
        }
    }

    /// Adds the effects of covariates to a path `[step, series]` that begins at a row of a calendar.
    fn add_effects(&self, path: &mut [f64], calendar: &Calendar, first_row: usize) {
        if let Some(covariates) = &self.covariates {
            covariates.effects.add(path, calendar, first_row);
        }
    }

    /// The window as the joint law sees it: modelled series, and covariates beside the calendar, with what is expected of
    /// them where nothing is supplied. Of a calendar that has got more features since the model was trained, the first are read.
    ///
    /// # Errors
    /// Those of [`Model::prepare`] about the window.
    pub(crate) fn modelled<'w>(&self, window: &'w Window) -> Result<Cow<'w, Window>, Error> {
        if window.calendar.n_features() > self.layout.n_calendar {
            let calendar = window.calendar.first_features(self.layout.n_calendar);
            let window = Window { calendar, ..window.clone() };
            return Ok(Cow::Owned(self.modelled(&window)?.into_owned()));
        }
        self.check(window)?;
        if let Some(given) = window.future.as_ref().map(Grid::n_steps).filter(|&given| given > window.horizon) {
            return Err(Error::FutureLength { given, horizon: window.horizon });
        }
        if self.roles.are_all_targets() {
            return Ok(Cow::Borrowed(window));
        }
        let calendar = match &self.covariates {
            None => window.calendar.clone(),
            Some(covariates) => {
                let known = covariates.expected(&self.roles, window)?;
                let known = known.unwrap_or_else(|| covariates::known_values(&self.roles, window));
                covariates.beside(&window.calendar, &known)
            }
        };
        let columns = &self.roles.modelled;
        let future = window.future.as_ref().map(|future| future.columns(columns));
        Ok(Cow::Owned(Window {
            context: window.context.columns(columns),
            calendar,
            horizon: window.horizon,
            bounds: columns.iter().map(|&series| window.bounds[series]).collect(),
            future: future.filter(|future| future.values().iter().any(|value| !value.is_nan())),
        }))
    }

    /// A history as the joint law sees it.
    pub(crate) fn modelled_history<'h>(&self, history: &'h History) -> Cow<'h, History> {
        covariates::modelled_history(history, &self.roles, self.covariates.as_ref())
    }

    /// Refuses a window that is not the model's.
    fn check(&self, window: &Window) -> Result<(), Error> {
        let (given, expected) = (window.context.n_series(), self.roles.all.len());
        if given != expected || window.bounds.len() != expected {
            return Err(Error::SeriesCount { given, expected });
        }
        if let Some(given) = window.future.as_ref().map(|future| future.n_series()).filter(|&given| given != expected) {
            return Err(Error::SeriesCount { given, expected });
        }
        let (given, expected) = (window.calendar.n_features(), self.layout.n_calendar);
        if given != expected {
            return Err(Error::CalendarFeatures { given, expected });
        }
        let expected = window.context.n_steps() + window.horizon;
        if let Some(given) = window.calendar.n_steps().filter(|&given| given < expected) {
            return Err(Error::CalendarLength { given, expected });
        }
        Ok(())
    }

    /// The noise of forecasts of a seed.
    pub(crate) fn stratified(&self, seed: u64) -> Stratified<'_> {
        Stratified { innovation: &self.innovation, pool: &self.pool, seed, n_together: N_TOGETHER }
    }

    pub(crate) fn sampler(&self) -> Sampler<'_> {
        Sampler {
            denoiser: &self.denoiser,
            velocity_share: self.velocity_share,
            layout: &self.layout,
            device: &self.device,
        }
    }

    /// The view from the last step of a past, and the outlook from there.
    pub(crate) fn condition(&self, past: &Past, calendar: &Calendar) -> (Conditioning, Outlook) {
        let n_series = self.n_series();
        let anchor = past.n_steps(n_series) - 1;
        let input = self.input(&past.filled, calendar);
        let steps = (anchor + 1).saturating_sub(self.layout.context_length())..anchor + 1;
        let mut one_step = OneStep::new(&past.standard, input, &self.innovation, steps, |_| &self.base.linear);
        if !past.sd.is_empty() {
            one_step.doubt(&self.innovation, n_series, &past.sd);
        }
        let mut outlook = self.base.outlook(input, anchor);
        let view = Conditioning::new(&self.layout, &past.filled, &one_step, calendar, anchor, &outlook.path);
        self.add_effects(&mut outlook.path, calendar, anchor + 1);
        (view, outlook)
    }

    /// What is expected of the trained horizon after a past: by the base, and for the effects of covariates.
    pub(crate) fn outlook(&self, past: &Past, calendar: &Calendar) -> Outlook {
        let anchor = past.n_steps(self.n_series()) - 1;
        let mut outlook = self.base.outlook(self.input(&past.filled, calendar), anchor);
        self.add_effects(&mut outlook.path, calendar, anchor + 1);
        outlook
    }

    /// Innovations `[sample, token, element]` of which some samples take theirs from the pool instead. What is known holds for
    /// them, too: first whole tokens, then pinned elements.
    pub(crate) fn with_pool(
        &self,
        mut innovations: Vec<f32>,
        known: &[f32],
        draw: Draw,
        noise: NoiseSource<'_>,
        pinned: Option<PinnedStart<'_>>,
    ) -> Vec<f32> {
        for (index, sample) in innovations.chunks_exact_mut(draw.n_tokens * self.layout.n_elements()).enumerate() {
            let block = draw.first_step / self.horizon();
            let (seed, sample_of_pool) = noise.pool_key(draw.first_sample + index);
            let Some(pooled) = self.pool.path(seed, sample_of_pool, block) else { continue };
            let taken = known.iter().chain(&pooled[known.len()..]);
            let mut path: Vec<f64> = taken.take(sample.len()).map(|&z| f64::from(z)).collect();
            if let Some(start) = pinned {
                start.apply(draw, index, noise, self.n_series(), &mut path);
            }
            sample.iter_mut().zip(path).for_each(|(z, taken)| *z = taken as f32);
        }
        innovations
    }

    /// Standard values `[step, series]` of the first steps of each sample, from the innovations of the samples one after the
    /// other. One outlook serves all samples, or each has its own. What was observed exactly is what it is, not what is
    /// left of it after arithmetic.
    pub(crate) fn paths_of(
        &self,
        innovations: &[f32],
        n_samples: usize,
        n_steps: usize,
        outlooks: &[Outlook],
        observed: &[Observed],
    ) -> Vec<Vec<f64>> {
        let n_elements = n_steps * self.n_series();
        let path = |(sample, innovations): (usize, &[f32])| {
            let innovations: Vec<f64> = innovations[..n_elements].iter().map(|&z| f64::from(z)).collect();
            let errors = self.innovation.colour(&innovations);
            let outlook = &outlooks[sample % outlooks.len()];
            let value = |(element, error)| outlook.value(element, error);
            let mut path: Vec<f64> = errors.into_iter().enumerate().map(value).collect();
            for observed in observed.iter().filter(|observed| observed.sd == 0.0 && observed.step <= n_steps) {
                path[observed.element(self.n_series())] = observed.standard;
            }
            path
        };
        innovations.chunks_exact(innovations.len() / n_samples).enumerate().map(path).collect()
    }

    /// A standard value of a series in data units, inside its bounds and not below what is possible.
    pub(crate) fn restore(&self, series: usize, standard: f64, bounds: &[Bounds]) -> f64 {
        self.supports[series].clip(self.scaling.restore(series, standard), &bounds[series])
    }

    /// The calendar of the window, its last row repeated where the last token or block reaches beyond the horizon.
    pub(crate) fn padded_calendar(&self, window: &Window, n_steps: usize) -> Calendar {
        match window.calendar.n_steps() {
            Some(given) if given < n_steps => window.calendar.extended(n_steps),
            _ => window.calendar.clone(),
        }
    }
}

#[cfg(test)]
mod walk {
    use nalgebra::DMatrix;

    use super::*;
    use crate::attention::Sight;
    use crate::correction::Correction;
    use crate::correlation::Correlation;
    use crate::linear::Linear;
    use crate::noise::Stream;

    impl Model {
        /// A model whose law is known exactly: a random walk, with an untrained network. `factor` is the Cholesky factor of
        /// the covariance of its increments.
        pub(crate) fn random_walk(factor: &[f64], patch: usize, horizon: usize) -> Self {
            let n_series = factor.len().isqrt();
            let n_elements = horizon * n_series;
            let path = DMatrix::from_fn(n_elements, n_elements, |row, column| {
                let is_past = column / n_series <= row / n_series;
                if is_past { factor[row % n_series * n_series + column % n_series] } else { 0.0 }
            });
            let deviation: Vec<f64> = path.row_iter().map(|row| row.norm()).collect();
            let correlation =
                DMatrix::from_fn(n_elements, n_elements, |row, column| path[(row, column)] / deviation[row]);
            let n_horizon_tokens = horizon / patch;
            let layout =
                TokenLayout { n_series, n_calendar: 0, patch, n_context_tokens: 2, n_horizon_tokens, n_known: 0 };
            let network = DenoiserConfig {
                n_elements: patch * n_series,
                n_calendar: 1,
                n_horizon_tokens,
                d_model: 16,
                n_heads: 1,
                n_layers: 2,
                attention: Sight::Causal,
                token: crate::TokenOf::Panel,
            };
            let device = crate::cpu();
            Self {
                roles: Roles::new(&[], n_series).expect("targets"),
                covariates: None,
                layout,
                seasons: vec![],
                scaling: Scaling::identity(n_series),
                supports: vec![Support::default(); n_series],
                base: Base {
                    linear: Linear { members: vec![], lags: vec![], horizon, weights: vec![vec![0.0; horizon]] },
                    correction: Correction::none(&[]),
                },
                innovation: Innovation {
                    deviation,
                    shape: Scaling::identity(n_series),
                    correlation: Correlation::Dense { factor: correlation.transpose().as_slice().to_vec() },
                },
                pool: Pool::new(0.0, n_elements, std::iter::empty()),
                denoiser: Denoiser::new(&network, &mut Stream::new(1, 0), &device),
                network,
                velocity_share: 0.0,
                device,
            }
        }
    }
}
