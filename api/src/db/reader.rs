//! The role that dashboards read with: it sees the views and functions called `dashboard_…`, and nothing else.

use sqlx::PgPool;

/// Why there is no such role.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The role exists and is a superuser, owns the database, or the like.
    #[error("role `{role}` may do more than read dashboards; choose another name for --reader-role")]
    TooMighty {
        /// Name of the role.
        role: String,
    },

    /// The user that we connect as may not make roles, or does not own the database.
    #[error(
        "may not make the role `{role}`; let an administrator of the server run `plumecast migrate --reader-role {role}`"
    )]
    NotPermitted {
        /// Name of the role.
        role: String,
        /// What the server said.
        source: sqlx::Error,
    },

    /// Anything else.
    #[error("cannot make the role `{role}`")]
    Other {
        /// Name of the role.
        role: String,
        /// What the server said.
        source: sqlx::Error,
    },
}

/// Makes the role, or brings what it may read up to date. Without a password, that of an existing role stays, and a new
/// one has none.
///
/// # Errors
/// See [`Error`].
pub async fn ensure(pool: &PgPool, role: &str, password: Option<&str>) -> Result<(), Error> {
    let explain = |source: sqlx::Error| {
        let role = role.to_owned();
        match source.as_database_error().and_then(|error| error.code()).as_deref() {
            Some("0P000") => Error::TooMighty { role },
            Some("42501") => Error::NotPermitted { role, source },
            _ => Error::Other { role, source },
        }
    };
    let apply = async {
        let mut transaction = pool.begin().await?;
        sqlx::query(
            "select set_config('plumecast.reader_role', $1, true), set_config('plumecast.reader_password', $2, true)",
        )
        .bind(role)
        .bind(password.unwrap_or_default())
        .execute(&mut *transaction)
        .await?;
        sqlx::query(include_str!("reader.sql")).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    apply.await.map_err(explain)
}
