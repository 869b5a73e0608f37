//! Which grid the stamps of a source lie on.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc, Weekday};
use chrono_tz::Tz;

use super::Label;
use crate::{Error, Frequency};

/// Share of the stamps that must lie on a grid. The others are rejected one by one.
const MIN_ON_GRID: f64 = 0.95;
/// Share of the grid's steps between the first and the last stamp that must have one. Below it the
/// source may as well be a coarser one with irregular stamps.
const MIN_FILLED: f64 = 0.5;
/// Fewer stamps say nothing: two are always regular.
const MIN_STAMPS: usize = 3;

const SECONDS: [u32; 27] = [
    43_200, 28_800, 21_600, 14_400, 10_800, 7_200, 3_600, 1_800, 1_200, 900, 720, 600, 480, 360, 300, 240, 180, 120,
    60, 30, 20, 15, 12, 10, 5, 2, 1,
];
const WEEKDAYS: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

impl Frequency {
    /// The coarsest grid that at least 95 % of the stamps lie on, each in a step of its own, and that they
    /// fill by more than half. Month, quarter and year grids accept last days as well as first days.
    ///
    /// `stamps` are sorted and distinct.
    ///
    /// # Errors
    /// [`Error::FrequencyNotClear`], with the candidates, when there are fewer than three stamps, no
    /// such grid, or two that explain the stamps equally well (a few weekdays in a row).
    pub fn infer(stamps: &[DateTime<Utc>], tz: Tz) -> Result<Frequency, Error> {
        let mut fits: Vec<(Frequency, i64)> = candidates()
            .filter_map(|frequency| Some((frequency, n_steps_if_fitting(frequency, stamps, tz)?)))
            .collect();
        fits.sort_by(|(a, _), (b, _)| b.mean_seconds().total_cmp(&a.mean_seconds()));
        let equally_good = fits.iter().take_while(|(_, n_steps)| *n_steps == fits[0].1);
        let mut candidates: Vec<_> = equally_good.map(|(frequency, _)| *frequency).collect();
        if let [frequency] = candidates[..]
            && stamps.len() >= MIN_STAMPS
        {
            return Ok(frequency);
        }
        if candidates.is_empty() {
            candidates.extend(most_common_step(stamps));
        }
        Err(Error::FrequencyNotClear { n_stamps: stamps.len(), candidates })
    }
}

fn candidates() -> impl Iterator<Item = Frequency> {
    [Frequency::Year, Frequency::Quarter, Frequency::Month]
        .into_iter()
        .chain(WEEKDAYS.map(|start| Frequency::Week { start }))
        .chain([Frequency::BusinessDay, Frequency::Day])
        .chain(SECONDS.into_iter().filter_map(Frequency::from_seconds))
}

/// Steps between the first and the last stamp, when the grid is a possible one. Stamps of one step
/// count once: the hours of the last day of a month are no months.
fn n_steps_if_fitting(frequency: Frequency, stamps: &[DateTime<Utc>], tz: Tz) -> Option<i64> {
    let (label, _) = best_label(frequency, stamps.iter().copied(), tz);
    let mut steps: Vec<i64> = stamps.iter().filter_map(|&t| frequency.place(t, label, tz)).collect();
    steps.dedup();
    let n_steps = steps.last()? - steps.first()? + 1;
    let n_filled = steps.len() as f64;
    (n_filled >= MIN_ON_GRID * stamps.len() as f64 && n_filled > MIN_FILLED * n_steps as f64).then_some(n_steps)
}

/// Whether stamps name the first or the last day of their intervals, and how many lie on the grid so.
pub(crate) fn best_label(
    frequency: Frequency,
    stamps: impl Iterator<Item = DateTime<Utc>> + Clone,
    tz: Tz,
) -> (Label, usize) {
    let count = |label| stamps.clone().filter(|&t| frequency.place(t, label, tz).is_some()).count();
    let (n_start, n_last_day) = (count(Label::Start), count(Label::LastDay));
    if n_last_day > n_start { (Label::LastDay, n_last_day) } else { (Label::Start, n_start) }
}

fn most_common_step(stamps: &[DateTime<Utc>]) -> Option<Frequency> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for pair in stamps.windows(2) {
        *counts.entry((pair[1] - pair[0]).num_seconds()).or_default() += 1;
    }
    let (&seconds, _) = counts.iter().max_by_key(|&(_, &n)| n)?;
    Frequency::from_seconds(u32::try_from(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use chrono_tz::Europe;
    use proptest::prelude::*;

    fn grid(name: &str, start: &str, n: i64, tz: Tz) -> Vec<DateTime<Utc>> {
        let frequency: Frequency = name.parse().expect("a frequency");
        let start = start.parse().expect("an instant");
        (0..n).map(|k| frequency.advance(start, k, tz)).collect()
    }

    fn inferred(stamps: &[DateTime<Utc>], tz: Tz) -> Result<String, Vec<String>> {
        match Frequency::infer(stamps, tz) {
            Ok(frequency) => Ok(frequency.to_string()),
            Err(Error::FrequencyNotClear { candidates, .. }) => {
                Err(candidates.iter().map(Frequency::to_string).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_whole_grid_is_recognised() {
        for name in ["1s", "30s", "5min", "15min", "30min", "1h", "6h", "1d", "1b", "1w", "1w-tue", "1mo", "1q", "1y"] {
            for tz in [Tz::UTC, Europe::Madrid] {
                let stamps = grid(name, "2023-01-02T00:00:00Z", 40, tz);
                assert_eq!(inferred(&stamps, tz).as_deref(), Ok(name));
            }
        }
    }

    #[test]
    fn gaps_and_a_stray_stamp_do_not_matter() {
        let mut stamps = grid("1h", "2023-01-02T00:00:00Z", 100, Tz::UTC);
        stamps.drain(20..45);
        stamps.push(stamps[74] + TimeDelta::minutes(7));
        assert_eq!(inferred(&stamps, Tz::UTC).as_deref(), Ok("1h"));
    }

    #[test]
    fn last_days_make_months() {
        let firsts = grid("1mo", "2023-01-01T00:00:00Z", 12, Tz::UTC);
        let last_days: Vec<_> = firsts.iter().map(|&t| t - TimeDelta::days(1)).collect();
        assert_eq!(inferred(&last_days, Tz::UTC).as_deref(), Ok("1mo"));
    }

    #[test]
    fn hours_of_the_last_day_of_a_month_are_hours() {
        let stamps = grid("1h", "1971-05-30T22:00:00Z", 24, Europe::Madrid);
        assert_eq!(inferred(&stamps, Europe::Madrid).as_deref(), Ok("1h"));
    }

    #[test]
    fn a_few_weekdays_could_be_days_or_business_days() {
        let stamps = grid("1d", "2024-03-04T00:00:00Z", 4, Tz::UTC);
        assert_eq!(inferred(&stamps, Tz::UTC), Err(vec!["1b".into(), "1d".into()]));
        let stamps = grid("1d", "2024-03-04T00:00:00Z", 7, Tz::UTC);
        assert_eq!(inferred(&stamps, Tz::UTC).as_deref(), Ok("1d"));
        let stamps = grid("1b", "2024-03-04T00:00:00Z", 6, Tz::UTC);
        assert_eq!(inferred(&stamps, Tz::UTC).as_deref(), Ok("1b"));
    }

    #[test]
    fn too_few_or_irregular_stamps_are_not_guessed() {
        assert_eq!(inferred(&[], Tz::UTC), Err(vec![]));
        assert_eq!(inferred(&grid("1h", "2024-03-04T01:00:00Z", 2, Tz::UTC), Tz::UTC), Err(vec!["1h".into()]));
        let sparse: Vec<_> = grid("1h", "2024-03-04T01:00:00Z", 300, Tz::UTC)
            .into_iter()
            .enumerate()
            .filter(|(k, _)| k % 24 < 8 && k % 168 < 100)
            .map(|(_, t)| t)
            .collect();
        assert_eq!(inferred(&sparse, Tz::UTC), Err(vec!["1h".into()]));
    }

    proptest! {
        #[test]
        fn a_shifted_piece_of_a_grid_keeps_its_frequency(start in 0_i64..2_000_000_000, n in 24_i64..200) {
            let start = DateTime::from_timestamp(start, 0).expect("in range");
            for frequency in [Frequency::HOUR, Frequency::Day, Frequency::BusinessDay, Frequency::Month] {
                let stamps: Vec<_> = (0..n).map(|k| frequency.advance(start, k, Europe::Madrid)).collect();
                prop_assert_eq!(Frequency::infer(&stamps, Europe::Madrid).ok(), Some(frequency));
            }
        }
    }
}
