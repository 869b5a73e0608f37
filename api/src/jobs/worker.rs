//! A worker: takes jobs, gives each a process, and watches over them until it is told to stop.
//!
//! It goes on whatever happens: where the database is away it tries again, with its jobs running on.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use sqlx::PgPool;
use tokio::sync::{Notify, watch};

use super::attempt::wait_after;
use super::process::{Assignment, Process, Share};
use super::{Clock, Settings, Work, scheduler};
use crate::config::{Limits, WorkerConfig};
use crate::db::job::queue::{self, Lease};
use crate::db::words::JobState;
use crate::db::{self, DEFAULT_TENANT};
use crate::error::causes;
use crate::metrics::Metrics;

/// How long a stopping worker tries to hand its jobs back. If it cannot, their leases run out.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(5);

/// Does jobs.
pub struct Worker {
    /// Connections to Postgres.
    pub pool: PgPool,
    /// How it works.
    pub config: WorkerConfig,
    /// What its jobs need to know.
    pub settings: Settings,
    /// What schedules may ask for.
    pub limits: Limits,
    /// The program that runs jobs: this one.
    pub program: OsString,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
}

/// The running program, also after its file was replaced by a newer one.
#[must_use]
pub fn this_program() -> OsString {
    "/proc/self/exe".into()
}

/// A job that is being done.
struct Running {
    lease: Lease,
    kind: String,
    begun: Instant,
    process: Process,
}

/// How the process of a job ended.
enum End {
    Exited(ExitStatus),
    NotStarted(io::Error),
    TimedOut(Duration),
    LeaseGone,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "the process of the job ended early ({status})"),
            Self::NotStarted(error) => write!(formatter, "the process of the job could not be started: {error}"),
            Self::LeaseGone => formatter.write_str("the job was over, cancelled or taken over"),
            Self::TimedOut(limit) => write!(formatter, "the attempt took longer than {} s", limit.as_secs_f64()),
        }
    }
}

/// A job whose process has ended, until that is recorded.
struct Ended {
    lease: Lease,
    kind: String,
    seconds: f64,
    end: End,
}

impl Worker {
    /// Does jobs until `stop` becomes true; then stops those that run and hands them back.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let name = format!("{}-{}", host_name(), std::process::id());
        tracing::info!("worker {name} is ready");
        let changed = Arc::new(Notify::new());
        let (mut running, mut ended) = (Vec::new(), Vec::new());
        let mut is_away = false;
        loop {
            match self.look(&name, &changed, &mut running, &mut ended).await {
                Ok(()) => is_away = false,
                // Told once, not at each look.
                Err(error) if !is_away => {
                    tracing::warn!("worker {name} waits for the database: {}", causes(&error));
                    is_away = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(self.config.job_poll) => {}
                () = changed.notified() => {}
                _ = stop.wait_for(|&is_over| is_over) => break,
            }
        }
        let handed_back = tokio::time::timeout(HAND_BACK_LIMIT, self.hand_back(&name, running)).await;
        match handed_back {
            Ok(Ok(())) => tracing::info!("worker {name} has stopped"),
            Ok(Err(error)) => tracing::warn!("worker {name} could not hand its jobs back: {}", causes(&error)),
            Err(_) => tracing::warn!("worker {name} could not hand its jobs back in time"),
        }
    }

    /// Looks after what runs, then for more.
    async fn look(
        &self,
        name: &str,
        changed: &Arc<Notify>,
        running: &mut Vec<Running>,
        ended: &mut Vec<Ended>,
    ) -> Result<(), db::Error> {
        self.collect(running, ended);
        self.renew(running, ended).await?;
        while let Some(one) = ended.last() {
            self.record(one).await?;
            ended.pop();
        }
        queue::bury(&self.pool, (self.clock)()).await?;
        while running.len() < self.config.jobs_at_once {
            let Some(one) = self.take(name, changed, running).await? else { break };
            running.push(one);
        }
        let now = (self.clock)();
        db::worker::seen(&self.pool, DEFAULT_TENANT, name, now).await?;
        scheduler::look(&self.pool, &self.limits, now).await?;
        db::worker::scheduled(&self.pool, DEFAULT_TENANT, name, now).await
    }

    /// Moves the jobs whose process has ended, or took too long.
    fn collect(&self, running: &mut Vec<Running>, ended: &mut Vec<Ended>) {
        let limit = self.config.job_timeout;
        for mut one in std::mem::take(running) {
            let end = match one.process.exit_status() {
                Some(Ok(status)) => End::Exited(status),
                Some(Err(error)) => End::NotStarted(error),
                None if one.begun.elapsed() > limit => End::TimedOut(limit),
                None => {
                    running.push(one);
                    continue;
                }
            };
            let Running { lease, kind, begun, .. } = one;
            ended.push(Ended { lease, kind, seconds: begun.elapsed().as_secs_f64(), end });
        }
    }

    /// Records the end of a process. Usually the process itself has recorded how its job ended, and nothing is left to do.
    async fn record(&self, ended: &Ended) -> Result<(), db::Error> {
        let Ended { lease, kind, seconds, end } = ended;
        let now = (self.clock)();
        let run_after = now + wait_after(lease.attempt, self.settings.retry_seconds);
        let reason = end.to_string();
        if queue::fail(&self.pool, lease, &reason, Some(run_after), now).await?.is_some() {
            let Lease { tenant_id, job_id, attempt, .. } = *lease;
            let line = format!("attempt {attempt} failed: {reason}");
            db::job::log::write(&self.pool, tenant_id, job_id, attempt, now, &line).await?;
        }
        let job = db::job::get(&self.pool, lease.tenant_id, lease.job_id).await?;
        let outcome = match job.as_ref().map(|job| job.state) {
            Some(state @ (JobState::Succeeded | JobState::Failed | JobState::Cancelled)) => state.as_str(),
            _ => "retried",
        };
        self.metrics.job_duration.with_label_values(&[kind.as_str(), outcome]).observe(*seconds);
        let failure = job.and_then(|job| job.failure).unwrap_or_default();
        tracing::info!(job.id = %lease.job_id, duration_ms = seconds * 1e3, failure, "job of kind {kind}: {outcome}");
        Ok(())
    }

    /// Renews the leases of what runs; ends the processes of what was cancelled or taken over, or has recorded its end and
    /// is about to exit.
    async fn renew(&self, running: &mut Vec<Running>, ended: &mut Vec<Ended>) -> Result<(), db::Error> {
        let mut index = 0;
        while index < running.len() {
            if queue::renew(&self.pool, &running[index].lease, self.config.job_lease).await? {
                index += 1;
            } else {
                let Running { lease, kind, begun, process } = running.remove(index);
                process.kill().await;
                ended.push(Ended { lease, kind, seconds: begun.elapsed().as_secs_f64(), end: End::LeaseGone });
            }
        }
        Ok(())
    }

    /// Takes a job and starts its process. Long jobs are taken one at a time.
    async fn take(&self, name: &str, changed: &Arc<Notify>, running: &[Running]) -> Result<Option<Running>, db::Error> {
        let short = Work::short_kinds();
        let has_long = running.iter().any(|one| !short.contains(&one.kind.as_str()));
        let kinds = if has_long { &short } else { Work::KINDS };
        let now = (self.clock)();
        let Some(taken) = queue::take(&self.pool, name, kinds, now, self.config.job_lease).await? else {
            return Ok(None);
        };
        let queue::Taken { lease, kind, taken_from } = taken;
        tracing::info!(job.id = %lease.job_id, attempt = lease.attempt, "began job of kind {kind}");
        let assignment = Assignment { lease: lease.clone(), settings: self.settings.clone() };
        let share = Share { niceness: self.config.job_niceness, n_threads: self.config.job_threads };
        let process = Process::start(&self.program, &assignment, share, Arc::clone(changed));
        if let Some(dead) = taken_from {
            let line = format!("worker {dead} stopped answering; taken over by {name}");
            let Lease { tenant_id, job_id, attempt, .. } = lease;
            // The job is ours with or without this line.
            let _ = db::job::log::write(&self.pool, tenant_id, job_id, attempt, now, &line).await;
        }
        Ok(Some(Running { lease, kind, begun: Instant::now(), process }))
    }

    /// Ends all processes; their jobs wait for another worker, as if they had not been begun.
    async fn hand_back(&self, name: &str, running: Vec<Running>) -> Result<(), db::Error> {
        for Running { lease, process, .. } in running {
            process.kill().await;
            queue::hand_back(&self.pool, &lease).await?;
            tracing::info!(job.id = %lease.job_id, "handed a job back");
        }
        db::worker::remove(&self.pool, DEFAULT_TENANT, name).await
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "worker".to_owned(), |name| name.to_string_lossy().into_owned())
}
