//! From a validated frame to stored observations.

use chrono::{DateTime, TimeDelta, Utc};
use ingest::Loaded;
use sqlx::PgPool;

use crate::db::{
    self, DEFAULT_TENANT,
    load::{Load, Value},
    panel::NewPanel,
    series::NewSeries,
};

/// Stores a frame as observations of a panel: all of it or nothing, and nothing twice.
///
/// `declare` says what is known of a series by its name.
///
/// # Errors
/// Those of [`db::load::load`].
pub async fn store(
    pool: &PgPool,
    panel: &str,
    publication_delay: Option<TimeDelta>,
    loaded: &Loaded,
    declare: impl Fn(&str) -> NewSeries,
    load_time: DateTime<Utc>,
) -> Result<db::load::Loaded, db::Error> {
    let (frequency, time_zone) = (loaded.frequency, loaded.time_zone);
    let series: Vec<NewSeries> = loaded.frame.series().iter().map(|name| declare(name)).collect();
    let values: Vec<Value> = loaded
        .frame
        .rows()
        .map(|row| Value {
            series: row.series,
            valid_time: row.valid_time,
            interval_end: frequency.advance(row.valid_time, 1, time_zone),
            available_at: row.available_at,
            value: row.value,
            sd: row.sd,
        })
        .collect();
    let panel =
        NewPanel { name: panel, frequency: &frequency.to_string(), time_zone: time_zone.name(), publication_delay };
    db::load::load(pool, DEFAULT_TENANT, &Load { panel, series: &series, values: &values, load_time }).await
}
