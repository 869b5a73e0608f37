//! Series.

use std::collections::HashSet;

use serde_json::{Map, Value as Json};
use sqlx::{PgConnection, PgExecutor};

use super::Error;
use super::words::{Kind, Role};

/// A stored series.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Series {
    /// Identifier.
    pub series_id: i32,
    /// The panel that it belongs to.
    pub panel_id: i32,
    /// Name, unique within the panel.
    pub name: String,
    /// What it is to the model.
    pub role: Role,
    /// What a value means over its interval.
    pub kind: Kind,
    /// Unit of its values.
    pub unit: Option<String>,
    /// No value is below this.
    pub lower_bound: Option<f64>,
    /// No value is above this.
    pub upper_bound: Option<f64>,
    /// Whether all values are whole numbers.
    pub is_integer: bool,
    /// What else is known of it: texts, numbers and truth values by name.
    #[sqlx(json)]
    pub attributes: Map<String, Json>,
}

/// A series as a load declares it. `None` keeps what is stored; for a new series it is a target of kind `mean` without
/// unit and bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewSeries {
    /// Name, unique within the panel.
    pub name: String,
    /// What it is to the model.
    pub role: Option<Role>,
    /// What a value means over its interval.
    pub kind: Option<Kind>,
    /// Unit of its values.
    pub unit: Option<String>,
    /// No value is below this.
    pub lower_bound: Option<f64>,
    /// No value is above this.
    pub upper_bound: Option<f64>,
    /// Whether all values are whole numbers.
    pub is_integer: Option<bool>,
    /// What else is known of it; attributes with other names keep what is stored.
    pub attributes: Map<String, Json>,
}

/// Inserts the series that are new and updates what is declared of the others. Returns their identifiers in the given
/// order.
///
/// The caller holds the lock of the panel's row ([`super::panel::ensure`]), so nobody else adds series meanwhile.
///
/// # Errors
/// - [`Error::NotAllowed`] for an empty name, or bounds that are not finite.
/// - [`Error::ContradictoryBounds`] for bounds that are not in order, together with those that are stored.
/// - [`Error::Exists`] when a name is given twice.
pub async fn ensure(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel_id: i32,
    series: &[NewSeries],
) -> Result<Vec<i32>, Error> {
    check_bounds(&mut *conn, tenant_id, panel_id, series).await?;
    Ok(sqlx::query_scalar(
        "with given as (
             select name, role, kind, unit, lower_bound, upper_bound, is_integer, attributes, number
             from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::float8[], $9::boolean[],
                         $10::jsonb[])
                 with ordinality
                 as given (name, role, kind, unit, lower_bound, upper_bound, is_integer, attributes, number)
         ),
         stored as (
             select series_id, name
             from series
             where tenant_id = $1 and panel_id = $2 and name = any ($3)
         ),
         added as (
             insert into series (tenant_id, panel_id, name, role, kind, unit, lower_bound, upper_bound, is_integer,
                 attributes)
             select $1, $2, name, coalesce(role, 'target'), coalesce(kind, 'mean'), unit, lower_bound, upper_bound,
                 coalesce(is_integer, false), attributes
             from given
             where name not in (select name from stored)
             -- New identifiers follow the given order.
             order by number
             returning series_id, name
         ),
         changed as (
             update series s
             set role = coalesce(given.role, s.role),
                 kind = coalesce(given.kind, s.kind),
                 unit = coalesce(given.unit, s.unit),
                 lower_bound = coalesce(given.lower_bound, s.lower_bound),
                 upper_bound = coalesce(given.upper_bound, s.upper_bound),
                 is_integer = coalesce(given.is_integer, s.is_integer),
                 attributes = s.attributes || given.attributes
             from given
             where s.tenant_id = $1 and s.panel_id = $2 and s.name = given.name
               -- A load that declares nothing new writes nothing.
               and (given.role <> s.role
                   or given.kind <> s.kind
                   or coalesce(given.unit, s.unit) is distinct from s.unit
                   or coalesce(given.lower_bound, s.lower_bound) is distinct from s.lower_bound
                   or coalesce(given.upper_bound, s.upper_bound) is distinct from s.upper_bound
                   or given.is_integer <> s.is_integer
                   or s.attributes || given.attributes <> s.attributes)
         )
         select series_id
         from given
         join (table stored union all table added) as present using (name)
         order by number",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.role.map(Role::as_str)).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.kind.map(Kind::as_str)).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.unit.as_deref()).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.lower_bound).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.upper_bound).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.is_integer).collect::<Vec<_>>())
    .bind(series.iter().map(|s| Json::Object(s.attributes.clone())).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?)
}

/// Refuses bounds that would not be in order, together with those that are stored; of several series the first is named.
async fn check_bounds(
    conn: &mut PgConnection,
    tenant_id: i32,
    panel_id: i32,
    series: &[NewSeries],
) -> Result<(), Error> {
    if series.iter().all(|s| s.lower_bound.is_none() && s.upper_bound.is_none()) {
        return Ok(());
    }
    let contradiction: Option<(String, f64, f64)> = sqlx::query_as(
        "select name, lower_bound, upper_bound
         from (
             select given.name, number,
                 coalesce(given.lower_bound, s.lower_bound) as lower_bound,
                 coalesce(given.upper_bound, s.upper_bound) as upper_bound
             from unnest($3::text[], $4::float8[], $5::float8[])
                 with ordinality
                 as given (name, lower_bound, upper_bound, number)
             left join series s on s.tenant_id = $1 and s.panel_id = $2 and s.name = given.name
         ) as wanted
         where lower_bound >= upper_bound
         order by number
         limit 1",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.lower_bound).collect::<Vec<_>>())
    .bind(series.iter().map(|s| s.upper_bound).collect::<Vec<_>>())
    .fetch_optional(conn)
    .await?;
    match contradiction {
        Some((series, lower_bound, upper_bound)) => {
            Err(Error::ContradictoryBounds { series, lower_bound, upper_bound })
        }
        None => Ok(()),
    }
}

/// At most `limit` series of a panel in order of their identifiers, from the one after `after` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    after: Option<i32>,
    limit: i64,
) -> Result<Vec<Series>, Error> {
    Ok(sqlx::query_as(
        "select series_id, panel_id, name, role, kind, unit, lower_bound, upper_bound, is_integer, attributes
         from series
         where tenant_id = $1 and panel_id = $2 and ($3::integer is null or series_id > $3)
         order by series_id
         limit $4",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?)
}

/// Identifiers of the series of a panel that have a role.
pub async fn with_role(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    role: Role,
) -> Result<HashSet<i32>, Error> {
    let ids: Vec<i32> = sqlx::query_scalar(
        "select series_id
         from series
         where tenant_id = $1 and panel_id = $2 and role = $3",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(role)
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().collect())
}

/// Identifiers and names of some series of a panel.
pub async fn names(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    panel_id: i32,
    series_ids: &[i32],
) -> Result<Vec<(i32, String)>, Error> {
    Ok(sqlx::query_as(
        "select series_id, name
         from series
         where tenant_id = $1 and panel_id = $2 and series_id = any ($3)
         order by series_id",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .bind(series_ids)
    .fetch_all(db)
    .await?)
}

/// Identifiers of all series of a panel, in their order.
pub async fn list_ids(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Vec<i32>, Error> {
    Ok(sqlx::query_scalar(
        "select series_id
         from series
         where tenant_id = $1 and panel_id = $2
         order by series_id",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_all(db)
    .await?)
}
