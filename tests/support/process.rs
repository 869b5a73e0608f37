//! The program as processes of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::{ConnectOptions, PgPool};

use super::Service;

/// The program, which is built before the tests.
pub fn plumecast() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("plumecast")
}

/// The address of the database of a test.
pub fn database_url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}

/// The program on a database, with its files in a folder.
pub fn program(database_url: &str, data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(plumecast());
    command.args(arguments).env("DATABASE_URL", database_url).env("PLUMECAST_DATA_DIR", data_dir);
    command
}

/// A running program, killed when it is dropped.
pub struct Program(pub Child);

impl Program {
    /// Starts a command that is told nothing, and whose log is read or not.
    pub fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// `plumecast work` for a service, impatient.
    pub fn worker(pool: &PgPool, service: &Service) -> Self {
        Self::worker_on(&database_url(pool), service.data_dir(), "3")
    }

    /// The same on any database, with leases of so many seconds.
    pub fn worker_on(database_url: &str, data_dir: &Path, lease_seconds: &str) -> Self {
        let arguments = ["work", "--job-poll", "0.05", "--job-lease", lease_seconds, "--job-niceness", "0"];
        let mut command = program(database_url, data_dir, &arguments);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Sends a signal, as `-TERM`.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
