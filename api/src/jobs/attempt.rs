//! One attempt at a job: doing it, and recording how that ended.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Context, Failure, Reporter, Work};
use crate::db;
use crate::db::job::queue::{self, Lease};
use crate::db::words::JobState;

/// Longest wait for the next attempt.
const RETRY_SECONDS_MAX: f64 = 900.0;

/// How long a failure waits for a database that is away before the worker has to record it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two tries to record a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes an attempt at the job that the lease is for, and records how it ended: the job's new state, or `None` when it was
/// cancelled or taken over meanwhile.
///
/// # Errors
/// When the database is away at the beginning or at the end.
pub async fn make(context: &Context, lease: &Lease) -> Result<Option<JobState>, db::Error> {
    let Some(job) = db::job::get(&context.pool, lease.tenant_id, lease.job_id).await? else { return Ok(None) };
    let reporter = Reporter::new(context.pool.clone(), lease.clone(), context.clock.clone());
    let work = match Work::parse(&job.kind, job.arguments) {
        Ok(work) => dated(context, lease, &job.kind, work).await,
        Err(error) => Err(error.into()),
    };
    let outcome = match work {
        Ok(work) => {
            let (context, told) = (context.clone(), reporter.clone());
            let work = tokio::spawn(async move { told.while_writing(work.perform(&context, &told)).await });
            // A panic is a failure as any other.
            work.await.unwrap_or_else(|panic| Err(Failure::Passing(panic.into())))
        }
        Err(failure) => Err(failure),
    };

    let failure = match outcome {
        Ok(_) => return Ok(Some(JobState::Succeeded)),
        Err(Failure::LeaseLost) => return Ok(None),
        Err(failure) => failure,
    };
    let reason = failure.reason();
    reporter.log(format!("attempt {} failed: {reason}", lease.attempt));
    let now = context.now();
    let run_after = match failure {
        Failure::Refused(_) => None,
        _ => Some(now + wait_after(lease.attempt, context.settings.retry_seconds)),
    };
    reporter.write().await;
    record(context, lease, &reason, run_after, now).await
}

/// Long work as of when it was first begun, which is kept with the job: the next attempt goes on with the same data.
async fn dated(context: &Context, lease: &Lease, kind: &str, work: Work) -> Result<Work, Failure> {
    if Work::short_kinds().contains(&kind) {
        return Ok(work);
    }
    let work = work.dated(context.now());
    if queue::set_arguments(&context.pool, lease, &work.arguments()?).await? {
        Ok(work)
    } else {
        Err(Failure::LeaseLost)
    }
}

/// Records a failed attempt; waits a while for a database that is away.
async fn record(
    context: &Context,
    lease: &Lease,
    reason: &str,
    run_after: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<JobState>, db::Error> {
    let started = Instant::now();
    loop {
        match queue::fail(&context.pool, lease, reason, run_after, now).await {
            Err(error) if error.is_transient() && started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// How long to wait after the attempt with this number.
pub fn wait_after(attempt: i32, retry_seconds: f64) -> TimeDelta {
    let doublings = attempt.clamp(1, 32) - 1;
    let seconds = (retry_seconds * 2_f64.powi(doublings)).min(RETRY_SECONDS_MAX);
    TimeDelta::milliseconds((seconds * 1e3) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_quarter_of_an_hour() {
        for (attempt, seconds) in [(1, 10), (2, 20), (3, 40), (8, 900), (100, 900)] {
            assert_eq!(wait_after(attempt, 10.0), TimeDelta::seconds(seconds), "{attempt}");
        }
        assert_eq!(wait_after(1, 0.05), TimeDelta::milliseconds(50));
    }
}
