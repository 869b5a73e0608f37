//! How candidates compared with the champion.

use actix_web::web;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::models::ModelPath;
use crate::{
    Error,
    db::{self, DEFAULT_TENANT},
    registry,
    retraining::Policy,
    server::State,
};

/// How a candidate compared with what it was to replace, on windows of the panel's data.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComparisonBody {
    /// `champion`, or `seasonal_naive` where no champion could be used.
    #[schema(example = "champion")]
    pub reference: String,
    /// Version of that champion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub champion_version: Option<i32>,
    /// Only what was known by then was used.
    pub compared_at: DateTime<Utc>,
    /// Steps of a window.
    pub horizon: i32,
    /// Trajectories of a window.
    pub num_samples: i32,
    /// Each window with both scores.
    pub windows: Vec<ComparedWindow>,
    /// Mean over the fair windows of (candidate - reference) / mean of the reference, of CRPS; negative is better.
    pub difference: Option<f64>,
    /// Lower end of its confidence interval.
    pub difference_lower: Option<f64>,
    /// Upper end of its confidence interval.
    pub difference_upper: Option<f64>,
    /// `promoted`, `rejected` or `undecided`.
    #[schema(example = "promoted")]
    pub decision: String,
    /// Whether a person should look at it.
    pub is_flagged: bool,
    /// The reason in words.
    pub reason: String,
    /// The rules that decided.
    pub policy: Policy,
}

/// A window that both forecast.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComparedWindow {
    /// When both forecasts were made.
    pub issue_time: DateTime<Utc>,
    /// Whether the champion had learned from nothing that came later; others decide nothing.
    pub is_fair: bool,
    /// CRPS of the candidate.
    pub candidate_crps: f64,
    /// CRPS of what it was compared with.
    pub reference_crps: f64,
    /// Share of the truth inside the candidate's central 80 % intervals.
    pub candidate_coverage_80: f64,
    /// The same of what it was compared with.
    pub reference_coverage_80: f64,
}

/// Read how a model compared with the champion
#[utoipa::path(
    get,
    path = "/v1/models/{panel}/{version}/comparison", operation_id = "readComparison",
    tag = "models",
    params(
        ("panel" = String, Path, description = "Name of the panel"),
        ("version" = i32, Path, description = "Version of the model"),
    ),
    responses(
        (status = 200, description = "The comparison and what was decided", body = ComparisonBody),
        (status = 404, description = "No such panel or model, or it was compared with nothing"),
    )
)]
pub async fn read(state: web::Data<State>, path: ModelPath) -> Result<web::Json<ComparisonBody>, Error> {
    let (panel, model) = registry::find(&state.pool, &path.0, &path.1).await?;
    let found = db::comparison::get(&state.pool, DEFAULT_TENANT, model.model_id)
        .await?
        .ok_or(Error::NoComparison { panel: panel.name, version: model.version })?;
    let champion = match found.champion_model_id {
        Some(model_id) => db::model::get(&state.pool, DEFAULT_TENANT, model_id).await?,
        None => None,
    };
    let window = |(index, &issue_time): (usize, &DateTime<Utc>)| ComparedWindow {
        issue_time,
        is_fair: found.is_fair[index],
        candidate_crps: found.candidate_crps[index],
        reference_crps: found.reference_crps[index],
        candidate_coverage_80: found.candidate_coverage_80[index],
        reference_coverage_80: found.reference_coverage_80[index],
    };
    Ok(web::Json(ComparisonBody {
        windows: found.issue_times.iter().enumerate().map(window).collect(),
        reference: found.reference.to_string(),
        champion_version: champion.map(|model| model.version),
        compared_at: found.compared_at,
        horizon: found.horizon,
        num_samples: found.num_samples,
        difference: found.difference,
        difference_lower: found.difference_lower,
        difference_upper: found.difference_upper,
        decision: found.decision.to_string(),
        is_flagged: found.is_flagged,
        reason: found.reason,
        policy: serde_json::from_value(found.policy).map_err(|error| Error::internal("reading a policy", error))?,
    }))
}
