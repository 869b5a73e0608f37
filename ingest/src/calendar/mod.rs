//! Calendar arithmetic: the only place that knows how long an interval is in a time zone.
//!
//! Every grid is numbered: `ordinal` gives the number of the interval that contains an instant,
//! `start` the first instant of a numbered interval. All other operations follow from the two.

mod features;
mod inference;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{OffsetComponents, Tz};

use crate::{
    Frequency,
    frequency::DAY_SECONDS,
    times::{NO_TIME, instant},
};
pub(crate) use features::{n_features, push_features};
pub(crate) use inference::best_label;

/// A Monday, from which days and weeks are counted.
const EPOCH: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 5).expect("a date");

/// Which end of its interval a source writes beside a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// The first instant of the interval.
    Start,
    /// Any time on the last day of a month, quarter or year.
    LastDay,
}

impl Frequency {
    /// The number of the interval that contains `t`, counted from a fixed origin of this grid.
    pub fn ordinal(&self, t: DateTime<Utc>, tz: Tz) -> i64 {
        if let Frequency::Seconds(seconds) = self {
            let seconds = i64::from(seconds.get());
            return (t.timestamp() - phase(seconds, tz)).div_euclid(seconds);
        }
        let date = local_date(t, tz);
        let days = date.signed_duration_since(EPOCH).num_days();
        match self {
            Frequency::Seconds(_) | Frequency::Day => days,
            Frequency::BusinessDay => days.div_euclid(7) * 5 + days.rem_euclid(7).min(4),
            Frequency::Week { start } => (days - i64::from(start.num_days_from_monday())).div_euclid(7),
            Frequency::Month => i64::from(date.year()) * 12 + i64::from(date.month0()),
            Frequency::Quarter => i64::from(date.year()) * 4 + i64::from(date.month0() / 3),
            Frequency::Year => i64::from(date.year()),
        }
    }

    /// The first instant of the interval with this number. Beyond the years that can be
    /// represented it stays at their first or last instant.
    pub fn start(&self, ordinal: i64, tz: Tz) -> DateTime<Utc> {
        let start = match self {
            Frequency::Seconds(seconds) => {
                let seconds = i64::from(seconds.get());
                ordinal
                    .checked_mul(seconds)
                    .and_then(|elapsed| elapsed.checked_add(phase(seconds, tz)))
                    .and_then(|elapsed| DateTime::from_timestamp(elapsed, 0))
            }
            Frequency::Day => day(ordinal).and_then(|date| start_of_day(date, tz)),
            Frequency::BusinessDay => {
                let days = ordinal.div_euclid(5).checked_mul(7).map(|days| days + ordinal.rem_euclid(5));
                days.and_then(day).and_then(|date| start_of_day(date, tz))
            }
            Frequency::Week { start } => {
                let days = ordinal.checked_mul(7);
                let days = days.and_then(|days| days.checked_add(i64::from(start.num_days_from_monday())));
                days.and_then(day).and_then(|date| start_of_day(date, tz))
            }
            Frequency::Month => month(ordinal, 12, 1).and_then(|date| start_of_day(date, tz)),
            Frequency::Quarter => month(ordinal, 4, 3).and_then(|date| start_of_day(date, tz)),
            Frequency::Year => month(ordinal, 1, 12).and_then(|date| start_of_day(date, tz)),
        };
        start.unwrap_or_else(|| {
            let origin = self.ordinal(DateTime::UNIX_EPOCH, tz);
            if ordinal < origin { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC }
        })
    }

    /// The start of the interval that contains `t`.
    pub fn floor(&self, t: DateTime<Utc>, tz: Tz) -> DateTime<Utc> {
        self.start(self.ordinal(t, tz), tz)
    }

    /// The first interval start at or after `t`.
    pub fn ceil(&self, t: DateTime<Utc>, tz: Tz) -> DateTime<Utc> {
        let floor = self.floor(t, tz);
        if floor == t { t } else { self.advance(floor, 1, tz) }
    }

    /// The start of the interval `n` steps after the one that contains `t`.
    pub fn advance(&self, t: DateTime<Utc>, n: i64, tz: Tz) -> DateTime<Utc> {
        self.start(self.ordinal(t, tz).saturating_add(n), tz)
    }

    /// Number of steps from the interval that contains `from` to the one that contains `to`.
    pub fn index_between(&self, from: DateTime<Utc>, to: DateTime<Utc>, tz: Tz) -> i64 {
        self.ordinal(to, tz) - self.ordinal(from, tz)
    }

    /// The number of the interval that a source means by the stamp `t`; `None` when it is off the grid.
    pub(crate) fn place(&self, t: DateTime<Utc>, label: Label, tz: Tz) -> Option<i64> {
        match label {
            Label::Start => {
                let ordinal = self.ordinal(t, tz);
                (self.start(ordinal, tz) == t).then_some(ordinal)
            }
            Label::LastDay if self.ends_on_last_day() => {
                let next_day = start_of_day(local_date(t, tz).succ_opt()?, tz)?;
                let next = self.ordinal(next_day, tz);
                (self.start(next, tz) == next_day).then_some(next - 1)
            }
            Label::LastDay => None,
        }
    }

    /// The numbers of the intervals that contain instants, in microseconds since 1970.
    pub(crate) fn ordinals(&self, micros: &[i64], tz: Tz) -> Vec<i64> {
        match self.fixed(tz) {
            Some(grid) => {
                // Mostly the next time is that of the next interval, and nothing need be divided.
                let (mut next, mut ordinal) = (None, 0);
                let number = |micros: &i64| {
                    ordinal = match next == Some(*micros) {
                        true => ordinal + 1,
                        false => (micros - grid.phase_micros).div_euclid(grid.step_micros),
                    };
                    next = micros.checked_add(grid.step_micros);
                    ordinal
                };
                micros.iter().map(number).collect()
            }
            None => micros.iter().map(|micros| self.ordinal(instant(*micros), tz)).collect(),
        }
    }

    /// The grid, if its steps have one length.
    pub(crate) fn fixed(&self, tz: Tz) -> Option<FixedGrid> {
        const MICROS: i64 = 1_000_000;
        let Frequency::Seconds(seconds) = self else { return None };
        let seconds = i64::from(seconds.get());
        Some(FixedGrid { phase_micros: phase(seconds, tz) * MICROS, step_micros: seconds * MICROS })
    }

    fn ends_on_last_day(&self) -> bool {
        matches!(self, Frequency::Month | Frequency::Quarter | Frequency::Year)
    }
}

/// A grid whose steps have one length, in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedGrid {
    phase_micros: i64,
    step_micros: i64,
}

impl FixedGrid {
    /// How many of the times begin no step, where [`NO_TIME`] is none.
    pub(crate) fn n_off(&self, micros: &[i64]) -> usize {
        // Mostly the next time is that of the next step, and nothing need be divided.
        let mut next = None;
        let is_off = |time: &&i64| {
            let holds = next == Some(**time) || **time == NO_TIME || self.holds(**time);
            next = if holds { time.checked_add(self.step_micros) } else { None };
            !holds
        };
        micros.iter().filter(is_off).count()
    }

    /// Whether a step begins then.
    fn holds(&self, micros: i64) -> bool {
        (micros - self.phase_micros) % self.step_micros == 0
    }
}

/// The steps of the local day, of so many seconds each, at which instants come that are sorted and lie within a few weeks. No
/// zone changes its clocks twice in so short a time and stands as before: what holds at both ends holds in between.
pub(crate) fn slots_of_day(micros: &[i64], tz: Tz, seconds: u32) -> impl Iterator<Item = usize> {
    let offset =
        move |micros: i64| i64::from(tz.offset_from_utc_datetime(&instant(micros).naive_utc()).fix().local_minus_utc());
    let ends = micros.first().zip(micros.last()).map(|(first, last)| (offset(*first), offset(*last)));
    let constant = ends.filter(|(first, last)| first == last).map(|(offset, _)| offset);
    let n_slots = (DAY_SECONDS / seconds) as usize;
    let (mut next, mut slot) = (None, 0);
    micros.iter().map(move |micros| {
        // The remainder is below the seconds of a day.
        let divided = |offset: i64| {
            let second = (micros.div_euclid(1_000_000) + offset).rem_euclid(i64::from(DAY_SECONDS)) as u32;
            (second / seconds) as usize
        };
        slot = match constant {
            Some(_) if next == Some(*micros) => {
                if slot + 1 == n_slots {
                    0
                } else {
                    slot + 1
                }
            }
            Some(offset) => divided(offset),
            None => divided(offset(*micros)),
        };
        next = micros.checked_add(i64::from(seconds) * 1_000_000);
        slot
    })
}

/// The wall time in a zone.
pub(crate) fn local(t: DateTime<Utc>, tz: Tz) -> NaiveDateTime {
    tz.from_utc_datetime(&t.naive_utc()).naive_local()
}

/// The first instant of a date in a zone: midnight, or the first wall time that exists after it.
/// `None` beyond the years that can be represented.
pub(crate) fn start_of_day(date: NaiveDate, tz: Tz) -> Option<DateTime<Utc>> {
    const PROBE: TimeDelta = TimeDelta::minutes(15);
    /// A day and a quarter of an hour: Samoa left out the whole of 30 December 2011.
    const N_PROBES: i32 = 97;
    let midnight = date.and_time(NaiveTime::MIN);
    (0..N_PROBES).find_map(|n| {
        let wall_time = midnight.checked_add_signed(PROBE * n)?;
        Some(tz.from_local_datetime(&wall_time).earliest()?.with_timezone(&Utc))
    })
}

fn local_date(t: DateTime<Utc>, tz: Tz) -> NaiveDate {
    local(t, tz).date()
}

/// Seconds after the Unix epoch at which intervals of a fixed length begin, so that a grid of an
/// hour or longer begins at local midnight in standard time. Taken at one fixed instant: a zone
/// that changed its standard offset keeps one grid.
fn phase(seconds: i64, tz: Tz) -> i64 {
    const REFERENCE: NaiveDateTime = NaiveDate::from_ymd_opt(2020, 1, 1).expect("a date").and_time(NaiveTime::MIN);
    let offset = tz.offset_from_utc_datetime(&REFERENCE).base_utc_offset();
    (-offset.num_seconds()).rem_euclid(seconds)
}

fn day(days: i64) -> Option<NaiveDate> {
    let count = Days::new(days.unsigned_abs());
    if days < 0 { EPOCH.checked_sub_days(count) } else { EPOCH.checked_add_days(count) }
}

/// The first day of a numbered period, of which a year has `per_year` with `n_months` months each.
fn month(ordinal: i64, per_year: i64, n_months: i64) -> Option<NaiveDate> {
    let year = i32::try_from(ordinal.div_euclid(per_year)).ok()?;
    let month = u32::try_from(ordinal.rem_euclid(per_year) * n_months + 1).ok()?;
    NaiveDate::from_ymd_opt(year, month, 1)
}

/// Share of a day that has passed at a wall time.
fn day_fraction(wall_time: NaiveDateTime) -> f64 {
    let elapsed = wall_time.time().signed_duration_since(NaiveTime::MIN);
    elapsed.num_milliseconds() as f64 / (1_000.0 * f64::from(DAY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America, Asia, Europe};
    use proptest::prelude::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    fn frequency(text: &str) -> Frequency {
        text.parse().expect("a frequency")
    }

    /// Advances by one step.
    fn check(name: &str, tz: Tz, from: &str, to: &str) {
        assert_eq!(frequency(name).advance(utc(from), 1, tz), utc(to), "{name} from {from} in {tz}");
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_clocks_change() {
        check("1d", Europe::Madrid, "2023-03-25T23:00:00Z", "2023-03-26T22:00:00Z");
        check("1d", Europe::Madrid, "2023-10-28T22:00:00Z", "2023-10-29T23:00:00Z");
        check("1d", Tz::UTC, "2023-03-26T00:00:00Z", "2023-03-27T00:00:00Z");
        let n_hours = |from, to| Frequency::HOUR.index_between(utc(from), utc(to), Europe::Madrid);
        assert_eq!(n_hours("2023-03-25T23:00:00Z", "2023-03-26T22:00:00Z"), 23);
        assert_eq!(n_hours("2023-10-28T22:00:00Z", "2023-10-29T23:00:00Z"), 25);
    }

    #[test]
    fn months_quarters_and_years_begin_on_their_first_local_day() {
        check("1mo", Tz::UTC, "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z");
        check("1mo", Tz::UTC, "2024-01-31T12:00:00Z", "2024-02-01T00:00:00Z");
        check("1mo", Europe::Madrid, "2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z");
        check("1q", Tz::UTC, "2024-02-10T00:00:00Z", "2024-04-01T00:00:00Z");
        check("1y", Tz::UTC, "2024-02-10T00:00:00Z", "2025-01-01T00:00:00Z");
    }

    #[test]
    fn friday_lasts_until_monday() {
        check("1b", Tz::UTC, "2024-03-01T00:00:00Z", "2024-03-04T00:00:00Z");
        check("1b", Tz::UTC, "2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z");
        let sunday = utc("2024-03-03T10:00:00Z");
        assert_eq!(Frequency::BusinessDay.floor(sunday, Tz::UTC), utc("2024-03-01T00:00:00Z"));
        assert_eq!(Frequency::BusinessDay.place(utc("2024-03-03T00:00:00Z"), Label::Start, Tz::UTC), None);
    }

    #[test]
    fn a_week_begins_on_its_day() {
        check("1w", Tz::UTC, "2024-03-06T00:00:00Z", "2024-03-11T00:00:00Z");
        check("1w-tue", Tz::UTC, "2002-01-01T00:00:00Z", "2002-01-08T00:00:00Z");
    }

    #[test]
    fn hours_follow_zones_with_half_hour_offsets() {
        check("1h", Asia::Kolkata, "2024-01-01T00:30:00Z", "2024-01-01T01:30:00Z");
        assert_eq!(Frequency::HOUR.floor(utc("2024-01-01T01:00:00Z"), Asia::Kolkata), utc("2024-01-01T00:30:00Z"));
    }

    #[test]
    fn a_day_without_midnight_begins_at_its_first_instant() {
        check("1d", America::Sao_Paulo, "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z");
        assert_eq!(
            start_of_day(NaiveDate::from_ymd_opt(2018, 11, 4).expect("a date"), America::Sao_Paulo),
            Some(utc("2018-11-04T03:00:00Z"))
        );
    }

    #[test]
    fn month_ends_mean_their_month() {
        let place = |t, label| Frequency::Month.place(utc(t), label, Tz::UTC);
        let february = place("2024-02-01T00:00:00Z", Label::Start);
        assert!(february.is_some());
        assert_eq!(place("2024-02-29T00:00:00Z", Label::LastDay), february);
        assert_eq!(place("2024-02-29T23:59:59Z", Label::LastDay), february);
        assert_eq!(place("2024-02-28T00:00:00Z", Label::LastDay), None);
        assert_eq!(Frequency::Day.place(utc("2024-02-29T00:00:00Z"), Label::LastDay, Tz::UTC), None);
    }

    #[test]
    fn steps_beyond_the_last_year_saturate() {
        let t = utc("2024-01-01T00:00:00Z");
        for name in ["1s", "1h", "1d", "1b", "1w", "1mo", "1q", "1y"] {
            assert_eq!(frequency(name).advance(t, i64::MAX, Tz::UTC), DateTime::<Utc>::MAX_UTC);
            assert_eq!(frequency(name).start(i64::MIN, Tz::UTC), DateTime::<Utc>::MIN_UTC);
        }
    }

    #[test]
    fn ceil_keeps_what_is_on_the_grid() {
        let on_grid = utc("2024-01-01T05:00:00Z");
        assert_eq!(Frequency::HOUR.ceil(on_grid, Tz::UTC), on_grid);
        assert_eq!(Frequency::HOUR.ceil(utc("2024-01-01T04:00:00.5Z"), Tz::UTC), on_grid);
    }

    fn any_frequency() -> impl Strategy<Value = Frequency> {
        prop::sample::select(vec!["30s", "5min", "15min", "1h", "6h", "1d", "1b", "1w", "1w-sun", "1mo", "1q", "1y"])
            .prop_map(frequency)
    }

    fn any_zone() -> impl Strategy<Value = Tz> {
        prop::sample::select(vec![
            Tz::UTC,
            Europe::Madrid,
            America::New_York,
            America::Sao_Paulo,
            Asia::Kolkata,
            Tz::Australia__Lord_Howe,
        ])
    }

    proptest! {
        #[test]
        fn an_instant_lies_in_its_interval(
            frequency in any_frequency(), tz in any_zone(), seconds in 0_i64..2_500_000_000,
        ) {
            let t = DateTime::from_timestamp(seconds, 0).expect("in range");
            let floor = frequency.floor(t, tz);
            prop_assert!(floor <= t);
            prop_assert!(t < frequency.advance(t, 1, tz));
            prop_assert_eq!(frequency.floor(floor, tz), floor);
            prop_assert_eq!(frequency.place(floor, Label::Start, tz), Some(frequency.ordinal(t, tz)));
            let times = [t, frequency.advance(t, 1, tz), frequency.advance(t, 2, tz), frequency.advance(t, 4, tz)];
            let micros = times.map(|t| t.timestamp_micros());
            prop_assert_eq!(frequency.ordinals(&micros, tz), times.map(|t| frequency.ordinal(t, tz)));
            if let Some(grid) = frequency.fixed(tz) {
                prop_assert_eq!(grid.n_off(&[floor.timestamp_micros(), NO_TIME]), 0);
                prop_assert_eq!(grid.n_off(&micros), usize::from(floor != t));
                prop_assert_eq!(grid.n_off(&micros.map(|micros| micros + 1_000_000)) > 0, !grid.holds(1_000_000 + micros[1]));
            }
        }

        #[test]
        fn slots_of_the_day_are_those_of_the_clock(tz in any_zone(), hour in 0_i64..700_000, n in 1_i64..400) {
            let times: Vec<_> = (hour..hour + n).filter_map(|hour| DateTime::from_timestamp(3_600 * hour, 0)).collect();
            let micros: Vec<_> = times.iter().map(DateTime::timestamp_micros).collect();
            for seconds in [3_600, 60] {
                let clock = |t: &DateTime<Utc>| chrono::Timelike::num_seconds_from_midnight(&local(*t, tz)) / seconds;
                let clock: Vec<_> = times.iter().map(|t| clock(t) as usize).collect();
                prop_assert_eq!(slots_of_day(&micros, tz, seconds).collect::<Vec<_>>(), clock);
            }
        }

        #[test]
        fn advancing_there_and_back_is_the_floor(
            frequency in any_frequency(), tz in any_zone(), seconds in 0_i64..2_500_000_000, n in -400_i64..400,
        ) {
            let t = DateTime::from_timestamp(seconds, 0).expect("in range");
            let there = frequency.advance(t, n, tz);
            prop_assert_eq!(frequency.index_between(t, there, tz), n);
            prop_assert_eq!(frequency.advance(there, -n, tz), frequency.floor(t, tz));
        }
    }
}
