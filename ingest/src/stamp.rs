//! Times as they are written: ISO 8601 with or without an offset, dates and months.

use std::fmt;

use chrono::{DateTime, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::{Reason, calendar::start_of_day};

/// How a time is written. A file uses one format throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// A time with an offset from UTC: `2024-05-01T10:00:00Z`, `2024-05-01 10:00+02:00`.
    Offset,
    /// A wall time: `2024-05-01 10:00`, `2024-05-01T10:00:00.5`.
    Local,
    /// A date: `2024-05-01`.
    Date,
    /// A month: `2024-05`.
    Month,
    /// Day, month and year in some order, `01/05/2024`: refused, because the order is not known.
    Slashed,
    /// A bare number such as `1714557600`: refused, because its unit and origin are not known.
    Number,
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeFormat::Offset => "a time with an offset",
            TimeFormat::Local => "a local time",
            TimeFormat::Date => "a date",
            TimeFormat::Month => "a month",
            TimeFormat::Slashed => "a date in an order that is not certain",
            TimeFormat::Number => "a bare number",
        })
    }
}

/// A time as read, before the zone is applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stamp {
    Instant(DateTime<Utc>),
    Local(NaiveDateTime),
    Date(NaiveDate),
}

impl Stamp {
    /// The instant that is meant, with wall times read in `tz`.
    pub(crate) fn resolve(self, tz: Tz) -> Result<DateTime<Utc>, Reason> {
        match self {
            Stamp::Instant(t) => Ok(t),
            Stamp::Date(date) => start_of_day(date, tz).ok_or(Reason::UnparsableTime),
            Stamp::Local(wall_time) => match tz.from_local_datetime(&wall_time) {
                MappedLocalTime::Single(t) => Ok(t.with_timezone(&Utc)),
                MappedLocalTime::Ambiguous(..) => Err(Reason::AmbiguousLocalTime),
                MappedLocalTime::None => Err(Reason::NonexistentLocalTime),
            },
        }
    }
}

/// Reads a time. The stamp is missing when the format is known but refused.
pub(crate) fn parse(text: &str) -> Option<(TimeFormat, Option<Stamp>)> {
    let text = text.trim();
    if !begins_with_year(text) {
        return refused(text).map(|format| (format, None));
    }
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let month = mark(&mut rest, b"-").and_then(|()| digits(&mut rest, 2))?;
    if rest.is_empty() {
        let date = NaiveDate::from_ymd_opt(year.cast_signed(), month, 1)?;
        return Some((TimeFormat::Month, Some(Stamp::Date(date))));
    }
    let day = mark(&mut rest, b"-").and_then(|()| digits(&mut rest, 2))?;
    let date = NaiveDate::from_ymd_opt(year.cast_signed(), month, day)?;
    if rest.is_empty() {
        return Some((TimeFormat::Date, Some(Stamp::Date(date))));
    }

    mark(&mut rest, b"T t")?;
    let time = time_of_day(&mut rest)?;
    let wall_time = date.and_time(time);
    if rest.is_empty() {
        return Some((TimeFormat::Local, Some(Stamp::Local(wall_time))));
    }
    let offset = offset(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let instant = wall_time.checked_sub_signed(offset)?.and_utc();
    Some((TimeFormat::Offset, Some(Stamp::Instant(instant))))
}

/// The short way for what most sources have: `2024-05-01T10:00`, with seconds or not, with `Z` or not.
#[derive(Default)]
pub(crate) struct Usual {
    /// The date of the last time, which is mostly that of the next one, too.
    date: [u8; 10],
    days: i64,
}

impl Usual {
    /// The format, and the seconds from 1970 to the wall time.
    pub(crate) fn parse(&mut self, text: &str) -> Option<(TimeFormat, i64)> {
        let text = text.as_bytes();
        let (format, text) = match text {
            [text @ .., b'Z'] => (TimeFormat::Offset, text),
            text => (TimeFormat::Local, text),
        };
        let (date, rest) = text.split_first_chunk::<10>()?;
        let (time, second) = match rest {
            [time @ .., b':', a, b] if rest.len() == 9 => (time, two_digits(*a, *b)?),
            time if rest.len() == 6 => (time, 0),
            _ => return None,
        };
        let &[b'T' | b' ', a, b, b':', c, d] = time else { return None };
        let (hour, minute) = (two_digits(a, b)?, two_digits(c, d)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if *date != self.date {
            let [a, b, c, d, b'-', e, f, b'-', g, h] = *date else { return None };
            let year = 100 * two_digits(a, b)? + two_digits(c, d)?;
            let day = NaiveDate::from_ymd_opt(year.cast_signed(), two_digits(e, f)?, two_digits(g, h)?)?;
            (self.date, self.days) = (*date, i64::from(day.to_epoch_days()));
        }
        Some((format, 86_400 * self.days + i64::from(3_600 * hour + 60 * minute + second)))
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(10 * tens + ones))
}

/// Whether four digits and a minus come first, as in every format that is not refused: neither a number nor a date with
/// slashes can begin so.
fn begins_with_year(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.get(4) == Some(&b'-') && bytes[..4].iter().all(u8::is_ascii_digit)
}

/// The format of what could mean several instants.
fn refused(text: &str) -> Option<TimeFormat> {
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok() {
        return Some(TimeFormat::Number);
    }
    is_slashed(text).then_some(TimeFormat::Slashed)
}

/// Three groups of digits with slashes or dots between them.
fn is_slashed(text: &str) -> bool {
    let mut groups = text.splitn(3, ['/', '.']);
    let begins_with_digit = |group: &str| group.starts_with(|c: char| c.is_ascii_digit());
    let is_number = |group: &str| matches!(group.len(), 1..=4) && group.bytes().all(|byte| byte.is_ascii_digit());
    groups.next().is_some_and(is_number)
        && groups.next().is_some_and(is_number)
        && groups.next().is_some_and(begins_with_digit)
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`.
fn time_of_day(rest: &mut &str) -> Option<NaiveTime> {
    let hour = digits(rest, 2)?;
    let minute = mark(rest, b":").and_then(|()| digits(rest, 2))?;
    if mark(rest, b":").is_none() {
        return NaiveTime::from_hms_opt(hour, minute, 0);
    }
    let second = digits(rest, 2)?;
    if mark(rest, b".,").is_none() {
        return NaiveTime::from_hms_opt(hour, minute, second);
    }
    let n_digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let fraction = digits(rest, n_digits.min(9))?;
    *rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let nanoseconds = fraction * 10_u32.pow(9 - u32::try_from(n_digits.min(9)).ok()?);
    NaiveTime::from_hms_nano_opt(hour, minute, second, nanoseconds)
}

/// `Z`, `+HH:MM`, `+HHMM` or `+HH`.
fn offset(rest: &mut &str) -> Option<TimeDelta> {
    if mark(rest, b"Zz").is_some() {
        return Some(TimeDelta::zero());
    }
    let sign = if mark(rest, b"+").is_some() { 1 } else { mark(rest, b"-").map(|()| -1)? };
    let hours = digits(rest, 2)?;
    mark(rest, b":");
    let minutes = if rest.is_empty() { 0 } else { digits(rest, 2)? };
    (hours < 24 && minutes < 60).then(|| TimeDelta::minutes(sign * i64::from(hours * 60 + minutes)))
}

fn digits(rest: &mut &str, n: usize) -> Option<u32> {
    let (head, tail) = rest.split_at_checked(n)?;
    if n == 0 || !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    *rest = tail;
    head.parse().ok()
}

fn mark(rest: &mut &str, marks: &[u8]) -> Option<()> {
    let first = rest.as_bytes().first()?;
    marks.contains(first).then(|| *rest = &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America, Europe};
    use proptest::prelude::*;

    /// The instant that a text means in Madrid.
    fn check(text: &str, expected: Result<&str, Reason>) {
        let (_, stamp) = parse(text).expect("a time");
        let instant = stamp.expect("an accepted format").resolve(Europe::Madrid);
        let expected = expected.map(|t| t.parse::<DateTime<Utc>>().expect("an instant"));
        assert_eq!(instant, expected, "{text}");
    }

    #[test]
    fn iso_8601_is_read() {
        check("2024-05-01T10:00:00Z", Ok("2024-05-01T10:00:00Z"));
        check("2024-05-01 10:00:00+02:00", Ok("2024-05-01T08:00:00Z"));
        check("2024-05-01T10:00-0330", Ok("2024-05-01T13:30:00Z"));
        check("2024-05-01T10:00+01", Ok("2024-05-01T09:00:00Z"));
        check("2024-05-01 10:00", Ok("2024-05-01T08:00:00Z"));
        check(" 2024-01-01 10:00:00.250 ", Ok("2024-01-01T09:00:00.250Z"));
        check("2024-01-01T10:00:00.1234567899", Ok("2024-01-01T09:00:00.123456789Z"));
        check("2024-05-01", Ok("2024-04-30T22:00:00Z"));
        check("2024-05", Ok("2024-04-30T22:00:00Z"));
    }

    #[test]
    fn what_most_sources_have_goes_the_short_way() {
        for (text, expected) in [
            ("1970-01-01T00:00Z", Some((TimeFormat::Offset, 0))),
            ("1970-01-02 00:00:01Z", Some((TimeFormat::Offset, 86_401))),
            ("1969-12-31 23:59", Some((TimeFormat::Local, -60))),
            ("1970-01-01T01:00:00", Some((TimeFormat::Local, 3_600))),
            ("1970-01-01T01:00:00.5", None),
            ("1970-01-01T24:00", None),
            ("1970-02-30T00:00", None),
            ("1970-01-01T00:00ZZ", None),
            ("1970-01-01T00:00:0Z", None),
        ] {
            assert_eq!(Usual::default().parse(text), expected, "{text}");
        }
    }

    #[test]
    fn wall_times_around_clock_changes_are_told_apart() {
        check("2023-03-26 01:59", Ok("2023-03-26T00:59:00Z"));
        check("2023-03-26 02:00", Err(Reason::NonexistentLocalTime));
        check("2023-03-26 03:00", Ok("2023-03-26T01:00:00Z"));
        check("2023-10-29 02:30", Err(Reason::AmbiguousLocalTime));
        check("2023-10-29 03:00", Ok("2023-10-29T02:00:00Z"));
    }

    #[test]
    fn a_date_without_midnight_is_still_a_date() {
        let (_, stamp) = parse("2018-11-04").expect("a time");
        let start = stamp.expect("a date").resolve(America::Sao_Paulo).map(|t| t.to_rfc3339());
        assert_eq!(start.as_deref(), Ok("2018-11-04T03:00:00+00:00"));
    }

    #[test]
    fn formats_that_could_mean_two_instants_are_refused() {
        assert_eq!(parse("01/05/2024 10:00"), Some((TimeFormat::Slashed, None)));
        assert_eq!(parse("1.5.2024"), Some((TimeFormat::Slashed, None)));
        assert_eq!(parse("2024/05/01"), Some((TimeFormat::Slashed, None)));
        assert_eq!(parse("1714557600"), Some((TimeFormat::Number, None)));
        assert_eq!(parse("6611.115"), Some((TimeFormat::Number, None)));
    }

    #[test]
    fn other_text_is_no_time() {
        for text in [
            "",
            "total",
            "2024-13-01",
            "2024-02-30",
            "2024-05-01 25:00",
            "2024-05-01T10:00X",
            "2024-05-01T10:00:00.",
            "20é4-05",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// Texts of all formats, and such as are nearly of one.
    fn any_time() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{3,5}-[0-9]{1,2}(-[0-9]{1,2})?([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,12})?)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?",
            "[0-9]{1,4}[./-][0-9]{1,4}[./-][0-9]{1,4}.{0,3}",
            "[-+]?[0-9]{1,6}([.-][0-9]{1,3})?([eE][-+]?[0-9]{1,2})?",
            ".{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn what_begins_with_a_year_is_never_a_format_that_is_refused(text in any_time()) {
            let text = text.trim();
            prop_assert!(!begins_with_year(text) || refused(text).is_none(), "{}", text);
            // And nothing else is ever read.
            prop_assert!(begins_with_year(text) || parse(text).is_none_or(|(_, stamp)| stamp.is_none()), "{}", text);
        }

        #[test]
        fn rfc_3339_round_trips(seconds in 0_i64..4_000_000_000, offset_minutes in -14 * 60..14 * 60_i32) {
            let t = DateTime::from_timestamp(seconds, 0).expect("in range");
            let offset = chrono::FixedOffset::east_opt(offset_minutes * 60).expect("in range");
            let text = t.with_timezone(&offset).to_rfc3339();
            prop_assert_eq!(parse(&text), Some((TimeFormat::Offset, Some(Stamp::Instant(t)))));
        }

        #[test]
        fn the_short_way_gives_the_same_time(texts in prop::collection::vec(any_time(), 1..4)) {
            let mut usual = Usual::default();
            for text in texts {
                let Some((format, seconds)) = usual.parse(&text) else { continue };
                let wall_time = DateTime::from_timestamp(seconds, 0).expect("in range");
                let stamp = match format {
                    TimeFormat::Offset => Stamp::Instant(wall_time),
                    _ => Stamp::Local(wall_time.naive_utc()),
                };
                prop_assert_eq!(parse(&text), Some((format, Some(stamp))));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = parse(&text);
        }
    }
}
