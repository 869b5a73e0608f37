//! Old observations, models, jobs and loads.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::super::Error;
use super::Rules;

/// The newest `valid_time` of each panel that has observations; what is supplied ahead of known covariates is none.
pub async fn newest_valid_times(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
) -> Result<BTreeMap<i32, DateTime<Utc>>, Error> {
    let rows: Vec<(i32, DateTime<Utc>)> = sqlx::query_as(
        "select s.panel_id, max(newest.valid_time)
         from series s
         cross join lateral (
             select o.valid_time
             from observation o
             where o.tenant_id = s.tenant_id and o.series_id = s.series_id
             order by o.valid_time desc
             limit 1
         ) as newest
         where s.tenant_id = $1 and s.role <> 'known'
         group by s.panel_id",
    )
    .bind(tenant_id)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Observations that are old: before the year of their panel's cutoff.
macro_rules! old_observations {
    () => {
        "from series s
         join unnest($2::integer[], $3::timestamptz[]) as rule (panel_id, cutoff) on rule.panel_id = s.panel_id
         join observation o on o.tenant_id = s.tenant_id and o.series_id = s.series_id
             and o.valid_time < date_trunc('year', rule.cutoff, 'UTC')
         where s.tenant_id = $1"
    };
}
pub(super) use old_observations;

/// How many observations are old.
pub async fn n_old_observations(db: impl PgExecutor<'_>, tenant_id: i32, rules: &Rules) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(concat!("select count(*) ", old_observations!()))
        .bind(tenant_id)
        .bind(&rules.panel_ids)
        .bind(&rules.cutoffs)
        .fetch_one(db)
        .await?)
}

/// Deletes at most `limit` of them, in the order in which they are exported; tells how many.
pub async fn delete_observations(
    conn: &mut PgConnection,
    tenant_id: i32,
    rules: &Rules,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query(concat!(
        "with old as (
             select o.tenant_id, o.series_id, o.valid_time, o.available_at ",
        old_observations!(),
        " order by o.series_id, o.valid_time, o.available_at
             limit $4
         )
         delete from observation
         using old
         where observation.tenant_id = old.tenant_id and observation.series_id = old.series_id
           and observation.valid_time = old.valid_time and observation.available_at = old.available_at"
    ))
    .bind(tenant_id)
    .bind(&rules.panel_ids)
    .bind(&rules.cutoffs)
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}

/// Models that are old and that nothing kept refers to: neither champion nor what a roll-back goes to, older than the
/// champion or set aside, and without a forecast that `scores` keeps.
pub async fn old_models(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    models: &Rules,
    scores: &Rules,
) -> Result<Vec<i32>, Error> {
    Ok(sqlx::query_scalar(
        "select m.model_id
         from model m
         join unnest($2::integer[], $3::timestamptz[], $4::timestamptz[]) as rule (panel_id, cutoff, score_cutoff)
             on rule.panel_id = m.panel_id
         left join model c on c.tenant_id = m.tenant_id and c.panel_id = m.panel_id and c.stage = 'champion'
         where m.tenant_id = $1 and m.created_at < rule.cutoff
           and (m.stage in ('archived', 'rejected') or m.stage = 'candidate' and m.version < c.version)
           and m.model_id is distinct from c.replaced_model_id
           and not exists (
               select
               from forecast f
               where f.tenant_id = m.tenant_id and f.panel_version_id = m.panel_version_id and f.model_id = m.model_id
                 and not coalesce(
                     f.issue_time < date_trunc('month', score_cutoff, 'UTC') and f.last_valid_time < score_cutoff, false
                 )
           )
         order by m.model_id",
    )
    .bind(tenant_id)
    .bind(&models.panel_ids)
    .bind(&models.cutoffs)
    .bind(&scores.cutoffs)
    .fetch_all(db)
    .await?)
}

/// Jobs that ended before the cutoff of their panel, or (of none) before `$4`, but for the last one of a schedule.
macro_rules! old_jobs {
    () => {
        "from job j
         left join unnest($2::integer[], $3::timestamptz[]) as rule (panel_id, cutoff) on rule.panel_id = j.panel_id
         where j.tenant_id = $1 and j.finished_at < case when j.panel_id is null then $4 else rule.cutoff end
           and not exists (select from schedule s where s.tenant_id = j.tenant_id and s.last_job_id = j.job_id)"
    };
}

/// How many jobs are old; `other` is the cutoff of those that are of no panel.
pub async fn n_old_jobs(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    rules: &Rules,
    other: Option<DateTime<Utc>>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(concat!("select count(*) ", old_jobs!()))
        .bind(tenant_id)
        .bind(&rules.panel_ids)
        .bind(&rules.cutoffs)
        .bind(other)
        .fetch_one(db)
        .await?)
}

/// Deletes at most `limit` of them, with their logs; tells how many.
pub async fn delete_jobs(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    rules: &Rules,
    other: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query(concat!(
        "delete from job
         where tenant_id = $1 and finished_at is not null and job_id = any (array(select j.job_id ",
        old_jobs!(),
        " order by j.job_id limit $5))"
    ))
    .bind(tenant_id)
    .bind(&rules.panel_ids)
    .bind(&rules.cutoffs)
    .bind(other)
    .bind(limit)
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Loads that ended before the cutoff of their panel, or (where there is no such panel) before `$4`.
macro_rules! old_loads {
    () => {
        "from load l
         left join panel p on p.tenant_id = l.tenant_id and p.name = l.panel
         left join unnest($2::integer[], $3::timestamptz[]) as rule (panel_id, cutoff) on rule.panel_id = p.panel_id
         where l.tenant_id = $1 and l.finished_at < case when p.panel_id is null then $4 else rule.cutoff end"
    };
}

/// How many loads are old; `other` is the cutoff of those whose panel does not exist.
pub async fn n_old_loads(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    rules: &Rules,
    other: Option<DateTime<Utc>>,
) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(concat!("select count(*) ", old_loads!()))
        .bind(tenant_id)
        .bind(&rules.panel_ids)
        .bind(&rules.cutoffs)
        .bind(other)
        .fetch_one(db)
        .await?)
}

/// Deletes at most `limit` of them; gives the file of each that names one, and `None` for the others.
pub async fn delete_loads(
    conn: &mut PgConnection,
    tenant_id: i32,
    rules: &Rules,
    other: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<Option<String>>, Error> {
    Ok(sqlx::query_scalar(concat!(
        "delete from load
         where tenant_id = $1 and load_id = any (array(select l.load_id ",
        old_loads!(),
        " order by l.load_id limit $5))
         returning quarantine"
    ))
    .bind(tenant_id)
    .bind(&rules.panel_ids)
    .bind(&rules.cutoffs)
    .bind(other)
    .bind(limit)
    .fetch_all(conn)
    .await?)
}
