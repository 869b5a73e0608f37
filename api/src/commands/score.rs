//! `plumecast score`: stored forecasts against what came.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use crate::config::DatabaseConfig;
use crate::drift::{self, DriftPolicy};
use crate::progress::{is_stopped, stop_on_interrupt};
use crate::registry;
use crate::scoring;

/// Score the stored forecasts of a panel by the values that are known by now, and tell whether they have become worse.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Look at all values from this time on (RFC 3339); at what is new when not given: forecasts that were never scored, and those
    /// that end at most 30 days and twice their length before the newest value.
    #[arg(long, value_name = "TIME")]
    pub since: Option<DateTime<Utc>>,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Scores, and says how much. Ctrl-C keeps what is scored.
///
/// # Errors
/// When the panel is unknown, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let database = super::open(&args.database).await?;
    stop_on_interrupt();
    let tell = |_| if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let now = Utc::now();
    let done = async {
        let panel = registry::find_panel(database.pool(), &args.panel).await?;
        let scored = match args.since {
            Some(since) => scoring::score(database.pool(), &panel, Some(since)..None, now, tell).await?,
            None => scoring::score_new(database.pool(), &panel, now, tell).await?,
        };
        let mut connection = database.pool().acquire().await?;
        let events = drift::watch(&mut connection, &panel, &DriftPolicy::default(), now).await?;
        Ok::<_, crate::Error>((scored, events))
    }
    .await;
    database.close().await;
    let (scored, events) = done?;
    let mut lines = vec![format!("{} values scored, {} forecasts completely", scored.n_values, scored.n_forecasts)];
    lines.extend(events.iter().map(|event| format!("drift ({}): {}", event.kind, event.message)));
    Ok(super::say(&lines.join("\n"))?)
}
