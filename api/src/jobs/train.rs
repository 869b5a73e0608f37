//! The kind `train`: a model of a panel, as `plumecast train` makes it.

use std::ops::ControlFlow;

use ::forecast::{NetworkConfig, Progress, SampleConfig, TrainConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::retrain::failure;
use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::companions::{self, Companions};
use crate::config::Limits;
use crate::db::{self, DEFAULT_TENANT};
use crate::problem::Violation;
use crate::routes::forecasts::request::SEED_MAX;
use crate::training::{self, MINUTES_MAX, STEPS_MAX, Sources, TestWindows};
use crate::warm_start::{self, WarmStart};
use crate::{Error, blocking};

/// Most windows of a test.
const TEST_WINDOWS_MAX: usize = 1000;

/// A model to be trained.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"panel": "valencia", "horizon": 24, "train_minutes": 5}))]
pub struct TrainOrder {
    /// Name of the panel.
    pub panel: String,
    /// Steps to learn; any other horizon can be forecast later.
    #[schema(minimum = 1)]
    pub horizon: usize,
    /// Minutes to train.
    #[serde(default = "train_minutes_default")]
    #[schema(default = 5.0, maximum = 1440)]
    pub train_minutes: f64,
    /// Optimiser steps to train instead of minutes: the same on every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub train_steps: Option<usize>,
    /// Windows at the end of the data that are kept out of training and scored.
    #[serde(default)]
    #[schema(default = 0, maximum = 1000)]
    pub test_windows: usize,
    /// Seed of weights, windows and noise.
    #[serde(default = "seed_default")]
    #[schema(default = 1, maximum = 9007199254740991_u64)]
    pub seed: u64,
    /// The network and how it learns, as `plumecast train --network` takes it. Default: chosen by the panel.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub network: NetworkConfig,
    /// A model whose weights the network begins with: `champion`, a version, or another panel's as `name/3`; its shapes have to
    /// be the same (but for the number of series where its tokens are of single ones), and enough must have come since it was
    /// trained. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "champion")]
    pub warm_start: Option<String>,
    /// Other panels of the same frequency that the network learns from too, one for all. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, example = json!(["berlin", "paris"]))]
    pub companions: Vec<String>,
    /// Use only what was known at this instant. Default: when the job is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
    /// Whether the model becomes the panel's champion; otherwise it is kept as a candidate.
    #[serde(default = "promote_default")]
    #[schema(default = true)]
    pub promote: bool,
}

fn train_minutes_default() -> f64 {
    5.0
}

fn seed_default() -> u64 {
    1
}

fn promote_default() -> bool {
    true
}

impl Task for TrainOrder {
    const IS_LONG: bool = true;

    fn panel(&self) -> Option<&str> {
        Some(&self.panel)
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let mut errors = Vec::new();
        let mut require = |is_right: bool, pointer: &str, range: String| {
            if !is_right {
                errors.push(Violation::at(pointer, "out-of-range", format!("must lie between {range}")));
            }
        };
        let horizon_max = limits.horizon_max.min(forecast::TRAINED_HORIZON_MAX);
        require((1..=horizon_max).contains(&self.horizon), "/horizon", format!("1 and {horizon_max}"));
        let is_budget = self.train_minutes > 0.0 && self.train_minutes <= MINUTES_MAX;
        require(is_budget, "/train_minutes", format!("0 (excluded) and {MINUTES_MAX}"));
        let is_steps = self.train_steps.is_none_or(|steps| (1..=STEPS_MAX).contains(&steps));
        require(is_steps, "/train_steps", format!("1 and {STEPS_MAX}"));
        require(self.test_windows <= TEST_WINDOWS_MAX, "/test_windows", format!("0 and {TEST_WINDOWS_MAX}"));
        require(self.seed <= SEED_MAX, "/seed", format!("0 and {SEED_MAX}"));
        if self.warm_start.as_deref().is_some_and(|from| !warm_start::is_name(from)) {
            let message = "must be `champion`, a version, or one of them after the name of a panel and `/`";
            errors.push(Violation::at("/warm_start", "invalid-value", message));
        }
        errors.extend(companions::violation(&self.panel, &self.companions));
        if let Err(error) = self.network.check(self.horizon.max(1)) {
            errors.push(Violation::at("/network", "out-of-range", error.to_string()));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidBody { errors }) }
    }

    fn dated(self, instant: DateTime<Utc>) -> Self {
        Self { as_of: self.as_of.or(Some(instant)), ..self }
    }

    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let device = context.device()?;
        let artefacts = context.artefacts()?;
        reporter.progress(0.0, "reading observations");
        if db::panel::get(&context.pool, DEFAULT_TENANT, &self.panel).await?.is_none() {
            return Err(Error::UnknownPanel { panel: self.panel.clone() }.into());
        }
        let as_of = self.as_of.unwrap_or_else(|| context.now());
        let data = training::read(&context.pool, &self.panel, as_of).await?;
        let n_rows = data.values.n_rows_before(self.test_windows, self.horizon);
        let data = data.find_holidays(n_rows).await?;
        let history = data.values.history()?;
        reporter.log(format!("{} steps of {} series", history.values.n_steps(), history.values.n_series()));
        data.found_holidays.iter().for_each(|found| reporter.log(found.to_string()));

        let budget = training::budget(self.train_steps, self.train_minutes);
        let network = self.network.clone();
        let config = TrainConfig { network, ..TrainConfig::new(self.horizon, budget, self.seed) };
        let sample = SampleConfig { seed: self.seed, ..SampleConfig::default() };
        let test = TestWindows { n_windows: self.test_windows, sample };
        let from = match &self.warm_start {
            Some(from) => Some(WarmStart::load(&context.pool, &artefacts, &device, &data, from).await?),
            None => None,
        };
        let companions = Companions::read(&context.pool, &self.companions, &data, n_rows).await.map_err(failure)?;
        let sources = Sources { from, companions };
        let (training_config, told, store) = (config.clone(), reporter.clone(), artefacts.clone());
        let trained = blocking::run("training", move || {
            training::train(&history, &training_config, &sources, &test, &store, &device, &mut |progress| {
                told.progress(progress.share_done(), activity(progress));
                ControlFlow::Continue(())
            })
        })
        .await??;
        let report = &trained.fitted.report;
        reporter.log(format!("base forecaster: {}; network: {} steps", report.base, report.best_step));
        trained.beginning_told().into_iter().for_each(|line| reporter.log(line));
        reporter.progress(0.99, "storing the model");

        let mut transaction = reporter.begin().await?;
        let model = training::register(&mut transaction, &context.pool, &artefacts, &data, &config, &trained).await?;
        if self.promote {
            db::model::promote(&mut *transaction, DEFAULT_TENANT, model.model_id, "trained by a job").await?;
        }
        let stage = if self.promote { "champion" } else { "candidate" };
        reporter.log(format!("model version {} is {stage}", model.version));
        let result = json!({
            "model": { "name": self.panel, "version": model.version }, "stage": stage, "backtest": trained.scores,
        });
        reporter.succeed(transaction, &result).await
    }
}

fn activity(progress: &Progress) -> String {
    match progress.n_steps {
        0 => progress.stage.to_owned(),
        n_steps => format!("{} {}/{n_steps}, loss {:.3}", progress.stage, progress.step, progress.loss),
    }
}
