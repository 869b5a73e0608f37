//! The page: recent observations, the fan of intervals, some trajectories.
//!
//! HTML is made here; the figures are drawn in the browser by Plotly, whose script the service brings along, so the
//! page works without any other host.

mod assets;
pub mod chart;
mod format;
mod template;

use actix_web::{HttpResponse, http::header, web};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use forecast::{Aggregate, Over, QuantileLevel, Trajectories, quantile_of_sorted};
use sqlx::PgPool;

pub use self::assets::asset;
use crate::{
    Error, blocking, db,
    db::{DEFAULT_TENANT, forecast::Forecast, panel::Panel, series::Series, words::Kind},
    forecaster::Grid,
    routes::{
        extract::{FromQuery, Parameters, Query},
        forecasts::stored::Stored,
        panels,
    },
    server::State,
};
use chart::{Band, Fan, Path};

/// Most panels and most series of a panel that the page lists.
const LISTED_MAX: i64 = 500;

/// Steps of observations before a forecast, as a multiple of its horizon and within these limits.
const OBSERVED_PER_HORIZON: i64 = 3;
const OBSERVED_MIN: i64 = 36;
const OBSERVED_MAX: i64 = 1_000;

/// Probabilities of the intervals in percent, widest first.
const INTERVALS: [u32; 3] = [90, 80, 50];

/// Nothing from another host; Plotly sets styles of its own and exports pictures through `blob:`.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'";

/// What the page shows.
pub struct PageQuery {
    panel: Option<String>,
    series: Option<String>,
}

impl FromQuery for PageQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self { panel: parameters.take("panel")?, series: parameters.take("series")? })
    }
}

/// Everything on the page.
struct View {
    panels: Vec<Panel>,
    chosen: Option<ChosenPanel>,
}

/// The panel that is shown.
struct ChosenPanel {
    panel: Panel,
    time_zone: Tz,
    series: Vec<Series>,
    shown: Option<ShownSeries>,
}

/// The series that is shown.
struct ShownSeries {
    series: Series,
    observed: Path,
    forecast: Option<ShownForecast>,
}

/// The latest forecast of the series that is shown.
struct ShownForecast {
    stored: Stored,
    fan: Fan,
    horizon: HorizonValue,
}

/// Total of a series over the horizon, or its mean where a total has no meaning.
struct HorizonValue {
    /// `total` or `mean`.
    word: &'static str,
    /// One number per trajectory.
    draws: Vec<f64>,
    /// The ends of the 90 % interval and the median between them.
    lower: f64,
    median: f64,
    upper: f64,
    /// What combining the quantiles of the single steps would give, which is wrong.
    of_quantiles: (f64, f64),
}

/// `GET /`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`], [`Error::UnknownSeries`]; those of the database.
pub async fn read(state: web::Data<State>, query: Query<PageQuery>) -> Result<HttpResponse, Error> {
    let panels = db::panel::list(&state.pool, DEFAULT_TENANT, None, LISTED_MAX).await?;
    let panel = match &query.0.panel {
        Some(name) => Some(panels::find(&state.pool, name).await?),
        None => panels.first().cloned(),
    };
    let chosen = match panel {
        Some(panel) => Some(choose(&state.pool, panel, query.0.series.as_deref()).await?),
        None => None,
    };
    let html =
        blocking::run("writing the page", move || template::page(&View { panels, chosen }).into_string()).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(html))
}

async fn choose(pool: &PgPool, panel: Panel, wanted: Option<&str>) -> Result<ChosenPanel, Error> {
    let grid = Grid::of(&panel)?;
    let series = db::series::list(pool, DEFAULT_TENANT, panel.panel_id, None, LISTED_MAX).await?;
    let shown = match wanted {
        Some(name) => {
            let unknown = || Error::UnknownSeries { series: name.to_owned() };
            Some(series.iter().find(|series| series.name == name).ok_or_else(unknown)?)
        }
        None => series.first(),
    };
    let shown = match shown {
        Some(series) => Some(show(pool, &panel, grid, series.clone()).await?),
        None => None,
    };
    Ok(ChosenPanel { panel, time_zone: grid.time_zone, series, shown })
}

async fn show(pool: &PgPool, panel: &Panel, grid: Grid, series: Series) -> Result<ShownSeries, Error> {
    let forecast = db::forecast::latest(pool, DEFAULT_TENANT, panel.panel_id).await?;
    let forecast = match forecast {
        Some(forecast) => read_forecast(pool, grid, &forecast, &series).await?,
        None => None,
    };
    let observed = read_observed(pool, grid, &series, forecast.as_ref()).await?;
    Ok(ShownSeries { series, observed, forecast })
}

/// The forecast of one series, unless the series is newer than the forecast or its trajectories are gone.
async fn read_forecast(
    pool: &PgPool,
    grid: Grid,
    forecast: &Forecast,
    series: &Series,
) -> Result<Option<ShownForecast>, Error> {
    let mut stored = Stored::read(pool, &forecast.forecast_id.to_string()).await?;
    stored.series.retain(|one| one.series_id == series.series_id);
    let trajectories = match stored.trajectories(pool).await {
        Ok(trajectories) if trajectories.n_series() == 1 => trajectories,
        Ok(_) | Err(Error::NoTrajectories { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let valid_times = stored.valid_times()?.into_iter().map(|time| wall_time(grid, time)).collect();
    let (issue_time, kind) = (wall_time(grid, stored.forecast.issue_time), series.kind);
    let (fan, horizon) = blocking::run("summarising a forecast", move || {
        Ok::<_, Error>((fan(issue_time, valid_times, &trajectories)?, horizon_value(kind, &trajectories)?))
    })
    .await??;
    Ok(Some(ShownForecast { stored, fan, horizon }))
}

fn fan(issue_time: NaiveDateTime, valid_times: Vec<NaiveDateTime>, trajectories: &Trajectories) -> Result<Fan, Error> {
    let at = |number| Ok::<_, Error>(trajectories.quantiles(&[level(number)?]));
    let band = |percent: u32| {
        let outside = (1.0 - f64::from(percent) / 100.0) / 2.0;
        Ok(Band { percent, lower: at(outside)?, upper: at(1.0 - outside)? })
    };
    let n_paths = chart::PATHS_SHOWN.min(trajectories.n_samples());
    let path =
        |sample| (0..trajectories.n_steps()).map(|step| f64::from(trajectories.value(sample, step, 0))).collect();
    Ok(Fan {
        issue_time,
        bands: INTERVALS.into_iter().map(band).collect::<Result<_, Error>>()?,
        median: at(0.5)?,
        paths: (0..n_paths).map(path).collect(),
        valid_time: valid_times,
    })
}

fn horizon_value(kind: Kind, trajectories: &Trajectories) -> Result<HorizonValue, Error> {
    let (word, function) = match kind {
        Kind::Sum => ("total", Aggregate::Sum),
        Kind::Mean | Kind::Point => ("mean", Aggregate::Mean),
    };
    let ends = [level(0.05)?, level(0.5)?, level(0.95)?];
    let draws = trajectories.aggregate(function, Over::Horizon).sorted(0, 0);
    let [lower, median, upper] = ends.map(|end| quantile_of_sorted(&draws, end));

    let horizon = trajectories.without_nowcasts();
    let divisor = if function == Aggregate::Sum { 1.0 } else { horizon.n_steps() as f64 };
    let combined = |end| horizon.quantiles(&[end]).iter().sum::<f64>() / divisor;
    let of_quantiles = (combined(ends[0]), combined(ends[2]));
    Ok(HorizonValue { word, draws: draws.into_iter().map(f64::from).collect(), lower, median, upper, of_quantiles })
}

fn level(number: f64) -> Result<QuantileLevel, Error> {
    QuantileLevel::new(number).map_err(|error| Error::internal("computing quantiles", error))
}

/// The newest observations, on the panel's grid: those before the forecast and what has come in since.
async fn read_observed(
    pool: &PgPool,
    grid: Grid,
    series: &Series,
    forecast: Option<&ShownForecast>,
) -> Result<Path, Error> {
    let newest = db::observation::newest_valid_time(pool, DEFAULT_TENANT, series.series_id).await?;
    let (from, until) = match (forecast.map(|shown| &shown.stored.forecast), newest) {
        (Some(forecast), _) => {
            let n_steps = (OBSERVED_PER_HORIZON * i64::from(forecast.horizon)).clamp(OBSERVED_MIN, OBSERVED_MAX);
            (grid.advance(forecast.issue_time, -n_steps), forecast.last_valid_time)
        }
        (None, Some(newest)) => (grid.advance(newest, -OBSERVED_MAX / 4), newest),
        (None, None) => return Ok(Path::default()),
    };
    let rows = db::observation::page(
        pool,
        DEFAULT_TENANT,
        &[series.series_id],
        None,
        Some(from)..Some(until + TimeDelta::microseconds(1)),
        None,
        2 * OBSERVED_MAX,
    )
    .await?;
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
fn wall_time(grid: Grid, time: DateTime<Utc>) -> NaiveDateTime {
    time.with_timezone(&grid.time_zone).naive_local()
}

#[cfg(test)]
mod tests {
    use ingest::Frequency;

    use super::*;

    fn trajectories() -> Trajectories {
        // Two steps that always cancel, in three trajectories.
        Trajectories::new(3, 1, 2, 1, vec![-1.0, 1.0, 0.0, 0.0, 1.0, -1.0]).expect("the shape is right")
    }

    #[test]
    fn a_gap_breaks_the_line_once() {
        let grid = Grid { frequency: Frequency::HOUR, time_zone: Tz::Europe__Madrid };
        let at = |hour| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
        let path = on_grid(grid, [(at(0), 1.0), (at(1), 2.0), (at(5), 3.0)]);
        assert_eq!(path.value, [Some(1.0), Some(2.0), None, Some(3.0)]);
        assert_eq!(path.valid_time[2], at(3).naive_utc(), "an hour ahead of UTC");
    }

    #[test]
    fn a_total_is_more_certain_than_its_steps_where_they_cancel() {
        let total = horizon_value(Kind::Sum, &trajectories()).expect("levels are in range");
        assert_eq!((total.word, total.lower, total.upper), ("total", 0.0, 0.0));
        assert!(total.of_quantiles.0 < -1.5 && total.of_quantiles.1 > 1.5, "{:?}", total.of_quantiles);
    }

    #[test]
    fn averages_are_averaged() {
        let mean = horizon_value(Kind::Mean, &trajectories()).expect("levels are in range");
        assert_eq!(mean.word, "mean");
        assert!(mean.of_quantiles.1 < 1.0);
    }

    #[test]
    fn the_fan_is_nested() {
        let fan =
            fan(NaiveDateTime::default(), vec![NaiveDateTime::default(); 2], &trajectories()).expect("levels in range");
        let widths: Vec<f64> = fan.bands.iter().map(|band| band.upper[0] - band.lower[0]).collect();
        assert!(widths.is_sorted_by(|wide, narrow| wide >= narrow), "{widths:?}");
        assert_eq!(fan.paths.len(), 3);
    }
}
