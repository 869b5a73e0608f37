//! What a worker does with jobs: take one by a lease, renew it, and end it while the lease holds.
//!
//! Whatever ends a job names its lease and changes nothing when the job has another one, or none, by now.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::super::Error;
use super::super::words::JobState;

/// The right to do a job, until it runs out or the job is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Lease {
    /// Whose job it is.
    pub tenant_id: i32,
    /// The job.
    pub job_id: Uuid,
    /// New at each taking.
    pub lease_id: Uuid,
    /// 1 for the first attempt.
    pub attempt: i32,
}

/// A job that has just been taken.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Taken {
    /// The lease.
    #[sqlx(flatten)]
    pub lease: Lease,
    /// The word of what is to be done.
    pub kind: String,
    /// The worker that had it and died, if there was one.
    pub taken_from: Option<String>,
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// Takes the job of one of the `kinds` that has waited longest, or whose worker has died; `None` when there is none.
pub async fn take(
    db: impl PgExecutor<'_>,
    worker: &str,
    kinds: &[&str],
    now: DateTime<Utc>,
    lease: Duration,
) -> Result<Option<Taken>, Error> {
    // A row that another worker is just taking is passed over, not waited for.
    Ok(sqlx::query_as(
        "with due as (
             select tenant_id, job_id, case when state = 'running' then worker end as taken_from
             from job
             where state in ('waiting', 'running')
               and (state = 'waiting' and run_after <= $3 or state = 'running' and lease_until < clock_timestamp())
               and kind = any ($2) and attempts < attempts_max
             order by run_after, job_id
             limit 1
             for no key update skip locked
         )
         update job
         set state = 'running', attempts = attempts + 1, progress = 0, activity = '', started_at = $3, worker = $1,
             lease_id = $5, lease_until = clock_timestamp() + $4
         from due
         where job.tenant_id = due.tenant_id and job.job_id = due.job_id
         returning job.tenant_id, job.job_id, lease_id, attempts as attempt, kind, taken_from",
    )
    .bind(worker)
    .bind(kinds)
    .bind(now)
    .bind(interval(lease))
    .bind(Uuid::new_v4())
    .fetch_optional(db)
    .await?)
}

/// Ends the jobs whose worker died in the last of their attempts.
pub async fn bury(db: impl PgExecutor<'_>, now: DateTime<Utc>) -> Result<u64, Error> {
    let buried = sqlx::query(
        "update job
         set state = 'failed', lease_id = null, lease_until = null, activity = '', finished_at = $1,
             failure = format('worker %s stopped answering, in attempt %s of %s', worker, attempts, attempts_max)
         where state = 'running' and lease_until < clock_timestamp() and attempts >= attempts_max",
    )
    .bind(now)
    .execute(db)
    .await?;
    Ok(buried.rows_affected())
}

/// Writes down what a job is to do, more exactly; tells whether the lease still was the job's.
pub async fn set_arguments(db: impl PgExecutor<'_>, lease: &Lease, arguments: &Value) -> Result<bool, Error> {
    let set = sqlx::query("update job set arguments = $4 where tenant_id = $1 and job_id = $2 and lease_id = $3")
        .bind(lease.tenant_id)
        .bind(lease.job_id)
        .bind(lease.lease_id)
        .bind(arguments)
        .execute(db)
        .await?;
    Ok(set.rows_affected() == 1)
}

/// Renews a lease; tells whether it still was the job's. One that has run out is renewed too, if nobody has taken the job.
pub async fn renew(db: impl PgExecutor<'_>, lease: &Lease, duration: Duration) -> Result<bool, Error> {
    let renewed = sqlx::query(
        "update job
         set lease_until = clock_timestamp() + $4
         where tenant_id = $1 and job_id = $2 and lease_id = $3",
    )
    .bind(lease.tenant_id)
    .bind(lease.job_id)
    .bind(lease.lease_id)
    .bind(interval(duration))
    .execute(db)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Whether a lease still is the job's; if so, it is until the transaction ends.
pub async fn hold(db: impl PgExecutor<'_>, lease: &Lease) -> Result<bool, Error> {
    let held: Option<bool> =
        sqlx::query_scalar("select true from job where tenant_id = $1 and job_id = $2 and lease_id = $3 for share")
            .bind(lease.tenant_id)
            .bind(lease.job_id)
            .bind(lease.lease_id)
            .fetch_optional(db)
            .await?;
    Ok(held.is_some())
}

/// Notes how far a job is. Without effect when the lease is not the job's any more.
pub async fn report(db: impl PgExecutor<'_>, lease: &Lease, progress: f32, activity: &str) -> Result<(), Error> {
    sqlx::query(
        "update job
         set progress = $4, activity = $5
         where tenant_id = $1 and job_id = $2 and lease_id = $3",
    )
    .bind(lease.tenant_id)
    .bind(lease.job_id)
    .bind(lease.lease_id)
    .bind(progress.clamp(0.0, 1.0))
    .bind(activity)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a job well, in the transaction that holds its effect; tells whether the lease still was the job's. If not, the
/// transaction must not be committed.
pub async fn succeed(
    connection: &mut PgConnection,
    lease: &Lease,
    result: &Value,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let succeeded = sqlx::query(
        "update job
         set state = 'succeeded', lease_id = null, lease_until = null, progress = 1, activity = '', result = $4,
             failure = null, finished_at = $5
         where tenant_id = $1 and job_id = $2 and lease_id = $3",
    )
    .bind(lease.tenant_id)
    .bind(lease.job_id)
    .bind(lease.lease_id)
    .bind(result)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(succeeded.rows_affected() == 1)
}

/// Ends an attempt that failed: the job waits until `run_after`, or has failed when that is `None` or no attempt is left.
/// Gives the new state; `None` when the lease is not the job's any more.
pub async fn fail(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    failure: &str,
    run_after: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<JobState>, Error> {
    Ok(sqlx::query_scalar(
        "update job
         set state = case when $5::timestamptz is null or attempts >= attempts_max then 'failed' else 'waiting' end,
             finished_at = case when $5 is null or attempts >= attempts_max then $6 end,
             run_after = coalesce($5, run_after),
             lease_id = null, lease_until = null, activity = '', failure = $4
         where tenant_id = $1 and job_id = $2 and lease_id = $3
         returning state",
    )
    .bind(lease.tenant_id)
    .bind(lease.job_id)
    .bind(lease.lease_id)
    .bind(failure.replace('\0', ""))
    .bind(run_after)
    .bind(now)
    .fetch_optional(db)
    .await?)
}

/// Hands a job back that was begun: it waits again, as if the attempt had not been made.
pub async fn hand_back(db: impl PgExecutor<'_>, lease: &Lease) -> Result<(), Error> {
    sqlx::query(
        "update job
         set state = 'waiting', attempts = attempts - 1, progress = 0, activity = '', started_at = null,
             lease_id = null, lease_until = null
         where tenant_id = $1 and job_id = $2 and lease_id = $3",
    )
    .bind(lease.tenant_id)
    .bind(lease.job_id)
    .bind(lease.lease_id)
    .execute(db)
    .await?;
    Ok(())
}
