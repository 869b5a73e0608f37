//! `plumecast train`: a model of a stored panel.

use std::path::PathBuf;

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::{SampleConfig, TrainConfig};

use crate::companions::{self, Companions};
use crate::config::{DatabaseConfig, DeviceConfig};
use crate::db::{self, DEFAULT_TENANT};
use crate::progress::{Display, stop_on_interrupt};
use crate::training::{self, Sources, TestWindows};
use crate::warm_start::{self, WarmStart};
use crate::{table, telemetry};

/// Train a model of a panel and make it the panel's champion.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Steps to learn; any other horizon can be forecast later.
    #[arg(long, value_name = "STEPS")]
    pub horizon: usize,

    /// Minutes to train.
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    pub train_minutes: f64,

    /// Optimiser steps to train instead of minutes: the same on every run.
    #[arg(long, value_name = "STEPS", conflicts_with = "train_minutes")]
    pub train_steps: Option<usize>,

    /// The network and how it learns, a TOML file; by default both are chosen by the panel.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,

    /// Begin with the weights of a model: `champion`, a version, or another panel's as `name/3`. Its shapes have to be the same (but for
    /// the number of series where its tokens are of single ones), and enough must have come since it was trained; otherwise training
    /// begins with nothing and says why.
    #[arg(long, value_name = "MODEL", value_parser = model_name)]
    pub from: Option<String>,

    /// Other panels of the same frequency that the network learns from too; may be given more than once.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub companions: Vec<String>,

    /// Windows at the end of the data that are kept out of training and scored.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub test_windows: usize,

    /// Seed of weights, windows and noise.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Use only what was known at this instant (RFC 3339); now when not given.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,

    /// Register the model as a candidate and leave the champion as it is.
    #[arg(long)]
    pub candidate: bool,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

fn model_name(text: &str) -> Result<String, &'static str> {
    let message = "give `champion`, a version, or one of them after the name of a panel and `/`";
    warm_start::is_name(text).then(|| text.to_owned()).ok_or(message)
}

/// Trains and registers a model.
///
/// # Errors
/// When the panel is unknown or too short, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(violation) = companions::violation(&args.panel, &args.companions) {
        anyhow::bail!("--companions {}", violation.message);
    }
    let device = args.device.open()?;
    let database = super::open(&args.database).await?;
    let (pool, artefacts) = (database.pool(), args.database.artefacts()?);
    let data = training::read(pool, &args.panel, args.as_of.unwrap_or_else(Utc::now)).await?;
    let n_rows = data.values.n_rows_before(args.test_windows, args.horizon);
    let data = data.find_holidays(n_rows).await?;
    data.found_holidays.iter().for_each(telemetry::note);
    let history = data.values.history()?;
    let network = super::network(args.network.as_deref(), args.horizon)?;
    let budget = training::budget(args.train_steps, args.train_minutes);
    let config = TrainConfig { network, ..TrainConfig::new(args.horizon, budget, args.seed) };
    let sample = SampleConfig { seed: args.seed, ..SampleConfig::default() };
    let test = TestWindows { n_windows: args.test_windows, sample };
    let from = match &args.from {
        Some(from) => Some(WarmStart::load(pool, &artefacts, &device, &data, from).await?),
        None => None,
    };
    let sources = Sources { from, companions: Companions::read(pool, &args.companions, &data, n_rows).await? };
    stop_on_interrupt();
    let mut display = Display::new(&args.panel);
    let (training_config, panel, store) = (config.clone(), args.panel.clone(), artefacts.clone());
    let trained = tokio::task::spawn_blocking(move || {
        training::train(&history, &training_config, &sources, &test, &store, &device, &mut |progress| {
            display.show(progress)
        })
    })
    .await
    .context("training")?
    .with_context(|| format!("no model of panel `{panel}` was trained"))?;
    for line in trained.beginning_told() {
        telemetry::note(format_args!("{line}"));
    }
    let mut transaction = pool.begin().await?;
    let model = training::register(&mut transaction, pool, &artefacts, &data, &config, &trained).await?;
    if !args.candidate {
        db::model::promote(&mut *transaction, DEFAULT_TENANT, model.model_id, "trained by `plumecast train`").await?;
    }
    transaction.commit().await?;
    let stage = if args.candidate { "candidate" } else { "champion" };
    println!("model {} of panel `{}` (version {}) is {stage}", model.model_id, args.panel, model.version);
    println!("{}", serde_json::to_string_pretty(&trained.fitted.report)?);
    if !trained.scores.is_empty() {
        println!("{}", table::scores(&trained.scores));
    }
    database.close().await;
    Ok(())
}
