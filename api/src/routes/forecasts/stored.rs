//! Reading a stored forecast, as far as a route needs it.

use chrono::{DateTime, Utc};
use forecast::Trajectories;
use sqlx::PgPool;
use uuid::Uuid;

use super::chosen::Chosen;
use crate::{
    Error, blocking, db,
    db::{
        DEFAULT_TENANT,
        forecast::{Forecast, SeriesTrajectories},
        model::Model,
        panel::Panel,
        series::Series,
    },
    forecaster::Grid,
};

/// A stored forecast with what it refers to, without its numbers.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The forecast.
    pub forecast: Forecast,
    /// The panel.
    pub panel: Panel,
    /// The model that made it; `None` for a fallback.
    pub model: Option<Model>,
    /// The series that were forecast, in their order.
    pub series: Vec<Series>,
}

impl Stored {
    /// Reads the forecast that a path names.
    ///
    /// # Errors
    /// [`Error::UnknownForecast`] when there is none, or the text is no identifier.
    pub async fn read(pool: &PgPool, identifier: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownForecast { forecast: identifier.to_owned() };
        let forecast_id = Uuid::try_parse(identifier).map_err(|_| unknown())?;
        let forecast = db::forecast::get(pool, DEFAULT_TENANT, forecast_id).await?.ok_or_else(unknown)?;
        Self::of(pool, forecast).await
    }

    /// Reads what a forecast refers to.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn of(pool: &PgPool, forecast: Forecast) -> Result<Self, Error> {
        let (panel, model) = references(pool, &forecast).await?;
        let series = db::forecast::series(pool, DEFAULT_TENANT, &forecast).await?;
        Ok(Self { forecast, panel, model, series })
    }

    /// Keeps only the series with these names; all of them when no name is given.
    ///
    /// # Errors
    /// [`Error::UnknownSeries`] for a name that the forecast does not have.
    pub fn select(&mut self, names: &[String]) -> Result<(), Error> {
        if let Some(name) = names.iter().find(|name| self.series.iter().all(|series| series.name != **name)) {
            return Err(Error::UnknownSeries { series: name.clone() });
        }
        if !names.is_empty() {
            self.series.retain(|series| names.contains(&series.name));
        }
        Ok(())
    }

    /// Keeps only the series that are chosen.
    ///
    /// # Errors
    /// [`Error::UnknownSeries`] for a name that the forecast does not have; when no series has what is asked for.
    pub fn choose(&mut self, chosen: &Chosen) -> Result<(), Error> {
        self.select(&chosen.names)?;
        chosen.keep(&mut self.series)
    }

    /// Start of each interval, from the first step on.
    ///
    /// # Errors
    /// When the panel's grid is not one that this build knows.
    pub fn valid_times(&self) -> Result<Vec<DateTime<Utc>>, Error> {
        let grid = Grid::of(&self.panel)?;
        let n_steps = i64::from(self.forecast.horizon - self.forecast.first_step);
        Ok((0..=n_steps).map(|step| grid.advance(self.forecast.first_valid_time, step)).collect())
    }

    /// Starts of the steps of the horizon, and the end of the last one.
    ///
    /// # Errors
    /// When the panel's grid is not one that this build knows.
    pub fn boundaries(&self) -> Result<Vec<DateTime<Utc>>, Error> {
        let grid = Grid::of(&self.panel)?;
        let (first, last) = (1 - self.forecast.first_step, self.forecast.horizon + 1 - self.forecast.first_step);
        let start = |step| grid.advance(self.forecast.first_valid_time, step);
        Ok((i64::from(first)..=i64::from(last)).map(start).collect())
    }

    /// Reads the trajectories of the selected series.
    ///
    /// # Errors
    /// [`Error::NoTrajectories`] when they have been removed.
    pub async fn trajectories(&self, pool: &PgPool) -> Result<Trajectories, Error> {
        let series_ids: Vec<i32> = self.series.iter().map(|series| series.series_id).collect();
        let rows = db::forecast::trajectories(pool, DEFAULT_TENANT, &self.forecast, Some(&series_ids)).await?;
        if rows.is_empty() || rows.len() < series_ids.len() {
            return Err(Error::NoTrajectories { forecast_id: self.forecast.forecast_id });
        }
        let first_step = self.forecast.first_step;
        blocking::run("reading trajectories", move || joint(first_step, &rows)).await?
    }
}

/// The panel and the model, if one made it, that a forecast refers to.
///
/// # Errors
/// Those of the database; both rows exist as long as the forecast does.
pub async fn references(pool: &PgPool, forecast: &Forecast) -> Result<(Panel, Option<Model>), Error> {
    let gone = || Error::internal("reading what a forecast refers to", "the row is gone");
    let panel = db::panel::get_by_id(pool, DEFAULT_TENANT, forecast.panel_id).await?.ok_or_else(gone)?;
    let model = match forecast.model_id {
        Some(model_id) => Some(db::model::get(pool, DEFAULT_TENANT, model_id).await?.ok_or_else(gone)?),
        None => None,
    };
    Ok((panel, model))
}

/// Puts the trajectories of single series, `[sample, step]`, together to joint ones, `[sample, step, series]`.
fn joint(first_step: i32, rows: &[SeriesTrajectories]) -> Result<Trajectories, Error> {
    let (n_samples, n_steps) = rows.first().map_or((0, 0), |row| (row.value.n_rows(), row.value.n_columns()));
    let mut values = Vec::with_capacity(n_samples * n_steps * rows.len());
    for element in 0..n_samples * n_steps {
        values.extend(rows.iter().filter_map(|row| row.value.values().get(element)));
    }
    Trajectories::new(n_samples, first_step, n_steps, rows.len(), values)
        .map_err(|error| Error::internal("reading trajectories", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::matrix::Matrix;

    #[test]
    fn a_sample_stays_one_draw_of_all_series() {
        let row = |series_id, values: Vec<f32>| SeriesTrajectories { series_id, value: Matrix::new(2, 2, values) };
        let rows = [row(1, vec![1.0, 2.0, 3.0, 4.0]), row(2, vec![10.0, 20.0, 30.0, 40.0])];
        let trajectories = joint(0, &rows).expect("the shapes agree");
        assert_eq!(trajectories.values(), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0]);
        assert_eq!((trajectories.first_step(), trajectories.n_samples(), trajectories.n_series()), (0, 2, 2));
    }

    #[test]
    fn series_of_different_shape_are_refused() {
        let rows = [
            SeriesTrajectories { series_id: 1, value: Matrix::new(1, 2, vec![1.0, 2.0]) },
            SeriesTrajectories { series_id: 2, value: Matrix::new(1, 1, vec![1.0]) },
        ];
        assert!(joint(1, &rows).is_err());
    }
}
