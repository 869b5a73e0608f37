//! The network of the paper: Chen et al., "Diffusion Forcing: next-token prediction meets full-sequence diffusion",
//! NeurIPS 2024, in its setting for time series (sections D.3, D.4, D.9 and D.10), as a configuration to compare with.
//!
//! A token is one step of all series, standardised once per series. Every token of a training window has its own level
//! out of `0..=1000`; a stack of GRU cells predicts the velocities; forecasts are drawn one step after the other by 50
//! passes of DDIM. Covariates are lagged values and the calendar. Context and horizon are equally long.
//!
//! Different from the published code, on purpose: a lag of `L` rows is the value `L` rows before; a lag that reaches into
//! the horizon is the sample's own value, never the truth; validation lies after training in time; no pass is done twice;
//! context and finished steps enter `z` clean, at level 0; gaps are filled from the past and do not count in the loss.

mod cell;
mod levels;
mod sample;
mod train;

use serde::{Deserialize, Serialize};

pub use cell::{Network, Sizes};
pub use levels::{Descent, Levels};
pub use train::fit;

use crate::backtest::Forecaster;
use crate::scaling::Scaling;
use crate::{Budget, Error, LossWeight, SampleConfig, Trajectories, Window};

/// Noise levels above the clean one.
pub const N_LEVELS: usize = 1000;
/// Denoising passes of a step, for [`SampleConfig::passes`].
pub const N_PASSES: usize = 50;

/// What is to be trained. [`Config::new`] has the paper's numbers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Horizon to learn, in steps, and length of the context.
    pub horizon: usize,
    /// How long. Training ends earlier when the validation loss has not fallen for six epochs of 100 steps.
    pub budget: Budget,
    /// Seed of weights, windows, levels and noise.
    pub seed: u64,
    /// Rows before a token whose values it is told; `None` chooses by the seasons, see [`lags_of`].
    pub lags: Option<Vec<usize>>,
    /// Stacked GRU cells.
    pub n_cells: usize,
    /// State of each cell.
    pub d_cell: usize,
    /// Width of the embeddings of level and covariates; even.
    pub d_embedding: usize,
    /// Windows in a batch.
    pub batch_size: usize,
    /// How much the error of a token counts.
    pub loss_weight: LossWeight,
}

impl Config {
    /// The paper's numbers for all its data sets.
    pub fn new(horizon: usize, budget: Budget, seed: u64) -> Self {
        Self {
            horizon,
            budget,
            seed,
            lags: None,
            n_cells: 4,
            d_cell: 256,
            d_embedding: 64,
            batch_size: 32,
            loss_weight: LossWeight::Constant,
        }
    }
}

/// The lags of the paper by the shortest season: business days 1 and 2; days 1, 7 and 14; hours 1, 24 and 168; half hours
/// 1, 4, 12, 24 and 48. Otherwise the last row and each season.
pub fn lags_of(seasons: &[usize]) -> Vec<usize> {
    match seasons.first() {
        Some(5) => vec![1, 2],
        Some(7) => vec![1, 7, 14],
        Some(48) => vec![1, 4, 12, 24, 48],
        _ => {
            let mut lags = vec![1];
            lags.extend(seasons.iter().filter(|&&season| season > 1));
            lags
        }
    }
}

/// What training found, for the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Rows before a token whose values it is told.
    pub lags: Vec<usize>,
    /// Optimiser steps done.
    pub n_steps: usize,
    /// Steps with the lowest validation loss, whose network is kept.
    pub best_step: usize,
    /// Mean squared error of the velocity on the validation windows before training.
    pub validation_loss_start: f64,
    /// The same at the best step.
    pub validation_loss: f64,
    /// Trainable numbers of the network.
    pub n_parameters: usize,
    /// Optimiser steps in a second.
    pub steps_per_second: f64,
    /// Wall time of the whole training.
    pub seconds: f64,
}

/// A trained model.
#[derive(Clone, Debug)]
pub struct Model {
    horizon: usize,
    lags: Vec<usize>,
    season: Option<usize>,
    n_calendar: usize,
    scaling: Scaling,
    levels: Levels,
    network: Network,
}

/// A model with the record of its training.
pub struct Fitted {
    /// The model.
    pub model: Model,
    /// The record.
    pub report: Report,
}

impl Forecaster for Fitted {
    type Report = Report;

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn forecast(&self, window: &Window, config: &SampleConfig) -> Result<Trajectories, Error> {
        self.model.forecast(window, config)
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn train_seconds(&self) -> f64 {
        self.report.seconds
    }
}

/// Standard values of all rows before some row: those that all samples share, then those that one has drawn.
struct Past<'a> {
    shared: &'a [f64],
    drawn: &'a [f64],
    n_series: usize,
}

impl Past<'_> {
    /// Appends the covariates of the row after the past: for each lag the values so many rows before it, then the
    /// calendar of the row. Before the first row everything is at its mean, 0.
    fn push_covariates(&self, lags: &[usize], calendar: &[f64], covariates: &mut Vec<f32>) {
        for lag in lags {
            let behind = lag * self.n_series;
            let start = (self.shared.len() + self.drawn.len()).checked_sub(behind);
            for series in 0..self.n_series {
                let value = start.map_or(0.0, |start| {
                    let index = start + series;
                    if index < self.shared.len() { self.shared[index] } else { self.drawn[index - self.shared.len()] }
                });
                covariates.push(value as f32);
            }
        }
        covariates.extend(calendar.iter().map(|&feature| feature as f32));
    }
}

/// Reads numbers back from the device.
fn host<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Result<Vec<f32>, Error> {
    tensor.try_into_vec_as().map_err(|error| Error::Device { problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_are_those_of_the_paper_by_frequency() {
        assert_eq!(lags_of(&[5]), [1, 2], "business days");
        assert_eq!(lags_of(&[7]), [1, 7, 14], "days");
        assert_eq!(lags_of(&[24, 168]), [1, 24, 168], "hours");
        assert_eq!(lags_of(&[48, 336]), [1, 4, 12, 24, 48], "half hours");
        assert_eq!(lags_of(&[12]), [1, 12]);
        assert_eq!(lags_of(&[]), [1]);
    }

    /// Rows 0 to 5 of two series hold ten times the row and the same plus one; the last two were drawn.
    #[test]
    fn a_lag_is_the_value_so_many_rows_before_and_the_drawn_one_inside_the_horizon() {
        let rows: Vec<f64> = (0..6).flat_map(|row| [10.0 * f64::from(row), 10.0 * f64::from(row) + 1.0]).collect();
        let past = Past { shared: &rows[..8], drawn: &rows[8..], n_series: 2 };
        let mut covariates = vec![];
        past.push_covariates(&[1, 2, 3, 6, 7], &[0.5], &mut covariates);
        assert_eq!(covariates, [50.0, 51.0, 40.0, 41.0, 30.0, 31.0, 0.0, 1.0, 0.0, 0.0, 0.5]);
    }
}
