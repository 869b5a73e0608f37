//! Long work: what it can be, who does it, and what it leaves behind.
//!
//! A *job* is a row of the table `job`. It is asked for with [`enqueue`], in a transaction of whoever asks. Any number of
//! [`worker`]s take jobs from the table and run each in a process of its own ([`process`]), which makes an [`attempt`].
//! What there is to do is a list of kinds, [`Work`], each with a [`Task`] that does it.
//!
//! # What holds
//!
//! - A job takes effect once. Its effect is stored in the transaction that also ends it, see [`Reporter::succeed`], and
//!   that needs the lease under which the attempt was begun. Whoever lost it (taken over, cancelled) changes nothing.
//! - Some kinds store their effect part after part, each once: another attempt finds it done. The forecasts of a
//!   backfill need the lease, see [`Reporter::keep`]. The parts of `load`, `score` and `retain` do not: a job of these
//!   kinds that is taken over or cancelled may store further ones until its process is ended.
//! - A job can be stopped at any time, by ending its process: what is not committed is not there.
//! - Kinds know nothing of workers, leases and processes. In a test an [`attempt`] can be made without any.
//!
//! # A new kind
//!
//! A struct of arguments, a [`Task`] for it, and a line in [`work`].

pub mod attempt;
pub mod backfill;
pub mod backtest;
mod failure;
pub mod forecast;
pub mod load;
pub mod process;
mod reporter;
mod retain;
pub mod retrain;
pub mod scheduler;
pub mod score;
pub mod timetable;
pub mod train;
pub mod work;
pub mod worker;

use std::sync::Arc;

use ::forecast::{Device, DeviceName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub use failure::Failure;
pub use reporter::{Reporter, Succeeded};
pub use work::{Task, Work};

use crate::Error;
use crate::artefacts::Artefacts;
use crate::config::{self, DatabaseConfig, DeviceConfig, Folders, Limits, LogFormat, PipelineConfig, WorkerConfig};
use crate::db::job::{Inserted, NewJob, Occasion};
use crate::db::{self, DEFAULT_TENANT};
use crate::forecaster::RequestKey;

/// Tells the time. The program gives the clock of the machine, a test its own.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What a job needs to know of the configuration. It travels from the worker to the job's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Where the database is, password included.
    pub database_url: String,
    /// Folders of models, snapshots, pipelines and what they read.
    pub folders: Folders,
    /// Where files of models are, if not in the data folder.
    pub artefacts: Option<String>,
    /// Name of the device that models compute on.
    pub device: String,
    /// Most steps of one forecast.
    pub horizon_max: usize,
    /// Most trajectories of one forecast.
    pub samples_max: usize,
    /// Most values (trajectories * steps * series) of one forecast.
    pub cost_max: u64,
    /// Attempts at a job that this one asks for.
    pub job_attempts_max: i32,
    /// Jobs that wait for a worker, at most.
    pub jobs_waiting_max: i64,
    /// Seconds until the second attempt; doubled after each further one.
    pub retry_seconds: f64,
    /// Seconds after which Postgres gives up a statement.
    pub statement_seconds: f64,
    /// How log lines are written.
    pub log_format: LogFormat,
}

impl Settings {
    /// The settings that follow from a configuration; `database_url` is where the opened database is.
    #[must_use]
    pub fn new(
        database_url: String,
        database: &DatabaseConfig,
        pipelines: &PipelineConfig,
        device: DeviceConfig,
        limits: &Limits,
        worker: &WorkerConfig,
        log_format: LogFormat,
    ) -> Self {
        Self {
            database_url,
            folders: pipelines.folders(database),
            artefacts: database.artefacts.clone(),
            device: device.device.to_string(),
            horizon_max: limits.horizon_max,
            samples_max: limits.samples_max,
            cost_max: limits.job_cost_max,
            job_attempts_max: limits.job_attempts_max,
            jobs_waiting_max: limits.jobs_waiting_max,
            retry_seconds: worker.job_retry.as_secs_f64(),
            statement_seconds: database.statement_timeout.as_secs_f64(),
            log_format,
        }
    }

    /// The limits of a forecast as a job, and of jobs that a job asks for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            horizon_max: self.horizon_max,
            samples_max: self.samples_max,
            cost_max: self.cost_max,
            job_attempts_max: self.job_attempts_max,
            jobs_waiting_max: self.jobs_waiting_max,
            ..Limits::default()
        }
    }
}

/// What a job works with.
#[derive(Clone)]
pub struct Context {
    /// Connections to Postgres.
    pub pool: PgPool,
    /// The configuration.
    pub settings: Settings,
    /// The time.
    pub clock: Clock,
}

impl Context {
    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// Where files of models are.
    ///
    /// # Errors
    /// [`Failure::Refused`] when there can be no such place.
    pub fn artefacts(&self) -> Result<Artefacts, Failure> {
        let Settings { artefacts, folders, .. } = &self.settings;
        config::artefacts(artefacts.as_deref(), &folders.data).map_err(|error| Failure::Refused(error.into()))
    }

    /// Where models compute.
    ///
    /// # Errors
    /// [`Failure::Refused`] when this build or machine has no such device.
    pub fn device(&self) -> Result<Device, Failure> {
        Ok(self.settings.device.parse::<DeviceName>()?.open()?)
    }
}

/// How a job is asked for.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Who asks, for people: `rest`, `schedule nightly`.
    pub by: &'a str,
    /// Not to be begun before this instant.
    pub run_after: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
    /// The request's key, if it had one.
    pub key: Option<&'a RequestKey>,
}

/// Adds a job to the queue; it exists once the caller's transaction is committed.
///
/// # Errors
/// - [`Error::UnknownPanel`]
/// - [`Error::InvalidBody`] with everything that is out of range, as pointers into the arguments
/// - [`Error::TooManyJobs`] when too many jobs wait
/// - [`db::Error::IdempotencyKeyInUse`] when another request with the key was faster
pub async fn enqueue(
    connection: &mut PgConnection,
    work: &Work,
    ask: &Ask<'_>,
    limits: &Limits,
) -> Result<Uuid, Error> {
    let job_id = insert(connection, work, ask, None, limits).await?;
    job_id.ok_or_else(|| Error::internal("adding a job", "it is there already"))
}

/// Adds the job of an occasion, unless it has one already: then `None`.
///
/// # Errors
/// Those of [`enqueue`].
pub async fn enqueue_occasion(
    connection: &mut PgConnection,
    work: &Work,
    ask: &Ask<'_>,
    occasion: Occasion,
    limits: &Limits,
) -> Result<Option<Uuid>, Error> {
    insert(connection, work, ask, Some(occasion), limits).await
}

/// The panel that a work is about.
async fn panel_id(connection: &mut PgConnection, work: &Work) -> Result<Option<i32>, Error> {
    let Some(name) = work.panel() else { return Ok(None) };
    match db::panel::get(connection, DEFAULT_TENANT, name).await? {
        Some(panel) => Ok(Some(panel.panel_id)),
        None => Err(Error::UnknownPanel { panel: name.to_owned() }),
    }
}

async fn insert(
    connection: &mut PgConnection,
    work: &Work,
    ask: &Ask<'_>,
    occasion: Option<Occasion>,
    limits: &Limits,
) -> Result<Option<Uuid>, Error> {
    work.check(limits)?;
    let panel_id = panel_id(connection, work).await?;
    let job_id = Uuid::now_v7();
    let new = NewJob {
        job_id,
        kind: work.kind(),
        arguments: &work.arguments()?,
        panel_id,
        asked_by: ask.by,
        attempts_max: limits.job_attempts_max,
        run_after: ask.run_after,
        created_at: ask.now,
        idempotency: ask.key.map(RequestKey::as_idempotency),
        occasion,
    };
    let limit = limits.jobs_waiting_max;
    match db::job::insert(connection, DEFAULT_TENANT, &new, limit).await? {
        Inserted::Added => Ok(Some(job_id)),
        Inserted::Exists => Ok(None),
        Inserted::Full => Err(Error::TooManyJobs { limit }),
    }
}
