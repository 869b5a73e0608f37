//! Trained models.

use actix_web::web;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query},
    panels,
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT},
    server::State,
};

/// Models of a page, unless the request says otherwise.
const PAGE_ROWS_DEFAULT: usize = 50;

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

/// The parameters, read.
pub struct ModelsQuery {
    panel: Option<String>,
    limit: usize,
    /// Panel and version of the last model of the page before.
    cursor: Option<(String, i32)>,
}

impl FromQuery for ModelsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self {
            panel: parameters.take("panel")?,
            limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?,
            cursor: cursor::take(parameters)?,
        })
    }
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
    /// `champion` serves; a `candidate` has not (yet) beaten it; an `archived` model has served.
    #[schema(example = "champion")]
    pub stage: String,
    /// SHA-256 of its files.
    pub digest: String,
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
pub async fn list(state: web::Data<State>, query: Query<ModelsQuery>) -> Result<web::Json<ModelPage>, Error> {
    let ModelsQuery { panel, limit, cursor } = query.0;
    let panel_id = match panel {
        Some(name) => Some(panels::find(&state.pool, &name).await?.panel_id),
        None => None,
    };
    let limit = limit.min(state.limits.page_rows_max);
    let after = cursor.as_ref().map(|(panel, version)| (panel.as_str(), *version));
    let rows =
        db::model::list_by_panel(&state.pool, DEFAULT_TENANT, panel_id, after, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |(panel, model)| (panel.clone(), model.version))?;
    let models = rows.into_iter().map(|(name, model)| ModelBody {
        name,
        version: model.version,
        stage: model.stage.to_string(),
        digest: model.digest,
        snapshot_digest: model.snapshot_digest,
        data_cutoff: model.data_cutoff,
        config: model.config,
        metrics: model.metrics,
        created_at: model.created_at,
    });
    Ok(web::Json(ModelPage { models: models.collect(), next }))
}
