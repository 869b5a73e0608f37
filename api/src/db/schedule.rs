//! Schedules: work that is to be done again and again.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};

use super::Error;
use super::words::CatchUp;
use uuid::Uuid;

/// A stored schedule.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Schedule {
    /// Identifier.
    pub schedule_id: i32,
    /// Name, unique within the tenant.
    pub name: String,
    /// When it is due: a cron expression of five fields.
    pub cron: String,
    /// By the clock of this zone, an IANA name.
    pub time_zone: String,
    /// The word of what is to be done.
    pub kind: String,
    /// Its arguments.
    pub arguments: Value,
    /// Name of the panel that it is about.
    pub panel: Option<String>,
    /// What becomes of missed occasions.
    pub catch_up: CatchUp,
    /// Jobs begin up to so many seconds after their occasion.
    pub jitter_seconds: i32,
    /// Whether it makes no jobs.
    pub paused: bool,
    /// The next occasion.
    pub next_run: Option<DateTime<Utc>>,
    /// The newest occasion that a job was made for.
    pub last_run: Option<DateTime<Utc>>,
    /// That job.
    pub last_job_id: Option<Uuid>,
    /// When a scheduler last looked at it, or it was declared.
    pub looked_at: DateTime<Utc>,
    /// When it was first stored.
    pub created_at: DateTime<Utc>,
}

/// A schedule as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule<'a> {
    /// Name, unique within the tenant.
    pub name: &'a str,
    /// When it is due.
    pub cron: &'a str,
    /// By the clock of this zone.
    pub time_zone: &'a str,
    /// The word of what is to be done.
    pub kind: &'a str,
    /// Its arguments.
    pub arguments: &'a Value,
    /// The panel that it is about.
    pub panel_id: Option<i32>,
    /// What becomes of missed occasions.
    pub catch_up: CatchUp,
    /// Jobs begin up to so many seconds after their occasion.
    pub jitter_seconds: i32,
    /// Whether it makes no jobs.
    pub paused: bool,
    /// The first occasion from now on; `None` for one that is paused.
    pub next_run: Option<DateTime<Utc>>,
}

/// Stores a schedule under its name, in place of one that was there; tells whether there was none.
///
/// One that keeps its times and goes on keeps its next occasion, too, so that declaring it again at a start misses nothing.
pub async fn put(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    schedule: &NewSchedule<'_>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    // A row that has just been inserted was not updated by anybody.
    Ok(sqlx::query_scalar(
        "insert into schedule as s (tenant_id, name, cron, time_zone, kind, arguments, panel_id, catch_up,
             jitter_seconds, paused, next_run, looked_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
         on conflict (tenant_id, name) do update
         set cron = excluded.cron, time_zone = excluded.time_zone, kind = excluded.kind,
             arguments = excluded.arguments, panel_id = excluded.panel_id, catch_up = excluded.catch_up,
             jitter_seconds = excluded.jitter_seconds, paused = excluded.paused,
             next_run = case
                 when excluded.paused then null
                 when s.cron = excluded.cron and s.time_zone = excluded.time_zone
                 then coalesce(s.next_run, excluded.next_run)
                 else excluded.next_run
             end,
             looked_at = $12
         returning xmax = 0",
    )
    .bind(tenant_id)
    .bind(schedule.name)
    .bind(schedule.cron)
    .bind(schedule.time_zone)
    .bind(schedule.kind)
    .bind(schedule.arguments)
    .bind(schedule.panel_id)
    .bind(schedule.catch_up)
    .bind(schedule.jitter_seconds)
    .bind(schedule.paused)
    .bind(schedule.next_run)
    .bind(now)
    .fetch_one(db)
    .await?)
}

/// One schedule.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, name: &str) -> Result<Option<Schedule>, Error> {
    Ok(sqlx::query_as(
        "select schedule_id, s.name, cron, s.time_zone, kind, arguments, p.name as panel, catch_up, jitter_seconds,
             paused, next_run, last_run, last_job_id, looked_at, s.created_at
         from schedule s
         left join panel p using (tenant_id, panel_id)
         where tenant_id = $1 and s.name = $2",
    )
    .bind(tenant_id)
    .bind(name)
    .fetch_optional(db)
    .await?)
}

/// At most `limit` schedules, of one panel or of all, by name, from the one after `after` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: Option<i32>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Schedule>, Error> {
    Ok(sqlx::query_as(
        "select schedule_id, s.name, cron, s.time_zone, kind, arguments, p.name as panel, catch_up, jitter_seconds,
             paused, next_run, last_run, last_job_id, looked_at, s.created_at
         from schedule s
         left join panel p using (tenant_id, panel_id)
         where tenant_id = $1 and ($2::integer is null or panel_id = $2) and ($3::text is null or s.name > $3)
         order by s.name
         limit $4",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Removes a schedule; its jobs stay. Tells whether there was one.
pub async fn delete(db: impl PgExecutor<'_>, tenant_id: i32, name: &str) -> Result<bool, Error> {
    let deleted = sqlx::query("delete from schedule where tenant_id = $1 and name = $2")
        .bind(tenant_id)
        .bind(name)
        .execute(db)
        .await?;
    Ok(deleted.rows_affected() == 1)
}

/// A schedule that is to be looked at, locked until the end of the transaction; `None` when there is none that nobody else
/// looks at. It is due, or was looked at in the future, when a clock was wrong.
pub async fn lock_due(
    connection: &mut PgConnection,
    tenant_id: i32,
    now: DateTime<Utc>,
) -> Result<Option<Schedule>, Error> {
    Ok(sqlx::query_as(
        "select schedule_id, s.name, cron, s.time_zone, kind, arguments, p.name as panel, catch_up, jitter_seconds,
             paused, next_run, last_run, last_job_id, looked_at, s.created_at
         from schedule s
         left join panel p using (tenant_id, panel_id)
         where tenant_id = $1 and next_run is not null and (next_run <= $2 or looked_at > $2)
         order by next_run, schedule_id
         limit 1
         for no key update of s skip locked",
    )
    .bind(tenant_id)
    .bind(now)
    .fetch_optional(connection)
    .await?)
}

/// Notes that a locked schedule was looked at, the occasion and job that came of it, and when it is due next.
pub async fn looked_at(
    connection: &mut PgConnection,
    tenant_id: i32,
    schedule_id: i32,
    next_run: Option<DateTime<Utc>>,
    last: Option<(DateTime<Utc>, Uuid)>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query(
        "update schedule
         set next_run = $3, last_run = coalesce($4, last_run), last_job_id = coalesce($5, last_job_id), looked_at = $6
         where tenant_id = $1 and schedule_id = $2",
    )
    .bind(tenant_id)
    .bind(schedule_id)
    .bind(next_run)
    .bind(last.map(|(occasion, _)| occasion))
    .bind(last.map(|(_, job_id)| job_id))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Jobs of a schedule that wait, though they might be begun.
pub async fn n_waiting(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    schedule_id: i32,
    now: DateTime<Utc>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "select count(*) from job
         where tenant_id = $1 and schedule_id = $2 and state = 'waiting' and run_after <= $3",
    )
    .bind(tenant_id)
    .bind(schedule_id)
    .bind(now)
    .fetch_one(db)
    .await?)
}

/// The schedule that has been due for longest, with its occasion.
pub async fn longest_due(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    before: DateTime<Utc>,
) -> Result<Option<(String, DateTime<Utc>)>, Error> {
    Ok(sqlx::query_as(
        "select name, next_run from schedule
         where tenant_id = $1 and next_run < $2
         order by next_run
         limit 1",
    )
    .bind(tenant_id)
    .bind(before)
    .fetch_optional(db)
    .await?)
}
