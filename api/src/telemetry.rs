//! Logging: one subscriber for the process, set once by the program.
//!
//! Log lines go to standard error. A failure is logged once, where it is handled. Field names are
//! the same everywhere: `panel`, `series`, `model.id`, `forecast.id`, `issue_time`, `request.id`,
//! `duration_ms`.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What a service logs: everything from `info` up from this program, warnings from the libraries.
pub const SERVICE: &str = "warn,api=info,plumecast=info,ingest=info,forecast=info";
/// What a command logs that talks to a person on its own.
pub const QUIET: &str = "warn";

/// Starts logging. `RUST_LOG` chooses what is logged, `default` when it is not set. A second call changes nothing.
pub fn init(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // What cannot be logged is lost. By default the failure itself is printed to standard error, which panics when that is
        // what has gone away, at whatever place logs next.
        .log_internal_errors(false);
    // An error means that a subscriber stands already (a test's), which is then the one to keep.
    let _ = match format {
        LogFormat::Text => subscriber.compact().with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// Tells a person something on standard error. Where nobody reads it any more, nothing happens; `eprintln!` would panic.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
