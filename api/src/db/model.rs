//! Trained models and their stages.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Acquire, PgExecutor, Postgres};

use super::Error;
use super::words::Stage;

/// A stored model.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Model {
    /// Identifier.
    pub model_id: i32,
    /// The panel.
    pub panel_id: i32,
    /// The list of series that it models.
    pub panel_version_id: i32,
    /// 1, 2, … within the panel.
    pub version: i32,
    /// Where it stands in its life.
    pub stage: Stage,
    /// The training configuration as it ran.
    pub config: Value,
    /// Scores on validation windows.
    pub metrics: Value,
    /// SHA-256 of the checkpoint, in hexadecimal.
    pub digest: String,
    /// SHA-256 of the snapshot that it was trained on, in hexadecimal.
    pub snapshot_digest: String,
    /// Folder of the checkpoint, relative to the object store.
    pub artefact_path: String,
    /// Nothing that became known after this instant was seen in training.
    pub data_cutoff: DateTime<Utc>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

/// A model that has just been trained.
#[derive(Debug, Clone, PartialEq)]
pub struct NewModel<'a> {
    /// The list of series that it models.
    pub panel_version_id: i32,
    /// The training configuration as it ran.
    pub config: &'a Value,
    /// Scores on validation windows.
    pub metrics: &'a Value,
    /// SHA-256 of the checkpoint, in hexadecimal.
    pub digest: &'a str,
    /// SHA-256 of the snapshot that it was trained on, in hexadecimal.
    pub snapshot_digest: &'a str,
    /// Folder of the checkpoint, relative to the object store.
    pub artefact_path: &'a str,
    /// Nothing that became known after this instant was seen in training.
    pub data_cutoff: DateTime<Utc>,
}

/// Stores a model as a candidate, under the next version number of its panel.
///
/// # Errors
/// - [`Error::UnknownReference`] when there is no such panel version.
/// - [`Error::NotAllowed`] when a digest is not one.
pub async fn insert(
    db: impl Acquire<'_, Database = Postgres>,
    tenant_id: i32,
    model: &NewModel<'_>,
) -> Result<Model, Error> {
    let mut transaction = db.begin().await?;

    // Numbers of versions are given one at a time.
    let panel_id: Option<i32> = sqlx::query_scalar(
        "select panel_id
         from panel
         join panel_version using (tenant_id, panel_id)
         where tenant_id = $1 and panel_version_id = $2
         for no key update of panel",
    )
    .bind(tenant_id)
    .bind(model.panel_version_id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(panel_id) = panel_id else {
        return Err(Error::UnknownReference { constraint: "model_panel_version_fkey".to_owned() });
    };

    let stored = sqlx::query_as(
        "insert into model (tenant_id, panel_id, panel_version_id, version, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff)
         select $1, $2, $3, coalesce(max(version), 0) + 1, $4, $5, $6, $7, $8, $9
         from model
         where tenant_id = $1 and panel_id = $2
         returning model_id, panel_id, panel_version_id, version, stage, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff, created_at",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(model.panel_version_id)
    .bind(model.config)
    .bind(model.metrics)
    .bind(model.digest)
    .bind(model.snapshot_digest)
    .bind(model.artefact_path)
    .bind(model.data_cutoff)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(stored)
}

/// One model.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, model_id: i32) -> Result<Option<Model>, Error> {
    Ok(sqlx::query_as(
        "select model_id, panel_id, panel_version_id, version, stage, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff, created_at
         from model
         where tenant_id = $1 and model_id = $2",
    )
    .bind(tenant_id)
    .bind(model_id)
    .fetch_optional(db)
    .await?)
}

/// The model that serves a panel.
pub async fn champion(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<Model>, Error> {
    Ok(sqlx::query_as(
        "select model_id, panel_id, panel_version_id, version, stage, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff, created_at
         from model
         where tenant_id = $1 and panel_id = $2 and stage = 'champion'",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_optional(db)
    .await?)
}

/// At most `limit` models of a panel, the newest first, from the one before version `before` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Model>, Error> {
    Ok(sqlx::query_as(
        "select model_id, panel_id, panel_version_id, version, stage, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff, created_at
         from model
         where tenant_id = $1 and panel_id = $2 and ($3::integer is null or version < $3)
         order by version desc
         limit $4",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Makes a model the champion of its panel and archives the one that was. Promoting the champion changes nothing.
///
/// # Errors
/// [`Error::UnknownModel`].
pub async fn promote(db: impl Acquire<'_, Database = Postgres>, tenant_id: i32, model_id: i32) -> Result<(), Error> {
    let mut transaction = db.begin().await?;

    // One promotion of a panel at a time.
    let panel_id: Option<i32> = sqlx::query_scalar(
        "select panel_id
         from panel
         join model using (tenant_id, panel_id)
         where tenant_id = $1 and model_id = $2
         for no key update of panel",
    )
    .bind(tenant_id)
    .bind(model_id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(panel_id) = panel_id else {
        return Err(Error::UnknownModel { model_id });
    };

    // First the old one: at no time are there two.
    sqlx::query(
        "update model
         set stage = 'archived'
         where tenant_id = $1 and panel_id = $2 and stage = 'champion' and model_id <> $3",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(model_id)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("update model set stage = 'champion' where tenant_id = $1 and model_id = $2")
        .bind(tenant_id)
        .bind(model_id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// A model with the name of its panel.
#[derive(sqlx::FromRow)]
struct NamedModel {
    name: String,
    #[sqlx(flatten)]
    model: Model,
}

/// At most `limit` models, of one panel or of all, with the names of their panels: by name, the newest first, from the
/// one after `after` (name and version) on.
pub async fn list_by_panel(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: Option<i32>,
    after: Option<(&str, i32)>,
    limit: i64,
) -> Result<Vec<(String, Model)>, Error> {
    let rows: Vec<NamedModel> = sqlx::query_as(
        "select name, model_id, panel_id, panel_version_id, version, stage, config, metrics, digest, snapshot_digest,
             artefact_path, data_cutoff, m.created_at
         from model m
         join panel using (tenant_id, panel_id)
         where tenant_id = $1 and ($2::integer is null or panel_id = $2)
           and ($3::text is null or name > $3 or name = $3 and version < $4)
         order by name, version desc
         limit $5",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(after.map(|(name, _)| name))
    .bind(after.map(|(_, version)| version))
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.model)).collect())
}
