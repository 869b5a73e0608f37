//! The kind `retain`: removing what is old.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::Error;
use crate::config::Limits;
use crate::retention::{Retention, RetentionPolicy};

impl Task for RetentionPolicy {
    const IS_LONG: bool = false;

    fn panel(&self) -> Option<&str> {
        None
    }

    fn check(&self, _limits: &Limits) -> Result<(), Error> {
        let errors = self.violations();
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidBody { errors }) }
    }

    /// A missed run has nothing to make up for: the next one removes all that is old by then.
    fn dated(self, _instant: DateTime<Utc>) -> Self {
        self
    }

    /// Each step is a transaction of its own. When the process ends before the job does, another attempt goes on where this
    /// one was, and counts what is left.
    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let told = reporter.clone();
        let tell = move |what: &str| {
            told.progress(0.0, format!("looking through {what}"));
            ControlFlow::Continue(())
        };
        let artefacts = context.artefacts()?;
        let retention = Retention {
            pool: &context.pool,
            data_dir: &context.settings.folders.data,
            artefacts: &artefacts,
            policy: self,
            now: context.now(),
            is_dry: false,
        };
        let retained = retention.run(tell).await?;
        for partition in &retained.partitions {
            reporter.log(format!("dropped {partition}"));
        }
        for file in &retained.files {
            reporter.log(format!("wrote {file} in the data folder"));
        }
        for name in &retained.busy {
            reporter.log(format!("{name} is used by others; what is old in it goes next time"));
        }
        reporter.succeed(reporter.begin().await?, &json!(retained)).await
    }
}
