//! What a job tells while it runs, and how it ends well.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::Notify;

use super::{Clock, Failure};
use crate::db::job::log;
use crate::db::job::queue::{self, Lease};

/// How often what was told is written to the database.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Most lines that wait to be written; further ones are dropped.
const LINES_WAITING_MAX: usize = 100;

/// How long the end of a job waits for a database that is away: hours of work would be lost with it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pause between two looks at a database that is away.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Takes what a job tells, from any thread. Clones tell of the same job.
#[derive(Clone)]
pub struct Reporter {
    pool: PgPool,
    lease: Lease,
    clock: Clock,
    untold: Arc<Mutex<Untold>>,
    /// Held while something is written, so that lines keep their order and none is on its way when the job ends.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// What is not written yet.
#[derive(Default)]
struct Untold {
    progress: Option<(f32, String)>,
    lines: Vec<(DateTime<Utc>, String)>,
}

/// The proof that a job has ended well: only [`Reporter::succeed`] gives it.
#[derive(Debug)]
pub struct Succeeded(());

impl Reporter {
    /// Tells of the job that the lease is for.
    #[must_use]
    pub fn new(pool: PgPool, lease: Lease, clock: Clock) -> Self {
        Self { pool, lease, clock, untold: Arc::default(), writing: Arc::default() }
    }

    /// The lease of the attempt.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Tells which share of the work is done, 0 to 1, and what is being done.
    pub fn progress(&self, share: f64, activity: impl Into<String>) {
        self.with_untold(|untold| untold.progress = Some((share as f32, activity.into())));
    }

    /// Adds a line to the job's log.
    pub fn log(&self, text: impl Into<String>) {
        let now = (self.clock)();
        self.with_untold(|untold| {
            if untold.lines.len() < LINES_WAITING_MAX {
                untold.lines.push((now, text.into()));
            }
        });
    }

    fn with_untold<T>(&self, change: impl FnOnce(&mut Untold) -> T) -> T {
        change(&mut self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does some work, and writes what it tells meanwhile. What is being written when the work ends is written to the end.
    pub async fn while_writing<T>(&self, work: impl Future<Output = T>) -> T {
        let ended = Notify::new();
        let work = async {
            let outcome = work.await;
            ended.notify_one();
            outcome
        };
        let keep_writing = async {
            while tokio::time::timeout(WRITE_INTERVAL, ended.notified()).await.is_err() {
                self.write().await;
            }
        };
        tokio::join!(work, keep_writing).0
    }

    /// Writes what was told. A job goes on where this fails; the lines are lost.
    pub async fn write(&self) {
        let _writing = self.writing.lock().await;
        let Untold { progress, lines } = self.with_untold(std::mem::take);
        let result: Result<(), crate::db::Error> = async {
            if let Some((share, activity)) = progress {
                queue::report(&self.pool, &self.lease, share, &activity).await?;
            }
            let Lease { tenant_id, job_id, attempt, .. } = self.lease;
            for (written_at, text) in lines {
                log::write(&self.pool, tenant_id, job_id, attempt, written_at, &text).await?;
            }
            Ok(())
        }
        .await;
        if let Err(error) = result {
            tracing::warn!(job.id = %self.lease.job_id, "cannot note the progress of a job: {error}");
        }
    }

    /// Begins the transaction that is to hold the effect of the job; waits some minutes for a database that is away.
    ///
    /// # Errors
    /// [`Failure::Passing`] when the database stays away.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>, Failure> {
        let started = Instant::now();
        loop {
            match self.pool.begin().await.map_err(crate::db::Error::from) {
                Err(error) if error.is_transient() && started.elapsed() < PATIENCE => {
                    tracing::warn!(job.id = %self.lease.job_id, "waiting for the database: {error}");
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                result => return Ok(result?),
            }
        }
    }

    /// Commits a part of the effect of a job, which another attempt finds done.
    ///
    /// # Errors
    /// [`Failure::LeaseLost`] when the job was cancelled or taken over: then nothing of the transaction is kept.
    pub async fn keep(&self, mut transaction: Transaction<'static, Postgres>) -> Result<(), Failure> {
        if !queue::hold(&mut *transaction, &self.lease).await? {
            transaction.rollback().await?;
            return Err(Failure::LeaseLost);
        }
        Ok(transaction.commit().await?)
    }

    /// Ends the job well: commits the transaction with its effect, together with the end of the job and its `result`.
    ///
    /// # Errors
    /// [`Failure::LeaseLost`] when the job was cancelled or taken over: then nothing of the transaction is kept.
    pub async fn succeed(
        &self,
        mut transaction: Transaction<'static, Postgres>,
        result: &Value,
    ) -> Result<Succeeded, Failure> {
        self.write().await;
        if !queue::succeed(&mut transaction, &self.lease, result, (self.clock)()).await? {
            transaction.rollback().await?;
            return Err(Failure::LeaseLost);
        }
        transaction.commit().await?;
        Ok(Succeeded(()))
    }
}
