//! The names of the regular time grids, and which of their steps make a season.

use std::{fmt, num::NonZeroU32, str::FromStr};

use chrono::Weekday;

use crate::Error;

/// Seconds of a day without a clock change.
pub(crate) const DAY_SECONDS: u32 = 86_400;

/// The spacing of a regular time grid. Intervals of a day and longer follow the calendar of a time
/// zone: their length varies with clock changes, weekends and months.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frequency {
    /// Intervals of a fixed number of seconds that divides a day: `30s`, `15min`, `1h`, `6h`.
    Seconds(NonZeroU32),
    /// Calendar days.
    Day,
    /// Monday to Friday. Friday's interval lasts until Monday.
    BusinessDay,
    /// Weeks that begin on a given day of the week.
    Week {
        /// First day of the week.
        start: Weekday,
    },
    /// Calendar months.
    Month,
    /// Quarters from January, April, July and October.
    Quarter,
    /// Calendar years.
    Year,
}

impl Frequency {
    /// One hour.
    pub const HOUR: Frequency = Frequency::Seconds(NonZeroU32::new(3_600).expect("not zero"));

    /// Weeks from Monday.
    pub const WEEK: Frequency = Frequency::Week { start: Weekday::Mon };

    /// The frequency with intervals of so many seconds; a whole day counts as a calendar day.
    /// `None` when the number does not divide a day.
    pub fn from_seconds(seconds: u32) -> Option<Self> {
        match NonZeroU32::new(seconds)? {
            seconds if seconds.get() == DAY_SECONDS => Some(Frequency::Day),
            seconds if DAY_SECONDS.is_multiple_of(seconds.get()) => Some(Frequency::Seconds(seconds)),
            _ => None,
        }
    }

    /// Whether every interval lies within one day.
    pub(crate) fn is_within_days(self) -> bool {
        matches!(self, Frequency::Seconds(_) | Frequency::Day | Frequency::BusinessDay)
    }

    /// Season lengths in steps, shortest first: the day and the week below a day, the week for
    /// days, the year for weeks, months and quarters, none for years.
    pub fn seasons(&self) -> Vec<usize> {
        match self {
            Frequency::Seconds(seconds) => {
                let per_day = (DAY_SECONDS / seconds.get()) as usize;
                vec![per_day, 7 * per_day]
            }
            Frequency::Day => vec![7],
            Frequency::BusinessDay => vec![5],
            Frequency::Week { .. } => vec![52],
            Frequency::Month => vec![12],
            Frequency::Quarter => vec![4],
            Frequency::Year => vec![],
        }
    }

    /// The mean length of an interval in seconds, to order frequencies and to size limits.
    pub fn mean_seconds(&self) -> f64 {
        let day = f64::from(DAY_SECONDS);
        match self {
            Frequency::Seconds(seconds) => f64::from(seconds.get()),
            Frequency::Day => day,
            Frequency::BusinessDay => day * 7.0 / 5.0,
            Frequency::Week { .. } => day * 7.0,
            Frequency::Month => day * 365.2425 / 12.0,
            Frequency::Quarter => day * 365.2425 / 4.0,
            Frequency::Year => day * 365.2425,
        }
    }
}

/// The canonical name: `1h`, `15min`, `30s`, `1d`, `1b`, `1w` (from Monday), `1w-tue`, `1mo`, `1q`, `1y`.
impl fmt::Display for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frequency::Seconds(seconds) => match seconds.get() {
                seconds if seconds % 3_600 == 0 => write!(f, "{}h", seconds / 3_600),
                seconds if seconds % 60 == 0 => write!(f, "{}min", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
            Frequency::Day => f.write_str("1d"),
            Frequency::BusinessDay => f.write_str("1b"),
            Frequency::Week { start: Weekday::Mon } => f.write_str("1w"),
            Frequency::Week { start } => write!(f, "1w-{}", start.to_string().to_lowercase()),
            Frequency::Month => f.write_str("1mo"),
            Frequency::Quarter => f.write_str("1q"),
            Frequency::Year => f.write_str("1y"),
        }
    }
}

/// Reads the canonical names, those of pandas (`H`, `15T`, `D`, `B`, `W-TUE`, `MS`, `ME`, `QS`, `YE`),
/// of Polars (`15m`, `1mo`) and ISO 8601 durations (`PT1H`, `P1D`, `P1W`, `P1M`, `P3M`, `P1Y`).
/// Only `m` (minute) and `M` (month) depend on their case.
impl FromStr for Frequency {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text.trim()).ok_or_else(|| Error::FrequencyName { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Frequency> {
    if let Some(duration) = text.strip_prefix('P') {
        return parse_iso(duration);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = text.split_at(digits);
    let count: u32 = if count.is_empty() { 1 } else { count.parse().ok()? };
    let seconds_per_unit = match unit {
        "m" => 60,
        "M" => 0,
        _ => match unit.to_ascii_lowercase().as_str() {
            "h" | "hour" => 3_600,
            "min" | "t" => 60,
            "s" => 1,
            _ => 0,
        },
    };
    if seconds_per_unit > 0 {
        return Frequency::from_seconds(count.checked_mul(seconds_per_unit)?);
    }
    if count != 1 {
        return None;
    }
    match unit.to_ascii_lowercase().as_str() {
        "d" | "day" => Some(Frequency::Day),
        "b" => Some(Frequency::BusinessDay),
        "w" | "week" => Some(Frequency::WEEK),
        "m" | "mo" | "ms" | "me" | "month" => Some(Frequency::Month),
        "q" | "qs" | "qe" | "quarter" => Some(Frequency::Quarter),
        "y" | "ys" | "ye" | "a" | "as" | "year" => Some(Frequency::Year),
        weekly => {
            let start = weekly.strip_prefix("w-")?.parse().ok()?;
            Some(Frequency::Week { start })
        }
    }
}

fn parse_iso(duration: &str) -> Option<Frequency> {
    if let Some(time) = duration.strip_prefix('T') {
        let (count, unit) = time.split_at_checked(time.len().checked_sub(1)?)?;
        let seconds = match unit {
            "H" => 3_600,
            "M" => 60,
            "S" => 1,
            _ => return None,
        };
        return Frequency::from_seconds(count.parse::<u32>().ok()?.checked_mul(seconds)?);
    }
    match duration {
        "1D" => Some(Frequency::Day),
        "1W" => Some(Frequency::WEEK),
        "1M" => Some(Frequency::Month),
        "3M" => Some(Frequency::Quarter),
        "1Y" => Some(Frequency::Year),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: Option<&str>) {
        let parsed = text.parse::<Frequency>().ok();
        assert_eq!(parsed.map(|f| f.to_string()).as_deref(), canonical, "{text}");
    }

    #[test]
    fn the_usual_names_are_understood() {
        for (text, canonical) in [
            ("1h", "1h"),
            ("H", "1h"),
            ("60min", "1h"),
            ("15min", "15min"),
            ("15T", "15min"),
            ("30m", "30min"),
            ("30s", "30s"),
            ("24h", "1d"),
            ("D", "1d"),
            ("1d", "1d"),
            ("B", "1b"),
            ("W", "1w"),
            ("W-MON", "1w"),
            ("W-TUE", "1w-tue"),
            ("1w-tue", "1w-tue"),
            ("M", "1mo"),
            ("MS", "1mo"),
            ("ME", "1mo"),
            ("QS", "1q"),
            ("QE", "1q"),
            ("YS", "1y"),
            ("PT1H", "1h"),
            ("PT15M", "15min"),
            ("P1D", "1d"),
            ("P1W", "1w"),
            ("P1M", "1mo"),
            ("P3M", "1q"),
            ("P1Y", "1y"),
        ] {
            check(text, Some(canonical));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["", "P", "PT", "PTé", "7h", "2d", "0h", "1x", "-1h", "W-XYZ", "99999999h"] {
            check(text, None);
        }
    }

    #[test]
    fn a_canonical_name_reads_as_itself() {
        for name in ["30s", "5min", "1h", "6h", "1d", "1b", "1w", "1w-sun", "1mo", "1q", "1y"] {
            check(name, Some(name));
        }
    }

    #[test]
    fn seasons_are_counted_in_steps() {
        let seasons = |text: &str| text.parse::<Frequency>().expect("a frequency").seasons();
        assert_eq!(seasons("1h"), [24, 168]);
        assert_eq!(seasons("15min"), [96, 672]);
        assert_eq!(seasons("1b"), [5]);
        assert_eq!(seasons("1mo"), [12]);
        assert!(seasons("1y").is_empty());
    }
}
