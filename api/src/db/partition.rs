//! Makes sure that the partitioned tables have a partition for given times.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Utc};
use sqlx::PgPool;

use super::Error;

/// A table that is partitioned by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioned {
    /// By year of `valid_time`.
    Observation,
    /// By month of `valid_time`.
    ForecastValue,
    /// By month of `issue_time`.
    Trajectory,
    /// By month of `valid_time`.
    Score,
}

impl Partitioned {
    /// The table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observation => "observation",
            Self::ForecastValue => "forecast_value",
            Self::Trajectory => "trajectory",
            Self::Score => "score",
        }
    }
}

/// Creates the partitions that `times` need and that do not exist yet.
///
/// It runs in a transaction of its own. Call it *before* the transaction that writes, for which it would wait (see
/// `migrations/0003_partition.sql`).
///
/// # Errors
/// [`Error::Unavailable`] when writers or long queries do not make way in time; trying again helps.
pub async fn ensure(
    pool: &PgPool,
    table: Partitioned,
    times: impl IntoIterator<Item = DateTime<Utc>>,
) -> Result<(), Error> {
    let unit = if table == Partitioned::Observation { "year" } else { "month" };

    // One time per period is enough; neighbours usually share theirs.
    let period = |time: &DateTime<Utc>| match unit {
        "year" => (time.year(), 1),
        _ => (time.year(), time.month()),
    };
    // One after the other: to collect them would hold all times at once.
    let mut by_period = BTreeMap::new();
    by_period.extend(times.into_iter().map(|time| (period(&time), time)));
    let times: Vec<DateTime<Utc>> = by_period.into_values().collect();

    sqlx::query("select ensure_partitions($1::text::regclass, $2, $3)")
        .bind(table.name())
        .bind(unit)
        .bind(times)
        .execute(pool)
        .await?;
    Ok(())
}
