//! Trained models and their stages.

use chrono::{DateTime, Utc};
use ingest::Holidays;
use serde::Deserialize;
use serde_json::Value;
use sqlx::{Acquire, PgConnection, PgExecutor, PgPool, Postgres};

use super::Error;
use super::panel::Panel;
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
    /// Why it is there, in words.
    pub reason: Option<String>,
    /// Version of the champion of the time at which it was trained.
    pub parent_version: Option<i32>,
    /// The champion that it replaced when it was promoted.
    pub replaced_model_id: Option<i32>,
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
    /// Bytes of its files.
    pub artefact_bytes: Option<i64>,
    /// Nothing that became known after this instant was seen in training.
    pub data_cutoff: DateTime<Utc>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
}

impl Model {
    /// End of the last interval that it has learned from; `None` of a model that was registered before this was stored.
    #[must_use]
    pub fn trained_until(&self) -> Option<DateTime<Utc>> {
        DateTime::deserialize(&self.metrics["trained_until"]).ok()
    }

    /// The holidays that it was told of; `None` of a model that was registered before this was stored.
    #[must_use]
    pub fn holidays(&self) -> Option<Holidays> {
        Holidays::deserialize(&self.config["holidays"]).ok()
    }

    /// The panel with its days told by the holidays that the model has learned from, whatever it declares by now; as it is where the
    /// model does not say. What it has not learned from it does not read.
    #[must_use]
    pub fn as_learned(&self, panel: &Panel) -> Panel {
        let holidays = self.holidays().map(|holidays| holidays.to_string());
        Panel { holidays: holidays.or_else(|| panel.holidays.clone()), ..panel.clone() }
    }
}

/// The columns of [`Model`], of the table under the name `m`.
macro_rules! columns {
    () => {
        "m.model_id, m.panel_id, m.panel_version_id, m.version, m.stage, m.reason,
         (select p.version from model p where p.tenant_id = m.tenant_id and p.model_id = m.parent_model_id)
             as parent_version,
         m.replaced_model_id, m.config, m.metrics, m.digest, m.snapshot_digest, m.artefact_path, m.artefact_bytes,
         m.data_cutoff, m.created_at"
    };
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
    /// Bytes of its files.
    pub artefact_bytes: Option<i64>,
    /// Nothing that became known after this instant was seen in training.
    pub data_cutoff: DateTime<Utc>,
}

/// Stores a model as a candidate, under the next version number of its panel; the champion is its parent.
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

    let stored = sqlx::query_as(concat!(
        "insert into model as m (tenant_id, panel_id, panel_version_id, version, parent_model_id, config, metrics,
             digest, snapshot_digest, artefact_path, artefact_bytes, data_cutoff)
         select $1, $2, $3, coalesce(max(version), 0) + 1, max(model_id) filter (where stage = 'champion'),
             $4, $5, $6, $7, $8, $9, $10
         from model
         where tenant_id = $1 and panel_id = $2
         returning ",
        columns!()
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(model.panel_version_id)
    .bind(model.config)
    .bind(model.metrics)
    .bind(model.digest)
    .bind(model.snapshot_digest)
    .bind(model.artefact_path)
    .bind(model.artefact_bytes)
    .bind(model.data_cutoff)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(stored)
}

/// One model.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, model_id: i32) -> Result<Option<Model>, Error> {
    Ok(sqlx::query_as(concat!("select ", columns!(), " from model m where m.tenant_id = $1 and m.model_id = $2"))
        .bind(tenant_id)
        .bind(model_id)
        .fetch_optional(db)
        .await?)
}

/// The model of a panel with a version number.
pub async fn get_by_version(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    version: i32,
) -> Result<Option<Model>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from model m where m.tenant_id = $1 and m.panel_id = $2 and m.version = $3"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(version)
    .fetch_optional(db)
    .await?)
}

/// The model that serves a panel.
pub async fn champion(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<Model>, Error> {
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from model m where m.tenant_id = $1 and m.panel_id = $2 and m.stage = 'champion'"
    ))
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
    Ok(sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from model m
         where m.tenant_id = $1 and m.panel_id = $2 and ($3::integer is null or m.version < $3)
         order by m.version desc
         limit $4"
    ))
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
pub async fn promote(
    db: impl Acquire<'_, Database = Postgres>,
    tenant_id: i32,
    model_id: i32,
    reason: &str,
) -> Result<(), Error> {
    let mut transaction = db.begin().await?;
    let panel_id = lock_panel(&mut transaction, tenant_id, model_id).await?;
    let Some((stage, version)) = stage_of(&mut transaction, tenant_id, model_id).await? else {
        return Err(Error::UnknownModel { model_id });
    };
    if stage == Stage::Champion {
        return Ok(());
    }
    let replaced =
        archive_champion(&mut transaction, tenant_id, panel_id, &format!("replaced by version {version}")).await?;
    sqlx::query(
        "update model
         set stage = 'champion', reason = $3, replaced_model_id = $4
         where tenant_id = $1 and model_id = $2",
    )
    .bind(tenant_id)
    .bind(model_id)
    .bind(reason)
    .bind(replaced)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

/// Puts an earlier champion in the place of the present one, which is archived.
///
/// # Errors
/// [`Error::ChampionChanged`] when `champion` does not serve any more or `earlier` has been deleted.
pub async fn roll_back(pool: &PgPool, tenant_id: i32, champion: &Model, earlier: &Model) -> Result<(), Error> {
    let changed = || Error::ChampionChanged { panel_id: champion.panel_id };
    let mut transaction = pool.begin().await?;
    lock_panel(&mut transaction, tenant_id, champion.model_id).await.map_err(|_| changed())?;
    let reason = format!("rolled back to version {}", earlier.version);
    let replaced = archive_champion(&mut transaction, tenant_id, champion.panel_id, &reason).await?;
    if replaced != Some(champion.model_id) {
        return Err(changed());
    }
    let restored = sqlx::query(
        "update model
         set stage = 'champion', reason = $3
         where tenant_id = $1 and model_id = $2",
    )
    .bind(tenant_id)
    .bind(earlier.model_id)
    .bind(format!("rolled back from version {}", champion.version))
    .execute(&mut *transaction)
    .await?;
    if restored.rows_affected() == 0 {
        return Err(changed());
    }
    transaction.commit().await?;
    Ok(())
}

/// Takes a model that does not serve to another stage.
///
/// # Errors
/// - [`Error::UnknownModel`], [`Error::ChampionServes`]
/// - [`Error::NotAllowed`] for a rejection without a reason
pub async fn set_aside(
    transaction: &mut PgConnection,
    tenant_id: i32,
    model_id: i32,
    stage: Stage,
    reason: Option<&str>,
) -> Result<(), Error> {
    lock_panel(transaction, tenant_id, model_id).await?;
    let changed = sqlx::query(
        "update model
         set stage = $3, reason = $4
         where tenant_id = $1 and model_id = $2 and stage <> 'champion'",
    )
    .bind(tenant_id)
    .bind(model_id)
    .bind(stage)
    .bind(reason)
    .execute(transaction)
    .await?;
    if changed.rows_affected() == 0 { Err(Error::ChampionServes { model_id }) } else { Ok(()) }
}

/// Deletes a model that does not serve and of which no forecast is stored. Its files are the caller's to remove.
/// Models that replaced it then roll back to what it had replaced itself.
///
/// # Errors
/// [`Error::UnknownModel`], [`Error::ChampionServes`], [`Error::ModelInUse`].
pub async fn delete(conn: &mut PgConnection, tenant_id: i32, model_id: i32) -> Result<(), Error> {
    let mut transaction = conn.begin().await?;
    lock_panel(&mut transaction, tenant_id, model_id).await?;
    sqlx::query(
        "update model m
         set replaced_model_id = nullif(gone.replaced_model_id, m.model_id)
         from model gone
         where gone.tenant_id = $1 and gone.model_id = $2 and m.tenant_id = $1 and m.replaced_model_id = $2",
    )
    .bind(tenant_id)
    .bind(model_id)
    .execute(&mut *transaction)
    .await?;
    let deleted = sqlx::query("delete from model where tenant_id = $1 and model_id = $2 and stage <> 'champion'")
        .bind(tenant_id)
        .bind(model_id)
        .execute(&mut *transaction)
        .await
        .map_err(|error| match Error::from(error) {
            Error::UnknownReference { .. } => Error::ModelInUse { model_id },
            other => other,
        })?;
    if deleted.rows_affected() == 0 {
        return Err(Error::ChampionServes { model_id });
    }
    transaction.commit().await?;
    Ok(())
}

/// Whether any model was trained on a snapshot.
pub async fn has_snapshot(db: impl PgExecutor<'_>, tenant_id: i32, snapshot_digest: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("select exists (select from model where tenant_id = $1 and snapshot_digest = $2)")
        .bind(tenant_id)
        .bind(snapshot_digest)
        .fetch_one(db)
        .await?)
}

/// Locks the row of a model's panel, so that one change of stages follows another; gives the panel.
pub(super) async fn lock_panel(transaction: &mut PgConnection, tenant_id: i32, model_id: i32) -> Result<i32, Error> {
    let panel_id: Option<i32> = sqlx::query_scalar(
        "select panel_id
         from panel
         join model using (tenant_id, panel_id)
         where tenant_id = $1 and model_id = $2
         for no key update of panel",
    )
    .bind(tenant_id)
    .bind(model_id)
    .fetch_optional(transaction)
    .await?;
    panel_id.ok_or(Error::UnknownModel { model_id })
}

async fn stage_of(
    transaction: &mut PgConnection,
    tenant_id: i32,
    model_id: i32,
) -> Result<Option<(Stage, i32)>, Error> {
    Ok(sqlx::query_as("select stage, version from model where tenant_id = $1 and model_id = $2")
        .bind(tenant_id)
        .bind(model_id)
        .fetch_optional(transaction)
        .await?)
}

/// Archives a panel's champion, if there is one, before another takes its place: at no time are there two.
async fn archive_champion(
    transaction: &mut PgConnection,
    tenant_id: i32,
    panel_id: i32,
    reason: &str,
) -> Result<Option<i32>, Error> {
    Ok(sqlx::query_scalar(
        "update model
         set stage = 'archived', reason = $3
         where tenant_id = $1 and panel_id = $2 and stage = 'champion'
         returning model_id",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(reason)
    .fetch_optional(transaction)
    .await?)
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
    let rows: Vec<NamedModel> = sqlx::query_as(concat!(
        "select panel.name, ",
        columns!(),
        " from model m
         join panel using (tenant_id, panel_id)
         where tenant_id = $1 and ($2::integer is null or panel_id = $2)
           and ($3::text is null or name > $3 or name = $3 and m.version < $4)
         order by name, m.version desc
         limit $5"
    ))
    .bind(tenant_id)
    .bind(panel_id)
    .bind(after.map(|(name, _)| name))
    .bind(after.map(|(_, version)| version))
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.model)).collect())
}
