//! Frozen, ordered lists of series.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::Error;
use super::series::Series;

/// A stored panel version.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct PanelVersion {
    /// Identifier.
    pub panel_version_id: i32,
    /// The panel.
    pub panel_id: i32,
    /// 1, 2, … within the panel.
    pub version: i32,
    /// When it was first needed.
    pub created_at: DateTime<Utc>,
}

/// The version of a panel that lists exactly these series in this order; a new one if there is none.
///
/// # Errors
/// - [`Error::NoSeries`] when the list is empty.
/// - [`Error::UnknownReference`] when the panel does not exist or a series is not one of its own.
/// - [`Error::Exists`] when a series is listed twice.
pub async fn ensure(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel_id: i32,
    series_ids: &[i32],
) -> Result<PanelVersion, Error> {
    if series_ids.is_empty() {
        return Err(Error::NoSeries { panel_id });
    }

    // Numbers of versions are given one at a time.
    sqlx::query("select from panel where tenant_id = $1 and panel_id = $2 for no key update")
        .bind(tenant_id)
        .bind(panel_id)
        .execute(&mut *conn)
        .await?;

    let same = sqlx::query_as(
        "select panel_version_id, panel_id, version, created_at
         from panel_version v
         where tenant_id = $1 and panel_id = $2
           and $3 = array(
               select series_id
               from panel_version_series s
               where s.tenant_id = v.tenant_id and s.panel_version_id = v.panel_version_id
               order by position
           )
         order by version desc
         limit 1",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(series_ids)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(same) = same {
        return Ok(same);
    }

    let version: PanelVersion = sqlx::query_as(
        "insert into panel_version (tenant_id, panel_id, version)
         select $1, $2, coalesce(max(version), 0) + 1
         from panel_version
         where tenant_id = $1 and panel_id = $2
         returning panel_version_id, panel_id, version, created_at",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query(
        "insert into panel_version_series (tenant_id, panel_version_id, position, panel_id, series_id)
         select $1, $2, position, $3, series_id
         from unnest($4::integer[]) with ordinality as listed (series_id, position)",
    )
    .bind(tenant_id)
    .bind(version.panel_version_id)
    .bind(panel_id)
    .bind(series_ids)
    .execute(conn)
    .await?;
    Ok(version)
}

/// The newest version of a panel.
pub async fn latest(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<PanelVersion>, Error> {
    Ok(sqlx::query_as(
        "select panel_version_id, panel_id, version, created_at
         from panel_version
         where tenant_id = $1 and panel_id = $2
         order by version desc
         limit 1",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_optional(db)
    .await?)
}

/// One version.
pub async fn get(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_version_id: i32,
) -> Result<Option<PanelVersion>, Error> {
    Ok(sqlx::query_as(
        "select panel_version_id, panel_id, version, created_at
         from panel_version
         where tenant_id = $1 and panel_version_id = $2",
    )
    .bind(tenant_id)
    .bind(panel_version_id)
    .fetch_optional(db)
    .await?)
}

/// The series of a version, in their order; empty when there is no such version.
pub async fn series(db: impl PgExecutor<'_>, tenant_id: i32, panel_version_id: i32) -> Result<Vec<Series>, Error> {
    Ok(sqlx::query_as(
        "select series_id, s.panel_id, name, role, kind, unit, lower_bound, upper_bound, is_integer, attributes
         from panel_version_series v
         join series s using (tenant_id, series_id)
         where tenant_id = $1 and panel_version_id = $2
         order by position",
    )
    .bind(tenant_id)
    .bind(panel_version_id)
    .fetch_all(db)
    .await?)
}
