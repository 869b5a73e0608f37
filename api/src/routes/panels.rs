//! Panels and their series.

use actix_web::web;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sqlx::PgPool;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query},
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT, panel::Panel, series::Series},
    server::State,
};

pub use crate::registry::find_panel as find;

/// The identifier of the panel that a request names, if it names one.
///
/// # Errors
/// [`Error::UnknownPanel`].
pub async fn find_id(pool: &PgPool, name: Option<&str>) -> Result<Option<i32>, Error> {
    match name {
        Some(name) => Ok(Some(find(pool, name).await?.panel_id)),
        None => Ok(None),
    }
}

/// Rows of a page, unless the request says otherwise.
const PAGE_ROWS_DEFAULT: usize = 100;

/// Rows of a page of what belongs to panels, unless the request says otherwise.
const ROWS_OF_PANELS_DEFAULT: usize = 50;

/// Which page of a list that may be of one panel; `K` is where the page before ended.
pub struct OfPanelQuery<K> {
    /// Name of the panel; `None` stands for all.
    pub panel: Option<String>,
    /// Most rows of the page.
    pub limit: usize,
    /// The last row of the page before.
    pub cursor: Option<K>,
}

impl<K: DeserializeOwned> FromQuery for OfPanelQuery<K> {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self {
            panel: parameters.take("panel")?,
            limit: parameters.take_limit(ROWS_OF_PANELS_DEFAULT)?,
            cursor: cursor::take(parameters)?,
        })
    }
}

/// Which page.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct PageParameters {
    /// Most rows of the page.
    #[param(minimum = 1, default = 100)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters of a list of panels, read.
pub struct PanelsQuery {
    limit: usize,
    cursor: Option<String>,
}

impl FromQuery for PanelsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self { limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?, cursor: cursor::take(parameters)? })
    }
}

/// A group of series on one regular time grid, modelled jointly.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PanelBody {
    /// Its name.
    #[schema(example = "valencia")]
    pub name: String,
    /// Length of a step.
    #[schema(example = "1h")]
    pub frequency: String,
    /// IANA name of the zone in which days, weeks and months begin.
    #[schema(example = "Europe/Madrid")]
    pub time_zone: String,
    /// How long after the end of its interval a value is usually known, in seconds.
    #[schema(example = 0)]
    pub publication_delay_seconds: f64,
    /// Country whose public holidays models are told of, an ISO 3166 code of two letters, or `none`; null where a training may find it.
    #[schema(example = "ES")]
    pub holidays: Option<String>,
    /// When it was first loaded.
    pub created_at: DateTime<Utc>,
}

impl From<Panel> for PanelBody {
    fn from(panel: Panel) -> Self {
        Self {
            name: panel.name,
            frequency: panel.frequency,
            time_zone: panel.time_zone,
            publication_delay_seconds: panel.publication_delay.as_seconds_f64(),
            holidays: panel.holidays,
            created_at: panel.created_at,
        }
    }
}

/// A page of panels, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PanelPage {
    /// The panels.
    pub panels: Vec<PanelBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List panels
#[utoipa::path(
    get,
    path = "/v1/panels", operation_id = "listPanels",
    tag = "panels",
    params(PageParameters),
    responses(
        (status = 200, description = "A page of panels", body = PanelPage),
        (status = 400, description = "A parameter is wrong"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<PanelsQuery>) -> Result<web::Json<PanelPage>, Error> {
    let limit = query.0.limit.min(state.limits.page_rows_max);
    let after = query.0.cursor.as_deref();
    let rows = db::panel::list(&state.pool, DEFAULT_TENANT, after, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |panel| panel.name.clone())?;
    Ok(web::Json(PanelPage { panels: rows.into_iter().map(PanelBody::from).collect(), next }))
}

/// Read a panel
#[utoipa::path(
    get,
    path = "/v1/panels/{panel}", operation_id = "readPanel",
    tag = "panels",
    params(("panel" = String, Path, description = "Name of the panel")),
    responses(
        (status = 200, description = "The panel", body = PanelBody),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<PanelBody>, Error> {
    Ok(web::Json(find(&state.pool, &path).await?.into()))
}

/// The parameters of a list of series, read.
pub struct SeriesQuery {
    limit: usize,
    cursor: Option<i32>,
}

impl FromQuery for SeriesQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self { limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?, cursor: cursor::take(parameters)? })
    }
}

/// One measured quantity.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesBody {
    /// Its name, unique within the panel.
    #[schema(example = "no2")]
    pub name: String,
    /// `target` is forecast; the future of a `known` covariate is supplied, that of a `past` covariate is not.
    #[schema(example = "target")]
    pub role: String,
    /// What a value means over its interval: `mean`, `sum` or `point`.
    #[schema(example = "mean")]
    pub kind: String,
    /// Unit of its values.
    #[schema(example = "µg/m³")]
    pub unit: Option<String>,
    /// No value is below this.
    #[schema(example = 0.0)]
    pub lower_bound: Option<f64>,
    /// No value is above this.
    pub upper_bound: Option<f64>,
    /// Whether all values are whole numbers.
    pub is_integer: bool,
    /// What else is known of it, and does not change with time: texts, numbers and truth values by name.
    #[schema(value_type = Object, example = json!({"site": "north"}))]
    pub attributes: Map<String, Value>,
}

impl From<Series> for SeriesBody {
    fn from(series: Series) -> Self {
        Self {
            name: series.name,
            role: series.role.to_string(),
            kind: series.kind.to_string(),
            unit: series.unit,
            lower_bound: series.lower_bound,
            upper_bound: series.upper_bound,
            is_integer: series.is_integer,
            attributes: series.attributes,
        }
    }
}

/// A page of series, in the order in which they were first loaded.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesPage {
    /// The series.
    pub series: Vec<SeriesBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List the series of a panel
#[utoipa::path(
    get,
    path = "/v1/panels/{panel}/series", operation_id = "listSeries",
    tag = "panels",
    params(("panel" = String, Path, description = "Name of the panel"), PageParameters),
    responses(
        (status = 200, description = "A page of series", body = SeriesPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list_series(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<SeriesQuery>,
) -> Result<web::Json<SeriesPage>, Error> {
    let panel = find(&state.pool, &path).await?;
    let limit = query.0.limit.min(state.limits.page_rows_max);
    let read = cursor::limit_plus_one(limit);
    let rows = db::series::list(&state.pool, DEFAULT_TENANT, panel.panel_id, query.0.cursor, read).await?;
    let (rows, next) = cursor::page(rows, limit, |series| series.series_id)?;
    Ok(web::Json(SeriesPage { series: rows.into_iter().map(SeriesBody::from).collect(), next }))
}
