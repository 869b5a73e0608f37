//! Loads: what came in, what was taken of it, and what was not.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query},
    respond,
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT, load::Recorded},
    loading::Stored,
    server::State,
};

/// Rows of a page, unless the request says otherwise.
const PAGE_ROWS_DEFAULT: usize = 50;

/// Which loads.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct LoadsParameters {
    /// Name of a panel. Default: all.
    panel: Option<String>,
    /// Name of a pipeline. Default: all, and what came without one.
    pipeline: Option<String>,
    /// Most rows of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct LoadsQuery {
    panel: Option<String>,
    pipeline: Option<String>,
    limit: usize,
    cursor: Option<Uuid>,
}

impl FromQuery for LoadsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self {
            panel: parameters.take("panel")?,
            pipeline: parameters.take("pipeline")?,
            limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?,
            cursor: cursor::take(parameters)?,
        })
    }
}

/// One file, body or run of a pipeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LoadBody {
    /// Identifier; absent where nothing was to be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_id: Option<Uuid>,
    /// Name of the panel.
    #[schema(example = "air_quality")]
    pub panel: String,
    /// Name of the pipeline that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The file, the pattern, or `push`.
    #[schema(example = "in/*.csv")]
    pub source: String,
    /// `succeeded`, `failed`, or `checked` where nothing was to be stored.
    #[schema(example = "succeeded")]
    pub status: String,
    /// Why it failed; nothing was stored then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Values that are the first of their series and time.
    pub inserted: u64,
    /// Values that replace another one, which stays known for the past.
    pub corrected: u64,
    /// Values that were known already.
    pub unchanged: u64,
    /// Rows and cells that were not taken.
    pub rejected: u64,
    /// Counts by code with the first examples of each, by file and line; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub report: Option<serde_json::Value>,
    /// Parquet file below the data folder with the rows that were not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

impl LoadBody {
    /// The answer to a load that has just been stored or, where `stored` is missing, only been checked.
    ///
    /// # Errors
    /// When the report cannot be written.
    pub fn new(
        panel: &str,
        pipeline: Option<&str>,
        source: &str,
        loaded: &ingest::Loaded,
        stored: Option<Stored>,
        started_at: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let counts = stored.as_ref().map(|stored| stored.loaded.counts).unwrap_or_default();
        Ok(Self {
            load_id: stored.as_ref().map(|stored| stored.load_id),
            panel: panel.to_owned(),
            pipeline: pipeline.map(str::to_owned),
            source: source.to_owned(),
            status: if stored.is_some() { "succeeded" } else { "checked" }.to_owned(),
            failure: None,
            inserted: counts.inserted,
            corrected: counts.corrected,
            unchanged: counts.unchanged,
            rejected: loaded.report.n_lost(),
            report: Some(crate::loading::report(loaded)?),
            quarantine: stored.and_then(|stored| stored.quarantine),
            started_at,
            finished_at: None,
        })
    }
}

impl From<Recorded> for LoadBody {
    fn from(row: Recorded) -> Self {
        Self {
            load_id: Some(row.load_id),
            panel: row.panel,
            pipeline: row.pipeline,
            source: row.source,
            status: row.status,
            failure: row.failure,
            inserted: row.n_inserted.unsigned_abs(),
            corrected: row.n_corrected.unsigned_abs(),
            unchanged: row.n_unchanged.unsigned_abs(),
            rejected: row.n_rejected.unsigned_abs(),
            report: row.report,
            quarantine: row.quarantine,
            started_at: row.started_at,
            finished_at: Some(row.finished_at),
        }
    }
}

/// A page of loads, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LoadPage {
    /// The loads, without their reports.
    pub loads: Vec<LoadBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List loads
#[utoipa::path(
    get,
    path = "/v1/loads", operation_id = "listLoads",
    tag = "data",
    params(LoadsParameters),
    responses(
        (status = 200, description = "A page of loads", body = LoadPage),
        (status = 400, description = "A parameter is wrong"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<LoadsQuery>) -> Result<web::Json<LoadPage>, Error> {
    let LoadsQuery { panel, pipeline, limit, cursor } = query.0;
    let limit = limit.min(state.limits.page_rows_max);
    let read = cursor::limit_plus_one(limit);
    let (panel, pipeline) = (panel.as_deref(), pipeline.as_deref());
    let rows = db::load::list(&state.pool, DEFAULT_TENANT, panel, pipeline, cursor, read).await?;
    let (rows, next) = cursor::page(rows, limit, |load| load.load_id)?;
    Ok(web::Json(LoadPage { loads: rows.into_iter().map(LoadBody::from).collect(), next }))
}

/// Read the report of a load
#[utoipa::path(
    get,
    path = "/v1/loads/{load_id}", operation_id = "readLoad",
    tag = "data",
    params(("load_id" = String, Path, description = "Identifier of the load")),
    responses(
        (status = 200, description = "The load and its report", body = LoadBody),
        (status = 404, description = "No such load"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<HttpResponse, Error> {
    let unknown = || Error::UnknownLoad { load: path.clone() };
    let load_id = Uuid::parse_str(&path).map_err(|_| unknown())?;
    let load = db::load::get(&state.pool, DEFAULT_TENANT, load_id).await?.ok_or_else(unknown)?;
    respond::json(StatusCode::OK, LoadBody::from(load)).await
}
