//! What jobs say while they run.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::super::Error;

/// Most lines that are kept of one job.
pub const LINES_MAX: i64 = 1000;

/// Most characters that are kept of one line.
pub const LINE_LENGTH_MAX: usize = 2000;

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Line {
    /// Orders the lines of a job.
    pub line_id: i64,
    /// The attempt that wrote it, counted from 1.
    pub attempt: i32,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// What it says.
    pub text: String,
}

/// Adds a line, cut to [`LINE_LENGTH_MAX`]. After [`LINES_MAX`] lines nothing is added any more.
pub async fn write(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    job_id: Uuid,
    attempt: i32,
    now: DateTime<Utc>,
    text: &str,
) -> Result<(), Error> {
    let text: String = text.chars().filter(|&character| character != '\0').take(LINE_LENGTH_MAX).collect();
    sqlx::query(
        "insert into job_log (tenant_id, job_id, attempt, written_at, text)
         select $1, $2, $3, $4, $5
         where (select count(*) from job_log where tenant_id = $1 and job_id = $2) < $6",
    )
    .bind(tenant_id)
    .bind(job_id)
    .bind(attempt)
    .bind(now)
    .bind(text)
    .bind(LINES_MAX)
    .execute(db)
    .await?;
    Ok(())
}

/// At most `limit` lines of a job, the oldest first, from the one after `after` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    job_id: Uuid,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Line>, Error> {
    Ok(sqlx::query_as(
        "select line_id, attempt, written_at, text
         from job_log
         where tenant_id = $1 and job_id = $2 and ($3::bigint is null or line_id > $3)
         order by line_id
         limit $4",
    )
    .bind(tenant_id)
    .bind(job_id)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
