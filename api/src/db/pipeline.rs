//! Pipelines: what is declared of them by REST, and what each has read.

use sqlx::{PgConnection, PgExecutor};

use super::Error;

/// Key of the advisory locks of pipelines, beside the pipeline's own: an arbitrary number that nothing else here uses.
const LOCK_CLASS: i32 = 0x0070_6970;

/// A stored pipeline.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Pipeline {
    /// Identifier.
    pub pipeline_id: i32,
    /// Name, unique within the tenant.
    pub name: String,
    /// What was declared.
    pub declaration: serde_json::Value,
    /// `file` or `rest`.
    pub declared_by: String,
    /// What has been read.
    pub watermark: serde_json::Value,
}

/// Inserts a pipeline, or replaces its declaration. What it has read is kept only while the declaration is the same.
///
/// # Errors
/// When the database fails.
pub async fn put(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    name: &str,
    declaration: &serde_json::Value,
    declared_by: &str,
) -> Result<Pipeline, Error> {
    Ok(sqlx::query_as(
        "insert into pipeline (tenant_id, name, declaration, declared_by)
         values ($1, $2, $3, $4)
         on conflict on constraint pipeline_name_key
         do update set
             declaration = $3,
             declared_by = $4,
             -- Read in another way, or into another panel, the same files say something else.
             watermark = case when pipeline.declaration = $3 then pipeline.watermark else '{}' end
         returning pipeline_id, name, declaration, declared_by, watermark",
    )
    .bind(tenant_id)
    .bind(name)
    .bind(declaration)
    .bind(declared_by)
    .fetch_one(db)
    .await?)
}

/// The pipeline of this name.
///
/// # Errors
/// When the database fails.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, name: &str) -> Result<Option<Pipeline>, Error> {
    Ok(sqlx::query_as(
        "select pipeline_id, name, declaration, declared_by, watermark
         from pipeline
         where tenant_id = $1 and name = $2",
    )
    .bind(tenant_id)
    .bind(name)
    .fetch_optional(db)
    .await?)
}

/// At most `limit` pipelines that were declared by REST, by name.
///
/// # Errors
/// When the database fails.
pub async fn list_by_rest(db: impl PgExecutor<'_>, tenant_id: i32, limit: i64) -> Result<Vec<Pipeline>, Error> {
    Ok(sqlx::query_as(
        "select pipeline_id, name, declaration, declared_by, watermark
         from pipeline
         where tenant_id = $1 and declared_by = 'rest'
         order by name
         limit $2",
    )
    .bind(tenant_id)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Takes the right to run a pipeline until the transaction of `conn` ends, however it ends; `false` when somebody else
/// has it.
///
/// # Errors
/// When the database fails.
pub async fn try_lock(conn: &mut PgConnection, pipeline_id: i32) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("select pg_try_advisory_xact_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(pipeline_id)
        .fetch_one(conn)
        .await?)
}

/// What a run has read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewWatermark<'a> {
    /// The pipeline that ran.
    pub pipeline_id: i32,
    /// What was declared when the run began.
    pub declaration: &'a serde_json::Value,
    /// What has been read.
    pub watermark: &'a serde_json::Value,
}

/// Remembers what has been read, unless something else was declared meanwhile: then nothing has been read of that yet.
///
/// # Errors
/// When the database fails.
pub async fn set_watermark(db: impl PgExecutor<'_>, tenant_id: i32, new: &NewWatermark<'_>) -> Result<(), Error> {
    sqlx::query(
        "update pipeline
         set watermark = $4
         where tenant_id = $1 and pipeline_id = $2 and declaration = $3",
    )
    .bind(tenant_id)
    .bind(new.pipeline_id)
    .bind(new.declaration)
    .bind(new.watermark)
    .execute(db)
    .await?;
    Ok(())
}
