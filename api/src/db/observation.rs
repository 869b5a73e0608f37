//! Observations: values of series, with the instant at which each became known.
//!
//! # Rules of a load
//!
//! - A value whose source says when it became known is stored with that instant, unless the value known then was the
//!   same.
//! - Otherwise, the *first* value of a series and `valid_time` counts as known at the end of its interval plus the
//!   panel's publication delay (flagged `assumed`; for a known covariate: ten years before its interval), or at the load time if that is earlier: then nothing is assumed.
//! - A *different* value that arrives later is known from its load time: a correction, a new row.
//! - An *equal* value makes no row, so loading a file twice equals loading it once.

use std::collections::{BTreeSet, HashMap};
use std::ops::{AddAssign, Range};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::panel::Panel;
use super::{Error, copy};

/// One value of a series, as a source gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewObservation {
    /// The series.
    pub series_id: i32,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// From when on, but for the panel's publication delay, it counts as known if the source does not say: the end of that
    /// interval by the panel's frequency and time zone, or for a known covariate long before it.
    pub known_since: DateTime<Utc>,
    /// When the value became known, if the source says so.
    pub available_at: Option<DateTime<Utc>>,
    /// The value, in the unit of its series.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
}

/// What became of the values of a load; together they are as many as were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// First values of their series and `valid_time`.
    pub inserted: u64,
    /// Values that replace another from now on.
    pub corrected: u64,
    /// Values that were known already.
    pub unchanged: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.inserted += more.inserted;
        self.corrected += more.corrected;
        self.unchanged += more.unchanged;
    }
}

/// Values per statement: large enough that round trips do not matter, small enough to stay far from time limits.
const ROWS_PER_STATEMENT: usize = 8192;

/// Values that are compared and copied at a time: so many that statements do not matter, far from time limits, and few
/// beside the memory that there is.
const ROWS_PER_COPY: usize = 100_000;

/// Stores what is new, in the transaction of `conn`, by the rules above.
///
/// Values later than all that is stored of their series are first values, whatever they are: they go by `COPY`. The
/// others are compared with what is stored.
///
/// Several values of one series and `valid_time` count in the order of their `available_at`, if they follow one another.
/// The partitions exist ([`super::partition::ensure`]). The rows of the series, which are `series_ids`, stay locked until the
/// transaction ends, so that concurrent loads of the same series follow one another.
///
/// # Errors
/// - [`Error::UnknownSeries`] when a series is not one of the panel's.
/// - [`Error::NotAllowed`] for a value that is not finite or a negative `sd`.
pub async fn insert(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel: &Panel,
    load_time: DateTime<Utc>,
    series_ids: &[i32],
    observations: impl IntoIterator<Item = NewObservation, IntoIter: Send>,
) -> Result<Counts, Error> {
    lock_series(conn, tenant_id, panel.panel_id, series_ids).await?;
    let mut newest = newest_valid_times(conn, tenant_id, series_ids).await?;
    let mut observations = observations.into_iter();
    let mut counts = Counts::default();
    loop {
        let some: Vec<NewObservation> = observations.by_ref().take(ROWS_PER_COPY).collect();
        if some.is_empty() {
            return Ok(counts);
        }
        let stored = insert_some(conn, tenant_id, panel, load_time, &some, &newest).await?;
        counts += stored;
        for observation in some {
            let newest = newest.entry(observation.series_id).or_insert(observation.valid_time);
            *newest = observation.valid_time.max(*newest);
        }
    }
}

/// Stores some values. `newest` has the latest `valid_time` that is stored of each series.
async fn insert_some(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel: &Panel,
    load_time: DateTime<Utc>,
    observations: &[NewObservation],
    newest: &HashMap<i32, DateTime<Utc>>,
) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    let mut rounds = rounds(observations);
    if let Some(first) = rounds.first_mut() {
        let is_later = |o: &&NewObservation| newest.get(&o.series_id).is_none_or(|newest| o.valid_time > *newest);
        let (later, others) = std::mem::take(first).into_iter().partition::<Vec<_>, _>(is_later);
        *first = others;
        counts.inserted = later.len() as u64;
        copy_first_values(conn, tenant_id, panel, load_time, &later).await?;
    }
    for round in rounds {
        for rows in round.chunks(ROWS_PER_STATEMENT) {
            let (inserted, corrected): (i64, i64) = sqlx::query_as(include_str!("observation.sql"))
                .bind(tenant_id)
                .bind(load_time)
                .bind(panel.publication_delay)
                .bind(rows.iter().map(|o| o.series_id).collect::<Vec<_>>())
                .bind(rows.iter().map(|o| o.valid_time).collect::<Vec<_>>())
                .bind(rows.iter().map(|o| o.known_since).collect::<Vec<_>>())
                .bind(rows.iter().map(|o| o.available_at).collect::<Vec<_>>())
                .bind(rows.iter().map(|o| o.value).collect::<Vec<_>>())
                .bind(rows.iter().map(|o| o.sd).collect::<Vec<_>>())
                .fetch_one(&mut *conn)
                .await?;
            counts.inserted += inserted.unsigned_abs();
            counts.corrected += corrected.unsigned_abs();
        }
    }
    counts.unchanged = observations.len() as u64 - counts.inserted - counts.corrected;
    Ok(counts)
}

/// Stores first values, by the rules above.
async fn copy_first_values(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel: &Panel,
    load_time: DateTime<Utc>,
    values: &[&NewObservation],
) -> Result<(), Error> {
    if values.is_empty() {
        return Ok(());
    }
    let statement = "copy observation (tenant_id, series_id, valid_time, available_at, value, sd, assumed)
                     from stdin (format binary)";
    copy::copy(conn, statement, values, |copy, o| {
        let usual = o.known_since.checked_add_signed(panel.publication_delay).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let available_at = o.available_at.unwrap_or(usual.min(load_time));
        let is_assumed = o.available_at.is_none() && usual <= load_time;
        copy.row(7).integer(tenant_id).integer(o.series_id).time(o.valid_time).time(available_at);
        copy.double(o.value).optional(o.sd).flag(is_assumed);
    })
    .await
}

/// The latest `valid_time` that is stored of each series; a series without values is not among them.
async fn newest_valid_times(
    conn: &mut PgConnection,
    tenant_id: i32,
    series_ids: &[i32],
) -> Result<HashMap<i32, DateTime<Utc>>, Error> {
    let rows: Vec<(i32, DateTime<Utc>)> = sqlx::query_as(
        "select given.series_id, newest.valid_time
         from unnest($2::integer[]) as given (series_id)
         cross join lateral (
             select o.valid_time
             from observation o
             where o.tenant_id = $1 and o.series_id = given.series_id
             order by o.valid_time desc
             limit 1
         ) as newest",
    )
    .bind(tenant_id)
    .bind(series_ids)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Locks the series in the order of their identifiers, which everybody does, so that nobody waits in a circle.
async fn lock_series(conn: &mut PgConnection, tenant_id: i32, panel_id: i32, series_ids: &[i32]) -> Result<(), Error> {
    let mut given: BTreeSet<i32> = series_ids.iter().copied().collect();
    let locked: Vec<i32> = sqlx::query_scalar(
        "select series_id
         from series
         where tenant_id = $1 and panel_id = $2 and series_id = any ($3)
         order by series_id
         for no key update",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(given.iter().copied().collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;

    for series_id in locked {
        given.remove(&series_id);
    }
    match given.pop_first() {
        Some(series_id) => Err(Error::UnknownSeries { series_id, panel_id }),
        None => Ok(()),
    }
}

/// Splits the observations so that each round has at most one per series and `valid_time`, earlier known ones first.
/// Nearly always that is one round.
fn rounds(observations: &[NewObservation]) -> Vec<Vec<&NewObservation>> {
    let mut sorted: Vec<&NewObservation> = observations.iter().collect();
    // The sort is stable: of two values without `available_at`, the one that stands later corrects the other.
    sorted.sort_by_key(|o| (o.series_id, o.valid_time, o.available_at));

    let mut rounds: Vec<Vec<&NewObservation>> = Vec::new();
    for same in sorted.chunk_by(|a, b| (a.series_id, a.valid_time) == (b.series_id, b.valid_time)) {
        for (number, observation) in same.iter().enumerate() {
            if number == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[number].push(observation);
        }
    }
    rounds
}

/// One value that was known at an issue time.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct Observation {
    /// Position of the series in the panel version: 1, 2, ….
    pub position: i32,
    /// The series.
    pub series_id: i32,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// The value, in the unit of its series.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
    /// When it became known; never after the issue time.
    pub available_at: DateTime<Utc>,
}

/// What was known at `issue_time` of the series of a panel version, in order of position and `valid_time`.
///
/// A `valid_time` at which a series has no known value is not listed.
pub async fn as_of(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
    issue_time: DateTime<Utc>,
    valid_times: Range<DateTime<Utc>>,
) -> Result<Vec<Observation>, Error> {
    let query = "select position, series_id, valid_time, value, sd, available_at
                 from observation_as_of($1, $2, $3)
                 where valid_time >= $4 and valid_time < $5
                 order by position, valid_time";
    read(db, query, tenant_id, panel_version_id, issue_time, valid_times).await
}

/// As [`as_of`], with every version that was known by then, in the order in which they became known: what was known at any earlier
/// instant can be told from them.
pub async fn versions_as_of(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
    issue_time: DateTime<Utc>,
    valid_times: Range<DateTime<Utc>>,
) -> Result<Vec<Observation>, Error> {
    let query = "select s.position, o.series_id, o.valid_time, o.value, o.sd, o.available_at
                 from panel_version_series s
                 join observation o on o.tenant_id = s.tenant_id and o.series_id = s.series_id
                 where s.tenant_id = $1 and s.panel_version_id = $2 and o.available_at <= $3
                   and o.valid_time >= $4 and o.valid_time < $5
                 order by s.position, o.valid_time, o.available_at";
    read(db, query, tenant_id, panel_version_id, issue_time, valid_times).await
}

/// The observations of a query for the series of a panel version, an issue time and a range of `valid_time`.
async fn read(
    db: impl PgExecutor<'_>,
    query: &'static str,
    tenant_id: i32,
    panel_version_id: i32,
    issue_time: DateTime<Utc>,
    valid_times: Range<DateTime<Utc>>,
) -> Result<Vec<Observation>, Error> {
    Ok(sqlx::query_as(query)
        .bind(tenant_id)
        .bind(panel_version_id)
        .bind(issue_time)
        .bind(valid_times.start)
        .bind(valid_times.end)
        .fetch_all(db)
        .await?)
}

/// The value of each pair of a series and a `valid_time` that was known at `issue_time`, in their order.
///
/// # Panics
/// When there are not as many times as series.
pub async fn known_at(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    series_ids: &[i32],
    valid_times: &[DateTime<Utc>],
    issue_time: DateTime<Utc>,
) -> Result<Vec<Option<f64>>, Error> {
    assert_eq!(series_ids.len(), valid_times.len(), "a time per series");
    Ok(sqlx::query_scalar(
        "select (
             select value
             from observation o
             where o.tenant_id = $1 and o.series_id = given.series_id and o.valid_time = given.valid_time
               and o.available_at <= $4
             order by o.available_at desc
             limit 1
         )
         from unnest($2::integer[], $3::timestamptz[]) with ordinality as given (series_id, valid_time, number)
         order by number",
    )
    .bind(tenant_id)
    .bind(series_ids)
    .bind(valid_times)
    .bind(issue_time)
    .fetch_all(db)
    .await?)
}

/// The newest `valid_time` of a panel that was known at `as_of`; what is supplied ahead of known covariates is none.
pub async fn newest_of_panel(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    as_of: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "select max(newest.valid_time)
         from series s
         cross join lateral (
             select valid_time
             from observation o
             where o.tenant_id = s.tenant_id and o.series_id = s.series_id and available_at <= $3
             order by valid_time desc
             limit 1
         ) as newest
         where s.tenant_id = $1 and s.panel_id = $2 and role <> 'known'",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(as_of)
    .fetch_one(db)
    .await?)
}

/// One value of a series.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::FromRow)]
pub struct SeriesObservation {
    /// The series.
    pub series_id: i32,
    /// Start of the interval that the value refers to.
    pub valid_time: DateTime<Utc>,
    /// The value, in the unit of its series.
    pub value: f64,
    /// Standard deviation of the measurement.
    pub sd: Option<f64>,
    /// When it became known.
    pub available_at: DateTime<Utc>,
}

/// At most `limit` values of some series, as known at `as_of` or (`None`) now, in order of series and `valid_time`,
/// from the one after `after` on. An end of `valid_times` that is `None` is open.
pub async fn page(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    series_ids: &[i32],
    as_of: Option<DateTime<Utc>>,
    valid_times: Range<Option<DateTime<Utc>>>,
    after: Option<(i32, DateTime<Utc>)>,
    limit: i64,
) -> Result<Vec<SeriesObservation>, Error> {
    Ok(sqlx::query_as(
        "select distinct on (series_id, valid_time) series_id, valid_time, value, sd, available_at
         from observation
         where tenant_id = $1 and series_id = any ($2)
           and available_at <= coalesce($3, 'infinity')
           and valid_time >= coalesce($4, '-infinity') and valid_time < coalesce($5, 'infinity')
           and ($6::integer is null or (series_id, valid_time) > ($6, $7))
         order by series_id, valid_time, available_at desc
         limit $8",
    )
    .bind(tenant_id)
    .bind(series_ids)
    .bind(as_of)
    .bind(valid_times.start)
    .bind(valid_times.end)
    .bind(after.map(|(series_id, _)| series_id))
    .bind(after.map(|(_, valid_time)| valid_time))
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// The latest `valid_time` at which a series has a value.
pub async fn newest_valid_time(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    series_id: i32,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar(
        "select valid_time
         from observation
         where tenant_id = $1 and series_id = $2
         order by valid_time desc
         limit 1",
    )
    .bind(tenant_id)
    .bind(series_id)
    .fetch_optional(db)
    .await?)
}

/// What is newest of a series, and how much of what should be there is.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Freshness {
    /// The series.
    pub series_id: i32,
    /// Start of the newest interval with a value.
    pub newest_valid_time: DateTime<Utc>,
    /// That value.
    pub newest_value: f64,
    /// Intervals with a value among those that were looked at.
    pub n_recent: i64,
}

/// The series of a panel that have values, and how many of these lie in `valid_times`.
pub async fn freshness(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    valid_times: Range<DateTime<Utc>>,
) -> Result<Vec<Freshness>, Error> {
    Ok(sqlx::query_as(
        "select s.series_id, newest.valid_time as newest_valid_time, newest.value as newest_value, n_recent
         from series s
         cross join lateral (
             select valid_time, value
             from observation o
             where o.tenant_id = s.tenant_id and o.series_id = s.series_id
             order by valid_time desc, available_at desc
             limit 1
         ) as newest
         cross join lateral (
             select count(distinct valid_time) as n_recent
             from observation o
             where o.tenant_id = s.tenant_id and o.series_id = s.series_id and valid_time >= $3 and valid_time < $4
         ) as recent
         where s.tenant_id = $1 and s.panel_id = $2",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(valid_times.start)
    .bind(valid_times.end)
    .fetch_all(db)
    .await?)
}

/// From when to when there are values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The earliest `valid_time` of any series.
    pub first_valid_time: DateTime<Utc>,
    /// The latest `valid_time` of any series that is not a known covariate.
    pub last_valid_time: DateTime<Utc>,
}

/// From when to when values of a panel version were known at `issue_time`; `None` when there was none, or none but of known
/// covariates, whose supplied future does not count.
pub async fn span(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
    issue_time: DateTime<Utc>,
) -> Result<Option<Span>, Error> {
    // Two index probes per series and partition, however long the history is.
    let (first, last): (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = sqlx::query_as(
        "select min(first.valid_time), max(last.valid_time) filter (where role <> 'known')
         from panel_version_series s
         join series using (tenant_id, series_id)
         cross join lateral (
             select valid_time
             from observation o
             where o.tenant_id = $1 and o.series_id = series.series_id and available_at <= $3
             order by valid_time
             limit 1
         ) as first
         cross join lateral (
             select valid_time
             from observation o
             where o.tenant_id = $1 and o.series_id = series.series_id and available_at <= $3
             order by valid_time desc
             limit 1
         ) as last
         where tenant_id = $1 and s.panel_version_id = $2",
    )
    .bind(tenant_id)
    .bind(panel_version_id)
    .bind(issue_time)
    .fetch_one(db)
    .await?;
    Ok(first.zip(last).map(|(first_valid_time, last_valid_time)| Span { first_valid_time, last_valid_time }))
}

/// When the first value of a `valid_time` became known, of the series of a panel version that are no known covariates.
/// Neither corrections nor series that are published later make it later.
pub async fn first_available_at(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
    valid_time: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    // An index probe per series, in one partition.
    Ok(sqlx::query_scalar(
        "select min(available_at)
         from panel_version_series s
         join series using (tenant_id, series_id)
         join observation using (tenant_id, series_id)
         where tenant_id = $1 and s.panel_version_id = $2 and role <> 'known' and valid_time = $3",
    )
    .bind(tenant_id)
    .bind(panel_version_id)
    .bind(valid_time)
    .fetch_one(db)
    .await?)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn observation(series_id: i32, hour: i64, available_at: Option<i64>) -> NewObservation {
        let time = |hour: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
        NewObservation {
            series_id,
            valid_time: time(hour),
            known_since: time(hour + 1),
            available_at: available_at.map(time),
            value: 0.0,
            sd: None,
        }
    }

    #[test]
    fn values_of_different_times_go_together() {
        let given = [observation(1, 0, None), observation(1, 1, None), observation(2, 0, None)];
        assert_eq!(rounds(&given).len(), 1);
        assert!(rounds(&[]).is_empty());
    }

    #[test]
    fn values_of_one_time_follow_in_the_order_in_which_they_became_known() {
        let given = [observation(1, 0, Some(9)), observation(2, 0, None), observation(1, 0, Some(5))];
        assert_eq!(rounds(&given), [vec![&given[2], &given[1]], vec![&given[0]]]);
    }
}
