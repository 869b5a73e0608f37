//! Jobs: what is to be done, how far it is, and what came out.
//!
//! [`queue`] has what a worker does with them, [`log`] what they say meanwhile.

pub mod log;
pub mod queue;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;
use super::forecast::Idempotency;
use super::words::JobState;

/// A stored job.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Job {
    /// Identifier, a version 7 UUID.
    pub job_id: Uuid,
    /// The word of what is to be done.
    pub kind: String,
    /// Its arguments.
    pub arguments: Value,
    /// Name of the panel that it is about.
    pub panel: Option<String>,
    /// Who asked.
    pub asked_by: String,
    /// How far it has come.
    pub state: JobState,
    /// Share that is done, 0 to 1.
    pub progress: f32,
    /// What is being done.
    pub activity: String,
    /// Attempts begun.
    pub attempts: i32,
    /// Attempts allowed.
    pub attempts_max: i32,
    /// Not to be begun before this instant.
    pub run_after: DateTime<Utc>,
    /// Who does it, or did it last.
    pub worker: Option<String>,
    /// What came out.
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub failure: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last attempt was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, well or not.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A job that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob<'a> {
    /// Identifier, a version 7 UUID.
    pub job_id: Uuid,
    /// The word of what is to be done.
    pub kind: &'a str,
    /// Its arguments.
    pub arguments: &'a Value,
    /// The panel that it is about.
    pub panel_id: Option<i32>,
    /// Who asks.
    pub asked_by: &'a str,
    /// Attempts allowed; at least 1.
    pub attempts_max: i32,
    /// Not to be begun before this instant.
    pub run_after: DateTime<Utc>,
    /// Now.
    pub created_at: DateTime<Utc>,
    /// The request's key, if it had one.
    pub idempotency: Option<Idempotency<'a>>,
    /// The occasion that it is for, if a schedule asks.
    pub occasion: Option<Occasion>,
}

/// An occasion of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion {
    /// The schedule.
    pub schedule_id: i32,
    /// When it was due.
    pub scheduled_for: DateTime<Utc>,
}

/// What became of a job that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It waits.
    Added,
    /// The occasion has a job already.
    Exists,
    /// Too many jobs wait.
    Full,
}

/// Adds a job, unless its occasion has one or `waiting_max` wait already.
///
/// The limit is one of order of magnitude: jobs that are added at the same moment do not see each other.
///
/// # Errors
/// [`Error::IdempotencyKeyInUse`] when a job with the key exists; [`Error::UnknownReference`] when the panel does not.
pub async fn insert(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    job: &NewJob<'_>,
    waiting_max: i64,
) -> Result<Inserted, Error> {
    let (is_added, is_full): (bool, bool) = sqlx::query_as(
        "with queue as (
             select count(*) >= $12 as is_full from job where tenant_id = $1 and state = 'waiting'
         ), added as (
             insert into job (tenant_id, job_id, kind, arguments, panel_id, asked_by, attempts_max, run_after,
                 created_at, idempotency_key, request_digest, schedule_id, scheduled_for)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13, $14
             from queue
             where not is_full
             on conflict (tenant_id, schedule_id, scheduled_for) do nothing
             returning 1
         )
         select exists (select from added), is_full from queue",
    )
    .bind(tenant_id)
    .bind(job.job_id)
    .bind(job.kind)
    .bind(job.arguments)
    .bind(job.panel_id)
    .bind(job.asked_by)
    .bind(job.attempts_max)
    .bind(job.run_after)
    .bind(job.created_at)
    .bind(job.idempotency.map(|i| i.key))
    .bind(job.idempotency.map(|i| i.request_digest))
    .bind(waiting_max)
    .bind(job.occasion.map(|occasion| occasion.schedule_id))
    .bind(job.occasion.map(|occasion| occasion.scheduled_for))
    .fetch_one(db)
    .await?;
    Ok(match (is_added, is_full) {
        (true, _) => Inserted::Added,
        (false, true) => Inserted::Full,
        (false, false) => Inserted::Exists,
    })
}

/// One job.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, job_id: Uuid) -> Result<Option<Job>, Error> {
    Ok(sqlx::query_as(
        "select job_id, kind, arguments, name as panel, asked_by, state, progress, activity, attempts, attempts_max,
             run_after, worker, result, failure, j.created_at, started_at, finished_at
         from job j
         left join panel using (tenant_id, panel_id)
         where tenant_id = $1 and job_id = $2",
    )
    .bind(tenant_id)
    .bind(job_id)
    .fetch_optional(db)
    .await?)
}

/// The job that a request with this key made, and the digest of that request.
pub async fn find_by_key(db: impl PgExecutor<'_>, tenant_id: i32, key: &str) -> Result<Option<(Uuid, String)>, Error> {
    Ok(sqlx::query_as("select job_id, request_digest from job where tenant_id = $1 and idempotency_key = $2")
        .bind(tenant_id)
        .bind(key)
        .fetch_optional(db)
        .await?)
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this panel.
    pub panel_id: Option<i32>,
    /// In this state.
    pub state: Option<JobState>,
    /// Of this kind.
    pub kind: Option<String>,
}

/// At most `limit` jobs, the newest first, from the one before `before` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    Ok(sqlx::query_as(
        "select job_id, kind, arguments, name as panel, asked_by, state, progress, activity, attempts, attempts_max,
             run_after, worker, result, failure, j.created_at, started_at, finished_at
         from job j
         left join panel using (tenant_id, panel_id)
         where tenant_id = $1
           and ($2::integer is null or panel_id = $2)
           and ($3::text is null or state = $3)
           and ($4::text is null or kind = $4)
           and ($5::uuid is null or job_id < $5)
         order by job_id desc
         limit $6",
    )
    .bind(tenant_id)
    .bind(filter.panel_id)
    .bind(filter.state)
    .bind(&filter.kind)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Withdraws a job that waits or runs. The process of a running one ends as soon as its worker notices, and can change
/// nothing more from now on. Tells whether there was something to withdraw.
pub async fn cancel(db: impl PgExecutor<'_>, tenant_id: i32, job_id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let cancelled = sqlx::query(
        "update job
         set state = 'cancelled', lease_id = null, lease_until = null, activity = '', finished_at = $3
         where tenant_id = $1 and job_id = $2 and state in ('waiting', 'running')",
    )
    .bind(tenant_id)
    .bind(job_id)
    .bind(now)
    .execute(db)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}

/// Lets a job that failed or was cancelled wait again, with all its attempts. Tells whether it had.
pub async fn retry(db: impl PgExecutor<'_>, tenant_id: i32, job_id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let retried = sqlx::query(
        "update job
         set state = 'waiting', attempts = 0, progress = 0, activity = '', failure = null, run_after = $3,
             finished_at = null
         where tenant_id = $1 and job_id = $2 and state in ('failed', 'cancelled')",
    )
    .bind(tenant_id)
    .bind(job_id)
    .bind(now)
    .execute(db)
    .await?;
    Ok(retried.rows_affected() == 1)
}

/// Since when the job has waited that has been due longest, if that was before an instant.
pub async fn oldest_due(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    before: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "select min(run_after) from job where tenant_id = $1 and state = 'waiting' and run_after < $2",
    )
    .bind(tenant_id)
    .bind(before)
    .fetch_one(db)
    .await?)
}

/// Number of jobs by state and kind.
pub async fn counts(db: impl PgExecutor<'_>, tenant_id: i32) -> Result<Vec<(JobState, String, i64)>, Error> {
    Ok(sqlx::query_as("select state, kind, count(*) from job where tenant_id = $1 group by state, kind")
        .bind(tenant_id)
        .fetch_all(db)
        .await?)
}
