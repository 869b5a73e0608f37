//! When a schedule is due: a cron expression by the clock of a time zone.
//!
//! Where the clock is put forward, a fixed time that does not exist is due at the first instant after the gap; where it
//! is put back, a fixed time is due once, at its first occurrence. Intervals (`*/15`) go on in both cases.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// How far back occasions are made up for.
const CATCH_UP_LIMIT: TimeDelta = TimeDelta::days(7);

/// A cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// Why there is no such timetable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// The expression is not understood.
    #[error("must be a cron expression of five fields, such as `30 6 * * MON-FRI`: {reason}")]
    Cron {
        /// What the parser says.
        reason: String,
    },
    /// There is no such time zone.
    #[error("must be a time zone of the IANA database, such as Europe/Madrid")]
    Zone,
    /// The expression is well formed, but no day is like that.
    #[error("is never due")]
    Never,
}

impl Timetable {
    /// The timetable of an expression by the clock of a zone; `now` is any instant from which on it must be due.
    ///
    /// # Errors
    /// See [`TimetableError`].
    pub fn new(cron: &str, zone: &str, now: DateTime<Utc>) -> Result<Self, TimetableError> {
        let zone = zone.parse().map_err(|_| TimetableError::Zone)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| TimetableError::Cron { reason: error.to_string() })?;
        let timetable = Self { cron, zone };
        if timetable.next(now).is_some() { Ok(timetable) } else { Err(TimetableError::Never) }
    }

    /// The first occasion after an instant.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false);
        next.ok().map(|time| time.to_utc())
    }

    /// The occasions from `first`, which is one, until `now`, at most the newest `n_max`, the oldest first. Those more than
    /// a week ago are left out.
    #[must_use]
    pub fn occasions(&self, first: DateTime<Utc>, now: DateTime<Utc>, n_max: usize) -> Vec<DateTime<Utc>> {
        let oldest = now - CATCH_UP_LIMIT;
        let first = if first < oldest { self.next(oldest) } else { Some(first) };
        let mut found = std::collections::VecDeque::new();
        let mut next = first.filter(|&time| time <= now);
        while let Some(time) = next {
            if found.len() == n_max {
                found.pop_front();
            }
            found.push_back(time);
            next = self.next(time).filter(|&time| time <= now);
        }
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn timetable(cron: &str, zone: &str) -> Timetable {
        Timetable::new(cron, zone, at("2025-01-01T00:00:00Z")).expect("a timetable")
    }

    /// The occasions of three in a row, by the clock in UTC.
    fn check(cron: &str, zone: &str, after: &str, expected: [&str; 3]) {
        let timetable = timetable(cron, zone);
        let mut time = at(after);
        for expected in expected {
            time = timetable.next(time).expect("there is always another");
            assert_eq!(time, at(expected), "{cron} in {zone} after {after}");
        }
    }

    #[test]
    fn a_time_of_day_keeps_to_the_clock_of_its_zone() {
        // Madrid puts its clocks forward on 30 March 2025 and back on 26 October.
        check(
            "0 6 * * *",
            "Europe/Madrid",
            "2025-03-28T12:00:00Z",
            ["2025-03-29T05:00:00Z", "2025-03-30T04:00:00Z", "2025-03-31T04:00:00Z"],
        );
        check(
            "0 6 * * *",
            "Europe/Madrid",
            "2025-10-24T12:00:00Z",
            ["2025-10-25T04:00:00Z", "2025-10-26T05:00:00Z", "2025-10-27T05:00:00Z"],
        );
    }

    #[test]
    fn a_time_that_does_not_exist_is_due_after_the_gap_and_one_that_comes_twice_is_due_once() {
        check(
            "30 2 * * *",
            "Europe/Madrid",
            "2025-03-29T12:00:00Z",
            ["2025-03-30T01:00:00Z", "2025-03-31T00:30:00Z", "2025-04-01T00:30:00Z"],
        );
        check(
            "30 2 * * *",
            "Europe/Madrid",
            "2025-10-25T12:00:00Z",
            ["2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z", "2025-10-28T01:30:00Z"],
        );
    }

    #[test]
    fn hours_go_on_through_both_changes() {
        let hourly = timetable("0 * * * *", "Europe/Madrid");
        for day in [Utc.with_ymd_and_hms(2025, 3, 30, 0, 0, 0), Utc.with_ymd_and_hms(2025, 10, 26, 0, 0, 0)] {
            let midnight = day.single().expect("UTC has no gaps");
            let occasions = hourly.occasions(midnight, midnight + TimeDelta::hours(5), 100);
            let expected: Vec<_> = (0..=5).map(|hour| midnight + TimeDelta::hours(hour)).collect();
            assert_eq!(occasions, expected);
        }
    }

    #[test]
    fn the_newest_occasions_are_kept_and_those_of_long_ago_left_out() {
        let hourly = timetable("0 * * * *", "UTC");
        let now = at("2025-06-30T12:30:00Z");
        let newest = hourly.occasions(at("2025-06-30T00:00:00Z"), now, 2);
        assert_eq!(newest, [at("2025-06-30T11:00:00Z"), at("2025-06-30T12:00:00Z")]);
        let all = hourly.occasions(at("2025-01-01T00:00:00Z"), now, 10_000);
        assert_eq!((all.len(), all[0]), (7 * 24, at("2025-06-23T13:00:00Z")));
        assert!(hourly.occasions(at("2025-06-30T13:00:00Z"), now, 10).is_empty());
    }

    #[test]
    fn what_is_no_timetable_is_refused() {
        let wrong = |cron, zone| Timetable::new(cron, zone, at("2025-01-01T00:00:00Z")).expect_err("it is refused");
        assert_eq!(wrong("0 6 * * *", "Mars/Olympus"), TimetableError::Zone);
        assert_eq!(wrong("0 0 31 2 *", "UTC"), TimetableError::Never);
        for cron in ["", "soon", "0 6 * *", "0 0 6 * * *", "60 * * * *", "0 25 * * *"] {
            assert!(matches!(wrong(cron, "UTC"), TimetableError::Cron { .. }), "{cron}");
        }
        timetable("@daily", "UTC");
        timetable("0 6 * * MON-FRI", "Asia/Tokyo");
    }
}
