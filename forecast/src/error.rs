//! What can go wrong between a window and its trajectories.

use std::path::PathBuf;

use crate::condition::ConditionProblem;
use crate::device::DeviceName;

/// Everything that the library refuses, named after the situation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flat buffer does not hold whole rows.
    #[error("{n_values} values do not make whole rows of {n_columns}")]
    RaggedRows {
        /// Values given.
        n_values: usize,
        /// Values per row.
        n_columns: usize,
    },
    /// The series of a window, or their number, are not those of the model.
    #[error("the window has {given} series, the model {expected}")]
    SeriesCount {
        /// Series in the window.
        given: usize,
        /// Series in the model.
        expected: usize,
    },
    /// The calendar has another number of features than the model was trained with.
    #[error("the calendar has {given} features, the model {expected}")]
    CalendarFeatures {
        /// Features in the window's calendar.
        given: usize,
        /// Features in the model's calendar.
        expected: usize,
    },
    /// The calendar does not cover the context and the horizon.
    #[error("the calendar has {given} rows, context and horizon need {expected}")]
    CalendarLength {
        /// Rows in the calendar.
        given: usize,
        /// Rows needed.
        expected: usize,
    },
    /// Nothing to learn from: too few steps for the horizon asked for.
    #[error("{n_steps} steps are too few to learn a horizon of {horizon}; at least {needed} are needed")]
    TooShort {
        /// Steps in the history.
        n_steps: usize,
        /// Horizon asked for.
        horizon: usize,
        /// Steps needed.
        needed: usize,
    },
    /// A number of the configuration is out of range.
    #[error("{name} must be {expected}")]
    Setting {
        /// The number's name.
        name: &'static str,
        /// What it can be.
        expected: String,
    },
    /// A panel that a network is to learn from beside its own cannot be learned from.
    #[error("companion {index}: {source}")]
    Companion {
        /// Its place among the companions, from 0.
        index: usize,
        /// Why not.
        source: Box<Error>,
    },
    /// Two panels whose tokens are not told the same of their time.
    #[error("it has {theirs} {what}, the panel {ours}")]
    OtherFeatures {
        /// What differs.
        what: &'static str,
        /// In the other panel.
        theirs: usize,
        /// In the panel.
        ours: usize,
    },
    /// Nothing to forecast.
    #[error("all series are covariates: there is no target to forecast")]
    NoTarget,
    /// More covariates than a model takes.
    #[error("{given} covariates are too many; the limit is {limit}")]
    TooManyCovariates {
        /// Series with the role of a covariate.
        given: usize,
        /// The most that a model takes.
        limit: usize,
    },
    /// No value is observed at all.
    #[error("no value of any series is observed")]
    NothingObserved,
    /// A value is infinite or above [`VALUE_MAX`](crate::VALUE_MAX) in magnitude; gaps are NaN.
    #[error("the value at step {step} of series {series} is infinite, or above 1e30 in magnitude")]
    NotFinite {
        /// Row in the grid.
        step: usize,
        /// Column in the grid.
        series: usize,
    },
    /// Rows that cannot be scored.
    #[error("rows {first}..{end} cannot be scored: the history has {n_steps}, and the first needs one before it")]
    RowRange {
        /// First row.
        first: usize,
        /// Row after the last one.
        end: usize,
        /// Rows in the history.
        n_steps: usize,
    },
    /// The standard deviation of a measurement is negative or infinite.
    #[error("the standard deviation of the measurement at step {step} of series {series} is negative or infinite")]
    MeasurementError {
        /// Row in the grid.
        step: usize,
        /// Column in the grid.
        series: usize,
    },
    /// More known values of the future than steps to forecast.
    #[error("the window has {given} rows of known future, its horizon is {horizon}")]
    FutureLength {
        /// Rows given.
        given: usize,
        /// Steps to forecast.
        horizon: usize,
    },
    /// A known value lies further ahead than the model can be conditioned on.
    #[error(
        "the known value of series {series} at step {step} lies beyond the trained horizon, which ends at step {last}"
    )]
    BeyondHorizon {
        /// Column in the grid.
        series: usize,
        /// Step of the forecast; 1 is the first one.
        step: i32,
        /// Last step that can have a known value.
        last: i32,
    },
    /// More known values than can be conditioned on together.
    #[error("{given} known values that depend on each other are too many to be met together; the limit is {limit}")]
    TooManyPins {
        /// Known values.
        given: usize,
        /// The most that can be met.
        limit: usize,
    },
    /// A condition that cannot be met, or makes no sense.
    #[error("condition {condition}: {problem}")]
    Condition {
        /// Its index.
        condition: usize,
        /// What is wrong with it.
        problem: ConditionProblem,
    },
    /// More conditions than one forecast can have.
    #[error("{given} conditions are too many; the limit is {limit}")]
    TooManyConditions {
        /// Conditions given.
        given: usize,
        /// The most that can be met.
        limit: usize,
    },
    /// No step at which an imputation could begin.
    #[error("no step of the window has a value of every series, so there is nothing to impute from")]
    NoCompleteStep,
    /// A gap that is too long to see both of its ends.
    #[error("series {series} has a gap of {length} steps from step {step}; at most {limit} can be imputed")]
    GapTooLong {
        /// Column in the grid.
        series: usize,
        /// Row in the grid at which the gap begins.
        step: usize,
        /// Steps without a value.
        length: usize,
        /// The most that fit.
        limit: usize,
    },
    /// A number that must be at least one is zero.
    #[error("{name} must be at least 1")]
    Zero {
        /// The parameter.
        name: &'static str,
    },
    /// A share outside [0, 1].
    #[error("{name} must lie between 0 and 1, not {value}")]
    Share {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A recurrent network can only draw one step after the other.
    #[error("this network draws one step after the other; only the autoregressive schedule is possible")]
    OnlyAutoregressive,
    /// A quantile level outside (0, 1).
    #[error("quantile level {0} is not between 0 and 1")]
    QuantileLevel(f64),
    /// A covariance that no shrinkage made positive definite.
    #[error("the covariance of the base errors is not positive definite")]
    Covariance,
    /// A device's name that is not understood.
    #[error("`{0}` is no device; devices are `cpu` and `cuda:N` with the index of a GPU, such as `cuda:0`")]
    DeviceName(String),
    /// A device that this build cannot use.
    #[error("device {device} needs a build with the feature `{feature}`")]
    DeviceNotBuilt {
        /// The device.
        device: DeviceName,
        /// The feature of this crate.
        feature: &'static str,
    },
    /// A GPU that the machine does not have.
    #[error("there is no GPU cuda:{index}; GPUs that were found: {n_found}")]
    NoSuchGpu {
        /// The index that was asked for.
        index: usize,
        /// Number of GPUs.
        n_found: usize,
    },
    /// The device that computes has failed.
    #[error("the device failed: {problem}")]
    Device {
        /// What it said.
        problem: String,
    },
    /// Training was stopped by the caller before there was a model.
    #[error("training was stopped")]
    Stopped,
    /// A checkpoint file cannot be read or written.
    #[error("checkpoint {}: {source}", path.display())]
    CheckpointFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint file is not what this version writes.
    #[error("checkpoint {}: {problem}", path.display())]
    CheckpointContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint was written by a later version.
    #[error("checkpoint {} has format version {found}, this build reads up to {supported}", path.display())]
    CheckpointVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// A checkpoint file's digest differs from the one recorded beside it.
    #[error("checkpoint {} is damaged: digest {found}, recorded {recorded}", path.display())]
    CheckpointDigest {
        /// The file.
        path: PathBuf,
        /// Digest of what was read.
        found: String,
        /// Digest in `config.json`.
        recorded: String,
    },
}
