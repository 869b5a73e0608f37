//! A forecast as a picture outside of the page: in the terminal, or in a file for documents.

mod canvas;
pub mod fans;
mod png;
pub mod terminal;

use chrono::{DateTime, Utc};
use forecast::Trajectories;
use sqlx::PgPool;

use crate::{
    Error,
    db::{panel::Panel, series::Series},
    forecaster::Grid,
    page::{
        chart::{Drawn, Fan, Path, SeriesChart},
        panel::{Placement, read_observed, wall_time},
    },
};

/// Most series of one picture, unless more are named.
pub const SERIES_MAX: usize = 12;

/// A forecast, as far as pictures need it.
#[derive(Clone, Copy, Debug)]
pub struct Pictured<'a> {
    /// The panel.
    pub panel: &'a Panel,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Start of each interval.
    pub valid_times: &'a [DateTime<Utc>],
    /// The series of the trajectories.
    pub series: &'a [Series],
    /// The trajectories.
    pub trajectories: &'a Trajectories,
}

impl Pictured<'_> {
    /// What was observed of some of its series, before the forecast and since.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn observed(&self, pool: &PgPool, positions: &[usize]) -> Result<Vec<Path>, Error> {
        let grid = Grid::of(self.panel)?;
        let placement = self.valid_times.last().map(|&last_valid_time| Placement {
            issue_time: self.issue_time,
            horizon: self.trajectories.horizon(),
            last_valid_time,
        });
        let mut observed = Vec::with_capacity(positions.len());
        for &position in positions {
            observed.push(read_observed(pool, grid, &self.series[position], placement).await?.1);
        }
        Ok(observed)
    }

    /// Charts of the same series.
    ///
    /// # Errors
    /// When the panel's grid is not one that this build knows.
    pub fn charts(&self, positions: &[usize], observed: Vec<Path>, drawn: &Drawn) -> Result<Vec<SeriesChart>, Error> {
        let grid = Grid::of(self.panel)?;
        let chart = |(&position, observed): (&usize, Path)| {
            let Series { name, unit, .. } = &self.series[position];
            let valid_times = self.valid_times.iter().map(|&time| wall_time(grid, time)).collect();
            let issue_time = wall_time(grid, self.issue_time);
            let fan = Fan::of(issue_time, valid_times, self.trajectories, position, drawn)?;
            Ok(SeriesChart { name: name.clone(), unit: unit.clone(), observed, fan })
        };
        positions.iter().zip(observed).map(chart).collect()
    }
}
