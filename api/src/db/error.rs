//! What can go wrong with the database, as situations.

use sqlx::postgres::PgDatabaseError;

/// A failed database operation.
///
/// Violated constraints become situations by the constraint's name, so that `migrations/` states each rule once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, is overloaded or is shutting down. Trying again later can help.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),

    /// The panel exists with another frequency or time zone. All its data lies on the old grid.
    #[error("panel `{panel}` has {field} `{stored}`, not `{given}`")]
    PanelDiffers {
        /// Name of the panel.
        panel: String,
        /// `frequency` or `time_zone`.
        field: &'static str,
        /// What the panel has.
        stored: String,
        /// What was asked for.
        given: String,
    },

    /// A series identifier does not exist in the panel.
    #[error("series {series_id} does not belong to panel {panel_id}")]
    UnknownSeries {
        /// The series.
        series_id: i32,
        /// The panel.
        panel_id: i32,
    },

    /// There is no such panel, panel version, series, model or forecast.
    #[error("a row refers to something that does not exist ({constraint})")]
    UnknownReference {
        /// Name of the violated foreign key.
        constraint: String,
    },

    /// There is no such model.
    #[error("model {model_id} does not exist")]
    UnknownModel {
        /// The model.
        model_id: i32,
    },

    /// The champion serves: it can be neither archived nor deleted.
    #[error("model {model_id} is the champion")]
    ChampionServes {
        /// The model.
        model_id: i32,
    },

    /// Another promotion was faster.
    #[error("the champion of panel {panel_id} has changed")]
    ChampionChanged {
        /// The panel.
        panel_id: i32,
    },

    /// Stored forecasts were made by the model.
    #[error("stored forecasts refer to model {model_id}")]
    ModelInUse {
        /// The model.
        model_id: i32,
    },

    /// A panel version without series.
    #[error("panel {panel_id} has no series")]
    NoSeries {
        /// The panel.
        panel_id: i32,
    },

    /// Another request has used this idempotency key in the meantime; look it up again.
    #[error("the idempotency key is already in use")]
    IdempotencyKeyInUse,

    /// A value breaks a rule of the schema: not finite, a negative standard deviation, an empty name.
    #[error("a value is not allowed ({constraint})")]
    NotAllowed {
        /// Name of the violated check.
        constraint: String,
    },

    /// The bounds of a series would not be in order, together with those that are stored.
    #[error(
        "series `{series}` would have a lower bound of {lower_bound}, which is not below its upper bound of {upper_bound}"
    )]
    ContradictoryBounds {
        /// Name of the series.
        series: String,
        /// What no value would be below.
        lower_bound: f64,
        /// What no value would be above.
        upper_bound: f64,
    },

    /// A text holds NUL, or another character that the encoding of the database does not have.
    #[error("a text holds a character that the database cannot hold, such as NUL")]
    UnstorableText(#[source] sqlx::Error),

    /// A row exists already.
    #[error("a row exists already ({constraint})")]
    Exists {
        /// Name of the violated unique constraint.
        constraint: String,
    },

    /// The statement took longer than the configured limit.
    #[error("the statement was cancelled at its time limit")]
    StatementTimeout(#[source] sqlx::Error),

    /// Anything else: a mistake of ours.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
}

impl Error {
    /// Whether others used the same rows or tables, so that nothing was done.
    pub fn is_conflict(&self) -> bool {
        let Error::Unavailable(sqlx::Error::Database(database)) = self else { return false };
        database
            .code()
            .is_some_and(|code| [LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE, DEADLOCK_DETECTED].contains(&&*code))
    }

    /// Whether the same call can succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::StatementTimeout(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Error::Unavailable(error),
            sqlx::Error::Database(database) => {
                let postgres = database.downcast_ref::<PgDatabaseError>();
                match (postgres.code(), postgres.constraint()) {
                    ("23505", Some("forecast_idempotency_key_key" | "job_idempotency_key_key")) => {
                        Error::IdempotencyKeyInUse
                    }
                    ("23505", Some(name)) => Error::Exists { constraint: name.to_owned() },
                    ("23503", Some(name)) => Error::UnknownReference { constraint: name.to_owned() },
                    ("23514", Some(name)) => Error::NotAllowed { constraint: name.to_owned() },
                    ("22021" | "22P05", _) => Error::UnstorableText(error),
                    ("57014", _) => Error::StatementTimeout(error),
                    (code, _) if is_transient_code(code) => Error::Unavailable(error),
                    _ => Error::Statement(error),
                }
            }
            _ => Error::Statement(error),
        }
    }
}

const LOCK_NOT_AVAILABLE: &str = "55P03";
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";

/// Connection exceptions, lack of resources, shutdown, and conflicts with other transactions.
fn is_transient_code(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("53")
        || code.starts_with("57P")
        || [LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE, DEADLOCK_DETECTED].contains(&code)
}
