//! `plumecast backtest`: trains on a file, tests on its last windows. Needs no database.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;
use forecast::backtest::{Backtest, BacktestConfig, backtest, score_windows};
use forecast::metrics::WindowSums;
use forecast::schedule::PASSES_DEFAULT;
use forecast::{Bounds, Device, History, Means, NetworkConfig, Progress, SampleConfig, Schedule, TrainConfig, paper};
use ingest::{Holidays, Loaded, Panel, PanelConfig, trajectories};
use serde::Serialize;
use serde_json::{Value, json};

use super::load::{FileArgs, print_report};
use crate::companions;
use crate::config::DeviceConfig;
use crate::curves::{self, Curves};
use crate::page::report::Report;
use crate::progress::{Display, stop_on_interrupt};
use crate::{schedule, table, telemetry, training};

/// Train on a file and score forecasts of its last windows against the numbers to beat.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV, gzipped CSV or Parquet; wide (a column per series) or long.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,

    /// How the file is read.
    #[command(flatten)]
    pub reading: FileArgs,

    /// Steps of a window.
    #[arg(long, value_name = "STEPS")]
    pub horizon: usize,

    /// Steps that the model is trained for; by default those of a window. A longer window is forecast by rolling on.
    #[arg(long, value_name = "STEPS")]
    pub train_horizon: Option<usize>,

    /// Windows of the test; they follow each other and end with the data. Nothing of them is seen in training.
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub windows: usize,

    /// Trajectories of each window.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub samples: usize,

    /// Minutes to train.
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    pub train_minutes: f64,

    /// Optimiser steps to train instead of minutes: the same on every run.
    #[arg(long, value_name = "STEPS", conflicts_with = "train_minutes")]
    pub train_steps: Option<usize>,

    /// The model that is trained.
    #[arg(long, value_enum, default_value_t = ModelConfig::Default)]
    pub config: ModelConfig,

    /// The network of the default model and how it learns, a TOML file; by default both are chosen by the panel.
    #[arg(long, value_name = "FILE")]
    pub network: Option<PathBuf>,

    /// Files of other panels that the network of the default model learns from too, read as the first one and up to its test; may be
    /// given more than once.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub companions: Vec<PathBuf>,

    /// Denoising passes of a token of the default model.
    #[arg(long, value_name = "N", default_value_t = PASSES_DEFAULT)]
    pub passes: usize,

    /// Order in which tokens of the default model are denoised: `autoregressive`, `full`, `pyramid:SLOPE` or `blocks:SIZE`.
    #[arg(long, value_parser = schedule_of, default_value = "autoregressive")]
    pub schedule: Schedule,

    /// Standard deviation of the error that the network of the default model is told drawn values to have, in standard deviations of an
    /// innovation.
    #[arg(long, value_name = "SD", default_value_t = 0.0)]
    pub stabilization: f64,

    /// Seed of training and sampling.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// No value of any series is below this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub lower_bound: Option<f64>,

    /// No value of any series is above this.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub upper_bound: Option<f64>,

    /// Series that are covariates whose future is known; the test sees what became of it.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub known: Vec<String>,

    /// Series that are covariates of which only the past helps.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub past: Vec<String>,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Folder for metrics.json, report.html, trajectories.parquet and training.jsonl; created.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

impl Args {
    fn trained_horizon(&self) -> usize {
        self.train_horizon.unwrap_or(self.horizon)
    }
}

/// A model with all its sizes, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// What `train` trains.
    Default,
    /// The recurrent network of Chen et al. 2024 with its published numbers, to compare with; made for a GPU.
    Paper,
}

/// Runs the backtest and writes `metrics.json`, `report.html`, `trajectories.parquet` and `training.jsonl`.
///
/// # Errors
/// When the file cannot be used, is too short, or the results cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    stop_on_interrupt();
    tokio::task::spawn_blocking(move || backtest_file(&args)).await.context("running the backtest")?
}

fn backtest_file(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.config == ModelConfig::Default || (args.network.is_none() && args.companions.is_empty()),
        "--network and --companions are for the default model; that of --config paper is as published"
    );
    let network = super::network(args.network.as_deref(), args.trained_horizon())?;
    let device = args.device.open()?;
    let (mut panel, loaded) = read_panel(args, &args.data)?;
    anyhow::ensure!(
        panel.roles().is_empty() || args.config == ModelConfig::Default,
        "the model of --config paper takes no covariates"
    );
    let n_rows = panel.n_rows_before(args.windows, args.horizon);
    let found_holidays = match args.config {
        ModelConfig::Default => panel.find_holidays(n_rows),
        // The published network knows no calendar but its own.
        ModelConfig::Paper => None,
    };
    found_holidays.into_iter().for_each(telemetry::note);
    let until = panel.valid_time(n_rows);
    let companion = |path: &PathBuf| companions::history_beside(&panel, read_panel(args, path)?.0, until);
    let companions = args.companions.iter().map(companion).collect::<anyhow::Result<Vec<_>>>()?;
    let history = panel.history()?;
    // What is only planned is no part of the test.
    let panel = panel.rows(0..history.values.n_steps());
    fs::create_dir_all(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let (mut display, mut curves) = (Display::new(panel.name()), Curves::start());
    let result = train_and_test(args, &network, &history, &companions, &device, &mut |progress| {
        curves.record(progress);
        display.show(progress)
    });
    drop(display);
    let result = result.context("the backtest failed")?;

    let lines = curves.lines().context("writing the training curves")?;
    fs::write(args.out.join(curves::FILE_NAME), lines)
        .with_context(|| format!("writing {} in {}", curves::FILE_NAME, args.out.display()))?;
    let mut metrics = json!({
        "data": {
            "file": loaded.report.file, "n_steps": panel.n_steps(), "series": panel.series(),
            "frequency": loaded.report.frequency, "time_zone": loaded.report.time_zone,
            "holidays": panel.config().holidays, "found_holidays": found_holidays,
        },
        "config": args.config,
        "horizon": args.horizon, "train_horizon": args.trained_horizon(),
        "windows": args.windows, "samples": args.samples, "seed": args.seed,
        "training": result.report,
        "rows": result.rows,
        "comparisons": result.comparisons(),
        "window_scores": window_scores(&result),
        "reliability": result.reliability,
    });
    if args.config == ModelConfig::Default {
        metrics["sampling"] = json!({
            "passes": args.passes, "schedule": schedule::name(args.schedule), "stabilization": args.stabilization,
        });
        metrics["network"] = json!(network);
    }
    if !args.companions.is_empty() {
        metrics["companions"] = json!(args.companions);
    }
    if !panel.roles().is_empty() {
        metrics["data"]["roles"] = json!(panel.roles());
    }
    let path = args.out.join("metrics.json");
    fs::write(&path, serde_json::to_vec_pretty(&metrics)?).with_context(|| format!("writing {}", path.display()))?;
    let windows = result.trajectories.iter().enumerate().map(|(window, trajectories)| (window as i32, trajectories));
    let names = panel.series();
    let targets: Vec<String> = panel.targets().into_iter().map(|series| names[series].clone()).collect();
    trajectories::write_parquet(&args.out.join("trajectories.parquet"), windows, &targets)?;
    let report = Report {
        panel: &panel,
        horizon: args.horizon,
        rows: &result.rows,
        reliability: &result.reliability,
        trajectories: &result.trajectories,
        settings: &settings(args, &panel),
    };
    let page = args.out.join("report.html");
    fs::write(&page, report.html()?).with_context(|| format!("writing {}", page.display()))?;
    println!("{}\n\n{}", table::scores(&result.rows), table::comparisons(&result.comparisons()));
    println!("written: {}, report.html, trajectories.parquet and {}", path.display(), curves::FILE_NAME);
    Ok(())
}

/// Reads a file as the options say, and prints what was read.
fn read_panel(args: &Args, path: &Path) -> anyhow::Result<(Panel, Loaded)> {
    let loaded = ingest::load(path, &args.reading.load_config())
        .with_context(|| format!("nothing was loaded from {}", path.display()))?;
    print_report(&loaded);
    let bounds = Bounds { lower: args.lower_bound, upper: args.upper_bound };
    let config = PanelConfig {
        roles: super::roles(loaded.frame.series(), &args.known, &args.past)?,
        bounds: vec![bounds; loaded.frame.series().len()],
        holidays: args.reading.holidays,
        ..PanelConfig::new(super::panel_name(path), loaded.frequency, loaded.time_zone)
    };
    Ok((Panel::from_frame(config, &loaded.frame)?, loaded))
}

/// What was trained and tested how, for people.
fn settings(args: &Args, panel: &Panel) -> Vec<(&'static str, String)> {
    let zone = panel.time_zone();
    let time = |row: usize| panel.valid_time(row).with_timezone(&zone).format("%-d %B %Y, %H:%M %Z").to_string();
    let trained = match args.train_steps {
        Some(steps) => format!("{steps} steps of the optimiser"),
        None => format!("{} minutes", args.train_minutes),
    };
    let mut settings = vec![
        ("File", args.data.display().to_string()),
        (
            "Data",
            format!("{} steps of {}, {} to {}", panel.n_steps(), panel.frequency(), time(0), time(panel.n_steps() - 1)),
        ),
        ("Time zone", zone.to_string()),
        ("Public holidays", panel.config().holidays.unwrap_or(Holidays::NONE).to_string()),
        ("Test", format!("{} windows of {} steps", args.windows, args.horizon)),
        ("Trajectories", args.samples.to_string()),
        ("Trained for", trained),
        ("Seed", args.seed.to_string()),
    ];
    for (name, bound) in [("Lower bound", args.lower_bound), ("Upper bound", args.upper_bound)] {
        settings.extend(bound.map(|bound| (name, bound.to_string())));
    }
    for (name, series) in [("Known covariates", &args.known), ("Past covariates", &args.past)] {
        settings.extend((!series.is_empty()).then(|| (name, series.join(", "))));
    }
    settings
}

/// Trains and tests the model that was named; the record of its training is as it goes into `metrics.json`.
fn train_and_test(
    args: &Args,
    network: &NetworkConfig,
    history: &History,
    companions: &[History],
    device: &Device,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> anyhow::Result<Backtest<Value>> {
    let Args { passes, schedule, stabilization, .. } = *args;
    let sample = SampleConfig { n_samples: args.samples, seed: args.seed, passes, schedule, stabilization };
    let windows = BacktestConfig { horizon: args.horizon, n_windows: args.windows, sample };
    let budget = training::budget(args.train_steps, args.train_minutes);
    let horizon = args.trained_horizon();
    match args.config {
        ModelConfig::Default => {
            let train = TrainConfig { network: network.clone(), ..TrainConfig::new(horizon, budget, args.seed) };
            let means = Means { companions, ..Means::default() };
            recorded(backtest(history, &windows, &train, means, device, progress)?)
        }
        ModelConfig::Paper => {
            let windows = BacktestConfig { sample: SampleConfig { passes: paper::N_PASSES, ..sample }, ..windows };
            let train = paper::Config::new(horizon, budget, args.seed);
            let known = history.rows(0..windows.n_train(history)?);
            let fitted = paper::fit(&known, &train, device, progress)?;
            recorded(score_windows(history, &windows, &fitted)?)
        }
    }
}

/// The sums of each window by forecaster.
fn window_scores(found: &Backtest<Value>) -> BTreeMap<&str, &[WindowSums]> {
    found.rows.iter().zip(&found.windows).map(|(row, windows)| (row.model.as_str(), windows.as_slice())).collect()
}

fn schedule_of(name: &str) -> Result<Schedule, String> {
    schedule::parse(name).ok_or_else(|| format!("expected {}", schedule::FORMS))
}

fn recorded<R: Serialize>(found: Backtest<R>) -> anyhow::Result<Backtest<Value>> {
    let Backtest { rows, windows, reliability, trajectories, report } = found;
    Ok(Backtest { rows, windows, reliability, trajectories, report: serde_json::to_value(report)? })
}
