//! `plumecast work`: jobs and schedules, without REST.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use chrono::Utc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{DatabaseConfig, DeviceConfig, Limits, LogFormat, PipelineConfig, WorkerConfig};
use crate::database::Database;
use crate::jobs::worker::{Worker, this_program};
use crate::jobs::{Settings, scheduler};
use crate::metrics::Metrics;
use crate::{Application, Config, Error, config, telemetry};

/// Do jobs. Any number of such processes may share a database, on one machine or on several.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TOML file with values for any of the flags.
    #[arg(long, env = "PLUMECAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How log lines are written to standard error.
    #[arg(long, env = "PLUMECAST_LOG_FORMAT", value_enum, default_value_t = Config::default().log_format)]
    pub log_format: LogFormat,

    /// How jobs are done.
    #[command(flatten)]
    pub worker: WorkerConfig,

    /// Where models compute.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Where pipelines are.
    #[command(flatten)]
    pub pipelines: PipelineConfig,

    /// What may be asked for.
    #[command(flatten)]
    pub limits: Limits,
}

/// Does jobs until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// When there is no database.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    telemetry::init(args.log_format, telemetry::SERVICE);
    args.device.open()?;
    let database = super::open(&args.database).await?;
    let url = url(&database, &args.database)?;
    let metrics = Metrics::new().context("setting up the metrics")?;
    let settings =
        Settings::new(url, &args.database, &args.pipelines, args.device, &args.limits, &args.worker, args.log_format);
    if let Some(file) = &args.config {
        declare_schedules(&database, file, &args.limits).await?;
    }
    let signal = stop_signal()?;
    let worker = Handle::start(&database, args.worker.clone(), settings, args.limits.clone(), metrics);
    signal.await;
    tracing::info!("stopping");
    worker.stop().await;
    database.close().await;
    Ok(())
}

/// A worker that runs in the background.
pub(super) struct Handle {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Handle {
    fn start(database: &Database, config: WorkerConfig, settings: Settings, limits: Limits, metrics: Metrics) -> Self {
        let worker = Worker {
            pool: database.pool().clone(),
            config,
            settings,
            limits,
            program: this_program(),
            clock: Arc::new(Utc::now),
            metrics,
        };
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(worker.run(stopped)) }
    }

    /// Tells the worker to stop, from elsewhere; closed once it has.
    pub(super) fn stopper(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Lets the worker hand its jobs back, and waits until it has.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!("the worker failed: {error}");
        }
    }
}

/// Stores the schedules of the configuration file, and starts a worker beside a service, if the configuration wants one.
///
/// # Errors
/// Those of [`declare_schedules`].
pub(super) async fn start_beside(
    config: &Config,
    database: &Database,
    application: &Application,
) -> anyhow::Result<Option<Handle>> {
    if let Some(file) = &config.config {
        declare_schedules(database, file, &config.limits).await?;
    }
    if !config.with_worker {
        return Ok(None);
    }
    let url = url(database, &config.database)?;
    let settings = Settings::new(
        url,
        &config.database,
        &config.pipelines,
        config.device,
        &config.limits,
        &config.worker,
        config.log_format,
    );
    Ok(Some(Handle::start(
        database,
        config.worker.clone(),
        settings,
        config.limits.clone(),
        application.metrics().clone(),
    )))
}

/// Stores the schedules that a configuration file declares. Those that it does not declare stay as they are.
///
/// # Errors
/// When the file cannot be read, or a schedule in it is wrong. One whose panel is not there yet is left for the next start.
async fn declare_schedules(database: &Database, file: &Path, limits: &Limits) -> anyhow::Result<()> {
    for declaration in config::schedules(file)? {
        let mut connection = database.pool().acquire().await?;
        match scheduler::declare(&mut connection, &declaration, limits, Utc::now()).await {
            Ok(_) => {}
            Err(Error::UnknownPanel { panel }) => {
                tracing::warn!("schedule {} is left out: there is no panel `{panel}` yet", declaration.name);
            }
            Err(error) => {
                let place = format!("schedule `{}` in {}", declaration.name, file.display());
                return Err(error).context(place);
            }
        }
    }
    Ok(())
}

/// Where the opened database is.
fn url(database: &Database, config: &DatabaseConfig) -> anyhow::Result<String> {
    let given = config.database_url.as_ref().map(|url| url.expose().to_owned());
    given.or_else(|| database.private_url()).context("the database has no address")
}

/// Waits for SIGINT or SIGTERM, from now on.
///
/// # Errors
/// When the system lets no handler be set.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
