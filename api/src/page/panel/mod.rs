//! The page of a panel: recent observations of one series, the fan of intervals, some trajectories, what earlier forecasts
//! said, and what a total, a mean or an extreme over some steps will be.

mod earlier;
mod html;
mod links;
pub mod look;
mod question;

use std::ops::Range;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, NaiveDateTime, Utc};
use chrono_tz::Tz;
use sqlx::PgPool;
use uuid::Uuid;

use self::{
    look::Look,
    question::{Answer, Question},
};
use super::{
    LISTED_MAX,
    chart::{Earlier, Fan, Path},
};
use crate::{
    Error, blocking, db,
    db::{
        DEFAULT_TENANT,
        forecast::{Forecast, Issued},
        panel::Panel,
        series::Series,
    },
    forecaster::{Grid, Warning},
    routes::{
        extract::{FromQuery, Parameters, Query},
        forecasts::{body::stored_warnings, stored::Stored},
        panels,
    },
    server::State,
};

/// Steps of observations before a forecast, as a multiple of its horizon and within these limits.
const OBSERVED_PER_HORIZON: i64 = 3;
const OBSERVED_MIN: i64 = 36;
const OBSERVED_MAX: i64 = 1_000;

/// Most forecasts that one can go back to.
pub const EARLIER_MAX: i64 = 50;

/// What the page shows.
pub struct PanelQuery {
    series: Option<String>,
    look: Look,
    question: Question,
}

impl FromQuery for PanelQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self {
            series: parameters.take("series")?,
            look: Look::from_query(parameters)?,
            question: Question::from_query(parameters)?,
        })
    }
}

/// Everything on the page.
struct View {
    panels: Vec<Panel>,
    panel: Panel,
    time_zone: Tz,
    series: Vec<Series>,
    /// The newest forecasts, the newest first.
    forecasts: Vec<Forecast>,
    /// Steps that the champion has learned; none where there is no champion.
    trained_horizon: Option<u64>,
    look: Look,
    shown: Option<ShownSeries>,
}

/// The series that is shown.
struct ShownSeries {
    series: Series,
    observed: Path,
    /// Where observations were looked for; none where there are none.
    observed_times: Option<Range<DateTime<Utc>>>,
    forecast: Option<ShownForecast>,
}

/// The forecast of the series that is shown.
struct ShownForecast {
    stored: Stored,
    /// Starts of the steps of the horizon, and the end of the last one.
    boundaries: Vec<DateTime<Utc>>,
    warnings: Vec<Warning>,
    fan: Fan,
    /// What earlier forecasts said, the latest first.
    earlier: Vec<Earlier>,
    /// Names of the series that the answer adds up.
    added_up: Vec<String>,
    answer: Answer,
}

impl ShownForecast {
    /// Steps of the horizon.
    fn horizon(&self) -> usize {
        usize::try_from(self.stored.forecast.horizon).unwrap_or(0)
    }

    fn placement(&self) -> Placement {
        let Forecast { issue_time, last_valid_time, .. } = self.stored.forecast;
        Placement { issue_time, horizon: self.horizon(), last_valid_time }
    }
}

/// `GET /panels/{panel}`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`], [`Error::UnknownSeries`], [`Error::UnknownForecast`]; those of the database.
pub async fn read(
    state: web::Data<State>,
    name: web::Path<String>,
    query: Query<PanelQuery>,
) -> Result<HttpResponse, Error> {
    let PanelQuery { series: wanted, look, question } = query.0;
    let panels = db::panel::list(&state.pool, DEFAULT_TENANT, None, LISTED_MAX).await?;
    let panel = panels::find(&state.pool, &name).await?;
    let grid = Grid::of(&panel)?;
    let series = db::series::list(&state.pool, DEFAULT_TENANT, panel.panel_id, None, LISTED_MAX).await?;
    let chosen = match wanted {
        Some(name) => {
            Some(series.iter().find(|series| series.name == name).ok_or(Error::UnknownSeries { series: name })?)
        }
        None => series.first(),
    };
    let forecast = choose(&state.pool, &panel, look.forecast).await?;
    let shown = match chosen {
        Some(series) => Some(show(&state.pool, grid, series.clone(), forecast, &look, question).await?),
        None => None,
    };
    let mut forecasts =
        db::forecast::list(&state.pool, DEFAULT_TENANT, Some(panel.panel_id), Issued::default(), None, EARLIER_MAX)
            .await?;
    // What somebody has supposed is not among what was forecast.
    forecasts.retain(|forecast| forecast.scenario.is_none());
    let champion = db::model::champion(&state.pool, DEFAULT_TENANT, panel.panel_id).await?;
    let trained_horizon = champion.and_then(|model| model.config["horizon"].as_u64());
    let view = View { panels, panel, time_zone: grid.time_zone, series, forecasts, trained_horizon, look, shown };
    Ok(super::respond(blocking::run("writing the page", move || html::page(&view)).await?))
}

/// The forecast of a panel that is looked at: the one that is named, or the latest.
///
/// # Errors
/// [`Error::UnknownForecast`] for a name that is none of the panel's; those of the database.
pub async fn choose(pool: &PgPool, panel: &Panel, named: Option<Uuid>) -> Result<Option<Forecast>, Error> {
    let Some(forecast_id) = named else {
        return Ok(db::forecast::latest(pool, DEFAULT_TENANT, panel.panel_id).await?);
    };
    let named = db::forecast::get(pool, DEFAULT_TENANT, forecast_id).await?;
    let of_panel = named.filter(|forecast| forecast.panel_id == panel.panel_id);
    of_panel.map(Some).ok_or_else(|| Error::UnknownForecast { forecast: forecast_id.to_string() })
}

async fn show(
    pool: &PgPool,
    grid: Grid,
    series: Series,
    forecast: Option<Forecast>,
    look: &Look,
    question: Question,
) -> Result<ShownSeries, Error> {
    let forecast = match forecast {
        Some(forecast) => read_forecast(pool, grid, forecast, &series, look, question).await?,
        None => None,
    };
    let placement = forecast.as_ref().map(ShownForecast::placement);
    let (observed_times, observed) = read_observed(pool, grid, &series, placement).await?;
    Ok(ShownSeries { series, observed, observed_times, forecast })
}

/// The forecast of one series, unless the series is newer than the forecast or its trajectories are gone.
async fn read_forecast(
    pool: &PgPool,
    grid: Grid,
    forecast: Forecast,
    series: &Series,
    look: &Look,
    question: Question,
) -> Result<Option<ShownForecast>, Error> {
    let mut stored = Stored::of(pool, forecast).await?;
    stored.series.retain(|one| one.series_id == series.series_id || question.adds_up(one, series));
    let Some(position) = stored.series.iter().position(|one| one.series_id == series.series_id) else {
        return Ok(None);
    };
    let trajectories = match stored.trajectories(pool).await {
        Ok(trajectories) => trajectories,
        Err(Error::NoTrajectories { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let earlier = earlier::read(pool, grid, &stored.forecast, series.series_id, look.n_earlier).await?;
    let valid_times = stored.valid_times()?.into_iter().map(|time| wall_time(grid, time)).collect();
    let (issue_time, kind) = (wall_time(grid, stored.forecast.issue_time), series.kind);
    let added_up = stored.series.iter().map(|series| series.name.clone()).collect();
    let drawn = look.drawn.clone();
    let (fan, answer) = blocking::run("summarising a forecast", move || {
        let answer = question.answer(kind, &trajectories)?;
        Ok::<_, Error>((Fan::of(issue_time, valid_times, &trajectories, position, &drawn)?, answer))
    })
    .await??;
    let (warnings, boundaries) = (stored_warnings(&stored.forecast)?, stored.boundaries()?);
    Ok(Some(ShownForecast { stored, boundaries, warnings, fan, earlier, added_up, answer }))
}

/// Where a forecast lies in time.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub issue_time: DateTime<Utc>,
    pub horizon: usize,
    pub last_valid_time: DateTime<Utc>,
}

/// The newest observations of a series, on the panel's grid: those before the forecast and what has come in since; and where
/// they are looked for.
///
/// # Errors
/// Those of the database.
pub async fn read_observed(
    pool: &PgPool,
    grid: Grid,
    series: &Series,
    forecast: Option<Placement>,
) -> Result<(Option<Range<DateTime<Utc>>>, Path), Error> {
    let times = observed_times(pool, grid, series, forecast).await?;
    let observed = match &times {
        Some(times) => read_between(pool, grid, series, times.clone()).await?,
        None => Path::default(),
    };
    Ok((times, observed))
}

/// Where they are looked for; none where there are none.
async fn observed_times(
    pool: &PgPool,
    grid: Grid,
    series: &Series,
    forecast: Option<Placement>,
) -> Result<Option<Range<DateTime<Utc>>>, Error> {
    Ok(match forecast {
        Some(Placement { issue_time, horizon, last_valid_time }) => {
            let horizon = i64::try_from(horizon).unwrap_or(OBSERVED_MAX);
            let n_steps = horizon.saturating_mul(OBSERVED_PER_HORIZON).clamp(OBSERVED_MIN, OBSERVED_MAX);
            Some(grid.advance(issue_time, -n_steps)..grid.advance(last_valid_time, 1))
        }
        None => {
            let newest = db::observation::newest_valid_time(pool, DEFAULT_TENANT, series.series_id).await?;
            newest.map(|newest| grid.advance(newest, -OBSERVED_MAX / 4)..grid.advance(newest, 1))
        }
    })
}

async fn read_between(pool: &PgPool, grid: Grid, series: &Series, times: Range<DateTime<Utc>>) -> Result<Path, Error> {
    let times = Some(times.start)..Some(times.end);
    let rows =
        db::observation::page(pool, DEFAULT_TENANT, &[series.series_id], None, times, None, 2 * OBSERVED_MAX).await?;
    Ok(on_grid(grid, rows.into_iter().map(|row| (row.valid_time, row.value))))
}

/// Observations with the gaps between them, so that a line breaks where nothing was measured.
fn on_grid(grid: Grid, observations: impl IntoIterator<Item = (DateTime<Utc>, f64)>) -> Path {
    let mut path = Path::default();
    let mut expected = None;
    for (valid_time, value) in observations {
        if let Some(gap) = expected.filter(|&expected| expected < valid_time) {
            path.valid_time.push(wall_time(grid, gap));
            path.value.push(None);
        }
        path.valid_time.push(wall_time(grid, valid_time));
        path.value.push(Some(value));
        expected = Some(grid.advance(valid_time, 1));
    }
    path
}

/// What a clock in the panel's zone shows.
#[must_use]
pub fn wall_time(grid: Grid, time: DateTime<Utc>) -> NaiveDateTime {
    time.with_timezone(&grid.time_zone).naive_local()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use ingest::Frequency;

    use super::*;

    #[test]
    fn a_gap_breaks_the_line_once() {
        let grid = Grid { frequency: Frequency::HOUR, time_zone: Tz::Europe__Madrid };
        let at = |hour| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
        let path = on_grid(grid, [(at(0), 1.0), (at(1), 2.0), (at(5), 3.0)]);
        assert_eq!(path.value, [Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(path.valid_time[2], at(3).naive_utc(), "an hour ahead of UTC");
    }
}
