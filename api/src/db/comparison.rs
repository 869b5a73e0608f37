//! How candidates compared with what they were to replace, and what was decided.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Acquire, PgExecutor, Postgres};

use super::words::{Decision, ReferenceKind, Stage};
use super::{Error, model};

/// A stored comparison. The lists have an element for each window, in the order of their issue times.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Comparison {
    /// The candidate.
    pub model_id: i32,
    /// What it was compared with.
    pub reference: ReferenceKind,
    /// The champion of the time, if that is what it was compared with.
    pub champion_model_id: Option<i32>,
    /// What was known by then was used.
    pub compared_at: DateTime<Utc>,
    /// Steps of a window.
    pub horizon: i32,
    /// Trajectories of a window.
    pub num_samples: i32,
    /// Seed of the first window; each has the next one.
    pub seed: i64,
    /// When the forecasts were made.
    pub issue_times: Vec<DateTime<Utc>>,
    /// Whether the reference had learned from nothing that came later.
    pub is_fair: Vec<bool>,
    /// CRPS of the candidate.
    pub candidate_crps: Vec<f64>,
    /// CRPS of what it was compared with.
    pub reference_crps: Vec<f64>,
    /// Share of the truth inside the candidate's central 80 % intervals.
    pub candidate_coverage_80: Vec<f64>,
    /// The same of what it was compared with.
    pub reference_coverage_80: Vec<f64>,
    /// Mean relative difference in CRPS over the fair windows.
    pub difference: Option<f64>,
    /// Lower end of its confidence interval.
    pub difference_lower: Option<f64>,
    /// Upper end.
    pub difference_upper: Option<f64>,
    /// What became of the candidate.
    pub decision: Decision,
    /// Whether a person should look at it.
    pub is_flagged: bool,
    /// The reason in words.
    pub reason: String,
    /// The rules that decided.
    pub policy: Value,
}

/// Stores a comparison and takes its candidate to the stage that was decided, together or not at all.
///
/// `champion_model_id` is what served when the candidate's training began, if anything did. When something else does by
/// now, nothing is decided, and the comparison that comes back says so.
///
/// # Errors
/// [`Error::UnknownModel`] when the candidate has been deleted meanwhile.
pub async fn decide(
    db: impl Acquire<'_, Database = Postgres>,
    tenant_id: i32,
    champion_model_id: Option<i32>,
    mut comparison: Comparison,
) -> Result<Comparison, Error> {
    let mut transaction = db.begin().await?;
    let panel_id = model::lock_panel(&mut transaction, tenant_id, comparison.model_id).await?;
    let champion = model::champion(&mut *transaction, tenant_id, panel_id).await?;
    if champion.map(|model| model.model_id) != champion_model_id {
        comparison.decision = Decision::Undecided;
        comparison.reason = format!("another model serves by now; before that: {}", comparison.reason);
    }
    let (model_id, reason) = (comparison.model_id, comparison.reason.as_str());
    match comparison.decision {
        Decision::Promoted => model::promote(&mut *transaction, tenant_id, model_id, reason).await?,
        Decision::Rejected => {
            model::set_aside(&mut transaction, tenant_id, model_id, Stage::Rejected, Some(reason)).await?;
        }
        Decision::Undecided => {
            model::set_aside(&mut transaction, tenant_id, model_id, Stage::Candidate, Some(reason)).await?;
        }
    }
    sqlx::query(
        "insert into model_comparison (tenant_id, model_id, reference, champion_model_id, compared_at, horizon,
             num_samples, seed, issue_times, is_fair, candidate_crps, reference_crps, candidate_coverage_80,
             reference_coverage_80, difference, difference_lower, difference_upper, decision, is_flagged, reason, policy)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
    .bind(tenant_id)
    .bind(comparison.model_id)
    .bind(comparison.reference)
    .bind(comparison.champion_model_id)
    .bind(comparison.compared_at)
    .bind(comparison.horizon)
    .bind(comparison.num_samples)
    .bind(comparison.seed)
    .bind(&comparison.issue_times)
    .bind(&comparison.is_fair)
    .bind(&comparison.candidate_crps)
    .bind(&comparison.reference_crps)
    .bind(&comparison.candidate_coverage_80)
    .bind(&comparison.reference_coverage_80)
    .bind(comparison.difference)
    .bind(comparison.difference_lower)
    .bind(comparison.difference_upper)
    .bind(comparison.decision)
    .bind(comparison.is_flagged)
    .bind(&comparison.reason)
    .bind(&comparison.policy)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(comparison)
}

/// The columns of [`Comparison`], of the table under the name `c`.
macro_rules! columns {
    () => {
        "c.model_id, c.reference, c.champion_model_id, c.compared_at, c.horizon, c.num_samples, c.seed, c.issue_times,
         c.is_fair, c.candidate_crps, c.reference_crps, c.candidate_coverage_80, c.reference_coverage_80, c.difference,
         c.difference_lower, c.difference_upper, c.decision, c.is_flagged, c.reason, c.policy"
    };
}

/// The comparison of a candidate, if it had one.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, model_id: i32) -> Result<Option<Comparison>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from model_comparison c
         where tenant_id = $1 and model_id = $2"
    ))
    .bind(tenant_id)
    .bind(model_id)
    .fetch_optional(db)
    .await?)
}

/// At most `limit` comparisons of the models of a panel, those of the newest models first.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    limit: i64,
) -> Result<Vec<Comparison>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from model m
         join model_comparison c using (tenant_id, model_id)
         where tenant_id = $1 and m.panel_id = $2
         order by model_id desc
         limit $3"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
