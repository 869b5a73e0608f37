//! `plumecast anomalies`: how odd each value of a file is, judged by what came before it. Needs no database.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::anomaly::{Anomalies, Anomaly, AnomalyConfig, Comparison, JointAnomaly, anomalies};
use ingest::{Panel, PanelConfig};

use super::load::{FileArgs, print_report};
use crate::config::DeviceConfig;
use crate::progress::{Display, stop_on_interrupt};
use crate::{telemetry, training};

/// Fewest rows that calibrate: below this not even a p-value of 0.05 could be told.
const N_CALIBRATE_MIN: usize = 20;
/// Values with a p-value below this are counted and shown.
const P_VALUE_SHOWN: f64 = 1e-4;
const N_SHOWN: usize = 10;

/// Score how odd the values of a file are, each by a model of the rows before it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV, gzipped CSV or Parquet; wide (a column per series) or long.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,

    /// How the file is read.
    #[command(flatten)]
    pub reading: FileArgs,

    /// Share of the rows, from the first one on, that training and calibration see. The rows after them are scored.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, conflicts_with = "train_until")]
    pub train_share: f64,

    /// First time that training and calibration do not see (RFC 3339), instead of a share.
    #[arg(long, value_name = "TIME")]
    pub train_until: Option<DateTime<Utc>>,

    /// Share of these rows that calibrate: the last of them, which the model does not learn from.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    pub calibrate_share: f64,

    /// Whether scores are compared with those of the calibration alone (`fixed`: what was odd once stays odd) or with all
    /// before them (`running`: what goes on for long becomes normal).
    #[arg(long, value_enum, default_value_t = ComparisonArg::Running)]
    pub comparison: ComparisonArg,

    /// Minutes to train.
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    pub train_minutes: f64,

    /// Optimiser steps to train instead of minutes: the same on every run. 0 leaves the Gaussian model alone.
    #[arg(long, value_name = "STEPS", conflicts_with = "train_minutes")]
    pub train_steps: Option<usize>,

    /// Seed of training and scoring.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// CSV to write: time, series, value, expected, score, p_value, log_likelihood, denoising_error.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What scores are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ComparisonArg {
    /// The scores of the rows that calibrate.
    Fixed,
    /// The scores of all rows before, from the calibration on.
    Running,
}

/// Scores the file and writes the result.
///
/// # Errors
/// When the file cannot be used, is too short, or the result cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    stop_on_interrupt();
    tokio::task::spawn_blocking(move || score_file(&args)).await.context("scoring the file")?
}

fn score_file(args: &Args) -> anyhow::Result<()> {
    let loaded = ingest::load(&args.data, &args.reading.load_config())
        .with_context(|| format!("nothing was loaded from {}", args.data.display()))?;
    print_report(&loaded);
    let config = PanelConfig {
        holidays: args.reading.holidays,
        ..PanelConfig::new(super::panel_name(&args.data), loaded.frequency, loaded.time_zone)
    };
    let mut panel = Panel::from_frame(config, &loaded.frame)?;
    let config = split(args, &panel)?;
    panel.find_holidays(config.n_learn).into_iter().for_each(telemetry::note);
    let history = panel.history()?;
    let device = args.device.open()?;
    let mut display = Display::new(panel.name());
    let result = anomalies(&history, &config, &device, &mut |progress| display.show(progress));
    drop(display);
    let result = result.context("the values could not be scored")?;
    write(&args.out, &panel, &result).with_context(|| format!("writing {}", args.out.display()))?;
    Ok(super::say(&summary(&panel, &config, &result))?)
}

/// Parts the rows into those that are learned from, those that calibrate, and those that are scored.
fn split(args: &Args, panel: &Panel) -> anyhow::Result<AnomalyConfig> {
    for (flag, share) in [("--train-share", args.train_share), ("--calibrate-share", args.calibrate_share)] {
        anyhow::ensure!(share > 0.0 && share < 1.0, "{flag} must lie between 0 and 1");
    }
    let n_steps = panel.n_steps();
    let n_train = match args.train_until {
        Some(time) => usize::try_from(panel.issue_row(time)).unwrap_or(0).min(n_steps),
        None => (args.train_share * n_steps as f64) as usize,
    };
    anyhow::ensure!(n_train < n_steps, "there is no row after those of the training to be scored");
    let n_calibrate = (args.calibrate_share * n_train as f64) as usize;
    anyhow::ensure!(
        n_calibrate >= N_CALIBRATE_MIN,
        "{n_calibrate} rows are too few to calibrate on, at least {N_CALIBRATE_MIN} are needed: train on more rows, or \
         raise --calibrate-share"
    );
    let budget = training::budget(args.train_steps, args.train_minutes);
    let comparison = match args.comparison {
        ComparisonArg::Fixed => Comparison::Fixed,
        ComparisonArg::Running => Comparison::Running,
    };
    Ok(AnomalyConfig { n_learn: n_train - n_calibrate, n_calibrate, comparison, budget, seed: args.seed })
}

fn write(path: &Path, panel: &Panel, result: &Anomalies) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "time,series,value,expected,score,p_value,log_likelihood,denoising_error")?;
    for (offset, row) in result.rows.iter().enumerate() {
        let step = result.first_row + offset;
        let time = panel.valid_time(step).to_rfc3339();
        for (series, (name, element)) in panel.series().iter().zip(&row.elements).enumerate() {
            let (name, value) = (super::quoted(name), panel.values().get(step, series));
            match element {
                Some(Anomaly { expected, score, p_value, log_likelihood, denoising_error }) => writeln!(
                    file,
                    "{time},{name},{value},{expected},{score},{p_value:e},{log_likelihood},{denoising_error}"
                )?,
                None => writeln!(file, "{time},{name},,,,,,")?,
            }
        }
        if let Some(joint) = row.joint.filter(|_| panel.series().len() > 1) {
            let JointAnomaly { score, p_value, log_likelihood, denoising_error } = joint;
            writeln!(file, "{time},,,,{score},{p_value:e},{log_likelihood},{denoising_error}")?;
        }
    }
    file.flush()
}

/// What was done, and the oddest values.
fn summary(panel: &Panel, config: &AnomalyConfig, result: &Anomalies) -> String {
    let mut odd: Vec<(f64, usize, usize)> = result
        .rows
        .iter()
        .enumerate()
        .flat_map(|(row, scored)| {
            let anomalies = scored.elements.iter().enumerate();
            anomalies.filter_map(move |(series, element)| element.map(|anomaly| (anomaly.p_value, row, series)))
        })
        .collect();
    let n_scored = odd.len();
    odd.retain(|(p_value, ..)| *p_value < P_VALUE_SHOWN);
    odd.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lines = vec![format!(
        "learned from {} rows, calibrated on {}, scored {}: {} of {n_scored} values have a p-value below {P_VALUE_SHOWN:e}",
        config.n_learn,
        config.n_calibrate,
        result.rows.len(),
        odd.len(),
    )];
    for &(p_value, row, series) in odd.iter().take(N_SHOWN) {
        let step = result.first_row + row;
        let expected = result.rows[row].elements[series].map_or(0.0, |anomaly| anomaly.expected);
        lines.push(format!(
            "  {} {:20} {:>12.4} expected {expected:>12.4} p {p_value:.1e}",
            panel.valid_time(step).to_rfc3339(),
            panel.series()[series],
            panel.values().get(step, series),
        ));
    }
    lines.join("\n")
}
