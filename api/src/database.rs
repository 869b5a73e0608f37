//! The database of a command: the one that `DATABASE_URL` names, or the private one.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use crate::MIGRATOR;
use crate::postgres::{self, Listen, PrivatePostgres};

/// The oldest server that the schema works with, as Postgres numbers itself.
const OLDEST_SERVER_VERSION: i32 = 150_000;

/// Limits on connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of this process. Too many use up the server's; too few make requests wait.
    pub max_connections: u32,
    /// How long a request waits for a connection before it fails.
    pub acquire_timeout: Duration,
    /// How long a statement may take before the server cancels it.
    pub statement_timeout: Duration,
}

impl Default for Limits {
    /// 10 connections, 5 seconds, 60 seconds.
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    pool: PgPool,
    /// Without the time limit of statements.
    options: PgConnectOptions,
    private: Option<PrivatePostgres>,
}

impl Database {
    /// Connects to `database_url`, or else starts the private Postgres in `data_dir` or attaches to it; `listen` says
    /// where that one opens TCP, and for whom.
    ///
    /// Await it on the main thread: see [`PrivatePostgres::start_or_attach`]. The schema may still be missing or old:
    /// see [`Database::migrate`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        database_url: Option<&str>,
        data_dir: &Path,
        listen: Option<Listen>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        match database_url {
            Some(_) if let Some(listen) = listen => Err(Error::NotPrivate { address: listen.address }),
            Some(url) => Self::connect(PgConnectOptions::from_str(url).map_err(Error::Url)?, None, limits).await,
            None => {
                let config = postgres::Config { listen, ..postgres::Config::new(data_dir) };
                let private = PrivatePostgres::start_or_attach(&config).await?;
                Self::connect(private.connect_options(), Some(private), limits).await
            }
        }
    }

    async fn connect(
        options: PgConnectOptions,
        private: Option<PrivatePostgres>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("plumecast"),
        };
        let statement_timeout = limits.statement_timeout.as_millis().to_string();
        let pool = PgPoolOptions::new()
            .max_connections(limits.max_connections)
            .acquire_timeout(limits.acquire_timeout)
            .connect_with(options.clone().options([("statement_timeout", statement_timeout)]))
            .await
            .map_err(Error::Connect)?;

        let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::integer")
            .fetch_one(&pool)
            .await
            .map_err(Error::Connect)?;
        if version < OLDEST_SERVER_VERSION {
            return Err(Error::TooOld { version: version / 10_000 });
        }
        Ok(Self { pool, options, private })
    }

    /// The pool of connections. Cheap to clone.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Where to connect with other programs, if this is the private Postgres.
    pub fn private_url(&self) -> Option<String> {
        self.private.as_ref().map(PrivatePostgres::url)
    }

    /// Applies the migrations that are missing. Processes that do it at the same time wait for one another.
    ///
    /// # Errors
    /// [`Error::Migrate`] when an applied file has changed, or the database is newer than this program.
    pub async fn migrate(&self) -> Result<(), Error> {
        // On a connection of its own: a migration of much data takes longer than a statement may.
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(Error::Connect)?;
        MIGRATOR.run(&mut connection).await?;
        let _ = connection.close().await;
        Ok(())
    }

    /// Closes the connections, then stops the private Postgres if this process started it.
    pub async fn close(self) {
        self.pool.close().await;
        if let Some(private) = self.private {
            private.shutdown();
        }
    }
}

/// How many migrations are missing; a service is ready when none is.
///
/// # Errors
/// [`crate::db::Error::Unavailable`] when the database cannot be asked.
pub async fn n_pending_migrations(pool: &PgPool) -> Result<usize, crate::db::Error> {
    let has_table: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(pool).await?;
    let applied: Vec<i64> = match has_table {
        true => sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(pool).await?,
        false => Vec::new(),
    };
    Ok(MIGRATOR.iter().filter(|migration| !applied.contains(&migration.version)).count())
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private Postgres does not run.
    #[error(transparent)]
    Private(#[from] postgres::Error),

    /// A server that is not ours listens where it likes.
    #[error("--postgres-listen {address} is for the private Postgres, and DATABASE_URL names another")]
    NotPrivate {
        /// The address.
        address: SocketAddr,
    },

    /// `DATABASE_URL` is no URL of a Postgres.
    #[error("DATABASE_URL is not understood")]
    Url(#[source] sqlx::Error),

    /// The server does not answer or does not let us in.
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),

    /// The server lacks what the schema needs.
    #[error("the database server is PostgreSQL {version}; 15 or newer is needed")]
    TooOld {
        /// Its major version.
        version: i32,
    },

    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[from] MigrateError),
}
