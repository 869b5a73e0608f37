//! `GET /v1/forecasts/{id}/plot`: a forecast as a picture.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use chrono::{DateTime, Utc};
use forecast::Trajectories;

use super::stored::Stored;
use crate::{
    Error, blocking,
    page::{chart::Drawn, panel::look},
    plot::{self, Pictured, SERIES_MAX},
    routes::{
        extract::{FromQuery, Parameters, Query},
        respond,
    },
    server::State,
};

const SVG: &str = "image/svg+xml";
const PNG: &str = "image/png";

/// What is drawn, and how.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct PlotParameters {
    /// Name of a series; may be given several times, at most 12. Default: all.
    series: Option<Vec<String>>,
    /// Central intervals in percent, separated by commas; at most 5.
    #[param(example = "90,50", default = "90,80,50")]
    level: Option<String>,
    /// Draw the first so many trajectories. They are equally likely, so this is a fair choice.
    #[param(maximum = 1000, default = 20)]
    samples: Option<usize>,
    /// Number of a trajectory that stands out, from 1.
    #[param(minimum = 1)]
    highlight: Option<usize>,
    /// `svg` or `png`, for clients that cannot set `Accept`.
    format: Option<String>,
}

/// The parameters, read.
pub struct PlotQuery {
    series: Vec<String>,
    drawn: Drawn,
    format: Option<Format>,
}

impl FromQuery for PlotQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self {
            series: parameters.take_all("series"),
            drawn: look::take_drawn(parameters, "level", "samples", "highlight")?,
            format: parameters.take_parsed("format", "`svg` or `png`", Format::named)?,
        })
    }
}

/// The media types that pictures come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn named(word: &str) -> Option<Self> {
        match word {
            "svg" => Some(Self::Svg),
            "png" => Some(Self::Png),
            _ => None,
        }
    }

    /// What the client prefers: the first type of its `Accept` that is on offer; SVG when it names none.
    fn wanted(request: &HttpRequest) -> Result<Self, Error> {
        respond::accepted(request, Self::Svg, |media_type| match media_type {
            PNG => Some(Self::Png),
            SVG | "image/*" | "*/*" => Some(Self::Svg),
            _ => None,
        })
    }
}

/// Draw a forecast
///
/// A fan for each series, one below the other, after what was observed before the forecast and since.
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}/plot", operation_id = "plotForecast",
    tag = "forecasts",
    params(("forecast_id" = uuid::Uuid, Path, description = "Identifier of the forecast"), PlotParameters),
    responses(
        (status = 200, description = "The picture", content((String = "image/svg+xml"), (Vec<u8> = "image/png"))),
        (status = 400, description = "A parameter is wrong, or too much is to be drawn"),
        (status = 404, description = "No such forecast or series"),
        (status = 406, description = "No format on offer is accepted"),
    )
)]
pub async fn read(
    request: HttpRequest,
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<PlotQuery>,
) -> Result<HttpResponse, Error> {
    let PlotQuery { series, drawn, format } = query.0;
    let format = match format {
        Some(format) => format,
        None => Format::wanted(&request)?,
    };
    let mut stored = Stored::read(&state.pool, &path).await?;
    stored.select(&series)?;
    let (n_series, valid_times) = (stored.series.len(), stored.valid_times()?);
    if n_series > SERIES_MAX {
        let message = format!("name at most {SERIES_MAX} of the forecast's {n_series} series");
        return Err(Error::invalid_parameter("series", "too-many-series", message));
    }
    let n_points = (drawn.n_paths.min(usize::try_from(stored.forecast.num_samples).unwrap_or(0))
        * valid_times.len()
        * n_series) as u64;
    if n_points > state.limits.cost_max {
        let message = format!("asks for {n_points} points; a picture has at most {}", state.limits.cost_max);
        return Err(Error::invalid_parameter("samples", "too-many-points", message));
    }
    let trajectories = stored.trajectories(&state.pool).await?;
    let positions: Vec<usize> = (0..n_series).collect();
    let forecast_id = stored.forecast.forecast_id;
    let observed = pictured(&stored, &valid_times, &trajectories).observed(&state.pool, &positions).await?;
    let picture = blocking::run("drawing a forecast", move || {
        let charts = pictured(&stored, &valid_times, &trajectories).charts(&positions, observed, &drawn)?;
        let failed = |error: String| Error::internal("drawing a forecast", error);
        let time_zone = &stored.panel.time_zone;
        match format {
            Format::Svg => Ok((SVG, "svg", plot::fans::svg(&charts, time_zone).map_err(failed)?.into_bytes())),
            Format::Png => Ok::<_, Error>((PNG, "png", plot::fans::png(&charts, time_zone).map_err(failed)?)),
        }
    });
    let (media_type, extension, bytes) = picture.await??;
    Ok(HttpResponse::Ok()
        .content_type(media_type)
        .insert_header((header::CONTENT_DISPOSITION, format!("inline; filename=\"{forecast_id}.{extension}\"")))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::VARY, "accept"))
        .body(bytes))
}

fn pictured<'a>(stored: &'a Stored, valid_times: &'a [DateTime<Utc>], trajectories: &'a Trajectories) -> Pictured<'a> {
    let Stored { panel, series, forecast, .. } = stored;
    Pictured { panel, issue_time: forecast.issue_time, valid_times, series, trajectories }
}
