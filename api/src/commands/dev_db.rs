//! `plumecast dev-db -- COMMAND…`: a database for as long as a command runs.
//!
//! One process owns the server for a whole run of tests: a server that a test started would end with the test's thread.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::{env, fs};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkdtemp};
use tokio::signal::unix::{SignalKind, signal};

use crate::postgres::{Config, PrivatePostgres};

/// Run a command with a private Postgres, whose address it finds in DATABASE_URL.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the data in this folder; by default it is thrown away at the end.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The command and its arguments, after `--`.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Starts the server, runs the command, stops the server, and returns the exit code of the command.
///
/// Await it on the main thread: see [`PrivatePostgres::start_or_attach`].
///
/// # Errors
/// When the server or the command cannot be started.
pub async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(data_dir) = &args.data_dir {
        return run_with(&Config::new(data_dir), &args.command).await;
    }

    let folder = TemporaryFolder::make().context("cannot make a temporary folder")?;
    let config = Config { is_throwaway: true, ..Config::new(&folder.path) };
    run_with(&config, &args.command).await
}

async fn run_with(config: &Config, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let postgres = PrivatePostgres::start_or_attach(config).await?;
    let status = wait_for(command, &postgres.url()).await;
    postgres.shutdown();
    status.map(exit_code)
}

/// Runs the command to its end. A signal that asks us to end is the command's business: it is passed on, and we stop
/// when the command has stopped.
async fn wait_for(command: &[OsString], database_url: &str) -> anyhow::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Ctrl-C reaches the command without us; here it only must not end us.
    let mut interrupt = signal(SignalKind::interrupt())?;

    let [program, arguments @ ..] = command else { anyhow::bail!("no command given") };
    let mut child = Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", database_url)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut ended = tokio::task::spawn_blocking(move || child.wait());

    loop {
        tokio::select! {
            status = &mut ended => return Ok(status??),
            _ = terminate.recv() => { let _ = kill(pid, Signal::SIGTERM); }
            _ = hangup.recv() => { let _ = kill(pid, Signal::SIGHUP); }
            _ = interrupt.recv() => {}
        }
    }
}

/// The code that a shell would report: 128 and the signal's number for a command that a signal has ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// A folder that is removed at the end.
pub(super) struct TemporaryFolder {
    /// Where it is.
    pub(super) path: PathBuf,
}

impl TemporaryFolder {
    pub(super) fn make() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;

        let path = mkdtemp(&env::temp_dir().join("plumecast-dev-db-XXXXXX"))?;
        // Root hands over to an ordinary user, who has to pass through.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self { path })
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_the_code_that_a_shell_reports() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), ExitCode::from(3));
        assert_eq!(exit_code(ExitStatus::from_raw(15)), ExitCode::from(128 + 15));
    }
}
