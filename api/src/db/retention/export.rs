//! Rows that are about to go, with names in place of identifiers, to be written to files.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::BoxStream;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::matrix::Matrix;
use super::super::partition::Partitioned;
use super::records::old_observations;
use super::{Old, Partition, Rules, span};

/// Which rows: those of a period (by `issue_time` for trajectories, by `valid_time` otherwise), of all forecasts or of some.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    forecast_ids: Option<Vec<Uuid>>,
}

impl Selection {
    /// All rows of a partition.
    #[must_use]
    pub fn of_partition(partition: &Partition) -> Self {
        Self { start: partition.lower_bound, end: partition.upper_bound, forecast_ids: None }
    }

    /// The rows of forecasts in a table.
    #[must_use]
    pub fn of_forecasts(table: Partitioned, old: &[Old]) -> Self {
        let [start, last] = match table {
            Partitioned::Trajectory => {
                let times = || old.iter().map(|one| one.issue_time);
                [times().min(), times().max()].map(|time| time.unwrap_or(DateTime::<Utc>::MIN_UTC))
            }
            _ => span(old),
        };
        let end = last.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(last);
        Self { start, end, forecast_ids: Some(old.iter().map(|one| one.forecast_id).collect()) }
    }

    /// Where it begins.
    #[must_use]
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }
}

/// The trajectories of one series of a forecast.
#[derive(Debug, sqlx::FromRow)]
pub struct TrajectoryRow {
    /// Name of the panel.
    pub panel: String,
    /// Name of the series.
    pub series: String,
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Step of the first column.
    pub first_step: i32,
    /// `[sample, step]`.
    pub value: Matrix,
}

/// Mean and quantiles of one series at one step.
#[derive(Debug, sqlx::FromRow)]
pub struct ValueRow {
    /// Name of the panel.
    pub panel: String,
    /// Name of the series.
    pub series: String,
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// Its step.
    pub step: i32,
    /// Mean.
    pub mean: f64,
    /// Levels.
    pub quantile_levels: Vec<f64>,
    /// Quantiles, aligned with the levels.
    pub quantiles: Vec<f64>,
}

/// The score of one value.
#[derive(Debug, sqlx::FromRow)]
pub struct ScoreRow {
    /// Name of the panel.
    pub panel: String,
    /// Name of the series.
    pub series: String,
    /// The forecast.
    pub forecast_id: Uuid,
    /// Version of the model.
    pub version: i32,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// Its step.
    pub step: i32,
    /// What came.
    pub value: f64,
    /// CRPS.
    pub crps: f64,
    /// Error of the median.
    pub absolute_error: f64,
    /// Error of the value one season before.
    pub naive_absolute_error: Option<f64>,
    /// Inside the central 50 % interval.
    pub inside_50: bool,
    /// Inside the central 80 % interval.
    pub inside_80: bool,
    /// Inside the central 90 % interval.
    pub inside_90: bool,
    /// Probability integral transform.
    pub pit: f64,
}

/// An observation.
#[derive(Debug, sqlx::FromRow)]
pub struct ObservationRow {
    /// Name of the panel.
    pub panel: String,
    /// Name of the series.
    pub series: String,
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// Since when it was known.
    pub available_at: DateTime<Utc>,
    /// The value.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
    /// Whether `available_at` is assumed.
    pub assumed: bool,
}

/// A row at a time, in the order of the table's key.
pub type Rows<'a, R> = BoxStream<'a, Result<R, sqlx::Error>>;

/// Trajectories.
pub fn trajectories<'a>(conn: &'a mut PgConnection, selection: &'a Selection) -> Rows<'a, TrajectoryRow> {
    sqlx::query_as(
        "select p.name as panel, s.name as series, t.forecast_id, t.issue_time, f.first_step, t.value
         from trajectory t
         join forecast f using (tenant_id, forecast_id)
         join series s using (tenant_id, series_id)
         join panel p using (tenant_id, panel_id)
         where t.issue_time >= $1 and t.issue_time < $2 and ($3::uuid[] is null or t.forecast_id = any ($3))
         order by t.tenant_id, t.forecast_id, t.series_id",
    )
    .bind(selection.start)
    .bind(selection.end)
    .bind(selection.forecast_ids.as_deref())
    .fetch(conn)
}

/// Means and quantiles.
pub fn values<'a>(conn: &'a mut PgConnection, selection: &'a Selection) -> Rows<'a, ValueRow> {
    sqlx::query_as(
        "select p.name as panel, s.name as series, v.forecast_id, v.issue_time, v.valid_time, v.step, v.mean,
             f.quantile_levels, v.quantiles
         from forecast_value v
         join forecast f using (tenant_id, forecast_id)
         join series s using (tenant_id, series_id)
         join panel p using (tenant_id, panel_id)
         where v.valid_time >= $1 and v.valid_time < $2 and ($3::uuid[] is null or v.forecast_id = any ($3))
         order by v.tenant_id, v.forecast_id, v.series_id, v.valid_time",
    )
    .bind(selection.start)
    .bind(selection.end)
    .bind(selection.forecast_ids.as_deref())
    .fetch(conn)
}

/// Scores.
pub fn scores<'a>(conn: &'a mut PgConnection, selection: &'a Selection) -> Rows<'a, ScoreRow> {
    sqlx::query_as(
        "select p.name as panel, s.name as series, c.forecast_id, m.version, c.issue_time, c.valid_time, c.step, c.value,
             c.crps, c.absolute_error, c.naive_absolute_error, c.inside_50, c.inside_80, c.inside_90, c.pit
         from score c
         join model m using (tenant_id, model_id)
         join series s on s.tenant_id = c.tenant_id and s.series_id = c.series_id
         join panel p on p.tenant_id = c.tenant_id and p.panel_id = c.panel_id
         where c.valid_time >= $1 and c.valid_time < $2 and ($3::uuid[] is null or c.forecast_id = any ($3))
         order by c.tenant_id, c.panel_id, c.series_id, c.step, c.valid_time, c.forecast_id",
    )
    .bind(selection.start)
    .bind(selection.end)
    .bind(selection.forecast_ids.as_deref())
    .fetch(conn)
}

/// Observations of a period.
pub fn observations<'a>(conn: &'a mut PgConnection, selection: &'a Selection) -> Rows<'a, ObservationRow> {
    sqlx::query_as(
        "select p.name as panel, s.name as series, o.valid_time, o.available_at, o.value, o.sd, o.assumed
         from observation o
         join series s using (tenant_id, series_id)
         join panel p using (tenant_id, panel_id)
         where o.valid_time >= $1 and o.valid_time < $2
         order by o.tenant_id, o.series_id, o.valid_time, o.available_at",
    )
    .bind(selection.start)
    .bind(selection.end)
    .fetch(conn)
}

/// The observations that [`super::records::delete_observations`] deletes next.
pub fn old_observations<'a>(
    conn: &'a mut PgConnection,
    tenant_id: i32,
    rules: &'a Rules,
    limit: i64,
) -> Rows<'a, ObservationRow> {
    sqlx::query_as(concat!(
        "select p.name as panel, old.name as series, old.valid_time, old.available_at, old.value, old.sd, old.assumed
         from (
             select s.panel_id, s.name, o.* ",
        old_observations!(),
        " order by o.series_id, o.valid_time, o.available_at
             limit $4
         ) as old
         join panel p on p.tenant_id = old.tenant_id and p.panel_id = old.panel_id
         order by old.series_id, old.valid_time, old.available_at"
    ))
    .bind(tenant_id)
    .bind(&rules.panel_ids)
    .bind(&rules.cutoffs)
    .bind(limit)
    .fetch(conn)
}
