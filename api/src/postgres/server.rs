//! The server process: its data folder, its start, its end.
//!
//! It stops with us, whatever happens. At an orderly end we tell it; when we are killed, the kernel does
//! (`PR_SET_PDEATHSIG`). Either way it gets SIGINT, the fast shutdown: clients are disconnected, everything is written,
//! nothing has to be recovered.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

use super::account::Account;
use super::installation::Installation;
use super::layout::Layout;
use super::{Config, Error, NAME, POLL_INTERVAL, PORT};

/// How long a fast shutdown may take; it writes everything that is in memory.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Makes the data folder. It appears under its name only when it is complete, so that an interrupted attempt leaves
/// nothing that looks like one.
pub(super) fn initialise(installation: &Installation, layout: &Layout, is_throwaway: bool) -> Result<(), Error> {
    layout.account.check_name()?;
    let incomplete = layout.data.with_extension("incomplete");
    gone(fs::remove_dir_all(&incomplete), &incomplete)?;

    let program = installation.program("initdb");
    let mut command = command(&program, layout.account);
    command
        .arg("--pgdata")
        .arg(&incomplete)
        // Who may really connect says `Layout::write_access`.
        .args(["--username", NAME, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"])
        .arg("--no-instructions");
    if is_throwaway {
        command.arg("--no-sync");
    }
    let output = command.output().map_err(|source| Error::io("run", &program, source))?;
    if !output.status.success() {
        let output_text = [output.stdout, output.stderr].concat();
        return Err(Error::Initdb {
            status: output.status,
            output: String::from_utf8_lossy(&output_text).trim_end().to_owned(),
        });
    }
    fs::rename(&incomplete, &layout.data).map_err(|source| Error::io("rename", &incomplete, source))
}

/// A server that this process has started. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts the server; it does not accept connections yet.
    pub fn spawn(installation: &Installation, layout: &Layout, config: &Config) -> Result<Self, Error> {
        layout.write_access(config.listen.as_ref())?;
        let log = layout.open_log()?;
        let log_again = log.try_clone().map_err(|source| Error::io("open", &layout.log, source))?;

        let program = installation.program("postgres");
        let mut command = command(&program, layout.account);
        let (addresses, port) = match &config.listen {
            Some(listen) => (listen.address.ip().to_string(), listen.address.port()),
            None => (String::new(), PORT),
        };
        command.arg("-D").arg(&layout.data).arg("-k").arg(&layout.socket_dir).args(["-p", &port.to_string()]);
        command.args(["-c", &format!("listen_addresses={addresses}")]);
        let mut access = OsString::from("hba_file=");
        access.push(&layout.access);
        command.arg("-c").arg(access);
        let mut settings = vec![
            "unix_socket_permissions=0700",
            "cluster_name=plumecast",
            "timezone=UTC",
            "log_timezone=UTC",
            "log_line_prefix=%m [%p] ",
            "logging_collector=off",
            "log_destination=stderr",
            // Our queries are short: compiling them takes longer than running them.
            "jit=off",
        ];
        if config.is_throwaway {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        command
            .stdout(log)
            .stderr(log_again)
            // Ctrl-C in a terminal reaches a whole group of processes. The server is to outlive our own orderly end.
            .process_group(0);
        stop_with_parent(&mut command);

        let child = command.spawn().map_err(|source| Error::io("run", &program, source))?;
        Ok(Self { child })
    }

    /// How the server ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process identifiers are positive i32"));
        // After the second signal the server writes nothing more, and the next start recovers from its log.
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            if self.exit_status().is_some() {
                return;
            }
            let _ = kill(pid, signal);
            let started = Instant::now();
            while self.exit_status().is_none() && started.elapsed() < STOP_LIMIT {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program of PostgreSQL, run as the account.
fn command(program: &Path, account: Account) -> Command {
    let mut command = Command::new(program);
    // The current folder may be one that the account cannot enter.
    command.current_dir("/").stdin(Stdio::null());
    for variable in ["PGDATA", "PGPORT", "PGDATESTYLE", "PGCLIENTENCODING", "PGTZ", "PGOPTIONS"] {
        command.env_remove(variable);
    }
    if account.is_other {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Lets the kernel send SIGINT to the process when the thread that starts it ends.
#[expect(unsafe_code, reason = "only between fork and exec can a process ask for the signal itself")]
fn stop_with_parent(command: &mut Command) {
    let parent = getpid();
    let ask = move || {
        prctl::set_pdeathsig(Signal::SIGINT)?;
        // We may have died before it asked.
        if getppid() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: `ask` makes two system calls, both async-signal-safe, and does not allocate. The standard library changes
    // the user before it calls `ask`; that order matters, because a change of user would clear the request.
    unsafe { command.pre_exec(ask) };
}

/// Makes sure that no server runs on the data folder, now that the lock is ours.
///
/// One of our own, told to stop when its owner died, is waited for. One that somebody else started is an error. A pid
/// file that a server left behind, and whose number now belongs to another program, would keep the new server from
/// starting, so it is removed; in all other cases the server itself decides about it.
pub(super) async fn stop_leftover(layout: &Layout) -> Result<(), Error> {
    let pid_file = layout.data.join("postmaster.pid");
    let started = Instant::now();

    loop {
        let Some((pid, socket_dir)) = read_pid_file(&pid_file) else { return Ok(()) };
        let servers = processes_in(&layout.data);

        if servers.is_empty() {
            if Path::new("/proc").join(pid.to_string()).exists() {
                // A server of ours that was just ending may have done so itself.
                gone(fs::remove_file(&pid_file), &pid_file)?;
            }
            return Ok(());
        }

        // Where the server itself is gone, its children end as soon as they notice.
        let is_foreign = servers.contains(&pid) && socket_dir != layout.socket_dir;
        if is_foreign || started.elapsed() > STOP_LIMIT {
            return Err(Error::OtherServer { data: layout.data.clone(), pid });
        }
        if servers.contains(&pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// What came of removing something: what was not there any more is gone, too.
fn gone(removed: io::Result<()>, path: &Path) -> Result<(), Error> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// The number of the server and the folder of its socket, by its pid file.
fn read_pid_file(path: &Path) -> Option<(i32, PathBuf)> {
    let text = fs::read_to_string(path).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    let socket_dir = text.lines().nth(4).unwrap_or_default();
    Some((pid, PathBuf::from(socket_dir.trim())))
}

/// The port of the server that runs on the data folder, by its pid file.
pub(super) fn running_port(layout: &Layout) -> Option<u16> {
    let text = fs::read_to_string(layout.data.join("postmaster.pid")).ok()?;
    text.lines().nth(3)?.trim().parse().ok()
}

/// The processes that work in the data folder: a server and its children do, and nobody else.
fn processes_in(data: &Path) -> Vec<i32> {
    let works_here = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(works_here)
        .collect()
}
