//! `plumecast serve`: REST, page and metrics, and a worker.

use anyhow::Context;
use tokio::sync::watch;

use super::work;
use crate::server::StopHandle;
use crate::{Application, Config, telemetry};

/// Serves until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// When there is no database, or the address is taken.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    telemetry::init(config.log_format, telemetry::SERVICE);
    let database = super::open(&config.database).await?;
    let application = Application::build(config, database.pool().clone())?;
    tracing::info!("listening on http://{}", application.address());
    let worker = work::start_beside(config, &database, &application).await?;
    stop_on_signal(application.stop_handle(), worker.as_ref())?;
    let result = application.run().await.context("serving");
    if let Some(worker) = worker {
        worker.stop().await;
    }
    database.close().await;
    result
}

/// Stops the service, and the worker beside it, on SIGINT or SIGTERM.
///
/// # Errors
/// When the system lets no handler be set.
pub(super) fn stop_on_signal(stop: StopHandle, worker: Option<&work::Handle>) -> anyhow::Result<()> {
    let signal = work::stop_signal()?;
    let worker_stop = worker.map(work::Handle::stopper);
    tokio::spawn(async move {
        signal.await;
        tracing::info!("stopping");
        stop_both(stop, worker_stop).await;
    });
    Ok(())
}

/// Stops the worker, which hands its jobs back, and then the service beside it: connections of the pool that the service opened end
/// with it, and the worker may have one of them.
pub(super) async fn stop_both(service: StopHandle, worker: Option<watch::Sender<bool>>) {
    if let Some(worker) = worker {
        worker.send_replace(true);
        worker.closed().await;
    }
    service.stop().await;
}
