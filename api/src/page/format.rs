//! Numbers, times and functions for people.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use forecast::Aggregate;

/// The functions that a question may name, and what people call them.
pub const FUNCTIONS: [(&str, Aggregate, &str); 4] = [
    ("sum", Aggregate::Sum, "total"),
    ("mean", Aggregate::Mean, "mean"),
    ("max", Aggregate::Max, "highest value"),
    ("min", Aggregate::Min, "lowest value"),
];

/// What the API and people call a function.
pub fn words(function: Aggregate) -> (&'static str, &'static str) {
    let known = FUNCTIONS.into_iter().find(|(_, one, _)| *one == function);
    known.map_or(("sum", "total"), |(name, _, word)| (name, word))
}

/// A word or sentence with a capital letter.
pub fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A number with four significant digits, or all digits before the point, in groups of three.
pub fn number(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = usize::try_from(3 - magnitude).unwrap_or(0).min(8);
    let digits = format!("{value:.decimals$}");
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));

    format!("{sign}{}{fraction}", grouped(whole))
}

/// A count, its digits in groups of three.
pub fn whole(count: i64) -> String {
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(&count.unsigned_abs().to_string()))
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// An instant as wall time, with the zone's abbreviation.
pub fn time(time: DateTime<Utc>, time_zone: Tz) -> String {
    time.with_timezone(&time_zone).format("%-d %B %Y, %H:%M %Z").to_string()
}

/// A share as percent, without decimals.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// How long ago something was, or how far ahead it is, in its largest unit.
pub fn age(age: TimeDelta) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let seconds = age.num_seconds();
    let magnitude = seconds.abs();
    let Some((length, unit)) = UNITS.into_iter().find(|(length, _)| magnitude >= 2 * length) else {
        return "now".to_owned();
    };
    let count = whole(magnitude / length);
    if seconds < 0 { format!("in {count} {unit}s") } else { format!("{count} {unit}s ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_come_in_their_largest_unit() {
        for (seconds, expected) in [
            (0, "now"),
            (1, "now"),
            (119, "119 seconds ago"),
            (121, "2 minutes ago"),
            (-7_200, "in 2 hours"),
            (86_400 * 1_000, "1,000 days ago"),
        ] {
            assert_eq!(age(TimeDelta::seconds(seconds)), expected);
        }
    }

    #[test]
    fn numbers_have_four_digits_that_matter() {
        for (value, expected) in [
            (0.0, "0.000"),
            (12.3456, "12.35"),
            (123_456.7, "123,457"),
            (-1_234.56, "-1,235"),
            (1e9, "1,000,000,000"),
            (-0.001_234_5, "-0.001234"),
            (1e-12, "0.00000000"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn counts_have_all_their_digits() {
        for (count, expected) in [(0, "0"), (-999, "-999"), (212_178, "212,178"), (-1_000, "-1,000")] {
            assert_eq!(whole(count), expected);
        }
    }

    #[test]
    fn times_are_those_of_the_zone() {
        assert_eq!(time(DateTime::UNIX_EPOCH, Tz::Europe__Madrid), "1 January 1970, 01:00 CET");
    }
}
