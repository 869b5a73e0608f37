//! `plumecast bench`: how fast this machine computes, beside what it could reach.

use std::path::PathBuf;

use anyhow::Context;
use forecast::bench::{self, Measurement};
use serde::Serialize;

use crate::config::DeviceConfig;

/// Measure speeds on this machine, which should be idle. Takes less than two minutes then.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is measured.
    #[arg(value_enum, default_value_t = Suite::Model)]
    pub suite: Suite,

    /// Observations that `ingest` generates.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    pub rows: u32,

    /// Values of forecasts that `service` and `dashboards` store before they read.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100_000..))]
    pub values: u32,

    /// Folder of the dashboards.
    #[arg(long, value_name = "FOLDER", default_value = "dashboards")]
    pub dashboards: PathBuf,

    /// Print a JSON object per line instead of a table.
    #[arg(long)]
    pub json: bool,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Training and sampling of the default model, as shares of the rate of their matrix products.
    Model,
    /// Reading files beside Polars alone, storing beside `COPY`, and memory.
    Ingest,
    /// Storing a forecast beside `COPY`, reading the latest forecasts of many, and requests while models change.
    Service,
    /// The queries of each panel of the dashboards, on many stored forecasts.
    Dashboards,
}

/// A measurement as other programs read it.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) suite: &'static str,
    pub(super) name: &'a str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) reference: &'static str,
    pub(super) reference_value: f64,
    pub(super) ratio: f64,
    /// The ratio asked for, if one is.
    pub(super) goal: Option<f64>,
}

impl<'a> Line<'a> {
    fn of_model(measured: &'a Measurement) -> Self {
        Self {
            suite: "model",
            name: &measured.name,
            value: measured.value,
            unit: measured.unit,
            reference: Measurement::REFERENCE,
            reference_value: measured.reference_value,
            ratio: measured.ratio(),
            goal: None,
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// When there is no such device, or it fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if args.suite == Suite::Ingest {
        return super::bench_ingest::run(args.rows as usize, args.json, &args.device.open()?).await;
    }
    if args.suite == Suite::Service {
        return super::bench_service::run(args.values as usize, args.json).await;
    }
    if args.suite == Suite::Dashboards {
        return super::bench_dashboards::run(&args.dashboards, args.values as usize, args.json).await;
    }
    tokio::task::spawn_blocking(move || measure(&args)).await.context("measuring")?
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    if !args.json {
        super::say(&format!("{:22} {:>10} {:14} {:>9} {:>7}", "", "rate", "", "GFLOP/s", "share"))?;
    }
    for n_series in bench::N_SERIES {
        for measured in bench::model(n_series, &device)? {
            super::say(&if args.json { serde_json::to_string(&Line::of_model(&measured))? } else { row(&measured) })?;
        }
    }
    if !args.json {
        super::say(&format!("share: of the rate of {} on {}", Measurement::REFERENCE, args.device.device))?;
    }
    Ok(())
}

/// A row of the table; two floating point operations per multiply-add.
fn row(measured: &Measurement) -> String {
    let gflops = 2e-9 * measured.multiply_adds * measured.value;
    let Measurement { name, value, unit, .. } = measured;
    format!("{name:22} {value:>10.1} {unit:14} {gflops:>9.1} {:>7.2}", measured.ratio())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_json_line_has_the_keys_that_readers_expect() {
        let measured = Measurement {
            name: "sampling, 8 series".into(),
            value: 50.0,
            unit: "trajectories/s",
            reference_value: 200.0,
            multiply_adds: 1e6,
        };
        let line = serde_json::to_string(&Line::of_model(&measured)).expect("serialisable");
        assert!(!line.contains('\n'), "{line}");
        let read: Value = serde_json::from_str(&line).expect("JSON");
        let expected = json!({
            "suite": "model", "name": "sampling, 8 series", "value": 50.0, "unit": "trajectories/s",
            "reference": "the same matrix products alone", "reference_value": 200.0, "ratio": 0.25, "goal": null,
        });
        assert_eq!(read, expected);
        assert!(row(&measured).ends_with("0.25"), "{}", row(&measured));
    }
}
