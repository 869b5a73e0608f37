//! The process of a job: `plumecast run-job`, started by a worker for one attempt.
//!
//! A process can be stopped at any moment, whatever it computes, and takes its memory along; it can be given less of the
//! processors than the service beside it; and if it dies, nothing else does. The worker tells it what to do in one line on
//! its standard input, and keeps that open: when the worker dies, the input ends, and the process ends itself.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::Settings;
use crate::db::job::queue::Lease;

/// The hidden command that is such a process.
pub const COMMAND: &str = "run-job";

/// How long it takes at most until the end of a process is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// Which job, under which lease.
    pub lease: Lease,
    /// The configuration.
    pub settings: Settings,
}

impl Assignment {
    fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// How much of the machine a process gets.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// How much it yields to others, 0 to 19.
    pub niceness: i32,
    /// Processors that it may use; all when `None`.
    pub n_threads: Option<usize>,
}

/// A running process. Dropping it ends the process.
#[derive(Debug)]
pub struct Process {
    /// Dropping it tells the thread that looks after the process to kill it.
    _kill: Sender<()>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Process {
    /// Starts the process of an assignment; `changed` is notified when it ends.
    #[must_use]
    pub fn start(program: &OsStr, assignment: &Assignment, share: Share, changed: Arc<Notify>) -> Self {
        let line = assignment.line();
        let mut command = Command::new(program);
        // Ctrl-C in a terminal reaches a whole group of processes; the worker hands jobs back in its own way.
        command.arg0("plumecast").arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        // The name of its connections, in place of that of a service.
        command.env("PGAPPNAME", "plumecast job");
        let (kill, killed) = channel();
        let (end, ended) = oneshot::channel();
        // Where the system gives no thread, `end` goes away with the work, and that is how it ended.
        let _ = thread::Builder::new().name("job".to_owned()).spawn(move || {
            let _ = end.send(line.and_then(|line| look_after(command, &line, share, &killed)));
            changed.notify_one();
        });
        Self { _kill: kill, ended }
    }

    /// How the process ended, if it has; an error when it could not be started.
    pub fn exit_status(&mut self) -> Option<io::Result<ExitStatus>> {
        match self.ended.try_recv() {
            Ok(ended) => Some(ended),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(io::Error::other("the system gave no thread"))),
        }
    }

    /// Ends the process at once, and waits until it has.
    pub async fn kill(self) {
        let Self { _kill, ended } = self;
        drop(_kill);
        let _ = ended.await;
    }
}

/// Starts the process and waits for its end, or kills it.
fn look_after(mut command: Command, line: &[u8], share: Share, killed: &Receiver<()>) -> io::Result<ExitStatus> {
    // The process inherits both from this thread, with all threads that it will have.
    yield_to_others(share.niceness);
    if let Some(n_threads) = share.n_threads {
        limit_processors(n_threads)?;
    }
    let mut child = command.spawn()?;
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        // A process that has died already is noticed below.
        let _ = input.write_all(line);
    }
    loop {
        let is_over = killed.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Disconnected);
        if is_over {
            child.kill()?;
            return child.wait();
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
    }
}

/// Gives this thread, and what it starts, a lower priority.
#[expect(unsafe_code, reason = "the standard library cannot ask for it")]
fn yield_to_others(niceness: i32) {
    // SAFETY: a system call that takes a number and touches no memory. It cannot be refused: anybody may be nicer.
    unsafe { libc::nice(niceness) };
}

/// Keeps this thread, and what it starts, to the last `n` of the processors that it may use.
fn limit_processors(n: usize) -> nix::Result<()> {
    let this_thread = Pid::from_raw(0);
    let all = sched_getaffinity(this_thread)?;
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|&index| all.is_set(index).unwrap_or(false)).collect();
    let mut few = CpuSet::new();
    for &index in usable.iter().rev().take(n.max(1)) {
        few.set(index)?;
    }
    sched_setaffinity(this_thread, &few)
}

/// In the process itself: reads the assignment from standard input, and sees to it that the process ends with the worker.
///
/// # Errors
/// When there is no assignment: the command is not for people.
pub fn read_assignment() -> io::Result<Assignment> {
    let mut input = io::BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let assignment = serde_json::from_str(&line)?;
    thread::Builder::new().name("worker watch".to_owned()).spawn(move || {
        // Nothing more is ever written: this returns when the worker has closed the input, or died.
        let _ = input.read_to_end(&mut Vec::new());
        let _ = kill(getpid(), Signal::SIGKILL);
    })?;
    Ok(assignment)
}
