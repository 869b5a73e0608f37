//! The kind `backtest`: a registered model on past windows, as `plumecast models backtest` tests it.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::retrain::failure;
use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::Error;
use crate::backtesting::{self, WINDOWS_MAX};
use crate::config::Limits;
use crate::db::{self, DEFAULT_TENANT};
use crate::problem::Violation;
use crate::routes::forecasts::request::SEED_MAX;

/// A model to be tested on past windows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"panel": "valencia", "windows": 14}))]
pub struct BacktestOrder {
    /// Name of the panel.
    pub panel: String,
    /// Version of the model. Default: the champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Steps of a window. Default: those that the model learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub horizon: Option<usize>,
    /// Windows, which follow each other without overlap and end with what is known.
    #[serde(default = "windows_default")]
    #[schema(default = 10, minimum = 1, maximum = 1000)]
    pub windows: usize,
    /// Trajectories of each window.
    #[serde(default = "num_samples_default")]
    #[schema(default = 100, minimum = 1)]
    pub num_samples: usize,
    /// Seed of the first window; each has the next one.
    #[serde(default)]
    #[schema(maximum = 9007199254740991_u64)]
    pub seed: u64,
    /// Use only what was known at this instant. Default: when the job is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
}

fn windows_default() -> usize {
    10
}

fn num_samples_default() -> usize {
    100
}

impl BacktestOrder {
    /// What is to be done `now`, within a cost.
    #[must_use]
    pub fn order(&self, now: DateTime<Utc>, cost_max: u64) -> backtesting::Order {
        backtesting::Order {
            panel: self.panel.clone(),
            version: self.version,
            horizon: self.horizon,
            windows: self.windows,
            num_samples: self.num_samples,
            seed: self.seed,
            as_of: self.as_of.unwrap_or(now),
            cost_max,
        }
    }
}

impl Task for BacktestOrder {
    const IS_LONG: bool = true;

    fn panel(&self) -> Option<&str> {
        Some(&self.panel)
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let wrong = |pointer: &str, least: usize, most: u64| {
            Violation::at(pointer, "out-of-range", format!("must lie between {least} and {most}"))
        };
        let counts = [
            ("/horizon", self.horizon, limits.horizon_max),
            ("/windows", Some(self.windows), WINDOWS_MAX),
            ("/num_samples", Some(self.num_samples), limits.samples_max),
        ];
        let mut errors: Vec<Violation> = counts
            .into_iter()
            .filter(|(_, count, most)| count.is_some_and(|count| !(1..=*most).contains(&count)))
            .map(|(pointer, _, most)| wrong(pointer, 1, most as u64))
            .collect();
        if self.seed > SEED_MAX {
            errors.push(wrong("/seed", 0, SEED_MAX));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidBody { errors }) }
    }

    fn dated(self, instant: DateTime<Utc>) -> Self {
        Self { as_of: self.as_of.or(Some(instant)), ..self }
    }

    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let order = self.order(context.now(), context.settings.cost_max);
        let told = reporter.clone();
        let report = move |share: f64, text: &str| {
            told.progress(share, text);
            ControlFlow::Continue(())
        };
        let (artefacts, device) = (context.artefacts()?, context.device()?);
        let found = backtesting::backtest(&context.pool, &artefacts, &device, &order, report).await.map_err(failure)?;
        // A job makes one backtest, whoever does it in the end.
        let row = found.row(reporter.lease().job_id, context.now()).map_err(anyhow::Error::from)?;
        let mut transaction = reporter.begin().await?;
        db::backtest::insert(&mut *transaction, DEFAULT_TENANT, &row).await?;
        let result = json!({
            "backtest_id": row.backtest_id, "model": { "name": self.panel, "version": found.model.version },
            "scores": row.scores,
        });
        reporter.succeed(transaction, &result).await
    }
}
