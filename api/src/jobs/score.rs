//! The kind `score`: stored forecasts against what came, and what follows when they have become worse.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::retrain::{RetrainOrder, check_policy};
use super::{Ask, Context, Failure, Reporter, Succeeded, Task, Work, enqueue};
use crate::config::Limits;
use crate::drift::{self, DriftPolicy};
use crate::retraining::Policy;
use crate::scoring;
use crate::{Error, registry};

/// A panel whose forecasts are to be scored.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"panel": "valencia", "retrain_on_drift": {"train_minutes": 10}}))]
pub struct ScoreOrder {
    /// Name of the panel.
    pub panel: String,
    /// Look at all values from this time on. Default: at forecasts that were never scored, and at those that end at most 30 days
    /// and twice their length before the newest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Retrain by these rules when an alarm is raised. Default: only raise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrain_on_drift: Option<Policy>,
}

impl Task for ScoreOrder {
    const IS_LONG: bool = false;

    fn panel(&self) -> Option<&str> {
        Some(&self.panel)
    }

    fn check(&self, _limits: &Limits) -> Result<(), Error> {
        let wrong = self.retrain_on_drift.as_ref().and_then(|policy| check_policy(policy, "retrain_on_drift"));
        wrong.map_or(Ok(()), |error| Err(Error::InvalidBody { errors: vec![error] }))
    }

    /// A missed run has nothing to make up for: the next one scores all that is known by then.
    fn dated(self, _instant: DateTime<Utc>) -> Self {
        self
    }

    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let now = context.now();
        let panel = registry::find_panel(&context.pool, &self.panel).await?;
        let told = reporter.clone();
        // How many forecasts there are to look at is not known before.
        let tell = move |scored: scoring::Scored| {
            told.progress(0.0, format!("{} values scored", scored.n_values));
            ControlFlow::Continue(())
        };
        let scored = match self.since {
            Some(since) => scoring::score(&context.pool, &panel, Some(since)..None, now, tell).await?,
            None => scoring::score_new(&context.pool, &panel, now, tell).await?,
        };
        // An alarm and what follows from it are stored together, or a retraining could get lost.
        let mut transaction = reporter.begin().await?;
        let events = drift::watch(&mut transaction, &panel, &DriftPolicy::default(), now).await?;
        for event in &events {
            reporter.log(format!("drift ({}): {}", event.kind, event.message));
        }
        let retraining = match &self.retrain_on_drift {
            Some(policy) if !events.is_empty() => {
                let work = Work::Retrain(RetrainOrder {
                    panel: self.panel.clone(),
                    horizon: None,
                    as_of: None,
                    policy: policy.clone(),
                });
                let ask = Ask { by: "drift", run_after: now, now, key: None };
                Some(enqueue(&mut transaction, &work, &ask, &context.settings.limits()).await?)
            }
            _ => None,
        };
        let result = json!({
            "n_values": scored.n_values, "n_forecasts": scored.n_forecasts, "n_drift_events": events.len(),
            "retrain_job_id": retraining,
        });
        reporter.succeed(transaction, &result).await
    }
}
