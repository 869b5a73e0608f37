//! A load: everything that one file or request brings, in one transaction.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::observation::{Counts, NewObservation};
use super::panel::{NewPanel, Panel};
use super::panel_version::PanelVersion;
use super::partition::Partitioned;
use super::series::NewSeries;
use super::words::Role;
use super::{Error, observation, panel, panel_version, partition, series};

/// How long before its interval a value of a known covariate counts as known where the source does not say: far longer than
/// any horizon.
const KNOWN_AHEAD: TimeDelta = TimeDelta::days(3653);

/// One value of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Index of its series in [`Load::series`].
    pub series: usize,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// End of that interval, by the panel's frequency and time zone.
    pub interval_end: DateTime<Utc>,
    /// When the value became known, if the source says so.
    pub available_at: Option<DateTime<Utc>>,
    /// The value, in the unit of its series.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
}

/// What to load.
#[derive(Debug, Clone, PartialEq)]
pub struct Load<'a> {
    /// The panel; it is made if it does not exist.
    pub panel: NewPanel<'a>,
    /// The series that the values belong to; those that do not exist are made.
    pub series: &'a [NewSeries],
    /// The values, in any order.
    pub values: &'a [Value],
    /// From when corrections are known: now.
    pub load_time: DateTime<Utc>,
}

/// What a load has done.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The panel.
    pub panel: Panel,
    /// The version that lists all series of the panel. It is a new one if the load brought a new series.
    pub panel_version: PanelVersion,
    /// Identifiers of [`Load::series`].
    pub series_ids: Vec<i32>,
    /// What became of the values.
    pub counts: Counts,
}

/// Stores all of it, or nothing. A second load of the same changes nothing.
///
/// A plan, a price or a holiday is known ahead: the first value of a known covariate whose source does not say when it became
/// known counts as known ten years before its interval.
///
/// # Errors
/// Those of [`panel::ensure`], [`series::ensure`] and [`observation::insert`].
///
/// # Panics
/// When a value refers to a series that is not listed.
pub async fn load(pool: &PgPool, tenant_id: i32, load: &Load<'_>) -> Result<Loaded, Error> {
    partition::ensure(pool, Partitioned::Observation, load.values.iter().map(|v| v.valid_time)).await?;

    let mut transaction = pool.begin().await?;
    let panel = panel::ensure(&mut transaction, tenant_id, &load.panel).await?;
    let series_ids = series::ensure(&mut transaction, tenant_id, panel.panel_id, load.series).await?;
    let all_series = series::list_ids(&mut *transaction, tenant_id, panel.panel_id).await?;
    let panel_version = panel_version::ensure(&mut transaction, tenant_id, panel.panel_id, &all_series).await?;

    let known = series::with_role(&mut *transaction, tenant_id, panel.panel_id, Role::Known).await?;
    let observations: Vec<NewObservation> = load
        .values
        .iter()
        .map(|v| NewObservation {
            series_id: series_ids[v.series],
            valid_time: v.valid_time,
            known_since: if known.contains(&series_ids[v.series]) {
                v.valid_time.checked_sub_signed(KNOWN_AHEAD).unwrap_or(v.valid_time)
            } else {
                v.interval_end
            },
            available_at: v.available_at,
            value: v.value,
            sd: v.sd,
        })
        .collect();
    let counts = observation::insert(&mut transaction, tenant_id, &panel, load.load_time, &observations).await?;
    transaction.commit().await?;

    Ok(Loaded { panel, panel_version, series_ids, counts })
}
