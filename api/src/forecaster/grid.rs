//! A stored panel on its time grid.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use forecast::{Bounds, is_value};
use ingest::{Frequency, PanelConfig};

use crate::{
    Error,
    db::{observation::Observation, panel::Panel, series::Series},
};

/// A panel's time grid.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Spacing.
    pub frequency: Frequency,
    /// Zone in which days, weeks and months begin.
    pub time_zone: Tz,
}

impl Grid {
    /// The grid of a stored panel.
    ///
    /// # Errors
    /// [`Error::Internal`] when the database has a frequency or zone that this build does not know.
    pub fn of(panel: &Panel) -> Result<Self, Error> {
        Self::parse(&panel.frequency, &panel.time_zone)
    }

    /// The grid that a panel's frequency and time zone make.
    ///
    /// # Errors
    /// As [`Grid::of`].
    pub fn parse(frequency: &str, time_zone: &str) -> Result<Self, Error> {
        let frequency =
            frequency.parse().map_err(|error: ingest::Error| Error::internal("reading a frequency", error))?;
        let time_zone =
            time_zone.parse().map_err(|error: chrono_tz::ParseError| Error::internal("reading a zone", error))?;
        Ok(Self { frequency, time_zone })
    }

    /// The start of the interval `n_steps` after the one that holds `time`.
    #[must_use]
    pub fn advance(&self, time: DateTime<Utc>, n_steps: i64) -> DateTime<Utc> {
        self.frequency.advance(time, n_steps, self.time_zone)
    }
}

/// The panel as it was known at the issue time, with the versions of each value that are given.
///
/// # Errors
/// [`Error::Internal`] when the stored observations do not fit the grid.
pub fn known_panel(
    panel: &Panel,
    grid: Grid,
    series: &[Series],
    observations: &[Observation],
) -> Result<ingest::Panel, Error> {
    let bounds = series.iter().map(|series| Bounds { lower: series.lower_bound, upper: series.upper_bound }).collect();
    let holidays = panel.holidays.as_deref().map(str::parse).transpose();
    let holidays = holidays.map_err(|error: ingest::Error| Error::internal("reading a country", error))?;
    let config = PanelConfig {
        name: panel.name.clone(),
        frequency: grid.frequency,
        time_zone: grid.time_zone,
        publication_delay: panel.publication_delay,
        bounds,
        roles: series.iter().map(|series| series.role.into()).collect(),
        holidays,
    };
    let names = series.iter().map(|series| series.name.clone()).collect();
    // What nobody would load any more counts as not observed.
    let observations = observations.iter().filter(|observation| is_value(observation.value));
    let observations = observations.map(|observation| ingest::Observation {
        // Positions count from 1, columns from 0.
        series: observation.position.unsigned_abs() as usize - 1,
        valid_time: observation.valid_time,
        available_at: Some(observation.available_at),
        value: observation.value,
        sd: observation.sd,
    });
    ingest::Panel::from_observations(config, names, observations)
        .map_err(|error| Error::internal("laying observations on the grid", error))
}
