//! Trained models.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query},
    panels::{self, OfPanelQuery},
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT, model::Model},
    registry,
    server::State,
};

/// Which models.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct ModelsParameters {
    /// Name of the panel. Default: all panels, in order of their names.
    panel: Option<String>,
    /// Most models of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A trained model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelBody {
    /// Name of the panel that it models.
    #[schema(example = "valencia")]
    pub name: String,
    /// Its version: 1, 2, ….
    #[schema(example = 1)]
    pub version: i32,
    /// `champion` serves; a `candidate` has not (yet) beaten it; an `archived` model has served or is set aside; a
    /// `rejected` one was compared with the champion and was not better.
    #[schema(example = "champion")]
    pub stage: String,
    /// Why it is at its stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Version of the champion of the time at which it was trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_version: Option<i32>,
    /// SHA-256 of its files.
    pub digest: String,
    /// Bytes of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artefact_bytes: Option<i64>,
    /// SHA-256 of the data that it was trained on.
    pub snapshot_digest: String,
    /// Nothing that became known after this instant was seen in training.
    pub data_cutoff: DateTime<Utc>,
    /// The training configuration as it ran.
    #[schema(value_type = Object)]
    pub config: Value,
    /// Scores on validation windows.
    #[schema(value_type = Object)]
    pub metrics: Value,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

impl ModelBody {
    fn new(name: String, model: Model) -> Self {
        Self {
            name,
            version: model.version,
            stage: model.stage.to_string(),
            reason: model.reason,
            parent_version: model.parent_version,
            digest: model.digest,
            artefact_bytes: model.artefact_bytes,
            snapshot_digest: model.snapshot_digest,
            data_cutoff: model.data_cutoff,
            config: model.config,
            metrics: without_inputs(model.metrics),
            created_at: model.created_at,
        }
    }
}

/// Without the profile of the inputs, which is there for the drift of inputs and has some numbers of each series.
fn without_inputs(mut metrics: Value) -> Value {
    if let Some(metrics) = metrics.as_object_mut() {
        metrics.remove("inputs");
    }
    metrics
}

/// A page of models, by panel, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelPage {
    /// The models.
    pub models: Vec<ModelBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List models
#[utoipa::path(
    get,
    path = "/v1/models", operation_id = "listModels",
    tag = "models",
    params(ModelsParameters),
    responses(
        (status = 200, description = "A page of models", body = ModelPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(
    state: web::Data<State>,
    query: Query<OfPanelQuery<(String, i32)>>,
) -> Result<web::Json<ModelPage>, Error> {
    let OfPanelQuery { panel, limit, cursor } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let after = cursor.as_ref().map(|(panel, version)| (panel.as_str(), *version));
    let rows =
        db::model::list_by_panel(&state.pool, DEFAULT_TENANT, panel_id, after, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |(panel, model)| (panel.clone(), model.version))?;
    let models = rows.into_iter().map(|(name, model)| ModelBody::new(name, model));
    Ok(web::Json(ModelPage { models: models.collect(), next }))
}

/// Panel and version, as a path names them.
pub type ModelPath = web::Path<(String, String)>;

/// Read a model
#[utoipa::path(
    get,
    path = "/v1/models/{panel}/{version}", operation_id = "readModel",
    tag = "models",
    params(
        ("panel" = String, Path, description = "Name of the panel"),
        ("version" = i32, Path, description = "Version of the model"),
    ),
    responses(
        (status = 200, description = "The model", body = ModelBody),
        (status = 404, description = "No such panel or model"),
    )
)]
pub async fn read(state: web::Data<State>, path: ModelPath) -> Result<web::Json<ModelBody>, Error> {
    let (panel, model) = registry::find(&state.pool, &path.0, &path.1).await?;
    Ok(web::Json(ModelBody::new(panel.name, model)))
}

/// Promote a model
///
/// It serves from the next request on, and the champion is archived. A model whose files are missing or damaged is
/// refused. Promoting the champion changes nothing.
#[utoipa::path(
    post,
    path = "/v1/models/{panel}/{version}/promote", operation_id = "promoteModel",
    tag = "models",
    params(
        ("panel" = String, Path, description = "Name of the panel"),
        ("version" = i32, Path, description = "Version of the model"),
    ),
    responses(
        (status = 200, description = "The model, which is the champion now", body = ModelBody),
        (status = 404, description = "No such panel or model"),
    )
)]
pub async fn promote(state: web::Data<State>, path: ModelPath) -> Result<web::Json<ModelBody>, Error> {
    let (panel, model) = registry::find(&state.pool, &path.0, &path.1).await?;
    let model = registry::promote(&state.pool, &state.artefacts, &panel, &model, "promoted by REST").await?;
    Ok(web::Json(ModelBody::new(panel.name, model)))
}

/// Which champion is meant.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct RollBackParameters {
    /// Version of the champion that is to go. A request that is repeated with it does not roll back twice.
    from: Option<i32>,
}

/// The parameters, read.
pub struct RollBackQuery {
    from: Option<i32>,
}

impl FromQuery for RollBackQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self { from: parameters.take_parsed("from", "the version of a model", |text| text.parse().ok())? })
    }
}

/// Roll back to the champion before
///
/// The model that the champion replaced serves again from the next request on; the champion is archived.
#[utoipa::path(
    post,
    path = "/v1/models/{panel}/rollback", operation_id = "rollBackModel",
    tag = "models",
    params(("panel" = String, Path, description = "Name of the panel"), RollBackParameters),
    responses(
        (status = 200, description = "The model that is the champion now", body = ModelBody),
        (status = 404, description = "No such panel"),
        (status = 409, description = "There is no champion, none before it, or another one than `from` says"),
    )
)]
pub async fn roll_back(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<RollBackQuery>,
) -> Result<web::Json<ModelBody>, Error> {
    let panel = panels::find(&state.pool, &path).await?;
    let model = registry::roll_back(&state.pool, &state.artefacts, &panel, query.0.from).await?;
    Ok(web::Json(ModelBody::new(panel.name, model)))
}

/// Archive a model
#[utoipa::path(
    post,
    path = "/v1/models/{panel}/{version}/archive", operation_id = "archiveModel",
    tag = "models",
    params(
        ("panel" = String, Path, description = "Name of the panel"),
        ("version" = i32, Path, description = "Version of the model"),
    ),
    responses(
        (status = 200, description = "The model, which is archived now", body = ModelBody),
        (status = 404, description = "No such panel or model"),
        (status = 409, description = "It is the champion"),
    )
)]
pub async fn archive(state: web::Data<State>, path: ModelPath) -> Result<web::Json<ModelBody>, Error> {
    let (panel, model) = registry::find(&state.pool, &path.0, &path.1).await?;
    let model = registry::archive(&state.pool, &panel, &model, "archived by REST").await?;
    Ok(web::Json(ModelBody::new(panel.name, model)))
}

/// Delete a model with its files
#[utoipa::path(
    delete,
    path = "/v1/models/{panel}/{version}", operation_id = "deleteModel",
    tag = "models",
    params(
        ("panel" = String, Path, description = "Name of the panel"),
        ("version" = i32, Path, description = "Version of the model"),
    ),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 404, description = "No such panel or model"),
        (status = 409, description = "It is the champion, or forecasts by it are stored"),
    )
)]
pub async fn delete(state: web::Data<State>, path: ModelPath) -> Result<HttpResponse, Error> {
    let (panel, model) = registry::find(&state.pool, &path.0, &path.1).await?;
    registry::delete(&state.pool, &state.artefacts, &panel, &model).await?;
    Ok(HttpResponse::NoContent().finish())
}
