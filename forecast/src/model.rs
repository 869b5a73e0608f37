//! A trained model: base forecaster, innovations and network together; windows in, trajectories out.

use burn::tensor::Device;

use crate::base::{Base, Outlook};
use crate::conditioning::{Conditioning, OneStep, TokenLayout};
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::grid::Bounds;
use crate::innovation::Innovation;
use crate::linear::BaseInput;
use crate::noise::NoiseSource;
use crate::observed::{Observed, Past};
use crate::pool::Pool;
use crate::sampler::{Draw, PinnedStart, Sampler};
use crate::scaling::{Scaling, fill_from_past};
use crate::schedule::{PASSES_DEFAULT, Schedule};
use crate::{Calendar, Error, Trajectories, Window};

/// Samples that are denoised together: bounds the memory of a forecast whatever the number of samples.
pub(crate) const N_SAMPLES_TOGETHER: usize = 200;

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

impl SampleConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match [("n_samples", self.n_samples), ("passes", self.passes)].into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Error::Zero { name }),
            None => Ok(()),
        }
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

impl Model {
    /// Rows of context that a forecast uses; shorter windows are filled up with gaps.
    pub fn context_length(&self) -> usize {
        self.n_past() + self.layout.horizon()
    }

    /// Rows up to an anchor that a forecast from there uses.
    pub(crate) fn n_past(&self) -> usize {
        self.base.context() + self.layout.context_length()
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
        let standard = self.scaling.standardise_grid(&window.context);
        let filled = fill_from_past(&standard, n_series, self.seasons.first().copied());
        let calendar = self.padded_calendar(window, window.context.n_steps() + self.horizon());
        let input = BaseInput { filled: &filled, n_series, calendar: &calendar };
        let mut path = self.base.outlook(input, window.context.n_steps() - 1).path;
        path.truncate(window.horizon * n_series);
        path
    }

    /// Refuses a window that is not the model's.
    pub(crate) fn check(&self, window: &Window) -> Result<(), Error> {
        let (given, expected) = (window.context.n_series(), self.n_series());
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

    pub(crate) fn sampler(&self) -> Sampler<'_> {
        Sampler {
            denoiser: &self.denoiser,
            velocity_share: self.velocity_share,
            layout: &self.layout,
            device: &self.device,
        }
    }

    /// The view from the last step of a past, and what the base expects of the trained horizon after it.
    pub(crate) fn condition(&self, past: &Past, calendar: &Calendar) -> (Conditioning, Outlook) {
        let n_series = self.n_series();
        let anchor = past.n_steps(n_series) - 1;
        let input = BaseInput { filled: &past.filled, n_series, calendar };
        let steps = (anchor + 1).saturating_sub(self.layout.context_length())..anchor + 1;
        let mut one_step = OneStep::new(&past.standard, input, &self.innovation, steps, |_| &self.base.linear);
        if !past.sd.is_empty() {
            one_step.doubt(&self.innovation, n_series, &past.sd);
        }
        let outlook = self.base.outlook(input, anchor);
        (Conditioning::new(&self.layout, &past.filled, &one_step, calendar, anchor, &outlook.path), outlook)
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
            let Outlook { path, spread } = &outlooks[sample % outlooks.len()];
            let expected = path.iter().zip(spread).zip(errors);
            let mut path: Vec<f64> = expected.map(|((expected, spread), error)| expected + spread * error).collect();
            for observed in observed.iter().filter(|observed| observed.sd == 0.0 && observed.step <= n_steps) {
                path[observed.element(self.n_series())] = observed.standard;
            }
            path
        };
        innovations.chunks_exact(innovations.len() / n_samples).enumerate().map(path).collect()
    }

    /// A standard value of a series in data units, inside its bounds.
    pub(crate) fn restore(&self, series: usize, standard: f64, bounds: &[Bounds]) -> f64 {
        bounds[series].clip(self.scaling.restore(series, standard))
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
    use crate::boosting::Boosting;
    use crate::correction::{Correction, Shares};
    use crate::correlation::Correlation;
    use crate::linear::{Linear, LinearKind};
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
            let layout = TokenLayout { n_series, n_calendar: 0, patch, n_context_tokens: 2, n_horizon_tokens };
            let network = DenoiserConfig {
                n_elements: patch * n_series,
                n_calendar: 1,
                n_horizon_tokens,
                d_model: 16,
                n_heads: 1,
                n_layers: 2,
            };
            let device = crate::cpu();
            Self {
                layout,
                seasons: vec![],
                scaling: Scaling::identity(n_series),
                base: Base {
                    linear: Linear {
                        kind: LinearKind::LastValue,
                        lags: vec![],
                        horizon,
                        weights: vec![vec![0.0; horizon]],
                    },
                    correction: Correction {
                        seasons: vec![],
                        shares: Shares::default(),
                        location: Boosting::default(),
                        spread: Boosting::default(),
                    },
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
