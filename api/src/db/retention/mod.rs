//! What is old, and how it goes.
//!
//! A forecast is old, for one of its parts, when it was issued before the month of its panel's cutoff and its last interval
//! lies before the cutoff. So partitions, which are months of the issue time for trajectories and of the valid time for the
//! rest, come to hold nothing but what is old, and can be dropped whole.

pub mod export;
pub mod records;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Error;
use super::partition::Partitioned;

/// Keys of the advisory lock: one run of retention at a time.
const LOCK: (i32, i32) = (1_347_110_255, 1);

/// The cutoff of each panel; nothing is old in those that have none, or are not listed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// The panels.
    pub panel_ids: Vec<i32>,
    /// The cutoff of each.
    pub cutoffs: Vec<Option<DateTime<Utc>>>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Where its period begins.
    pub lower_bound: DateTime<Utc>,
    /// Where the next one begins.
    pub upper_bound: DateTime<Utc>,
    /// Bytes on disk, indexes included.
    pub bytes: i64,
}

/// A forecast that is old.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Old {
    /// Identifier.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Its first interval.
    pub first_valid_time: DateTime<Utc>,
    /// Its last.
    pub last_valid_time: DateTime<Utc>,
}

/// Keeps other runs out until the transaction of `conn` ends; waits for one that is there.
///
/// # Errors
/// [`Error::StatementTimeout`] when the other one takes long.
pub async fn lock(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query("select pg_advisory_xact_lock($1, $2)").bind(LOCK.0).bind(LOCK.1).execute(conn).await?;
    Ok(())
}

/// The partitions of a table, the earliest first, but for the default one.
pub async fn partitions(db: impl PgExecutor<'_>, table: Partitioned) -> Result<Vec<Partition>, Error> {
    let query = "select name, lower_bound, upper_bound, bytes from partitions($1::text::regclass)";
    Ok(sqlx::query_as(query).bind(table.name()).fetch_all(db).await?)
}

/// Keeps writers out of a partition until the transaction ends; readers do not notice.
///
/// # Errors
/// [`Error::Unavailable`] when writers do not make way in time.
pub async fn close(conn: &mut PgConnection, partition: &Partition) -> Result<(), Error> {
    wait_briefly(conn).await?;
    // The name is that of a table, from the catalogue, quoted there where it must be.
    let statement = format!("lock table {} in share mode", partition.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(conn).await?;
    Ok(())
}

/// Lets the transaction wait for what others hold for some seconds only.
pub async fn wait_briefly(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("set local lock_timeout = '5s'").execute(conn).await?;
    Ok(())
}

/// Drops a partition that has been closed.
///
/// # Errors
/// [`Error::Unavailable`] when writers or long queries do not make way in time.
pub async fn drop_partition(conn: &mut PgConnection, table: Partitioned, partition: &Partition) -> Result<(), Error> {
    sqlx::query("select drop_partition($1::text::regclass, $2::text::regclass)")
        .bind(table.name())
        .bind(&partition.name)
        .execute(conn)
        .await?;
    Ok(())
}

/// The panels' rules, as a table.
macro_rules! rules {
    () => {
        "unnest($2::integer[], $3::timestamptz[]) as rule (panel_id, cutoff)"
    };
}

/// Whether a forecast `f` is old by the cutoff of its panel.
macro_rules! is_old {
    () => {
        "coalesce(f.issue_time < date_trunc('month', rule.cutoff, 'UTC') and f.last_valid_time < rule.cutoff, false)"
    };
}

/// Whether a partition may hold something that is not old.
pub async fn holds_kept(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    table: Partitioned,
    partition: &Partition,
    rules: &Rules,
) -> Result<bool, Error> {
    macro_rules! kept_forecast {
        ($reaches_into:literal) => {
            concat!(
                "select exists (
                     select
                     from forecast f
                     join panel_version v using (tenant_id, panel_version_id)
                     left join ",
                rules!(),
                " on f.tenant_id = $1 and rule.panel_id = v.panel_id
                     where ",
                $reaches_into,
                " and not ",
                is_old!(),
                ")"
            )
        };
    }
    let query = match table {
        Partitioned::Trajectory => kept_forecast!("f.issue_time >= $4 and f.issue_time < $5"),
        Partitioned::ForecastValue | Partitioned::Score => {
            kept_forecast!("f.first_valid_time < $5 and f.last_valid_time >= $4")
        }
        Partitioned::Observation => concat!(
            "select exists (
                 select
                 from series s
                 left join ",
            rules!(),
            " on s.tenant_id = $1 and rule.panel_id = s.panel_id
                 where coalesce(date_trunc('year', rule.cutoff, 'UTC'), '-infinity') < $5
                   and exists (
                       select
                       from observation o
                       where o.tenant_id = s.tenant_id and o.series_id = s.series_id
                         and o.valid_time >= $4 and o.valid_time < $5
                   )
             )"
        ),
    };
    Ok(sqlx::query_scalar(query)
        .bind(tenant_id)
        .bind(&rules.panel_ids)
        .bind(&rules.cutoffs)
        .bind(partition.lower_bound)
        .bind(partition.upper_bound)
        .fetch_one(db)
        .await?)
}

/// The forecasts that are old and still have the part that a table holds; of scores, all that are old.
macro_rules! old {
    ($columns:literal, $has_part:literal, $end:literal) => {
        concat!(
            "select ",
            $columns,
            " from forecast f
             join panel_version v using (tenant_id, panel_version_id)
             join ",
            rules!(),
            " on rule.panel_id = v.panel_id
             where f.tenant_id = $1 and ",
            is_old!(),
            $has_part,
            $end
        )
    };
}

macro_rules! old_of {
    ($table:expr, $columns:literal, $end:literal) => {
        match $table {
            Partitioned::Trajectory => old!(
                $columns,
                " and exists (
                     select
                     from trajectory t
                     where t.tenant_id = f.tenant_id and t.forecast_id = f.forecast_id and t.issue_time = f.issue_time
                 )",
                $end
            ),
            Partitioned::ForecastValue => old!(
                $columns,
                " and exists (
                     select
                     from forecast_value n
                     where n.tenant_id = f.tenant_id and n.forecast_id = f.forecast_id
                       and n.valid_time >= f.first_valid_time and n.valid_time <= f.last_valid_time
                 )",
                $end
            ),
            Partitioned::Score | Partitioned::Observation => old!($columns, "", $end),
        }
    };
}

/// How many forecasts have an old part: trajectories, values, or (for scores) at all.
pub async fn n_old(db: impl PgExecutor<'_>, tenant_id: i32, table: Partitioned, rules: &Rules) -> Result<i64, Error> {
    let query = old_of!(table, "count(*)", "");
    Ok(sqlx::query_scalar(query).bind(tenant_id).bind(&rules.panel_ids).bind(&rules.cutoffs).fetch_one(db).await?)
}

/// At most `limit` of them, the earliest first.
pub async fn old(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    table: Partitioned,
    rules: &Rules,
    limit: i64,
) -> Result<Vec<Old>, Error> {
    let query = old_of!(
        table,
        "f.forecast_id, f.issue_time, f.first_valid_time, f.last_valid_time",
        " order by f.issue_time, f.forecast_id limit $4"
    );
    Ok(sqlx::query_as(query)
        .bind(tenant_id)
        .bind(&rules.panel_ids)
        .bind(&rules.cutoffs)
        .bind(limit)
        .fetch_all(db)
        .await?)
}

/// Deletes the part of forecasts that a table holds; with their scores, the forecasts themselves.
pub async fn delete(conn: &mut PgConnection, tenant_id: i32, table: Partitioned, old: &[Old]) -> Result<(), Error> {
    let ids: Vec<Uuid> = old.iter().map(|one| one.forecast_id).collect();
    let query = match table {
        Partitioned::Trajectory => {
            "delete from trajectory where tenant_id = $1 and forecast_id = any ($2) and issue_time = any ($3)"
        }
        Partitioned::ForecastValue => {
            "delete from forecast_value
             where tenant_id = $1 and forecast_id = any ($2) and valid_time >= $3[1] and valid_time <= $3[2]"
        }
        Partitioned::Score | Partitioned::Observation => {
            "delete from forecast where tenant_id = $1 and forecast_id = any ($2) and cardinality($3::timestamptz[]) >= 0"
        }
    };
    if table == Partitioned::Score {
        // All at once, so that their sums are locked when nothing else is still to be.
        let [first, last] = span(old);
        sqlx::query(
            "delete from score where tenant_id = $1 and forecast_id = any ($2) and valid_time between $3 and $4",
        )
        .bind(tenant_id)
        .bind(&ids)
        .bind(first)
        .bind(last)
        .execute(&mut *conn)
        .await?;
    }
    let times = match table {
        Partitioned::ForecastValue => span(old).into(),
        _ => old.iter().map(|one| one.issue_time).collect::<Vec<_>>(),
    };
    sqlx::query(query).bind(tenant_id).bind(ids).bind(times).execute(conn).await?;
    Ok(())
}

/// The first and the last interval of some forecasts.
pub(super) fn span(old: &[Old]) -> [DateTime<Utc>; 2] {
    let first = old.iter().map(|one| one.first_valid_time).min();
    let last = old.iter().map(|one| one.last_valid_time).max();
    [first.unwrap_or(DateTime::<Utc>::MIN_UTC), last.unwrap_or(DateTime::<Utc>::MIN_UTC)]
}
