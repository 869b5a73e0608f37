//! `plumecast retrain`: a candidate that has to beat the champion of its panel.

use std::ops::ControlFlow;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::config::{DatabaseConfig, DeviceConfig};
use crate::db::comparison::Comparison;
use crate::progress::{is_stopped, stop_on_interrupt};
use crate::retraining::{Policy, Retrained, Retraining, retrain};
use crate::telemetry;

/// Train a candidate, compare it with the champion on windows that neither has seen, and promote it if it is better.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Steps to learn and to compare; those of the champion when not given.
    #[arg(long, value_name = "STEPS")]
    pub horizon: Option<usize>,

    /// TOML file with the rules; the flags below win over it.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Windows at the end of the data that are kept out of training and compared.
    #[arg(long, value_name = "N")]
    pub windows: Option<usize>,

    /// Begin with the weights of the champion, where they fit and enough has come since it was trained.
    #[arg(long)]
    pub warm_start: bool,

    /// Minutes to train.
    #[arg(long, value_name = "MINUTES")]
    pub train_minutes: Option<f64>,

    /// Optimiser steps to train instead of minutes: the same on every run.
    #[arg(long, value_name = "STEPS", conflicts_with = "train_minutes")]
    pub train_steps: Option<usize>,

    /// Seed of training and of the forecasts of the windows.
    #[arg(long)]
    pub seed: Option<u64>,

    /// Use only what was known at this instant (RFC 3339); now when not given.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,

    /// Where the models compute.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

impl Args {
    fn policy(&self) -> anyhow::Result<Policy> {
        let mut policy: Policy = match &self.policy {
            Some(path) => super::read_toml(path, "retraining policy")?,
            None => Policy::default(),
        };
        policy.windows = self.windows.unwrap_or(policy.windows);
        policy.seed = self.seed.unwrap_or(policy.seed);
        policy.warm_start |= self.warm_start;
        if let Some(minutes) = self.train_minutes {
            (policy.train_minutes, policy.train_steps) = (minutes, None);
        }
        policy.train_steps = self.train_steps.or(policy.train_steps);
        Ok(policy)
    }
}

/// Retrains, and prints the comparison and what was decided.
///
/// # Errors
/// When the panel is unknown or too short, the policy cannot be meant, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let order = Retraining {
        panel: args.panel.clone(),
        horizon: args.horizon,
        as_of: args.as_of.unwrap_or_else(Utc::now),
        policy: args.policy()?,
    };
    let database = super::open(&args.database).await?;
    stop_on_interrupt();
    let mut last_text = String::new();
    let report = move |share: f64, text: &str| {
        if text != last_text {
            telemetry::note(format_args!("{:3.0} % {text}", 100.0 * share));
            text.clone_into(&mut last_text);
        }
        if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (pool, artefacts) = (database.pool(), args.database.artefacts()?);
    let retrained = async {
        let judged = retrain(pool, &artefacts, &device, &order, report).await?;
        judged.beginning_told().into_iter().for_each(|line| telemetry::note(format_args!("{line}")));
        let mut transaction = pool.begin().await?;
        let retrained = judged.store(&mut transaction, pool, &artefacts).await?;
        transaction.commit().await?;
        Ok::<_, anyhow::Error>(retrained)
    }
    .await;
    database.close().await;
    Ok(super::say(&describe(&args.panel, &retrained?))?)
}

/// The comparison as text: a line for each window, then the decision.
fn describe(panel: &str, Retrained { model, comparison }: &Retrained) -> String {
    let Comparison { issue_times, reference, .. } = comparison;
    let mut lines =
        vec![format!("{:25} {:>10} {:>10}  coverage_80 of both", "window", "candidate", reference.as_str())];
    for (window, issue_time) in issue_times.iter().enumerate() {
        lines.push(format!(
            "{:25} {:>10.4} {:>10.4}  {:.2} {:.2}{}",
            issue_time.to_rfc3339(),
            comparison.candidate_crps[window],
            comparison.reference_crps[window],
            comparison.candidate_coverage_80[window],
            comparison.reference_coverage_80[window],
            if comparison.is_fair[window] { "" } else { "  the champion has learned from it" },
        ));
    }
    let flag = if comparison.is_flagged { " (look at it)" } else { "" };
    let Comparison { decision, reason, .. } = comparison;
    lines.push(format!("version {} of panel `{panel}` is {}, {decision}{flag}: {reason}", model.version, model.stage));
    lines.join("\n")
}
