//! What can keep the private Postgres from running, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::installation::OLDEST_VERSION;

/// Why the private Postgres does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable `initdb` and `postgres` on this machine.
    #[error(
        "no PostgreSQL {OLDEST_VERSION} or newer found; install it (Debian, Ubuntu: `apt-get install postgresql`; \
         Fedora: `dnf install postgresql-server`; Alpine: `apk add postgresql`) or set DATABASE_URL to a server that runs"
    )]
    NotInstalled,

    /// The data folder was made by another major version, which is not installed.
    #[error(
        "{} was made by PostgreSQL {stored}, but only {} is installed; install PostgreSQL {stored}, or upgrade the \
         folder with pg_upgrade, or choose another --data-dir",
        .data.display(), join(.installed)
    )]
    OtherVersion {
        /// The server's data folder.
        data: PathBuf,
        /// The version that made it.
        stored: u32,
        /// The versions that were found.
        installed: Vec<u32>,
    },

    /// `initdb` needs a name for the user that it runs as.
    #[error(
        "user {uid} has no entry in /etc/passwd, which initdb needs; add one, or run as a user that has one, or set \
         DATABASE_URL"
    )]
    NoAccount {
        /// Number of the user.
        uid: u32,
    },

    /// The server runs as an ordinary user, who must be able to reach its folder.
    #[error(
        "the database server runs as user {uid}, who may not enter {}; choose a --data-dir that it can reach, such as \
         /var/lib/plumecast, or set DATABASE_URL",
        .folder.display()
    )]
    NotSearchable {
        /// The folder on the way.
        folder: PathBuf,
        /// Number of the user.
        uid: u32,
    },

    /// A folder exists, and others could reach the server through it.
    #[error("{} must be a folder of user {uid} that nobody else can enter; correct its owner and mode", .folder.display())]
    UnsafeFolder {
        /// The folder.
        folder: PathBuf,
        /// Number of the user that it should belong to.
        uid: u32,
    },

    /// A server that we did not start runs on the data folder.
    #[error("another PostgreSQL server (process {pid}) runs on {}; stop it first", .data.display())]
    OtherServer {
        /// The server's data folder.
        data: PathBuf,
        /// Process identifier of the server.
        pid: i32,
    },

    /// Another process has started the server without this address.
    #[error(
        "another process runs the private database without --postgres-listen {address}; stop it, or give it that flag"
    )]
    NotListening {
        /// The address.
        address: SocketAddr,
    },

    /// `initdb` failed.
    #[error("initdb failed ({status}):\n{output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },

    /// The server ended instead of starting.
    #[error("the database server ended while starting ({status}):\n{log_tail}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log_tail: String,
    },

    /// The server did not accept connections in time.
    #[error("the database server accepts no connections after {seconds} s:\n{log_tail}")]
    NotReady {
        /// How long we waited.
        seconds: u64,
        /// The last lines of its log.
        log_tail: String,
        /// The last attempt to connect.
        source: sqlx::Error,
    },

    /// The server runs, but the database could not be made.
    #[error("cannot create the database")]
    CreateDatabase(#[source] sqlx::Error),

    /// A file, folder or process.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// An [`Error::Io`].
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source }
    }
}

fn join(versions: &[u32]) -> String {
    let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
    versions.join(", ")
}
