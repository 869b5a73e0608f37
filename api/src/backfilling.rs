//! Backfill: forecasts for issue times of the past, each from what was known then. What is stored already is not made again, so
//! that a backfill that was stopped goes on where it was.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use crate::Error;
use crate::db::panel::Panel;
use crate::db::{self, DEFAULT_TENANT};
use crate::forecaster::{self, Grid, Order};
use crate::metrics::Metrics;
use crate::predictor::Predictor;
use crate::registry;

/// Most issue times of one backfill.
pub const FORECASTS_MAX: usize = 2000;

/// Which issue times: starts of intervals of the panel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Period {
    /// The first one is at or after this.
    pub start: DateTime<Utc>,
    /// The last one is before this.
    pub end: DateTime<Utc>,
    /// Steps from one to the next.
    pub every: usize,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Issue times of which no forecast is stored, ascending.
    pub issue_times: Vec<DateTime<Utc>>,
    /// How many are stored.
    pub n_stored: usize,
}

/// Finds the issue times of a period that have no plain forecast by the panel's champion with the horizon and trajectories of the
/// order.
///
/// # Errors
/// - [`Error::UnknownPanel`], [`Error::NoModel`], [`Error::Database`]
/// - [`Error::InvalidBody`] when there are more than [`FORECASTS_MAX`], or none
pub async fn plan(pool: &PgPool, order: &Order, period: &Period) -> Result<Plan, Error> {
    let panel = registry::find_panel(pool, &order.panel).await?;
    let all = issue_times(Grid::of(&panel)?, period)?;
    let stored = stored(pool, order, &panel, period.start..period.end).await?;
    let n_all = all.len();
    let missing: Vec<DateTime<Utc>> = all.into_iter().filter(|time| !stored.contains(time)).collect();
    Ok(Plan { n_stored: n_all - missing.len(), issue_times: missing })
}

/// The issue times within a range of which there is such a forecast.
async fn stored(
    pool: &PgPool,
    order: &Order,
    panel: &Panel,
    range: Range<DateTime<Utc>>,
) -> Result<BTreeSet<DateTime<Utc>>, Error> {
    let champion = registry::champion(pool, panel).await?;
    let (horizon, num_samples) = (i32::try_from(order.horizon), i32::try_from(order.sampling.n_samples));
    let times = db::forecast::issue_times(
        pool,
        DEFAULT_TENANT,
        champion.panel_version_id,
        champion.model_id,
        horizon.unwrap_or(i32::MAX),
        num_samples.unwrap_or(i32::MAX),
        range,
    );
    Ok(times.await?.into_iter().collect())
}

/// The issue times of a period.
fn issue_times(grid: Grid, period: &Period) -> Result<Vec<DateTime<Utc>>, Error> {
    let every = i64::try_from(period.every.max(1)).unwrap_or(i64::MAX);
    let first = grid.frequency.ceil(period.start, grid.time_zone);
    let mut times = vec![];
    let mut time = first;
    while time < period.end {
        if times.len() == FORECASTS_MAX {
            let message = format!("must be at most {FORECASTS_MAX} issue times after `start`; ask for the rest later");
            return Err(Error::invalid_body("/end", "out-of-range", message));
        }
        times.push(time);
        let n_steps = every.saturating_mul(i64::try_from(times.len()).unwrap_or(i64::MAX));
        let next = grid.advance(first, n_steps);
        // Where time ends, so does the grid.
        if next <= time {
            break;
        }
        time = next;
    }
    if times.is_empty() {
        return Err(Error::invalid_body("/end", "out-of-range", "must be after the first issue time from `start` on"));
    }
    Ok(times)
}

/// What became of an issue time.
#[derive(Debug)]
pub enum Made {
    /// The forecast is stored in this transaction, which is left to the caller to commit.
    Forecast(Transaction<'static, Postgres>),
    /// Somebody else has stored one since there was a plan.
    Stored,
    /// Nothing was known then to forecast from.
    NoObservations,
}

/// Makes and stores the forecast of one issue time, unless there is one meanwhile: of several backfills at once, the one that
/// comes first keeps its forecast.
///
/// # Errors
/// Those of [`forecaster::make`], and of the database.
pub async fn make(
    pool: &PgPool,
    predictor: &Predictor,
    metrics: &Metrics,
    order: &Order,
    issue_time: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Made, Error> {
    let panel = registry::find_panel(pool, &order.panel).await?;
    if !stored(pool, order, &panel, issue_time..issue_time + TimeDelta::microseconds(1)).await?.is_empty() {
        return Ok(Made::Stored);
    }
    let order = Order { issue_time: Some(issue_time), fallback: false, ..order.clone() };
    let forecast = match forecaster::make(pool, predictor, metrics, &order, now).await {
        Err(Error::NoObservations { .. }) => return Ok(Made::NoObservations),
        made => made?,
    };
    let mut transaction = forecaster::store_uncommitted(pool, &forecast, None).await?;
    if db::forecast::is_doubled(&mut transaction, DEFAULT_TENANT, forecast.forecast_id).await? {
        transaction.rollback().await?;
        return Ok(Made::Stored);
    }
    Ok(Made::Forecast(transaction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(start_minute: i64, end_hour: i64, every: usize) -> Result<Vec<i64>, Error> {
        let at = |minute| DateTime::UNIX_EPOCH + TimeDelta::minutes(minute);
        let period = Period { start: at(start_minute), end: at(60 * end_hour), every };
        let grid = Grid::parse("1h", "UTC").expect("hours of UTC");
        Ok(issue_times(grid, &period)?.into_iter().map(|time| time.timestamp() / 3600).collect())
    }

    #[test]
    fn issue_times_are_starts_of_intervals_within_the_period() {
        assert_eq!(times(0, 4, 1).expect("some"), [0, 1, 2, 3]);
        assert_eq!(times(30, 10, 4).expect("some"), [1, 5, 9]);
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert!(matches!(times(0, 0, 1), Err(Error::InvalidBody { .. })));
        assert_eq!(times(0, 2000, 1).expect("as many as there may be").len(), FORECASTS_MAX);
        assert!(matches!(times(0, 2001, 1), Err(Error::InvalidBody { .. })));
        assert_eq!(times(0, 2001, 2).expect("some").len(), 1001);
    }
}
