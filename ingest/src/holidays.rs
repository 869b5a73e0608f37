//! Public holidays of a country, as a part of the calendar.

use std::{fmt, str::FromStr};

use chrono::{Days, NaiveDate};
use opening_hours::localization::Country;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The public holidays that all of a country has, written as its ISO 3166 code of two letters, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Holidays(Option<Country>);

/// Features of a step: whether its day, the day before it and the day after it are holidays.
pub(crate) const N_FEATURES: usize = 3;

/// How no holidays are written.
const NONE: &str = "none";

impl Holidays {
    /// No day is one.
    pub const NONE: Self = Self(None);

    /// Those of all countries that are known.
    pub(crate) fn of_all_countries() -> impl Iterator<Item = Self> {
        Country::ALL.into_iter().map(|country| Self(Some(country)))
    }

    /// Whether a day is one.
    #[must_use]
    pub fn contains(self, date: NaiveDate) -> bool {
        self.0.is_some_and(|country| country.holidays().get_public().contains(date))
    }

    /// Appends the features of a step on a day.
    pub(crate) fn push_features(self, date: NaiveDate, features: &mut Vec<f64>) {
        let days = [Some(date), date.checked_sub_days(Days::new(1)), date.checked_add_days(Days::new(1))];
        features.extend(days.map(|day| f64::from(u8::from(day.is_some_and(|day| self.contains(day))))));
    }
}

impl FromStr for Holidays {
    type Err = Error;

    /// The holidays of an ISO 3166 code of two letters, such as `ES`, or `none`.
    ///
    /// # Errors
    /// [`Error::UnknownCountry`] when no holidays are known of it.
    fn from_str(code: &str) -> Result<Self, Error> {
        if code.eq_ignore_ascii_case(NONE) {
            return Ok(Self::NONE);
        }
        let country: Result<Country, _> = code.to_ascii_uppercase().parse();
        country.map(|country| Self(Some(country))).map_err(|_| Error::UnknownCountry { code: code.to_owned() })
    }
}

impl TryFrom<String> for Holidays {
    type Error = Error;

    fn try_from(code: String) -> Result<Self, Error> {
        code.parse()
    }
}

impl From<Holidays> for String {
    fn from(holidays: Holidays) -> Self {
        holidays.to_string()
    }
}

impl fmt::Display for Holidays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or(NONE, |country| country.iso_code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i32, month: u32, day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(year, month, day).expect("a date")
    }

    #[test]
    fn fixed_and_moving_days_are_known_by_country() {
        let spain: Holidays = "es".parse().expect("a country");
        assert_eq!(spain.to_string(), "ES");
        // Epiphany, Good Friday, National Day; Boxing Day is none.
        for (day, expected) in [
            (date(2023, 1, 6), true),
            (date(2023, 4, 7), true),
            (date(2023, 10, 12), true),
            (date(2023, 12, 26), false),
        ] {
            assert_eq!(spain.contains(day), expected, "{day}");
        }
        assert!("AU".parse::<Holidays>().expect("a country").contains(date(2014, 12, 26)));
        let error = "Narnia".parse::<Holidays>().expect_err("no country").to_string();
        assert!(error.contains("Narnia") && error.contains("two letters"), "{error}");
        let none: Holidays = "none".parse().expect("none");
        assert_eq!((none, none.to_string().as_str()), (Holidays::NONE, "none"));
        assert!(!none.contains(date(2023, 12, 25)));
    }

    #[test]
    fn a_step_is_told_of_the_days_around_it() {
        let spain: Holidays = "ES".parse().expect("a country");
        let features = |day| {
            let mut features = vec![];
            spain.push_features(date(2023, 10, day), &mut features);
            features
        };
        assert_eq!([11, 12, 13, 14].map(features), [[0., 0., 1.], [1., 0., 0.], [0., 1., 0.], [0., 0., 0.]]);
    }
}
