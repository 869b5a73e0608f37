//! Somebody who runs the program itself, in processes of their own.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use sqlx::{PgPool, Postgres, Transaction};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::{database_url, program};

/// Somebody with a database and a data folder, who loads.
pub struct Operator {
    database_url: String,
    data: TempDir,
    variables: Vec<(String, String)>,
}

impl Operator {
    /// With an empty data folder.
    pub fn new(pool: &PgPool) -> Self {
        Self { database_url: database_url(pool), data: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With one more environment variable, or another value of it.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// A file in the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// Writes a file in the data folder.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// `plumecast load` with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.plumecast(&[&["load"], arguments].concat())
    }

    /// `plumecast` with these arguments.
    pub fn plumecast(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.database_url, self.data.path(), arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts `plumecast load`, and gives it when it waits to write to a table, with the transaction that it waits for.
    pub async fn start_blocked(
        &self,
        pool: &PgPool,
        arguments: &[&str],
        table: &str,
    ) -> (Child, Transaction<'static, Postgres>) {
        let mut blocker = pool.begin().await.unwrap();
        let lock = format!("lock table {table} in exclusive mode");
        sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *blocker).await.unwrap();
        let child = self.command(arguments).spawn().unwrap();
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and application_name = 'plumecast'";
        while count(pool, waits).await == 0 {}
        (child, blocker)
    }

    /// What it says when it succeeds.
    pub async fn say(&self, arguments: &[&str]) -> String {
        said(output(self.command(arguments)).await)
    }

    /// What it says when it fails.
    pub async fn fail(&self, arguments: &[&str]) -> String {
        complaint(output(self.command(arguments)).await)
    }
}

/// Runs a command to its end.
pub async fn output(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a program said that has succeeded.
#[track_caller]
pub fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a program said that has failed.
#[track_caller]
pub fn complaint(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A number that the database gives.
pub async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}
