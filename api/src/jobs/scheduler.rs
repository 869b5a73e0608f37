//! The scheduler: makes the jobs of schedules that are due.
//!
//! It runs in every worker. A schedule is locked while one of them looks at it, and an occasion has one job at most, by a key
//! of the table; so any number of schedulers may look, by clocks that are wrong, and an occasion still gets one job.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::timetable::{Timetable, TimetableError};
use super::{Ask, Work, enqueue_occasion};
use crate::config::Limits;
use crate::db::job::Occasion;
use crate::db::schedule::{self, NewSchedule, Schedule};
use crate::db::words::CatchUp;
use crate::db::{self, DEFAULT_TENANT};
use crate::problem::Violation;
use crate::{Error, error::causes};

/// Most jobs that one look makes of one schedule, and that wait of it.
const JOBS_MAX: usize = 100;

/// Most schedules that one look takes on; the others are due at the next.
const SCHEDULES_MAX: usize = 1000;

/// How late an occasion may be found without counting as missed.
const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// Longest jitter: a day.
const JITTER_SECONDS_MAX: i32 = 86_400;

/// Longest name of a schedule.
const NAME_LENGTH_MAX: usize = 100;

/// A schedule as it is declared, in a request or in the configuration file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Madrid", "kind": "train",
    "arguments": {"panel": "valencia", "horizon": 24}
}))]
pub struct Declaration {
    /// Its name, which is its address: letters, digits, `-` and `_`.
    #[schema(max_length = 100)]
    pub name: String,
    /// When it is due: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// By the clock of this zone, an IANA name.
    #[serde(default = "time_zone_default")]
    #[schema(default = "UTC")]
    pub time_zone: String,
    /// What is to be done; see `POST /v1/jobs`.
    pub kind: String,
    /// Its arguments.
    #[serde(default = "arguments_default")]
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// What becomes of occasions that no scheduler was there for: `skip` leaves them out, `once` makes up for all of them
    /// with one job, `all` makes a job for each, up to the newest 100 of the last seven days.
    #[serde(default = "catch_up_default")]
    #[schema(default = "once")]
    pub catch_up: String,
    /// Jobs begin up to so many seconds after their occasion, so that not all begin at once.
    #[serde(default)]
    #[schema(default = 0, minimum = 0, maximum = 86400)]
    pub jitter_seconds: i32,
    /// Whether it makes no jobs for now.
    #[serde(default)]
    #[schema(default = false)]
    pub paused: bool,
}

fn time_zone_default() -> String {
    "UTC".to_owned()
}

fn arguments_default() -> Value {
    Value::Object(serde_json::Map::new())
}

fn catch_up_default() -> String {
    CatchUp::Once.to_string()
}

/// Stores a declared schedule; tells whether there was none of its name.
///
/// # Errors
/// - [`Error::InvalidBody`] with everything that is wrong
/// - [`Error::UnknownPanel`]
pub async fn declare(
    connection: &mut PgConnection,
    declaration: &Declaration,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let Declaration { name, cron, time_zone, kind, arguments, jitter_seconds, paused, .. } = declaration;
    let mut errors = Vec::new();
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(is_name) {
        let message = "must be 1 to 100 of letters, digits, `-` and `_`";
        errors.push(Violation::at("/name", "invalid-value", message));
    }
    let timetable = Timetable::new(cron, time_zone, now).map_err(|error| {
        let pointer = if error == TimetableError::Zone { "/time_zone" } else { "/cron" };
        errors.push(Violation::at(pointer, "invalid-value", error.to_string()));
    });
    let catch_up = declaration.catch_up.parse::<CatchUp>().map_err(|error| {
        errors.push(Violation::at("/catch_up", "invalid-value", error.to_string()));
    });
    if !(0..=JITTER_SECONDS_MAX).contains(jitter_seconds) {
        let message = format!("must lie between 0 and {JITTER_SECONDS_MAX}");
        errors.push(Violation::at("/jitter_seconds", "out-of-range", message));
    }
    let work = Work::parse(kind, arguments.clone()).and_then(|work| work.check(limits).map(|()| work));
    let work = match work {
        Ok(work) => Some(work),
        Err(Error::InvalidBody { errors: of_work }) => {
            errors.extend(of_work);
            None
        }
        Err(other) => return Err(other),
    };
    let (Ok(timetable), Ok(catch_up), Some(work), true) = (timetable, catch_up, work, errors.is_empty()) else {
        return Err(Error::InvalidBody { errors });
    };
    let panel_id = super::panel_id(connection, &work).await?;
    let new = NewSchedule {
        name,
        cron,
        time_zone,
        kind: work.kind(),
        arguments: &work.arguments()?,
        panel_id,
        catch_up,
        jitter_seconds: *jitter_seconds,
        paused: *paused,
        next_run: timetable.next(now).filter(|_| !paused),
    };
    Ok(schedule::put(connection, DEFAULT_TENANT, &new, now).await?)
}

/// Makes the jobs of all schedules that are due at `now`; tells how many. Where the queue is full, a schedule stays due
/// from its first occasion without a job on.
///
/// # Errors
/// When the database is away. What is wrong with one schedule is logged, and does not keep others from running.
pub async fn look(pool: &PgPool, limits: &Limits, now: DateTime<Utc>) -> Result<usize, db::Error> {
    let mut n_made = 0;
    for _ in 0..SCHEDULES_MAX {
        let mut transaction = pool.begin().await?;
        let Some(due) = schedule::lock_due(&mut transaction, DEFAULT_TENANT, now).await? else { break };
        let made = match make_jobs(&mut transaction, &due, limits, now).await {
            Ok(made) => made,
            Err(Error::Database(error)) => return Err(error),
            Err(error) => {
                tracing::error!(schedule = due.name, "schedule {} makes no job: {}", due.name, causes(&error));
                // The next occasion may be better; none comes of one that cannot be understood any more.
                let timetable = Timetable::new(&due.cron, &due.time_zone, now);
                Made { next_run: timetable.ok().and_then(|timetable| timetable.next(now)), last: None, n: 0 }
            }
        };
        let Made { next_run, last, n } = made;
        schedule::looked_at(&mut transaction, DEFAULT_TENANT, due.schedule_id, next_run, last, now).await?;
        transaction.commit().await?;
        n_made += n;
        if next_run.is_some_and(|next| next <= now) {
            // It is due still: the queue is full, for others, too.
            break;
        }
    }
    Ok(n_made)
}

/// What came of a look at a schedule.
struct Made {
    next_run: Option<DateTime<Utc>>,
    last: Option<(DateTime<Utc>, Uuid)>,
    n: usize,
}

async fn make_jobs(
    connection: &mut PgConnection,
    due: &Schedule,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<Made, Error> {
    let timetable =
        Timetable::new(&due.cron, &due.time_zone, now).map_err(|error| Error::internal("reading a schedule", error))?;
    let work = Work::parse(&due.kind, due.arguments.clone())?;
    let n_waiting = schedule::n_waiting(&mut *connection, DEFAULT_TENANT, due.schedule_id, now).await?;
    let n_waiting = usize::try_from(n_waiting).unwrap_or(usize::MAX);
    let n_max = match due.catch_up {
        CatchUp::All => JOBS_MAX.saturating_sub(n_waiting),
        // One that waits already will do what another one would.
        CatchUp::Skip | CatchUp::Once => 1_usize.saturating_sub(n_waiting),
    };
    let occasions = match due.next_run {
        Some(first) if first <= now && n_max > 0 => timetable.occasions(first, now, n_max),
        _ => vec![],
    };
    let newest = occasions.last().copied();
    let mut made = Made { next_run: timetable.next(now), last: None, n: 0 };
    for occasion in occasions {
        if due.catch_up == CatchUp::Skip && now - occasion > ON_TIME {
            continue;
        }
        // What was missed is made up for as it would have been done; the newest one is done by what is known now.
        let work = if Some(occasion) == newest { work.clone() } else { work.clone().dated(occasion) };
        let ask =
            Ask { by: &format!("schedule {}", due.name), run_after: occasion + jitter(due, occasion), now, key: None };
        let of_schedule = Occasion { schedule_id: due.schedule_id, scheduled_for: occasion };
        match enqueue_occasion(&mut *connection, &work, &ask, of_schedule, limits).await {
            Ok(Some(job_id)) => {
                made.last = Some((occasion, job_id));
                made.n += 1;
            }
            Ok(None) => {}
            Err(error @ Error::TooManyJobs { .. }) => {
                // Told once, not at each look.
                if due.looked_at < occasion {
                    tracing::error!(schedule = due.name, "schedule {} waits: {error}", due.name);
                }
                made.next_run = Some(occasion);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

/// The time from an occasion to its job: the same whoever asks, and spread evenly over schedules and occasions.
fn jitter(due: &Schedule, occasion: DateTime<Utc>) -> TimeDelta {
    let digest = Sha256::digest(format!("{} {}", due.schedule_id, occasion.timestamp()));
    let draw = u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    let range = u64::try_from(due.jitter_seconds).unwrap_or(0) * 1000;
    TimeDelta::milliseconds(i64::try_from((draw * range) >> 32).unwrap_or(0))
}
