//! `plumecast impute`: the gaps of a stored panel, filled, without a running service.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::{QuantileLevel, SampleConfig};

use crate::config::{DatabaseConfig, DeviceConfig, Limits};
use crate::forecaster::imputation::{Imputation, ImputationOrder, impute};
use crate::metrics::Metrics;
use crate::predictor::Predictor;
use crate::routes::forecasts::request::SEED_MAX;
use crate::routes::imputation::summary;
use crate::telemetry;

/// Fill the gaps of a panel between two times, from what was observed before and after them. Nothing is stored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Earliest valid time of a gap (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub start: DateTime<Utc>,

    /// Valid time before which the gaps lie (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub end: DateTime<Utc>,

    /// Use what was known at this instant (RFC 3339). Now, when not given.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,

    /// Draws of each gap.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub num_samples: usize,

    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Quantile levels.
    #[arg(long, value_name = "LEVELS", value_delimiter = ',', default_value = "0.05,0.25,0.5,0.75,0.95")]
    pub quantiles: Vec<f64>,

    /// CSV file to write instead of printing: time, series, mean, and a column for each level.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

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

/// Fills the gaps and writes them as CSV.
///
/// # Errors
/// When the panel or its model is missing, a gap is too long, the database fails, or the file cannot be written.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let Limits { samples_max, cost_max, .. } = args.limits;
    anyhow::ensure!(
        (1..=samples_max).contains(&args.num_samples),
        "--num-samples must lie between 1 and {samples_max}"
    );
    anyhow::ensure!(args.seed <= SEED_MAX, "--seed must lie between 0 and {SEED_MAX}");
    anyhow::ensure!(args.start < args.end, "--end must be after --start");
    let mut levels: Vec<QuantileLevel> =
        args.quantiles.iter().map(|&level| QuantileLevel::new(level)).collect::<Result<_, _>>()?;
    levels.sort_by(|a, b| a.value().total_cmp(&b.value()));
    levels.dedup();

    let device = args.device.open()?;
    let database = super::open(&args.database).await?;
    let metrics = Metrics::new().context("setting up the metrics")?;
    let predictor = Predictor::start(args.database.artefacts()?, 1, 1, device, metrics.clone())
        .context("starting the model thread")?;
    let order = ImputationOrder {
        panel: args.panel.clone(),
        start: args.start,
        end: args.end,
        as_of: args.as_of.unwrap_or_else(Utc::now),
        sampling: SampleConfig { n_samples: args.num_samples, seed: args.seed, ..SampleConfig::default() },
        cost_max,
    };
    let imputation = impute(database.pool(), &predictor, &metrics, &order).await?;
    database.close().await;
    for warning in &imputation.warnings {
        telemetry::note(format_args!("warning {}: {}", warning.code, warning.message));
    }
    let lines = csv(&imputation, &levels);
    match &args.out {
        Some(path) => {
            let write = || -> std::io::Result<()> {
                let mut file = BufWriter::new(File::create(path)?);
                lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
                file.flush()
            };
            write().with_context(|| format!("writing {}", path.display()))?;
            Ok(super::say(&format!("{} gaps written to {}", lines.len() - 1, path.display()))?)
        }
        None => Ok(super::say(&lines.join("\n"))?),
    }
}

/// A line for the names, and one for each gap.
fn csv(imputation: &Imputation, levels: &[QuantileLevel]) -> Vec<String> {
    let names: String = levels.iter().map(|level| format!(",q{}", level.value())).collect();
    let mut lines = vec![format!("time,series,mean{names}")];
    for (series, gaps) in &imputation.series {
        let (means, quantiles) = summary(gaps, levels);
        for (index, gap) in gaps.iter().enumerate() {
            let values: String =
                levels.iter().map(|level| format!(",{}", quantiles[&level.value().to_string()][index])).collect();
            let (time, name) = (gap.valid_time.to_rfc3339(), super::quoted(&series.name));
            lines.push(format!("{time},{name},{}{values}", means[index]));
        }
    }
    lines
}
