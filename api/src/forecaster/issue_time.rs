//! The issue time of a forecast that names none.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{Grid, Order};
use crate::{
    Error, db,
    db::{DEFAULT_TENANT, panel::Panel},
};

/// When the forecast of an order is made; if it does not say, see [`default_issue_time`].
///
/// # Errors
/// - [`Error::InvalidBody`] when that is after `now`
/// - [`Error::NoObservations`] when nothing is known of the panel
pub(super) async fn of_order(
    pool: &PgPool,
    order: &Order,
    panel: &Panel,
    panel_version_id: i32,
    grid: Grid,
    trained_horizon: usize,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Error> {
    match order.issue_time {
        Some(issue_time) if issue_time > now => {
            return Err(Error::invalid_body("/issue_time", "in-the-future", "must not be after the current time"));
        }
        Some(issue_time) => return Ok(issue_time),
        None => {}
    }
    let newest = db::observation::span(pool, DEFAULT_TENANT, panel_version_id, now)
        .await?
        .ok_or_else(|| Error::NoObservations { panel: panel.name.clone(), issue_time: now })?
        .last_valid_time;
    let available_at = db::observation::first_available_at(pool, DEFAULT_TENANT, panel_version_id, newest).await?;
    Ok(default_issue_time(panel, grid, newest, available_at, trained_horizon, now))
}

/// The issue time of a forecast that names none, given the start of the newest observed interval and when its first
/// value became known.
///
/// `now`, when the observations are fresh: when the newest became known at most one trained horizon ago. Otherwise the
/// instant at which it did, which is the end of its interval plus the panel's publication delay, or when its source
/// published it, if that was later: a forecast of old data continues the data, instead of jumping over the years since.
#[must_use]
pub fn default_issue_time(
    panel: &Panel,
    grid: Grid,
    newest_valid_time: DateTime<Utc>,
    available_at: Option<DateTime<Utc>>,
    trained_horizon: usize,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    let usual = grid.advance(newest_valid_time, 1) + panel.publication_delay;
    let known_since = available_at.map_or(usual, |available_at| available_at.max(usual));
    if grid.advance(known_since, trained_horizon as i64) >= now { now } else { known_since }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn panel(publication_delay: TimeDelta) -> Panel {
        Panel {
            panel_id: 1,
            name: "a".to_owned(),
            frequency: "1h".to_owned(),
            time_zone: "UTC".to_owned(),
            publication_delay,
            holidays: None,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn at(hour: i64, minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour) + TimeDelta::minutes(minute)
    }

    fn check_published(
        delay_minutes: i64,
        available_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        expected: DateTime<Utc>,
    ) {
        let panel = panel(TimeDelta::minutes(delay_minutes));
        let grid = Grid::of(&panel).expect("hours of UTC");
        // The newest observed interval is that from hour 9 to hour 10; the model was trained for 24 steps.
        assert_eq!(default_issue_time(&panel, grid, at(9, 0), available_at, 24, now), expected);
    }

    fn check(delay_minutes: i64, now: DateTime<Utc>, expected: DateTime<Utc>) {
        check_published(delay_minutes, None, now, expected);
    }

    #[test]
    fn fresh_observations_are_continued_from_now() {
        check(0, at(10, 0), at(10, 0));
        check(0, at(11, 30), at(11, 30));
        check(0, at(34, 0), at(34, 0));
    }

    #[test]
    fn old_observations_are_continued_from_where_they_end() {
        check(0, at(35, 0), at(10, 0));
        check(0, at(100_000, 0), at(10, 0));
        check(90, at(100_000, 0), at(11, 30));
    }

    #[test]
    fn what_is_published_late_is_old_a_horizon_after_it_was_published() {
        let published = Some(at(40, 0));
        check_published(0, published, at(41, 0), at(41, 0));
        check_published(0, published, at(64, 0), at(64, 0));
        check_published(0, published, at(65, 0), at(40, 0));
        // What is stated ahead of its time, or before it is usual, counts from when it is usual.
        check_published(0, Some(at(2, 0)), at(100_000, 0), at(10, 0));
        check_published(90, Some(at(11, 0)), at(100_000, 0), at(11, 30));
    }
}
