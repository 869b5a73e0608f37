//! Pipelines: declared ways from files to panels.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::Utc;
use ingest::pipeline::Pipeline;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::{Body, FromQuery, Parameters, Query},
    loads::LoadBody,
    respond,
};
use crate::{
    Error,
    pipelines::{self, Declared, Origin},
    server::State,
};

/// A pipeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PipelineBody {
    /// Its name.
    #[schema(example = "meters")]
    pub name: String,
    /// `file`: it stands in a file of the folder of pipelines. `rest`: it was declared here.
    #[schema(example = "rest")]
    pub declared_by: String,
    /// What is declared.
    #[schema(value_type = Object)]
    pub declaration: Pipeline,
}

impl From<Declared> for PipelineBody {
    fn from(declared: Declared) -> Self {
        Self {
            name: declared.pipeline.name.clone(),
            declared_by: declared.origin.as_str().to_owned(),
            declaration: declared.pipeline,
        }
    }
}

/// All pipelines, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PipelineList {
    /// The pipelines.
    pub pipelines: Vec<PipelineBody>,
}

/// List pipelines
#[utoipa::path(
    get,
    path = "/v1/pipelines", operation_id = "listPipelines",
    tag = "data",
    responses((status = 200, description = "All pipelines", body = PipelineList))
)]
pub async fn list(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let all = pipelines::list(&state.pool, &state.folders).await?;
    let pipelines = all.into_iter().map(PipelineBody::from).collect();
    respond::json(StatusCode::OK, PipelineList { pipelines }).await
}

/// Read a pipeline
#[utoipa::path(
    get,
    path = "/v1/pipelines/{pipeline}", operation_id = "readPipeline",
    tag = "data",
    params(("pipeline" = String, Path, description = "Name of the pipeline")),
    responses(
        (status = 200, description = "The pipeline", body = PipelineBody),
        (status = 404, description = "No such pipeline"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<HttpResponse, Error> {
    let declared = pipelines::find(&state.pool, &state.folders, &path).await?;
    respond::json(StatusCode::OK, PipelineBody::from(declared)).await
}

/// Create or replace a pipeline
///
/// Its source is a path or a pattern below the folder of sources of the service. When the declaration changes, all files
/// are read again at the next run; values that are known already make no row.
#[utoipa::path(
    put,
    path = "/v1/pipelines/{pipeline}", operation_id = "putPipeline",
    tag = "data",
    params(("pipeline" = String, Path, description = "Name of the pipeline")),
    request_body(content = Object, description = "The keys of a pipeline file; `name` may be left out"),
    responses(
        (status = 200, description = "The pipeline", body = PipelineBody),
        (status = 409, description = "The name belongs to a pipeline that stands in a file"),
        (status = 422, description = "The body is not a declaration"),
    )
)]
pub async fn put(
    state: web::Data<State>,
    path: web::Path<String>,
    body: Body<Pipeline>,
) -> Result<HttpResponse, Error> {
    let mut pipeline = body.0;
    if pipeline.name.is_empty() {
        pipeline.name = path.into_inner();
    } else if pipeline.name != *path {
        return Err(Error::invalid_body("/name", "name-mismatch", "must be the name in the path"));
    }
    pipelines::check(&pipeline)?;
    let all = pipelines::list(&state.pool, &state.folders).await?;
    let is_in_file = |known: &Declared| known.pipeline.name == pipeline.name && known.origin != Origin::Rest;
    if all.iter().any(is_in_file) {
        return Err(Error::PipelineInFile { pipeline: pipeline.name });
    }
    let declared = Declared { pipeline, origin: Origin::Rest };
    pipelines::put(&state.pool, &declared).await?;
    respond::json(StatusCode::OK, PipelineBody::from(declared)).await
}

/// Whether to store.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct RunParameters {
    /// Read and report, but store nothing and remember nothing.
    #[param(default = false)]
    dry_run: Option<bool>,
}

/// The parameter, read.
pub struct RunQuery {
    dry_run: bool,
}

impl FromQuery for RunQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let dry_run = parameters.take_parsed("dry_run", "true or false", |text| text.parse().ok())?;
        Ok(Self { dry_run: dry_run.unwrap_or(false) })
    }
}

/// What a run did.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunBody {
    /// Whether any file had something new.
    pub is_new: bool,
    /// What was stored, and the report; absent when nothing was new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadBody>,
    /// Whether there is more than is read at a time: run it again.
    pub has_more: bool,
}

/// Run a pipeline
///
/// Reads what is new since its last run, or as much of it as is read at a time, and stores all of that or nothing.
#[utoipa::path(
    post,
    path = "/v1/pipelines/{pipeline}/runs", operation_id = "runPipeline",
    tag = "data",
    params(("pipeline" = String, Path, description = "Name of the pipeline"), RunParameters),
    responses(
        (status = 200, description = "What was stored, and the report", body = RunBody),
        (status = 404, description = "No such pipeline"),
        (status = 409, description = "It is being run, or the panel has another frequency or time zone"),
        (status = 422, description = "The source cannot be used, or the report has what the pipeline fails on"),
    )
)]
pub async fn run(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<RunQuery>,
) -> Result<HttpResponse, Error> {
    let now = Utc::now();
    let declared = pipelines::find(&state.pool, &state.folders, &path).await?;
    let run = pipelines::run(&state.pool, &state.folders, &declared, query.0.dry_run, now).await?;
    let Declared { pipeline, .. } = declared;
    let source = pipeline.source.to_string();
    let load = |loaded| LoadBody::new(&pipeline.panel, Some(&pipeline.name), &source, loaded, run.stored, now);
    let load = run.loaded.as_ref().map(load).transpose()?;
    respond::json(StatusCode::OK, RunBody { is_new: load.is_some(), load, has_more: run.has_more }).await
}
