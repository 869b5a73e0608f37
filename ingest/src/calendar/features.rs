//! Periodic features of an instant: where it stands in the local day, week and year.
//!
//! Sine and cosine pairs, so that the features at any lead are a linear function of those at the
//! issue time. Where a period has an even number of steps, its highest harmonic has only a cosine.

use std::f64::consts::TAU;

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;

use super::{day_fraction, local};
use crate::{Frequency, Holidays, frequency::DAY_SECONDS, holidays};

/// How many harmonics of each period a frequency gets.
struct Harmonics {
    day: u32,
    week: u32,
    year: u32,
    /// One more harmonic of the year, as a cosine alone.
    year_cosine: bool,
}

fn harmonics(frequency: Frequency) -> Harmonics {
    let (day, week, year, year_cosine) = match frequency {
        Frequency::Seconds(seconds) => ((DAY_SECONDS / seconds.get() / 2).min(4), 3, 2, false),
        Frequency::Day | Frequency::BusinessDay => (0, 3, 3, false),
        Frequency::Week { .. } => (0, 0, 4, false),
        Frequency::Month => (0, 0, 5, true),
        Frequency::Quarter => (0, 0, 1, true),
        Frequency::Year => (0, 0, 0, false),
    };
    Harmonics { day, week, year, year_cosine }
}

/// Number of features of a step; 0 for years.
pub(crate) fn n_features(frequency: Frequency, holidays: Option<Holidays>) -> usize {
    let Harmonics { day, week, year, year_cosine } = harmonics(frequency);
    let n_of_holidays = if of_days(frequency, holidays).is_some() { holidays::N_FEATURES } else { 0 };
    2 * (day + week + year) as usize + usize::from(year_cosine) + n_of_holidays
}

/// The holidays, where there are any and a step lies within one day.
fn of_days(frequency: Frequency, holidays: Option<Holidays>) -> Option<Holidays> {
    holidays.filter(|&holidays| holidays != Holidays::NONE && frequency.is_within_days())
}

/// Appends the features of the interval that starts at `t`.
pub(crate) fn push_features(
    frequency: Frequency,
    t: DateTime<Utc>,
    tz: Tz,
    holidays: Option<Holidays>,
    features: &mut Vec<f64>,
) {
    let wall_time = local(t, tz);
    let date = wall_time.date();
    let day = day_fraction(wall_time);
    let week = (f64::from(date.weekday().num_days_from_monday()) + day) / 7.0;
    let year = match frequency {
        Frequency::Month | Frequency::Quarter | Frequency::Year => f64::from(date.month0()) / 12.0,
        _ => (f64::from(date.ordinal0()) + day) / if date.leap_year() { 366.0 } else { 365.0 },
    };

    let harmonics = harmonics(frequency);
    let periods = [(day, harmonics.day), (week, harmonics.week), (year, harmonics.year)];
    for (phase, n_harmonics) in periods {
        for harmonic in 1..=n_harmonics {
            let (sine, cosine) = (TAU * f64::from(harmonic) * phase).sin_cos();
            features.extend([sine, cosine]);
        }
    }
    if harmonics.year_cosine {
        features.push((TAU * f64::from(harmonics.year + 1) * year).cos());
    }
    // Last, so that they can be left out.
    if let Some(holidays) = of_days(frequency, holidays) {
        holidays.push_features(date, features);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Europe;

    fn features(name: &str, t: &str, tz: Tz) -> Vec<f64> {
        let mut features = Vec::new();
        let frequency = name.parse().expect("a frequency");
        push_features(frequency, t.parse().expect("an instant"), tz, None, &mut features);
        assert_eq!(features.len(), n_features(frequency, None));
        features
    }

    #[test]
    fn counts_follow_the_frequency() {
        for (name, n) in [("1h", 18), ("12h", 12), ("1d", 12), ("1b", 12), ("1w", 8), ("1mo", 11), ("1q", 3), ("1y", 0)]
        {
            assert_eq!(features(name, "2024-05-01T00:00:00Z", Tz::UTC).len(), n, "{name}");
        }
    }

    #[test]
    fn the_day_follows_the_wall_clock() {
        let winter = features("1h", "2024-01-15T05:00:00Z", Europe::Madrid);
        let summer = features("1h", "2024-07-15T04:00:00Z", Europe::Madrid);
        assert_eq!(winter[..8], summer[..8], "both are 6 o'clock in Madrid");
        assert!((winter[0] - 1.0).abs() < 1e-12, "a quarter of the day has passed");
    }

    #[test]
    fn holidays_are_those_of_the_local_day_and_come_last() {
        let holidays = Some("ES".parse().expect("a country"));
        let with = |name: &str, t: &str| {
            let mut features = Vec::new();
            let frequency = name.parse().expect("a frequency");
            push_features(frequency, t.parse().expect("an instant"), Europe::Madrid, holidays, &mut features);
            assert_eq!(features.len(), n_features(frequency, holidays));
            features
        };
        // New Year's Day in Madrid begins an hour before that of UTC.
        let (hour, t) = (with("1h", "2023-12-31T23:00:00Z"), "2023-12-31T23:00:00Z");
        assert_eq!((hour[..18].to_vec(), &hour[18..]), (features("1h", t, Europe::Madrid), &[1.0, 0.0, 0.0][..]));
        assert_eq!(with("1h", "2023-12-31T22:00:00Z")[18..], [0.0, 0.0, 1.0]);
        assert_eq!(with("1b", "2024-01-01T23:00:00Z")[12..], [0.0, 1.0, 0.0]);
        assert_eq!(with("1w", t), features("1w", t, Europe::Madrid), "a week has none");
    }

    #[test]
    fn months_turn_by_a_twelfth() {
        let january = features("1mo", "2023-01-01T00:00:00Z", Tz::UTC);
        let july = features("1mo", "2023-07-01T00:00:00Z", Tz::UTC);
        assert_eq!(january[..2], [0.0, 1.0]);
        assert!((july[1] + 1.0).abs() < 1e-12);
        assert_eq!(january[10], 1.0);
        let february = features("1mo", "2023-02-01T00:00:00Z", Tz::UTC);
        assert!((february[10] + 1.0).abs() < 1e-12);
    }
}
