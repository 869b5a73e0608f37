//! Folders of files of models that are being written.

use sqlx::{PgConnection, PgExecutor, PgPool};

use super::Error;

/// Most folders that are looked at together: more are left only where trainings are killed again and again.
const N_FOLDERS_MAX: i64 = 1000;

/// The expression of the key of the advisory lock on a folder.
macro_rules! lock {
    ($function:literal) => {
        concat!(
            "select ",
            $function,
            "(hashtextextended(concat_ws(' ', 'plumecast.artefact_folder', $1::integer, $2::text), 0))"
        )
    };
}

/// Notes, at once, that a folder is about to be written; the transaction of `connection`, which is to store its model, holds it
/// to its end. Call [`forget`] in it.
pub async fn note(connection: &mut PgConnection, pool: &PgPool, tenant_id: i32, folder: &str) -> Result<(), Error> {
    // The lock first: there is no moment at which the note is there and nobody holds it.
    sqlx::query(lock!("pg_advisory_xact_lock")).bind(tenant_id).bind(folder).execute(connection).await?;
    sqlx::query("insert into artefact_folder (tenant_id, folder) values ($1, $2)")
        .bind(tenant_id)
        .bind(folder)
        .execute(pool)
        .await?;
    Ok(())
}

/// Takes a note away.
pub async fn forget(db: impl PgExecutor<'_>, tenant_id: i32, folder: &str) -> Result<bool, Error> {
    let done = sqlx::query("delete from artefact_folder where tenant_id = $1 and folder = $2");
    Ok(done.bind(tenant_id).bind(folder).execute(db).await?.rows_affected() > 0)
}

/// The folders that are noted, the oldest first.
pub async fn list(db: impl PgExecutor<'_>, tenant_id: i32) -> Result<Vec<String>, Error> {
    let query = "select folder from artefact_folder where tenant_id = $1 order by created_at, folder limit $2";
    Ok(sqlx::query_scalar(query).bind(tenant_id).bind(N_FOLDERS_MAX).fetch_all(db).await?)
}

/// Takes the note of a folder away that nobody holds any more; tells whether there was one. Files are to be removed before the
/// transaction is committed.
pub async fn forget_abandoned(connection: &mut PgConnection, tenant_id: i32, folder: &str) -> Result<bool, Error> {
    let is_free: bool = sqlx::query_scalar(lock!("pg_try_advisory_xact_lock"))
        .bind(tenant_id)
        .bind(folder)
        .fetch_one(&mut *connection)
        .await?;
    // A statement of its own: it sees what the holder has committed before it let go.
    Ok(is_free && forget(connection, tenant_id, folder).await?)
}
