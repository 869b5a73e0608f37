//! The user's own database: what it answers to a query that a pipeline declares, as CSV.
//!
//! The one place whose SQL is not ours. It runs in a transaction that can only read, on a connection that is made for it.

use std::{io, str::FromStr, time::Duration};

use futures_util::TryStreamExt;
use ingest::pipeline::Query;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqlSafeStr};
use tokio::time::timeout;

use super::Error as DatabaseError;
use crate::config::DatabaseUrl;

/// How long the server may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than a statement may take we wait for its end: then there is no server any more.
const GRACE: Duration = Duration::from_secs(10);

/// Values that nothing is larger than: a run that began there would never read anything again. Postgres writes times the
/// first way, numbers the others, of which it takes NaN to be the largest.
const UNBOUNDED: [&str; 3] = ["infinity", "Infinity", "NaN"];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none of a Postgres. It may hold a password, so it is not told.
    #[error("it is no address of the form postgres://user:password@host/database")]
    Address,
    /// The server is not there, does not let us in, went away, or has no room. Later it may answer.
    #[error("the database is not available: {reason}")]
    Unavailable {
        /// What it or the system says.
        reason: String,
    },
    /// The query took too long.
    #[error("the query takes longer than {seconds} seconds")]
    Timeout {
        /// The limit.
        seconds: u32,
    },
    /// The query is wrong, or may not be asked.
    #[error("the database refuses: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// The answer is too long.
    #[error("the answer has more than {limit} bytes")]
    TooManyBytes {
        /// The limit.
        limit: u64,
    },
    /// The answer cannot be written down.
    #[error("the answer cannot be kept: {0}")]
    Write(#[source] io::Error),
}

/// Where a query ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The largest value of the watermark's column among the rows that has an end; `None` where there is no such row or no
    /// such column.
    pub largest: Option<String>,
    /// Rows whose watermark is infinite or no number.
    pub n_unbounded: u64,
}

/// Writes what a database answers to a query, with a header, at most `n_bytes_max` bytes of it. With a watermark, only
/// rows from `since` on, less the overlap. Times are written in UTC, in ISO 8601.
///
/// # Errors
/// [`Error`]; a part of the answer may have been written.
pub async fn copy(
    url: &DatabaseUrl,
    query: &Query,
    since: Option<&str>,
    n_bytes_max: u64,
    sink: &mut (impl io::Write + Send),
) -> Result<End, Error> {
    let has_scheme = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme));
    let options = has_scheme.then(|| PgConnectOptions::from_str(url.expose()).ok()).flatten().ok_or(Error::Address)?;
    let options = options.application_name("plumecast source").disable_statement_logging();
    let mut connection = within(CONNECT_TIMEOUT, query, PgConnection::connect_with(&options)).await?;
    let end = read(&mut connection, query, since, n_bytes_max, sink).await?;
    let _ = timeout(GRACE, connection.close()).await;
    Ok(end)
}

async fn read(
    connection: &mut PgConnection,
    query: &Query,
    since: Option<&str>,
    n_bytes_max: u64,
    sink: &mut (impl io::Write + Send),
) -> Result<End, Error> {
    let patience = Duration::from_secs(u64::from(query.timeout_seconds)) + GRACE;
    // Of one state of the database: the largest value is that of the rows that are read.
    let begin = connection.begin_with("begin transaction isolation level repeatable read, read only");
    let mut transaction = within(patience, query, begin).await?;
    let settings = sqlx::query(
        "select set_config('statement_timeout', $1, true),
             set_config('timezone', 'UTC', true),
             set_config('datestyle', 'ISO, YMD', true),
             set_config('extra_float_digits', '3', true),
             set_config('standard_conforming_strings', 'on', true)",
    );
    let limit = format!("{}s", query.timeout_seconds);
    within(patience, query, settings.bind(limit).execute(&mut *transaction)).await?;

    // Prepared first, since the server prepares one statement only: whatever is declared, it cannot end the transaction.
    let rows = rows(query, since);
    let (largest, n_unbounded) = match &query.watermark {
        Some(column) => {
            let column = identifier(column);
            let statement = format!(
                "select (max({column}) filter (where {column}::text <> all ($1)))::text,
                     count(*) filter (where {column}::text = any ($1))
                 from ({rows}) as answer"
            );
            let end = sqlx::query_as(AssertSqlSafe(statement)).bind(UNBOUNDED.as_slice());
            let (largest, n_unbounded): (Option<String>, i64) =
                within(patience, query, end.fetch_one(&mut *transaction)).await?;
            (largest, n_unbounded.unsigned_abs())
        }
        None => {
            let prepared = (&mut *transaction).prepare(AssertSqlSafe(rows.clone()).into_sql_str());
            within(patience, query, prepared).await?;
            (None, 0)
        }
    };
    let statement = format!("copy ({rows}) to stdout (format csv, header)");
    let mut pieces = within(patience, query, transaction.copy_out_raw(&statement)).await?;
    let mut n_bytes = 0;
    while let Some(piece) = within(patience, query, pieces.try_next()).await? {
        n_bytes += piece.len() as u64;
        if n_bytes > n_bytes_max {
            return Err(Error::TooManyBytes { limit: n_bytes_max });
        }
        sink.write_all(&piece).map_err(Error::Write)?;
    }
    sink.flush().map_err(Error::Write)?;
    drop(pieces);
    within(patience, query, transaction.rollback()).await?;
    Ok(End { largest, n_unbounded })
}

/// The rows to read. What is declared stands on lines of its own, so that a comment at its end ends there.
fn rows(query: &Query, since: Option<&str>) -> String {
    let declared = query.query.trim().trim_end_matches(';');
    // An earlier release may have ended there.
    let since = since.filter(|since| !UNBOUNDED.contains(since));
    let condition = match (&query.watermark, since) {
        (Some(column), Some(since)) => {
            // Rows that have the same value may have come since then, and of those that have none nobody knows.
            let column = identifier(column);
            let least = match query.overlap_seconds {
                Some(seconds) => format!("{}::timestamptz - make_interval(secs => {seconds})", literal(since)),
                None => literal(since),
            };
            format!(" where ({column} >= {least} or {column} is null)")
        }
        _ => String::new(),
    };
    format!("select * from (\n{declared}\n) as declared{condition}")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal without a type: it takes that of the column it is compared with.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Waits for the server, but not for ever.
async fn within<T>(
    patience: Duration,
    query: &Query,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    match timeout(patience, work).await {
        Ok(done) => done.map_err(|error| explain(error, query)),
        Err(_) => Err(Error::Unavailable { reason: "it does not answer".to_owned() }),
    }
}

fn explain(error: sqlx::Error, query: &Query) -> Error {
    let reason = match &error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    match error.into() {
        DatabaseError::Unavailable(_) => Error::Unavailable { reason },
        DatabaseError::StatementTimeout(_) => Error::Timeout { seconds: query.timeout_seconds },
        _ => Error::Refused { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_before_is_left_out_and_nothing_ends_the_query() {
        let query = Query {
            url_variable: "A".to_owned(),
            query: " select 1 -- all of it;\n;".to_owned(),
            watermark: Some("changed \"at\"".to_owned()),
            overlap_seconds: None,
            timeout_seconds: 1,
        };
        assert_eq!(rows(&query, None), "select * from (\nselect 1 -- all of it;\n\n) as declared");
        let since = rows(&query, Some("it's"));
        assert!(
            since
                .ends_with(") as declared where (\"changed \"\"at\"\"\" >= 'it''s' or \"changed \"\"at\"\"\" is null)"),
            "{since}"
        );
        for unbounded in UNBOUNDED {
            assert_eq!(rows(&query, Some(unbounded)), rows(&query, None));
        }
        let query = Query { overlap_seconds: Some(60), ..query };
        let since = rows(&query, Some("2025-01-01"));
        assert!(since.contains(" >= '2025-01-01'::timestamptz - make_interval(secs => 60) or "), "{since}");
    }
}
