//! Forecasts: one step after the other, each by DDIM from white noise, its own past as the next step's covariates.

use burn::tensor::Tensor;

use super::cell::TokenRows;
use super::levels::Descent;
use super::{Model, Past, host};
use crate::noise::Noise;
use crate::scaling::fill_from_past;
use crate::{Error, SampleConfig, Schedule, Trajectories, Window};

/// Share of fresh noise in a pass.
const ETA: f64 = 1.0;
/// Samples that are drawn together: bounds the memory of a forecast whatever the number of samples.
const N_SAMPLES_TOGETHER: usize = 200;

impl Model {
    /// Rows of context that a forecast uses; shorter windows are filled up with the mean.
    pub fn context_length(&self) -> usize {
        self.horizon + self.lags.iter().copied().max().unwrap_or(0)
    }

    /// Draws joint trajectories of all series from the end of the window on; any horizon will do.
    ///
    /// What is missing in the context, at its end too, is filled from the past: there are no nowcasts.
    ///
    /// # Errors
    /// - [`Error::SeriesCount`], [`Error::CalendarFeatures`], [`Error::CalendarLength`] when the window is not the model's
    /// - [`Error::NothingObserved`] when no value of the window is known
    /// - [`Error::Zero`] when horizon, samples or passes are 0
    /// - [`Error::OnlyAutoregressive`] when another schedule is asked for
    pub fn forecast(&self, window: &Window, config: &SampleConfig) -> Result<Trajectories, Error> {
        self.check(window, config)?;
        let standard = self.scaling.standardise_grid(&window.context);
        let past = fill_from_past(&standard, self.scaling.n_series(), self.season);
        let belief = self.belief(&past, window);
        let mut values = Vec::with_capacity(config.n_samples * window.horizon * self.scaling.n_series());
        for first in (0..config.n_samples).step_by(N_SAMPLES_TOGETHER) {
            let samples = first..config.n_samples.min(first + N_SAMPLES_TOGETHER);
            values.extend(self.paths(&belief, &past, samples, window, config)?);
        }
        Trajectories::new(config.n_samples, 1, window.horizon, self.scaling.n_series(), values)
    }

    fn check(&self, window: &Window, config: &SampleConfig) -> Result<(), Error> {
        let (given, expected) = (window.context.n_series(), self.scaling.n_series());
        if given != expected || window.bounds.len() != expected {
            return Err(Error::SeriesCount { given, expected });
        }
        let (given, expected) = (window.calendar.n_features(), self.n_calendar);
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
        if config.schedule != Schedule::Autoregressive {
            return Err(Error::OnlyAutoregressive);
        }
        if window.context.values().iter().all(|value| value.is_nan()) {
            return Err(Error::NothingObserved);
        }
        Ok(())
    }

    /// The `z` that has seen the context, `[1, latent]`.
    fn belief(&self, past: &[f64], window: &Window) -> Tensor<2> {
        let (n_series, n_rows) = (self.scaling.n_series(), window.context.n_steps());
        let first = n_rows.saturating_sub(self.horizon);
        let mut rows = TokenRows::default();
        for row in first..n_rows {
            rows.noisy.extend(past[row * n_series..(row + 1) * n_series].iter().map(|&value| value as f32));
            rows.levels.push(0);
            let before = Past { shared: &past[..row * n_series], drawn: &[], n_series };
            before.push_covariates(&self.lags, window.calendar.row(row), &mut rows.covariates);
            rows.shown.push(if row == first { 0.0 } else { 1.0 });
        }
        let start = self.network.start(1);
        let beliefs = self.network.steps(start.clone(), &self.network.inputs_of(rows));
        beliefs.into_iter().next_back().unwrap_or(start)
    }

    /// Paths of some of the samples, `[sample, step, series]`, data units.
    fn paths(
        &self,
        belief: &Tensor<2>,
        past: &[f64],
        samples: std::ops::Range<usize>,
        window: &Window,
        config: &SampleConfig,
    ) -> Result<Vec<f32>, Error> {
        let (n_series, n_samples) = (self.scaling.n_series(), samples.len());
        let noise = Noise::new(config.seed);
        let descent = self.levels.descent(config.passes);
        let mut belief = belief.clone().repeat_dim(0, n_samples);
        let mut drawn: Vec<Vec<f64>> = vec![vec![]; n_samples];
        for step in 0..window.horizon {
            let calendar = window.calendar.row(window.context.n_steps() + step);
            let mut covariates = vec![];
            for drawn in &drawn {
                Past { shared: past, drawn, n_series }.push_covariates(&self.lags, calendar, &mut covariates);
            }
            let covariates = self.network.embed_covariates(covariates, vec![1.0; n_samples]);
            // Every pass of every step has noise of its own.
            let noise_of = |pass: usize, index: usize| {
                let (sample, address) = (samples.start + index / n_series, step * descent.len() + pass);
                f64::from(noise.normal(sample as u32, address as u32, (index % n_series) as u32))
            };
            let advance = |values: &[f64], level: usize| {
                let noisy = values.iter().map(|&value| value as f32).collect();
                let inputs = self.network.inputs(noisy, &vec![level; n_samples], covariates.clone());
                self.network.step(belief.clone(), inputs)
            };
            let mut values: Vec<f64> = (0..n_samples * n_series).map(|index| noise_of(0, index)).collect();
            for (pass, pair) in descent.windows(2).enumerate() {
                let descent = Descent { from: pair[0], to: pair[1], eta: ETA };
                let velocity = host(self.network.velocity(advance(&values, descent.from)))?;
                for (index, (value, velocity)) in values.iter_mut().zip(velocity).enumerate() {
                    let noise = if descent.to == 0 { 0.0 } else { noise_of(pass + 1, index) };
                    *value = self.levels.ddim(descent, *value, f64::from(velocity), noise);
                }
            }
            if step + 1 < window.horizon {
                belief = advance(&values, 0);
            }
            for (drawn, values) in drawn.iter_mut().zip(values.chunks_exact(n_series)) {
                drawn.extend_from_slice(values);
            }
        }
        let restore = |(index, value): (usize, f64)| {
            let series = index % n_series;
            window.bounds[series].clip(self.scaling.restore(series, value)) as f32
        };
        Ok(drawn.into_iter().flatten().enumerate().map(restore).collect())
    }
}
