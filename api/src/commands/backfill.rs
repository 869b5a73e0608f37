//! `plumecast backfill`: forecasts for issue times of the past.

use anyhow::Context;
use chrono::{DateTime, Utc};

use crate::backfilling::{self, Made, Period, Plan};
use crate::config::{DatabaseConfig, DeviceConfig, Limits};
use crate::database::Database;
use crate::forecaster::Order;
use crate::metrics::Metrics;
use crate::predictor::Predictor;
use crate::progress::{is_stopped, stop_on_interrupt};
use crate::routes::forecasts::request::ForecastRequest;
use crate::telemetry;

/// Make and store forecasts for issue times of the past, each from what was known then; those that are stored are not made again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Steps to forecast.
    #[arg(long, value_name = "STEPS")]
    pub horizon: usize,

    /// The first issue time is the start of the first interval from here on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub start: DateTime<Utc>,

    /// The last one is before this (RFC 3339); before now when not given.
    #[arg(long, value_name = "TIME")]
    pub end: Option<DateTime<Utc>>,

    /// Steps of the panel from one issue time to the next.
    #[arg(long, value_name = "STEPS", default_value_t = 1)]
    pub every: usize,

    /// Trajectories to draw.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub num_samples: usize,

    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// What may be asked for.
    #[command(flatten)]
    pub limits: Limits,
}

/// Makes the forecasts, and says how many. Ctrl-C keeps what is made; the same command goes on from there.
///
/// # Errors
/// When the panel or its model is missing, there are too many issue times, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let request: ForecastRequest = serde_json::from_value(serde_json::json!({
        "panel": args.panel, "horizon": args.horizon, "num_samples": args.num_samples, "seed": args.seed,
    }))?;
    let order = request.order(&args.limits)?;
    let database = super::open(&args.database).await?;
    stop_on_interrupt();
    let done = backfill(args, &order, &database).await;
    database.close().await;
    Ok(super::say(&done?)?)
}

async fn backfill(args: &Args, order: &Order, database: &Database) -> anyhow::Result<String> {
    let (pool, now) = (database.pool(), Utc::now());
    let end = args.end.map_or(now, |end| end.min(now));
    let period = Period { start: args.start, end, every: args.every.max(1) };
    let Plan { issue_times, mut n_stored } = backfilling::plan(pool, order, &period).await?;
    let metrics = Metrics::new().context("setting up the metrics")?;
    let device = args.device.open()?;
    let predictor = Predictor::start(args.database.artefacts()?, 1, 1, device, metrics.clone())
        .context("starting the model thread")?;
    let n_all = issue_times.len();
    let (mut n_made, mut n_unknown, mut n_left) = (0, 0, n_all);
    for (index, issue_time) in issue_times.into_iter().enumerate() {
        if is_stopped() {
            break;
        }
        telemetry::note(format_args!("{} of {n_all}: {}", index + 1, issue_time.to_rfc3339()));
        match backfilling::make(pool, &predictor, &metrics, order, issue_time, now).await? {
            Made::Forecast(transaction) => {
                transaction.commit().await?;
                n_made += 1;
            }
            Made::Stored => n_stored += 1,
            Made::NoObservations => n_unknown += 1,
        }
        n_left -= 1;
    }
    let left = match n_left {
        0 => String::new(),
        n_left => format!("; {n_left} are left"),
    };
    Ok(format!("{n_made} forecasts made, {n_stored} were stored, {n_unknown} without observations{left}"))
}
