//! Processes that do jobs, and when each was last seen.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;

use super::Error;

/// A worker that has not been seen for so long is forgotten.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::days(1);

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
    /// When it last looked after the schedules, with success.
    pub scheduled_at: Option<DateTime<Utc>>,
}

/// Notes that a worker lives, and forgets those that died long ago.
pub async fn seen(db: impl PgExecutor<'_>, tenant_id: i32, name: &str, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query(
        "with forgotten as (delete from worker where tenant_id = $1 and seen_at < $4)
         insert into worker (tenant_id, name, started_at, seen_at)
         values ($1, $2, $3, $3)
         on conflict (tenant_id, name) do update set seen_at = excluded.seen_at",
    )
    .bind(tenant_id)
    .bind(name)
    .bind(now)
    .bind(now - FORGOTTEN_AFTER)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that a worker has looked after the schedules, with success.
pub async fn scheduled(db: impl PgExecutor<'_>, tenant_id: i32, name: &str, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query("update worker set scheduled_at = $3 where tenant_id = $1 and name = $2")
        .bind(tenant_id)
        .bind(name)
        .bind(now)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets a worker that stops.
pub async fn remove(db: impl PgExecutor<'_>, tenant_id: i32, name: &str) -> Result<(), Error> {
    sqlx::query("delete from worker where tenant_id = $1 and name = $2").bind(tenant_id).bind(name).execute(db).await?;
    Ok(())
}

/// The workers that are known, the one seen last first.
pub async fn list(db: impl PgExecutor<'_>, tenant_id: i32) -> Result<Vec<Worker>, Error> {
    Ok(sqlx::query_as(
        "select name, started_at, seen_at, scheduled_at from worker where tenant_id = $1 order by seen_at desc, name",
    )
    .bind(tenant_id)
    .fetch_all(db)
    .await?)
}
