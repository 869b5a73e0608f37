//! The kind `load`: one run of a pipeline.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::config::Limits;
use crate::db::observation::Counts;
use crate::{Error, pipelines};

/// A pipeline that is to be run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"pipeline": "meters"}))]
pub struct LoadOrder {
    /// Name of the pipeline.
    pub pipeline: String,
}

impl Task for LoadOrder {
    const IS_LONG: bool = false;

    /// Which one it loads is the pipeline's to say.
    fn panel(&self) -> Option<&str> {
        None
    }

    fn check(&self, _limits: &Limits) -> Result<(), Error> {
        Ok(())
    }

    /// A missed run has nothing to make up for: the next one reads all that is new by then.
    fn dated(self, _instant: DateTime<Utc>) -> Self {
        self
    }

    /// Each part is stored with what has been read in a transaction of its own. When the process ends after that and before the
    /// job does, another attempt goes on from there.
    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let folders = &context.settings.folders;
        let declared = pipelines::find(&context.pool, folders, &self.pipeline).await?;
        reporter.progress(0.0, format!("reading {}", declared.pipeline.source));
        let mut counts = Counts::default();
        let mut load_ids = Vec::new();
        loop {
            let run = pipelines::run(&context.pool, folders, &declared, false, context.now()).await;
            let run = run.map_err(|error| match error {
                // Whoever runs it now will be done later.
                Error::PipelineRunning { .. } => Failure::Passing(error.into()),
                _ => error.into(),
            })?;
            if let Some(stored) = &run.stored {
                counts += stored.loaded.counts;
                load_ids.push(stored.load_id);
                if let Some(file) = &stored.quarantine {
                    reporter.log(format!("rows that were not taken are in {file} in the data folder"));
                }
            }
            if !run.has_more {
                break;
            }
            reporter.progress(0.0, format!("{} parts are stored", load_ids.len()));
        }
        let result = match load_ids.last() {
            Some(load_id) => json!({
                "load_id": load_id, "is_new": true, "inserted": counts.inserted,
                "corrected": counts.corrected, "unchanged": counts.unchanged,
            }),
            None => json!({ "is_new": false }),
        };
        reporter.succeed(reporter.begin().await?, &result).await
    }
}
