//! `plumecast retain`: removes what is old.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use chrono::{DateTime, Utc};

use crate::config::DatabaseConfig;
use crate::progress::{is_stopped, stop_on_interrupt};
use crate::retention::{Retained, Retention, RetentionPolicy};

/// Remove what is older than a policy says, or say what that would be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TOML file with the policy: `keep`, `panels`, `export`.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,

    /// Say what would go, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Ages count from this instant (RFC 3339); from now when not given.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Removes, and says what. Ctrl-C ends it after what is being done.
///
/// # Errors
/// When the policy cannot be read or is wrong, a file cannot be written, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let path = args.policy.display();
    let text = std::fs::read_to_string(&args.policy).with_context(|| format!("reading {path}"))?;
    let policy: RetentionPolicy = toml::from_str(&text).with_context(|| format!("reading {path}"))?;
    let database = super::open(&args.database).await?;
    stop_on_interrupt();
    let now = Utc::now();
    let artefacts = args.database.artefacts()?;
    let retention = Retention {
        pool: database.pool(),
        data_dir: &args.database.data_dir,
        artefacts: &artefacts,
        policy: &policy,
        // What lies ahead is not old, whatever is asked for.
        now: args.as_of.map_or(now, |as_of| as_of.min(now)),
        is_dry: args.dry_run,
    };
    let tell = |_: &str| if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let done = retention.run(tell).await;
    database.close().await;
    Ok(super::say(&lines(&done?, args.dry_run).join("\n"))?)
}

fn lines(retained: &Retained, is_dry: bool) -> Vec<String> {
    let goes = if is_dry { "would go" } else { "gone" };
    let mut lines: Vec<String> = [
        (retained.n_trajectories, "trajectories of", "forecasts"),
        (retained.n_forecasts, "quantiles of", "forecasts"),
        (retained.n_scores, "scores and records of", "forecasts"),
        (retained.n_observations, "", "observations"),
        (retained.n_models, "", "models"),
        (retained.n_jobs, "", "jobs"),
        (retained.n_loads, "", "loads"),
    ]
    .into_iter()
    .map(|(n, of, what)| format!("{goes}: {of}{}{n} {what}", if of.is_empty() { "" } else { " " }))
    .collect();
    if !retained.partitions.is_empty() {
        let (n, megabytes) = (retained.partitions.len(), retained.partition_bytes as f64 / 1e6);
        let verb = if is_dry { "would be dropped" } else { "were dropped" };
        lines.push(format!("{n} partitions of {megabytes:.1} MB {verb}: {}", retained.partitions.join(", ")));
    }
    if !retained.busy.is_empty() {
        lines.push(format!("used by others, left for the next run: {}", retained.busy.join(", ")));
    }
    lines.extend(retained.files.iter().map(|file| format!("wrote {file}")));
    lines
}
