//! Which country's public holidays the unusual days of some series are.
//!
//! How unusual a day is for a series is said by its *anomaly*: its mean less the median of those of the same weekday one and two weeks
//! before and after, over the usual size of such differences, cut at 4. To give the `n` holidays of a country, with a mean anomaly `m`,
//! a level of their own makes the anomalies likelier by
//!
//! ```text
//! gain = n (m² / (2 v) − price)      nats; v: mean square of all anomalies
//! ```
//!
//! in the mean over the series. The price is for every day: of countries that explain about as much, the one is taken whose holidays are
//! unusual days and little else. With more than a hundred countries some gain is always found, so it is compared with what the same
//! holidays gain where they are none: moved by whole weeks, up to 99 times, and never to where they are nearly the same again a year
//! later. That leaves the anomalies as they are, however heavy their tails and however long they last.

use std::fmt;

use chrono::{NaiveDate, TimeDelta};
use forecast::Grid;
use serde::Serialize;

use crate::Holidays;

/// Gain below which holidays are not worth telling of, nats.
const GAIN_MIN: f64 = 2.0;
/// What a holiday has to gain, nats.
const PRICE: f64 = 0.15;
/// Fewest moves: fewer leave too much to chance.
const N_MOVES_MIN: usize = 50;
/// Most moves.
const N_MOVES_MAX: usize = 99;
/// Fewest holidays of a country.
const N_HOLIDAYS_MIN: usize = 5;
/// Series that are looked at, evenly spread over all.
const N_SERIES_MAX: usize = 100;
/// Largest anomaly.
const ANOMALY_MAX: f64 = 4.0;
/// Days that a move stays away from a year, or none.
const DAYS_FROM_A_YEAR: f64 = 21.0;
/// Days from a day to those that it is compared with.
const COMPARED: [i64; 4] = [-14, -7, 7, 14];
/// The median distance from 0 of a Gaussian, in standard deviations.
const MEDIAN_OF_GAUSSIAN: f64 = 0.6745;

/// The holidays that unusual days are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FoundHolidays {
    /// Whose.
    pub holidays: Holidays,
    /// What they gain, nats for each series.
    pub gain: f64,
    /// The most that any country gained with its holidays moved.
    pub chance_gain: f64,
    /// How many of them can be compared with the days around.
    pub n_days: usize,
}

impl fmt::Display for FoundHolidays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holidays, gain, chance_gain, n_days } = self;
        write!(
            f,
            "the model is told of public holidays of {holidays}: {n_days} days that are unlike others ({gain:.1} nats, by chance up \
             to {chance_gain:.1})"
        )
    }
}

/// The country with the largest gain for some columns, where that is no chance; `dates` are those of the rows that are looked at.
pub(crate) fn find(values: &Grid, columns: &[usize], dates: &[NaiveDate]) -> Option<FoundHolidays> {
    let days = Days::new(values, columns, dates)?;
    let moves = moves(days.n_days());
    if moves.len() < N_MOVES_MIN {
        return None;
    }
    let countries: Vec<(Holidays, Vec<usize>)> = Holidays::of_all_countries()
        .map(|holidays| (holidays, days.of(holidays)))
        .filter(|(_, of_country)| of_country.len() >= N_HOLIDAYS_MIN)
        .collect();
    let gains = countries.iter().map(|(holidays, of_country)| (days.gain(of_country, 0), *holidays, of_country.len()));
    let (gain, holidays, n_days) = gains.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    if gain < GAIN_MIN {
        return None;
    }
    let by_chance = countries.iter().flat_map(|(_, of_country)| moves.iter().map(|&by| days.gain(of_country, by)));
    let chance_gain = by_chance.fold(0.0, f64::max);
    (gain > chance_gain).then_some(FoundHolidays { holidays, gain, chance_gain, n_days })
}

/// By how many days holidays are moved: whole weeks, evenly spread. What passes the end goes on from the beginning, which moves it
/// back by the rest of the days.
fn moves(n_days: usize) -> Vec<usize> {
    let is_away = |by: usize| {
        let in_year = by as f64 % 365.25;
        in_year.min(365.25 - in_year) > DAYS_FROM_A_YEAR
    };
    let all: Vec<usize> = (0..n_days).step_by(7).filter(|&by| is_away(by) && is_away(n_days - by)).collect();
    let n = all.len().min(N_MOVES_MAX);
    (0..n).map(|nth| all[nth * all.len() / n]).collect()
}

/// Anomalies of whole weeks of days.
struct Days {
    first: NaiveDate,
    n_series: usize,
    /// `[day, series]`, mean square 1 for each series; `NaN` where a day cannot be compared.
    anomalies: Vec<f64>,
}

impl Days {
    /// `None` without a series that is ever unlike the weeks around.
    fn new(values: &Grid, columns: &[usize], dates: &[NaiveDate]) -> Option<Self> {
        let start = *dates.iter().min()?;
        let day = |date: &NaiveDate| usize::try_from((*date - start).num_days()).unwrap_or(0);
        let days: Vec<usize> = dates.iter().map(day).collect();
        // The last row need not have the last date: a clock that is put back at midnight repeats an hour of the day before.
        let n_all = days.iter().max()? + 1;
        let n_skipped = n_all % 7;
        let stride = columns.len().div_ceil(N_SERIES_MAX).max(1);
        let columns = columns.iter().step_by(stride);
        let series: Vec<Vec<f64>> =
            columns.filter_map(|&column| anomalies(&means(values, column, &days, n_all))).collect();
        let n_series = series.len();
        let first = start + TimeDelta::days(n_skipped as i64);
        let anomalies = (n_skipped..n_all).flat_map(|day| series.iter().map(move |series| series[day])).collect();
        (n_series > 0).then_some(Self { first, n_series, anomalies })
    }

    fn n_days(&self) -> usize {
        self.anomalies.len() / self.n_series
    }

    /// Which of the days that can be compared are holidays.
    fn of(&self, holidays: Holidays) -> Vec<usize> {
        let days = self.anomalies.chunks_exact(self.n_series).enumerate();
        let known = days.filter(|(_, anomalies)| anomalies.iter().any(|anomaly| !anomaly.is_nan())).map(|(day, _)| day);
        known.filter(|&day| holidays.contains(self.first + TimeDelta::days(day as i64))).collect()
    }

    /// What a level of their own gains for some days, moved by so many and from the end on to the beginning.
    fn gain(&self, days: &[usize], moved_by: usize) -> f64 {
        let mut sums = vec![(0.0, 0.0); self.n_series];
        for day in days {
            let first = (day + moved_by) % self.n_days() * self.n_series;
            for ((sum, n), anomaly) in sums.iter_mut().zip(&self.anomalies[first..first + self.n_series]) {
                if !anomaly.is_nan() {
                    *sum += anomaly;
                    *n += 1.0;
                }
            }
        }
        let total: f64 = sums.iter().filter(|(_, n)| *n > 0.0).map(|(sum, n)| sum * sum / (2.0 * n)).sum();
        total / self.n_series as f64 - PRICE * days.len() as f64
    }
}

/// The mean of each day of a series; `NaN` where less than half of what a day may have is known.
fn means(values: &Grid, column: usize, days: &[usize], n_days: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0_usize); n_days];
    for (row, &day) in days.iter().enumerate() {
        let value = values.get(row, column);
        if !value.is_nan() {
            sums[day].0 += value;
            sums[day].1 += 1;
        }
    }
    let n_whole = sums.iter().map(|(_, n)| *n).max().unwrap_or(0);
    sums.into_iter().map(|(sum, n)| if n > 0 && 2 * n >= n_whole { sum / n as f64 } else { f64::NAN }).collect()
}

/// The anomalies of a series, with a mean square of 1; none where it is mostly like the weeks around.
fn anomalies(means: &[f64]) -> Option<Vec<f64>> {
    let difference = |(day, mean): (usize, &f64)| {
        let other = |away: &i64| usize::try_from(day as i64 + away).ok().and_then(|other| means.get(other));
        let mut others: Vec<f64> = COMPARED.iter().filter_map(other).copied().filter(|mean| !mean.is_nan()).collect();
        if others.len() < 2 { f64::NAN } else { mean - median(&mut others) }
    };
    let differences: Vec<f64> = means.iter().enumerate().map(difference).collect();
    let known = || differences.iter().copied().filter(|difference| !difference.is_nan());
    let mut sizes: Vec<f64> = known().map(f64::abs).collect();
    if sizes.is_empty() {
        return None;
    }
    let usual = median(&mut sizes) / MEDIAN_OF_GAUSSIAN;
    if usual <= 0.0 {
        return None;
    }
    let cut = |difference: f64| (difference / usual).clamp(-ANOMALY_MAX, ANOMALY_MAX);
    let mean_square = known().map(|difference| cut(difference).powi(2)).sum::<f64>() / sizes.len() as f64;
    Some(differences.into_iter().map(|difference| cut(difference) / mean_square.sqrt()).collect())
}

/// The median of some numbers, at least one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

#[cfg(test)]
mod tests {
    use chrono::Datelike;
    use forecast::noise::Stream;

    use super::*;

    const START: NaiveDate = NaiveDate::from_ymd_opt(2018, 3, 1).expect("a date");

    /// Days of two series with a week and an autoregressive disturbance, other on the holidays of a country.
    fn days(n: usize, holidays: Holidays, effect: f64, seed: u64) -> Grid {
        let mut stream = Stream::new(seed, 0);
        let mut state = [0.0; 2];
        let rows = (0..n).flat_map(|day| {
            let is_holiday = holidays.contains(START + TimeDelta::days(day as i64));
            let week = if day % 7 < 5 { 10.0 } else { 0.0 };
            for state in &mut state {
                *state = 0.6 * *state + stream.normal();
            }
            state.map(|state| 50.0 + week + state - if is_holiday { effect } else { 0.0 })
        });
        grid(2, rows.collect())
    }

    fn grid(n_series: usize, values: Vec<f64>) -> Grid {
        Grid::new(n_series, values).expect("whole rows")
    }

    fn found(values: &Grid) -> Option<FoundHolidays> {
        let dates: Vec<NaiveDate> = (0..values.n_steps()).map(|row| START + TimeDelta::days(row as i64)).collect();
        find(values, &(0..values.n_series()).collect::<Vec<_>>(), &dates)
    }

    #[test]
    fn the_country_is_found_whose_holidays_are_unusual() {
        for code in ["ES", "AU", "US", "DE"] {
            let holidays: Holidays = code.parse().expect("a country");
            let found = found(&days(1200, holidays, 3.0, 1)).expect("holidays");
            assert_eq!(found.holidays, holidays, "{found:?}");
            assert!(found.gain > 2.0 * found.chance_gain && found.n_days > 20, "{found:?}");
        }
    }

    #[test]
    fn without_an_effect_or_enough_days_none_is_found() {
        let spain: Holidays = "ES".parse().expect("a country");
        let n_found = (0..40).filter(|&seed| found(&days(1200, spain, 0.0, seed)).is_some()).count();
        assert!(n_found <= 2, "{n_found}");
        assert_eq!(found(&days(300, spain, 3.0, 1)), None);
        assert_eq!(found(&grid(1, vec![1.0; 1200])), None);
        assert_eq!(found(&grid(1, vec![f64::NAN; 1200])), None);
        assert_eq!(found(&grid(1, vec![])), None);
    }

    #[test]
    fn what_happens_on_other_days_is_no_holiday() {
        // A works holiday of three weeks each August, which is more unusual than any public one.
        let is_away = |day: usize| (213..234).contains(&(START + TimeDelta::days(day as i64)).ordinal0());
        let values = days(1400, Holidays::NONE, 0.0, 3);
        let values = values
            .values()
            .iter()
            .enumerate()
            .map(|(index, value)| value - if is_away(index / 2) { 20.0 } else { 0.0 });
        assert_eq!(found(&grid(2, values.collect())), None);
    }

    #[test]
    fn a_clock_that_goes_back_at_midnight_is_read() {
        let days = (0..1200).map(|row| START + TimeDelta::days(row)).collect::<Vec<_>>();
        let dates = days.iter().copied().chain([days[1199] - TimeDelta::days(1)]).collect::<Vec<_>>();
        let values = grid(1, (0..1201).map(|row| f64::from(row % 7) + 0.01 * f64::from(row * 7919 % 101)).collect());
        assert_eq!(find(&values, &[0], &dates), None);
    }

    #[test]
    fn no_move_takes_a_holiday_to_where_it_is_a_year_later() {
        for n_days in [600, 910, 1197, 2002] {
            let moved = moves(n_days / 7 * 7);
            assert!(moved.len() >= 50, "{n_days}: {}", moved.len());
            assert!(!moved.iter().any(|by| [364, 371].contains(by) || [364, 371].contains(&(n_days / 7 * 7 - by))));
        }
    }
}
