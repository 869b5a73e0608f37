//! Panels.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::Error;

/// A stored panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Identifier.
    pub panel_id: i32,
    /// Name, unique within the tenant.
    pub name: String,
    /// Canonical word of the frequency: `1h`, `15min`, `1mo`.
    pub frequency: String,
    /// IANA name of the time zone.
    pub time_zone: String,
    /// How long after the end of its interval a value is usually known.
    pub publication_delay: TimeDelta,
    /// ISO 3166 code of the country whose public holidays models are told of, or `none`; otherwise a training may find them.
    pub holidays: Option<String>,
    /// When it was first loaded.
    pub created_at: DateTime<Utc>,
}

/// A panel as a load declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPanel<'a> {
    /// Name, unique within the tenant.
    pub name: &'a str,
    /// Canonical word of the frequency.
    pub frequency: &'a str,
    /// IANA name of the time zone.
    pub time_zone: &'a str,
    /// `None` keeps what is stored; zero for a new panel.
    pub publication_delay: Option<TimeDelta>,
    /// ISO 3166 code of the country whose public holidays models are told of, or `none`; `None` keeps what is stored.
    pub holidays: Option<&'a str>,
}

#[derive(sqlx::FromRow)]
struct Row {
    panel_id: i32,
    name: String,
    frequency: String,
    time_zone: String,
    publication_delay_us: i64,
    holidays: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Panel {
    fn from(row: Row) -> Self {
        Panel {
            panel_id: row.panel_id,
            name: row.name,
            frequency: row.frequency,
            time_zone: row.time_zone,
            publication_delay: TimeDelta::microseconds(row.publication_delay_us),
            holidays: row.holidays,
            created_at: row.created_at,
        }
    }
}

/// Inserts a panel, or returns the one that has its name. The row stays locked until the transaction ends, so that
/// loads and training runs of one panel agree on its versions.
///
/// # Errors
/// [`Error::PanelDiffers`] when it exists with another frequency or time zone.
pub async fn ensure(conn: &mut PgConnection, tenant_id: i32, panel: &NewPanel<'_>) -> Result<Panel, Error> {
    // The update, even when it changes nothing, locks the row and makes it visible to `returning`.
    let stored: Panel = sqlx::query_as::<_, Row>(
        "insert into panel (tenant_id, name, frequency, time_zone, publication_delay, holidays)
         values ($1, $2, $3, $4, coalesce($5, interval '0'), $6)
         on conflict on constraint panel_name_key
         do update set publication_delay = coalesce($5, panel.publication_delay),
             holidays = coalesce($6, panel.holidays)
         returning panel_id, name, frequency, time_zone,
             (extract(epoch from publication_delay) * 1000000)::bigint as publication_delay_us, holidays, created_at",
    )
    .bind(tenant_id)
    .bind(panel.name)
    .bind(panel.frequency)
    .bind(panel.time_zone)
    .bind(panel.publication_delay)
    .bind(panel.holidays)
    .fetch_one(conn)
    .await?
    .into();

    for (field, stored, given) in
        [("frequency", &stored.frequency, panel.frequency), ("time_zone", &stored.time_zone, panel.time_zone)]
    {
        if stored != given {
            return Err(Error::PanelDiffers {
                panel: panel.name.to_owned(),
                field,
                stored: stored.clone(),
                given: given.to_owned(),
            });
        }
    }
    Ok(stored)
}

/// The panel of this name.
pub async fn get(db: impl PgExecutor<'_>, tenant_id: i32, name: &str) -> Result<Option<Panel>, Error> {
    let row = sqlx::query_as::<_, Row>(
        "select panel_id, name, frequency, time_zone,
             (extract(epoch from publication_delay) * 1000000)::bigint as publication_delay_us, holidays, created_at
         from panel
         where tenant_id = $1 and name = $2",
    )
    .bind(tenant_id)
    .bind(name)
    .fetch_optional(db)
    .await?;
    Ok(row.map(Panel::from))
}

/// At most `limit` panels in order of their names, from the one after `after` on.
pub async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: i32,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Panel>, Error> {
    let rows = sqlx::query_as::<_, Row>(
        "select panel_id, name, frequency, time_zone,
             (extract(epoch from publication_delay) * 1000000)::bigint as publication_delay_us, holidays, created_at
         from panel
         where tenant_id = $1 and ($2::text is null or name > $2)
         order by name
         limit $3",
    )
    .bind(tenant_id)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Panel::from).collect())
}

/// The panel with this identifier.
pub async fn get_by_id(db: impl PgExecutor<'_>, tenant_id: i32, panel_id: i32) -> Result<Option<Panel>, Error> {
    let row = sqlx::query_as::<_, Row>(
        "select panel_id, name, frequency, time_zone,
             (extract(epoch from publication_delay) * 1000000)::bigint as publication_delay_us, holidays, created_at
         from panel
         where tenant_id = $1 and panel_id = $2",
    )
    .bind(tenant_id)
    .bind(panel_id)
    .fetch_optional(db)
    .await?;
    Ok(row.map(Panel::from))
}
