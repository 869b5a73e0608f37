//! The kind `retrain`: a candidate that has to beat the champion, as `plumecast retrain` makes it.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::Error;
use crate::config::Limits;
use crate::problem::Violation;
use crate::retraining::{Policy, Retraining, retrain};

/// A panel to be retrained.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"panel": "valencia", "policy": {"train_minutes": 10, "windows": 14}}))]
pub struct RetrainOrder {
    /// Name of the panel.
    pub panel: String,
    /// Steps to learn and to compare. Default: those that the champion learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub horizon: Option<usize>,
    /// Use only what was known at this instant. Default: when the job is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DateTime<Utc>>,
    /// The rules.
    #[serde(default)]
    pub policy: Policy,
}

/// What is out of range in a policy, with pointers into the object that holds it as `field`.
pub(super) fn check_policy(policy: &Policy, field: &str) -> Option<Violation> {
    let error = policy.check().err()?;
    let pointer = format!("/{field}/{}", error.field);
    Some(Violation::at(&pointer, "out-of-range", format!("must {}", error.expected)))
}

impl Task for RetrainOrder {
    const IS_LONG: bool = true;

    fn panel(&self) -> Option<&str> {
        Some(&self.panel)
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let horizon_max = limits.horizon_max.min(forecast::TRAINED_HORIZON_MAX);
        let is_horizon = self.horizon.is_none_or(|horizon| (1..=horizon_max).contains(&horizon));
        let horizon = (!is_horizon)
            .then(|| Violation::at("/horizon", "out-of-range", format!("must lie between 1 and {horizon_max}")));
        let errors: Vec<Violation> = horizon.into_iter().chain(check_policy(&self.policy, "policy")).collect();
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidBody { errors }) }
    }

    fn dated(self, instant: DateTime<Utc>) -> Self {
        Self { as_of: self.as_of.or(Some(instant)), ..self }
    }

    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let device = context.device()?;
        let order = Retraining {
            panel: self.panel.clone(),
            horizon: self.horizon,
            as_of: self.as_of.unwrap_or_else(|| context.now()),
            policy: self.policy.clone(),
        };
        let told = reporter.clone();
        let report = move |share: f64, text: &str| {
            told.progress(share, text);
            ControlFlow::Continue(())
        };
        let artefacts = context.artefacts()?;
        let judged = retrain(&context.pool, &artefacts, &device, &order, report).await.map_err(failure)?;
        judged.beginning_told().into_iter().for_each(|line| reporter.log(line));
        reporter.progress(0.99, "storing the model");
        let mut transaction = reporter.begin().await?;
        let retrained = judged.store(&mut transaction, &context.pool, &artefacts).await?;
        let (model, comparison) = (&retrained.model, &retrained.comparison);
        reporter.log(format!("model version {} is {}: {}", model.version, model.stage, comparison.reason));
        let result = json!({
            "model": { "name": self.panel, "version": model.version },
            "stage": model.stage.as_str(),
            "decision": comparison.decision.as_str(),
            "is_flagged": comparison.is_flagged,
            "reason": comparison.reason,
        });
        reporter.succeed(transaction, &result).await
    }
}

/// What the model refuses once, such as a panel that is too short, it refuses always.
pub(super) fn failure(error: anyhow::Error) -> Failure {
    match error.downcast::<Error>() {
        Ok(error) => error.into(),
        Err(error) if error.chain().any(|cause| cause.is::<::forecast::Error>()) => Failure::Refused(error.into()),
        Err(error) => error.into(),
    }
}
