//! Diffusion Forcing for joint probabilistic forecasts of a panel of time series: windows in, trajectories out.
//!
//! In reading order: a [`Window`] holds what is known at an issue time; the [`base`] forecaster and the
//! [`innovation`]s turn it into numbers of order one; a causal [`denoiser`] is trained by [`diffusion`] forcing
//! (every token of a window has its own noise [`level`]); the [`sampler`] follows a [`schedule`] from noise to
//! innovations, moved by [`pins`] onto what is known; and these become [`Trajectories`]. [`fit`] makes a [`Model`];
//! [`Model::forecast`], [`Model::prepare`] and [`Model::impute`] use it, [`Model::forecast_under`] draws under
//! [`Condition`]s on the path, and [`Model::surprise`] says how well it expected
//! what came. [`paper`] has the network of the method's paper, to compare with.
//!
//! The crate knows no file (but its checkpoints), table, route or clock.

mod aggregate;
pub mod anomaly;
pub mod attention;
mod average;
pub mod backtest;
pub mod base;
pub mod baseline;
pub mod bench;
pub mod boosting;
pub mod calibration;
mod checkpoint;
mod companions;
mod condition;
pub mod conditioning;
pub mod correction;
pub mod correlation;
mod covariates;
pub mod denoise;
pub mod denoiser;
pub mod device;
pub mod diffusion;
mod effects;
mod equality;
mod error;
pub mod folds;
mod grid;
mod guidance;
mod impute;
pub mod innovation;
mod last_fold;
pub mod level;
pub mod linear;
mod loss_weight;
pub mod metrics;
mod model;
mod network;
pub mod noise;
mod noising;
mod observed;
pub mod outlook;
pub mod paired;
mod panel_stage;
pub mod paper;
mod parallel;
mod particles;
mod past;
pub mod pins;
pub mod pool;
mod prepared;
pub mod products;
pub mod quantile_trees;
pub mod reliability;
mod resume;
mod role;
pub mod sampler;
pub mod scaling;
pub mod schedule;
mod solver;
mod stage;
mod start;
pub mod stratified;
mod support;
pub mod surprise;
mod thinning;
mod timetable;
mod train;
mod trainer;
mod trajectories;
mod windows;

pub use aggregate::{Aggregate, Over};
pub use burn::tensor::Device;
pub use companions::N_COMPANIONS_MAX;
pub use condition::{Condition, ConditionProblem, Demand, N_CONDITIONS_MAX, Reading, TILT_MAX};
pub use covariates::UnknownCovariate;
pub use denoiser::TokenOf;
pub use device::DeviceName;
pub use effects::EffectKind;
pub use error::Error;
pub use grid::{Bounds, Calendar, Grid, History, VALUE_MAX, Window, is_value};
pub use guidance::{BaseRate, ConditionReport, Effort, Guidance, Guided};
pub use level::NoiseLevel;
pub use loss_weight::LossWeight;
pub use model::{Model, SampleConfig};
pub use network::NetworkConfig;
pub use noising::{LevelDistribution, LevelMix};
pub use prepared::{Prepared, Update};
pub use resume::{Memory, Resumed};
pub use role::{N_COVARIATES_MAX, Role};
pub use schedule::Schedule;
pub use start::{Start, Unfit, WarmStart};
pub use train::{
    Budget, Fitted, Means, Progress, SampledLoss, TRAINED_HORIZON_MAX, TrainConfig, TrainReport, fit, fit_with,
};
pub use trajectories::{QuantileLevel, Trajectories, quantile_of_sorted};

/// The processor of this machine.
#[cfg(feature = "flex")]
pub fn cpu() -> Device {
    Device::flex()
}

/// A CUDA device by its index.
#[cfg(feature = "cuda")]
pub fn cuda(index: usize) -> Device {
    Device::cuda(index)
}
