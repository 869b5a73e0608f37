//! `plumecast run-job`: the process of one job, started by a worker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;

use crate::database::{Database, Limits};
use crate::jobs::process::{Assignment, read_assignment};
use crate::jobs::{Context, attempt};
use crate::telemetry;

/// Connections of a job: one for its work, one for what it tells.
const POOL_SIZE: u32 = 3;

/// Makes an attempt at the job that the worker names, and records how it ended.
///
/// # Errors
/// When there is no assignment, or the database is away. The worker then records that the process ended early.
pub async fn run() -> anyhow::Result<()> {
    let Assignment { lease, settings } =
        read_assignment().context("this command is for workers: `plumecast work` starts it")?;
    telemetry::init(settings.log_format, telemetry::QUIET);
    let limits = Limits {
        max_connections: POOL_SIZE,
        statement_timeout: Duration::from_secs_f64(settings.statement_seconds),
        ..Limits::default()
    };
    // The worker's database is there already, so none is started here.
    let database = Database::open(Some(&settings.database_url), &settings.folders.data, None, &limits).await?;
    let context = Context { pool: database.pool().clone(), settings, clock: Arc::new(Utc::now) };
    attempt::make(&context, &lease).await.context("recording how the job ended")?;
    database.close().await;
    Ok(())
}
