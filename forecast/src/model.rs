//! A trained model: base forecaster, innovations and network together; windows in, trajectories out.

use burn::tensor::Device;

use crate::base::{Base, Outlook};
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::grid::Bounds;
use crate::innovation::{Innovation, Pins};
use crate::linear::BaseInput;
use crate::pool::Pool;
use crate::sampler::{Draw, PinnedStart, Sampler};
use crate::scaling::{Scaling, fill_from_past};
use crate::schedule::{PASSES_DEFAULT, Schedule};
use crate::{Calendar, Error, Trajectories, Window};

/// Samples that are denoised together: bounds the memory of a forecast whatever the number of samples.
const N_SAMPLES_TOGETHER: usize = 200;

/// How a forecast is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleConfig {
    /// Trajectories to draw.
    pub n_samples: usize,
    /// Seed of the noise: the same seed gives the same trajectories.
    pub seed: u64,
    /// Denoising passes of a token.
    pub passes: usize,
    /// Order in which the tokens are denoised.
    pub schedule: Schedule,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { n_samples: 100, seed: 0, passes: PASSES_DEFAULT, schedule: Schedule::Autoregressive }
    }
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) layout: TokenLayout,
    pub(crate) seasons: Vec<usize>,
    pub(crate) scaling: Scaling,
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

/// A window in standard units, cut at its anchor.
struct Anchored {
    /// Values up to the anchor, gaps `NaN`, `[time, series]`.
    standard: Vec<f64>,
    /// The same with gaps filled for the base.
    filled: Vec<f64>,
    /// The last step at which every live series is observed.
    anchor: usize,
    /// Observed elements after the anchor.
    pinned: Vec<Pinned>,
}

/// An element after the anchor that is observed.
struct Pinned {
    /// Steps from the anchor; 1 is the next one.
    step: usize,
    series: usize,
    /// Data units.
    value: f64,
    /// Standard units.
    standard: f64,
}

impl Model {
    /// Rows of context that a forecast uses; shorter windows are filled up with gaps.
    pub fn context_length(&self) -> usize {
        self.base.context() + self.layout.context_length() + self.layout.horizon()
    }

    /// The horizon that was trained; any other one can be forecast.
    pub fn horizon(&self) -> usize {
        self.layout.horizon()
    }

    /// Number of series.
    pub fn n_series(&self) -> usize {
        self.layout.n_series
    }

    /// The base forecaster in words.
    pub fn base_description(&self) -> String {
        self.base.linear.kind.to_string()
    }

    /// Draws joint trajectories of all series from the end of the window on.
    ///
    /// Where series end before the last row of the context, the steps in between are drawn too, as nowcasts, given what
    /// the other series show. At most one trained horizon is nowcast: a series that is silent for longer counts as a gap.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarFeatures`], [`Error::CalendarLength`] when the window is not the model's
    /// - [`Error::NothingObserved`] when no value of the window is known
    /// - [`Error::Zero`] when horizon, samples, passes or a schedule's parameter are 0
    pub fn forecast(&self, window: &Window, config: &SampleConfig) -> Result<Trajectories, Error> {
        self.check(window, config)?;
        let anchored = self.anchor(window)?;
        let n_steps = window.context.n_steps() - 1 - anchored.anchor + window.horizon;
        let first_step = 1 - (n_steps - window.horizon) as i32;
        let mut values = Vec::with_capacity(config.n_samples * n_steps * self.n_series());
        for first in (0..config.n_samples).step_by(N_SAMPLES_TOGETHER) {
            let n_samples = N_SAMPLES_TOGETHER.min(config.n_samples - first);
            values.extend(self.paths(window, &anchored, first, n_samples, n_steps, config)?);
        }
        Trajectories::new(config.n_samples, first_step, n_steps, self.n_series(), values)
    }

    /// What the base forecaster alone expects of the trained horizon, with every gap up to the issue time filled from the
    /// past, `[step, series]`, standard units; at most the window's horizon.
    pub(crate) fn base_path(&self, window: &Window) -> Vec<f64> {
        let n_series = self.n_series();
        let standard = self.scaling.standardise_grid(&window.context);
        let filled = fill_from_past(&standard, n_series, self.seasons.first().copied());
        let calendar = self.padded_calendar(window, window.context.n_steps() + self.horizon());
        let input = BaseInput { filled: &filled, n_series, calendar: &calendar };
        let mut path = self.base.outlook(input, window.context.n_steps() - 1).path;
        path.truncate(window.horizon * n_series);
        path
    }

    fn check(&self, window: &Window, config: &SampleConfig) -> Result<(), Error> {
        let (given, expected) = (window.context.n_series(), self.n_series());
        if given != expected || window.bounds.len() != expected {
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
        for (name, value) in [("horizon", window.horizon), ("n_samples", config.n_samples), ("passes", config.passes)] {
            if value == 0 {
                return Err(Error::Zero { name });
            }
        }
        Ok(())
    }

    fn anchor(&self, window: &Window) -> Result<Anchored, Error> {
        let (context, n_series) = (&window.context, self.n_series());
        let earliest = context.n_steps().saturating_sub(1 + self.horizon());
        let last_observed = (0..n_series).filter_map(|series| context.last_observed(series));
        let newest = last_observed.clone().max().ok_or(Error::NothingObserved)?;
        // A series that ended long ago, or a panel that is wholly late, must not pull the anchor back without end.
        let anchor = last_observed.filter(|&last| last >= earliest).min().unwrap_or(newest.max(earliest));
        let mut standard = self.scaling.standardise_grid(context);
        let pinned = (anchor + 1..context.n_steps())
            .flat_map(|step| (0..n_series).map(move |series| (step, series)))
            .map(|(step, series)| Pinned {
                step: step - anchor,
                series,
                value: context.get(step, series),
                standard: standard[step * n_series + series],
            })
            .filter(|pinned| !pinned.value.is_nan())
            .collect();
        standard.truncate((anchor + 1) * n_series);
        let filled = fill_from_past(&standard, n_series, self.seasons.first().copied());
        Ok(Anchored { standard, filled, anchor, pinned })
    }

    /// The view from the last of the given steps, and what the base expects of the trained horizon after it.
    fn condition(&self, standard: &[f64], filled: &[f64], calendar: &Calendar) -> (Conditioning, Outlook) {
        let n_series = self.n_series();
        let anchor = standard.len() / n_series - 1;
        let input = BaseInput { filled, n_series, calendar };
        let steps = (anchor + 1).saturating_sub(self.layout.context_length())..anchor + 1;
        let one_step = OneStep::new(standard, input, &self.innovation, steps, |_| &self.base.linear);
        let outlook = self.base.outlook(input, anchor);
        (Conditioning::new(&self.layout, standard, &one_step, calendar, anchor, &outlook.path), outlook)
    }

    /// Paths of some of the samples, `[sample, step, series]`, data units.
    fn paths(
        &self,
        window: &Window,
        anchored: &Anchored,
        first_sample: usize,
        n_samples: usize,
        n_steps: usize,
        config: &SampleConfig,
    ) -> Result<Vec<f32>, Error> {
        let (n_series, horizon) = (self.n_series(), self.horizon());
        let sampler = Sampler {
            denoiser: &self.denoiser,
            velocity_share: self.velocity_share,
            layout: &self.layout,
            device: &self.device,
        };
        // Beyond the trained horizon every sample goes on from its own path, seen as its past. What it sees is kept in the
        // range of the training values: a linear base that is fed with its own output can run away.
        let mut pasts = vec![(anchored.standard.clone(), anchored.filled.clone())];
        let mut drawn: Vec<Vec<f32>> = vec![vec![]; n_samples];
        let calendar = self.padded_calendar(window, anchored.anchor + 1 + n_steps.div_ceil(horizon) * horizon);
        for first_step in (0..n_steps).step_by(horizon) {
            let n_drawn = horizon.min(n_steps - first_step);
            let (views, outlooks): (Vec<_>, Vec<_>) =
                pasts.iter().map(|(standard, filled)| self.condition(standard, filled, &calendar)).unzip();
            let pins = if first_step == 0 { self.pins(&anchored.pinned, &outlooks[0])? } else { None };
            let start = pins.as_ref().map(|(pins, n_tokens)| PinnedStart { pins, n_tokens: *n_tokens });
            let n_tokens = n_drawn.div_ceil(self.layout.patch).max(pins.as_ref().map_or(0, |(_, n_tokens)| *n_tokens));
            let draw = Draw { first_sample, n_samples, first_step, n_tokens };
            let innovations = sampler.draw(&views, draw, config, start)?;
            if first_step + horizon < n_steps && pasts.len() < n_samples {
                pasts = vec![pasts.swap_remove(0); n_samples];
            }
            for (sample, innovations) in innovations.chunks_exact(n_tokens * self.layout.n_elements()).enumerate() {
                let pooled = self.pool.path(config.seed, first_sample + sample, first_step / horizon);
                let drawn_innovations = pooled.unwrap_or(innovations);
                let mut innovations: Vec<f64> = drawn_innovations.iter().map(|&z| f64::from(z)).collect();
                if let (Some(_), Some((pins, _))) = (pooled, &pins) {
                    pins.apply(&mut innovations);
                }
                innovations.truncate(n_drawn * n_series);
                let errors = self.innovation.colour(&innovations);
                let outlook = &outlooks[sample % outlooks.len()];
                for (index, error) in errors.iter().enumerate() {
                    let value = outlook.path[index] + outlook.spread[index] * error;
                    drawn[sample].push(self.restore(index % n_series, value, &window.bounds) as f32);
                    if pasts.len() == n_samples {
                        let seen = self.scaling.into_range(index % n_series, value);
                        pasts[sample].0.push(seen);
                        pasts[sample].1.push(seen);
                    }
                }
            }
        }
        // What was observed is what it is, not what is left of it after arithmetic.
        for &Pinned { step, series, value, .. } in &anchored.pinned {
            drawn.iter_mut().for_each(|path| path[(step - 1) * n_series + series] = value as f32);
        }
        Ok(drawn.concat())
    }

    /// A standard value of a series in data units, inside its bounds.
    pub(crate) fn restore(&self, series: usize, standard: f64, bounds: &[Bounds]) -> f64 {
        bounds[series].clip(self.scaling.restore(series, standard))
    }

    /// The calendar of the window, its last row repeated where the last token or block reaches beyond the horizon.
    fn padded_calendar(&self, window: &Window, n_steps: usize) -> Calendar {
        match window.calendar.n_steps() {
            Some(given) if given < n_steps => window.calendar.extended(n_steps),
            _ => window.calendar.clone(),
        }
    }

    /// The update that meets the observed elements after the anchor, and the tokens that hold them.
    fn pins(&self, pinned: &[Pinned], outlook: &Outlook) -> Result<Option<(Pins, usize)>, Error> {
        let Some(last_step) = pinned.iter().map(|pinned| pinned.step).max() else { return Ok(None) };
        let n_tokens = last_step.div_ceil(self.layout.patch);
        let n_series = self.n_series();
        let errors: Vec<(usize, f64)> = pinned
            .iter()
            .map(|pinned| {
                let element = (pinned.step - 1) * n_series + pinned.series;
                (element, (pinned.standard - outlook.path[element]) / outlook.spread[element])
            })
            .collect();
        Ok(Some((Pins::new(&self.innovation, &errors, n_tokens * self.layout.n_elements())?, n_tokens)))
    }
}
