//! `plumecast models`: the models of a panel, and what becomes of them.

use std::fmt::Write;
use std::ops::ControlFlow;

use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::artefacts::Artefacts;
use crate::backtesting;
use crate::config::{DatabaseConfig, DeviceConfig, Limits};
use crate::db::{self, DEFAULT_TENANT, model::Model};
use crate::jobs::Task;
use crate::jobs::backtest::BacktestOrder;
use crate::progress::{is_stopped, stop_on_interrupt};
use crate::registry;
use crate::table;

/// Most models that are listed.
const N_LISTED_MAX: i64 = 1000;

/// List, promote, roll back, test, archive or delete the models of a panel.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with models.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the models of a panel, the newest first.
    List(PanelArgs),
    /// Make a model the champion; the one that serves is archived.
    Promote(ModelArgs),
    /// Put the model that the champion replaced in its place again.
    Rollback(PanelArgs),
    /// Set a model aside that does not serve.
    Archive(ModelArgs),
    /// Test a model on the last windows of its panel, each as known then, and store what came out.
    Backtest(Box<BacktestArgs>),
    /// Delete a model that does not serve and has made no stored forecast, with its files.
    Delete(ModelArgs),
}

/// A panel.
#[derive(Debug, clap::Args)]
pub struct PanelArgs {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// A model of a panel.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Version of the model.
    #[arg(long, value_name = "N")]
    pub version: i32,

    /// Its panel, and where the data are.
    #[command(flatten)]
    pub panel: PanelArgs,
}

/// A backtest of a model.
#[derive(Debug, clap::Args)]
pub struct BacktestArgs {
    /// Version of the model; the champion when not given.
    #[arg(long, value_name = "N")]
    pub version: Option<i32>,

    /// Steps of a window; those that the model learned when not given.
    #[arg(long, value_name = "STEPS")]
    pub horizon: Option<usize>,

    /// Windows, which follow each other and end with what is known.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub windows: usize,

    /// Trajectories of each window.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub num_samples: usize,

    /// Seed of the first window; each has the next one.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Use only what was known at this instant (RFC 3339); now when not given.
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Its panel, and where the data are.
    #[command(flatten)]
    pub panel: PanelArgs,
}

impl Action {
    fn panel(&self) -> &PanelArgs {
        match self {
            Self::Backtest(args) => &args.panel,
            Self::List(panel) | Self::Rollback(panel) => panel,
            Self::Promote(model) | Self::Archive(model) | Self::Delete(model) => &model.panel,
        }
    }
}

/// Does it, and prints what came of it.
///
/// # Errors
/// When there is no such panel or model, it may not be done, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let PanelArgs { panel, database: config } = args.action.panel();
    let database = super::open(config).await?;
    let done = act(database.pool(), &config.artefacts()?, panel, &args.action).await;
    database.close().await;
    Ok(super::say(&done?)?)
}

/// Tests a model; Ctrl-C ends it with nothing stored.
async fn test(pool: &PgPool, args: &BacktestArgs) -> anyhow::Result<String> {
    let PanelArgs { panel, database } = &args.panel;
    let now = Utc::now();
    let order = BacktestOrder {
        panel: panel.clone(),
        version: args.version,
        horizon: args.horizon,
        windows: args.windows,
        num_samples: args.num_samples,
        seed: args.seed,
        as_of: args.as_of,
    };
    let limits = Limits::default();
    order.check(&limits)?;
    let device = args.device.open()?;
    stop_on_interrupt();
    let report = |_: f64, _: &str| if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let order = order.order(now, limits.job_cost_max);
    let found = backtesting::backtest(pool, &database.artefacts()?, &device, &order, report).await?;
    let row = found.row(Uuid::now_v7(), now)?;
    db::backtest::insert(pool, DEFAULT_TENANT, &row).await?;
    let mut text = format!("{:25} {:>10} {:>14}  coverage_80 of both", "window", "plumecast", "seasonal_naive");
    let number = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"));
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"));
    for (window, issue_time) in row.issue_times.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:25} {:>10} {:>14}  {} {}{}",
            issue_time.to_rfc3339(),
            number(row.crps[window]),
            number(row.naive_crps[window]),
            share(row.coverage_80[window]),
            share(row.naive_coverage_80[window]),
            if row.is_fair[window] { "" } else { "  the model has learned from it" },
        );
    }
    let version = found.model.version;
    Ok(format!(
        "{text}\n\n{}\nbacktest {} of version {version} of panel `{panel}`",
        table::scores(&found.rows),
        row.backtest_id
    ))
}

async fn act(pool: &PgPool, artefacts: &Artefacts, panel: &str, action: &Action) -> anyhow::Result<String> {
    const REASON: &str = "by `plumecast models`";
    let find = async |args: &ModelArgs| registry::find(pool, panel, &args.version.to_string()).await;
    match action {
        Action::List(_) => {
            let panel = registry::find_panel(pool, panel).await?;
            let models = db::model::list(pool, DEFAULT_TENANT, panel.panel_id, None, N_LISTED_MAX).await?;
            Ok(table(&models))
        }
        Action::Promote(args) => {
            let (panel, model) = find(args).await?;
            let model = registry::promote(pool, artefacts, &panel, &model, &format!("promoted {REASON}")).await?;
            Ok(table(&[model]))
        }
        Action::Rollback(_) => {
            let panel = registry::find_panel(pool, panel).await?;
            Ok(table(&[registry::roll_back(pool, artefacts, &panel, None).await?]))
        }
        Action::Backtest(args) => test(pool, args).await,
        Action::Archive(args) => {
            let (panel, model) = find(args).await?;
            Ok(table(&[registry::archive(pool, &panel, &model, &format!("archived {REASON}")).await?]))
        }
        Action::Delete(args) => {
            let (panel, model) = find(args).await?;
            registry::delete(pool, artefacts, &panel, &model).await?;
            Ok(format!("version {} of panel `{}` is deleted", model.version, panel.name))
        }
    }
}

/// Models as text, a line each.
fn table(models: &[Model]) -> String {
    let mut text =
        format!("{:>7}  {:9}  {:>6}  {:20}  {:>10}  reason", "version", "stage", "parent", "data cutoff", "bytes");
    for model in models {
        let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{:>7}  {:9}  {:>6}  {:20}  {:>10}  {}",
            model.version,
            model.stage,
            or_dash(model.parent_version.map(|version| version.to_string())),
            model.data_cutoff.to_rfc3339_opts(SecondsFormat::Secs, true),
            or_dash(model.artefact_bytes.map(|bytes| bytes.to_string())),
            model.reason.as_deref().unwrap_or_default(),
        );
    }
    text
}
